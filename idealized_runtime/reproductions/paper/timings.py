"""Sections 3.2 to 3.4 and 5.3, Table 3 and the parameter files: claims about timings on the A100 and V100."""

from functools import partial

import numpy as np

from idealized_runtime.fits.parameters import parameter_names
from idealized_runtime.fits.tables import line_r_squared
from idealized_runtime.reproductions.paper.models import PAPER_MODELS
from idealized_runtime.reproductions.verdicts import Claim, Evidence

# Table 3, Megatron on A100: prompt encoding times at 512, 1024, 1536 tokens, and g; seconds.
TABLE_3_SIZES = (512, 1024, 1536)
TABLE_3_IDEALIZED = {
    "OpenAI/davinci": (("0.178", "0.323", "0.476"), "0.081"),
    "AI21/J1-Grande v1": (("0.097", "0.190", "0.298"), "0.038"),
    "AI21/J1-Jumbo v1": (("0.164", "0.310", "0.465"), "0.064"),
    "Anthropic/v4-s3": (("0.108", "0.189", "0.279"), "0.054"),
}
# Runs of each setting, warm-up included: constants of the authors' driver, generate_text.py of
# github.com/stanford-crfm/helm-efficiency; the logs do not print them.
RUNS_PER_SETTING = 10 + 50
# Prompt sizes that section 3.4 proposes; numbers of output tokens at which the APIs were profiled.
PAPER_PROMPT_SIZES = (1, 256, 512, 1024, 1536)
PAPER_OUTPUT_SIZES = (1, 2, 4, 8, 16, 32, 64)
# Where prompts count as large, and as small.
LARGE_TOKENS, SMALL_TOKENS = 512, 128

_TIMED = tuple(dict.fromkeys(row.architecture_name for row in PAPER_MODELS.values()))


def claims() -> list[Claim]:
    """Lines of Figures 3 and 4, Table 3's idealized rows, the parameter files, profiling time."""
    return [*_line_claims(), *_prompt_claims(), *_table_3_claims(), *_file_claims(), *_profiling_claims()]


def _line_claims():
    for name in _TIMED:
        yield Claim("Figure 3", f"{name}: R^2 of runtime on output tokens, lowest over prompt sizes",
                    "> 0.999", partial(_lowest_r_squared, name))  # fmt: skip


def _prompt_claims():
    section = "Figure 4"
    yield Claim(section, "runtime increases with prompt size: time at the largest size over that at 1", "> 1", _growth)
    yield Claim(section, f"prompt time is roughly linear above {LARGE_TOKENS} tokens", "roughly linear", _large_prompts)
    yield Claim(section, f"linearity breaks down at small sizes: time of {SMALL_TOKENS} tokens over that of one",
                "not linear", _small_prompts)  # fmt: skip
    yield Claim("3.2", "throughput of prompt encoding rises with p, then plateaus", "rises, then plateaus", _plateau)


def _table_3_claims():
    for name, (prompt_times, time_per_token) in TABLE_3_IDEALIZED.items():
        for size, printed in zip(TABLE_3_SIZES, prompt_times, strict=True):
            yield Claim("Table 3", f"{name}, idealized: prompt encoding time at p = {size} (s)", printed,
                        partial(_prompt_time, name, size))  # fmt: skip
        yield Claim("Table 3", f"{name}, idealized: g (s)", time_per_token, partial(_time_per_token, name))


def _file_claims():
    for hardware in ("a100", "v100"):
        yield Claim("authors' files", f"idealized parameters, {hardware.upper()}: models equal to our fit of the logs",
                    "15", partial(_num_equal_entries, hardware))  # fmt: skip


def _profiling_claims():
    claim = "profiling takes < 2 hours for most models: {}"
    printed = "most models"
    yield Claim("5.3", claim.format("settings that the A100 logs hold"), printed, partial(_hours, "a100", None))
    yield Claim("5.3", claim.format("settings that the V100 logs hold"), printed, partial(_hours, "v100", None))
    grid = (PAPER_PROMPT_SIZES, PAPER_OUTPUT_SIZES)
    yield Claim("5.3", claim.format("A100, prompt sizes of section 3.4, 7 output sizes"), printed,
                partial(_hours, "a100", grid))  # fmt: skip
    yield Claim("5.3", "exhaustive profiling takes hours for each benchmark", "hours", _exhaustive_profiling)


def _lowest_r_squared(name, data) -> Evidence:
    return Evidence(line_r_squared(data.timings("a100")[name]).min())


def _growth(data) -> Evidence:
    """The least growth of the models."""
    return Evidence(min(times_s[-1] / times_s[0] for _, times_s in (_profiled(data, name) for name in _TIMED)))


def _large_prompts(data) -> Evidence:
    lowest = 1.0
    for name in _TIMED:
        sizes, times_s = _profiled(data, name)
        is_large = sizes >= LARGE_TOKENS
        lowest = min(lowest, np.corrcoef(sizes[is_large], times_s[is_large])[0, 1] ** 2)
    return Evidence(f"R^2 at least {lowest:.3f} for {len(_TIMED)} models", holds=lowest > 0.99)


def _small_prompts(data) -> Evidence:
    ratios = [_prompt_time_at(data, name, SMALL_TOKENS) / _prompt_time_at(data, name, 1) for name in _TIMED]
    text = f"{min(ratios):.2f} to {max(ratios):.2f} for {len(_TIMED)} models"
    return Evidence(text, holds=max(ratios) < 2)


def _plateau(data) -> Evidence:
    rises, drifts = [], []
    for name in _TIMED:
        per_s = {size: size / _prompt_time_at(data, name, size) for size in (1, LARGE_TOKENS, 1024, 1920)}
        rises.append(per_s[LARGE_TOKENS] / per_s[1])
        drifts.append(abs(per_s[1920] / per_s[1024] - 1))
    text = (
        f"at least {min(rises):.0f}-fold to {LARGE_TOKENS} tokens, {100 * max(drifts):.0f} % at most from 1024 to 1920"
    )
    return Evidence(text, holds=min(rises) > 10 and max(drifts) < 0.1)


def _prompt_time(name, size, data) -> Evidence:
    return Evidence(_prompt_time_at(data, PAPER_MODELS[name].architecture_name, size))


def _time_per_token(name, data) -> Evidence:
    return Evidence(data.fits("a100")[PAPER_MODELS[name].architecture_name].time_per_output_token_s)


def _num_equal_entries(hardware, data) -> Evidence:
    entries, fits = data.parameters(hardware), data.fits(hardware)
    by_name = {name: fit for model, fit in fits.items() for name in parameter_names(model)}
    num_equal = sum(name in by_name and equals_entry(by_name[name], entry) for name, entry in entries.items())
    note = "" if num_equal == len(entries) else f"The file has {len(entries)} models."
    return Evidence(num_equal, note=note)


def equals_entry(fit, entry) -> bool:
    """Whether a fit has the milliseconds of an entry of a parameter file, the overhead included where there is one."""
    ours = fit.to_json()
    return all(_milliseconds(ours.get(key)) == _milliseconds(entry.get(key)) for key in _ENTRY_KEYS)


_ENTRY_KEYS = ("runtime_per_output_token", "runtime_for_prompt_tokens", "overhead")


def _milliseconds(value):
    if isinstance(value, dict):
        return {size: round(1e3 * time_s) for size, time_s in value.items()}
    return None if value is None else round(1e3 * value)


def _hours(hardware, grid, data) -> Evidence:
    hours = {name: _profiling_hours(data, hardware, name, grid) for name in _TIMED}
    num_below = sum(value < 2 for value in hours.values())
    longest = max(hours, key=hours.get)
    text = f"{num_below} of {len(hours)} below 2 h, median {np.median(list(hours.values())):.1f} h"
    note = f"Sum of {RUNS_PER_SETTING} runs a setting; the longest is {longest} with {hours[longest]:.1f} h."
    return Evidence(text, holds=num_below > len(hours) / 2, note=note)


def _profiling_hours(data, hardware, name, grid) -> float:
    """Device-clock hours of the runs: what was timed, so 35 layers only where 35 of 105 were."""
    timings = data.timings(hardware)[name]
    if grid is not None:
        prompt_sizes, output_sizes = grid
        is_in_grid = timings["num_prompt_tokens"].isin(prompt_sizes) & timings["num_output_tokens"].isin(output_sizes)
        timings = timings[is_in_grid]
    shape = data.timed_architectures()[name]
    share_of_layers = (shape.num_layers_profiled or shape.num_layers) / shape.num_layers
    return timings["runtime_s"].sum() * share_of_layers * RUNS_PER_SETTING / 3600


def _exhaustive_profiling(data) -> Evidence:
    return Evidence(None, note="The number of queries of a benchmark is not published, only means over them.")


def _profiled(data, name):
    fit = data.fits("a100")[name]
    return fit.num_prompt_tokens, fit.profiled_prompt_times_s


def _prompt_time_at(data, name, size) -> float:
    sizes, times_s = _profiled(data, name)
    return float(times_s[list(sizes).index(size)])
