import numpy as np
import pandas as pd
import pytest

from idealized_runtime.checks import MissingValueWarning
from idealized_runtime.lifetime import (
    ScalingLaw,
    bootstrap_scaling_law,
    coefficient_intervals,
    draws_that_reach,
    fit_scaling_law,
    flop_costs,
    minimize_lifetime_cost,
    optimum_intervals,
    read_training_runs,
)
from idealized_runtime.lifetime.bootstrap import UnreachableLossError, intervals_of
from idealized_runtime.lifetime.fitting import OutlyingRunsWarning, coefficients_of, default_starts, law_of
from idealized_runtime.lifetime.log_huber import LogHuber
from idealized_runtime.lifetime.scaling_law import is_reachable

TRUE_LAW = ScalingLaw(350.0, 900.0, 1.7, 0.33, 0.31)
# A few starts of the sweep: enough for synthetic runs.
FEW_STARTS = default_starts()[::450]


def make_runs(num_params=(1e8, 3e8, 1e9, 3e9), tokens_per_param=(5, 20, 80, 320), noise=0.0, seed=0):
    sizes, ratios = (grid.ravel() for grid in np.meshgrid(num_params, tokens_per_param))
    loss = TRUE_LAW.loss(sizes, sizes * ratios) * np.exp(noise * np.random.default_rng(seed).normal(size=sizes.size))
    return pd.DataFrame({"num_params": sizes, "num_training_tokens": sizes * ratios, "loss": loss})


@pytest.fixture(scope="module")
def published_runs(published):
    return read_training_runs(published / "beyond-chinchilla" / "trainingresults.csv")


@pytest.fixture(scope="module")
def published_fit(published_runs):
    return fit_scaling_law(published_runs)


@pytest.fixture(scope="module")
def published_draws(published_runs, published_fit):
    return bootstrap_scaling_law(published_runs, published_fit, num_draws=100)


def huber_objective(runs, coefficients, delta=1e-3):
    """The objective as its definition reads, run by run."""
    log_a, log_b, log_e, alpha, beta = coefficients
    total = 0.0
    for run in runs.itertuples():
        predicted = np.exp(log_a - alpha * np.log(run.num_params)) + np.exp(log_e)
        predicted += np.exp(log_b - beta * np.log(run.num_training_tokens))
        residual = abs(np.log(predicted) - np.log(run.loss))
        total += residual**2 / 2 if residual <= delta else delta * (residual - delta / 2)
    return total


def test_coefficients_are_recovered_from_noiseless_runs():
    fit = fit_scaling_law(make_runs(), starts=FEW_STARTS)
    np.testing.assert_allclose(coefficients_of(fit.law), coefficients_of(TRUE_LAW), rtol=1e-5)
    assert fit.objective < 1e-15


def test_one_wild_run_hardly_moves_the_fit_and_is_named():
    runs = make_runs()
    runs.loc[5, "loss"] *= 2
    with pytest.warns(OutlyingRunsWarning, match=r"1 of 16 training runs .* off the law .* has 3e\+08 parameters"):
        fit = fit_scaling_law(runs, starts=FEW_STARTS)
    np.testing.assert_allclose(coefficients_of(fit.law), coefficients_of(TRUE_LAW), rtol=1e-2)


def test_objective_is_the_huber_loss_of_log_residuals():
    runs = make_runs(noise=0.01)
    points = np.array([[5.0, 6.0, 0.4, 0.3, 0.3], [1.0, 2.0, -1.0, 0.1, 0.5]])
    values, _ = LogHuber(runs, 1e-3).value_and_gradient(points)
    np.testing.assert_allclose(values, [huber_objective(runs, point) for point in points], rtol=1e-12)


def test_gradient_is_that_of_finite_differences():
    runs, point = make_runs(noise=0.01), np.array([5.0, 6.0, 0.4, 0.3, 0.3])
    _, gradient = LogHuber(runs, 1e-3).value_and_gradient(point[None])
    step = 1e-6
    differences = [
        (huber_objective(runs, point + step * axis) - huber_objective(runs, point - step * axis)) / (2 * step)
        for axis in np.eye(5)
    ]
    np.testing.assert_allclose(gradient[0], differences, rtol=1e-6)


def test_starts_are_the_4500_of_the_original():
    starts = default_starts()
    assert starts.shape == (4500, 5)
    assert len(np.unique(starts, axis=0)) == 4500
    assert (starts.min(axis=0).tolist(), starts.max(axis=0).tolist()) == ([0, 0, -1, 0, 0], [25, 25, 1, 2, 2])


def test_published_runs_are_fitted_at_least_as_well_as_known(published_fit):
    """The original's own fit ends at 0.000619987, the best known before at 0.000619985."""
    assert published_fit.objective <= 0.000619985
    law = published_fit.law
    assert (law.alpha, law.beta) == pytest.approx((0.17884, 0.23160), abs=2e-5)
    np.testing.assert_allclose([law.A, law.B, law.E], [35.39, 133.0, 1.46296], rtol=3e-4)


def test_many_starts_find_the_same_minimum(published_fit):
    assert published_fit.num_starts == 4500
    assert published_fit.num_at_optimum > 1000


def test_reported_objective_and_residuals_belong_to_the_law(published_runs, published_fit):
    coefficients = coefficients_of(published_fit.law)
    assert huber_objective(published_runs, coefficients) == pytest.approx(published_fit.objective, rel=1e-9)
    predicted = published_fit.law.loss(published_runs["num_params"], published_runs["num_training_tokens"])
    np.testing.assert_allclose(published_fit.log_residuals, np.log(predicted / published_runs["loss"]), atol=1e-12)


def test_no_nearby_coefficients_fit_better(published_runs, published_fit):
    rng = np.random.default_rng(0)
    best = coefficients_of(published_fit.law)
    for scale in (1e-4, 1e-2, 0.1):
        nearby = best + scale * rng.normal(size=(200, 5))
        values, _ = LogHuber(published_runs, 1e-3).value_and_gradient(nearby)
        assert values.min() > published_fit.objective


@pytest.mark.parametrize(("cutoff", "num_runs"), [(10, 5), (100, 34), (10000, 47), (None, 47)])
def test_cutoff_keeps_runs_of_at_most_so_many_tokens_a_parameter(published, cutoff, num_runs):
    path = published / "beyond-chinchilla" / "trainingresults.csv"
    runs = read_training_runs(path, max_training_tokens_per_param=cutoff)
    assert len(runs) == num_runs
    assert cutoff is None or (runs["num_training_tokens"] / runs["num_params"] <= cutoff * (1 + 1e-9)).all()


def test_columns_may_have_other_names(tmp_path):
    runs = make_runs()
    path = tmp_path / "runs.csv"
    runs.rename(columns={"num_params": "N", "num_training_tokens": "D", "loss": "val"}).to_csv(path, index=False)
    read = read_training_runs(path, columns={"num_params": "N", "num_training_tokens": "D", "loss": "val"})
    pd.testing.assert_frame_equal(read, runs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Parameters,Tokens\n1,2\n", "no column Smoothed Loss; needed: .*; there are: Parameters, Tokens"),
        ("Parameters,Tokens,Smoothed Loss\n1e9,2e10,2.5\n1e9,2e10,\n", "line 3: 'Smoothed Loss'.*got nan"),
        ("Parameters,Tokens,Smoothed Loss\n1e9,2e10,n/k\n", "column Smoothed Loss must hold.*in row 1 of 1: 'n/k'"),
        ("Parameters,Tokens,Smoothed Loss\n1e9,\"2,000\",2.5\n", "column Tokens must hold numbers.*'2,000'. Write"),
        ("Parameters,Tokens,Smoothed Loss,Tokens\n1e9,2e10,2.5,1\n", "two columns are named 'Tokens'"),
        ("Parameters,Tokens,Smoothed Loss\n1e9,2e10,2.5\n1e9,2e10\n", "cannot be read as CSV.*Expected 3 columns"),
        ("Parameters,Tokens,Smoothed Loss\n-1e9,2e10,2\n", "line 2: 'Parameters' must be a positive finite number"),
        ("Parameters,Tokens,Smoothed Loss\n", "has no runs"),
        ("", "cannot be read as CSV"),
    ],
    ids=["column absent", "loss absent", "no number", "thousands", "twice", "short", "negative", "no rows", "empty"],
)  # fmt: skip
def test_files_without_usable_runs_are_refused(tmp_path, text, message):
    path = tmp_path / "runs.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_training_runs(path)


def test_a_cutoff_that_leaves_nothing_is_refused(published):
    with pytest.raises(ValueError, match="has no runs with 1 tokens a parameter or fewer"):
        read_training_runs(published / "beyond-chinchilla" / "trainingresults.csv", max_training_tokens_per_param=1)


def test_absent_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.csv"):
        read_training_runs(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (make_runs(num_params=(1e8,), tokens_per_param=(1, 2, 3, 4, 5)), "need more than 5 runs; got 5"),
        (make_runs(num_params=(1e8, 1e9)), "an exponent needs runs of at least 3 sizes; got 2"),
    ],
)  # fmt: skip
def test_runs_that_cannot_tell_the_coefficients_are_refused(runs, message):
    with pytest.raises(ValueError, match=message):
        fit_scaling_law(runs, starts=FEW_STARTS)


def test_runs_whose_loss_grows_with_size_and_tokens_have_no_law():
    runs = make_runs()
    runs["loss"] = runs["loss"].to_numpy()[::-1]
    with pytest.raises(ValueError, match="no law with positive coefficients describes these runs"):
        fit_scaling_law(runs, starts=FEW_STARTS)


def test_bootstrap_of_noiseless_runs_has_no_spread():
    runs = make_runs()
    fit = fit_scaling_law(runs, starts=FEW_STARTS)
    draws = bootstrap_scaling_law(runs, fit, num_draws=20)
    table = coefficient_intervals(draws)
    np.testing.assert_allclose(table["upper"], table["lower"], rtol=1e-2)


def test_bootstrap_refits_each_resample(published_runs, published_fit, published_draws):
    """The first draw, against its runs written out one by one and fitted from many starts."""
    sweep = default_starts()
    rng = np.random.default_rng(0)
    rng.choice(len(sweep), 16, replace=False)  # the starts, drawn before the runs
    counts = rng.multinomial(47, np.full(47, 1 / 47), size=100)[0]
    resampled = published_runs.loc[np.repeat(published_runs.index, counts)]
    refit = fit_scaling_law(resampled, starts=sweep[::9])
    draw = np.array([coefficients_of(published_draws)[0]])
    value, _ = LogHuber(resampled, 1e-3).value_and_gradient(draw)
    assert value[0] == pytest.approx(refit.objective, rel=1e-6)


def test_intervals_hold_the_fit_and_are_wide(published_fit, published_draws):
    """The valley is flat: exponents are known to a factor of two or so."""
    table = coefficient_intervals(published_draws)
    for name in table.index:
        assert table["lower"][name] < getattr(published_fit.law, name) < table["upper"][name]
    assert table["upper"]["alpha"] > 2 * table["lower"]["alpha"]


def test_intervals_of_the_optimum_solve_every_draw_for_itself(published_draws):
    draws = draws_that_reach(published_draws, 2.5)
    table = optimum_intervals(draws, 2.5, flop_costs(1e12), level=0.8)
    alone = [
        minimize_lifetime_cost(law_of(row), 2.5, flop_costs(1e12)).optimal.num_params for row in coefficients_of(draws)
    ]
    np.testing.assert_allclose(table.loc["num_params"], np.quantile(alone, [0.1, 0.9]), rtol=1e-9)
    assert table.index.tolist() == [
        "num_params", "num_training_tokens", "cost", "params_ratio", "training_tokens_ratio", "cost_ratio",
    ]  # fmt: skip
    assert table.loc["cost_ratio", "upper"] < 1


def test_draws_that_do_not_reach_the_loss_are_told_apart(published_draws):
    reaching = draws_that_reach(published_draws, 1.6)
    assert 0 < len(reaching.A) < len(published_draws.A)
    assert (reaching.E < 1.6).all()
    with pytest.raises(ValueError, match="loss must be above E"):
        optimum_intervals(published_draws, 1.6, flop_costs(1e12))


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"loss": 1e-300}, "loss 1e-300 is reached by 0 % of the drawn scaling laws only: give a higher loss"),
        ({"loss": 1.3}, r"loss 1.3 is reached by \d+ % of the drawn scaling laws only: give a higher loss"),
        ({"loss": 2.5, "num_params": 2e7}, r"loss 2.5 with 2e\+07 parameters is reached by"),
        ({"loss": 2.5, "num_training_tokens": 1e8}, r"loss 2.5 with 1e\+08 training tokens is reached by"),
    ],
)
def test_loss_that_most_draws_do_not_reach_is_refused(published_draws, asked, what):
    with pytest.raises(UnreachableLossError, match=what):
        draws_that_reach(published_draws, **asked)


def test_a_loss_a_hair_above_the_least_is_not_reached():
    law = ScalingLaw(400.0, 400.0, 1.7, 0.1, 0.1)
    assert is_reachable(law, np.array([1.6, 1.7, 1.7 + 1e-12, 1.8, 2.0])).tolist() == [False] * 3 + [True] * 2


def test_same_seed_same_draws(published_runs, published_fit):
    first, again = (bootstrap_scaling_law(published_runs, published_fit, num_draws=5, rng=7) for _ in range(2))
    np.testing.assert_array_equal(coefficients_of(first), coefficients_of(again))


@pytest.mark.filterwarnings("ignore:.*determine no law:idealized_runtime.checks.MissingValueWarning")
def test_resamples_without_a_law_are_left_out_and_counted():
    """Runs that hardly differ, and noise: in some resamples the loss rises with size or tokens."""
    runs = make_runs(tokens_per_param=(10, 11, 12), num_params=(1e8, 2e8, 3e8), noise=0.05)
    fit = fit_scaling_law(make_runs(), starts=FEW_STARTS)
    with pytest.warns(MissingValueWarning, match="rows of the bootstrap have no law with positive finite"):
        draws = bootstrap_scaling_law(runs, fit, num_draws=40)
    assert 0 < len(draws.A) < 40


def test_resamples_that_tell_no_exponent_are_left_out_and_counted():
    """Two of three sizes stand in one run each, so that many resamples lack a size."""
    of_one_size = make_runs(num_params=(1e8,), tokens_per_param=np.geomspace(5, 640, 10))
    runs = pd.concat([of_one_size, make_runs(num_params=(2e8, 4e8), tokens_per_param=(20,))], ignore_index=True)
    fit = fit_scaling_law(make_runs(), starts=FEW_STARTS)
    rng = np.random.default_rng(0)
    rng.choice(len(default_starts()), 16, replace=False)  # the starts, drawn before the runs
    counts = rng.multinomial(12, np.full(12, 1 / 12), size=60)
    num_bad = int(np.count_nonzero((counts[:, 10:] == 0).any(axis=1)))
    assert 20 < num_bad < 50
    message = f"{num_bad} of 60 rows of the bootstrap have runs of fewer than 3 sizes"
    with pytest.warns(MissingValueWarning, match=message):
        draws = bootstrap_scaling_law(runs, fit, num_draws=60)
    assert len(draws.A) == 60 - num_bad


def test_bootstrap_without_any_resample_that_tells_a_law_is_refused():
    runs = make_runs(num_params=(1e8, 2e8))
    fit = fit_scaling_law(make_runs(), starts=FEW_STARTS)
    with (
        pytest.warns(MissingValueWarning, match="5 of 5 rows of the bootstrap have runs of fewer than 3 sizes"),
        pytest.raises(ValueError, match="no resample of the training runs determines a law: add runs of other sizes"),
    ):
        bootstrap_scaling_law(runs, fit, num_draws=5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda runs, fit: bootstrap_scaling_law(runs, fit, num_draws=0), "num_draws must be at least 1; got 0"),
        (lambda runs, fit: intervals_of({"x": np.arange(3)}, level=1.0), "level must lie between 0 and 1; got 1"),
        (lambda runs, fit: fit_scaling_law(runs, delta=0), "delta must be a positive finite number; got 0"),
    ],
)
def test_options_out_of_range_are_refused(published_runs, published_fit, call, message):
    with pytest.raises(ValueError, match=message):
        call(published_runs, published_fit)
