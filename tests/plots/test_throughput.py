import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from makers import make_timings

from idealized_runtime.fits.batched.model import BatchRuntimeModel
from idealized_runtime.plots.throughput import plot_generation_rate, plot_token_micro_batch_sizes


@pytest.fixture
def ax():
    return plt.subplots()[1]


@pytest.fixture
def timings():
    return make_timings(token_share=0.5).query("micro_batch_size == 1")


def lines(ax):
    return {line.get_label(): line.get_xydata().T for line in ax.lines}


def test_every_part_of_the_runtime_is_drawn_against_k(ax, timings):
    batch = timings.query("batch_size == 8")
    plot_token_micro_batch_sizes(batch, ax=ax)
    drawn = lines(ax)
    assert set(drawn) == {"Overall", "Generate", "Prompt", "Shortest generation"}
    assert drawn["Overall"].tolist() == [[1, 2, 4, 8], batch["runtime_s"].tolist()]
    assert drawn["Prompt"][1].tolist() == batch["prompt_encoding_time_s"].tolist()
    assert [ax.get_xlabel(), ax.get_ylabel()] == ["Token micro-batch size", "Time (s)"]


def test_shortest_generation_is_ringed(ax, timings):
    batch = timings.query("batch_size == 8")
    plot_token_micro_batch_sizes(batch.sample(frac=1, random_state=0), ax=ax)
    best = batch.loc[batch["generation_time_s"].idxmin()]
    expected = [best["token_micro_batch_size"], best["generation_time_s"]]
    assert lines(ax)["Shortest generation"][:, 0].tolist() == pytest.approx(expected)


def test_fitted_line_is_what_the_model_predicts(ax, timings):
    batch = timings.query("batch_size == 8")
    plot_token_micro_batch_sizes(batch, BatchRuntimeModel.fit(timings), ax=ax)
    assert lines(ax)["Overall, fitted"][1].tolist() == pytest.approx(batch["runtime_s"].tolist())


def test_several_batches_in_one_panel_are_refused(ax, timings):
    with pytest.raises(ValueError, match="one panel takes each token micro-batch size once"):
        plot_token_micro_batch_sizes(timings, ax=ax)


def test_rates_are_drawn_for_the_batch_sizes_that_ran(ax):
    table = pd.DataFrame({"tokens_per_s": [5.0, 9.0, np.nan]}, index=[1, 2, 64])
    plot_generation_rate({"toy": table}, label="Tokens a second", ax=ax)
    assert lines(ax)["toy"].tolist() == [[1, 2], [5, 9]]
    assert ax.get_ylabel() == "Tokens a second"
    assert [float(tick) for tick in ax.get_xticks()] == [1, 2]
