"""From the logs of one machine and software stack to the runtime of any architecture on it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from idealized_runtime.architectures import Architecture
from idealized_runtime.architectures.devices import (
    MAX_TENSOR_PARALLEL_SIZE,
    check_tensor_parallel_size,
    device_bytes,
    parallelism_needed,
    tensor_parallel_sizes,
)
from idealized_runtime.architectures.features import unshared_feature
from idealized_runtime.architectures.memory import BYTES_PER_ELEMENT, STORED, weight_bytes
from idealized_runtime.hardware.accelerators import Accelerator, find_accelerator
from idealized_runtime.measurements.shipped import ShippedModel, write_shipped
from idealized_runtime.measurements.timed_models import TimedModel, fitted_models, read_timed_models
from idealized_runtime.prediction.left_out import LeftOutModel, leave_one_model_out, left_out_summary, prediction_error
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

# What models of one name are told apart by; logs of several devices pad the vocabulary and the feed-forward network.
_SHAPE = ("name", "num_layers", "hidden_size", "num_attention_heads", "num_query_groups")


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
        Each model predicted from the others; empty with too few of them, or where the stack is shipped.
    shipped : mapping, optional
        :attr:`together` of a stack that is shipped.
    """

    models: tuple[TimedModel, ...]
    times: StackTimes
    left_out: dict[str, LeftOutModel]
    shipped: Mapping | None = None

    @cached_property
    def error(self) -> PredictionError | None:
        """What the left-out models show; None with too few of them."""
        if self.shipped is None:
            return prediction_error(self.left_out.values())
        return self.shipped["error"] and PredictionError(**self.shipped["error"])

    @cached_property
    def left_out_percent(self) -> dict | None:
        """Relative errors of the left-out models by quantity, ``median`` and ``max``; None with too few of them."""
        if self.shipped is not None:
            return self.shipped["left_out_percent"]
        if not self.left_out:
            return None
        return left_out_summary(self.left_out)[["median", "max"]].rename(columns={"max": "worst"}).to_dict("index")

    @property
    def error_sentence(self) -> str:
        """The errors of the left-out models in words; empty with too few of them."""
        named = "; ".join(
            f"{name.replace('_', ' ')} {errors['median']:.1f} % in the median, {errors['worst']:.1f} % at worst"
            for name, errors in (self.left_out_percent or {}).items()
        )
        return named and f"Each timed model predicted from the others is off by: {named}."

    @property
    def together(self) -> dict:
        """What a shipped stack keeps of all its models."""
        return {
            "times": asdict(self.times),
            "error": self.error and asdict(self.error),
            "left_out_percent": self.left_out_percent,
        }

    @property
    def accelerator(self) -> Accelerator | None:
        """Row of the machine that the logs are of; None where the registry has none."""
        return find_accelerator(self.models[0].hardware)

    def own_log(self, predicted: PredictedRuntime) -> TimedModel | None:
        """The log of that very model on as many devices; None where it was not timed."""
        placement = predicted.placement
        for model in self.models:
            is_same = all(getattr(model.architecture, name) == getattr(predicted.architecture, name) for name in _SHAPE)
            # Slices of the layers that were timed one by one stand for as many stages.
            depths = model.pipeline_parallel_size, model.pipeline_parallel_size * model.slices
            is_placed = model.tensor_parallel_size == placement.tensor_parallel_size
            if is_same and is_placed and placement.pipeline_parallel_size in depths:
                return model
        return None


def fit_predictor(models: Iterable[TimedModel]) -> RuntimePredictor:
    """Fit the times of a stack, and see how well it predicts each model from the others.

    Of a stack that is shipped they are known already.

    Raises
    ------
    ValueError
        Fewer than two models, models of several stacks, or a log that cannot be fitted.
    """
    models = tuple(models)
    if models and all(isinstance(model, ShippedModel) for model in models):
        together = models[0].together
        return RuntimePredictor(models, StackTimes(**together["times"]), {}, together)
    models = tuple(fitted_models(models))
    for model in models:
        if model.architecture is None or model.dtype is None:
            raise ValueError(
                f"the log of {model.name} does not tell its architecture or data type, which a prediction goes by; "
                "name the models to go by without it"
            )
    times = fit_stack_times(models)
    left_out = leave_one_model_out(models) if len(models) > MIN_MODELS else {}
    return RuntimePredictor(models, times, left_out)


def ship_stack(name: str):
    """Fit the logs of a name anew, and write the stack that is shipped under it."""
    predictor = fit_predictor(read_timed_models(name).values())
    write_shipped(name, predictor.models, predictor.together)


def predict_model(
    architecture: Architecture,
    predictor: RuntimePredictor,
    *,
    num_context_tokens: int | None = None,
    num_accelerators: int | None = None,
    tensor_parallel_size: int | None = None,
    pipeline_parallel_size: int | None = None,
    accelerator: Accelerator | None = None,
) -> PredictedRuntime:
    """Runtime of an architecture, timed or not, in the data type of the stack; it knows its caveats.

    Parameters
    ----------
    architecture : Architecture
    predictor : RuntimePredictor
    num_context_tokens : int, optional
        Of the longest query, prompt and output together; the most the model takes where it is not given.
    num_accelerators, tensor_parallel_size, pipeline_parallel_size : int, optional
        Where none is given, those of the fewest devices that hold weights and cache of that query; one device where
        the machine's memory is not known. Of a number of devices as many share each layer as can, by the software of
        the stack too: Megatron's engines do not share out experts and latents. Where one of the sizes is given, the
        other is 1, or what the number of devices leaves for it.
    accelerator : Accelerator, optional
        One of the devices; :attr:`RuntimePredictor.accelerator` where it is not given.

    Raises
    ------
    ValueError
        The query is longer than the model's context, or the devices cannot share its heads, widths or layers.
    MessagesNotTimedError
        It takes several devices, and no log of the stack tells what messages between devices take.
    """
    longest = architecture.max_position_embeddings
    if num_context_tokens is not None and num_context_tokens > longest:
        raise ValueError(
            f"{architecture.name} takes {longest} tokens of context (max_position_embeddings), prompt and output "
            f"together; got {num_context_tokens}"
        )
    memory_bytes = getattr(accelerator or predictor.accelerator, "memory_bytes", None)
    most = _most_sharing_a_layer(predictor.models, architecture)
    sizes = _sizes(architecture, num_accelerators, tensor_parallel_size, pipeline_parallel_size, most)
    placement = _place(architecture, predictor.models, sizes, memory_bytes, num_context_tokens, most)
    return PredictedRuntime(
        architecture, placement, predictor.times, prompt_range(predictor.models), predictor.error,
        caveats=tuple(_caveats(predictor.models, architecture, placement)),
        context_caveats=tuple(
            _context_caveats(predictor.models, architecture, placement, num_context_tokens or longest, memory_bytes)
        ),
    )  # fmt: skip


def _most_sharing_a_layer(models, architecture) -> int:
    """Devices that the software of a stack lets share a layer: Megatron's engines refuse it of experts and latents."""
    is_refused = "megatron" in models[0].software.lower() and unshared_feature(architecture)
    return 1 if is_refused else MAX_TENSOR_PARALLEL_SIZE


def _sizes(architecture, number, width, depth, most) -> tuple[int, int] | None:
    """Tensor and pipeline parallel size that were asked for; None where nothing was."""
    if number is None:
        return None if width is None and depth is None else (width or 1, depth or 1)
    if width is None:
        widths = [size for size in tensor_parallel_sizes(architecture) if size <= most and number % size == 0]
        width = number // depth if depth else widths[-1]
    depth = number // width if depth is None else depth
    if width * depth != number:
        raise ValueError(
            f"num_accelerators must be tensor_parallel_size {width} x pipeline_parallel_size {depth}; got {number}"
        )
    return width, depth


def _place(architecture, models, sizes, memory_bytes, num_context_tokens, most) -> Placement:
    """The devices asked for, or as few as hold the model."""
    dtype, is_chosen = models[0].dtype, sizes is None
    is_stored = _is_read_as_stored(architecture, dtype)
    if is_chosen:
        sizes = parallelism_needed(
            architecture, memory_bytes, num_context_tokens=num_context_tokens, dtype=STORED if is_stored else dtype,
            max_tensor_parallel_size=most,
        )  # fmt: skip
    width, depth = sizes
    check_tensor_parallel_size(architecture, width)
    if width > 1 and most == 1:
        raise ValueError(
            f"{architecture.name} has {unshared_feature(architecture)} not shared out among tensor parallel ranks by "
            f"{models[0].software}; got tensor_parallel_size {width}: it must be 1, and pipeline_parallel_size shares "
            "the layers out"
        )
    if not 1 <= depth <= architecture.num_layers:
        raise ValueError(
            f"pipeline_parallel_size must lie in [1, {architecture.num_layers}], the layers of {architecture.name}; "
            f"got {depth}"
        )
    placement = Placement(dtype, models[0].is_cuda, width, depth, is_stored=is_stored)
    if placement.num_accelerators > 1 and "message_s" not in identified_terms(models):
        devices = f"{placement.num_accelerators} devices" + (f" of {memory_bytes / 1e9:.3g} GB" if memory_bytes else "")
        raise MessagesNotTimedError(
            f"{architecture.name} in {dtype} {'takes' if is_chosen else 'was asked for on'} {devices}, and every log "
            "of this stack is of one device, so nothing is known of messages between devices. Time one model on "
            "several; to see what one device would take if it held the model, num_accelerators must be 1"
        )
    return placement


def _is_read_as_stored(architecture, dtype) -> bool:
    """Whether a configuration quantises weights in formats that are counted; what these leave out has 16 bits."""
    if not architecture.uncounted_options.get("quantization_config") or BYTES_PER_ELEMENT[dtype] != 2:
        return False
    try:
        return weight_bytes(architecture, dtype=STORED) < weight_bytes(architecture, dtype=dtype)
    except ValueError:
        return False


def _caveats(models, architecture, placement):
    """What the interval does not know of: where the new model is of a kind that no log is."""
    for name in ("tensor", "pipeline"):
        size = getattr(placement, f"{name}_parallel_size")
        timed = sorted({getattr(model, f"{name}_parallel_size") for model in models})
        if size not in timed:
            yield f"{name} parallelism of size {size} was not timed, only of {', '.join(map(str, timed))}"
    layer_bytes = _bytes_per_layer(architecture, placement)
    largest = max(_bytes_per_layer(model.architecture, placement_of(model)) for model in models)
    if layer_bytes > largest:
        yield f"a layer reads {layer_bytes:.3g} bytes a device; the largest that was timed reads {largest:.3g}"
    if is_misaligned(architecture, placement) and "misaligned" not in identified_terms(models):
        yield "rows of its feed-forward matrices are not aligned, and no such model was timed: prompts may take longer"
    timed_kinds = set().union(*(layer_kinds(model.architecture) for model in models))
    if new := [kind for kind in layer_kinds(architecture) if kind not in timed_kinds]:
        yield f"no timed model has {' or '.join(new)}: its layers may launch more kernels and use the device otherwise"
    if placement.is_stored:
        stored = weight_bytes(architecture, dtype=STORED) / architecture.num_params
        yield (
            f"its weights are read as its configuration stores them, quantised, in {stored:.3g} bytes each in the "
            "mean; what unpacking them takes was not timed"
        )
    elif "quantization_config" in architecture.uncounted_options:
        yield f"its configuration quantises weights; this is the time with all of them in {placement.dtype}"


def _context_caveats(models, architecture, placement, num_context_tokens, memory_bytes):
    """What it does not know of queries that are longer than all that were timed, or than the memory has room for."""
    longest = max(model.longest_context for model in models)
    if num_context_tokens > longest:
        yield f"contexts of {num_context_tokens} tokens were not timed, only of up to {longest}"
    needed = device_bytes(
        architecture, num_context_tokens=num_context_tokens, dtype=placement.memory_dtype,
        tensor_parallel_size=placement.tensor_parallel_size, pipeline_parallel_size=placement.pipeline_parallel_size,
    )  # fmt: skip
    if memory_bytes is not None and needed > memory_bytes:
        yield f"weights and cache take {needed / 1e9:.3g} GB a device, which has {memory_bytes / 1e9:.3g} GB"


def layer_kinds(architecture) -> list[str]:
    """What sets a layer apart from GPT-2's."""
    kinds = {
        "gated feed-forward networks": architecture.swiglu,
        "RMSNorm": architecture.normalization == "RMSNorm",
        "rotary positions": architecture.position_embedding_type == "rope",
        "experts": architecture.num_experts is not None,
        "latent attention": architecture.kv_lora_rank is not None,
        "windowed layers": architecture.num_windowed_layers > 0,
    }
    # What other parts there are is in their names.
    more = {part.kind for part, _ in architecture.blocks} - {"attention", "latent attention", "feed-forward", "experts"}
    return [*(kind for kind, is_so in kinds.items() if is_so), *sorted(more - {"norms"})]


def _bytes_per_layer(architecture, placement) -> float:
    work = token_work(architecture, np.ones(1), placement)
    return float(work.layer_bytes[0] / work.num_layers[0])
