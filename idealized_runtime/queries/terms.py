"""Models on the terms that their queries are priced by: what they ran on, of how many accelerators, at what rates."""

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from idealized_runtime.architectures import Architecture, find_architecture, registry_name
from idealized_runtime.architectures.devices import num_accelerators_needed
from idealized_runtime.architectures.registry import by_helm_name
from idealized_runtime.checks import check_positive, did_you_mean
from idealized_runtime.fits import read_parameters
from idealized_runtime.fits.protocol import ModelOfRuntimes
from idealized_runtime.hardware.accelerators import find_accelerator, get_accelerator
from idealized_runtime.hardware.prices import DeviceRate, device_power, device_price
from idealized_runtime.measurements import published
from idealized_runtime.measurements.folders import find_logs
from idealized_runtime.measurements.published import PublishedDataMissingError
from idealized_runtime.measurements.shipped import SHIPPED_STACKS, ShippedModel, read_shipped, read_stack
from idealized_runtime.measurements.timed_models import TimedModel, fitted_models, read_timed_model
from idealized_runtime.queries.price import PricedQueries, price
from idealized_runtime.records.validity import SEVERE


@dataclass(frozen=True, eq=False)
class PricedModel:
    """A model with its runtimes and, as far as it is known, what those were timed on and what its queries cost.

    Parameters
    ----------
    name : str
    runtimes : ModelOfRuntimes
        Seconds of a query, or of a batch of them.
    num_accelerators : int or None
        Held while it answers.
    num_params : int or None
        All parameters, embeddings included.
    hardware, software, dtype : str
        As logs name them; empty where they are not known. Of a parameter file, the hardware is the folder of the logs.
    devices : str
        In words, what it was timed on and, where that differs, what it is priced as; see :func:`on_terms`.
    architecture : Architecture or None
    measured_watts : tuple of float
        Draws of one accelerator, as its log measured it; of a predicted model, as those of the others did.
    predicted_watts : DeviceRate or None
        Of one accelerator, where no log measured them.
    price_usd_per_hour, power_watts : DeviceRate or None
        What its queries are priced by; see :func:`on_terms`.
    origin : str
        In words, where the runtimes come from, if not from a fit of its log that is at hand.
    measured_on : str
        ISO date of the measurement; empty where it is not known.
    caveats : tuple of str
        What the intervals do not hold.
    errors : str
        In words, how far predictions like this one were off; empty of what was timed.
    """

    name: str
    runtimes: ModelOfRuntimes
    num_accelerators: int | None = None
    num_params: int | None = None
    hardware: str = ""
    software: str = ""
    dtype: str = ""
    devices: str = ""
    architecture: Architecture | None = None
    measured_watts: tuple[float, ...] = ()
    predicted_watts: DeviceRate | None = None
    price_usd_per_hour: DeviceRate | None = None
    power_watts: DeviceRate | None = None
    origin: str = ""
    measured_on: str = ""
    caveats: tuple[str, ...] = ()
    errors: str = ""

    def __post_init__(self):
        if self.num_accelerators is not None:
            check_positive(num_accelerators=self.num_accelerators)

    @property
    def batch_size(self) -> int:
        """Queries that are answered together."""
        return getattr(self.runtimes, "batch_size", None) or 1

    @property
    def queries(self) -> str:
        """How they come, in words."""
        if (said := getattr(self.runtimes, "queries", None)) is not None:
            return said
        return "one at a time (batch 1)" if self.batch_size == 1 else f"in batches of {self.batch_size}"

    @property
    def stack(self) -> str:
        """Software and data type that it was timed with, and when, in words."""
        dtype = "" if self.dtype in self.software else self.dtype
        dated = self.measured_on and f"measured {self.measured_on}"
        return ", ".join(part for part in (self.software, dtype, dated) if part)

    def conditions(self, name: str | None = None) -> str:
        """What its prices hold for, in one line: how queries come, on what, measured when, at which rates."""
        rates = ["no number of accelerators: give --num-accelerators"]
        if self.num_accelerators is not None:
            rates = [
                f"no {what} is known: give --{flag}"
                if rate is None
                else f"{rate.value:.4g} {unit} each ({rate.source})"
                for rate, unit, what, flag in (
                    (self.price_usd_per_hour, "USD an hour", "price", "price-usd-per-hour"),
                    (self.power_watts, "W", "power", "power-watts"),
                )
            ]
        said = (name or self.name, self.origin, self.queries, self.devices, self.stack)
        return "; ".join([", ".join(part for part in said if part), *rates])


def on_terms(
    model: PricedModel,
    *,
    hardware: str | None = None,
    num_accelerators: int | None = None,
    price_usd_per_hour: float | None = None,
    power_watts: float | None = None,
) -> PricedModel:
    """The model with what its queries are priced by: as given, else as its log and the accelerator's row have it.

    Parameters
    ----------
    model : PricedModel
    hardware : str, optional
        A row of the accelerators, whose price and power count; that of the log where it is not given. The model's own
        hardware stays what it was timed on, where that is known.
    num_accelerators : int, optional
    price_usd_per_hour, power_watts : float, optional
        Of one accelerator.

    Raises
    ------
    ValueError
        No accelerator has this name, or a price or a power is given and nothing says of how many accelerators.

    Warns
    -----
    UserWarning
        Runtimes were timed on other accelerators than those that are given: they stay as they are.
    """
    accelerator = find_accelerator(model.hardware) if hardware is None else get_accelerator(hardware)
    timed_hardware = getattr(find_accelerator(model.hardware), "name", model.hardware)
    priced_hardware = timed_hardware if hardware is None else accelerator.name
    number = model.num_accelerators if num_accelerators is None else num_accelerators
    devices = _devices(number, priced_hardware)
    is_other_number = model.num_accelerators not in (None, number)
    if is_other_number or timed_hardware not in ("", priced_hardware):
        timed_on = _devices(model.num_accelerators, timed_hardware)
        warnings.warn(f"{model.name}: runtimes were timed on {timed_on}; priced as {devices}", stacklevel=2)
        devices = f"timed on {timed_on}, priced as {devices}"
    model = replace(model, hardware=timed_hardware or priced_hardware, devices=devices)
    if number is not None:
        price = device_price(price_usd_per_hour, accelerator)
        power = device_power(power_watts, model.measured_watts, accelerator)
        if power_watts is None and model.predicted_watts is not None and timed_hardware == priced_hardware:
            power = model.predicted_watts
        return replace(model, num_accelerators=number, price_usd_per_hour=price, power_watts=power)
    if price_usd_per_hour is not None or power_watts is not None:
        raise ValueError(f"num_accelerators must be given: nothing says on how many {model.name} was timed")
    return model


def _devices(number, hardware) -> str:
    return f"{number or 'unknown'} x {hardware or 'unknown hardware'}"


def price_models(
    queries: pd.DataFrame, models: Mapping[str, PricedModel], *, level: float = 0.95, extrapolate: bool = False
) -> PricedQueries:
    """:func:`~idealized_runtime.queries.price.price` on the terms of the models, by the queries' ``model``."""
    terms = {
        name: {model: getattr(own, name) for model, own in models.items() if getattr(own, name) is not None} or None
        for name in ("num_accelerators", "price_usd_per_hour", "power_watts")
    }
    runtimes = {name: model.runtimes for name, model in models.items()}
    return price(queries, runtimes, **terms, level=level, extrapolate=extrapolate)


def read_priced_models(
    source: str | os.PathLike, models: Iterable[str] | None = None, *, accept: Iterable[str] = ()
) -> dict[str, PricedModel]:
    """Every model of a parameter file, which ends in ``.json``, or else of a folder of logs."""
    if Path(source).suffix == ".json":
        return priced_by_parameters(source, models)
    models = None if models is None else [registry_name(name) for name in models]
    return priced_by_timed(read_stack(source, models, accept=accept))


def shared_conditions(models: Iterable[PricedModel]) -> dict[str, str]:
    """What the prices of several models hold for, in words: ``hardware, stack, queries, origin, price``."""
    models = list(models)
    said = {name: [getattr(model, name) for model in models] for name in ("hardware", "stack", "queries", "origin")}
    rates = [model.price_usd_per_hour for model in models if model.price_usd_per_hour is not None]
    said["price"] = [f"{rate.value:.4g} USD an hour each ({rate.source})" for rate in rates]
    return {name: " or ".join(sorted({one for one in each if one})) for name, each in said.items()}


def priced_by_timed(timed: Mapping[str, TimedModel]) -> dict[str, PricedModel]:
    """The timed models whose settings of one query at a time can be fitted, by name."""
    return {model.name: priced_by_log(model.name, model.fit, model) for model in fitted_models(timed.values())}


def priced_by_log(
    name: str, runtimes: ModelOfRuntimes, timed: TimedModel, *, num_context_tokens: int | None = None
) -> PricedModel:
    """A model with what its log says it was timed on.

    It holds the devices that it ran on, or, where only slices of its layers were timed, as many as its weights and a
    cache of ``num_context_tokens`` need; of the longest query timed where that is not given.
    """
    return PricedModel(
        name,
        runtimes,
        _num_accelerators_of(timed, num_context_tokens),
        getattr(timed.architecture, "num_params", None),
        timed.hardware,
        timed.software,
        timed.dtype or "",
        architecture=timed.architecture,
        measured_watts=() if timed.mean_power_watts is None else (timed.mean_power_watts,),
        origin="by coefficients shipped with this package" if isinstance(timed, ShippedModel) else "",
        measured_on=timed.measured_on,
        caveats=("timed by slices of its layers, without messages between them",) if timed.is_sliced else (),
    )


def priced_by_parameters(path: str | os.PathLike, models: Iterable[str] | None = None) -> dict[str, PricedModel]:
    """Every model of a parameter file, such as ``processed_jsons/a100.json``, by its name there.

    What a model was timed on comes from the log that its parameters name as their source: from the stack that is
    shipped with the package, or from the log itself where it is at hand. Models of one source are one model.

    Parameters
    ----------
    path : path-like
        From the working directory or the repository root; or the name of a shipped stack, with or without its folder
        and ending, where there is no such file.
    models : iterable of str, optional
        Only these: names in the file, or of the registry.

    Raises
    ------
    ValueError
        The file is no parameter file, or lacks a model asked for; the message begins with the path.
    """
    places = Path(path), published.ROOT / path
    found = next((place for place in places if place.exists()), Path(path))
    if not found.exists() and found.stem in SHIPPED_STACKS:
        timed = by_helm_name(read_shipped(found.stem))
        return {name: priced_by_log(name, timed[name].fit, timed[name]) for name in select_names(path, timed, models)}
    priced, same, runtimes = {}, {}, read_parameters(found)
    for name in select_names(path, runtimes, models):
        try:
            model = _of_entry(name, runtimes[name])
        except ValueError as error:
            raise ValueError(f"{path}: {name}: {error}") from error
        # HELM has several names for one: its queries then share one error.
        source = str(getattr(model.runtimes, "sources", ()) or name)
        priced[name] = replace(model, runtimes=same.setdefault((registry_name(name), source), model.runtimes))
    return priced


def select_names(path: str | os.PathLike, names: Iterable[str], asked: Iterable[str] | None) -> list[str]:
    """The names that are asked for, by themselves or by those of the registry; all where nothing is asked for.

    Raises
    ------
    ValueError
        One is not there; the message has the nearest, and lists those that are.
    """
    names = list(names)
    if asked is None:
        return names
    asked = [asked] if isinstance(asked, str) else list(asked)
    registry_names = {name: registry_name(name) for name in names}
    known = {*registry_names, *registry_names.values()}
    if missing := [name for name in asked if name not in known]:
        hint = did_you_mean(missing[0], known)
        raise ValueError(f"{path}: no model {', '.join(missing)}{hint}; there are: {', '.join(sorted(known))}")
    return [name for name in names if name in asked or registry_names[name] in asked]


def _num_accelerators_of(timed, num_context_tokens) -> int:
    number = timed.tensor_parallel_size * timed.pipeline_parallel_size
    if timed.architecture is None:
        return number
    number = round(timed.slices * number)
    memory_bytes = getattr(find_accelerator(timed.hardware), "memory_bytes", None)
    if not timed.is_sliced or memory_bytes is None:
        return number
    needed = num_accelerators_needed(
        timed.architecture, memory_bytes, num_context_tokens=num_context_tokens or timed.longest_context,
        dtype=timed.dtype or "float16",
    )  # fmt: skip
    return max(number, needed)


def _of_entry(name, runtimes) -> PricedModel:
    row, sources = find_architecture(name), getattr(runtimes, "sources", ())
    bare = PricedModel(name, runtimes, num_params=getattr(row, "num_params", None), architecture=row)
    if not sources or not {"file", "sha256"} <= sources[0].keys():
        return bare
    log = Path(sources[0]["file"])
    folder = log.parent.name
    shipped = read_shipped(folder).values() if folder in SHIPPED_STACKS else ()
    timed = next((model for model in shipped if model.source["sha256"] == sources[0]["sha256"]), None)
    if timed is None:
        try:
            (path,) = find_logs(folder, [log.stem])
        except (PublishedDataMissingError, ValueError):
            return replace(bare, hardware=folder)
        # What its parameters were fitted to was accepted then.
        timed = read_timed_model(path, accept=SEVERE)
    if runtimes.batch_size is None:
        sizes = [1] if timed.runtimes is None else timed.runtimes["batch_size"].unique()
        if len(sizes) > 1:
            found = ", ".join(map(str, sizes))
            raise ValueError(
                f"its log holds batches of {found} queries, and its parameters do not state fit.batch_size"
            )
        runtimes = replace(runtimes, batch_size=int(sizes[0]))
    # The registry counts parameters without what a run padded.
    known = {} if row is None else {"architecture": row, "num_params": row.num_params}
    return replace(priced_by_log(name, runtimes, timed), hardware=folder, origin="", **known)
