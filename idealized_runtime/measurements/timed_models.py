"""Timed models: what a log measured and on what, together with the runtime models fitted to it."""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import pandas as pd

from idealized_runtime.architectures import Architecture
from idealized_runtime.fits import ModelOfRuntimes, RuntimeModel, settings_of_batch
from idealized_runtime.hardware.rates import best_rates
from idealized_runtime.measurements.folders import find_logs
from idealized_runtime.records import IncompleteLogWarning, LogFormatError, NothingTimedError, log_findings, parse_log
from idealized_runtime.records.files import sha256_of
from idealized_runtime.records.validity import SEVERE


@dataclass(frozen=True, eq=False)
class TimedModel:
    """One model on one machine and software stack, as one log holds it.

    Parameters
    ----------
    name : str
    hardware, software : str
        As the log names them; models that share the second share a software stack and a data type.
    runtimes : DataFrame
        As from ``read_log``, one row a setting.
    architecture : Architecture or None
        Of the whole model, whatever depth was timed; None where the log does not tell.
    dtype : str or None
        Of weights and activations; None where the log does not tell.
    is_cuda : bool
        Kernels are launched ahead of the device that runs them; False: each launch is waited for, as on a CPU.
    tensor_parallel_size, pipeline_parallel_size : int
    num_layers_profiled : int or None
        Depth that was timed; the runtimes are scaled to ``architecture.num_layers``.
    machine_rates : mapping or None
        ``memory_bytes_per_s`` and ``matmul_flops_per_s`` by data type, as the driver measured them; the best
        where it did so more than once.
    source : mapping or None
        Its log: ``file`` (with its folder, the same on every machine) and ``sha256``.
    measured_on : str
        ISO date; empty where the log does not tell.
    """

    name: str
    hardware: str
    software: str
    runtimes: pd.DataFrame
    architecture: Architecture | None = None
    dtype: str | None = None
    is_cuda: bool = False
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    num_layers_profiled: int | None = None
    machine_rates: Mapping | None = None
    source: Mapping | None = None
    measured_on: str = ""

    @property
    def is_sliced(self) -> bool:
        """Only slices of the layers were timed, and their times multiplied."""
        return bool(self.runtimes["is_extrapolated"].any())

    @property
    def longest_context(self) -> int:
        """Tokens of the longest query that was timed, prompt and output."""
        return int((self.runtimes["num_prompt_tokens"] + self.runtimes["num_output_tokens"]).max())

    @property
    def slices(self) -> float:
        """Whole model in units of what was timed, 3 where 35 of 105 layers were."""
        return self.architecture.num_layers / self.num_layers_profiled

    @property
    def reference_num_context_tokens(self) -> float:
        """Tokens before the output token in the middle of the log, the one that the fit's g is the time of."""
        return self.fit.reference_num_prompt_tokens + self.runtimes["num_output_tokens"].max() / 2

    @cached_property
    def fit(self) -> RuntimeModel:
        """Runtime model of its settings of one sequence.

        Raises
        ------
        ValueError
            They cannot be fitted; the message begins with the model's name.
        """
        try:
            return RuntimeModel.fit(self._runtimes_of_one_sequence)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error

    @cached_property
    def mean_power_watts(self) -> float | None:
        """Joules over seconds of its settings of one sequence; None where no energy was measured."""
        runtimes = self._runtimes_of_one_sequence
        known = runtimes[runtimes["energy_joules"].notna()]
        return None if known.empty else float(known["energy_joules"].sum() / known["runtime_s"].sum())

    @property
    def _runtimes_of_one_sequence(self) -> pd.DataFrame:
        batch_size = self.runtimes["batch_size"]
        return self.runtimes[batch_size.isna() | (batch_size == 1)]


def read_timed_models(
    name_or_path: str | os.PathLike,
    models: Iterable[str] | None = None,
    *,
    software: str | None = None,
    accept: Iterable[str] = (),
) -> dict[str, TimedModel]:
    """Every model timed on one piece of hardware with one software stack, by name; each log is parsed once.

    Parameters
    ----------
    name_or_path, models
        A folder of logs, and which of them, in this order: as in
        :func:`idealized_runtime.measurements.folders.find_logs`.
    software : str, optional
        A software stack as logs name it, or a part of that name that no other stack has. May be left out
        where the logs are of one stack.
    accept : iterable of str
        Severe findings that are warned of only, as for :func:`idealized_runtime.records.read_log`.

    Raises
    ------
    PublishedDataMissingError
        No folder has this name; the message lists those there are.
    LogFormatError
        A log is damaged.
    ImplausibleLogError
        A log cannot be true, or its numbers are wrong by a factor.
    ValueError
        Several machines or stacks, none of this name, two logs of one model, or nothing was timed; the message lists
        what there is.

    Warns
    -----
    IncompleteLogWarning
        A log in which every setting failed, or every request is under load, is left out.
    """
    paths = find_logs(name_or_path, models)
    timed = _of_each(paths, partial(read_timed_model, accept=accept), NothingTimedError)
    stack = _choose_software(name_or_path, sorted({model.software for model in timed}), software)
    timed = [model for model in timed if model.software == stack]
    _check_one_machine(name_or_path, timed)
    by_name = {}
    for model in timed:
        if by_name.setdefault(model.name, model) is not model:
            raise ValueError(
                f"{name_or_path}: two logs of {model.name} with {stack}, {by_name[model.name].source['file']} and "
                f"{model.source['file']}; keep one in the folder"
            )
    return by_name


def by_size(timed: Mapping[str, TimedModel]) -> dict[str, TimedModel]:
    """The same models from the smallest to the largest; those of an unknown shape come first."""
    return dict(sorted(timed.items(), key=lambda item: getattr(item[1].architecture, "num_params", 0)))


def findings_table(name_or_path: str | os.PathLike, models: Iterable[str] | None = None) -> pd.DataFrame:
    """What speaks against the logs of a folder, a row a finding; empty where nothing does.

    Parameters
    ----------
    name_or_path, models
        As in :func:`read_timed_models`.

    Returns
    -------
    DataFrame
        ``log, finding, is_severe, message``; see :func:`~idealized_runtime.records.log_findings`.
    """
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in find_logs(name_or_path, models):
            with suppress(NothingTimedError):
                found = log_findings(parse_log(path, accept=SEVERE))
                rows += [(path.name, finding.name, finding.is_severe, finding.message) for finding in found]
    return pd.DataFrame(rows, columns=["log", "finding", "is_severe", "message"])


def read_timed_model(path: str | os.PathLike, *, accept: Iterable[str] = ()) -> TimedModel:
    """What one log, JSON Lines or the text of 2023, measured; ``accept`` as for ``read_log``.

    Raises
    ------
    LogFormatError
        As ``read_log``; or the rates that it has of the machine are none.
    """
    path = Path(path)
    log = parse_log(path, accept=accept)
    runtimes = log.frame()
    first, architecture = runtimes.iloc[0], None
    with suppress(LogFormatError):
        architecture = replace(log.architecture(), name=first["model"])
    rates = best_rates(log.machine_rates)
    parallelism = (first["tensor_parallel_size"], first["pipeline_parallel_size"])
    return TimedModel(
        first["model"], first["hardware"], first["software"], runtimes, architecture, log.dtype, log.is_cuda,
        *(1 if pd.isna(size) else int(size) for size in parallelism),
        num_layers_profiled=log.num_layers_scaled,
        machine_rates=rates,
        source={"file": "/".join(path.absolute().parts[-2:]), "sha256": sha256_of(path)},
        measured_on=log.measured_on,
    )  # fmt: skip


def fit_models(
    timed: Mapping[str, TimedModel],
    fit: Callable[[pd.DataFrame], ModelOfRuntimes] = RuntimeModel.fit,
    *,
    batch_size: int | None = None,
) -> dict[str, ModelOfRuntimes]:
    """Model of runtimes of each timed model; one that keeps its ``sources`` is given its log.

    Parameters
    ----------
    timed : mapping of TimedModel, by name
    fit : callable
        From timings, one row a setting, to a model of runtimes.
    batch_size : int, optional
        That of several in a log which is fitted; ``fit`` is then told that one prompt size is enough
        (``min_prompt_sizes=1``; see :func:`~idealized_runtime.fits.settings_of_batch`). Without it a log must hold one
        batch size.

    Raises
    ------
    ValueError
        No log can be fitted; the message says why, by model.

    Warns
    -----
    IncompleteLogWarning
        A log that cannot be fitted is left out.
    """

    def fit_one(entry):
        name, model = entry
        try:
            if batch_size is None:
                fitted = fit(model.runtimes)
            else:
                fitted = fit(settings_of_batch(model.runtimes, batch_size), min_prompt_sizes=1)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        return name, replace(fitted, sources=(model.source,)) if hasattr(fitted, "sources") else fitted

    return dict(_of_each(timed.items(), fit_one))


def fitted_models(timed: Iterable[TimedModel]) -> list[TimedModel]:
    """Those whose settings of one sequence can be fitted: a campaign that was cut off leaves logs that cannot.

    Raises and warns as :func:`fit_models`.
    """

    def fitted(model):
        _ = model.fit
        return model

    return _of_each(timed, fitted)


def _of_each(items, make, refusal=ValueError) -> list:
    """What is made of each; of those that are refused the reasons are warned of, or all raised if none is left."""
    made, reasons = [], []
    for item in items:
        try:
            made.append(make(item))
        except refusal as error:
            reasons.append(str(error))
    if reasons and not made:
        raise ValueError(f"no log is left to go by: {'; '.join(reasons)}")
    for reason in reasons:
        warnings.warn(f"left out: {reason}", IncompleteLogWarning, stacklevel=3)
    return made


def _check_one_machine(name_or_path, timed):
    """Refuse logs of several machines: one table, and one fit of a stack, is of one."""
    files = {model.hardware: model.source["file"] for model in reversed(timed)}
    if len(files) > 1:
        named = "; ".join(f"{hardware} ({file})" for hardware, file in sorted(files.items()))
        raise ValueError(
            f"{name_or_path} has logs of {len(files)} machines: {named}. Keep each machine's in a folder of its own, "
            "or name the models of one"
        )


def _choose_software(hardware, stacks, software) -> str:
    if software is None and len(stacks) == 1:
        return stacks[0]
    named = [stack for stack in stacks if software is not None and software in stack]
    named = [software] if software in stacks else named
    if len(named) != 1:
        given = "none was given" if software is None else f"{software!r} names {len(named)} of them"
        raise ValueError(f"{hardware} has logs of these software stacks: {'; '.join(stacks)}. Name one; {given}")
    return named[0]
