"""Queries to new models answered: on as few devices as hold them, with cost where a price is known."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from idealized_runtime.architectures import Architecture
from idealized_runtime.architectures.devices import parallelism_needed, sequence_bytes
from idealized_runtime.hardware.accelerators import Accelerator, find_accelerator
from idealized_runtime.hardware.prices import dollar_cost_usd
from idealized_runtime.measurements.timed_models import TimedModel
from idealized_runtime.prediction.predicted import PredictedRuntime
from idealized_runtime.prediction.predictor import MessagesNotTimedError, RuntimePredictor


def query_caveats(
    predicted: PredictedRuntime, models: Iterable[TimedModel], accelerator: Accelerator | None, p: int, o: int
) -> Iterator[str]:
    """What the interval of one query does not know of: sizes that no log holds, and memory that no device has."""
    architecture, placement = predicted.architecture, predicted.placement
    low, high = predicted.prompt_range
    if predicted.is_extrapolated(p):
        yield f"prompts of {p} tokens were not timed, only of {low} to {high}"
    longest = max((model.runtimes["num_prompt_tokens"] + model.runtimes["num_output_tokens"]).max() for model in models)
    if p + o > longest:
        yield f"contexts of {p + o} tokens were not timed, only of up to {longest}"
    if accelerator is None or accelerator.memory_bytes is None:
        return
    num_devices = placement.tensor_parallel_size * placement.pipeline_parallel_size
    needed = sequence_bytes(architecture, num_context_tokens=p + o, dtype=placement.dtype) / num_devices
    if needed > accelerator.memory_bytes:
        held = accelerator.memory_bytes / 1e9
        yield f"weights and cache take {needed / 1e9:.3g} GB a device, which has {held:.3g} GB"


def prediction_table(
    predictor: RuntimePredictor,
    architectures: Iterable[Architecture],
    *,
    num_prompt_tokens: int,
    num_output_tokens: int,
    level: float = 0.95,
) -> pd.DataFrame:
    """One query to each of several models.

    Returns
    -------
    DataFrame, by model
        ``params_billion, num_accelerators, prompt_encoding_time_ms, time_per_output_token_ms, runtime_s, lower_s,
        upper_s, cost_usd_per_1000_queries`` (missing where no price is known), ``num_caveats``. Left out are models
        that need several devices where no message between devices was timed.

    Raises
    ------
    MessagesNotTimedError
        Every model is left out.
    """
    accelerator = find_accelerator(predictor.models[0].hardware)
    query = num_prompt_tokens, num_output_tokens
    rows, refusals = {}, []
    for architecture in architectures:
        try:
            rows[architecture.name] = _row(predictor, architecture, accelerator, *query, level)
        except MessagesNotTimedError as error:
            refusals.append(error)
    if refusals and not rows:
        raise refusals[0]
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def _row(predictor, architecture, accelerator, p, o, level) -> dict:
    dtype = predictor.models[0].dtype
    memory_bytes = getattr(accelerator, "memory_bytes", None)
    width, depth = parallelism_needed(architecture, memory_bytes, num_context_tokens=p + o, dtype=dtype)
    predicted = predictor.predict_runtime(architecture, tensor_parallel_size=width, pipeline_parallel_size=depth)
    runtime_s, (lower_s, upper_s) = predicted.predict(p, o), predicted.predict_interval(p, o, level=level)
    price = getattr(accelerator, "price_usd_per_hour", None)
    cost_usd = np.nan
    if price is not None:
        cost_usd = dollar_cost_usd(runtime_s, num_accelerators=width * depth, price_usd_per_hour=price)
    return {
        "params_billion": 1e-9 * architecture.num_params,
        "num_accelerators": width * depth,
        "prompt_encoding_time_ms": 1e3 * predicted.prompt_encoding_time_s(p),
        "time_per_output_token_ms": 1e3 * predicted.time_per_output_token_at(p + o / 2),
        "runtime_s": runtime_s,
        "lower_s": lower_s,
        "upper_s": upper_s,
        "cost_usd_per_1000_queries": 1000 * cost_usd,
        "num_caveats": len(predicted.caveats),
    }
