"""What a machine with its software takes for the work of a pass: a few times, fitted to the logs of many models."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from idealized_runtime.measurements.floors import machine_rates
from idealized_runtime.measurements.timed_models import TimedModel
from idealized_runtime.prediction.work import Placement, Work, is_misaligned, prompt_work, token_work

MIN_MODELS = 2
# Relative errors beyond this count less than their square, so that one odd model does not bend the others.
_ROBUST_FROM = 0.05
# Launches begin as these shares of the quickest pass: the search may end at either side of where the host is slower.
_LAUNCH_STARTS = (0.95, 0.3)


@dataclass(frozen=True)
class StackTimes:
    """Times of one machine and software stack; none is negative, and one that no log tells of is 0.

    A pass takes ``fixed_s``, for a prompt ``token_s`` a token, the output projection, and its layers. On the
    device, layers take the root of the squares of reading and computing (which overlap in part), and messages. The
    host launches their kernels meanwhile on CUDA, so the longer of the two counts; on a CPU the two add up.

    Parameters
    ----------
    byte_s, flop_s : float
        Seconds for a byte read, for an operation of a matrix product.
    many_tokens_byte_s : float
        Further seconds for a byte of weights in a pass of more than one token.
    launch_s, prompt_launch_s, tensor_parallel_launch_s : float
        To launch the kernels of one layer; in addition in prompt passes; in addition with tensor parallelism.
    fixed_s, token_s : float
        Of a pass; of a prompt token, outside the model (turning text into tokens).
    message_s, message_byte_s : float
        To send one message between devices; for a byte of it.
    misaligned : float
        Further share of ``flop_s`` where rows of the feed-forward matrices are not aligned.
    """

    byte_s: float = 0.0
    flop_s: float = 0.0
    many_tokens_byte_s: float = 0.0
    launch_s: float = 0.0
    prompt_launch_s: float = 0.0
    tensor_parallel_launch_s: float = 0.0
    fixed_s: float = 0.0
    token_s: float = 0.0
    message_s: float = 0.0
    message_byte_s: float = 0.0
    misaligned: float = 0.0

    def pass_time_s(self, work: Work, *, is_cuda: bool) -> np.ndarray:
        """Seconds of each pass."""
        launch_s = (
            self.launch_s
            + work.is_prompt * self.prompt_launch_s
            + work.is_tensor_parallel * self.tensor_parallel_launch_s
        )
        host_s, device_s = work.num_layers * launch_s, self._device_time_s(work)
        layers_s = np.maximum(host_s, device_s) if is_cuda else host_s + device_s
        outside_s = self.fixed_s + work.is_prompt * work.num_tokens * self.token_s
        return work.slices * (layers_s + work.head_bytes * self.byte_s + outside_s)

    def _device_time_s(self, work):
        computing_s = work.layer_flops * self.flop_s * (1 + work.is_misaligned * self.misaligned)
        reading_s = work.layer_bytes * self.byte_s
        reading_again_s = work.weight_bytes * self.many_tokens_byte_s * (work.num_tokens > 1)
        messages_s = work.num_messages * self.message_s + work.message_bytes * self.message_byte_s
        return np.hypot(reading_s, computing_s) + reading_again_s + messages_s


_ALWAYS = (
    "byte_s", "flop_s", "many_tokens_byte_s", "launch_s", "prompt_launch_s", "fixed_s", "token_s",
)  # fmt: skip
_IF_PARALLEL = ("tensor_parallel_launch_s", "message_s", "message_byte_s")


def placement_of(model: TimedModel) -> Placement:
    """How a timed model was laid out."""
    return Placement(
        dtype=model.dtype,
        is_cuda=model.is_cuda,
        tensor_parallel_size=model.tensor_parallel_size,
        pipeline_parallel_size=model.pipeline_parallel_size,
        slices=model.slices,
    )


def prompt_range(models: Iterable[TimedModel]) -> tuple[int, int]:
    """Smallest and largest prompt that the logs of these models hold."""
    sizes = np.concatenate([model.fit.num_prompt_tokens for model in models])
    return int(sizes.min()), int(sizes.max())


def identified_terms(models: Iterable[TimedModel]) -> tuple[str, ...]:
    """Fields of :class:`StackTimes` that the logs of these models tell of."""
    placements = [(model.architecture, placement_of(model)) for model in models]
    terms = _ALWAYS
    if any(placement.num_accelerators > 1 for _, placement in placements):
        terms += _IF_PARALLEL
    if any(is_misaligned(*layout) for layout in placements):
        terms += ("misaligned",)
    return terms


def fit_stack_times(models: Sequence[TimedModel]) -> StackTimes:
    """Least squares of relative errors over the prompt times and the time per output token of every model.

    Each fitted number of each model counts alike; errors beyond 5 % count less than their square. Nothing is
    faster than the machine's rates (``floors.machine_rates``) and their tolerance allow, where they are known.

    Raises
    ------
    ValueError
        Fewer than two models, or they were timed on different stacks; the message says which.
    """
    from scipy.optimize import least_squares

    models = list(models)
    _check_one_stack(models)
    work, measured_s = _observations(models)
    terms, least = identified_terms(models), _least_times(models)

    def relative_errors(x, scale):
        return np.log(_named(terms, x * scale).pass_time_s(work, is_cuda=models[0].is_cuda) / measured_s)

    solutions = []
    for launch_share in _LAUNCH_STARTS:
        start = _start(work, measured_s, launch_share)
        scale = np.array([start[term] for term in terms])
        floor = np.array([least.get(term, 0.0) for term in terms]) / scale
        solution = least_squares(
            relative_errors, np.maximum(1.0, 1.01 * floor), bounds=(floor, np.inf), args=(scale,),
            loss="soft_l1", f_scale=_ROBUST_FROM,
        )  # fmt: skip
        solutions.append((solution.cost, _named(terms, solution.x * scale)))
    return min(solutions, key=lambda solution: solution[0])[1]


def stack_times_table(times: StackTimes) -> pd.DataFrame:
    """Fitted times in the units that machines are described in, those that no log tells of left out.

    Returns
    -------
    DataFrame, by what it is
        ``value``, ``unit``.
    """
    values = {
        "reading": (_rate(times.byte_s, 1e9), "GB/s"),
        "computing": (_rate(times.flop_s, 1e12), "TFLOP/s"),
        "reading weights, more than one token": (_rate(times.byte_s + times.many_tokens_byte_s, 1e9), "GB/s"),
        "launching a layer": (1e3 * times.launch_s, "ms"),
        "launching a layer, prompt, in addition": (1e3 * times.prompt_launch_s, "ms"),
        "launching a layer, tensor parallelism, in addition": (1e3 * times.tensor_parallel_launch_s, "ms"),
        "each pass": (1e3 * times.fixed_s, "ms"),
        "each prompt token, outside the model": (1e6 * times.token_s, "µs"),
        "each message": (1e6 * times.message_s, "µs"),
        "sending": (_rate(times.message_byte_s, 1e9), "GB/s"),
        "computing, misaligned, in addition": (100 * times.misaligned, "%"),
    }
    known = {name: value for name, value in values.items() if 1e-9 < value[0] < np.inf}
    return pd.DataFrame.from_dict(known, orient="index", columns=["value", "unit"]).rename_axis("what")


def _rate(seconds, unit):
    return np.inf if seconds == 0 else 1 / seconds / unit


def _check_one_stack(models):
    stacks = sorted({f"{model.software} on {model.hardware}" for model in models})
    if len(stacks) > 1:
        raise ValueError(
            f"times of one stack are wanted; the models were timed with {'; '.join(stacks)}. Keep the logs of each in "
            "a folder of their own"
        )
    if len(models) < MIN_MODELS:
        names = ", ".join(model.architecture.name for model in models) or "none"
        raise ValueError(
            f"prediction needs logs of at least {MIN_MODELS} models of one stack; there are {len(models)}: {names}. "
            "Time more models, of different depth and width"
        )


def _observations(models) -> tuple[Work, np.ndarray]:
    """Every prompt time and the time per output token of each model, as work and as seconds."""
    works, times_s = [], []
    for model in models:
        fit, placement = model.fit, placement_of(model)
        works.append(prompt_work(model.architecture, fit.num_prompt_tokens, placement))
        works.append(token_work(model.architecture, [model.reference_num_context_tokens], placement))
        times_s += [fit.profiled_prompt_times_s, [fit.time_per_output_token_s]]
    return Work.concatenate(works), np.concatenate(times_s)


def _start(work, measured_s, launch_share) -> dict:
    """Where the search begins. No term is negative, so no byte, operation or launch outlasts the quickest pass."""
    slice_s = measured_s / work.slices
    per_layer_s = float(np.min(slice_s / work.num_layers))
    byte_s = float(np.min(slice_s / (work.layer_bytes + work.head_bytes)))
    return {
        "byte_s": 0.7 * byte_s,
        "flop_s": 0.7 * float(np.min(slice_s / work.layer_flops)),
        "many_tokens_byte_s": 0.1 * byte_s,
        "launch_s": launch_share * per_layer_s,
        "prompt_launch_s": 0.05 * per_layer_s,
        "tensor_parallel_launch_s": 0.05 * per_layer_s,
        "fixed_s": per_layer_s,
        "token_s": 1e-6,
        "message_s": 0.05 * per_layer_s,
        "message_byte_s": 5 * byte_s,
        "misaligned": 1.0,
    }


def _least_times(models) -> dict:
    """The best rates that a log knows of the machine, as times; those that an honest measurement may reach."""
    known = [rates for rates in map(machine_rates, models) if rates is not None]
    least = {}
    for term, name in (("byte_s", "memory_bytes_per_s"), ("flop_s", "matmul_flops_per_s")):
        reachable = [
            getattr(rates, name) * (1 + rates.tolerance) for rates in known if getattr(rates, name) is not None
        ]
        if reachable:
            least[term] = 1 / max(reachable)
    return least


def _named(terms, values) -> StackTimes:
    return StackTimes(**dict(zip(terms, map(float, values), strict=True)))
