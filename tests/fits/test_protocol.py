"""Every class of models of runtimes obeys the protocol."""

import inspect
import json
import re

import numpy as np
import pytest
from makers import make_runtimes, make_timings, make_trials

from idealized_runtime.architectures import get_architecture
from idealized_runtime.fits import (
    FormulaModel,
    ModelOfRuntimes,
    NoIntervalError,
    PublishedRuntimeModel,
    RuntimeModel,
    model_from_json,
)
from idealized_runtime.fits.batched.model import BatchRuntimeModel
from idealized_runtime.fits.denoised import fit_denoised
from idealized_runtime.hardware.rates import MachineRates
from idealized_runtime.hardware.roofline import Roofline
from idealized_runtime.measurements.floors import FloorRuntime
from idealized_runtime.prediction import PredictedRuntime, PredictionError, StackTimes
from idealized_runtime.prediction.work import Placement
from idealized_runtime.statistics.intervals import standard_error_of_interval

GPT2 = get_architecture("gpt2-small")
SIZES = {"prompt_sizes": (64, 128, 512), "output_sizes": (8, 32)}
PREDICTED = (GPT2, Placement("float16", True), StackTimes(byte_s=1e-12, flop_s=1e-14, fixed_s=1e-4), (1, 512))
FORMULA = "runtime_s ~ C(num_prompt_tokens) + I(num_output_tokens - 1)"
FEW_SETTINGS = make_runtimes({1: 0.02, 512: 0.03}, (1, 2)).iloc[[0, 2, 3]]
MODELS = {
    "weighted": lambda: RuntimeModel.fit(make_trials(np.random.default_rng(0))),
    "weighted, of few settings": lambda: RuntimeModel.fit(FEW_SETTINGS),
    "published": lambda: PublishedRuntimeModel.fit(make_runtimes()),
    "of an API": lambda: fit_denoised(make_trials(np.random.default_rng(0), num_trials=3), fit=RuntimeModel.fit),
    "batched": lambda: BatchRuntimeModel.fit(make_timings(rng=np.random.default_rng(0), **SIZES)).at(8, 4),
    "formula": lambda: FormulaModel(FORMULA, make_trials(np.random.default_rng(0))),
    "formula, of few settings": lambda: FormulaModel(FORMULA, FEW_SETTINGS),
    "predicted": lambda: PredictedRuntime(*PREDICTED, PredictionError(0.1, 0.05, 5), ("a caveat",)),
    "predicted, without an interval": lambda: PredictedRuntime(*PREDICTED),
    "floor": lambda: FloorRuntime(Roofline(GPT2, MachineRates(1e12, 1e14, 1e8, False), "float16")),
}
READERS = {"predicted": PredictedRuntime.from_json, "floor": FloorRuntime.from_json}
PROMPTS, OUTPUTS = np.array([[64], [100], [512]]), np.array([1, 2, 30])


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def test_model_is_shown_in_one_line(model):
    pattern = r"<\w+: prompts of \d+( to \d+)? tokens [\d.]+( to [\d.]+)? ms, a further token [\d.]+ ms>"
    assert re.fullmatch(pattern, repr(model))


def test_every_method_of_the_protocol_is_there_with_its_arguments(model):
    for name, wanted in inspect.getmembers(ModelOfRuntimes, inspect.isfunction):
        if not name.startswith("_"):
            arguments = list(inspect.signature(getattr(model, name)).parameters)
            wanted = list(inspect.signature(wanted).parameters)[1:]
            assert arguments[: len(wanted)] == wanted
            assert set(arguments) - set(wanted) <= {"extrapolate"}


def test_queries_broadcast_and_scalars_give_floats(model):
    runtimes_s = model.predict(PROMPTS, OUTPUTS)
    assert runtimes_s.shape == (3, 3)
    assert (runtimes_s > 0).all()
    assert model.predict(100, 30) == pytest.approx(runtimes_s[1, 2])
    assert isinstance(model.predict(100, 30), float)
    assert isinstance(model.standard_error(100, 30), float)
    assert isinstance(model.prompt_encoding_time_s(100), float)
    assert isinstance(model.time_per_output_token_at(100), float)
    assert model.predict(99.5, 2.5) > 0


def test_first_token_and_the_next_add_up_to_a_runtime(model):
    overhead_s = getattr(model, "overhead_s", None) or 0
    prompt_s, token_s = model.prompt_encoding_time_s(PROMPTS), model.time_per_output_token_at(PROMPTS)
    np.testing.assert_allclose(model.predict(PROMPTS, 1), prompt_s + overhead_s)
    np.testing.assert_allclose(model.predict(PROMPTS, 2), prompt_s + token_s + overhead_s)


def test_interval_holds_the_prediction_and_has_the_standard_error_or_is_refused(model):
    errors_s = model.standard_error(PROMPTS, OUTPUTS)
    assert errors_s.shape == (3, 3)
    if np.isnan(errors_s).any():
        with pytest.raises(NoIntervalError, match="no interval is known"):
            model.predict_interval(PROMPTS, OUTPUTS)
        return
    lower_s, upper_s = model.predict_interval(PROMPTS, OUTPUTS, level=0.95)
    assert ((lower_s <= model.predict(PROMPTS, OUTPUTS)) & (model.predict(PROMPTS, OUTPUTS) <= upper_s)).all()
    np.testing.assert_allclose(errors_s, standard_error_of_interval(lower_s, upper_s, 0.95))
    assert (np.subtract(*model.predict_interval(PROMPTS, OUTPUTS, level=0.5)) >= lower_s - upper_s).all()


def test_prompts_beyond_the_timed_ones_are_told_and_refused(model):
    assert not model.is_extrapolated(PROMPTS).any()
    assert np.shape(model.is_extrapolated(100)) == ()
    if model.is_extrapolated(5000):
        with pytest.raises(ValueError, match="num_prompt_tokens must lie in"):
            model.predict(5000, 2)


def test_json_has_helms_keys_and_restores_the_model(model):
    entry = json.loads(json.dumps(model.to_json(), allow_nan=False))
    times_s = np.array(list(entry["runtime_for_prompt_tokens"].values()))
    sizes = np.array(list(map(int, entry["runtime_for_prompt_tokens"])))
    np.testing.assert_allclose(model.prompt_encoding_time_s(sizes), times_s)
    assert entry["runtime_per_output_token"] == pytest.approx(model.time_per_output_token_at(sizes[0]), rel=0.2)
    restored = model_from_json(entry, readers=READERS)
    assert type(restored) is type(model)
    np.testing.assert_array_equal(restored.predict(PROMPTS, OUTPUTS), model.predict(PROMPTS, OUTPUTS))
    np.testing.assert_array_equal(restored.standard_error(PROMPTS, OUTPUTS), model.standard_error(PROMPTS, OUTPUTS))
    assert restored.to_json() == model.to_json()
