"""Models that answer queries, with what they ran on: all that a folder of logs or a parameter file says of both."""

import difflib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from idealized_runtime.architectures import Architecture, find_architecture, registry_name
from idealized_runtime.architectures.devices import num_accelerators_needed
from idealized_runtime.checks import check_positive
from idealized_runtime.fits import read_parameters
from idealized_runtime.fits.protocol import ModelOfRuntimes
from idealized_runtime.hardware.accelerators import find_accelerator, get_accelerator
from idealized_runtime.hardware.prices import DeviceRate, device_power, device_price
from idealized_runtime.measurements.folders import find_logs
from idealized_runtime.measurements.published import PublishedDataMissingError
from idealized_runtime.measurements.timed_models import TimedModel, fitted_models, read_timed_model, read_timed_models
from idealized_runtime.queries.price import PricedQueries, price

# Of the published logs, as their printed arguments have it: they need not be at hand. A third of TNLG's layers were
# timed on 8 A100s and on 16 V100s.
_PUBLISHED_STACK = {"software": "Megatron-LM 2022", "dtype": "float16"}
_PUBLISHED_NUM_ACCELERATORS = {
    "a100": {
        "ada": 1, "anthropic-v4-s3": 4, "bloom": 8, "davinci": 8, "gpt-j": 1, "gpt-neox-20b": 1, "gpt2-9.9b": 1,
        "j1-grande": 1, "j1-jumbo": 8, "j1-large": 1, "opt-66b": 4, "tnlg-v2": 24, "yalm": 4,
    },
    "v100": {
        "ada": 1, "anthropic-v4-s3": 4, "bloom": 16, "davinci": 16, "gpt-j": 1, "gpt-neox-20b": 2, "j1-grande": 2,
        "j1-jumbo": 16, "j1-large": 1, "tnlg-v2": 48, "yalm": 8,
    },
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model with its runtimes, and what those were timed on, as far as it is known.

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
    price_usd_per_hour, power_watts : DeviceRate or None
        What its queries are priced by; see :func:`on_terms`.
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
    price_usd_per_hour: DeviceRate | None = None
    power_watts: DeviceRate | None = None

    def __post_init__(self):
        if self.num_accelerators is not None:
            check_positive(num_accelerators=self.num_accelerators)

    @property
    def batch_size(self) -> int:
        """Queries that are answered together."""
        return getattr(self.runtimes, "batch_size", None) or 1


def on_terms(
    model: ServedModel,
    *,
    hardware: str | None = None,
    num_accelerators: int | None = None,
    price_usd_per_hour: float | None = None,
    power_watts: float | None = None,
) -> ServedModel:
    """The model with what its queries are priced by: as given, else as its log and the accelerator's row have it.

    Parameters
    ----------
    model : ServedModel
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
        price, power = (
            device_price(price_usd_per_hour, accelerator),
            device_power(power_watts, model.measured_watts, accelerator),
        )
        return replace(model, num_accelerators=number, price_usd_per_hour=price, power_watts=power)
    if price_usd_per_hour is not None or power_watts is not None:
        raise ValueError(f"num_accelerators must be given: nothing says on how many {model.name} was timed")
    return model


def _devices(number, hardware) -> str:
    return f"{number or 'unknown'} x {hardware or 'unknown hardware'}"


def price_served(
    queries: pd.DataFrame, models: Mapping[str, ServedModel], *, level: float = 0.95, extrapolate: bool = False
) -> PricedQueries:
    """:func:`~idealized_runtime.queries.price.price` on the terms of the models, by the queries' ``model``."""
    terms = {
        name: {model: getattr(own, name) for model, own in models.items() if getattr(own, name) is not None} or None
        for name in ("num_accelerators", "price_usd_per_hour", "power_watts")
    }
    runtimes = {name: model.runtimes for name, model in models.items()}
    return price(queries, runtimes, **terms, level=level, extrapolate=extrapolate)


def read_served(source, models: Iterable[str] | None = None) -> dict[str, ServedModel]:
    """Every model of a parameter file, which ends in ``.json``, or else of a folder of logs."""
    if Path(source).suffix == ".json":
        return served_by_parameters(source, models)
    return served_by_logs(source, models)


def served_by_logs(
    name_or_path, models: Iterable[str] | None = None, *, software: str | None = None
) -> dict[str, ServedModel]:
    """Every model timed with one software stack, one query at a time, by name.

    Parameters, errors and warnings are those of
    :func:`~idealized_runtime.measurements.timed_models.read_timed_models`; models may go by HELM's names, too.
    """
    if models is not None:
        models = [registry_name(name) for name in models]
    return served_by_timed(read_timed_models(name_or_path, models, software=software))


def served_by_timed(timed: Mapping[str, TimedModel]) -> dict[str, ServedModel]:
    """The timed models whose settings of one query at a time can be fitted, by name."""
    return {model.name: _of_log(model.name, model.fit, model) for model in fitted_models(timed.values())}


def served_by_parameters(path, models: Iterable[str] | None = None) -> dict[str, ServedModel]:
    """Every model of a parameter file, such as ``processed_jsons/a100.json``, by its name there.

    What a model was timed on comes from the log that its parameters name as their source: from the log itself where it
    is at hand, or for the published ones from their printed arguments.

    Parameters
    ----------
    path : path-like
    models : iterable of str, optional
        Only these: names in the file, or of the registry.

    Raises
    ------
    ValueError
        The file is no parameter file, or lacks a model asked for; the message begins with the path.
    """
    served = {}
    runtimes = read_parameters(path)
    for name in select_names(path, runtimes, models):
        try:
            served[name] = _of_entry(name, runtimes[name])
        except ValueError as error:
            raise ValueError(f"{path}: {name}: {error}") from error
    return served


def select_names(path, names: Iterable[str], asked: Iterable[str] | None) -> list[str]:
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
        near = difflib.get_close_matches(missing[0], known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"{path}: no model {', '.join(missing)}{hint}; there are: {', '.join(sorted(known))}")
    return [name for name in names if name in asked or registry_names[name] in asked]


def num_accelerators_of(timed: TimedModel, num_context_tokens: int | None = None) -> int:
    """Devices that hold a timed model: those it ran on, or more where only slices of its layers were timed there.

    Parameters
    ----------
    timed : TimedModel
    num_context_tokens : int, optional
        Length of the sequence whose cache they hold; the longest timed where it is not given.
    """
    number = timed.tensor_parallel_size * timed.pipeline_parallel_size
    if timed.architecture is None:
        return number
    number = round(timed.slices * number)
    memory_bytes = getattr(find_accelerator(timed.hardware), "memory_bytes", None)
    if not timed.runtimes["is_extrapolated"].any() or memory_bytes is None:
        return number
    sizes = timed.runtimes["num_prompt_tokens"] + timed.runtimes["num_output_tokens"]
    context = int(sizes.max()) if num_context_tokens is None else num_context_tokens
    needed = num_accelerators_needed(
        timed.architecture, memory_bytes, num_context_tokens=context, dtype=timed.dtype or "float16"
    )
    return max(number, needed)


def _of_log(name, runtimes, timed: TimedModel) -> ServedModel:
    return ServedModel(
        name,
        runtimes,
        num_accelerators_of(timed),
        getattr(timed.architecture, "num_params", None),
        timed.hardware,
        timed.software,
        timed.dtype or "",
        architecture=timed.architecture,
        measured_watts=() if timed.mean_power_watts is None else (timed.mean_power_watts,),
    )


def _of_entry(name, runtimes) -> ServedModel:
    row, sources = find_architecture(name), getattr(runtimes, "sources", ())
    bare = ServedModel(name, runtimes, num_params=getattr(row, "num_params", None), architecture=row)
    if not sources:
        return bare
    log = Path(sources[0]["file"])
    folder = log.parent.name
    published = _PUBLISHED_NUM_ACCELERATORS.get(folder, {})
    if row is not None and row.name in published and row.published_log == log.stem:
        return replace(bare, num_accelerators=published[row.name], hardware=folder, **_PUBLISHED_STACK)
    try:
        (path,) = find_logs(folder, [log.stem])
    except (PublishedDataMissingError, ValueError):
        return replace(bare, hardware=folder)
    timed = read_timed_model(path)
    if runtimes.batch_size is None:
        sizes = timed.runtimes["batch_size"].unique()
        if len(sizes) > 1:
            found = ", ".join(map(str, sizes))
            raise ValueError(
                f"its log holds batches of {found} queries, and its parameters do not state fit.batch_size"
            )
        runtimes = replace(runtimes, batch_size=int(sizes[0]))
    served = _of_log(name, runtimes, timed)
    # The registry counts parameters without what a run padded.
    return replace(
        served, hardware=folder, **({} if row is None else {"architecture": row, "num_params": row.num_params})
    )
