import matplotlib.pyplot as plt
import pandas as pd
import pytest

from idealized_runtime.hardware.prices import DeviceRate
from idealized_runtime.plots import finish_panels, make_panels
from idealized_runtime.plots import planning as plots
from idealized_runtime.serving.demand import Demand
from idealized_runtime.serving.objectives import Objective
from idealized_runtime.serving.planning import Candidate, plan
from idealized_runtime.serving.steps import StepModel

QUERIES = pd.DataFrame({"num_prompt_tokens": [512], "num_output_tokens": [256]})


def test_candidates_stand_at_their_dollars_with_their_replicas_the_cheapest_on_top():
    steps = StepModel(0.013, 4e-5, 4e-5, 7e-8, hardware="H100", num_accelerators=1)
    usd = {"dear": 9.0, "cheap": 2.0}
    candidates = [Candidate(name, steps, price_usd_per_hour=DeviceRate.exactly(price)) for name, price in usd.items()]
    found = plan(candidates, Demand.of_queries(QUERIES, rate_per_s=40), [Objective.parse("e2e:p95=20")])
    ax = plots.plot_plan(found)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["dear, 1 x H100", "cheap, 1 x H100"]
    points = [container.lines[0].get_xydata()[0].tolist() for container in ax.containers]
    n = found.answers[0].num_replicas
    assert points == [[9.0 * n, 0], [2.0 * n, 1]]
    assert [text.get_text().strip() for text in ax.texts] == [str(n)] * 2


def test_name_from_a_file_is_text_and_leaves_room_for_the_points():
    steps = StepModel(0.013, 4e-5, 4e-5, 7e-8, hardware="H100", num_accelerators=1)
    candidate = Candidate("$x^{$" + "-very" * 20, steps, price_usd_per_hour=DeviceRate.exactly(2.0))
    found = plan([candidate], Demand.of_queries(QUERIES, rate_per_s=40), [Objective.parse("e2e:p95=20")])
    figure, ax = plt.subplots(figsize=(5.2, 1.8), layout="constrained")
    plots.plot_plan(found, ax=ax)
    figure.draw_without_rendering()
    (label,) = ax.get_yticklabels()
    assert label.get_text().startswith(r"\$x^{\$-very")
    assert label.get_text().endswith("-very, 1 x H100")
    assert ax.get_position().width > 0.2


def test_dollars_by_traffic_are_those_of_a_thousand_queries_beside_an_api():
    curve = pd.DataFrame({"requests_per_s": [1.0, 10.0], "usd_per_query": [0.002, 0.0004]})
    ax = plots.plot_usd_against_rate({"one": curve}, 0.001)
    own, api = ax.get_lines()
    assert own.get_ydata().tolist() == pytest.approx([2.0, 0.4])
    assert api.get_ydata() == pytest.approx([1.0, 1.0])


def test_no_line_is_left_out_where_there_are_more_than_markers():
    curve = pd.DataFrame({"requests_per_s": [1.0, 10.0], "usd_per_query": [0.002, 0.0004]})
    ax = plots.plot_usd_against_rate({str(number): curve for number in range(11)})
    assert len(ax.get_lines()) == 11


def test_each_machine_has_a_line_of_what_an_objective_costs():
    rows = [(0.1, "m", "A100-80GB", 1, 4.0), (0.2, "m", "A100-80GB", 1, 2.0), (0.2, "m", "V100-32GB", 2, 3.0)]
    curve = pd.DataFrame(rows, columns=["seconds", "model", "hardware", "num_accelerators", "usd_per_hour"])
    ax = plots.plot_usd_against_objective(curve, "TTFT p95 (s)")
    assert [line.get_label() for line in ax.get_lines()] == ["m, 1 x A100-80GB", "m, 2 x V100-32GB"]
    assert ax.get_lines()[0].get_ydata().tolist() == [4.0, 2.0]


def test_legend_that_is_wider_than_its_figure_takes_more_rows():
    figure, axes = make_panels(["one"])
    (ax,) = axes.values()
    for number in range(5):
        ax.plot([0, 1], label=f"a label of a model on some machine, number {number}")
    finish_panels(figure, axes)
    (legend,) = figure.legends
    assert legend.get_window_extent(figure.canvas.get_renderer()).width <= figure.bbox.width
    plt.close(figure)
