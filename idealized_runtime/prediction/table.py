"""Queries to new models priced: on as few devices as hold them, with cost where a price is known."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from idealized_runtime.architectures import Architecture
from idealized_runtime.hardware.prices import device_price
from idealized_runtime.prediction.predictor import MessagesNotTimedError, RuntimePredictor, predict_model
from idealized_runtime.queries.price import price


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
        ``params_billion, num_accelerators, prompt_encoding_time_ms, time_per_output_token_ms, runtime_s,
        runtime_s_lower, runtime_s_upper`` (missing where the stack knows no interval), ``cost_usd_per_1000_queries``
        (missing where no price is known), ``num_caveats``. Left out are models
        that need several devices where no message between devices was timed.

    Raises
    ------
    MessagesNotTimedError
        Every model is left out.
    """
    predictions, refusals = {}, []
    for architecture in architectures:
        try:
            predictions[architecture.name] = predict_model(
                architecture, predictor, num_context_tokens=num_prompt_tokens + num_output_tokens
            )
        except MessagesNotTimedError as error:
            refusals.append(error)
    if refusals and not predictions:
        raise refusals[0]
    sizes = {"num_prompt_tokens": num_prompt_tokens, "num_output_tokens": num_output_tokens}
    numbers = {name: predicted.placement.num_accelerators for name, predicted in predictions.items()}
    usd = device_price(None, predictor.accelerator)
    queries = pd.DataFrame({"model": list(predictions), **sizes}, index=pd.Index(list(predictions), name="model"))
    priced = price(queries, predictions, num_accelerators=numbers, price_usd_per_hour=usd, level=level).table
    middle = num_prompt_tokens + num_output_tokens / 2
    rows = {
        name: {
            "params_billion": 1e-9 * predicted.architecture.num_params,
            "num_accelerators": numbers[name],
            "prompt_encoding_time_ms": 1e3 * predicted.prompt_encoding_time_s(num_prompt_tokens),
            "time_per_output_token_ms": 1e3 * predicted.output_token_s(middle),
        }
        for name, predicted in predictions.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index").join(
        priced[["runtime_s", "runtime_s_lower", "runtime_s_upper"]]
    )
    table["cost_usd_per_1000_queries"] = 1000 * priced["cost_usd"] if usd else np.nan
    table["num_caveats"] = [len(predicted.caveats) for predicted in predictions.values()]
    return table.rename_axis("model")
