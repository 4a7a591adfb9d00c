"""Sections 3.5 and 5.2, Figures 5 to 7, Tables 2 and 3: claims about runtimes of black-box APIs."""

from functools import partial

from idealized_runtime.fits.denoised import generation_r_squared
from idealized_runtime.reproductions.paper.api_runtimes import NUM_POINTS_WITHOUT_DENOISED
from idealized_runtime.reproductions.paper.models import PAPER_MODELS
from idealized_runtime.reproductions.paper.timings import TABLE_3_SIZES, equals_entry
from idealized_runtime.reproductions.verdicts import Claim, Evidence

# Table 2: R^2 of the time estimates, and the minima that it was computed from.
TABLE_2 = {
    "OpenAI/davinci": ("0.985", "2023-11"),
    "AI21/J1-Large v1": ("0.990", "2022-09-06"),
    "AI21/J1-Grande v1": ("0.917", "2022-09-06"),
    "AI21/J1-Jumbo v1": ("0.995", "2022-09-06"),
    "Cohere/XL v20220609": ("0.997", "2023-11"),
    "Anthropic/v4-s3": ("0.924", "2022-09-06"),
}
# Table 3, denoised: prompt encoding times at 512, 1024, 1536 tokens, and g; seconds.
TABLE_3_DENOISED = {
    "OpenAI/davinci": (("0.045", "0.033", "0.142"), "0.030"),
    "AI21/J1-Grande v1": (("0.172", "0.351", "0.519"), "0.021"),
    "AI21/J1-Jumbo v1": (("0.268", "0.463", "0.655"), "0.042"),
    "Anthropic/v4-s3": (("0.193", "0.191", "0.380"), "0.057"),
}
# Prompt size that Figure 5 draws.
FIGURE_5_TOKENS = 512

_MINIMA_NAMES = {
    "OpenAI/davinci": "openai_davinci",
    "AI21/J1-Large v1": "ai21_j1_large",
    "AI21/J1-Grande v1": "ai21_j1_grande",
    "AI21/J1-Jumbo v1": "ai21_j1_jumbo",
    "Cohere/XL v20220609": "cohere_xlarge",
    "Anthropic/v4-s3": "anthropic",
}
_GRANDE, _JUMBO, _LARGE = "ai21-j1-grande", "ai21-j1-jumbo", "ai21-j1-large"


def claims() -> list[Claim]:
    """Variance and load of APIs, Table 2, Table 3's denoised rows, shares of Figure 7."""
    return [*_variance_claims(), *_load_claims(), *_table_2_claims(), *_table_3_claims(), *_figure_7_claims()]


def _variance_claims():
    section, claim = "Figure 5", "{}: mean coefficient of variation over settings"
    yield Claim(section, claim.format("AI21/J1-Grande v1"), "about 0.55", partial(_mean_variation, _GRANDE))
    yield Claim(section, claim.format("AI21/J1-Large v1"), "~0.2", partial(_mean_variation, _LARGE))
    yield Claim(section, claim.format("AI21/J1-Jumbo v1"), "~0.2", partial(_mean_variation, _JUMBO))
    yield Claim(section, "AI21/J1-Grande v1 varies much more than J1-Large and J1-Jumbo", "much", _grande_variation)
    yield Claim(section, "AI21/J1-Large v1: outliers, largest runtime over the median of its setting, p = 512",
                "3x", _outliers)  # fmt: skip


def _load_claims():
    yield Claim("Figure 6", "Anthropic/v4-s3: largest increase with the number of parallel queries, p = 512",
                "2x", _load_increase)  # fmt: skip


def _table_2_claims():
    for name, (r_squared, _) in TABLE_2.items():
        yield Claim("Table 2", f"{name}: R^2 of the denoised fit", r_squared, partial(_fit_r_squared, name))


def _table_3_claims():
    for name, (prompt_times, time_per_token) in TABLE_3_DENOISED.items():
        for size, printed in zip(TABLE_3_SIZES, prompt_times, strict=True):
            yield Claim("Table 3", f"{name}, denoised: prompt encoding time at p = {size} (s)", printed,
                        partial(_denoised_prompt_time, name, size, printed))  # fmt: skip
        yield Claim("Table 3", f"{name}, denoised: g (s)", time_per_token,
                    partial(_denoised_time_per_token, name, time_per_token))  # fmt: skip
    for providers, names in _OPTIMIZED.items():
        yield Claim("5.2", f"{providers}: idealized parameters of Table 3 are higher than denoised ones", "higher",
                    partial(_idealized_is_higher, names))  # fmt: skip
    claim = "denoised parameters: models whose minima are published whole, equal to our fit"
    yield Claim("authors' files", claim, "all", _equal_entries)


_OPTIMIZED = {"OpenAI": ("OpenAI/davinci",), "AI21 Labs": ("AI21/J1-Grande v1", "AI21/J1-Jumbo v1")}


def _figure_7_claims():
    section = "Figure 7"
    yield Claim(section, "raw runtimes greater than denoised ones (% of points)", "96.6", _raw_above_denoised)
    yield Claim(section, "idealized runtime often much lower than denoised: points below half", "a number", _much_lower)
    for provider, printed in (("AI21 Labs", "15.7"), ("OpenAI", "64.2"), ("other", "0")):
        claim = f"{'all other' if provider == 'other' else provider} models: idealized above denoised (% of points)"
        yield Claim(section, claim, printed, partial(_idealized_above_denoised, provider))


def _mean_variation(model, data) -> Evidence:
    value = _variation(data, model)
    both = (_variation(data, _LARGE) + value) / 2
    note = f"{value:.2f} rounds to {value:.1f}; the mean of J1-Large and J1-Jumbo is {both:.2f}."
    return Evidence(value, note=note if model == _JUMBO else "")


def _variation(data, model) -> float:
    """Mean over settings of standard deviation (ddof = 1) over mean runtime."""
    trials = data.points("figure5_trial_runtimes").query("model == @model")
    settings = trials.groupby(["num_prompt_tokens", "num_output_tokens"])["runtime_s"]
    return (settings.std() / settings.mean()).mean()


def _grande_variation(data) -> Evidence:
    ratios = [_variation(data, _GRANDE) / _variation(data, other) for other in (_LARGE, _JUMBO)]
    return Evidence(f"{min(ratios):.1f} to {max(ratios):.1f} times", holds=min(ratios) >= 2)


def _outliers(data) -> Evidence:
    trials = data.points("figure5_trial_runtimes").query("model == @_LARGE and num_prompt_tokens == @FIGURE_5_TOKENS")
    settings = trials.groupby("num_output_tokens")["runtime_s"]
    return Evidence((settings.max() / settings.median()).max())


def _load_increase(data) -> Evidence:
    runtimes = data.points("figure6_load_runtimes").query("provider == 'anthropic'")
    table = runtimes.pivot_table(index="num_output_tokens", columns="num_parallel_queries", values="minimum_runtime_s")
    increases = table.div(table[1], axis=0).stack().sort_values(ascending=False)
    (num_output_tokens, num_parallel), largest = increases.index[0], increases.iloc[0]
    note = (
        f"One point, {num_output_tokens} output tokens at {num_parallel} parallel queries, is {largest:.1f}x; "
        f"all others are at most {increases.iloc[1]:.2f}x."
    )
    return Evidence(largest, note=note)


def _fit_r_squared(name, data) -> Evidence:
    minima = data.points(f"api_minimum_runtimes_{TABLE_2[name][1]}").query("model == @_MINIMA_NAMES[@name]")
    return Evidence(generation_r_squared(minima.rename(columns={"minimum_runtime_s": "runtime_s"})))


def _denoised_prompt_time(name, size, printed, data) -> Evidence:
    fit = data.api_fits[PAPER_MODELS[name].helm_name]
    value = float(fit.profiled_prompt_times_s[list(fit.num_prompt_tokens).index(size)])
    entry = data.parameters("api")[PAPER_MODELS[name].helm_name]
    return Evidence(value, note=_denoised_note(data, name, printed, entry["runtime_for_prompt_tokens"][str(size)]))


def _denoised_time_per_token(name, printed, data) -> Evidence:
    fit = data.api_fits[PAPER_MODELS[name].helm_name]
    entry = data.parameters("api")[PAPER_MODELS[name].helm_name]
    return Evidence(
        fit.time_per_output_token_s, note=_denoised_note(data, name, printed, entry["runtime_per_output_token"])
    )


def _denoised_note(data, name, printed, authors_s) -> str:
    """What the authors' own file says, and which minima our fit lacks."""
    sizes = set(data.api_minima[PAPER_MODELS[name].helm_name]["num_prompt_tokens"])
    file_sizes = {
        int(size) for size in data.parameters("api")[PAPER_MODELS[name].helm_name]["runtime_for_prompt_tokens"]
    }
    missing = sorted(file_sizes - sizes)
    if missing:
        lacking = ", ".join(map(str, missing))
        return f"The published minima lack p = {lacking}; the authors' file, fitted with it, has {authors_s:.3f}."
    if f"{authors_s:.3f}" != printed:
        return f"The authors' file has {authors_s:.3f}, too: the print is wrong."
    return ""


def _equal_entries(data) -> Evidence:
    entries, minima = data.parameters("api"), data.api_minima
    is_whole = {
        name: set(entries[name]["runtime_for_prompt_tokens"]) == {str(size) for size in frame["num_prompt_tokens"]}
        for name, frame in minima.items()
    }
    whole = [name for name in is_whole if is_whole[name]]
    num_equal = sum(equals_entry(data.api_fits[name], entries[name]) for name in whole)
    note = (
        f"Of the file's {len(entries)} models, {len(entries) - len(minima)} have no published minima of that vintage "
        f"and {len(minima) - len(whole)} lack those of p = 256."
    )
    return Evidence(f"{num_equal} of {len(whole)}", holds=num_equal == len(whole), note=note)


def _idealized_is_higher(names, data) -> Evidence:
    is_higher = []
    for name in names:
        idealized = data.fits("a100")[PAPER_MODELS[name].architecture_name]
        denoised = data.api_fits[PAPER_MODELS[name].helm_name]
        is_higher.append(idealized.time_per_output_token_s > denoised.time_per_output_token_s)
        for size in TABLE_3_SIZES:
            is_higher.append(idealized.prompt_encoding_time_s(size) > denoised.prompt_encoding_time_s(size))
    num_higher = sum(is_higher)
    note = "Only g is higher: every prompt encoding time is lower." if num_higher < len(is_higher) else ""
    return Evidence(f"{num_higher} of {len(is_higher)} parameters", holds=num_higher == len(is_higher), note=note)


def _raw_above_denoised(data) -> Evidence:
    points = data.points("figure7_points").query("panel == 'denoised_vs_raw'")
    num_passing = int((points["x_runtime_s"] >= points["y_runtime_s"]).sum())
    percent = 100 * num_passing / len(points)
    counted = 100 * (num_passing + NUM_POINTS_WITHOUT_DENOISED) / (len(points) + NUM_POINTS_WITHOUT_DENOISED)
    note = (
        f"{num_passing} of the {len(points)} drawn points; {counted:.1f} % come out only if "
        f"{NUM_POINTS_WITHOUT_DENOISED} points without a denoised runtime count as passing."
    )
    return Evidence(percent, note=note)


def _much_lower(data) -> Evidence:
    points = data.points("figure7_points").query("panel == 'idealized_vs_denoised'")
    num_lower = int((points["y_runtime_s"] < points["x_runtime_s"] / 2).sum())
    return Evidence(f"{num_lower} of {len(points)} points", holds=num_lower > 1)


def _idealized_above_denoised(provider, data) -> Evidence:
    points = data.points("figure7_points").query("panel == 'idealized_vs_denoised' and provider == @provider")
    is_above = points["y_runtime_s"] > points["x_runtime_s"]
    return Evidence(100 * is_above.mean())
