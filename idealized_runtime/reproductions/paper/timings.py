"""Sections 3.2 to 3.4 and 5.3, Table 3 and the parameter files: claims about timings on the A100 and V100."""

import numpy as np

from idealized_runtime.architectures.registry import by_helm_name
from idealized_runtime.fits.tables import line_r_squared
from idealized_runtime.reproductions.paper.api_tables import TABLE_3_SIZES, equals_entry
from idealized_runtime.reproductions.paper.models import PAPER_MODELS
from idealized_runtime.reproductions.verdicts import Claims, Evidence, most

# Table 3, Megatron on A100: prompt encoding times at TABLE_3_SIZES, and g; seconds.
TABLE_3_IDEALIZED = {
    "OpenAI/davinci": ("0.178", "0.323", "0.476", "0.081"),
    "AI21/J1-Grande v1": ("0.097", "0.190", "0.298", "0.038"),
    "AI21/J1-Jumbo v1": ("0.164", "0.310", "0.465", "0.064"),
    "Anthropic/v4-s3": ("0.108", "0.189", "0.279", "0.054"),
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

CLAIMS = Claims()


@CLAIMS.add_each(
    ("Figure 3", f"{name}: R^2 of runtime on output tokens, lowest over prompt sizes", "> 0.999", name)
    for name in _TIMED
)
def _lowest_r_squared(data, name) -> Evidence:
    return Evidence(line_r_squared(data.timings("a100")[name]).min())


@CLAIMS.add("Figure 4", "runtime increases with prompt size: time at the largest size over that at 1", "> 1")
def _growth(data) -> Evidence:
    """The least growth of the models."""
    return Evidence(min(times_s[-1] / times_s[0] for _, times_s in (_profiled(data, name) for name in _TIMED)))


@CLAIMS.add("Figure 4", f"prompt time is roughly linear above {LARGE_TOKENS} tokens", "roughly linear")
def _large_prompts(data) -> Evidence:
    lowest = 1.0
    for name in _TIMED:
        sizes, times_s = _profiled(data, name)
        is_large = sizes >= LARGE_TOKENS
        lowest = min(lowest, np.corrcoef(sizes[is_large], times_s[is_large])[0, 1] ** 2)
    return Evidence(f"R^2 at least {lowest:.3f} for {len(_TIMED)} models", holds=lowest > 0.99)


@CLAIMS.add(
    "Figure 4", f"linearity breaks down at small sizes: time of {SMALL_TOKENS} tokens over that of one", "not linear"
)
def _small_prompts(data) -> Evidence:
    ratios = [_prompt_time_at(data, name, SMALL_TOKENS) / _prompt_time_at(data, name, 1) for name in _TIMED]
    text = f"{min(ratios):.2f} to {max(ratios):.2f} for {len(_TIMED)} models"
    return Evidence(text, holds=max(ratios) < 2)


@CLAIMS.add("3.2", "throughput of prompt encoding rises with p, then plateaus", "rises, then plateaus")
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


def table_3_rows(table, metric):
    """Claims of one metric of Table 3, model by model, with the model's name and the prompt size: None for g."""
    for name, printed in table.items():
        for size, text in zip((*TABLE_3_SIZES, None), printed, strict=True):
            what = "g (s)" if size is None else f"prompt encoding time at p = {size} (s)"
            yield "Table 3", f"{name}, {metric}: {what}", text, name, size


@CLAIMS.add_each(table_3_rows(TABLE_3_IDEALIZED, "idealized"))
def _idealized_parameter(data, name, size) -> Evidence:
    model = PAPER_MODELS[name].architecture_name
    if size is None:
        return Evidence(data.fits("a100")[model].time_per_output_token_s)
    return Evidence(_prompt_time_at(data, model, size))


@CLAIMS.add_each(
    ("authors' files", f"idealized parameters, {name.upper()}: models equal to our fit of the logs", "15", name)
    for name in ("a100", "v100")
)
def _num_equal_entries(data, hardware) -> Evidence:
    entries, fits = data.parameters(hardware), data.fits(hardware)
    by_name = by_helm_name(fits)
    num_equal = sum(name in by_name and equals_entry(by_name[name], entry) for name, entry in entries.items())
    note = "" if num_equal == len(entries) else f"The file has {len(entries)} models."
    return Evidence(num_equal, note=note)


@CLAIMS.add_each(
    ("5.3", f"profiling takes < 2 hours for most models: {settings}", "most models", hardware, grid)
    for settings, hardware, grid in (
        ("settings that the A100 logs hold", "a100", None),
        ("settings that the V100 logs hold", "v100", None),
        ("A100, prompt sizes of section 3.4, 7 output sizes", "a100", (PAPER_PROMPT_SIZES, PAPER_OUTPUT_SIZES)),
    )
)
def _hours(data, hardware, grid) -> Evidence:
    hours = {name: _profiling_hours(data, hardware, name, grid) for name in _TIMED}
    is_below = [value < 2 for value in hours.values()]
    longest = max(hours, key=hours.get)
    text = f"{sum(is_below)} of {len(hours)} below 2 h, median {np.median(list(hours.values())):.1f} h"
    note = f"Sum of {RUNS_PER_SETTING} runs a setting; the longest is {longest} with {hours[longest]:.1f} h."
    return Evidence(text, holds=most(is_below), note=note)


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


@CLAIMS.add("5.3", "exhaustive profiling takes hours for each benchmark", "hours")
def _exhaustive_profiling(data) -> Evidence:
    return Evidence(None, note="The number of queries of a benchmark is not published, only means over them.")


def _profiled(data, name):
    fit = data.fits("a100")[name]
    return fit.num_prompt_tokens, fit.profiled_prompt_times_s


def _prompt_time_at(data, name, size) -> float:
    sizes, times_s = _profiled(data, name)
    return float(times_s[list(sizes).index(size)])
