import dataclasses

import numpy as np
import pytest

from idealized_runtime.lifetime import SCALING_LAWS, ModelSize, ScalingLaw, chinchilla_size, get_scaling_law, size_from

LAW = get_scaling_law("chinchilla")


def test_loss_of_the_published_example():
    assert LAW.loss(70e9, 1e12) == pytest.approx(1.947, abs=5e-4)


def test_coefficient_sets_are_named_and_sourced():
    assert [*SCALING_LAWS] == ["chinchilla", "hoffmann-2022", "hoffmann-2022-tex", "epoch"]
    assert all("arXiv" in law.source for law in SCALING_LAWS.values())
    epoch = SCALING_LAWS["epoch"]
    assert (epoch.A, epoch.B, epoch.E, epoch.alpha, epoch.beta) == (482.01, 2085.43, 1.8172, 0.3478, 0.3658)


def test_rounded_coefficients_lead_far_from_chinchilla_itself():
    """Besiroglu et al. 2024: at Chinchilla's budget the coefficients as printed ask for several times the 20 tokens a
    parameter that Chinchilla was trained on, their refit asks for these."""
    ratio = {
        name: chinchilla_size(law, training_flops=5.76e23).training_tokens_per_param
        for name, law in SCALING_LAWS.items()
    }
    assert ratio["hoffmann-2022"] > 60
    assert 15 < ratio["epoch"] < 25


@pytest.mark.parametrize("law", SCALING_LAWS.values(), ids=SCALING_LAWS)
@pytest.mark.parametrize("training_flops", np.geomspace(1e18, 1e30, 7))
def test_chinchilla_size_is_the_same_from_each_property(law, training_flops):
    size = chinchilla_size(law, training_flops=training_flops)
    given = {
        "num_params": size.num_params,
        "num_training_tokens": size.num_training_tokens,
        "loss": law.loss(size.num_params, size.num_training_tokens),
    }
    assert size.training_flops == pytest.approx(training_flops, rel=1e-12)
    for name, value in given.items():
        other = chinchilla_size(law, **{name: value})
        assert dataclasses.astuple(other) == pytest.approx(dataclasses.astuple(size), rel=1e-8), name


def test_training_compute_from_tokens_has_its_factor_six_outside_the_power():
    """The original's (6 D G)^(1/b) is 6^(1/b) / 6 times as large: 4.5-fold for these coefficients."""
    size = chinchilla_size(LAW, num_training_tokens=1e12)
    exponent = (LAW.alpha + LAW.beta) / LAW.alpha
    scale = (LAW.alpha * LAW.A / (LAW.beta * LAW.B)) ** (1 / (LAW.alpha + LAW.beta))
    assert size.training_flops == pytest.approx(6 * (1e12 * scale) ** exponent, rel=1e-12)
    assert (6 * 1e12 * scale) ** exponent / size.training_flops == pytest.approx(6 ** (LAW.beta / LAW.alpha), rel=1e-9)


@pytest.mark.parametrize("factor", [0.9, 0.99, 1.01, 1.1])
def test_chinchilla_size_beats_others_of_equal_compute(factor):
    size = chinchilla_size(LAW, training_flops=1e24)
    other = LAW.loss(size.num_params * factor, size.num_training_tokens / factor)
    assert other > LAW.loss(size.num_params, size.num_training_tokens)


@pytest.mark.parametrize(
    "names",
    [
        ("num_params", "num_training_tokens"),
        ("num_params", "training_flops"),
        ("num_training_tokens", "training_flops"),
        ("num_params", "loss"),
        ("num_training_tokens", "loss"),
    ],
)
def test_two_properties_fix_the_others(names):
    size = ModelSize(7e9, 2e12)
    properties = {
        "num_params": 7e9,
        "num_training_tokens": 2e12,
        "training_flops": size.training_flops,
        "loss": LAW.loss(7e9, 2e12),
    }
    found = size_from(LAW, **{name: properties[name] for name in names})
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(size), rel=1e-9)


def test_a_law_of_arrays_is_as_many_laws():
    draws = ScalingLaw(*(np.array([getattr(SCALING_LAWS[name], field) for name in SCALING_LAWS])
                         for field in ("A", "B", "E", "alpha", "beta")))  # fmt: skip
    together = chinchilla_size(draws, loss=2.2)
    for index, law in enumerate(SCALING_LAWS.values()):
        assert together.num_params[index] == pytest.approx(chinchilla_size(law, loss=2.2).num_params)


def test_given_coefficients_replace_those_of_the_set():
    law = get_scaling_law("epoch", E=1.5)
    assert (law.E, law.A) == (1.5, 482.01)
    assert law.source.startswith("E as given; the rest: Besiroglu")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_scaling_law("chincilla"), r"no coefficients named 'chincilla' \(did you mean chinchilla"),
        (lambda: ScalingLaw(406.4, 410.7, 1.69, -0.3, 0.28), "alpha must be a positive finite number; got -0.3"),
        (lambda: ScalingLaw(406.4, 410.7, -1, 0.3, 0.28), "E must be zero or a positive finite number; got -1"),
        (lambda: ModelSize(0, 1e9), "num_params must be a positive finite number; got 0"),
        (lambda: LAW.loss(np.array([1e9, -2.0]), 1e9), "num_params must be a positive finite number; got -2"),
        (lambda: LAW.loss(1e9, np.nan), "num_training_tokens must be a positive finite number; got nan"),
        (lambda: chinchilla_size(LAW, loss=1.69), "loss must be above E = 1.69, which no model gets below; got 1.69"),
        (lambda: chinchilla_size(LAW, loss=[2.0, 1.5]), "loss must be above E = 1.69.*got 1.5"),
        (lambda: chinchilla_size(LAW), "exactly one property; got none"),
        (lambda: chinchilla_size(LAW, loss=2, num_params=1e9), "exactly one property; got loss, num_params"),
        (lambda: size_from(LAW, num_params=1e9), "exactly two properties; got num_params"),
        (
            lambda: size_from(LAW, num_params=1e9, num_training_tokens=1e9, training_flops=1e20),
            "exactly two properties; got num_params, num_training_tokens, training_flops",
        ),
        (lambda: size_from(LAW, loss=2, training_flops=1e23), "a loss and a compute budget do not fix a size"),
        (
            lambda: size_from(LAW, loss=1.9, num_params=1e9),
            "no number of training tokens reaches loss 1.9 with 1e.09 parameters: more than 6.053e.09 parameters",
        ),
        (
            lambda: size_from(LAW, loss=1.9, num_training_tokens=1e9),
            "no number of parameters reaches loss 1.9 with 1e.09 training tokens: more than .* training tokens",
        ),
    ],
)
def test_what_has_no_answer_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_sizes_just_above_the_least_reach_the_loss():
    least = (LAW.A / (1.9 - LAW.E)) ** (1 / LAW.alpha)
    assert LAW.loss(1.001 * least, LAW.training_tokens_for(1.9, 1.001 * least)) == pytest.approx(1.9)
