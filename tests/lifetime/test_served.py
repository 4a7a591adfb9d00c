import numpy as np
import pandas as pd
import pytest

from idealized_runtime.architectures import get_architecture
from idealized_runtime.lifetime import Assumptions, compare_with_guess, get_scaling_law, rent
from idealized_runtime.lifetime.served import ServedQueryCost
from idealized_runtime.measurements.ml_energy import read_ml_energy
from idealized_runtime.measurements.points import usable_points
from idealized_runtime.queries.mix import QueryMix
from idealized_runtime.serving.full_batches import FullBatches

NAMES = ["qwen3-8b", "qwen3-14b", "qwen3-32b", "llama-3.1-70b", "llama-3.1-405b"]
SIZES = np.array([get_architecture(name).num_params for name in NAMES], dtype=float)
MIX = QueryMix.from_means(300, 500)


def make_servers(names=NAMES, token_s=None, **more):
    """Servers on which a token takes 10 ms of a device and 10 billion parameters."""
    sizes = [get_architecture(name).num_params for name in names]
    token_s = 1e-12 * np.array(sizes) if token_s is None else token_s
    table = {
        "architecture": names, "hardware": "H100", "task": "chat", "num_accelerators": 2, "dtype": "bfloat16",
        "batch": 100.0, "is_largest_measured": False, "accelerator_s_per_output_token": token_s,
        "accelerator_s_per_output_token_lower": 0.9 * token_s, "accelerator_s_per_output_token_upper": 1.1 * token_s,
    }  # fmt: skip
    return pd.DataFrame(table | more)


def test_query_costs_its_output_tokens_and_the_power_of_the_size_is_given_back():
    cost = ServedQueryCost.of_servers(make_servers(), MIX)
    np.testing.assert_allclose(cost.models["query_s"], 500 * 1e-12 * SIZES)
    np.testing.assert_allclose(cost.models["query_s_upper"], 550 * 1e-12 * SIZES)
    np.testing.assert_allclose(cost.per_query([1e10, 1e11]), 500 * 1e-12 * np.array([1e10, 1e11]), rtol=0.02)
    assert cost.models.index.tolist() == NAMES
    assert cost.left_out == {}


def test_model_stands_on_the_server_where_it_is_cheapest():
    dear = make_servers(token_s=3e-12 * SIZES, num_accelerators=8)
    models = ServedQueryCost.of_servers(pd.concat([dear, make_servers()]), MIX).models
    assert (models["num_accelerators"] == 2).all()


def test_mixtures_and_hybrids_are_left_out_with_their_reason():
    servers = make_servers([*NAMES, "qwen3-30b-a3b", "nemotron-nano-9b-v2"])
    cost = ServedQueryCost.of_servers(servers, MIX)
    assert cost.per_query.num_params.size == len(NAMES)
    assert cost.left_out == {
        "qwen3-30b-a3b": "a token visits a part of its experts",
        "nemotron-nano-9b-v2": "its layers have state space",
    }


def test_two_machines_two_tasks_and_too_few_models_are_refused():
    for column, other in (("hardware", "B200"), ("task", "gpqa")):
        both = pd.concat([make_servers(), make_servers(**{column: other})])
        with pytest.raises(ValueError, match=f"servers must be of one {column}; got .*, {other}"):
            ServedQueryCost.of_servers(both, MIX)
    with pytest.raises(ValueError, match=r"at least 4 dense models .*; 3 are; qwen3-30b-a3b: a token visits a part"):
        ServedQueryCost.of_servers(make_servers([*NAMES[:3], "qwen3-30b-a3b"]), MIX)


def test_cost_that_is_the_guess_moves_nothing():
    rented = rent("H100", "bf16", 2.0)
    guess = Assumptions(rented, rented)
    # 2 N FLOPs a token: 300 at half of the peak, 500 at a hundredth.
    token_s = 2 * SIZES * (300 / 0.5 + 500 / 0.01) / rented.accelerator.peak_flops("bfloat16") / 500
    cost = ServedQueryCost.of_servers(make_servers(token_s=token_s), MIX)
    row = compare_with_guess(get_scaling_law("chinchilla"), 1.95, 1e8, cost, guess).iloc[0]
    assert row["num_params_moves"] == pytest.approx(1, rel=0.02)
    assert row["cost_usd_moves"] == pytest.approx(1, rel=0.02)


def test_published_h100_serves_cheaper_than_the_guess_and_larger_models_pay():
    points = usable_points(read_ml_energy())
    servers = FullBatches.fit(points[points["hardware"] == "H100"]).within(0.05)
    cost = ServedQueryCost.of_servers(servers[servers["task"] == "lm-arena-chat"], MIX)
    assert len(cost.models) == 8
    assert set(cost.left_out) >= {"qwen3-30b-a3b", "llama-4-scout", "nemotron-nano-9b-v2"}
    # A line in N or nearly, and models within a quarter or so of it.
    assert 0.7 < cost.per_query.law.exponent < 1.3
    assert cost.per_query.residual_std < 0.35
    rented = rent("H100", "bf16", 2.0)
    row = compare_with_guess(get_scaling_law("chinchilla"), 1.95, 1e9, cost, Assumptions(rented, rented)).iloc[0]
    assert row["num_params_moves"] > 1.5
    assert row["cost_usd_moves"] < 0.6
    assert not row["is_extrapolated"]
    assert row["num_params_lower"] < row["num_params"] < row["num_params_upper"]
