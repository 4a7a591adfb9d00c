"""Denoised parameters of a log of API trials, and their figure."""

import numpy as np
import pandas as pd

from idealized_runtime.fits import RuntimeModel
from idealized_runtime.fits.denoised import fit_denoised
from idealized_runtime.records import read_trials


def fit_log(path, *, estimator: str = "minimum") -> tuple[pd.DataFrame, RuntimeModel]:
    """Trials of a log that a fit may use, and the denoised model of them.

    Parameters
    ----------
    path : path-like
    estimator : str
        As for :func:`~idealized_runtime.fits.denoised.fit_denoised`.

    Returns
    -------
    trials : DataFrame, one row a trial
        As from :func:`~idealized_runtime.records.read_trials`.
    model : RuntimeModel
        Unrounded, with ``overhead_s`` and intervals.

    Raises
    ------
    ValueError
        The log cannot be read, or holds too few settings for a fit.
    """
    trials = read_trials(path)
    return trials, fit_denoised(trials, estimator=estimator, fit=RuntimeModel.fit)


def parameter_lines(model: RuntimeModel, trials: pd.DataFrame, *, estimator: str, level: float = 0.95) -> list[str]:
    """Denoised parameters in words, for a terminal."""
    # How low a floor lies depends on the number of trials, and its scatter does not show that.
    bias = "" if estimator == "frontier" else ", none with the bias of a floor"
    lines = [
        f"{trials['model'].iloc[0]}: {len(trials)} trials, estimator {estimator!r}; {100 * level:g} % intervals, those "
        f"of prompts with the overhead taken as known{bias}",
        f"time per output token   {_milliseconds(model.time_per_output_token_s, model, None, level)}",
        f"overhead                {1e3 * model.overhead_s:.3f} ms",
    ]
    sizes = model.num_prompt_tokens.tolist()
    times_s = [model.prompt_encoding_time_s(size) for size in sizes]
    lines += [
        f"prompt of {size:>6} tokens {_milliseconds(time_s, model, size, level)}"
        for size, time_s in zip(sizes, times_s, strict=True)
    ]
    return lines + _one_sided(model, sizes, times_s, level)


def _one_sided(model, sizes, times_s, level) -> list[str]:
    """A line that names the prompts whose interval ends at the estimate."""
    if model.intervals is None:
        return []
    ends = np.any([np.isclose(times_s, bound_s) for bound_s in model.prompt_encoding_interval_s(sizes, level)], axis=0)
    named = ", ".join(map(str, np.array(sizes)[ends]))
    reason = "the trials hint at more than the fit holds for significant; time more of them, or more sizes"
    return [f"an interval ends at its estimate for prompts of {named}: {reason}"] if named else []


def _milliseconds(time_s, model, size, level) -> str:
    """A time and its interval, where one is known: of a prompt of ``size`` tokens, or of an output token."""
    if model.intervals is None:
        return f"{1e3 * time_s:.3f} ms"
    if size is None:
        low_s, high_s = model.time_per_output_token_interval_s(level)
    else:
        low_s, high_s = model.prompt_encoding_interval_s(size, level)
    return f"{1e3 * time_s:.3f} ms ({1e3 * low_s:.3f} to {1e3 * high_s:.3f})"


def save_fit_figure(trials: pd.DataFrame, model: RuntimeModel, path) -> None:
    """Write trials as points and the denoised model as lines, as ``path.pdf`` and ``path.png``."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from idealized_runtime.plots import plot_runtime_vs_output_tokens, save_figure, use_style

    use_style()
    figure, ax = plt.subplots()
    plot_runtime_vs_output_tokens(trials, model, ax=ax)
    save_figure(figure, path)
    plt.close(figure)
