import numpy as np
import pytest

from idealized_runtime.fits import RuntimeModel
from idealized_runtime.fits.protocol import NoIntervalError
from idealized_runtime.hardware.accelerators import get_accelerator
from idealized_runtime.lifetime.costs import rent
from idealized_runtime.lifetime.measured import MeasuredQueryCost, ScaledLawCost, mean_accelerator_s, profile_table
from idealized_runtime.lifetime.optimum import minimize_lifetime_cost
from idealized_runtime.lifetime.profiles import read_profiles
from idealized_runtime.lifetime.scaling_law import get_scaling_law
from idealized_runtime.lifetime.size_curve import FloorPowerLaw
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.queries.mix import QueryMix
from idealized_runtime.queries.terms import PricedModel

LAW = get_scaling_law()
TRAINING = rent("A100_80", "bf16")
PEAK = 1e14
MIX = QueryMix([10, 30], [1, 5], [1, 3])


def make_profile(num_params, *, prompt_mfu=0.4, output_mfu=0.01, hardware="box"):
    """A model that computes at these utilisations of ``PEAK``, one accelerator, prompts of 1 to 2000 tokens."""
    sizes = np.array([1, 2000])
    seconds = 2 * num_params / PEAK
    runtime = RuntimeModel(
        num_prompt_tokens=sizes,
        profiled_prompt_times_s=sizes * seconds / prompt_mfu,
        time_per_output_token_s=seconds / output_mfu,
        reference_num_prompt_tokens=1,
    )
    return PricedModel(f"m{num_params:.0f}", runtime, 1, int(num_params), hardware)


@pytest.fixture(scope="module")
def linear():
    """Costs proportional to size: what the guess assumes, as if it had been measured."""
    return [make_profile(num_params) for num_params in np.geomspace(1e9, 1e12, 12)]


@pytest.fixture(scope="module")
def a100():
    mix = QueryMix.lognormal(200, 60, prompt_sigma=0.8, output_sigma=0.8)
    return MeasuredQueryCost.fit(read_profiles(ROOT / "processed_jsons" / "a100.json"), mix)


def make_served(num_accelerators, batch_size=None):
    """t(p, o) = 0.01 p + 0.1 (o - 1)."""
    runtimes = RuntimeModel(
        num_prompt_tokens=np.array([1, 100]),
        profiled_prompt_times_s=np.array([0.01, 1.0]),
        time_per_output_token_s=0.1,
        reference_num_prompt_tokens=1,
        batch_size=batch_size,
    )
    return PricedModel("m", runtimes, num_accelerators)


def test_accelerator_seconds_of_a_mix_are_means_over_its_queries():
    expected = 0.25 * 0.1 + 0.75 * (0.3 + 0.4), 0.25 * 0.1 + 0.75 * 0.3, 0.1
    assert mean_accelerator_s(make_served(1), MIX) == pytest.approx(expected)


def test_parts_of_a_query_add_up():
    query_s, prompt_s, token_s = mean_accelerator_s(make_served(3, batch_size=2), MIX)
    assert query_s == pytest.approx(prompt_s + token_s * (MIX.mean_output_tokens - 1))


def test_every_accelerator_counts_and_a_batch_shares_them():
    one, many = (mean_accelerator_s(make_served(*numbers), MIX) for numbers in ((1, 1), (8, 4)))
    assert many == pytest.approx([2 * seconds for seconds in one])


def test_output_token_of_a_mix_without_any_is_what_one_would_take():
    assert mean_accelerator_s(make_served(1), QueryMix.from_means(10, 1))[2] == pytest.approx(0.1)


def test_utilization_of_models_that_have_one_is_found(linear):
    measured = MeasuredQueryCost.fit(linear, QueryMix.from_means(500, 100))
    found = measured.utilization([1e10, 1e11], PEAK)
    np.testing.assert_allclose(found["prompts"], 0.4, rtol=0.06)
    np.testing.assert_allclose(found["output_tokens"], 0.01, rtol=0.06)
    table = profile_table(measured, PEAK)
    np.testing.assert_allclose(table["prompts"], 0.4)
    np.testing.assert_allclose(table["output_tokens"], 0.01)


def test_guess_that_was_right_gives_the_same_optimum(linear):
    mix = QueryMix.from_means(500, 101)
    measured = MeasuredQueryCost.fit(linear, mix)
    price, num_requests = 1.5, 1e9
    costs = measured.dollar_costs(training=TRAINING, price_usd_per_hour=price, num_requests=num_requests)
    found = minimize_lifetime_cost(LAW, 2.0, costs)
    # 2 N tokens at these utilisations; prompt encoding yields the first of the output tokens.
    usd_per_param = num_requests * 2 * (500 / 0.4 + 100 / 0.01) / PEAK * price / 3600
    expected = minimize_lifetime_cost(
        LAW, 2.0, type(costs)(costs.per_training_flop, ScaledLawCost(FloorPowerLaw(usd_per_param, 1.0, 1.0), 1), "usd")
    )
    assert found.optimal.num_params == pytest.approx(expected.optimal.num_params, rel=0.02)
    assert found.optimal_cost == pytest.approx(expected.optimal_cost, rel=0.03)


def test_marginal_cost_is_the_derivative(a100):
    cost, size, step = ScaledLawCost(a100.per_query.law, 3.0), 2e10, 1e-5
    numeric = (cost.cost(size * np.exp(step)) - cost.cost(size * np.exp(-step))) / (2 * step)
    assert cost.marginal_cost(size) == pytest.approx(numeric, rel=1e-6)


def test_optimum_beats_its_neighbours_at_measured_cost(a100):
    costs = a100.dollar_costs(training=TRAINING, price_usd_per_hour=1.5, num_requests=np.geomspace(1e5, 1e12, 20))
    found = minimize_lifetime_cost(LAW, 2.1, costs)
    for factor in (0.97, 1.03):
        num_params = found.optimal.num_params * factor
        tokens = LAW.training_tokens_for(2.1, num_params)
        assert np.all(costs.total(type(found.optimal)(num_params, tokens)) > found.optimal_cost)


def test_no_demand_gives_chinchilla(a100):
    costs = a100.dollar_costs(training=TRAINING, price_usd_per_hour=1.5, num_requests=0)
    assert minimize_lifetime_cost(LAW, 2.1, costs).params_ratio == pytest.approx(1)


def test_cost_of_a_mix_is_the_mean_over_its_queries(linear):
    short, long = QueryMix.from_means(100, 10), QueryMix.from_means(1000, 50)
    both = MeasuredQueryCost.fit(linear, QueryMix([100, 1000], [10, 50], [1, 3]))
    parts = [MeasuredQueryCost.fit(linear, mix).per_query.costs for mix in (short, long)]
    np.testing.assert_allclose(both.per_query.costs, 0.25 * parts[0] + 0.75 * parts[1])


def test_spread_of_the_sizes_changes_the_cost_where_the_runtime_is_not_a_line():
    profiles = read_profiles(ROOT / "processed_jsons" / "a100.json")
    spread, means = (
        MeasuredQueryCost.fit(profiles, QueryMix.lognormal(200, 1, prompt_sigma=sigma, output_sigma=0))
        for sigma in (0.8, 0.0)
    )
    # Short prompts cost as much as some 100 tokens, so a spread at the same mean costs more.
    assert np.all(spread.per_query.costs > 1.01 * means.per_query.costs)


def test_published_a100_use_far_less_of_the_peak_for_tokens_than_is_guessed(a100):
    peak = get_accelerator("a100").peak_flops("float16")
    table = profile_table(a100, peak)
    assert len(table) == 13
    # Batch 1: 2 N / (n g peak). Davinci: 2 * 174.6e9 / (8 * 0.0814 * 312e12).
    assert table.loc["davinci", "output_tokens"] == pytest.approx(0.00172, rel=0.01)
    assert table["output_tokens"].between(1e-4, 0.0045).all()
    assert table["prompts"].between(0.02, 0.5).all()


def test_left_out_models_lie_in_the_interval_of_the_others(a100):
    held = []
    for out in range(13):
        others = [profile for number, profile in enumerate(a100.profiles) if number != out]
        curve = MeasuredQueryCost.fit(others, a100.mix).per_query
        lower, upper = curve.interval(a100.per_query.num_params[out])
        held.append(lower <= a100.per_query.costs[out] <= upper)
    assert sum(held) >= 11


def test_sizes_outside_the_measured_ones_are_marked(a100):
    np.testing.assert_array_equal(a100.is_extrapolated([1e8, 1e10, 1e12]), [True, False, True])
    assert a100.utilization([1e8, 1e10], PEAK)["is_extrapolated"].tolist() == [True, False]


def test_prompts_beyond_the_profiled_sizes_need_leave_and_are_counted():
    profiles, mix = read_profiles(ROOT / "processed_jsons" / "cpu.json"), QueryMix([100, 4000], [5, 5], [3, 1])
    with pytest.raises(ValueError, match=r"distilgpt2: num_prompt_tokens must lie in \[1, 512\].*extrapolate=True"):
        MeasuredQueryCost.fit(profiles, mix)
    assert MeasuredQueryCost.fit(profiles, mix, extrapolate=True).share_extrapolated == 0.25


def test_dollars_of_queries_are_accelerator_hours_times_price(a100):
    costs = a100.dollar_costs(training=TRAINING, price_usd_per_hour=3.6, num_requests=1e6)
    assert costs.inference.cost(1e10) == pytest.approx(a100.per_query(1e10) * 1e3)


def test_profiles_of_two_kinds_of_hardware_are_refused(linear):
    with pytest.raises(ValueError, match="of one hardware; got box, other"):
        MeasuredQueryCost.fit([*linear, make_profile(5e9, hardware="other")], QueryMix.from_means(10, 10))


def test_impossible_price_and_demand_are_refused(a100):
    with pytest.raises(ValueError, match="price_usd_per_hour must be a positive"):
        a100.dollar_costs(training=TRAINING, price_usd_per_hour=0, num_requests=1)
    with pytest.raises(ValueError, match="num_requests must be zero or"):
        a100.dollar_costs(training=TRAINING, price_usd_per_hour=1, num_requests=-1)


def test_class_without_the_option_answers_beyond_its_sizes_as_it_is():
    class Bare:
        def __init__(self, runtimes):
            self.runtimes = runtimes

        def is_extrapolated(self, p):
            return self.runtimes.is_extrapolated(p)

        def predict(self, p, o):
            return self.runtimes.predict(p, o, extrapolate=True)

        def predict_interval(self, p, o, *, level=0.95):
            raise NoIntervalError("nothing is known")

        def time_per_output_token_at(self, p):
            return self.runtimes.time_per_output_token_at(p, extrapolate=True)

    own = make_served(1)
    beyond = QueryMix.from_means(1000, 5)
    expected = mean_accelerator_s(own, beyond, extrapolate=True)
    assert mean_accelerator_s(PricedModel("m", Bare(own.runtimes), 1), beyond, extrapolate=True) == expected
