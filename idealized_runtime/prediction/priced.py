"""Models that nobody timed, on the terms that their queries are priced by."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from idealized_runtime.architectures import ARCHITECTURES, Architecture
from idealized_runtime.hardware.accelerators import get_accelerator
from idealized_runtime.prediction.predictor import MessagesNotTimedError, RuntimePredictor, predict_model
from idealized_runtime.queries.terms import PricedModel, on_terms, price_models, priced_by_log


def predict_priced(
    architecture: Architecture,
    predictor: RuntimePredictor,
    *,
    hardware: str | None = None,
    price_usd_per_hour: float | None = None,
    power_watts: float | None = None,
    **options,
) -> PricedModel:
    """A predicted model: runtimes, devices, price and watts, with what is not known of them.

    Parameters
    ----------
    architecture : Architecture
    predictor : RuntimePredictor
    hardware, price_usd_per_hour, power_watts
        As in :func:`~idealized_runtime.queries.terms.on_terms`.
    **options
        ``num_context_tokens`` and the sizes of :func:`~idealized_runtime.prediction.predictor.predict_model`.

    Raises
    ------
    ValueError
        As ``predict_model`` and ``on_terms``.
    """
    accelerator = predictor.accelerator if hardware is None else get_accelerator(hardware)
    runtimes = predict_model(architecture, predictor, accelerator=accelerator, **options)
    stack, dates = predictor.models[0], {model.measured_on for model in predictor.models} - {""}
    model = PricedModel(
        architecture.name, runtimes, runtimes.placement.num_accelerators, architecture.num_params,
        stack.hardware, stack.software, stack.dtype, architecture=architecture,
        measured_watts=tuple(one.mean_power_watts for one in predictor.models if one.mean_power_watts is not None),
        origin="predicted from the logs of other models" if predictor.shipped is None
        else "predicted from coefficients shipped with this package",
        measured_on=max(dates, default=""),
        caveats=(*runtimes.caveats, *runtimes.context_caveats),
        errors=predictor.error_sentence,
    )  # fmt: skip
    return on_terms(model, hardware=hardware, price_usd_per_hour=price_usd_per_hour, power_watts=power_watts)


def priced_on_stack(
    architecture: Architecture,
    predictor: RuntimePredictor,
    *,
    num_context_tokens: int,
    num_accelerators: int | None = None,
    price_usd_per_hour: float | None = None,
    power_watts: float | None = None,
) -> PricedModel:
    """A model of a stack by its own log, where it was timed on as many devices as are asked for; else as predicted.

    Parameters
    ----------
    architecture : Architecture
    predictor : RuntimePredictor
    num_context_tokens : int
        Of the longest query, which the devices of a predicted model are to hold.
    num_accelerators : int, optional
        As timed, or as few as hold a predicted model, where it is not given.
    price_usd_per_hour, power_watts
        As in :func:`~idealized_runtime.queries.terms.on_terms`.

    Raises
    ------
    ValueError
        As :func:`predict_priced`.
    """
    rates = {"price_usd_per_hour": price_usd_per_hour, "power_watts": power_watts}
    for timed in predictor.models:
        # A configuration of somebody's own may have the name of a model that was timed.
        if timed.name == architecture.name and ARCHITECTURES.get(timed.name) == architecture:
            model = priced_by_log(timed.name, timed.fit, timed)
            if num_accelerators in (None, model.num_accelerators):
                return on_terms(model, **rates)
    return predict_priced(
        architecture, predictor, num_context_tokens=num_context_tokens, num_accelerators=num_accelerators, **rates
    )


def prediction_table(
    predictor: RuntimePredictor,
    architectures: Iterable[Architecture],
    *,
    num_prompt_tokens: int,
    num_output_tokens: int,
    level: float = 0.95,
) -> pd.DataFrame:
    """One query to each of several models, on as few devices as hold them.

    Returns
    -------
    DataFrame, by model
        ``params_billion, num_accelerators, prompt_encoding_time_ms, time_per_output_token_ms, runtime_s,
        runtime_s_lower, runtime_s_upper`` (missing where the stack knows no interval), ``cost_usd_per_1000_queries``
        (missing where no price is known), ``num_caveats``. Left out are models that need several devices where no
        message between devices was timed.

    Raises
    ------
    MessagesNotTimedError
        Every model is left out.
    """
    models, refusals = {}, []
    for architecture in architectures:
        try:
            models[architecture.name] = predict_priced(
                architecture, predictor, num_context_tokens=num_prompt_tokens + num_output_tokens
            )
        except MessagesNotTimedError as error:
            refusals.append(error)
    if refusals and not models:
        raise refusals[0]
    sizes = {"num_prompt_tokens": num_prompt_tokens, "num_output_tokens": num_output_tokens}
    queries = pd.DataFrame({"model": list(models), **sizes}, index=pd.Index(list(models), name="model"))
    priced = price_models(queries, models, level=level).table
    middle = num_prompt_tokens + num_output_tokens / 2
    rows = {
        name: {
            "params_billion": 1e-9 * model.num_params,
            "num_accelerators": model.num_accelerators,
            "prompt_encoding_time_ms": 1e3 * model.runtimes.prompt_encoding_time_s(num_prompt_tokens),
            "time_per_output_token_ms": 1e3 * model.runtimes.output_token_s(middle),
        }
        for name, model in models.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index").join(
        priced[["runtime_s", "runtime_s_lower", "runtime_s_upper"]]
    )
    table["cost_usd_per_1000_queries"] = 1000 * priced["cost_usd"] if "cost_usd" in priced else np.nan
    table["num_caveats"] = [len(model.runtimes.caveats) for model in models.values()]
    return table.rename_axis("model")
