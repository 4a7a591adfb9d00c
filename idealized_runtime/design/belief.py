"""What is known of the runtimes t(p, o) of one model, before it was timed and after each timing.

t(p, o) = P(p) (1 + e(p)) + (o - 1) g(p) (1 + a + b (p - r) / r): P and g are a curve that is expected, and e, a and b
how far the truth lies from it, Gaussian. Timings are linear in e, a and b, so what is known after them is Gaussian
again: kriging, or the best linear unbiased prediction (Santner, Williams and Notz 2018, Sections 2 and 3). The
interval between timed sizes is that of e there: as wide as curves were found to bend.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from idealized_runtime.fits.interpolation import TILE_SHARE, coordinate
from idealized_runtime.records.common import TOKEN_COLUMNS
from idealized_runtime.statistics.intervals import half_width


@dataclass(frozen=True)
class Deviations:
    """How far runtimes lie from a curve that is expected: standard deviations, relative to it.

    Parameters
    ----------
    level : float
        Of all prompt times together.
    smooth, smooth_octaves : float
        Of what bends slowly with the prompt size, and over so many doublings of it.
    near, near_tokens : float
        Of what neighbouring sizes share, and over so many tokens.
    single : float
        Of one size alone.
    token, token_slope : float
        Of the time per output token, and of its change from half to all of the longest prompt.
    setting : float
        Of the mean runtime of one (p, o) from its curve, however often it is timed.
    trial, trial_dof : float
        Of one trial from the mean of its setting, and how many degrees of freedom that is known by.
    """

    level: float
    smooth: float
    smooth_octaves: float
    near: float
    near_tokens: float
    single: float
    token: float
    token_slope: float
    setting: float
    trial: float
    trial_dof: float

    def prompt_covariance(self, sizes, others) -> np.ndarray:
        """Covariance of e at some prompt sizes with e at others."""
        sizes, others = (np.asarray(values, dtype=float)[:, None] for values in (sizes, others))
        # Below a tile, sizes hardly differ in what the device does.
        octaves = np.abs(np.log2(sizes + 32) - np.log2(others + 32).T) / self.smooth_octaves
        tokens = np.abs(sizes - others.T)
        bent = self.smooth**2 * (1 + np.sqrt(3) * octaves) * np.exp(-np.sqrt(3) * octaves)
        near = self.near**2 * np.exp(-tokens / self.near_tokens)
        return self.level**2 + bent + near + self.single**2 * (tokens == 0)


# Nothing is known but that times rise with the size: of a model whose machine has no logs of others.
UNKNOWN = Deviations(
    level=0.5, smooth=0.1, smooth_octaves=2.0, near=0.02, near_tokens=128.0, single=0.005,
    token=0.5, token_slope=0.2, setting=0.003, trial=0.02, trial_dof=2.0,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Belief:
    """Mean and covariance of e at each of ``sizes``, of a and of b.

    Parameters
    ----------
    sizes : int array (K,)
        Prompt sizes, ascending: all that are timed or asked for.
    expected : callable
        From arrays of p and o to the runtimes (s) of the expected curve.
    deviations : Deviations
    mean : float array (K + 2,)
    covariance : float array (K + 2, K + 2)
    trial, trial_dof : float
        Relative standard deviation of a trial, as timings and what was known before have it.
    """

    sizes: np.ndarray
    expected: Callable
    deviations: Deviations
    mean: np.ndarray
    covariance: np.ndarray
    trial: float
    trial_dof: float

    @classmethod
    def before_timing(cls, sizes, expected: Callable, deviations: Deviations) -> "Belief":
        """What is known before anything was timed."""
        sizes = np.unique(np.asarray(sizes, dtype=int))
        covariance = np.zeros((len(sizes) + 2,) * 2)
        covariance[:-2, :-2] = deviations.prompt_covariance(sizes, sizes)
        covariance[-2, -2], covariance[-1, -1] = deviations.token**2, deviations.token_slope**2
        return cls(sizes, expected, deviations, np.zeros(len(sizes) + 2), covariance, deviations.trial,
                   deviations.trial_dof)  # fmt: skip

    def after(self, timings: pd.DataFrame) -> "Belief":
        """What is known after these timings, one row a trial, as well.

        The spread of trials about their settings' means updates what was known of it, in proportion to degrees of
        freedom.
        """
        settings = timings.groupby(TOKEN_COLUMNS)["runtime_s"].agg(["mean", "var", "size"]).reset_index()
        further = (settings["size"] - 1).to_numpy()
        squares = np.nansum(further * settings["var"] / settings["mean"] ** 2)
        dof = self.trial_dof + further.sum()
        trial = float(np.sqrt((self.trial_dof * self.trial**2 + squares) / dof))
        p, o = (settings[name].to_numpy() for name in TOKEN_COLUMNS)
        rows, expected_s = self.rows(p, o), self.expected(p, o)
        # Relative to the expected curve, as the rows are; noise is a share of the runtime itself.
        observed = settings["mean"].to_numpy() / expected_s
        noise = (trial**2 / settings["size"].to_numpy() + self.deviations.setting**2) * observed**2
        known = rows @ self.covariance
        gain = np.linalg.solve(known @ rows.T + np.diag(noise), known).T
        mean = self.mean + gain @ (observed - 1 - rows @ self.mean)
        covariance = self.covariance - gain @ known
        return Belief(self.sizes, self.expected, self.deviations, mean, (covariance + covariance.T) / 2, trial, dof)

    def rows(self, num_prompt_tokens, num_output_tokens) -> np.ndarray:
        """Derivatives of runtimes over the expected ones with respect to e, a and b: shape (queries, K + 2)."""
        p, o = np.asarray(num_prompt_tokens), np.asarray(num_output_tokens)
        total_s, prompt_s = self.expected(p, o), self.expected(p, np.ones_like(o))
        rows = np.zeros((len(p), len(self.sizes) + 2))
        rows[np.arange(len(p)), np.searchsorted(self.sizes, p)] = prompt_s / total_s
        rows[:, -2] = 1 - prompt_s / total_s
        middle = self.sizes[-1] / 2
        rows[:, -1] = rows[:, -2] * (p - middle) / middle
        return rows

    def predict(self, num_prompt_tokens, num_output_tokens) -> np.ndarray:
        """Runtime of each query, s; their prompt sizes are among ``sizes``."""
        p, o = np.asarray(num_prompt_tokens), np.asarray(num_output_tokens)
        return self.expected(p, o) * (1 + self.rows(p, o) @ self.mean)

    def relative_errors(self, num_prompt_tokens, num_output_tokens) -> np.ndarray:
        """Standard error of the mean runtime of each query, relative to it."""
        rows = self.rows(num_prompt_tokens, num_output_tokens)
        variance = np.einsum("ij,jk,ik->i", rows, self.covariance, rows)
        return np.sqrt(np.maximum(variance, 0) / (1 + rows @ self.mean) ** 2 + self.deviations.setting**2)

    def half_width(self, level: float) -> float:
        """Half-width of an interval in standard errors, by Student's t."""
        return float(half_width(level, self.trial_dof, 0.0))


def floor_and_line(timings: pd.DataFrame) -> Callable:
    """Expected curve from the timings themselves: a floor, a line in tokens and tiles, and a time per output token.

    Least squares of relative errors, no coefficient negative.
    """
    from scipy.optimize import nnls

    def terms(p, o):
        p, o = np.asarray(p, dtype=float), np.asarray(o, dtype=float)
        return np.column_stack([np.ones_like(p), coordinate(p, TILE_SHARE), o - 1, (o - 1) * p])

    runtime_s = timings["runtime_s"].to_numpy()
    design = terms(*(timings[name] for name in TOKEN_COLUMNS)) / runtime_s[:, None]
    scale = np.linalg.norm(design, axis=0)
    scale[scale == 0] = 1.0
    coefficients = nnls(design / scale, np.ones(len(runtime_s)))[0] / scale
    return lambda p, o: terms(p, o) @ coefficients
