import numpy as np
import pytest

from idealized_runtime.lifetime import (
    SCALING_LAWS,
    LifetimeCosts,
    LinearCost,
    ModelSize,
    chinchilla_size,
    dollar_costs,
    flop_costs,
    get_scaling_law,
    minimize_lifetime_cost,
    rent,
)

LAW = get_scaling_law("chinchilla")
COMPUTE = np.geomspace(1e18, 1e30, 13)


def losses(law, training_flops):
    size = chinchilla_size(law, training_flops=training_flops)
    return law.loss(size.num_params, size.num_training_tokens)


def random_problems(num, seed=0):
    """Losses between 1e18 and 1e30 Chinchilla FLOPs, and demands from hardly any to far more than training."""
    rng = np.random.default_rng(seed)
    training_flops = 10 ** rng.uniform(18, 30, num)
    size = chinchilla_size(LAW, training_flops=training_flops)
    return losses(LAW, training_flops), size.num_training_tokens * 10 ** rng.uniform(-6, 6, num)


def dollars(train_price=1.4, inference_price=0.6, **options):
    defaults = {"num_requests": 1e10, "num_prompt_tokens": 1000, "num_output_tokens": 250}
    return dollar_costs(
        training=rent("A100_80", "bf16", train_price),
        inference=rent("A100_40", "int8", inference_price),
        **{**defaults, **options},
    )


def test_compute_optimum_of_the_published_example():
    optimum = minimize_lifetime_cost(LAW, 1.947, flop_costs(2e12))
    assert f"{optimum.optimal.num_params:.3e}" == "2.418e+10"
    assert f"{optimum.optimal.num_training_tokens:.3e}" == "2.657e+12"
    ratios = optimum.params_ratio, optimum.training_tokens_ratio, optimum.cost_ratio
    assert [f"{100 * ratio:.2f}" for ratio in ratios] == ["70.96", "146.77", "95.22"]


def test_cost_optimum_of_the_published_example():
    costs = dollars(training_mfu=0.5, prompt_mfu=0.4, output_mfu=0.2)
    optimum = minimize_lifetime_cost(LAW, 1.947, costs)
    assert f"{optimum.optimal.num_params:.3e}" == "2.053e+10"
    assert f"{optimum.optimal.num_training_tokens:.3e}" == "3.302e+12"
    ratios = optimum.params_ratio, optimum.training_tokens_ratio, optimum.cost_ratio
    assert [f"{100 * ratio:.2f}" for ratio in ratios] == ["60.23", "182.41", "88.76"]


@pytest.mark.parametrize(
    ("prices", "training_usd", "lifetime_usd"),
    [((None, None), "3.146e+05", "6.378e+05"), ((1.5, 0.6), "2.360e+05", "4.123e+05")],
    ids=["default prices", "prices of the command"],
)
def test_costs_of_the_published_example(prices, training_usd, lifetime_usd):
    """The original ignores the prices that its example names, and prints the answer of its default ones."""
    costs = dollar_costs(
        training=rent("H100", "bf16", prices[0]),
        inference=rent("A100_40", "int8", prices[1]),
        num_requests=1e9,
        num_prompt_tokens=500,
        num_output_tokens=100,
    )
    size = chinchilla_size(LAW, num_params=30e9)
    assert (f"{costs.training(size):.3e}", f"{costs.total(size):.3e}") == (training_usd, lifetime_usd)


@pytest.mark.parametrize("law", SCALING_LAWS.values(), ids=SCALING_LAWS)
def test_zero_demand_gives_chinchilla(law):
    loss = losses(law, COMPUTE)
    optimum = minimize_lifetime_cost(law, loss, flop_costs(0))
    np.testing.assert_allclose(optimum.params_ratio, 1, rtol=1e-10)
    np.testing.assert_allclose(optimum.training_tokens_ratio, 1, rtol=1e-10)


@pytest.mark.parametrize("factor", [0.9, 0.999, 1.001, 1.1])
def test_optimum_beats_its_neighbours_from_1e18_to_1e30_flops(factor):
    loss, num_inference_tokens = random_problems(2000)
    costs = flop_costs(num_inference_tokens)
    optimum = minimize_lifetime_cost(LAW, loss, costs)
    least = (LAW.A / (loss - LAW.E)) ** (1 / LAW.alpha)
    num_params = least + factor * (optimum.optimal.num_params - least)
    neighbour = ModelSize(num_params, LAW.training_tokens_for(loss, num_params))
    assert (costs.total(neighbour) > optimum.optimal_cost).all()


def test_optimum_reaches_the_loss_and_is_smaller_trained_longer_and_cheaper():
    loss, num_inference_tokens = random_problems(2000, seed=1)
    optimum = minimize_lifetime_cost(LAW, loss, flop_costs(num_inference_tokens))
    size = optimum.optimal
    np.testing.assert_allclose(LAW.loss(size.num_params, size.num_training_tokens), loss, rtol=1e-12)
    assert (optimum.params_ratio < 1).all()
    assert (optimum.training_tokens_ratio > 1).all()
    assert (optimum.cost_ratio < 1).all()


def test_no_grid_finds_anything_cheaper():
    loss, num_inference_tokens = random_problems(50, seed=2)
    costs = flop_costs(num_inference_tokens)
    optimum = minimize_lifetime_cost(LAW, loss, costs)
    least = (LAW.A / (loss - LAW.E)) ** (1 / LAW.alpha)
    for excess in np.geomspace(1e-6, 1e3, 2000):
        num_params = least * (1 + excess)
        other = costs.total(ModelSize(num_params, LAW.training_tokens_for(loss, num_params)))
        assert (other >= optimum.optimal_cost * (1 - 1e-12)).all()


def test_grid_of_losses_and_demands_is_solved_as_one_by_one():
    loss, num_inference_tokens = np.array([[1.8], [2.2], [3.0]]), np.array([0, 1e10, 1e14])
    grid = minimize_lifetime_cost(LAW, loss, flop_costs(num_inference_tokens)).optimal.num_params
    assert grid.shape == (3, 3)
    for row, column in np.ndindex(3, 3):
        alone = minimize_lifetime_cost(LAW, loss[row, 0], flop_costs(num_inference_tokens[column]))
        assert grid[row, column] == pytest.approx(alone.optimal.num_params, rel=1e-11)


def test_smaller_models_as_demand_grows():
    sizes = minimize_lifetime_cost(LAW, 2.0, flop_costs(np.geomspace(1e6, 1e18, 100))).optimal.num_params
    assert (np.diff(sizes) < 0).all()


@pytest.mark.parametrize("price", ["train_price", "inference_price"])
def test_cost_of_the_optimum_grows_with_every_price(price):
    costs = [
        minimize_lifetime_cost(LAW, 1.947, dollars(**{price: usd})).optimal_cost for usd in np.geomspace(0.1, 30, 25)
    ]
    assert (np.diff(costs) > 0).all()


def test_cost_of_the_optimum_falls_with_every_utilization():
    rng = np.random.default_rng(3)
    for name in ("training_mfu", "prompt_mfu", "output_mfu"):
        mfu = np.sort(rng.uniform(0.01, 1, 20))
        assert (np.diff(minimize_lifetime_cost(LAW, 1.947, dollars(**{name: mfu})).optimal_cost) < 0).all()


def test_dearer_training_gives_larger_models_and_dearer_inference_smaller_ones():
    prices = np.array([0.5, 1, 2, 4])
    train = [minimize_lifetime_cost(LAW, 1.947, dollars(train_price=usd)).optimal.num_params for usd in prices]
    serve = [minimize_lifetime_cost(LAW, 1.947, dollars(inference_price=usd)).optimal.num_params for usd in prices]
    assert (np.diff(train) > 0).all()
    assert (np.diff(serve) < 0).all()


class FunctionCost:
    """Any smooth function of the number of parameters, differentiated numerically."""

    # Central differences in ln N: truncation and rounding errors are both about 1e-10 of the cost.
    STEP = 1e-4

    def __init__(self, function):
        self.cost = function

    def marginal_cost(self, num_params):
        up, down = (self.cost(num_params * np.exp(step)) for step in (self.STEP, -self.STEP))
        return (up - down) / (2 * self.STEP)


def test_any_smooth_function_of_size_can_stand_for_the_inference_cost():
    linear = minimize_lifetime_cost(LAW, 1.947, flop_costs(2e12))
    same = LifetimeCosts(1.0, FunctionCost(lambda num_params: 2 * num_params * 2e12), "flops")
    assert minimize_lifetime_cost(LAW, 1.947, same).params_ratio == pytest.approx(linear.params_ratio, rel=1e-8)


@pytest.mark.parametrize("exponent", [-0.5, 0.3, 0.7, 1.5])
def test_optimum_beats_its_neighbours_for_power_laws_of_size(exponent):
    """An overhead that no size avoids, and a power of the size: what measured runtimes look like."""
    costs = LifetimeCosts(1.0, FunctionCost(lambda num_params: 1e22 + 1e23 * (num_params / 1e10) ** exponent), "flops")
    optimum = minimize_lifetime_cost(LAW, 2.1, costs)
    for factor in (0.99, 1.01):
        num_params = optimum.optimal.num_params * factor
        assert costs.total(ModelSize(num_params, LAW.training_tokens_for(2.1, num_params))) > optimum.optimal_cost


def test_a_cost_that_falls_with_size_gives_a_larger_model_than_chinchilla():
    costs = LifetimeCosts(1.0, FunctionCost(lambda num_params: 1e24 * (num_params / 1e10) ** -0.5), "flops")
    assert minimize_lifetime_cost(LAW, 2.1, costs).params_ratio > 1.01


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda num_params: 1e22 * np.ceil(num_params / 1e9), "must be convex"),
        (lambda num_params: 1e25 / (1 + np.exp(-20 * np.log(num_params / 5e9))), "must be convex"),
        (lambda num_params: num_params * np.nan, "must be finite"),
    ],
    ids=["steps", "a sigmoid", "not a number"],
)
def test_costs_that_could_hide_a_cheaper_size_are_refused(function, message):
    with pytest.raises(ValueError, match=message):
        minimize_lifetime_cost(LAW, 2.1, LifetimeCosts(1.0, FunctionCost(function), "flops"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: minimize_lifetime_cost(LAW, 1.5, flop_costs(1e12)), "loss must be above E = 1.69.*got 1.5"),
        (lambda: flop_costs(-1), "num_inference_tokens must be zero or a positive finite number; got -1"),
        (lambda: LinearCost(-2.0), "per_param must be zero or a positive finite number; got -2"),
        (lambda: LifetimeCosts(0.0, LinearCost(1.0), "flops"), "per_training_flop must be a positive finite"),
        (lambda: dollars(train_price=-1), "price_usd_per_hour must be a positive finite number; got -1"),
        (lambda: dollars(training_mfu=0), r"mfu must be in \(0, 1\].*got 0"),
        (lambda: dollars(output_mfu=1.5), r"mfu must be in \(0, 1\].*got 1.5"),
        (lambda: dollars(num_requests=np.nan), "num_requests must be zero or a positive finite number; got nan"),
        (lambda: rent("B100", "bf16"), "no accelerator named 'B100'; did you mean"),
        (lambda: rent("A100_80", "fp8"), "A100-80GB: no peak rate is known for 'fp8'; known: fp32.*bf16.*int8"),
        (lambda: rent("V100-32GB", "bf16"), "V100-32GB: no peak rate is known for 'bf16'; known: fp32, fp16"),
        (lambda: rent("GB300", "bf16"), "GB300 has no price: give one"),
    ],
)
def test_what_has_no_answer_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("dtype", ["fp8", "FP8", "float8"])
def test_types_are_taken_short_or_full_in_any_case(dtype):
    assert rent("H100", dtype) == rent("h100", "float8")


@pytest.mark.filterwarnings("error")
def test_demand_beyond_all_numbers_is_refused_without_a_warning():
    with pytest.raises(ValueError, match="inference cost must be finite"):
        minimize_lifetime_cost(LAW, 1.947, flop_costs(1e300))


def test_default_prices_are_those_the_paper_assumes_else_the_dated_ones():
    assert rent("A100_40", "int8").price_usd_per_hour == 1.10
    assert rent("H100", "fp8").price_source == "assumed by arXiv:2401.00448 (2024)"
    assert rent("H200", "fp8").price_usd_per_hour == 7.912
    assert "2026-09-25" in rent("H200", "fp8").price_source
