"""What a fit shows of the timings that it is made of: whether they can be of one model on a machine at rest.

Facts that a log tells without a fit are in ``records.validity``.
"""

import warnings

import numpy as np
import pandas as pd

from idealized_runtime.records.common import TOKEN_COLUMNS
from idealized_runtime.records.validity import Finding, SuspiciousLogWarning

_LEAST_R_SQUARED, _MOST_FACTOR = 0.5, 2.0
_SIGNIFICANCE = 1e-3
# Below these, curvature of a sound log looks alike: on the published A100 logs up to 17 % and 4 %.
_DRIFT, _STEP, _LEAST_SHARE = 0.2, 0.1, 0.125
# Prompt times that fall by a factor, in units of their standard errors too.
_PROMPT_FACTOR, _NUM_ERRORS = 1.5, 4.0
# Output tokens that cost less than this share of the ones before them, over so many times as many tokens.
_FLAT_SHARE, _FLAT_TIMES = 0.2, 1.5
# And runtimes that rise by less from few tokens to many times as many.
_LEAST_RISE, _MANY_TIMES = 0.05, 8
_MAX_NAMED = 3


def fit_findings(settings: pd.DataFrame, model) -> list[Finding]:
    """What speaks against timings that were fitted.

    ``r_squared`` (below 0.5), ``residuals`` (a setting is off by more than a factor of 2), ``sweep_order`` (runtimes
    change along the sweep, steadily by more than 20 % or in a step of more than 10 %, at a level of 0.1 % each),
    ``prompt_times`` (fall by a factor of 1.5 as prompts grow), ``output_tokens`` (the last ones cost nothing, as where
    a server stops early).

    Parameters
    ----------
    settings : DataFrame
        As from ``validate_settings``, in the order of the sweep.
    model : ModelOfRuntimes
        Fitted to it.
    """
    checks = (_r_squared, _residuals, _sweep_order, _prompt_times, _output_tokens)
    return [finding for check in checks for finding in check(settings, model)]


def warn_of_fit(runtimes: pd.DataFrame, model):
    """Warn of each of :func:`fit_findings`, of the settings of a model in the order of the rows it was fitted to."""
    name = f"{runtimes['model'].iloc[0]}: " if "model" in runtimes else ""
    order = runtimes[TOKEN_COLUMNS].drop_duplicates().astype("int64")
    settings = order.merge(model.settings, on=TOKEN_COLUMNS)
    for finding in fit_findings(settings, model):
        warnings.warn(f"{name}{finding.name}: {finding.message}", SuspiciousLogWarning, stacklevel=3)


def _columns(settings):
    return (settings[name].to_numpy(dtype=float) for name in (*TOKEN_COLUMNS, "runtime_s"))


def _r_squared(_, model):
    if model.r_squared is not None and model.r_squared < _LEAST_R_SQUARED:
        yield Finding(
            "r_squared", False,
            f"R2 of the fit is {model.r_squared:.2f}: runtimes are not those of prompts and output tokens of one "
            "model. Look at its residuals; time what stands out again, or leave it out (rows of read_log)",
        )  # fmt: skip


def _residuals(settings, model):
    p, o, runtime_s = _columns(settings)
    factor = model.predict(p, o) / runtime_s
    order = np.argsort(-np.abs(np.log(np.maximum(factor, 1e-300))))
    if wrong := [i for i in order if not 1 / _MOST_FACTOR < factor[i] < _MOST_FACTOR]:
        named = ", ".join(
            f"p={p[i]:.0f} o={o[i]:.0f} {runtime_s[i]:.3g} s, fitted {factor[i] * runtime_s[i]:.3g} s"
            for i in wrong[:_MAX_NAMED]
        )
        yield Finding(
            "residuals", False,
            f"{len(wrong)} of {len(p)} settings are off the fit by more than a factor of {_MOST_FACTOR:g}: {named}. Is "
            "one of them in another unit? Time them again, or leave them out (rows of read_log)",
        )  # fmt: skip


def _sweep_order(settings, _):
    found = order_effect(settings)
    if found is not None:
        change, position = found
        what = "over the sweep" if position is None else f"from setting {position + 1} of {len(settings)} on"
        yield Finding(
            "sweep_order", False,
            f"runtimes {'rise' if change > 0 else 'fall'} by {abs(change):.0%} {what}, beyond what sizes explain: the "
            "machine was not in a steady state, and its intervals are too narrow. Time it again at rest, trials spread "
            "over the sweep (the default of new logs); where nobody can, go by its other models or by wider intervals "
            "(--level)",
        )  # fmt: skip


def order_effect(settings: pd.DataFrame) -> tuple[float, int | None] | None:
    """Relative change of runtimes along the rows, and the row where it steps (None: steady); None where there is none.

    Least squares of relative errors of prompt times by size and g linear in p, with one term more: a slope along the
    rows, or a step at any of the middle three quarters of them (Bonferroni).
    """
    from scipy.special import stdtr

    p, o, runtime_s = _columns(settings)
    sizes, group = np.unique(p, return_inverse=True)
    number = len(runtime_s)
    design = np.column_stack([np.eye(len(sizes))[group], o - 1, (o - 1) * p]) / runtime_s[:, None]
    basis, sizes_of_basis, _ = np.linalg.svd(design / np.linalg.norm(design, axis=0).clip(1e-300), full_matrices=False)
    basis = basis[:, sizes_of_basis > 1e-9 * sizes_of_basis[0]]
    dof = number - basis.shape[1] - 1
    if dof < 3:
        return None
    rows = np.arange(number)
    steps = rows[int(np.ceil(_LEAST_SHARE * number)) : int((1 - _LEAST_SHARE) * number) + 1]
    terms = np.column_stack([rows / (number - 1), *(rows >= step for step in steps)]).astype(float)
    residual = 1 - basis @ basis.sum(axis=0)
    terms = terms - basis @ (basis.T @ terms)
    norms = np.sum(terms**2, axis=0).clip(1e-9)
    changes = residual @ terms / norms
    # Runtimes without noise must not divide by zero.
    variances = (residual @ residual - changes**2 * norms).clip(1e-24) / dof
    p_values = 2 * stdtr(dof, -np.abs(changes) / np.sqrt(variances / norms)) * np.array([1, *[len(steps)] * len(steps)])
    is_found = (p_values < _SIGNIFICANCE) & (np.abs(changes) > np.array([_DRIFT, *[_STEP] * len(steps)]))
    if not is_found.any():
        return None
    best = int(np.argmin(np.where(is_found, variances, np.inf)))
    return float(changes[best]), None if best == 0 else int(steps[best - 1])


def _prompt_times(settings, model):
    p, o, runtime_s = _columns(settings)
    order = np.lexsort((o, p))
    shortest = order[np.unique(p[order], return_index=True)[1]]
    if len(shortest) < 2:
        return
    times_s = runtime_s[shortest] - (o[shortest] - 1) * model.time_per_output_token_at(p[shortest])
    known = settings.iloc[shortest]
    errors_s = (known["runtime_std_s"].fillna(0) / known["num_trials"].fillna(1) ** 0.5).to_numpy(float)
    errors_s = errors_s + known["runtime_resolution_s"].to_numpy(float) / 2
    fall_s = times_s[:-1] - times_s[1:]
    is_fall = (times_s[:-1] > _PROMPT_FACTOR * times_s[1:]) & (
        fall_s > _NUM_ERRORS * np.hypot(errors_s[:-1], errors_s[1:])
    )
    if wrong := np.flatnonzero(is_fall).tolist():
        named = ", ".join(
            f"{times_s[i]:.3g} s at p={p[shortest[i]]:.0f}, {times_s[i + 1]:.3g} s at p={p[shortest[i + 1]]:.0f}"
            for i in wrong[:_MAX_NAMED]
        )
        yield Finding(
            "prompt_times", False,
            f"prompts of more tokens take less by a factor of {_PROMPT_FACTOR:g} or more: {named}. Were they cached, "
            "or something else running? Time these sizes again, or leave them out (rows of read_log)",
        )  # fmt: skip


def _output_tokens(settings, _):
    shares = []
    for _, rows in settings.sort_values(TOKEN_COLUMNS).groupby("num_prompt_tokens"):
        o, runtime_s = rows["num_output_tokens"].to_numpy(float), rows["runtime_s"].to_numpy(float)
        if not shares and o[-1] >= _MANY_TIMES * o[0] and runtime_s[-1] < (1 + _LEAST_RISE) * runtime_s[0]:
            # Behind the shortest prompt output tokens are most of a runtime.
            shares = [0.0]
            break
        if len(o) > 2 and o[-1] >= _FLAT_TIMES * o[-2]:
            before = (runtime_s[-2] - runtime_s[0]) / (o[-2] - o[0])
            shares.append((runtime_s[-1] - runtime_s[-2]) / (o[-1] - o[-2]) / max(before, 1e-300))
    if shares and np.median(shares) < _FLAT_SHARE:
        most = int(settings["num_output_tokens"].max())
        yield Finding(
            "output_tokens", False,
            f"the last of {most} output tokens take {max(np.median(shares), 0):.0%} of what those before them do: does "
            "generation stop before it has made them all? Force it to go on, and time again",
        )  # fmt: skip
