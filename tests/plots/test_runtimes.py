import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from idealized_runtime import RuntimeModel
from idealized_runtime.fits import model_from_json
from idealized_runtime.fits.knee import fit_knee
from idealized_runtime.plots import (
    finish_panels,
    make_panels,
    plot_prompt_encoding_time,
    plot_residuals,
    plot_runtime_vs_output_tokens,
    save_figure,
    use_style,
)

PROMPT_SIZES = [1, 64, 256, 512, 1024]
OUTPUT_SIZES = [1, 2, 8, 32]


@pytest.fixture(autouse=True)
def _quiet_figures():
    with mpl.rc_context({"backend": "agg"}):
        yield


@pytest.fixture(scope="module")
def runtimes():
    rng = np.random.default_rng(4)
    rows = [
        {"num_prompt_tokens": p, "num_output_tokens": o, "runtime_s": 0.02 + max(p - 100, 0) * 1e-4 + (o - 1) * 0.01}
        for p in PROMPT_SIZES
        for o in OUTPUT_SIZES
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(runtime_s=frame["runtime_s"] * rng.normal(1, 0.002, len(frame)))


@pytest.fixture(scope="module")
def fit(runtimes):
    return RuntimeModel.fit(runtimes)


@pytest.fixture(scope="module")
def knee(fit):
    return fit_knee(fit.num_prompt_tokens, fit.prompt_encoding_time_s(fit.num_prompt_tokens))


def lines_of_style(ax, **style):
    return [line for line in ax.lines if all(getattr(line, f"get_{name}")() == value for name, value in style.items())]


def test_points_are_the_measured_runtimes_of_each_prompt_size(runtimes):
    ax = plot_runtime_vs_output_tokens(runtimes.sample(frac=1, random_state=1))
    assert [line.get_label() for line in ax.lines] == [str(size) for size in PROMPT_SIZES]
    for line, size in zip(ax.lines, PROMPT_SIZES, strict=True):
        group = runtimes[runtimes["num_prompt_tokens"] == size]
        np.testing.assert_array_equal(line.get_xdata(), group["num_output_tokens"])
        np.testing.assert_array_equal(line.get_ydata(), group["runtime_s"])


def test_lines_are_the_prediction_in_the_colour_of_their_points(runtimes, fit):
    ax = plot_runtime_vs_output_tokens(runtimes, fit)
    points, lines = lines_of_style(ax, marker="o"), lines_of_style(ax, linestyle="-")
    assert len(points) == len(lines) == len(PROMPT_SIZES)
    for point, line, size in zip(points, lines, PROMPT_SIZES, strict=True):
        assert line.get_color() == point.get_color()
        np.testing.assert_allclose(line.get_ydata(), fit.predict(size, line.get_xdata()))
        assert (line.get_xdata()[0], line.get_xdata()[-1]) == (1, 32)


def test_only_the_prompt_sizes_asked_for_are_drawn(runtimes):
    ax = plot_runtime_vs_output_tokens(runtimes, prompt_sizes=[256, 1, 2048])
    assert [line.get_label() for line in ax.lines] == ["1", "256"]


def test_prompt_sizes_that_were_not_profiled_are_refused(runtimes):
    with pytest.raises(ValueError, match=r"none of the prompt sizes \[3\] was profiled; there are \[1, 64, 256"):
        plot_runtime_vs_output_tokens(runtimes, prompt_sizes=[3])


def test_printed_r_squared_never_claims_more_than_there_is(runtimes, fit):
    ax = plot_runtime_vs_output_tokens(runtimes, fit)
    printed = float(ax.texts[0].get_text().split("=")[1])
    assert fit.r_squared - 1e-5 < printed <= fit.r_squared < 1


def test_axes_say_what_they_show_and_in_which_unit(runtimes, fit, knee):
    labels = [
        (ax.get_xlabel(), ax.get_ylabel())
        for ax in (
            plot_runtime_vs_output_tokens(runtimes),
            plot_prompt_encoding_time(fit, knee),
            plot_residuals(fit.residuals),
        )
    ]
    assert labels == [
        ("Number of output tokens", "Runtime (s)"),
        ("Prompt size (tokens)", "Prompt time (s)"),
        ("Measured runtime (s)", "Relative error (%)"),
    ]


def test_drawing_goes_into_the_axes_given(runtimes, fit, knee):
    ax = plt.subplots()[1]
    assert plot_runtime_vs_output_tokens(runtimes, ax=ax) is ax
    assert plot_prompt_encoding_time(fit, knee, ax=ax) is ax
    assert plot_residuals(fit.residuals, ax=ax) is ax
    assert len(plt.get_fignums()) == 1


def test_prompt_encoding_times_stand_at_the_profiled_sizes_with_their_intervals(fit):
    ax = plot_prompt_encoding_time(fit)
    (container,) = ax.containers
    points, _, (bars,) = container
    np.testing.assert_array_equal(points.get_xdata(), PROMPT_SIZES)
    np.testing.assert_allclose(points.get_ydata(), fit.prompt_encoding_time_s(np.array(PROMPT_SIZES)))
    lower_s, upper_s = fit.prompt_encoding_interval_s(np.array(PROMPT_SIZES), 0.95)
    ends = np.array(bars.get_segments())[:, :, 1]
    np.testing.assert_allclose(ends, np.column_stack([lower_s, upper_s]))


def test_curve_between_the_profiled_sizes_is_the_rule_at_every_size(fit):
    curve = plot_prompt_encoding_time(fit).lines[0]
    np.testing.assert_array_equal(curve.get_xdata(), np.arange(1, 1025))
    np.testing.assert_allclose(curve.get_ydata(), fit.prompt_encoding_time_s(np.arange(1, 1025)))


def test_fit_without_intervals_is_drawn_without_them(fit):
    parameters = fit.to_json()
    del parameters["fit"]
    ax = plot_prompt_encoding_time(model_from_json(parameters))
    assert ax.containers[0].has_yerr is False


def test_knee_and_its_line_are_drawn_over_the_linear_part(fit, knee):
    ax = plot_prompt_encoding_time(fit, knee)
    (line,) = lines_of_style(ax, linestyle=":")
    np.testing.assert_allclose(line.get_xdata(), [knee.num_prompt_tokens, 1024])
    np.testing.assert_allclose(line.get_ydata(), knee.line_s(line.get_xdata()))
    (mark,) = [line for line in ax.lines if line.get_label().startswith("Knee")]
    assert set(mark.get_xdata()) == {knee.num_prompt_tokens}
    (shaded,) = ax.patches
    assert (shaded.get_x(), shaded.get_x() + shaded.get_width()) == pytest.approx(knee.interval)


def test_residuals_are_drawn_in_per_cent_about_zero(fit):
    ax = plot_residuals(fit.residuals)
    points = ax.lines[-1]
    np.testing.assert_allclose(points.get_ydata(), 100 * fit.residuals["relative_error"])
    low, high = ax.get_ylim()
    assert low == -high


@pytest.mark.parametrize("longest_s", [0.05, 0.2, 1.0, 10.0, 1000.0])
@pytest.mark.parametrize("width_in", [2.4, 6.4])
def test_runtime_axis_has_plain_numbers_as_ticks_that_do_not_touch(longest_s, width_in):
    runtime_s = np.geomspace(0.02, longest_s, 12)
    _, ax = plt.subplots(figsize=(width_in, 2.0))
    plot_residuals(pd.DataFrame({"runtime_s": runtime_s, "relative_error": 0.01}), ax=ax)
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    ticks = [tick for tick in ax.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    assert len(ticks) >= 2
    assert [float(tick.label1.get_text()) for tick in ticks] == pytest.approx([tick.get_loc() for tick in ticks])
    boxes = [tick.label1.get_window_extent() for tick in ticks]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    assert not any(label.get_text() for label in ax.xaxis.get_minorticklabels())


def test_relative_error_is_positive_where_the_prediction_is_too_long(fit):
    residuals = fit.residuals
    is_too_long = residuals["predicted_s"] > residuals["runtime_s"]
    np.testing.assert_array_equal(is_too_long, residuals["relative_error"] > 0)


@pytest.mark.parametrize(("count", "shape"), [(1, (1, 1)), (3, (1, 3)), (4, (1, 4)), (13, (4, 4))])
def test_every_name_gets_a_titled_panel_and_no_empty_one_is_left(count, shape):
    names = [f"model-{number}" for number in range(count)]
    figure, axes = make_panels(names)
    assert [ax.get_title() for ax in figure.axes] == names == list(axes)
    assert figure.axes[0].get_subplotspec().get_gridspec().get_geometry() == shape


def test_panels_without_a_name_are_refused():
    with pytest.raises(ValueError, match="at least one name"):
        make_panels([])


def test_axis_labels_are_left_to_the_outer_panels_and_one_legend_to_the_figure(runtimes):
    figure, axes = make_panels([f"model-{number}" for number in range(6)])
    for number, ax in enumerate(axes.values()):
        plot_runtime_vs_output_tokens(runtimes, prompt_sizes=[1, 64] if number else [1], ax=ax)
    finish_panels(figure, axes)
    panels = list(axes.values())
    assert [bool(ax.get_ylabel()) for ax in panels] == [True, False, False, False, True, False]
    # The two without a panel below them keep theirs.
    assert [bool(ax.get_xlabel()) for ax in panels] == [False, False, True, True, True, True]
    assert [ax.get_legend() for ax in panels] == [None] * 6
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["1", "64"]


@pytest.mark.parametrize("suffix", ["pdf", "png"])
def test_equal_figures_have_equal_bytes(tmp_path, runtimes, fit, suffix):
    written = []
    for folder in ("a", "b"):
        figure, axes = make_panels(["gpt2-9.9b"])
        plot_runtime_vs_output_tokens(runtimes, fit, ax=axes["gpt2-9.9b"])
        save_figure(figure, tmp_path / folder / "gpt2-9.9b_runtime")
        written.append((tmp_path / folder / f"gpt2-9.9b_runtime.{suffix}").read_bytes())
    assert written[0] == written[1]
    assert b"CreationDate" not in written[0]
    assert b"Software" not in written[0]


def test_style_is_set_once_and_embeds_text_as_text():
    with mpl.rc_context():
        use_style()
        assert mpl.rcParams["pdf.fonttype"] == 42
        assert mpl.rcParams["font.size"] >= 8
