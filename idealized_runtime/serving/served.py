"""Any architecture on a machine with an engine that served others: steps, runtimes of queries, watts, what is unknown.

Coefficients come with the package (:mod:`~idealized_runtime.serving.known_stacks`); no log is needed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from idealized_runtime.architectures import ARCHITECTURES, Architecture
from idealized_runtime.architectures.devices import MAX_TENSOR_PARALLEL_SIZE, cache_tokens_left
from idealized_runtime.architectures.formats import shares_by_bits
from idealized_runtime.architectures.memory import STORED, state_bytes
from idealized_runtime.checks import did_you_mean, token_array
from idealized_runtime.fits.entries import doubling_sizes, entry_of
from idealized_runtime.fits.protocol import PredictingModel, plain
from idealized_runtime.hardware.accelerators import Accelerator, get_accelerator
from idealized_runtime.hardware.prices import DeviceRate, dollar_cost_usd
from idealized_runtime.prediction.predictor import layer_kinds
from idealized_runtime.queries.terms import PricedModel, on_terms
from idealized_runtime.serving.known_stacks import KnownStack, get_known_stack
from idealized_runtime.serving.predicted import line_through_steps
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.served_work import WeightFormat, served_work, stored_format
from idealized_runtime.serving.stacks import ServedStack
from idealized_runtime.serving.steps import StepModel
from idealized_runtime.statistics.intervals import normal_half_width

# How weights may be stored other than a configuration says; None is 16 bits.
DTYPES = {"bfloat16": None, "float8": {"quant_method": "fp8"}, "mxfp4": {"quant_method": "mxfp4"}}
# Prompts of the serving points that first tokens were held against.
_PROMPT_RANGE = (1, 8192)
_LEVEL, _SIDES = 0.95, ("lower", "upper")


class ModelTooLargeError(ValueError):
    """The devices have no room for the weights of a model and the tokens that were asked for."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """An architecture on devices with an engine, and what is known of its steps there.

    Parameters
    ----------
    architecture : Architecture
        With the ``quantization_config`` that its weights are stored by.
    weights : WeightFormat
    accelerator : Accelerator
    tensor_parallel_size : int
    known : KnownStack
    stack : ServedStack
        Of ``known``, on this accelerator.
    cache_tokens : int
        That the devices have room for beside the weights.
    caveats : tuple of str
        What its intervals do not hold, whatever is asked.
    """

    architecture: Architecture
    weights: WeightFormat
    accelerator: Accelerator
    tensor_parallel_size: int
    known: KnownStack
    stack: ServedStack
    cache_tokens: int
    caveats: tuple[str, ...] = ()

    @property
    def dtype(self) -> str:
        """Of the weights, in words."""
        config = self.architecture.uncounted_options.get("quantization_config")
        if not config:
            return "bfloat16"
        names = [name for name, given in DTYPES.items() if given == config]
        return names[0] if names else f"stored as {config.get('quant_method') or config.get('quant_algo') or 'given'}"

    @property
    def is_moved(self) -> bool:
        """Whether the coefficients are those of another machine."""
        return self.accelerator.name != self.known.hardware

    @property
    def origin(self) -> str:
        """Where it is known from, in words."""
        of_known = self.known.errors["steps"]
        itself = ", itself among them" * (self.architecture.name in of_known)
        how = f"predicted from {len(of_known)} architectures that others served on {self.known.hardware}{itself}"
        return how + f", taken to {self.accelerator.name} by the data sheets" * self.is_moved

    def step_s(
        self,
        num_sequences: ArrayLike,
        num_context_tokens: ArrayLike,
        *,
        requests_per_step: ArrayLike = 0.0,
        num_prompt_tokens: ArrayLike = 0.0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Seconds of steps without prompts, and what prompts add; arguments are those of ``served_work``."""
        work = self.work(num_sequences, num_context_tokens, requests_per_step, num_prompt_tokens)
        return self.stack.seconds(work), self.stack.prompt_seconds(work)

    def work(
        self,
        num_sequences: ArrayLike,
        num_context_tokens: ArrayLike,
        requests_per_step: ArrayLike,
        num_prompt_tokens: ArrayLike,
    ) -> dict:
        """Counts of its steps."""
        return served_work(
            self.architecture, self.weights, num_sequences=num_sequences, num_context_tokens=num_context_tokens,
            requests_per_step=requests_per_step, num_prompt_tokens=num_prompt_tokens,
            tensor_parallel_size=self.tensor_parallel_size,
        )  # fmt: skip

    def reading_s(self, num_sequences: ArrayLike, num_context_tokens: ArrayLike) -> np.ndarray:
        """Seconds of reading weights and cache at the bandwidth of the data sheet, which no step takes less than."""
        work = self.work(num_sequences, num_context_tokens, 0.0, 0.0)
        read = work["weight_bytes"] + work["mean_expert_bytes"] + work["cache_bytes"]
        return read / self.accelerator.memory_bandwidth_bytes_per_s

    def half_width(self, quantity: str, level: float = _LEVEL) -> float:
        """Of log(predicted / true), as architectures that were left out show it."""
        return self.known.half_width(self.accelerator, quantity, level)

    def steps(self, scheduler: Scheduler | None = None) -> StepModel:
        """The line through the times of its steps, of all kinds that a scheduler allows.

        Its covariance is what architectures left out show, all of it to one side: prompts by theirs, the rest by
        theirs. Without a limit of its cache a scheduler gets that of the devices.
        """
        rules = scheduler or Scheduler()
        if rules.cache_tokens is None:
            rules = replace(rules, cache_tokens=self.cache_tokens)

        def seconds(n, context, p):
            return sum(self.step_s(n, context, requests_per_step=p > 0, num_prompt_tokens=p))

        reach = normal_half_width(_LEVEL)
        return line_through_steps(
            self.architecture, seconds, rules, error_of_steps=self.half_width("steps") / reach,
            error_of_prompts=self.half_width("prompts") / reach, num_accelerators=self.tensor_parallel_size,
            hardware=self.accelerator.name,
            software=self.known.software + f", as on {self.known.hardware}" * self.is_moved,
        )  # fmt: skip

    def runtimes(self, concurrency: int = 1) -> "ServedRuntime":
        """Runtime of its queries, with so many of them at a time."""
        return ServedRuntime(self, concurrency)

    def watts(self, concurrency: float, num_prompt_tokens: float, num_output_tokens: float) -> DeviceRate | None:
        """Mean draw of a device that serves such queries, so many at a time; None where its maximum is not known.

        Of a range of numbers (least, most) it is that of their geometric mean, between the bounds of both.
        """
        most = self.accelerator.power_watts
        if most is None:
            return None
        p, o = float(num_prompt_tokens), float(num_output_tokens)
        ends = np.atleast_1d(np.asarray(concurrency, dtype=float))
        n = np.array([ends.min(), np.sqrt(ends.min() * ends.max()), ends.max()])
        # As many begin in a step as end; alone, one is encoded for every o tokens, and nobody waits.
        work = self.work(n, p + o / 2, n / o, p)
        step_s = self.stack.seconds(work) + self.stack.prompt_seconds(work)
        power = self.known.power.moved_to(self.accelerator)
        lower, watts, upper = np.minimum(power.predict(work, step_s, self.tensor_parallel_size), most).tolist()
        factor = float(np.exp(self.half_width("watts")))
        span = " to ".join(f"{end:g}" for end in dict.fromkeys(ends.tolist()))
        how = f"predicted at {span} running, from others on {self.known.hardware}"
        return DeviceRate(watts, lower / factor, min(upper * factor, most), how)

    def extrapolations(
        self,
        *,
        concurrency: float | None = None,
        num_prompt_tokens: ArrayLike | None = None,
        num_context_tokens: ArrayLike | None = None,
    ) -> tuple[str, ...]:
        """What of a load lies beyond all that was measured, in words."""
        asked = {
            "concurrency": ("batches of {:.4g}", concurrency),
            "num_prompt_tokens": ("prompts of {:.4g} tokens", num_prompt_tokens),
            "num_context_tokens": ("contexts of {:.4g} tokens", num_context_tokens),
        }
        beyond = []
        for name, (words, value) in asked.items():
            least, most = self.known.seen[name]
            # Batches and lengths are means over requests that come and go.
            if value is not None and not 0.9 * least <= value <= 1.1 * most:
                beyond.append(f"{words.format(value)} were not measured, only of about {least:.3g} to {most:.4g}")
        return tuple(beyond)


@dataclass(frozen=True, eq=False, repr=False)
class ServedRuntime(PredictingModel):
    """Runtime of a query to a server that always has so many of its kind; obeys the protocol of
    :class:`~idealized_runtime.fits.protocol.ModelOfRuntimes`.

    Its prompt is encoded in one step beside the others' tokens; its further tokens take mean steps, in which others
    like it begin. What a server does beside its steps is not in it.

    Parameters
    ----------
    served : ServedModel
    concurrency : int
        Queries that run, this one included.
    """

    method: ClassVar[str] = "served"
    prompt_range: ClassVar[tuple[int, int]] = _PROMPT_RANGE

    served: ServedModel
    concurrency: int = 1

    architecture = property(lambda self: self.served.architecture)
    batch_size = property(lambda self: self.concurrency)
    queries = property(lambda self: f"{self.concurrency} at a time")

    def predict(
        self, num_prompt_tokens: ArrayLike, num_output_tokens: ArrayLike, *, extrapolate: bool = False
    ) -> float | np.ndarray:
        """Runtime of each query in seconds; float for two scalars, else an array.

        Raises
        ------
        ValueError
            A number of tokens is below 1, or p is longer than the prompts that were served and ``extrapolate`` is not
            set.
        """
        steps_s, prompts_s = self._parts(num_prompt_tokens, num_output_tokens, extrapolate)
        return plain(steps_s + prompts_s)

    def predict_interval(
        self,
        num_prompt_tokens: ArrayLike,
        num_output_tokens: ArrayLike,
        *,
        level: float = _LEVEL,
        extrapolate: bool = False,
    ) -> tuple[float | np.ndarray, float | np.ndarray]:
        """Prediction interval (lower, upper): steps and prompts err as architectures left out do, to the same side.

        No lower bound is below what reading takes at the bandwidth of the data sheet.

        Raises
        ------
        ValueError
            As :meth:`predict`.
        """
        parts_s = self._parts(num_prompt_tokens, num_output_tokens, extrapolate)
        p, o = (np.asarray(tokens, dtype=float) for tokens in (num_prompt_tokens, num_output_tokens))
        first_s, token_s = (
            self.served.reading_s(number, p + o / 2) for number in (self.concurrency - 1, self.concurrency)
        )
        return self._interval(parts_s, first_s + (o - 1) * token_s, level)

    def output_token_s(self, num_prompt_tokens: ArrayLike, num_output_tokens: ArrayLike) -> float | np.ndarray:
        """Mean seconds of one further output token of such queries."""
        return plain(sum(self._token_parts(num_prompt_tokens, num_output_tokens)))

    def output_token_interval_s(
        self, num_prompt_tokens: ArrayLike, num_output_tokens: ArrayLike, level: float = _LEVEL
    ) -> tuple[float | np.ndarray, float | np.ndarray]:
        """Prediction interval (lower, upper) of :meth:`output_token_s`."""
        p, o = (np.asarray(tokens, dtype=float) for tokens in (num_prompt_tokens, num_output_tokens))
        return self._interval(self._token_parts(p, o), self.served.reading_s(self.concurrency, p + o / 2), level)

    def to_json(self) -> dict:
        """HELM's keys at prompt sizes that double, and under ``"fit"`` what it was predicted for."""
        served = self.served
        parts = {"architecture": served.architecture.to_dict(), "hardware": served.accelerator.name,
                 "software": served.known.software, "tensor_parallel_size": served.tensor_parallel_size,
                 "concurrency": self.concurrency}  # fmt: skip
        return entry_of(self, doubling_sizes(*self.prompt_range), parts, method=self.method)

    def _parts(self, num_prompt_tokens, num_output_tokens, extrapolate):
        """Seconds of each query's steps, and of what prompts add to them: its own, and others'."""
        p = self._checked_prompts(num_prompt_tokens, extrapolate).astype(float)
        p, o = np.broadcast_arrays(p, token_array("num_output_tokens", num_output_tokens).astype(float))
        first = self.served.step_s(self.concurrency - 1, p + o / 2, requests_per_step=1.0, num_prompt_tokens=p)
        return [one_s + (o - 1) * token_s for one_s, token_s in zip(first, self._token_parts(p, o), strict=True)]

    def _token_parts(self, num_prompt_tokens, num_output_tokens):
        """The same of one further token, in the mean."""
        p, o = (np.asarray(tokens, dtype=float) for tokens in (num_prompt_tokens, num_output_tokens))
        others_begun = (self.concurrency - 1) / o
        return self.served.step_s(self.concurrency, p + o / 2, requests_per_step=others_begun, num_prompt_tokens=p)

    def _interval(self, parts_s, least_s, level):
        """Bounds of sums of such parts, none of them below the least, unless the estimate is."""
        factors = [np.exp(self.served.half_width(quantity, level)) for quantity in ("steps", "prompts")]
        lower_s, upper_s = (
            sum(part_s * factor**sign for part_s, factor in zip(parts_s, factors, strict=True)) for sign in (-1, 1)
        )
        return plain(np.maximum(lower_s, np.minimum(least_s, sum(parts_s)))), plain(upper_s)


def predict_served(
    architecture: Architecture,
    *,
    hardware: str,
    software: str = "vllm",
    tensor_parallel_size: int | None = None,
    num_context_tokens: int | None = None,
    num_sequences: int = 1,
    num_cached_tokens: int | None = None,
    dtype: str | None = None,
) -> ServedModel:
    """Any architecture on a machine with an engine that served others, in bfloat16 or as its weights are stored.

    Parameters
    ----------
    architecture : Architecture
    hardware : str
        A row of the accelerators. Where the engine was measured on another only, its coefficients are taken there by
        the data sheets, with the error that this has between machines where it was.
    software : str
        The engine, with or without its version.
    tensor_parallel_size : int, optional
        Devices that share each layer; as few as have room where it is not given.
    num_context_tokens : int, optional
        Of one sequence, prompt and output together, the longest; 2048 where it is not given.
    num_sequences : int
        Whose states are to have room at once.
    num_cached_tokens : int, optional
        Of all sequences together, which are to have room; where it is not given, as if each were that long.
    dtype : {"bfloat16", "float8", "mxfp4"}, optional
        Of the weights (mxfp4: of experts); as the configuration stores them where it is not given, or, where it says
        nothing, as the one that was served, if there was one only.

    Raises
    ------
    ValueError
        No such engine, machine or data type; a query longer than the model's context; or devices that cannot share the
        model or have no room for it.

    Examples
    --------
    >>> from idealized_runtime import get_architecture
    >>> served = predict_served(get_architecture("llama-3.1-8b"), hardware="H100", software="vllm")
    >>> round(served.steps().fixed_s, 4)  # seconds a step
    0.0067
    """
    known, accelerator = get_known_stack(software), get_accelerator(hardware)
    for name in ("memory_bytes", "memory_bandwidth_bytes_per_s"):
        if getattr(accelerator, name) is None:
            raise ValueError(f"{accelerator.name} has no {name} in the table of accelerators")
    if accelerator.sources["memory_bandwidth_bytes_per_s"].startswith("measured"):
        raise ValueError(
            f"{known.software} is taken to machines with a data sheet only, and {accelerator.name} has none"
        )
    longest = architecture.max_position_embeddings
    if num_context_tokens is not None and num_context_tokens > longest:
        raise ValueError(
            f"{architecture.name} takes {longest} tokens of context (max_position_embeddings), prompt and output "
            f"together; got {num_context_tokens}"
        )
    architecture = _stored_as(architecture, dtype, known)
    weights, tokens = stored_format(architecture), num_cached_tokens
    if tokens is None:
        tokens = num_sequences * (num_context_tokens or min(2048, longest))
    if weights.is_quantised and "float8" not in accelerator.peak_flops_per_s:
        # Such weights are read as they are, and computed with in 16 bits.
        weights = replace(weights, is_quantised=False)
    size, room = _devices(architecture, accelerator, tensor_parallel_size, tokens, num_sequences)
    stack = known.stack.moved_to(accelerator, origin=get_accelerator(known.hardware))
    served = ServedModel(architecture, weights, accelerator, size, known, stack, room)
    return replace(served, caveats=tuple(_caveats(served)))


def predict_served_steps(architecture: Architecture, *, scheduler: Scheduler | None = None, **where) -> StepModel:
    """Step model of any architecture where it was not served: ``predict_served(architecture, **where).steps(...)``."""
    return predict_served(architecture, **where).steps(scheduler)


def predict_served_priced(
    architecture: Architecture,
    *,
    num_prompt_tokens: float,
    num_output_tokens: float,
    concurrency: int = 1,
    price_usd_per_hour: float | None = None,
    power_watts: float | None = None,
    **where,
) -> PricedModel:
    """The same on the terms that its queries are priced by.

    Parameters
    ----------
    architecture : Architecture
    num_prompt_tokens, num_output_tokens : float
        Mean sizes, at which watts are predicted.
    concurrency : int
        Queries at a time, which share the devices.
    price_usd_per_hour, power_watts : float, optional
        Of one device; its list price, and the predicted draw, where they are not given.
    **where
        As of :func:`predict_served`.
    """
    served = predict_served(architecture, num_sequences=concurrency, **where)
    model = PricedModel(
        architecture.name, served.runtimes(concurrency), served.tensor_parallel_size, architecture.num_params,
        served.accelerator.name, served.known.software, served.dtype, architecture=served.architecture,
        origin=served.origin, caveats=served.caveats, errors=_errors(served),
        predicted_watts=served.watts(concurrency, num_prompt_tokens, num_output_tokens),
    )  # fmt: skip
    return on_terms(model, price_usd_per_hour=price_usd_per_hour, power_watts=power_watts)


def served_table(
    architectures: Iterable[Architecture],
    all_hardware: Iterable[str],
    *,
    software: str,
    num_prompt_tokens: int,
    num_output_tokens: int,
    concurrency: int = 1,
    level: float = _LEVEL,
) -> pd.DataFrame:
    """Models on machines with an engine, on as few devices as hold them and so many queries at a time.

    Returns
    -------
    DataFrame, by model and hardware
        ``dtype, num_accelerators``; ``time_per_output_token_ms``, mean, ``_lower`` and ``_upper``;
        ``usd_per_million_output_tokens``, prompts included, missing without a price; ``joules_per_output_token``,
        missing without watts. Left out are models that a machine cannot hold.
    """
    p, o, rows = num_prompt_tokens, num_output_tokens, {}
    for architecture, hardware in product(architectures, all_hardware):
        try:
            model = predict_served_priced(
                architecture, hardware=hardware, software=software, num_prompt_tokens=p, num_output_tokens=o,
                concurrency=concurrency, num_context_tokens=p + o,
            )  # fmt: skip
        except ModelTooLargeError:
            continue
        runtimes, bounds = model.runtimes, model.runtimes.output_token_interval_s(p, o, level)
        device_s = runtimes.predict(p, o) * model.num_accelerators / concurrency / o
        price, power = model.price_usd_per_hour, model.power_watts
        row = {"dtype": model.dtype, "num_accelerators": model.num_accelerators}
        row |= {"time_per_output_token_ms": 1e3 * runtimes.output_token_s(p, o)}
        row |= {f"time_per_output_token_ms_{side}": 1e3 * bound for side, bound in zip(_SIDES, bounds, strict=True)}
        row["usd_per_million_output_tokens"] = (
            np.nan if price is None
            else 1e6 * dollar_cost_usd(device_s, num_accelerators=1, price_usd_per_hour=price.value)
        )  # fmt: skip
        row["joules_per_output_token"] = np.nan if power is None else device_s * power.value
        rows[architecture.name, model.hardware] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["model", "hardware"])


def _stored_as(architecture, dtype, known) -> Architecture:
    """The architecture with its weights in a data type."""
    options = dict(architecture.uncounted_options)
    if dtype is None:
        served = known.served.get(architecture.name, ())
        if options.get("quantization_config") or len(served) != 1:
            return architecture
        (dtype,) = served
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}{did_you_mean(dtype, DTYPES)}; got {dtype!r:.60}")
    if dtype == "mxfp4" and not architecture.num_experts:
        raise ValueError(f"mxfp4 stores experts in 4 bits, and {architecture.name} has none: give float8 or bfloat16")
    options.pop("quantization_config", None)
    if (config := DTYPES[dtype]) is not None:
        options["quantization_config"] = config
    return replace(architecture, uncounted_options=options)


def _devices(architecture, accelerator, size, num_tokens, num_sequences) -> tuple[int, int]:
    """Devices that share each layer, as asked for or as few as hold so many tokens beside weights and states; and room.

    Unlike Megatron, servers give each of more devices than there are key-value heads a copy of one.
    """
    a, groups = architecture, architecture.num_query_groups
    widths = [
        width
        for width in range(1, MAX_TENSOR_PARALLEL_SIZE + 1)
        if not (a.num_attention_heads % width or a.ffn_hidden_size % width or (groups % width and width % groups))
    ]
    if size is not None and size not in widths:
        raise ValueError(
            f"{a.name} has {a.num_attention_heads} heads, {groups} key-value heads and a width of {a.ffn_hidden_size}, "
            f"which {size} devices cannot share (tensor_parallel_size): allowed are {', '.join(map(str, widths))}"
        )
    for width in [width for width in widths if width in (1, 2, 4, 8)] if size is None else [size]:
        tokens = cache_tokens_left(
            a, accelerator.memory_bytes, dtype=STORED, tensor_parallel_size=width, num_sequences=num_sequences
        )
        if tokens >= num_tokens:
            return width, tokens
    states = f" and the states of {num_sequences} sequences" * (num_sequences > 1 and state_bytes(a, dtype=STORED) > 0)
    raise ModelTooLargeError(
        f"{a.name} does not fit {width} x {accelerator.name} of {accelerator.memory_bytes / 1e9:.4g} GB: beside its "
        f"weights{states} there is room for {tokens} tokens of cache, and {num_tokens} are asked for"
        + ("; pipeline stages were not measured. Weights of fewer bits may fit (dtype)" if size is None else "")
    )


def _errors(served) -> str:
    named = "; ".join(
        f"{name} {errors['median']:.1f} % in the median, 90 % below {errors['p90']:.1f} %"
        for name, errors in served.known.left_out_percent(served.accelerator).items()
    )
    where = f", taken {' and '.join(' to '.join(move) for move in served.known.moved_errors)}," * served.is_moved
    return f"Each served architecture predicted from the others{where} is off by: {named}."


def _caveats(served):
    """What the interval does not know of: where the model is of a kind, or a size, that none of the served ones is."""
    known, architecture, accelerator = served.known, served.architecture, served.accelerator
    if served.is_moved and (known.hardware, accelerator.name) not in known.moved_errors:
        yield (
            f"nothing was measured on {accelerator.name}: that it differs from {known.hardware} by more than its "
            "bandwidth and its peak rate" + ", such as links between devices" * (served.tensor_parallel_size > 1)
        )
    least, most = known.seen["num_params"]
    if not least <= architecture.num_params <= most:
        yield (
            f"{architecture.num_params / 1e9:.3g} B parameters; those that were served have {least / 1e9:.3g} to "
            f"{most / 1e9:.4g} B"
        )
    there = (ARCHITECTURES[name] for name in known.errors["steps"] if name in ARCHITECTURES)
    if new := sorted(set(layer_kinds(architecture)) - {kind for one in there for kind in layer_kinds(one)}):
        yield f"no model that was served on {known.hardware} has {' or '.join(new)}: its layers may take otherwise"
    if any(bits < 8 for bits in shares_by_bits(architecture, of_experts=False)):
        yield "weights of fewer than 8 bits outside of experts: no model with them was served"
    if stored_format(architecture).is_quantised and not served.weights.is_quantised:
        yield f"{accelerator.name} has no products of 8 bits: the time to make its weights 16 bits wide"
    yield f"other versions of the engine than {known.software}, which may be quicker"
    yield "what a server does beside its steps: receiving, waiting for the step that runs, sending"
