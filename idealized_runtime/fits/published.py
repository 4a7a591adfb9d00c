"""The fit and the estimate rule of arXiv:2305.02440 and HELM, roundings included."""

import numpy as np
import pandas as pd

_NUM_DECIMALS = 3


def fit_published(settings: pd.DataFrame) -> tuple[float, dict[int, float]]:
    """Time per output token and prompt encoding times, as the authors' parameter files have them.

    For each prompt size a line through runtime against output tokens; intercept and slope are rounded to
    milliseconds, their sum is the prompt time, and none is below that of the smallest size. Then one line,
    its intercept thrown away, through what remains against o - 1: its slope, rounded, is g.

    Raises
    ------
    ValueError
        A prompt size is timed at one number of output tokens only; the message lists those sizes.
    """
    sizes = settings.groupby("num_prompt_tokens")
    lonely = [str(size) for size, group in sizes if len(group) < 2]
    if lonely:
        raise ValueError(
            f"method='published' fits a line for each prompt size; one number of output tokens only at p = "
            f"{', '.join(lonely)}. Use method='weighted'"
        )
    prompt_times_s = {int(size): _rounded_prompt_time(group) for size, group in sizes}
    smallest_s = prompt_times_s[min(prompt_times_s)]
    prompt_times_s = {size: max(time_s, smallest_s) for size, time_s in prompt_times_s.items()}
    decode_s = settings["runtime_s"] - settings["num_prompt_tokens"].map(prompt_times_s)
    slope_s, _ = _line(settings["num_output_tokens"] - 1, decode_s)
    return round(slope_s, _NUM_DECIMALS), prompt_times_s


def _rounded_prompt_time(group) -> float:
    slope_s, intercept_s = _line(group["num_output_tokens"], group["runtime_s"])
    return round(round(intercept_s, _NUM_DECIMALS) + round(slope_s, _NUM_DECIMALS), _NUM_DECIMALS)


def _line(x, y) -> tuple[float, float]:
    slope, intercept = np.polyfit(x.to_numpy(dtype=float), y.to_numpy(), 1)
    return float(slope), float(intercept)


def next_larger_times(num_prompt_tokens, sizes, times_s) -> np.ndarray:
    """HELM's prompt time: that of the next larger profiled size, times p over that size.

    Beyond the last size that one is scaled. A saw-tooth through the origin, kept since HELM's and the
    paper's idealized runtimes are computed so (``efficiency_metrics.py`` of crfm-helm).
    """
    knot = np.minimum(np.searchsorted(sizes, num_prompt_tokens), len(sizes) - 1)
    return times_s[knot] * (num_prompt_tokens / sizes[knot])
