import json
import time
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from idealized_runtime.checks import MissingValueWarning
from idealized_runtime.hardware.prices import dollar_cost_usd, energy_joules, num_queries_to_amortize
from idealized_runtime.queries.pricing import accelerators_of, estimate_runtimes, query_metrics

# Name in HELM, and accelerators on A100 and on V100 (arXiv:2305.02440, Table 1 and Figure 8).
PUBLISHED_MODELS = {
    "OpenAI/davinci": ("openai/davinci", 8, 16),
    "AI21/J1-Large v1": ("ai21/j1-large", 1, 1),
    "AI21/J1-Grande v1": ("ai21/j1-grande", 1, 2),
    "AI21/J1-Jumbo v1": ("ai21/j1-jumbo", 8, 16),
    "Cohere/XL v20220609": ("cohere/xlarge-20220609", 4, 4),
    "Anthropic/v4-s3": ("anthropic/stanford-online-all-v4-s3", 4, 4),
    "Microsoft+NV/TNLG v2": ("microsoft/TNLGv2_530B", 24, None),
    "EleutherAI/GPT-J": ("together/gpt-j-6b", 1, 1),
    "Yandex/YaLM": ("together/yalm", 4, 8),
    "BigScience/BLOOM": ("together/bloom", 8, 16),
}


@dataclass
class Line:
    """t = a + b p + g (o - 1), profiled up to ``largest`` prompt tokens."""

    a: float = 0.1
    b: float = 0.001
    g: float = 0.02
    largest: int = 1000

    def is_extrapolated(self, num_prompt_tokens):
        return np.asarray(num_prompt_tokens) > self.largest

    def predict(self, num_prompt_tokens, num_output_tokens, *, extrapolate=False):
        if not extrapolate and np.any(self.is_extrapolated(num_prompt_tokens)):
            raise ValueError("beyond")
        return self.a + self.b * num_prompt_tokens + self.g * (num_output_tokens - 1)


class HelmRule:
    """The estimate that HELM and the published figures use: the next larger knot, scaled down."""

    def __init__(self, entry):
        times_s = entry["runtime_for_prompt_tokens"]
        self.knots = np.array(sorted(map(int, times_s)))
        self.times_s = np.array([times_s[str(knot)] for knot in self.knots])
        self.g = entry["runtime_per_output_token"]

    def is_extrapolated(self, num_prompt_tokens):
        return np.asarray(num_prompt_tokens) > self.knots[-1]

    def predict(self, num_prompt_tokens, num_output_tokens, *, extrapolate=False):
        above = np.minimum(np.searchsorted(self.knots, num_prompt_tokens), len(self.knots) - 1)
        return self.times_s[above] * num_prompt_tokens / self.knots[above] + self.g * (num_output_tokens - 1)


def make_queries(*rows):
    return pd.DataFrame(rows, columns=["model", "num_prompt_tokens", "num_output_tokens"])


def test_each_query_is_estimated_by_its_own_model_in_place():
    queries = make_queries(("b", 10, 1), ("a", 100, 5), ("b", 20, 3), ("a", 1, 1)).set_axis([5, 5, 1, 0], axis=0)
    models = {"a": Line(), "b": Line(a=1.0, b=0.5, g=0.25), "unused": Line()}
    runtimes_s = estimate_runtimes(queries, models)
    assert runtimes_s.index.tolist() == [5, 5, 1, 0]
    assert runtimes_s.name == "idealized_runtime_s"
    np.testing.assert_allclose(runtimes_s, [1 + 5, 0.1 + 0.1 + 0.08, 1 + 10 + 0.5, 0.1 + 0.001])


def test_mean_token_counts_and_categories_are_estimated():
    queries = make_queries(("a", 10.5, 1.5)).astype({"model": "category"})
    assert estimate_runtimes(queries, {"a": Line()}).tolist() == pytest.approx([0.1 + 0.0105 + 0.01])


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        (("unknown", 10, 1), r"have no fitted model, so no idealized_runtime_s: unknown"),
        ((None, 10, 1), r"have no fitted model, so no idealized_runtime_s: \(no name\)"),
        (("a", np.nan, 1), r"lack token counts, so no idealized_runtime_s: a"),
        (("a", np.inf, 1), r"lack token counts, so no idealized_runtime_s: a"),
        (("a", 10, None), r"lack token counts, so no idealized_runtime_s: a"),
        (("a", 10, 0), r"have fewer than one prompt or output token, so no idealized_runtime_s: a"),
        (("a", 1001, 1), r"lie beyond the profiled prompt sizes \(extrapolate=True estimates them\), so no .*: a"),
    ],
)
def test_what_cannot_be_estimated_stays_missing_named_and_counted(row, cause):
    queries = make_queries(("a", 10, 1), row, ("a", 1000, 1))
    with pytest.warns(MissingValueWarning, match="1 of 3 rows " + cause) as caught:
        runtimes_s = estimate_runtimes(queries, {"a": Line()})
    assert len(caught) == 1
    assert runtimes_s.isna().tolist() == [False, True, False]


def test_one_warning_a_cause_counts_every_model():
    rows = [("x", 1, 1)] * 3 + [("y", 1, 1), ("a", 2000, 1), ("a", 3000, 2), ("a", 1, 1)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimate_runtimes(make_queries(*rows), {"a": Line()})
    assert [str(warning.message).split(":")[0].split(",")[0][:32] for warning in caught] == [
        "4 of 7 rows have no fitted model",
        "2 of 7 rows lie beyond the profi",
    ]
    assert str(caught[0].message).endswith("x (3), y")
    assert str(caught[1].message).endswith("a (2)")
    assert {warning.filename for warning in caught} == {__file__}


def test_a_query_that_lacks_everything_is_counted_once():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimate_runtimes(make_queries(("x", np.nan, 0), ("a", 1, 1)), {"a": Line()})
    assert len(caught) == 1


def test_extrapolation_is_estimated_on_request():
    queries = make_queries(("a", 2000, 1))
    assert estimate_runtimes(queries, {"a": Line()}, extrapolate=True).tolist() == pytest.approx([2.1])


def test_no_queries_give_no_estimates():
    queries = make_queries().astype({"num_prompt_tokens": int, "num_output_tokens": int})
    assert estimate_runtimes(queries, {}).empty
    columns = query_metrics(queries, idealized={}, num_accelerators=1, price_usd_per_hour=1.0).columns
    assert columns.tolist() == ["idealized_runtime_s", "idealized_cost_usd"]


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (
            make_queries().drop(columns="model"),
            "no column model; needed: model; there are: num_prompt",
        ),
        (make_queries(("a", "10", 1)), "column num_prompt_tokens must hold numbers"),
    ],
)
def test_frames_that_are_no_queries_are_refused(queries, message):
    with pytest.raises(ValueError, match=message):
        estimate_runtimes(queries, {"a": Line()})


def test_cost_and_energy_follow_from_runtime():
    assert dollar_cost_usd(1800.0, num_accelerators=8, price_usd_per_hour=2.0) == 8.0
    assert energy_joules(10.0, num_accelerators=8, power_watts=400.0) == 32_000.0


def test_idle_hours_are_shared_among_queries():
    assert dollar_cost_usd(3600.0, num_accelerators=1, price_usd_per_hour=3.0, utilization=0.25) == 12.0
    # Each busy second comes with three idle ones.
    idle = energy_joules(2.0, num_accelerators=2, power_watts=400.0, utilization=0.25, idle_power_watts=50.0)
    assert idle == 2 * 2 * (400 + 3 * 50)


def test_training_is_amortized_by_its_energy_over_that_of_a_query():
    assert num_queries_to_amortize(1e12, 500.0) == 2e9
    assert num_queries_to_amortize(100.0, pd.Series([1.0, np.nan])).tolist()[0] == 100


class Batch(Line):
    batch_size = 32


def test_runtimes_of_batches_are_those_of_their_queries():
    queries = make_queries(("a", 1, 1))
    one, many = (query_metrics(queries, idealized={"a": model()})["idealized_runtime_s"] for model in (Line, Batch))
    assert one.tolist() == many.tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dollar_cost_usd(1.0, num_accelerators=1, price_usd_per_hour=None), r"price_usd_per_hour is not known"),
        (
            lambda: dollar_cost_usd(1.0, num_accelerators=0, price_usd_per_hour=1),
            "num_accelerators must be a positive finite number; got 0",
        ),
        (
            lambda: dollar_cost_usd(1.0, num_accelerators=1, price_usd_per_hour=1, utilization=0),
            r"utilization must be in \(0, 1\]; got 0",
        ),
        (lambda: dollar_cost_usd(1.0, num_accelerators=1, price_usd_per_hour=np.inf), "price_usd_per_hour must be a"),
        (
            lambda: dollar_cost_usd(1.0, num_accelerators=1, price_usd_per_hour=1, utilization=None),
            "utilization is not",
        ),
        (
            lambda: energy_joules(1.0, num_accelerators=1, power_watts=-5),
            "power_watts must be a positive finite number; got -5",
        ),
        (
            lambda: energy_joules(1.0, num_accelerators=1, power_watts=5, idle_power_watts=-1),
            "idle_power_watts must be zero or a positive finite number; got -1",
        ),
        (lambda: num_queries_to_amortize(1.0, 0.0), "query_energy_joules must be a positive"),
        (lambda: num_queries_to_amortize(float("nan"), 1.0), "training_energy_joules must be a positive"),
        (
            lambda: query_metrics(make_queries(("a", 1, 1)), idealized={"a": Line()}, price_usd_per_hour=1.0),
            "cost and energy need num_accelerators",
        ),
        (
            lambda: query_metrics(make_queries(("a", 1, 1)), idealized={"a": Batch()}, num_accelerators=1),
            "cost and energy of a query need models timed with one query at a time; timed in batches: a of 32",
        ),
        (lambda: accelerators_of(make_queries(("a", 1, 1)), {"a": 0}), "num_accelerators of a must be a positive"),
    ],
)
def test_unknown_or_impossible_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_models_without_a_number_of_accelerators_keep_their_runtime_only():
    queries = make_queries(("a", 1, 1), ("b", 1, 1))
    with pytest.warns(MissingValueWarning, match="1 of 2 rows have no number of accelerators.*: b"):
        metrics = query_metrics(
            queries,
            idealized={"a": Line(), "b": Line()},
            denoised={"a": Line(a=0.5), "b": Line(a=0.5)},
            num_accelerators={"a": 4},
            price_usd_per_hour=3.6,
            power_watts=100.0,
        )
    assert metrics["idealized_runtime_s"].tolist() == pytest.approx([0.101, 0.101])
    assert metrics["denoised_runtime_s"].tolist() == pytest.approx([0.501, 0.501])
    assert metrics["idealized_cost_usd"].tolist() == pytest.approx([0.101 * 4 / 1000, np.nan], nan_ok=True)
    assert metrics["idealized_energy_joules"].tolist() == pytest.approx([40.4, np.nan], nan_ok=True)


def test_a_million_instances_are_estimated_in_two_seconds():
    rng = np.random.default_rng(0)
    names = np.array([f"owner/model-{i}" for i in range(21)], dtype=object)
    queries = pd.DataFrame(
        {
            "model": names[rng.integers(0, 21, 10**6)],
            "num_prompt_tokens": rng.integers(1, 1100, 10**6),
            "num_output_tokens": rng.integers(0, 200, 10**6),
        }
    )
    models = {name: HelmRule({"runtime_for_prompt_tokens": {"1": 0.1, "512": 0.3, "1024": 0.5},
                              "runtime_per_output_token": 0.03}) for name in names[:20]}  # fmt: skip
    start_s = time.process_time()
    with pytest.warns(MissingValueWarning):
        metrics = query_metrics(
            queries, idealized=models, denoised=models, num_accelerators=8, price_usd_per_hour=4.0, power_watts=400.0
        )
    assert time.process_time() - start_s < 2
    estimated = queries["model"].isin(list(models)) & queries["num_output_tokens"].gt(0)
    estimated &= queries["num_prompt_tokens"].le(1024)
    pd.testing.assert_series_equal(metrics["idealized_energy_joules"].notna(), estimated, check_names=False)


@pytest.fixture(scope="module")
def figure9_metrics(published):
    """Estimates on A100 and on V100 for the queries behind Figure 9, beside the printed values."""
    sizes = pd.read_csv(published / "paper_figures" / "figure9_query_sizes.csv").rename(columns={"model": "label"})
    queries = sizes.assign(model=[PUBLISHED_MODELS[label][0] for label in sizes["label"]])
    points = pd.read_csv(published / "paper_figures" / "figure9_points.csv").query("vintage == '2023-05'")
    printed = points[points["metric"].isin(["idealized_runtime", "idealized_cost"])]
    printed = printed.pivot_table(index=["task", "model"], columns="metric", values="value")
    printed = printed.reindex(pd.MultiIndex.from_frame(queries[["task", "label"]])).set_axis(queries.index, axis=0)
    metrics = []
    for file, column, price in (("", 1, 4.096), ("_v100", 2, 3.06)):
        path = published / "helm-efficiency" / "processed_jsons" / f"inference_idealized_runtimes{file}.json"
        models = {name: HelmRule(entry) for name, entry in json.loads(path.read_text()).items()}
        numbers = {row[0]: row[column] for row in PUBLISHED_MODELS.values() if row[column]}
        models = {name: model for name, model in models.items() if name in numbers}
        with warnings.catch_warnings():
            # TNLG v2 is printed for A100 only.
            warnings.simplefilter("ignore", MissingValueWarning)
            # Prompts of IMDB and BoolQ are longer than what was profiled on V100.
            metrics.append(
                query_metrics(
                    queries, idealized=models, num_accelerators=numbers, price_usd_per_hour=price, extrapolate=True
                )
            )
    return metrics, printed


@pytest.mark.parametrize(
    ("column", "metric", "scale"),
    [("idealized_runtime_s", "idealized_runtime", 1), ("idealized_cost_usd", "idealized_cost", 100)],
)
def test_forty_printed_values_of_figure_9_are_means_over_a100_and_v100(figure9_metrics, column, metric, scale):
    (a100, v100), printed = figure9_metrics
    estimates = scale * pd.concat([a100[column], v100[column]], axis=1).mean(axis=1)
    assert len(estimates) == printed[metric].notna().sum() == 40
    np.testing.assert_allclose(estimates, printed[metric], rtol=0, atol=1e-6)


def test_cost_of_figure_8_is_runtime_times_accelerators_times_price(published):
    points = pd.read_csv(published / "paper_figures" / "figure8_points.csv")
    assert len(points) == 36
    for column, index, price in (("a100", 1, 4.096), ("v100", 2, 3.06)):
        numbers = accelerators_of(points, {label: row[index] for label, row in PUBLISHED_MODELS.items() if row[index]})
        cost_usd = dollar_cost_usd(points[f"runtime_{column}_s"], num_accelerators=numbers, price_usd_per_hour=price)
        np.testing.assert_allclose(100 * cost_usd, points[f"cost_{column}_cents"], rtol=0, atol=1e-6)
