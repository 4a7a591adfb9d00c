"""The whole model from timings of some of its layers.

Layers are identical, so one slice scales with depth, as arXiv:2305.02440 scales its largest model. Embedding, logits
and sampling then count once for every slice the model is cut into; a line through two slices or more counts them
once, as its value at no layers.
"""

import warnings

import numpy as np
import pandas as pd

from idealized_runtime.records.common import (
    IDENTITY_COLUMNS,
    PARALLELISM_COLUMNS,
    SETTING_COLUMNS,
    IncompleteLogWarning,
    LogFormatError,
    SliceWarning,
    setting_name,
)
from idealized_runtime.statistics.intervals import satterthwaite_dof

_SCALED = ["runtime_s", "runtime_min_s", "prompt_encoding_time_s", "generation_time_s", "energy_joules"]
_KEYS = [*IDENTITY_COLUMNS, *SETTING_COLUMNS, *PARALLELISM_COLUMNS]
# A negative intercept within two standard errors is noise.
_NOISE_STANDARD_ERRORS = 2.0


def combine_slices(path, slices: pd.DataFrame, num_layers: int, *, num_slices: int) -> pd.DataFrame:
    """One row a setting, of the whole model.

    Parameters
    ----------
    path : path-like
        Of the log, for messages.
    slices : DataFrame
        One row a setting and slice: the columns of a setting, ``num_layers_profiled``, mean, standard
        deviation, minimum and number of its trials, and the means of the two parts of a runtime and of its energy.
    num_layers : int
        Of the whole model.
    num_slices : int
        That were asked for; of several, one that failed throughout is no point of the line.

    Returns
    -------
    DataFrame
        One slice: its times scaled with depth. Several: the least-squares line through their trials at full
        depth, with ``runtime_std_s`` and ``num_trials`` such that ``runtime_std_s / sqrt(num_trials)`` is the
        standard error of that value and ``num_trials - 1`` its degrees of freedom. ``num_layers_profiled`` is
        the smallest slice; ``is_extrapolated`` says that no slice was the whole model.

    Raises
    ------
    LogFormatError
        No setting was timed on every slice, or of several only one was timed.

    Warns
    -----
    IncompleteLogWarning
        Settings that one slice lacks are left out.
    SliceWarning
        A line is negative at no layers by more than its error.
    """
    num_timed = slices["num_layers_profiled"].nunique()
    is_extrapolated = bool(slices["num_layers_profiled"].max() < num_layers)
    if num_timed == 1:
        if num_slices > 1:
            # Scaled with depth it would be another quantity than the line that was asked for.
            only = slices["num_layers_profiled"].iloc[0]
            raise LogFormatError(f"{path}: of {num_slices} slices only that of {only} layers was timed; time another")
        scale = num_layers / slices["num_layers_profiled"].iloc[0]
        if scale == 1:
            return slices.assign(is_extrapolated=is_extrapolated)
        scaled = {name: slices[name] * scale for name in [*_SCALED, "runtime_std_s"]}
        scaled["trial_runtimes_s"] = [tuple(scale * np.array(trials_s)) for trials_s in slices["trial_runtimes_s"]]
        return slices.assign(**scaled, is_extrapolated=is_extrapolated)
    groups = slices.groupby(_KEYS, sort=False)
    is_whole = groups["num_layers_profiled"].transform("size") == num_timed
    if not is_whole.all():
        rows = slices[~is_whole].to_dict("records")
        named = "; ".join(f"{setting_name(row)} on {row['num_layers_profiled']} layers" for row in rows)
        if not is_whole.any():
            raise LogFormatError(f"{path}: no setting was timed on every slice of the layers: {named}")
        left_out = f"{len(rows)} timings lack their other slices of the layers and are left out: {named}"
        warnings.warn(f"{path}: {left_out}", IncompleteLogWarning, stacklevel=5)
    rows = [_extrapolated(group, num_layers) for _, group in slices[is_whole].groupby(_KEYS, sort=False)]
    settings = pd.DataFrame(rows)
    if settings["is_negative"].any():
        named = ", ".join(map(setting_name, settings[settings["is_negative"]].to_dict("records")))
        remedy = "time more trials, or slices further apart"
        warnings.warn(
            f"{path}: the line through the slices is negative at no layers: {named}; {remedy}",
            SliceWarning,
            stacklevel=5,
        )
    return settings.assign(is_extrapolated=is_extrapolated)


def line_weights(num_layers_profiled, num_trials, at: float) -> np.ndarray:
    """What each slice's mean counts in the least-squares line through the trials, taken at ``at`` layers."""
    design = np.column_stack([np.ones(len(num_layers_profiled)), num_layers_profiled])
    weighted = design * np.asarray(num_trials, dtype=float)[:, None]
    return weighted @ np.linalg.solve(weighted.T @ design, [1.0, at])


def _extrapolated(slices: pd.DataFrame, num_layers) -> dict:
    """Row of one setting, from its slices."""
    sizes, num_trials = slices["num_layers_profiled"].to_numpy(float), slices["num_trials"].to_numpy(float)
    whole, none = (line_weights(sizes, num_trials, at) for at in (num_layers, 0.0))
    error_s, dof = _standard_error(slices, whole)
    none_error_s, _ = _standard_error(slices, none)
    means_s = slices["runtime_s"].to_numpy()
    # The last digits of a line through the origin are no finding.
    noise_s = _NOISE_STANDARD_ERRORS * np.nan_to_num(none_error_s) + 1e-9 * means_s.max()
    count = max(2, round(dof) + 1) if np.isfinite(dof) else int(num_trials.min())
    return {
        **slices.iloc[0].to_dict(),
        **{name: float(whole @ slices[name].to_numpy()) for name in _SCALED},
        "runtime_std_s": error_s * np.sqrt(count),
        "num_trials": count,
        "num_disturbed": slices["num_disturbed"].sum(),
        "num_layers_profiled": int(sizes.min()),
        # No trial tells the whole model's runtime.
        "trial_runtimes_s": None,
        "trial_starts_s": None,
        "is_negative": none @ means_s < -noise_s,
    }


def _standard_error(slices, weights) -> tuple[float, float]:
    """Standard error (s) of a value on the line, and its degrees of freedom.

    The larger of what the scatter of the trials says and, with three slices or more, their scatter about the line.
    """
    num_trials = slices["num_trials"].to_numpy(float)
    parts = weights**2 * slices["runtime_std_s"].to_numpy() ** 2 / num_trials
    variance, dof = parts.sum(), np.nan
    if variance > 0:
        dof = satterthwaite_dof(variance, np.sum(parts**2 / (num_trials - 1)))
    if len(slices) > 2:
        sizes, means_s = slices["num_layers_profiled"].to_numpy(float), slices["runtime_s"].to_numpy()
        line_s = np.array([line_weights(sizes, num_trials, size) @ means_s for size in sizes])
        trial_variance = np.sum(num_trials * (means_s - line_s) ** 2) / (len(sizes) - 2)
        about_line = float(np.sum(weights**2 / num_trials) * trial_variance)
        if about_line > 0 and not about_line <= variance:
            return float(np.sqrt(about_line)), float(len(slices) - 2)
    return float(np.sqrt(variance)), float(dof)
