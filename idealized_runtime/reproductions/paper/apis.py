"""Sections 3.5 and 5.2, Figures 5 to 7, Tables 2 and 3: claims about runtimes of black-box APIs."""

from idealized_runtime.reproductions.paper.api_runtimes import (
    NUM_POINTS_WITHOUT_DENOISED,
    coefficients_of_variation,
    count_pairs,
    read_api_minima,
    read_load_runtimes,
    read_runtime_pairs,
)
from idealized_runtime.reproductions.paper.api_tables import TABLE_3_SIZES, generation_r_squared
from idealized_runtime.reproductions.paper.models import PAPER_MODELS
from idealized_runtime.reproductions.paper.timings import table_3_rows
from idealized_runtime.reproductions.verdicts import Claims, Evidence, tally

# Table 2: R^2 of the time estimates, and the minima that it was computed from.
TABLE_2 = {
    "OpenAI/davinci": ("0.985", "2023-11"),
    "AI21/J1-Large v1": ("0.990", "2022-09-06"),
    "AI21/J1-Grande v1": ("0.917", "2022-09-06"),
    "AI21/J1-Jumbo v1": ("0.995", "2022-09-06"),
    "Cohere/XL v20220609": ("0.997", "2023-11"),
    "Anthropic/v4-s3": ("0.924", "2022-09-06"),
}
# Table 3, denoised: prompt encoding times at TABLE_3_SIZES, and g; seconds.
TABLE_3_DENOISED = {
    "OpenAI/davinci": ("0.045", "0.033", "0.142", "0.030"),
    "AI21/J1-Grande v1": ("0.172", "0.351", "0.519", "0.021"),
    "AI21/J1-Jumbo v1": ("0.268", "0.463", "0.655", "0.042"),
    "Anthropic/v4-s3": ("0.193", "0.191", "0.380", "0.057"),
}
# Prompt size that Figure 5 draws.
FIGURE_5_TOKENS = 512

_GRANDE, _JUMBO, _LARGE = "AI21/J1-Grande v1", "AI21/J1-Jumbo v1", "AI21/J1-Large v1"

CLAIMS = Claims()


@CLAIMS.add_each(
    ("Figure 5", f"{name}: mean coefficient of variation over settings", printed, name)
    for name, printed in ((_GRANDE, "about 0.55"), (_LARGE, "~0.2"), (_JUMBO, "~0.2"))
)
def _mean_variation(data, name) -> Evidence:
    value = _variation(data, name)
    both = (_variation(data, _LARGE) + value) / 2
    note = f"{value:.2f} rounds to {value:.1f}; the mean of J1-Large and J1-Jumbo is {both:.2f}."
    return Evidence(value, note=note if name == _JUMBO else "")


def _variation(data, name) -> float:
    return coefficients_of_variation(data.api_trials).loc[PAPER_MODELS[name].helm_name, "coefficient_of_variation"]


@CLAIMS.add("Figure 5", f"{_GRANDE} varies much more than J1-Large and J1-Jumbo", "much")
def _grande_variation(data) -> Evidence:
    ratios = [_variation(data, _GRANDE) / _variation(data, other) for other in (_LARGE, _JUMBO)]
    return Evidence(f"{min(ratios):.1f} to {max(ratios):.1f} times", holds=min(ratios) >= 2)


@CLAIMS.add(
    "Figure 5", f"{_LARGE}: outliers, largest runtime over the median of its setting, p = {FIGURE_5_TOKENS}", "3x"
)
def _outliers(data) -> Evidence:
    drawn = data.api_trials.query("num_prompt_tokens == @FIGURE_5_TOKENS")
    return Evidence(coefficients_of_variation(drawn).loc[PAPER_MODELS[_LARGE].helm_name, "worst_over_median"])


@CLAIMS.add("Figure 6", "Anthropic/v4-s3: largest increase with the number of parallel queries, p = 512", "2x")
def _load_increase(data) -> Evidence:
    runtimes = read_load_runtimes().query("provider == 'Anthropic'").sort_values("slowdown", ascending=False)
    largest, second = runtimes.iloc[0], runtimes.iloc[1]
    note = (
        f"One point, {largest.num_output_tokens} output tokens at {largest.num_parallel_queries} parallel queries, is "
        f"{largest.slowdown:.1f}x; all others are at most {second.slowdown:.2f}x."
    )
    return Evidence(largest.slowdown, note=note)


@CLAIMS.add_each(
    ("Table 2", f"{name}: R^2 of the denoised fit", r_squared, name, date)
    for name, (r_squared, date) in TABLE_2.items()
)
def _fit_r_squared(data, name, date) -> Evidence:
    minima = read_api_minima(date)
    return Evidence(generation_r_squared(minima[minima["model"] == PAPER_MODELS[name].helm_name]))


@CLAIMS.add_each((*row, row[2]) for row in table_3_rows(TABLE_3_DENOISED, "denoised"))
def _denoised_parameter(data, name, size, printed) -> Evidence:
    model = PAPER_MODELS[name].helm_name
    fit, entry = data.api_fits[model], data.parameters("api")[model]
    if size is None:
        value, authors_s = fit.time_per_output_token_s, entry["runtime_per_output_token"]
    else:
        value = float(fit.profiled_prompt_times_s[list(fit.num_prompt_tokens).index(size)])
        authors_s = entry["runtime_for_prompt_tokens"][str(size)]
    lacking = data.api_entries.loc[model, "sizes_missing"]
    if lacking:
        note = f"The published minima lack p = {lacking}; the authors' file, fitted with it, has {authors_s:.3f}."
    else:
        is_misprint = f"{authors_s:.3f}" != printed
        note = f"The authors' file has {authors_s:.3f}, too: the print is wrong." if is_misprint else ""
    return Evidence(value, note=note)


@CLAIMS.add_each(
    ("5.2", f"{providers}: idealized parameters of Table 3 are higher than denoised ones", "higher", names)
    for providers, names in (("OpenAI", ("OpenAI/davinci",)), ("AI21 Labs", (_GRANDE, _JUMBO)))
)
def _idealized_is_higher(data, names) -> Evidence:
    is_higher = []
    for name in names:
        idealized = data.fits("a100")[PAPER_MODELS[name].architecture_name]
        denoised = data.api_fits[PAPER_MODELS[name].helm_name]
        is_higher.append(idealized.time_per_output_token_s > denoised.time_per_output_token_s)
        for size in TABLE_3_SIZES:
            is_higher.append(idealized.prompt_encoding_time_s(size) > denoised.prompt_encoding_time_s(size))
    note = "" if all(is_higher) else "Only g is higher: every prompt encoding time is lower."
    return tally(is_higher, "{} of {} parameters", note=note)


@CLAIMS.add("authors' files", "denoised parameters: models whose minima are published whole, equal to our fit", "all")
def _equal_entries(data) -> Evidence:
    table, num_entries = data.api_entries, len(data.parameters("api"))
    whole = table[table["sizes_missing"] == ""]
    note = (
        f"Of the file's {num_entries} models, {num_entries - len(table)} have no published minima of that vintage "
        f"and {len(table) - len(whole)} lack those of p = 256."
    )
    return tally(whole["is_equal"], note=note)


@CLAIMS.add("Figure 7", "raw runtimes greater than denoised ones (% of points)", "96.6")
def _raw_above_denoised(data) -> Evidence:
    num_points, num_above = count_pairs(read_runtime_pairs("denoised_vs_raw")).loc["all", ["num_points", "num_above"]]
    num_passing = int(num_points - num_above)
    counted = 100 * (num_passing + NUM_POINTS_WITHOUT_DENOISED) / (num_points + NUM_POINTS_WITHOUT_DENOISED)
    note = (
        f"{num_passing} of the {num_points:.0f} drawn points; {counted:.1f} % come out only if "
        f"{NUM_POINTS_WITHOUT_DENOISED} points without a denoised runtime count as passing."
    )
    return Evidence(100 * num_passing / num_points, note=note)


@CLAIMS.add("Figure 7", "idealized runtime often much lower than denoised: points below half", "a number")
def _much_lower(data) -> Evidence:
    points = read_runtime_pairs("idealized_vs_denoised")
    is_much_lower = points["y_runtime_s"] < points["x_runtime_s"] / 2
    return tally(is_much_lower, "{} of {} points", holds=lambda flags: sum(flags) > 1)


@CLAIMS.add_each(
    ("Figure 7", f"{providers} models: idealized above denoised (% of points)", printed, provider)
    for providers, provider, printed in (
        ("AI21 Labs", "AI21 Labs", "15.7"), ("OpenAI", "OpenAI", "64.2"), ("all other", "other", "0")
    )
)  # fmt: skip
def _idealized_above_denoised(data, provider) -> Evidence:
    return Evidence(count_pairs(read_runtime_pairs("idealized_vs_denoised")).loc[provider, "percent_above"])
