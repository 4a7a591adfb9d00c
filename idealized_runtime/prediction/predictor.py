"""From the logs of one machine and software stack to the runtime of any architecture on it."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from idealized_runtime.architectures import Architecture
from idealized_runtime.measurements.floors import refuse_impossible
from idealized_runtime.measurements.timed_models import TimedModel, fitted_models
from idealized_runtime.prediction.left_out import LeftOutModel, leave_one_model_out, prediction_error
from idealized_runtime.prediction.predicted import PredictedRuntime, PredictionError
from idealized_runtime.prediction.stack import (
    MIN_MODELS,
    StackTimes,
    fit_stack_times,
    identified_terms,
    placement_of,
    prompt_range,
)
from idealized_runtime.prediction.work import Placement, is_misaligned, token_work


class MessagesNotTimedError(ValueError):
    """Several devices are asked for, and every log of the stack is of one."""


@dataclass(frozen=True, eq=False)
class RuntimePredictor:
    """Predicts runtimes on one machine and software stack.

    Parameters
    ----------
    models : tuple of TimedModel
        What it was fitted to.
    times : StackTimes
    left_out : mapping of LeftOutModel, by model name
        Each model predicted from the others; empty with too few of them.
    """

    models: tuple[TimedModel, ...]
    times: StackTimes
    left_out: dict[str, LeftOutModel]

    @property
    def error(self) -> PredictionError | None:
        """What the left-out models show; None with too few of them."""
        return prediction_error(self.left_out.values())

    @property
    def knows_messages(self) -> bool:
        """Whether a log tells what messages between devices take."""
        return "message_s" in identified_terms(self.models)

    def predict_runtime(
        self, architecture: Architecture, *, tensor_parallel_size: int = 1, pipeline_parallel_size: int = 1
    ) -> PredictedRuntime:
        """Runtime of an architecture, timed or not, on so many devices, in the data type of the stack.

        Raises
        ------
        ValueError
            The devices cannot share its heads or layers.
        MessagesNotTimedError
            Several devices are asked for, and no log of the stack tells what messages between devices take.
        """
        _check_shares(architecture, tensor_parallel_size, pipeline_parallel_size)
        known = self.models[0]
        placement = Placement(known.dtype, known.is_cuda, tensor_parallel_size, pipeline_parallel_size)
        if placement.is_parallel and not self.knows_messages:
            raise MessagesNotTimedError(
                f"every log of this stack is of one device, so nothing is known of messages between devices; got "
                f"tensor_parallel_size {tensor_parallel_size}, pipeline_parallel_size {pipeline_parallel_size}. "
                "Time one model on several devices"
            )
        caveats = tuple(_caveats(self.models, architecture, placement))
        return PredictedRuntime(architecture, placement, self.times, prompt_range(self.models), self.error, caveats)


def fit_predictor(models: Iterable[TimedModel]) -> RuntimePredictor:
    """Fit the times of a stack, and see how well it predicts each model from the others.

    Raises
    ------
    ValueError
        Fewer than two models, models of several stacks, or a log that cannot be fitted.
    ImpossibleMeasurementError
        A log holds a runtime below its floor.
    """
    models = tuple(fitted_models(models))
    for model in models:
        if model.architecture is None or model.dtype is None:
            raise ValueError(
                f"the log of {model.name} does not tell its architecture or data type, which a prediction goes by; "
                "name the models to go by without it"
            )
        refuse_impossible(model)
    times = fit_stack_times(models)
    left_out = leave_one_model_out(models) if len(models) > MIN_MODELS else {}
    return RuntimePredictor(models, times, left_out)


def _check_shares(architecture, tensor_parallel_size, pipeline_parallel_size):
    if tensor_parallel_size < 1 or architecture.num_attention_heads % tensor_parallel_size:
        raise ValueError(
            f"tensor_parallel_size must divide the {architecture.num_attention_heads} attention heads of "
            f"{architecture.name}; got {tensor_parallel_size}"
        )
    if not 1 <= pipeline_parallel_size <= architecture.num_layers:
        raise ValueError(
            f"pipeline_parallel_size must lie in [1, {architecture.num_layers}], the layers of {architecture.name}; "
            f"got {pipeline_parallel_size}"
        )


def _caveats(models, architecture, placement):
    """What the interval does not know of: where the new model is of a kind that no log is."""
    widths = sorted({model.tensor_parallel_size for model in models})
    if placement.tensor_parallel_size not in widths:
        timed = ", ".join(map(str, widths))
        yield f"tensor parallelism of size {placement.tensor_parallel_size} was not timed, only of {timed}"
    depths = sorted({model.pipeline_parallel_size for model in models})
    if placement.pipeline_parallel_size not in depths:
        timed = ", ".join(map(str, depths))
        yield f"pipeline parallelism of size {placement.pipeline_parallel_size} was not timed, only of {timed}"
    layer_bytes = _bytes_per_layer(architecture, placement)
    largest = max(_bytes_per_layer(model.architecture, placement_of(model)) for model in models)
    if layer_bytes > largest:
        yield f"a layer reads {layer_bytes:.3g} bytes a device; the largest that was timed reads {largest:.3g}"
    if is_misaligned(architecture, placement) and "misaligned" not in identified_terms(models):
        yield "rows of its feed-forward matrices are not aligned, and no such model was timed: prompts may take longer"
    timed_kinds = set().union(*(_kinds(model.architecture) for model in models))
    if new := [kind for kind in _kinds(architecture) if kind not in timed_kinds]:
        yield f"no timed model has {' or '.join(new)}: its layers may launch more kernels and use the device otherwise"
    if "quantization_config" in architecture.uncounted_options:
        yield f"its configuration quantises weights; this is the time with all of them in {placement.dtype}"


def _kinds(architecture) -> list[str]:
    """What sets a layer apart from GPT-2's."""
    kinds = {
        "gated feed-forward networks": architecture.swiglu,
        "RMSNorm": architecture.normalization == "RMSNorm",
        "rotary positions": architecture.position_embedding_type == "rope",
        "experts": architecture.num_experts is not None,
        "latent attention": architecture.kv_lora_rank is not None,
        "windowed layers": architecture.window_size is not None,
    }
    return [kind for kind, is_so in kinds.items() if is_so]


def _bytes_per_layer(architecture, placement) -> float:
    work = token_work(architecture, np.ones(1), placement)
    return float(work.layer_bytes[0] / work.num_layers[0])
