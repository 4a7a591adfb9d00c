"""Section 5.4 and Figure 9: claims about Pareto frontiers and about the points themselves."""

from dataclasses import replace

import pandas as pd

from idealized_runtime.architectures.closed_forms import closed_form_flops_without_attention
from idealized_runtime.comparisons.frontier import pareto_frontier
from idealized_runtime.reproductions.paper.figure9 import recomputed_points
from idealized_runtime.reproductions.paper.hardware import DRAWING_ERROR
from idealized_runtime.reproductions.paper.models import PAPER_MODELS, short_name
from idealized_runtime.reproductions.paper.tradeoffs import TASKS
from idealized_runtime.reproductions.verdicts import Claims, Evidence, most, tally

# Rows of Figure 9.
METRICS = {
    "model_size": "model size",
    "flops": "FLOPs",
    "runtime": "raw runtime",
    "denoised_runtime": "denoised runtime",
    "idealized_runtime": "idealized runtime",
    "idealized_cost": "idealized cost",
}
# Dollars for 1000 tokens of OpenAI/davinci, prompt and output alike: OpenAI's price list as archived on 2022-07-03.
DAVINCI_USD_PER_1000_TOKENS = 0.06

_DAVINCI, _GRANDE, _JUMBO = "OpenAI/davinci", "AI21/J1-Grande v1", "AI21/J1-Jumbo v1"
_BLOOM, _YALM, _LARGE = "BigScience/BLOOM", "Yandex/YaLM", "AI21/J1-Large v1"
# What a recomputed frontier is taken from, where that is not what the figure was drawn from.
_SOURCES = {
    "flops": "FLOPs of the queries behind the idealized points; the sizes behind the drawn FLOPs are not published.",
    "runtime": "Compared among the 4 models that were timed in July 2022, too, with the accuracies drawn.",
    "denoised_runtime": "From the authors' parameters at the queries behind the idealized points; drawn values for "
    "GPT-J, YaLM and BLOOM, whose parameters are not published.",
}

CLAIMS = Claims()


@CLAIMS.add_each(
    ("Figure 9", f"points of {METRICS[metric]}, equal to estimates from the logs", "40", metric)
    for metric in ("idealized_runtime", "idealized_cost")
)
def _equal_points(data, metric) -> Evidence:
    drawn = data.drawn().query("metric == @metric")
    both = drawn.merge(recomputed_points(data, metric), on=["task", "model"], suffixes=("", "_here"))
    errors = (both["value_here"] / both["value"] - 1).abs()
    return Evidence(int((errors < DRAWING_ERROR).sum()), note=f"The largest relative deviation is {errors.max():.0e}.")


@CLAIMS.add(
    "Figure 9", "FLOPs are 24 h^2 l for each token: spread of tokens over J1 models, which share a tokenizer (%)", "< 1"
)
def _token_spread(data) -> Evidence:
    flops = _values(data, "flops")[[_LARGE, _GRANDE, _JUMBO]]
    per_token = {name: closed_form_flops_without_attention(PAPER_MODELS[name].architecture, 1) for name in flops}
    num_tokens = flops / pd.Series(per_token)
    spread = num_tokens.max(axis=1) / num_tokens.min(axis=1) - 1
    return Evidence(100 * spread.max())


@CLAIMS.add(
    "Figure 9",
    f"{_LARGE}: model size as drawn (billion parameters)",
    f"{PAPER_MODELS[_LARGE].num_params_drawn / 1e9:g}",
)
def _drawn_size(data) -> Evidence:
    shapes = data.timed_architectures()
    shape = shapes[PAPER_MODELS[_LARGE].architecture_name]
    owners = replace(shape, vocab_size=shapes["j1-grande"].vocab_size).num_params / 1e9
    note = f"Table 1 prints 6.7, the shape that was timed; with J1's own vocabulary it has {owners:.1f}."
    return Evidence(shape.num_params / 1e9, note=note)


@CLAIMS.add_each(
    ("Figure 9", f"{title}: frontier by {label}", "squares", metric, task)
    for metric, label in METRICS.items()
    for task, title in TASKS.items()
)
def _frontier(data, metric, task) -> Evidence:
    drawn = data.drawn().query("metric == @metric and task == @task").set_index("model")
    here = recomputed_points(data, metric).query("task == @task").set_index("model")["value"]
    if metric == "runtime":
        compared = drawn.loc[here.index]
    else:
        compared = drawn
        here = here.reindex(drawn.index).fillna(drawn["value"])
    before = set(compared.index[pareto_frontier(compared)])
    after = set(here.index[pareto_frontier(compared.assign(value=here)).reindex(here.index)])
    source = _SOURCES.get(metric, "")
    note = source
    for names, where in ((before - after, "Only as drawn"), (after - before, "Only here")):
        note += f" {where}: {_names(drawn, names)}." if names else ""
    return Evidence(
        _names(drawn, after),
        holds=before == after,
        is_other_data=bool(source),
        note=note.strip(),
        printed=_names(drawn, drawn.index[pareto_frontier(drawn)]),
    )


def _names(drawn, names) -> str:
    """Names from the least drawn value on."""
    return ", ".join(short_name(name) for name in drawn["value"].sort_values(kind="stable").index if name in set(names))


@CLAIMS.add("5.4", "only a subset of the models is on a frontier", "only a subset")
def _only_a_subset(data) -> Evidence:
    sizes = [len(models) for models in _drawn_frontiers(data).values()]
    num_models = data.drawn()["model"].nunique()
    return Evidence(f"{min(sizes)} to {max(sizes)} of {num_models}", holds=max(sizes) < num_models)


@CLAIMS.add("5.4", "different models are on the frontier of different tasks", "different")
def _differ_by_task(data) -> Evidence:
    frontiers = _drawn_frontiers(data)
    is_different = (len({frontiers[metric, task] for task in TASKS}) > 1 for metric in METRICS)
    return tally(is_different, "for {} of {} metrics")


@CLAIMS.add("5.4", "scale alone does not predict accuracy: rank correlation of the two", "does not")
def _scale_alone(data) -> Evidence:
    points = data.drawn().query("metric == 'model_size'")
    correlations = points.groupby("task")[["value", "accuracy"]].apply(
        lambda task: task["value"].corr(task["accuracy"], method="spearman")
    )
    text = f"{correlations.min():.2f} to {correlations.max():.2f} on {len(correlations)} tasks"
    # Less than half of the variance of ranks is shared.
    return Evidence(text, holds=bool((correlations**2 < 0.5).all()))


@CLAIMS.add("5.4", "davinci is on the raw runtime frontier of each benchmark", "each")
def _davinci_on_raw(data) -> Evidence:
    frontiers = _drawn_frontiers(data)
    return tally((_DAVINCI in frontiers["runtime", task] for task in TASKS), "on {} of {}")


@CLAIMS.add("5.4", "davinci is on no frontier of an idealized metric", "not")
def _davinci_not_on_idealized(data) -> Evidence:
    frontiers = _drawn_frontiers(data)
    is_on = (
        _DAVINCI in frontiers[metric, task] for metric in ("idealized_runtime", "idealized_cost") for task in TASKS
    )
    return tally(is_on, "on {} of {}", holds=lambda flags: not any(flags))


@CLAIMS.add("1", "frontiers by idealized runtime differ from those by raw runtime", "different")
def _differ_from_raw(data) -> Evidence:
    return tally(_unlike_idealized(data, "runtime"), "on {} of {} tasks")


@CLAIMS.add("5.4", "BLOOM and YaLM: order by idealized cost is reversed by FLOPs", "sometimes")
def _order_reversed(data) -> Evidence:
    cost, flops = (_values(data, metric) for metric in ("idealized_cost", "flops"))
    is_reversed = (cost[_BLOOM] < cost[_YALM]) != (flops[_BLOOM] < flops[_YALM])
    return tally(is_reversed, "on {} of {} tasks", holds=any, note=_bloom_note(data))


@CLAIMS.add_each(
    [
        ("5.4", "BLOOM achieves cheaper idealized cost than YaLM", "cheaper", "idealized_cost", _BLOOM, _YALM, all),
        ("5.4", "YaLM uses fewer FLOPs than BLOOM", "fewer", "flops", _YALM, _BLOOM, all),
        ("5.4", "J1-Grande often has worse raw runtime than J1-Jumbo", "often", "runtime", _JUMBO, _GRANDE, most),
        ("5.4", "idealized runtime puts J1-Grande before J1-Jumbo", "easier to see", "idealized_runtime", _GRANDE,
         _JUMBO, all),
    ]
)  # fmt: skip
def _is_less(data, metric, less, more, holds) -> Evidence:
    """On how many tasks the drawn value of one model is below that of another."""
    values = _values(data, metric)
    note = _bloom_note(data) if metric == "idealized_cost" else ""
    return tally(values[less] < values[more], "on {} of {} tasks", holds=holds, note=note)


def _bloom_note(data) -> str:
    runtime = _values(data, "idealized_runtime")
    early = _values(data, "idealized_cost", vintage="2022-10")
    num_faster = int((runtime[_BLOOM] < runtime[_YALM]).sum())
    early_tasks = ", ".join(TASKS[task] for task in early.index[early[_BLOOM] < early[_YALM]]) or "none"
    return (
        f"BLOOM is the faster one on {num_faster} of {len(TASKS)} tasks, but on twice the devices; "
        f"it was cheaper on {early_tasks} in the points of 2022-10."
    )


@CLAIMS.add("5.4", "YaLM requires fewer devices than BLOOM", "lower")
def _yalm_fewer_devices(data) -> Evidence:
    timed = {name: data.timings("a100")[PAPER_MODELS[name].architecture_name] for name in (_YALM, _BLOOM)}
    yalm, bloom = (int(timed[name]["tensor_parallel_size"].iloc[0]) for name in (_YALM, _BLOOM))
    return Evidence(f"{yalm} and {bloom}", holds=yalm < bloom)


@CLAIMS.add("5.4", "J1-Grande often has worse raw runtime than J1-Jumbo: in July 2022", "often")
def _grande_slower_in_july(data) -> Evidence:
    values = recomputed_points(data, "runtime").pivot_table(index="task", columns="model", values="value")
    note = "Mean API runtimes of July 2022."
    return tally(values[_GRANDE] > values[_JUMBO], "on {} of {} tasks", holds=most, is_other_data=True, note=note)


@CLAIMS.add("5.4", "J1-Grande has 10x fewer parameters than J1-Jumbo", "10x")
def _grande_smaller(data) -> Evidence:
    shapes = data.timed_architectures()
    return Evidence(shapes["j1-jumbo"].num_params / shapes["j1-grande"].num_params)


@CLAIMS.add("5.4", "idealized costs are up to an order of magnitude below what APIs charge", "10x")
def _charged(data) -> Evidence:
    queries = data.points("figure9_query_sizes").query("model == @_DAVINCI").set_index("task")
    num_tokens = queries["num_prompt_tokens"] + queries["num_output_tokens"]
    charged_cents = 100 * DAVINCI_USD_PER_1000_TOKENS * num_tokens / 1000
    ratios = charged_cents / _values(data, "idealized_cost")[_DAVINCI]
    note = (
        f"davinci at its list price of July 2022, {DAVINCI_USD_PER_1000_TOKENS} dollars for 1000 tokens; "
        "the published data hold no price of an API."
    )
    text = f"{ratios.min():.1f}x to {ratios.max():.1f}x for davinci"
    # An order of magnitude: nearer to 10 than to 1 or 100, on a scale of ratios.
    return Evidence(text, holds=10**0.5 < ratios.max() < 10**1.5, is_other_data=True, note=note)


@CLAIMS.add("6", "runtime does not correlate exactly with FLOPs: rank correlation", "not exactly")
def _correlation(data) -> Evidence:
    flops, runtime = (_values(data, metric) for metric in ("flops", "idealized_runtime"))
    correlations = flops.corrwith(runtime, axis=1, method="spearman")
    return Evidence(f"{correlations.min():.2f} to {correlations.max():.2f}", holds=correlations.max() < 1)


@CLAIMS.add("6", "FLOPs and raw runtime can lead to other conclusions than idealized runtime", "incorrect")
def _proxies(data) -> Evidence:
    counts = {metric: sum(_unlike_idealized(data, metric)) for metric in ("flops", "runtime")}
    text = ", ".join(
        f"{METRICS[metric]}: other frontier on {count} of {len(TASKS)}" for metric, count in counts.items()
    )
    return Evidence(text, holds=all(counts.values()))


def _values(data, metric, *, vintage="2023-05") -> pd.DataFrame:
    """Drawn values of one metric, tasks by models."""
    points = data.drawn(vintage=vintage).query("metric == @metric")
    return points.pivot_table(index="task", columns="model", values="value")


def _drawn_frontiers(data) -> dict[tuple[str, str], frozenset]:
    """Models on each frontier, by metric and task."""
    return {
        panel: frozenset(points["model"][pareto_frontier(points)])
        for panel, points in data.drawn().groupby(["metric", "task"])
    }


def _unlike_idealized(data, metric) -> list[bool]:
    """Whether each task's frontier by a metric is another one than that by idealized runtime."""
    frontiers = _drawn_frontiers(data)
    return [frontiers[metric, task] != frontiers["idealized_runtime", task] for task in TASKS]
