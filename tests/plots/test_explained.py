import matplotlib as mpl

mpl.use("Agg")
import numpy as np
import pandas as pd
import pytest

from idealized_runtime.fits import RuntimeModel
from idealized_runtime.plots.explained import (
    LAYER_OPERATORS,
    plot_layer_operators,
    plot_runtime_metrics,
    plot_text_generation,
    runtime_parts,
)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_trials_and_parts_are_drawn_to_one_scale():
    ax = plot_runtime_metrics([2.0, 3.0], {"denoised": (0.5, 0.25, [0.1, 0.2]), "idealized": (0.0, 0.3, [0.1])})
    widths = [bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(widths, [3.0, 2.0, 0.5, 0.25, 0.1, 0.2, 0.0, 0.3, 0.1])
    starts = [bar.get_x() for bar in ax.patches]
    np.testing.assert_allclose(starts, [0, 0, 0, 0.5, 0.75, 0.85, 0, 0, 0.3])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Raw runtime,\n2 trials", "denoised", "idealized"]
    assert ax.get_xlabel() == "Time (s)"


def test_each_part_stands_once_in_the_legend():
    ax = plot_runtime_metrics([2.0], {"a": (0.1, 0.1, [0.1]), "b": (0.1, 0.1, [0.1])})
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["one trial, whole", "overhead of the API", "prompt encoding", "a further output token"]


def test_parts_of_a_query_add_up_to_its_runtime():
    p, o = np.meshgrid([1, 256, 512, 1024], [1, 4, 16, 64])
    runtime_s = 0.02 + 1e-4 * p + 0.03 * (o - 1)
    frame = pd.DataFrame(
        {"num_prompt_tokens": p.ravel(), "num_output_tokens": o.ravel(), "runtime_s": runtime_s.ravel()}
    )
    fit = RuntimeModel.fit(frame)
    overhead_s, prompt_s, tokens_s = runtime_parts(fit, 512, 16)
    assert overhead_s == 0
    assert len(tokens_s) == 15
    assert prompt_s + tokens_s.sum() == pytest.approx(fit.predict(512, 16))


def test_each_pass_takes_the_last_output_and_the_first_one_the_prompt():
    ax = plot_text_generation(["The", "brown"], ["fox", "jumps"])
    drawn = texts(ax)
    assert drawn[:2] == ["The", "brown"]
    assert drawn.count("fox") == 2
    assert drawn.count("jumps") == 1
    assert drawn.count("prompt encoding") == drawn.count("one more token") == 1


def test_operators_of_a_layer_add_up_to_the_closed_form():
    drawn = texts(plot_layer_operators())
    assert [text for text in drawn if text.startswith("$")] == [flops for _, flops in LAYER_OPERATORS]
    width, tokens = 64, 10
    values = {r"h^2": width**2, "ih": tokens * width}
    total = sum(
        int(flops.strip("$").removesuffix(term)) * value
        for _, flops in LAYER_OPERATORS
        for term, value in values.items()
        if flops.strip("$").endswith(term)
    )
    # Section 3.1.1 of arXiv:2305.02440.
    assert total == 24 * width**2 + 4 * tokens * width
