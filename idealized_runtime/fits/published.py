"""The fit and the estimate rule of arXiv:2305.02440 and HELM, roundings included."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pandas as pd

from idealized_runtime.fits.model import RuntimeModel
from idealized_runtime.records.validity import SuspiciousLogWarning

_NUM_DECIMALS = 3
_KEYS = ("runtime_per_output_token", "runtime_for_prompt_tokens", "overhead", "steps")
# No token takes less, nor more than one of a model that is read from a disk.
_LEAST_S, _MOST_TOKEN_S = 1e-4, 10.0
# What HELM's entries leave out.
_NO_FIT = {
    "reference_num_prompt_tokens": 1, "time_per_output_token_slope": 0.0, "prompt_rule": {}, "intervals": None,
    "r_squared": None, "residuals": None, "sources": (),
}  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class PublishedRuntimeModel(RuntimeModel):
    """The procedure of arXiv:2305.02440 with its roundings and HELM's estimate rule, to reproduce published numbers.

    Made by :meth:`fit`, or read from the parameter files of HELM and the authors. HELM's prompt time is that of the
    next larger profiled size, times p over that size; beyond the last size that one is scaled. A saw-tooth through the
    origin, kept since HELM's and the paper's idealized runtimes are computed so (``efficiency_metrics.py`` of
    crfm-helm). No interval is known.
    """

    method: ClassVar[str] = "published"

    def with_overhead(self) -> "PublishedRuntimeModel":
        sums_s = self.profiled_prompt_times_s
        overhead_s = round(float(sums_s[0] - self.time_per_output_token_s), _NUM_DECIMALS)
        prompt_times_s = np.round(sums_s - overhead_s, _NUM_DECIMALS)
        return replace(self, overhead_s=overhead_s, profiled_prompt_times_s=prompt_times_s)

    def to_json(self) -> dict:
        entry = super().to_json()
        if self.r_squared is None and not self.sources:
            # HELM's entries stay as they are.
            del entry["fit"]
        return entry

    @classmethod
    def from_json(cls, entry: Mapping) -> "PublishedRuntimeModel":
        model = super().from_json({**entry, "fit": _NO_FIT | entry.get("fit", {})})
        if "fit" not in entry:
            _warn_of_entry(entry, model)
        return replace(model, reference_num_prompt_tokens=int(model.num_prompt_tokens[0]))

    @classmethod
    def _fit_settings(cls, settings, trials) -> "PublishedRuntimeModel":
        time_per_output_token_s, prompt_times_s = fit_published(settings)
        return cls(
            num_prompt_tokens=np.array(list(prompt_times_s)),
            profiled_prompt_times_s=np.array(list(prompt_times_s.values())),
            time_per_output_token_s=time_per_output_token_s,
            reference_num_prompt_tokens=min(prompt_times_s),
        )

    def _prompt_rule(self) -> dict:
        return {"name": "next_larger_size_scaled"}

    def _prompt_times_by_rule(self, p):
        sizes = self.num_prompt_tokens
        knot = np.minimum(np.searchsorted(sizes, p), len(sizes) - 1)
        return self.profiled_prompt_times_s[knot] * (p / sizes[knot])


def _warn_of_entry(entry, model):
    """Say of an entry without a fit, and so without intervals, which of its values are none of a model's."""
    sizes, times_s, token_s = model.num_prompt_tokens, model.profiled_prompt_times_s, model.time_per_output_token_s
    odd = [f"{name} is not read" for name in entry if name not in _KEYS]
    if not _LEAST_S <= token_s <= _MOST_TOKEN_S:
        odd.append(f"{token_s:.3g} s an output token")
    odd += [f"{times_s[i]:.3g} s for a prompt of {sizes[i]}" for i in np.flatnonzero(times_s < _LEAST_S)]
    if odd:
        said = f"parameters without a fit are not those of a model: {'; '.join(odd)}. In another unit, or changed?"
        warnings.warn(said, SuspiciousLogWarning, stacklevel=4)


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
            "the published procedure fits a line for each prompt size; one number of output tokens only at p = "
            f"{', '.join(lonely)}. Use RuntimeModel.fit"
        )
    prompt_times_s = {}
    for size, group in sizes:
        slope_s, intercept_s = _line(group["num_output_tokens"], group["runtime_s"])
        sum_s = round(intercept_s, _NUM_DECIMALS) + round(slope_s, _NUM_DECIMALS)
        prompt_times_s[int(size)] = round(sum_s, _NUM_DECIMALS)
    smallest_s = prompt_times_s[min(prompt_times_s)]
    prompt_times_s = {size: max(time_s, smallest_s) for size, time_s in prompt_times_s.items()}
    decode_s = settings["runtime_s"] - settings["num_prompt_tokens"].map(prompt_times_s)
    slope_s, _ = _line(settings["num_output_tokens"] - 1, decode_s)
    return round(slope_s, _NUM_DECIMALS), prompt_times_s


def _line(x, y) -> tuple[float, float]:
    slope, intercept = np.polyfit(x.to_numpy(dtype=float), y.to_numpy(), 1)
    return float(slope), float(intercept)
