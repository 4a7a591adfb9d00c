import numpy as np
import pytest

from idealized_runtime.architectures import get_architecture
from idealized_runtime.prediction.predicted import PredictedRuntime, PredictionError
from idealized_runtime.prediction.stack import StackTimes
from idealized_runtime.prediction.work import Placement
from idealized_runtime.serving.predicted import predict_steps
from idealized_runtime.serving.scheduler import Scheduler

# Reads at 1 TB/s, launches a layer in 0.2 ms; computes so quickly that reading counts alone.
ERROR = PredictionError(0.1, 0.05, 8)
TIMES = StackTimes(byte_s=1e-12, flop_s=1e-18, launch_s=2e-4, fixed_s=1e-3)


def make_predicted(name, *, error=ERROR, is_cuda=False):
    return PredictedRuntime(get_architecture(name), Placement("float16", is_cuda), TIMES, (1, 2048), error)


def test_step_of_one_sequence_takes_what_was_predicted_for_its_token():
    predicted = make_predicted("llama-3-8b")
    steps = predict_steps(predicted, Scheduler(max_num_seqs=64))
    assert steps.origin == "predicted"
    assert steps.seconds(num_sequences=1, num_cached_tokens=1000) == pytest.approx(
        predicted.output_token_s(1000), rel=0.02
    )
    # Keys and values of 8 heads of 128, 2 bytes each, in 32 layers.
    assert steps.cache_token_s == pytest.approx(2 * 8 * 128 * 2 * 32 * 1e-12, rel=0.05)


def test_mixture_pays_for_the_experts_that_are_visited():
    steps = predict_steps(make_predicted("mixtral-8x7b"), Scheduler(max_num_seqs=64))
    assert steps.expert_share == 2 / 8
    experts_bytes = 32 * 8 * 3 * 4096 * 14336 * 2
    assert steps.expert_s == pytest.approx(experts_bytes * 1e-12, rel=0.05)


def test_errors_are_those_of_the_models_left_out():
    steps = predict_steps(make_predicted("llama-3-8b"), Scheduler())
    relative = np.sqrt(np.diag(steps.covariance)) / np.maximum(steps.coefficients, 1e-30)
    assert relative[[0, 1, 3]] == pytest.approx([0.05, 0.1, 0.05])
    assert predict_steps(make_predicted("llama-3-8b", error=None), Scheduler()).covariance is None
