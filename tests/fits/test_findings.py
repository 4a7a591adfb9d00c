import numpy as np
import pytest
from makers import make_runtimes

from idealized_runtime import RuntimeModel
from idealized_runtime.fits.findings import fit_findings, order_effect
from idealized_runtime.fits.settings import validate_settings
from idealized_runtime.records import SuspiciousLogWarning

PROMPT_TIMES_S = {1: 0.02, 16: 0.024, 64: 0.03, 128: 0.05, 256: 0.08, 512: 0.14}
OUTPUT_SIZES = (1, 2, 8, 16)


def sweep(rng=None, *, along=None, prompt_times_s=PROMPT_TIMES_S, output_sizes=OUTPUT_SIZES):
    """Mean runtimes of 20 trials with 2 % noise, in the order of the sweep; ``along`` is what they take by place."""
    runtimes = make_runtimes(prompt_times_s, output_sizes)
    number = len(runtimes)
    factor = np.ones(number) if along is None else along(np.arange(number) / (number - 1))
    if rng is not None:
        factor = factor * np.exp(0.02 / np.sqrt(20) * rng.standard_normal(number))
    return runtimes.assign(
        runtime_s=runtimes["runtime_s"] * factor, runtime_std_s=0.02 * runtimes["runtime_s"], num_trials=20
    )


def power(along, num_seeds=200):
    rngs = map(np.random.default_rng, range(num_seeds))
    return np.mean([order_effect(sweep(rng, along=along)) is not None for rng in rngs])


def test_no_order_is_found_where_there_is_none():
    assert power(np.ones_like) <= 0.005


def test_drift_of_half_is_found_in_nearly_all_sweeps_without_start_times():
    assert power(lambda x: 1 + 0.5 * x) >= 0.95


def test_throttling_from_the_middle_of_a_sweep_on_is_found_in_most():
    assert power(lambda x: np.where(x >= 0.6, 1.4, 1.0)) >= 0.8


def test_drift_is_named_with_its_size():
    with pytest.warns(SuspiciousLogWarning, match=r"^sweep_order: runtimes rise by (4\d|5\d)% over the sweep"):
        RuntimeModel.fit(sweep(along=lambda x: 1 + 0.5 * x))


def test_the_order_of_rows_is_that_of_the_sweep():
    shuffled = sweep(along=lambda x: 1 + 0.5 * x).sample(frac=1, random_state=3)
    assert order_effect(shuffled) is None


def names(runtimes):
    with pytest.warns() as caught:
        RuntimeModel.fit(runtimes)
    return {str(warning.message).split(":")[0] for warning in caught}


@pytest.mark.parametrize("shuffled", [False, True])
def test_sound_runtimes_have_no_finding(shuffled, recwarn):
    runtimes = sweep(np.random.default_rng(0))
    RuntimeModel.fit(runtimes.sample(frac=1, random_state=0) if shuffled else runtimes)
    assert not recwarn.list


@pytest.mark.parametrize("number", [0, 7, 20])
def test_setting_in_milliseconds_stands_out(number):
    runtimes = sweep()
    runtimes.loc[number, "runtime_s"] *= 1000
    assert {"r_squared", "residuals"} & names(runtimes)


def test_prompt_times_that_fall_by_a_factor_are_named():
    runtimes = sweep(prompt_times_s={1: 0.02, 64: 0.2, 512: 0.05})
    with pytest.warns(SuspiciousLogWarning, match=r"prompt_times: .* 0\.2 s at p=64, 0\.05 s at p=512"):
        RuntimeModel.fit(runtimes)


def test_server_that_stops_early_is_named():
    runtimes = sweep(output_sizes=(1, 2, 8, 16, 32))
    stopped = runtimes["num_output_tokens"].clip(upper=16) - runtimes["num_output_tokens"]
    with pytest.warns(SuspiciousLogWarning, match="output_tokens: the last of 32 output tokens take 0% of what"):
        RuntimeModel.fit(runtimes.assign(runtime_s=runtimes["runtime_s"] + 0.02 * stopped))


def test_output_sizes_without_any_effect_are_named():
    runtimes = sweep(np.random.default_rng(0), output_sizes=(1, 16))
    flat = runtimes.assign(runtime_s=runtimes["runtime_s"] - 0.0199 * (runtimes["num_output_tokens"] - 1))
    settings = validate_settings(flat)
    model = RuntimeModel.fit(sweep())
    assert "output_tokens" in [finding.name for finding in fit_findings(settings, model)]
