"""What is known of the runtimes t(p, o) of one model, before it was timed and after each timing.

t(p, o) = P(p) (1 + e(p)) + (o - 1) g(p) (1 + d(p) + c log2(o - 1)) + g(p) f(p) where o > 1: P and g are a curve that is
expected, and e, d and f how far the truth lies from it, Gaussian processes: of prompt times, of times per output token,
and of what the first tokens take besides; c is what a token takes longer where there are twice as many. Timings are
linear in them, so what is known afterwards is Gaussian again: kriging, or the best linear unbiased prediction (Santner,
Williams and Notz, The Design and Analysis of Computer Experiments, 2018, Chapter 3). The interval between timed sizes
is that of e there: as wide as curves were found to bend.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from idealized_runtime.design.deviations import EXPONENTS, UNKNOWN, Deviations, Pattern
from idealized_runtime.fits.interpolation import coordinate
from idealized_runtime.records.common import TOKEN_COLUMNS
from idealized_runtime.statistics.intervals import half_width

# What is learned of other models holds of this one but for a factor, and its noise differs from theirs by another:
# both are tried on these grids and weighed by how likely they make the timings. Tokens have a factor besides.
_SCALES = 2.0 ** np.arange(-1, 4.1, 0.5)
_NOISE_FACTORS = 2.0 ** np.arange(-3, 5.1, 0.5)
_SETTING_FACTORS = 2.0 ** np.arange(-3, 3)
_TOKEN_SCALES = 2.0 ** np.arange(4)
# As if these factors were known by so many degrees of freedom.
_SCALE_DOF, _TOKEN_DOF = 6.0, 3.0
# Trials of one setting scatter by more or less than those of queries of its length do, as if the variance that all have
# were known by so many degrees of freedom: printed deviations of the published logs do so.
_SCATTER_DOF = 3.0
_LEAST_WEIGHT = 1e-2
# What trials of a visit share of their variance before there are visits to tell it, as if so many settings had shown it
# by two visits of two trials each; and at most.
_VISIT_SHARE, _VISIT_SETTINGS, _MOST_VISIT_SHARE = 0.3, 3, 0.9


@dataclass(frozen=True, eq=False)
class Prior:
    """What is expected of a model before it is timed.

    Parameters
    ----------
    expected : callable
        From arrays of p and o to runtimes, s; as ``predict`` of any model of runtimes.
    deviations : Deviations
    pattern : Pattern, optional
        What other models of the machine have in common beyond ``expected``.
    """

    expected: Callable
    deviations: Deviations = UNKNOWN
    pattern: Pattern | None = None

    def moments(self, sizes) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of e at each of K sizes and, behind it, of d and of f; and of c: 3 K + 1 parameters."""
        count, known = len(sizes), self.deviations
        mean, covariance = np.zeros(3 * count + 1), np.zeros((3 * count + 1,) * 2)
        covariance[-1, -1] = known.token_doubling**2
        parts = known.own_covariance, known.token_covariance, known.start_covariance
        for place, part in enumerate(parts):
            one = slice(place * count, (place + 1) * count)
            covariance[one, one] = part(sizes, sizes)
        if self.pattern is not None:
            mean[:count], shared = self.pattern.at(sizes)
            covariance[:count, :count] += shared
        return mean, covariance


@dataclass(frozen=True, eq=False)
class Component:
    """One possibility: its weight, mean and covariance of the parameters, and its noise.

    ``noise_factor``, in units of what was expected; ``exponent``, of how it falls with the length of a query;
    ``setting_factor``, of what settings' means differ from their curve by, in units of what was expected besides.
    """

    weight: float
    mean: np.ndarray
    covariance: np.ndarray
    noise_factor: float
    exponent: float
    setting_factor: float


@dataclass(frozen=True, eq=False)
class Belief:
    """Runtimes of queries whose prompt sizes are among ``sizes`` (ascending), with what is not known of them.

    A mixture of Gaussians: one for each size of deviations and noise that the timings leave possible. Behind e, d and f
    of the sizes, and c, its parameters are what each of the ``timed`` settings (rows of p and o) lies off its curve by.
    ``visit_share`` is as :func:`visit_share_of` has it.
    """

    sizes: np.ndarray
    prior: Prior
    components: tuple[Component, ...]
    timed: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))
    visit_share: float = _VISIT_SHARE

    @classmethod
    def before_timing(cls, sizes, prior: Prior) -> "Belief":
        """What is known before anything was timed."""
        sizes = np.unique(np.asarray(sizes, dtype=int))
        moments = prior.moments(sizes)
        exponents = zip(prior.deviations.trial_exponents, EXPONENTS, strict=True)
        components = (
            Component(weight / len(_SETTING_FACTORS), *moments, 1.0, exponent, factor)
            for weight, exponent in exponents
            for factor in _SETTING_FACTORS
        )
        return cls(sizes, prior, tuple(components))

    @classmethod
    def after(cls, sizes, prior: Prior, timings: pd.DataFrame) -> "Belief":
        """What is known after timings as well.

        Parameters
        ----------
        sizes : array of int
            Prompt sizes: all that were timed or are asked for.
        prior : Prior
        timings : DataFrame
            As :func:`settings_of` takes them.
        """
        belief, settings, share = cls.before_timing(sizes, prior), settings_of(timings), visit_share_of(timings)
        p, o, mean_s = (settings[name].to_numpy() for name in (*TOKEN_COLUMNS, "runtime_s"))
        relative = mean_s / prior.expected(p, o)
        known = _Timed(belief, settings, belief.rows(p, o), relative, belief.noise(mean_s), share)
        return cls(belief.sizes, prior, tuple(known.components()), np.column_stack([p, o]), share)

    @property
    def mean(self) -> np.ndarray:
        """Of the parameters, over all that is possible."""
        return sum(it.weight * it.mean for it in self.components)

    @property
    def covariance(self) -> np.ndarray:
        """Of the parameters, over all that is possible."""
        mean = self.mean
        within = sum(it.weight * it.covariance for it in self.components)
        return within + sum(it.weight * np.outer(it.mean - mean, it.mean - mean) for it in self.components)

    def noise(self, runtime_s) -> tuple[np.ndarray, np.ndarray]:
        """Variance of a trial of each query, and of its setting's mean from the curve, relative to its runtime.

        Of each component: arrays of shape (components, queries).
        """
        known, lengths = self.prior.deviations, self._lengths(runtime_s)
        trial = np.array([(it.noise_factor * known.trial / lengths**it.exponent) ** 2 for it in self.components])
        constant = np.array([it.noise_factor**2 for it in self.components])[:, None]
        factor = np.array([it.setting_factor**2 for it in self.components])[:, None]
        setting = factor * (known.setting**2 * trial + constant * known.setting_least**2)
        return trial, setting + constant * (known.setting_s / runtime_s) ** 2

    def setting_variances(self, num_prompt_tokens, num_output_tokens) -> np.ndarray:
        """The latter of :meth:`noise` of queries that were not timed: of those that were it is among the parameters."""
        setting = self.noise(self.predict(num_prompt_tokens, num_output_tokens))[1]
        return setting * (places_among(self.timed, num_prompt_tokens, num_output_tokens) < 0)

    def _lengths(self, runtime_s):
        """Runtimes in units of the shortest query's."""
        shortest_s = float(self.prior.expected(self.sizes[:1], np.ones(1))[0])
        return np.maximum(np.asarray(runtime_s) / shortest_s, 1)

    def rows(self, num_prompt_tokens, num_output_tokens) -> np.ndarray:
        """Derivatives of runtimes, over the expected ones, with respect to the parameters.

        Shape (queries, 3 K + 1 + timed settings).
        """
        p, o = np.asarray(num_prompt_tokens), np.asarray(num_output_tokens, dtype=float)
        expected_s, prompt_s = self.prior.expected(p, o), self.prior.expected(p, np.ones_like(o))
        each, place, count = np.arange(len(p)), np.searchsorted(self.sizes, p), len(self.sizes)
        rows = np.zeros((len(p), 3 * count + 1 + len(self.timed)))
        decode = 1 - prompt_s / expected_s
        rows[each, place], rows[each, count + place] = prompt_s / expected_s, decode
        rows[each, 2 * count + place] = decode / np.maximum(o - 1, 1)
        own = places_among(self.timed, p, o)
        rows[:, 3 * count] = decode * doublings(o)
        rows[each[own >= 0], 3 * count + 1 + own[own >= 0]] = 1
        return rows

    def predict(self, num_prompt_tokens, num_output_tokens) -> np.ndarray:
        """Runtime of each query, s."""
        relative = 1 + self.rows(num_prompt_tokens, num_output_tokens) @ self.mean
        return self.prior.expected(np.asarray(num_prompt_tokens), np.asarray(num_output_tokens)) * relative

    def predict_interval(self, num_prompt_tokens, num_output_tokens, *, level: float = 0.95):
        """Interval (lower, upper) of the mean runtime of each query, s: what its setting would show if timed often."""
        p, o = np.asarray(num_prompt_tokens), np.asarray(num_output_tokens)
        runtime_s, expected_s, rows = self.predict(p, o), self.prior.expected(p, o), self.rows(p, o)
        mean, settings = self.mean, self.setting_variances(p, o) * (runtime_s / expected_s) ** 2
        variances = [
            np.sum(rows @ it.covariance * rows, axis=1) + (rows @ (it.mean - mean)) ** 2 for it in self.components
        ]
        half_s = expected_s * self.half_widths(np.array(variances) + settings, level)
        return runtime_s - half_s, runtime_s + half_s

    def half_widths(self, variances, level: float) -> np.ndarray:
        """Half-widths of intervals from the variance in each component, shape (components, queries).

        By Student's t, with the degrees of freedom of a variance that spreads as it does over the components.
        """
        weights = np.array([it.weight for it in self.components])
        mean = weights @ variances
        spread = weights @ (variances - mean) ** 2
        dof = 2 * mean**2 / np.maximum(spread, 1e-6 * mean**2)
        return half_width(level, np.maximum(dof, 2.0), 0.0) * np.sqrt(mean)


@dataclass(frozen=True, eq=False)
class _Timed:
    """Timed settings as a linear model: what was observed over the expected curve, and the noise expected of it."""

    belief: Belief
    settings: pd.DataFrame
    rows: np.ndarray
    relative: np.ndarray
    noise: tuple[np.ndarray, np.ndarray]
    visit_share: float

    def components(self) -> Iterator[Component]:
        """What is possible, with the weight of each."""
        roots = [self._root(token_scale) for token_scale in _TOKEN_SCALES]
        number, together = (self.settings[name].to_numpy() for name in ("num_trials", "num_together"))
        spread = (number - 1) * (self.settings["runtime_std_s"] / self.settings["runtime_s"]).fillna(0).to_numpy() ** 2
        # Trials that share a deviation tell less of the mean, and scatter less about it.
        independent, repeats = number_of(number, together, self.visit_share), number - 1
        repeats = repeats - self.visit_share * (together - 1)
        parts, logs = [], []
        for before, trial, setting in zip(self.belief.components, *self.noise, strict=True):
            noise, setting = trial / independent * self.relative**2, setting * self.relative**2
            variance = _NOISE_FACTORS[:, None] ** 2 * trial
            of_trials = -repeats * np.log(variance) - (_SCATTER_DOF + repeats) * np.log1p(
                spread / variance / _SCATTER_DOF
            )
            of_trials = of_trials.sum(axis=1, keepdims=True) / 2 + np.log(before.weight)
            of_trials = of_trials - np.log(noise + setting).sum() / 2
            for token_scale, root in zip(_TOKEN_SCALES, roots, strict=True):
                part = _Part.of(before, root, self.rows, self.relative - 1, noise, setting)
                parts.append(part)
                weights = part.log_likelihoods() + of_trials
                of_noise = _log_odds(_NOISE_FACTORS[:, None], self.belief.prior.deviations.trial_dof)
                logs.append(weights - of_noise - _log_odds(_SCALES, _SCALE_DOF) - _log_odds(token_scale, _TOKEN_DOF))
        weights = np.exp(np.array(logs) - np.max(logs))
        weights[weights < _LEAST_WEIGHT * weights.max()] = 0
        weights /= weights.sum()
        for (place, noise, scale), weight in np.ndenumerate(weights):
            if weight:
                yield parts[place].component(weight, _NOISE_FACTORS[noise], _SCALES[scale])

    def _root(self, token_scale):
        """Square root of the covariance of the parameters before timing."""
        scales = np.append(np.repeat([1.0, token_scale, token_scale], len(self.belief.sizes)), token_scale)
        covariance = self.belief.components[0].covariance * np.outer(scales, scales)
        return np.linalg.cholesky(covariance + np.diag(1e-10 * np.diag(covariance)))


@dataclass(frozen=True, eq=False)
class _Part:
    """Timings in coordinates in which what is not known is independent, whatever its scale and that of the noise."""

    before: Component
    basis: np.ndarray
    values: np.ndarray
    turned: np.ndarray
    rest: float
    covariance: np.ndarray
    rows: np.ndarray
    observed: np.ndarray
    noise: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, before, root, rows, observed, noise, setting) -> "_Part":
        """By the singular value decomposition of the whitened design.

        ``noise`` and ``setting`` are variances of what was observed: by its trials, and by what its setting differs
        from the curve by; ``share`` is what of a misfit is the latter.
        """
        whole = noise + setting
        left, values, right = np.linalg.svd((rows @ root) / np.sqrt(whole)[:, None], full_matrices=False)
        residual = (observed - rows @ before.mean) / np.sqrt(whole)
        turned = left.T @ residual
        return cls(before, root @ right.T, values, turned, float(residual @ residual - turned @ turned), root @ root.T,
                   rows, observed, noise, setting / whole)  # fmt: skip

    def log_likelihoods(self) -> np.ndarray:
        """Of means, for each noise factor (rows) and scale."""
        noise = _NOISE_FACTORS[:, None]
        signal = (_SCALES[:, None] / noise[..., None] * self.values) ** 2
        misfit = np.sum(self.turned**2 / (1 + signal), axis=-1) + max(self.rest, 0.0)
        return -misfit / noise**2 / 2 - np.log1p(signal).sum(-1) / 2 - len(self.observed) * np.log(noise)

    def component(self, weight, noise, scale) -> Component:
        """What is known of the parameters with this noise and scale."""
        signal = (scale / noise * self.values) ** 2
        mean = self.before.mean + self.basis @ (signal / (1 + signal) * self.turned / np.maximum(self.values, 1e-300))
        covariance = scale**2 * (self.covariance - self.basis * (signal / (1 + signal)) @ self.basis.T)
        # What settings lie off the curve by, given the curve, are shares of the misfits; the rest of those is noise.
        own = self.share * (self.observed - self.rows @ mean)
        across = -covariance @ self.rows.T * self.share
        of_own = -self.share[:, None] * (self.rows @ across) + np.diag(self.share * self.noise * noise**2)
        whole = np.block([[covariance, across], [across.T, of_own]])
        return Component(weight, np.append(mean, own), whole, noise, self.before.exponent, self.before.setting_factor)


def _log_odds(factor, dof):
    """Minus the logarithm of the density of the logarithm of a factor whose square is an inverse chi-square about 1."""
    return dof * (np.log(factor) + 1 / factor**2 / 2)


def doublings(num_output_tokens) -> np.ndarray:
    """How often the tokens after the first are twice as many as one."""
    return np.log2(np.maximum(np.asarray(num_output_tokens, dtype=float) - 1, 1))


def places_among(settings, num_prompt_tokens, num_output_tokens) -> np.ndarray:
    """Rows of settings (p and o) that have the sizes of queries, -1 where there is none."""
    known, asked = (
        pd.MultiIndex.from_arrays([np.asarray(it, dtype=float) for it in pair])
        for pair in (np.asarray(settings).T, (num_prompt_tokens, num_output_tokens))
    )
    return known.get_indexer(asked)


def settings_of(timings: pd.DataFrame) -> pd.DataFrame:
    """One row a setting: its tokens, ``runtime_s, runtime_std_s, num_trials`` and ``num_together``.

    Of the last, each trial counts the trials of its visit; the mean of that.

    Parameters
    ----------
    timings : DataFrame
        One row a trial (``num_prompt_tokens, num_output_tokens, trial, runtime_s``); or one row a setting, as from
        ``read_log``. Where the number of its trials is not known, as in logs of 2023, it counts as one. When trials
        started, as logs tell it, says which of them are one visit's; without that each is one of its own where there
        is a row a trial, and a setting is one visit where there is a row a setting.
    """
    if "trial" in timings:
        settings = timings.groupby(TOKEN_COLUMNS)["runtime_s"].agg(["mean", "std", "size"]).reset_index()
        settings = settings.rename(columns={"mean": "runtime_s", "std": "runtime_std_s", "size": "num_trials"})
    else:
        settings = timings.reindex(columns=[*TOKEN_COLUMNS, "runtime_s", "runtime_std_s", "num_trials"])
        for name in ("runtime_s", "runtime_std_s", "num_trials"):
            settings[name] = pd.to_numeric(settings[name]).astype(float)
        settings["num_trials"] = settings["num_trials"].fillna(1.0)
        settings = settings.astype(dict.fromkeys(TOKEN_COLUMNS, "int64"))
    sizes = visits_of(timings).groupby(TOKEN_COLUMNS)["num_trials"]
    together = sizes.agg(lambda numbers: (numbers**2).sum() / numbers.sum()).rename("num_together")
    settings = settings.join(together, on=TOKEN_COLUMNS)
    return settings.fillna({"num_together": 1.0 if "trial" in timings else settings["num_trials"]})


def visits_of(timings: pd.DataFrame) -> pd.DataFrame:
    """One row a visit, trials of a setting that follow each other: ``num_prompt_tokens, num_output_tokens``,
    ``num_trials``, and their mean and sum of squares about it, ``mean_s`` and ``squares_s2``. Empty where nobody
    knows when trials started.
    """
    if "trial" in timings:
        trials = timings.reindex(columns=[*TOKEN_COLUMNS, "trial_start_s", "runtime_s"])
    else:
        trials = timings.reindex(columns=[*TOKEN_COLUMNS, "trial_starts_s", "trial_runtimes_s"])
        trials.columns = [*TOKEN_COLUMNS, "trial_start_s", "runtime_s"]
        is_known = trials["trial_start_s"].map(lambda starts_s: isinstance(starts_s, tuple)).astype(bool)
        trials = trials[is_known].explode(["trial_start_s", "runtime_s"])
        trials = trials.astype({"trial_start_s": float, "runtime_s": float})
    trials = trials.dropna().sort_values([*TOKEN_COLUMNS, "trial_start_s"])
    of_setting = trials.groupby(TOKEN_COLUMNS)
    # A warm-up, if nothing else, comes before the next visit: it takes as long as a trial.
    waited_s = trials["trial_start_s"] - of_setting["trial_start_s"].shift() - of_setting["runtime_s"].shift()
    is_first = ~(waited_s < trials["runtime_s"] / 2)
    visits = trials.groupby([*TOKEN_COLUMNS, is_first.cumsum().rename("visit")])["runtime_s"]
    visits = visits.agg(num_trials="size", mean_s="mean", squares_s2="var").reset_index()
    return visits.assign(squares_s2=(visits["num_trials"] - 1) * visits["squares_s2"].fillna(0.0))


def visit_share_of(timings: pd.DataFrame) -> float:
    """Share of the variance of trials that trials of one visit have in common: their correlation.

    A machine is quicker or slower for seconds: trials that follow each other agree better than those of another visit.
    By the squares of trials about the means of visits and of settings, pooled over settings (Searle, Casella and
    McCulloch, Variance Components, 1992, Chapter 3), and some that are expected beforehand.
    """
    visits = visits_of(timings)
    if visits.empty:
        return 0.0 if "trial" in timings else _VISIT_SHARE
    number, by_setting = visits["num_trials"], visits.groupby(TOKEN_COLUMNS)
    counts = by_setting["num_trials"].transform("sum")
    mean_s = (number * visits["mean_s"]).groupby([visits[name] for name in TOKEN_COLUMNS]).transform("sum") / counts
    within = np.sum(visits["squares_s2"] / mean_s**2)
    total = within + np.sum(number * (visits["mean_s"] / mean_s - 1) ** 2)
    num_within, num_total = number.sum() - len(visits), number.sum() - len(by_setting)
    in_common = np.sum(number**2 / counts) - len(by_setting)
    # Expected of k settings with two visits of two trials each, of the variance that is seen.
    k, variance = _VISIT_SETTINGS, total / num_total if total > 0 else 1.0
    within += 2 * k * (1 - _VISIT_SHARE) * variance
    total += (3 - _VISIT_SHARE) * k * variance
    num_within, num_total, in_common = num_within + 2 * k, num_total + 3 * k, in_common + k
    # Within visits the squares are (1 - share) num_within, about settings num_total - share in_common variances.
    share = (total * num_within - within * num_total) / (total * num_within - within * in_common)
    return float(np.clip(share, 0, _MOST_VISIT_SHARE))


def number_of(num_trials, num_together, visit_share):
    """Trials without anything in common that would tell the mean of a setting as well as these."""
    return num_trials / (1 + visit_share * (num_together - 1))


def floor_and_line(timings: pd.DataFrame) -> Callable:
    """Expected curve from the timings themselves: a floor, lines in tokens and in tiles of them, and a
    time per output token.

    Least squares of relative errors, no coefficient negative.
    """
    from scipy.optimize import nnls

    def terms(p, o):
        p, o = np.asarray(p, dtype=float), np.asarray(o, dtype=float)
        return np.column_stack([np.ones_like(p), p, coordinate(p, 1.0), o - 1, (o - 1) * p])

    runtime_s = timings["runtime_s"].to_numpy()
    design = terms(*(timings[name] for name in TOKEN_COLUMNS)) / runtime_s[:, None]
    scale = np.linalg.norm(design, axis=0)
    scale[scale == 0] = 1.0
    coefficients = nnls(design / scale, np.ones(len(runtime_s)))[0] / scale
    return lambda p, o: terms(p, o) @ coefficients
