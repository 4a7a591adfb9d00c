import numpy as np
import pandas as pd
import pytest
from makers import lines_by_label, make_requests

from idealized_runtime.api.statistics import measure_goodput, measure_throughput, summarize_requests
from idealized_runtime.plots.api_load import plot_percentiles, plot_ratios, plot_throughput


@pytest.fixture
def requests():
    return pd.concat(
        [make_requests(np.linspace(n, 2 * n, 100), load="closed", num_parallel=n) for n in (4, 1)], ignore_index=True
    )


def test_percentiles_are_drawn_against_the_load_in_its_order(requests):
    ax = plot_percentiles(summarize_requests(requests), quantity="runtime_s")
    lines = lines_by_label(ax)
    assert lines["median"].get_xdata().tolist() == [1, 4]
    assert lines["median"].get_ydata().tolist() == [1.5, 6.0]
    assert lines["95th percentile"].get_ydata().tolist() == pytest.approx([1.95, 7.8])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Requests in parallel", "Runtime (s)")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "4"]


def test_goodput_is_drawn_beside_throughput(requests):
    throughput = measure_throughput(requests)
    ax = plot_throughput(throughput, goodput=measure_goodput(requests, {"e2e": 1.5}))
    lines = lines_by_label(ax)
    assert lines["all answered"].get_ydata().tolist() == pytest.approx(
        throughput.sort_values("num_parallel")["requests_per_s"].tolist()
    )
    assert lines["meet the objectives"].get_ydata()[1] == 0


def test_open_loops_have_an_axis_of_rates():
    requests = make_requests(np.ones(10), load="open", rate_per_s=2.0)
    assert plot_throughput(measure_throughput(requests)).get_xlabel() == "Requests sent a second"


def test_two_kinds_of_load_are_not_drawn_as_one(requests):
    requests.loc[0, "load"] = "open"
    with pytest.raises(ValueError, match=r"one kind of load is drawn at a time; got \['closed', 'open'\]"):
        plot_throughput(measure_throughput(requests))


def test_ratios_are_over_the_idealized_runtime():
    raw = pd.DataFrame({"num_prompt_tokens": [1, 1], "num_output_tokens": [2, 2], "runtime_s": [3.0, 4.0]})
    comparison = pd.DataFrame(
        {
            "num_prompt_tokens": [1],
            "num_output_tokens": [2],
            "denoised_s": [2.5],
            "denoised_s_lower": [2.0],
            "denoised_s_upper": [3.0],
            "idealized_s": [2.0],
            "denoised_over_idealized": [1.25],
        }
    )
    ax = plot_ratios(raw, comparison)
    assert lines_by_label(ax)["raw, one trial"].get_ydata().tolist() == [1.5, 2.0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1, 2"]
