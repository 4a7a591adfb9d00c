"""What may serve a demand: models with measured, fitted or predicted step times, on devices with a price."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product

import pandas as pd

from idealized_runtime.architectures import Architecture
from idealized_runtime.architectures.devices import cache_tokens_left
from idealized_runtime.checks import did_you_mean
from idealized_runtime.hardware.accelerators import find_accelerator, get_accelerator
from idealized_runtime.hardware.prices import device_power, device_price
from idealized_runtime.prediction.predictor import RuntimePredictor
from idealized_runtime.prediction.priced import predict_priced
from idealized_runtime.serving.demand import Demand
from idealized_runtime.serving.evidence import expert_share_of, points_to_fit
from idealized_runtime.serving.fitting import PublishedPoints, StepsNotFittedError, fit_steps
from idealized_runtime.serving.known_stacks import get_known_stack
from idealized_runtime.serving.planning import Candidate, Rejection
from idealized_runtime.serving.predicted import predict_steps
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.served import predict_served
from idealized_runtime.serving.steps import StepModel, read_steps

# Of the shortest time per token that points have, what a step must take by itself: it reads the weights.
_LEAST_FIXED_SHARE = 0.01
_NO_SERVER = "what a server does beside the passes of its model (scheduling, sampling, sending): no log is of one"
# What tells the servers of a table of points apart.
_SERVER = ("model", "hardware", "software", "num_accelerators", "tensor_parallel_size", "dtype")


def candidate_of(
    model: str,
    steps: StepModel,
    *,
    hardware: str | None = None,
    num_accelerators: int | None = None,
    price_usd_per_hour: float | None = None,
    power_watts: float | None = None,
    measured_watts: Iterable[float] = (),
    caveats: tuple[str, ...] = (),
) -> Candidate:
    """A step model with the price and the watts of what it ran on; as given, else of its row of the accelerators.

    Raises
    ------
    ValueError
        No accelerator has this name.
    """
    accelerator = find_accelerator(steps.hardware) if hardware is None else get_accelerator(hardware)
    name = steps.hardware if accelerator is None else accelerator.name
    if hardware is not None and steps.hardware and find_accelerator(steps.hardware) is not accelerator:
        caveats = (*caveats, f"its steps were timed on {steps.hardware}, and are priced as {name}")
    if steps.covariance is None:
        caveats = (*caveats, "the errors of its step times: none is known")
    return Candidate(
        model, replace(steps, hardware=name), num_accelerators or steps.num_accelerators or 1,
        device_price(price_usd_per_hour, accelerator), device_power(power_watts, measured_watts, accelerator), caveats,
    )  # fmt: skip


def candidates_of_parameters(path: str | os.PathLike, models: Sequence[str] | None = None, **terms) -> list[Candidate]:
    """Every model of a parameter file that has steps, or those that are named.

    Parameters
    ----------
    path : path-like
    models : sequence of str, optional
    **terms
        As of :func:`candidate_of`.

    Raises
    ------
    ValueError
        The file has no steps, or not those of a model that is named.
    """
    known = read_steps(path)
    if absent := [name for name in models or () if name not in known]:
        raise ValueError(
            f"{path}: no steps of {', '.join(absent)}{did_you_mean(absent[0], known)}; there are: {', '.join(known)}"
        )
    return [candidate_of(name, known[name], **terms) for name in models or known]


def candidates_of_points(points: pd.DataFrame, *, name: str = "points", scheduler: Scheduler, **terms) -> list:
    """A candidate for each server of a table of points (TTFT and TPOT at concurrencies), its steps fitted to them.

    Parameters
    ----------
    points : DataFrame
        A point table.
    name : str
        Of the table, for messages.
    scheduler : Scheduler
        Of the servers: points do not tell it.
    **terms
        As of :func:`candidate_of`.

    Returns
    -------
    list of Candidate and Rejection
        The latter where the points of a server do not tell its steps.
    """
    keys = [key for key in _SERVER if key in points]
    found = []
    for values, group in points.groupby(keys, dropna=False, sort=False) if keys else [((), points)]:
        known = {key: value for key, value in zip(keys, values, strict=True) if not pd.isna(value)}
        number = known.get("num_accelerators", known.get("tensor_parallel_size"))
        number = None if number is None else int(number)
        words = {key: str(known.get(key, "")) for key in ("hardware", "software")}
        model, share = expert_share_of(str(known.get("model", name)))
        try:
            points_of_it = points_to_fit(group.reset_index(drop=True), name)
            steps = fit_steps(
                [PublishedPoints(points_of_it, scheduler)], expert_share=share, num_accelerators=number, **words
            )  # fmt: skip
            if steps.fixed_s < _LEAST_FIXED_SHARE * points_of_it["time_per_output_token_s"].min():
                raise StepsNotFittedError(
                    f"its {len(points_of_it)} points, of {_span(points_of_it)} at once, leave no time for a step by "
                    "itself: points of fewer sequences tell it"
                )
        except (StepsNotFittedError, ValueError) as error:
            unfitted = StepModel(1.0, 0.0, 0.0, 0.0, num_accelerators=number, **words)
            found.append(Rejection(Candidate(model, unfitted), str(error)))
        else:
            caveat = f"steps of other batches than its points have, of {_span(points_of_it)} at once"
            found.append(candidate_of(model, steps, caveats=(caveat,), **terms))
    return found


def _span(points) -> str:
    """Between which concurrencies points lie, in words."""
    least, most = points["concurrency"].min(), points["concurrency"].max()
    return f"{least:g} to {most:g} sequences"


def predicted_candidates(
    architecture: Architecture,
    predictor: RuntimePredictor,
    *,
    longest: int,
    all_num_accelerators: Sequence[int | None] = (None,),
    all_max_num_seqs: Sequence[int] = (256,),
    scheduler: Scheduler | None = None,
    hardware: str | None = None,
    **terms,
) -> list:
    """A model on devices whose software was timed with other models: one for each number of devices and batch limit.

    Parameters
    ----------
    architecture : Architecture
    predictor : RuntimePredictor
    longest : int
        Tokens of the longest request, which the devices are to hold beside the weights.
    all_num_accelerators : sequence of int or None
        None: as few as hold the model and that request.
    all_max_num_seqs : sequence of int
    scheduler : Scheduler, optional
        Its other rules.
    hardware : str, optional
        As of :func:`~idealized_runtime.prediction.priced.predict_priced`.
    **terms
        ``price_usd_per_hour, power_watts``.

    Returns
    -------
    list of Candidate and Rejection
        The latter where the model does not fit, or nothing tells what it takes there.
    """
    scheduler, found = scheduler or Scheduler(), []
    for number, limit in product(all_num_accelerators, all_max_num_seqs):
        rules, accelerator = replace(scheduler, max_num_seqs=limit), predictor.accelerator
        accelerator = accelerator if hardware is None else get_accelerator(hardware)
        name = predictor.models[0].hardware if accelerator is None else accelerator.name
        try:
            priced, tokens = _with_room(architecture, predictor, accelerator, number, longest, limit, terms)
            placement = priced.runtimes.placement
            if rules.cache_tokens is None:
                rules = replace(rules, cache_tokens=tokens)
            steps = predict_steps(priced.runtimes, rules, hardware=name, software=priced.software)
        except ValueError as error:
            unknown = StepModel(1.0, 0.0, 0.0, 0.0, hardware=name, scheduler=rules, origin="predicted")
            found.append(Rejection(Candidate(architecture.name, unknown, number), str(error)))
        else:
            caveats = (*priced.caveats, _NO_SERVER)
            if accelerator is not predictor.accelerator:
                caveats += (f"its steps are those of {predictor.models[0].hardware}, and are priced as {name}",)
            if (stages := placement.pipeline_parallel_size) > 1:
                caveats += (f"that {stages} stages of a pipeline may share several steps: one is predicted at a time",)
            found.append(
                Candidate(
                    architecture.name, steps, price_usd_per_hour=priced.price_usd_per_hour,
                    power_watts=priced.power_watts, caveats=caveats,
                )
            )  # fmt: skip
    return found


def served_candidates(
    architecture: Architecture,
    *,
    hardware: str,
    software: str,
    demand: Demand,
    dtype: str | None = None,
    all_num_accelerators: Sequence[int | None] = (None,),
    all_max_num_seqs: Sequence[int] = (256,),
    scheduler: Scheduler | None = None,
    price_usd_per_hour: float | None = None,
    power_watts: float | None = None,
) -> list:
    """A model on a machine with an engine that served others: one for each number of devices and batch limit.

    Parameters
    ----------
    architecture : Architecture
    hardware, software, dtype : str
        As of :func:`~idealized_runtime.serving.served.predict_served`.
    demand : Demand
        Whose longest request the devices are to hold, and at whose mean sizes watts are predicted.
    all_num_accelerators, all_max_num_seqs, scheduler
        As of :func:`predicted_candidates`.
    price_usd_per_hour, power_watts : float, optional
        Of one device.

    Returns
    -------
    list of Candidate and Rejection
        The latter where the devices cannot share the model, or do not hold it.
    """
    known, accelerator = get_known_stack(software), get_accelerator(hardware)
    scheduler, found, longest = scheduler or Scheduler(), [], demand.longest + 1
    p, o = demand.mean_prompt_tokens, demand.mean_output_tokens
    for number, limit in product(all_num_accelerators, all_max_num_seqs):
        rules = replace(scheduler, max_num_seqs=limit)
        try:
            served = predict_served(
                architecture, hardware=hardware, software=software, dtype=dtype, tensor_parallel_size=number,
                num_context_tokens=longest, num_sequences=limit, num_cached_tokens=longest,
            )  # fmt: skip
        except ValueError as error:
            unknown = StepModel(
                1.0, 0.0, 0.0, 0.0, hardware=accelerator.name, software=known.software, scheduler=rules,
                origin="predicted",
            )  # fmt: skip
            found.append(Rejection(Candidate(architecture.name, unknown, number), str(error)))
            continue
        beyond = served.extrapolations(concurrency=limit, num_prompt_tokens=p, num_context_tokens=p + o / 2)
        watts = served.watts((1, limit), p, o) if power_watts is None else device_power(power_watts, (), None)
        price = device_price(price_usd_per_hour, accelerator)
        found.append(
            Candidate(
                architecture.name, served.steps(rules), price_usd_per_hour=price, power_watts=watts,
                caveats=(*beyond, *served.caveats),
            )
        )  # fmt: skip
    return found


def _with_room(architecture, predictor, accelerator, number, longest, num_sequences, terms) -> tuple:
    """A predicted model on so many devices, or on the fewest that serve it, and the tokens that their cache holds
    beside the states of so many sequences.

    A model that its devices just hold may leave a server no room for the longest request: then on twice as many.
    """
    memory_bytes = getattr(accelerator, "memory_bytes", None)
    is_chosen = number is None
    while True:
        priced = predict_priced(
            architecture, predictor, num_context_tokens=longest, num_accelerators=number,
            hardware=getattr(accelerator, "name", None), **terms,
        )  # fmt: skip
        placement = priced.runtimes.placement
        if memory_bytes is None:
            return priced, None
        tokens = cache_tokens_left(
            architecture, memory_bytes, dtype=placement.memory_dtype, num_sequences=num_sequences,
            tensor_parallel_size=placement.tensor_parallel_size,
            pipeline_parallel_size=placement.pipeline_parallel_size,
        )  # fmt: skip
        if tokens >= longest:
            return priced, tokens
        if not is_chosen:
            raise ValueError(
                f"beside its weights there is room for {tokens} tokens of cache, and the longest request has {longest}"
            )
        number = 2 * placement.num_accelerators
