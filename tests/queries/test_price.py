import json
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from idealized_runtime.fits.protocol import NoIntervalError
from idealized_runtime.hardware.prices import DeviceRate, dollar_cost_usd
from idealized_runtime.queries.price import price

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
    """t = a + b p + g (o - 1), profiled up to ``largest`` prompt tokens, known to a share of ``error``."""

    a: float = 0.1
    b: float = 0.001
    g: float = 0.02
    largest: int = 1000
    error: float | None = None
    batch_size: int | None = None

    def is_extrapolated(self, num_prompt_tokens):
        return np.asarray(num_prompt_tokens) > self.largest

    def predict(self, num_prompt_tokens, num_output_tokens, *, extrapolate=False):
        if not extrapolate and np.any(self.is_extrapolated(num_prompt_tokens)):
            raise ValueError("beyond")
        return self.a + self.b * num_prompt_tokens + self.g * (num_output_tokens - 1)

    def predict_interval(self, num_prompt_tokens, num_output_tokens, *, level=0.95, extrapolate=False):
        if self.error is None:
            raise NoIntervalError("nothing is known")
        runtime_s = self.predict(num_prompt_tokens, num_output_tokens, extrapolate=extrapolate)
        return (1 - self.error) * runtime_s, (1 + self.error) * runtime_s


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

    def predict_interval(self, num_prompt_tokens, num_output_tokens, *, level=0.95, extrapolate=False):
        raise NoIntervalError("nothing is known of HELM's errors")


def make_queries(*rows):
    return pd.DataFrame(rows, columns=["model", "num_prompt_tokens", "num_output_tokens"])


def test_each_query_is_priced_by_its_own_model_in_place():
    queries = make_queries(("b", 10, 1), ("a", 100, 5), ("b", 20, 3), ("a", 1, 1)).set_axis([5, 5, 1, 0], axis=0)
    models = {"a": Line(), "b": Line(a=1.0, b=0.5, g=0.25), "unused": Line()}
    priced = price(queries, models)
    assert priced.table.index.tolist() == [5, 5, 1, 0]
    assert not priced.missing
    np.testing.assert_allclose(priced.table["runtime_s"], [1 + 5, 0.1 + 0.1 + 0.08, 1 + 10 + 0.5, 0.1 + 0.001])


def test_one_model_prices_all_queries_whatever_model_they_name():
    runtime_s = price(make_queries(("x", 10, 1), (None, 10, 1)), Line()).table["runtime_s"]
    assert runtime_s.tolist() == pytest.approx([0.11, 0.11])


def test_mean_token_counts_and_categories_are_priced():
    queries = make_queries(("a", 10.5, 1.5)).astype({"model": "category"})
    assert price(queries, {"a": Line()}).table["runtime_s"].tolist() == pytest.approx([0.1 + 0.0105 + 0.01])


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        (("unknown", 10, 1), "no model of runtimes"),
        ((None, 10, 1), "no model of runtimes"),
        (("x", np.nan, 0), "no model of runtimes"),
        (("a", np.nan, 1), "no token counts"),
        (("a", np.inf, 1), "no token counts"),
        (("a", 10, None), "no token counts"),
        (("a", 10, 0), "fewer than one prompt or output token"),
        (("a", 1001, 1), "beyond the profiled prompt sizes"),
    ],
)
def test_what_cannot_be_priced_stays_missing_and_is_counted_once(row, cause):
    queries = make_queries(("a", 10, 1), row, ("a", 1000, 1))
    priced = price(queries, {"a": Line()}, num_accelerators=1, price_usd_per_hour=1.0)
    assert priced.missing == {cause: 1}
    assert priced.table["runtime_s"].isna().tolist() == [False, True, False]
    totals = priced.totals()
    assert (totals["num_queries"], totals["num_missing"]) == (3, 1)
    assert totals["runtime_s"]["total"] == pytest.approx(0.11 + 1.1)


def test_queries_beyond_the_profiled_sizes_are_priced_on_request_and_marked():
    priced = price(make_queries(("a", 2000, 1), ("a", 1, 1)), {"a": Line(error=0.1)}, extrapolate=True)
    assert priced.table["runtime_s"].tolist() == pytest.approx([2.1, 0.101])
    assert priced.table["is_extrapolated"].tolist() == [True, False]
    assert priced.table["runtime_s_upper"].tolist() == pytest.approx([2.31, 0.1111])


def test_context_that_a_model_does_not_take_is_no_query_to_it():
    line = Line()
    line.architecture = type("Architecture", (), {"max_position_embeddings": 100})
    assert price(make_queries(("a", 90, 10), ("a", 91, 10)), line).missing == {"longer than the model's context": 1}


def test_no_queries_give_no_prices():
    queries = make_queries().astype({"num_prompt_tokens": int, "num_output_tokens": int})
    priced = price(queries, {}, num_accelerators=1, price_usd_per_hour=1.0)
    assert priced.table.empty
    assert priced.totals() == {"num_queries": 0, "num_missing": 0, "runtime_s": None, "cost_usd": None,
                               "energy_joules": None,
                               "per_million_tokens": {"cost_usd": None, "energy_joules": None}}  # fmt: skip


def test_one_model_under_two_names_has_one_error_and_two_models_have_two():
    queries = make_queries(("a", 900, 1), ("b", 900, 1))
    one, other = Line(error=0.5), Line(error=0.5)
    same, apart = (price(queries, {"a": one, "b": second}).totals()["runtime_s"] for second in (one, other))
    assert same["total_upper"] == pytest.approx(1.5 * same["total"])
    assert apart["total_upper"] == pytest.approx((1 + 0.5 / np.sqrt(2)) * apart["total"])


def test_million_tokens_count_every_query_as_often_as_its_weight_says():
    queries = make_queries(("a", 900, 1), ("a", 100, 11)).assign(weight=[3, 1])
    totals = price(queries, Line(), num_accelerators=1, price_usd_per_hour=3600.0).totals()
    rates = totals["per_million_tokens"]["cost_usd"]
    assert rates["output"] == pytest.approx(1e6 * totals["cost_usd"]["total"] / 14)
    assert rates["all"] == pytest.approx(1e6 * totals["cost_usd"]["total"] / 2814)
    assert totals["per_million_tokens"]["energy_joules"] is None


def test_cost_and_energy_have_the_intervals_of_the_runtime_and_of_their_rates():
    power = DeviceRate(300.0, 200.0, 400.0, "measured")
    rates = {"num_accelerators": 4, "price_usd_per_hour": 3600.0, "power_watts": power}
    row = price(make_queries(("a", 900, 1)), Line(error=0.5), **rates).table.iloc[0]
    assert row[["cost_usd_lower", "cost_usd", "cost_usd_upper"]].tolist() == pytest.approx([2, 4, 6])
    joules = row[["energy_joules_lower", "energy_joules", "energy_joules_upper"]].tolist()
    assert joules == pytest.approx([0.5 * 4 * 200, 4 * 300, 1.5 * 4 * 400])


def test_queries_of_a_batch_share_what_it_costs_but_not_how_long_it_takes():
    options = {"num_accelerators": 4, "price_usd_per_hour": 3600.0}
    one, many = (price(make_queries(("a", 900, 1)), Line(batch_size=size), **options) for size in (1, 32))
    assert one.table["runtime_s"].item() == many.table["runtime_s"].item()
    assert one.table["cost_usd"].item() == pytest.approx(32 * many.table["cost_usd"].item())
    assert many.accelerator_s.tolist() == pytest.approx([4 / 32])


def test_models_without_a_number_of_accelerators_keep_their_runtime_only():
    queries = make_queries(("a", 1, 1), ("b", 1, 1))
    rates = {"num_accelerators": {"a": 4}, "price_usd_per_hour": 3.6, "power_watts": 100.0}
    priced = price(queries, {"a": Line(), "b": Line()}, **rates)
    assert priced.missing == {"no number of accelerators": 1}
    assert priced.table["runtime_s"].tolist() == pytest.approx([0.101, 0.101])
    assert priced.table["cost_usd"].tolist() == pytest.approx([0.101 * 4 / 1000, np.nan], nan_ok=True)
    assert priced.table["energy_joules"].tolist() == pytest.approx([40.4, np.nan], nan_ok=True)
    # A sum over a part of the queries would pass for that of all.
    assert priced.totals()["cost_usd"] is None
    assert priced.totals()["num_missing"] == 0


def test_errors_of_one_model_add_up_and_those_of_several_in_squares():
    queries = make_queries(("a", 900, 1), ("a", 900, 1), ("b", 400, 1))
    totals = price(queries, {"a": Line(error=0.15), "b": Line(error=0.8)}).totals()["runtime_s"]
    assert totals["total"] == pytest.approx(2.5)
    # Errors of 2 x 0.15 and of 0.4 s.
    assert (totals["total_lower"], totals["total_upper"]) == pytest.approx((2.0, 3.0))


def test_totals_without_an_interval_say_so():
    totals = price(make_queries(("a", 900, 1), ("b", 400, 1)), {"a": Line(error=0.1), "b": Line()}).totals()
    assert totals["runtime_s"]["total"] == pytest.approx(1.5)
    assert np.isnan([totals["runtime_s"][f"total_{side}"] for side in ("lower", "upper")]).all()


def test_weights_count_as_so_many_queries():
    rng = np.random.default_rng(0)
    queries = pd.DataFrame({"num_prompt_tokens": rng.integers(1, 900, 50), "num_output_tokens": 1})
    queries = queries.assign(weight=rng.integers(0, 5, 50))
    repeated = queries.loc[queries.index.repeat(queries["weight"])].drop(columns="weight")
    weighted, counted = (price(rows, Line(error=0.1)).totals()["runtime_s"] for rows in (queries, repeated))
    assert weighted == pytest.approx(counted)


def test_percentiles_are_runtimes_of_queries():
    queries = pd.DataFrame({"num_prompt_tokens": np.arange(1, 101), "num_output_tokens": 1})
    totals = price(queries, Line(a=0, b=1)).totals()["runtime_s"]
    assert [totals[name] for name in ("mean", "p50", "p95", "p99")] == [50.5, 50, 95, 99]


@pytest.mark.parametrize(
    ("queries", "options", "message"),
    [
        (make_queries(("a", 1, 1)).drop(columns="model"), {}, "no column model; .*there are: num_prompt_tokens"),
        (make_queries(("a", "10", 1)), {}, "column num_prompt_tokens must hold numbers; .*in row 1 of 1: '10'"),
        (make_queries(("a", 1, 1)).assign(weight=-1), {}, "weight must be zero or a positive finite number; got -1"),
        (make_queries(("a", 1, 1)), {"price_usd_per_hour": 1.0}, "cost and energy need num_accelerators"),
        (make_queries(("a", 1, 1)), {"num_accelerators": {"a": 0}}, "num_accelerators of a must be a positive"),
        (make_queries(("a", 1, 1)), {"num_accelerators": 1, "power_watts": -5}, "power_watts must be a positive"),
    ],
)
def test_what_is_no_query_or_no_price_is_refused(queries, options, message):
    with pytest.raises(ValueError, match=message):
        price(queries, {"a": Line()}, **options)


def test_a_million_queries_of_many_models_are_priced_in_two_seconds():
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
    priced = price(queries, models, num_accelerators=8, price_usd_per_hour=4.0, power_watts=400.0)
    assert time.process_time() - start_s < 2
    is_priced = queries["model"].isin(list(models)) & queries["num_output_tokens"].gt(0)
    is_priced &= queries["num_prompt_tokens"].le(1024)
    pd.testing.assert_series_equal(priced.table["energy_joules"].notna(), is_priced, check_names=False)


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
    for file, column, usd_per_hour in (("", 1, 4.096), ("_v100", 2, 3.06)):
        path = published / "helm-efficiency" / "processed_jsons" / f"inference_idealized_runtimes{file}.json"
        models = {name: HelmRule(entry) for name, entry in json.loads(path.read_text()).items()}
        numbers = {row[0]: row[column] for row in PUBLISHED_MODELS.values() if row[column]}
        models = {name: model for name, model in models.items() if name in numbers}
        # Prompts of IMDB and BoolQ are longer than what was profiled on V100; TNLG v2 is printed for A100 only.
        priced = price(queries, models, num_accelerators=numbers, price_usd_per_hour=usd_per_hour, extrapolate=True)
        metrics.append(priced.table)
    return metrics, printed


@pytest.mark.parametrize(
    ("column", "metric", "scale"),
    [("runtime_s", "idealized_runtime", 1), ("cost_usd", "idealized_cost", 100)],
)
def test_forty_printed_values_of_figure_9_are_means_over_a100_and_v100(figure9_metrics, column, metric, scale):
    (a100, v100), printed = figure9_metrics
    estimates = scale * pd.concat([a100[column], v100[column]], axis=1).mean(axis=1)
    assert len(estimates) == printed[metric].notna().sum() == 40
    np.testing.assert_allclose(estimates, printed[metric], rtol=0, atol=1e-6)


def test_cost_of_figure_8_is_runtime_times_accelerators_times_price(published):
    points = pd.read_csv(published / "paper_figures" / "figure8_points.csv")
    assert len(points) == 36
    for column, index, usd_per_hour in (("a100", 1, 4.096), ("v100", 2, 3.06)):
        numbers = points["model"].map({label: row[index] for label, row in PUBLISHED_MODELS.items()})
        cost_usd = dollar_cost_usd(
            points[f"runtime_{column}_s"], num_accelerators=numbers, price_usd_per_hour=usd_per_hour
        )
        np.testing.assert_allclose(100 * cost_usd, points[f"cost_{column}_cents"], rtol=0, atol=1e-6)


class Bare:
    """A class that has only the protocol's methods: none takes ``extrapolate``."""

    def is_extrapolated(self, num_prompt_tokens):
        return np.asarray(num_prompt_tokens) > 100

    def predict(self, num_prompt_tokens, num_output_tokens):
        return 0.5 * num_prompt_tokens + num_output_tokens

    def predict_interval(self, num_prompt_tokens, num_output_tokens, *, level=0.95):
        runtime_s = self.predict(num_prompt_tokens, num_output_tokens)
        return runtime_s - 1, runtime_s + 1


def test_class_without_the_option_answers_beyond_its_sizes_as_it_is():
    queries = make_queries(("a", 10, 1), ("a", 1000, 1))
    table = price(queries, Bare(), extrapolate=True).table
    assert table["runtime_s"].tolist() == [6, 501]
    assert table["is_extrapolated"].tolist() == [False, True]
    assert price(queries, Bare()).missing == {"beyond the profiled prompt sizes": 1}


@pytest.mark.filterwarnings("error")
def test_counts_beyond_the_integers_of_floats_are_priced_or_missing_without_a_warning():
    queries = make_queries(("a", 1e300, 1), ("a", np.inf, 1))
    priced = price(queries, Line(largest=np.inf))
    assert priced.table["runtime_s"].iloc[0] == pytest.approx(1e297)
    assert priced.missing == {"no token counts": 1}


def test_totals_are_json():
    assert json.loads(json.dumps(price(make_queries(("a", 1, 1)), Line()).totals()))["num_queries"] == 1


@pytest.mark.parametrize(
    ("queries", "model", "options", "error", "message"),
    [
        (make_queries(("a", 1, 1)), Line(), {"level": 95}, ValueError, "level must lie between 0 and 1; got 95"),
        ([(1, 1)], Line(), {}, TypeError, "queries must be a DataFrame, such as read_queries returns"),
        (make_queries(("a", 1, 1)), None, {}, TypeError, "model must be a ModelOfRuntimes"),
        (make_queries(("a", 1, 1)), {"a": None}, {}, TypeError, "model a must be a ModelOfRuntimes"),
        (make_queries(("a", 1, 1)), Line(), {"power_watts": "x"}, TypeError, "power_watts must be a number"),
        (make_queries(("a", 1, 1)), {"a": Line()}, {"price_usd_per_hour": {"a": "x"}}, TypeError,
         "price_usd_per_hour of a must be a number"),
    ],
)  # fmt: skip
def test_argument_of_another_kind_is_refused_by_its_name(queries, model, options, error, message):
    with pytest.raises(error, match=message):
        price(queries, model, num_accelerators=1, **options)
