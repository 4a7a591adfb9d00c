"""Timed models: what a log measured and on what, together with the runtime model fitted to it."""

import math
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from idealized_runtime.architectures import Architecture
from idealized_runtime.fits import RuntimeModel
from idealized_runtime.measurements.folders import find_logs
from idealized_runtime.records import (
    IncompleteLogWarning,
    LogFormatError,
    NothingTimedError,
    is_json_log,
    load_log,
    read_architecture,
    read_log,
)

_TEXT_DTYPE = re.compile(r"^ {1,4}params_dtype \.{3,} torch\.(\w+)\s*$", re.MULTILINE)


@dataclass(frozen=True, eq=False)
class TimedModel:
    """One model on one machine and software stack, as one log holds it.

    Parameters
    ----------
    architecture : Architecture
        Of the whole model, whatever depth was timed.
    dtype : str
        Of weights and activations.
    hardware, software : str
        As the log names them; models that share the second share a software stack and a data type.
    is_cuda : bool
        Kernels are launched ahead of the device that runs them; False: each launch is waited for, as on a CPU.
    tensor_parallel_size, pipeline_parallel_size : int
    num_layers_profiled : int
        Depth that was timed; the runtimes are scaled to ``architecture.num_layers``.
    runtimes : DataFrame
        As from ``read_log``, one row a setting.
    machine_rates : mapping or None
        ``memory_bytes_per_s`` and ``matmul_flops_per_s`` by data type, as the driver measured them; the best
        where it did so more than once.
    """

    architecture: Architecture
    dtype: str
    hardware: str
    software: str
    is_cuda: bool
    tensor_parallel_size: int
    pipeline_parallel_size: int
    num_layers_profiled: int
    runtimes: pd.DataFrame
    machine_rates: Mapping | None = None

    @property
    def slices(self) -> float:
        """Whole models in units of what was timed: 3 where 35 of 105 layers were."""
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
            raise ValueError(f"{self.architecture.name}: {error}") from error

    @property
    def mean_power_watts(self) -> float | None:
        """Joules over seconds of its settings of one sequence; None where no energy was measured."""
        runtimes = self._runtimes_of_one_sequence
        known = runtimes[runtimes["energy_joules"].notna()]
        return None if known.empty else float(known["energy_joules"].sum() / known["runtime_s"].sum())

    @property
    def _runtimes_of_one_sequence(self) -> pd.DataFrame:
        batch_size = self.runtimes["batch_size"]
        return self.runtimes[batch_size.isna() | (batch_size == 1)]


def read_timed_models(hardware: str, *, software: str | None = None) -> dict[str, TimedModel]:
    """Every model timed on one piece of hardware with one software stack, by name.

    Parameters
    ----------
    hardware : str
        A folder of logs, as in :func:`idealized_runtime.measurements.folders.find_logs`.
    software : str, optional
        A software stack as logs name it, or a part of that name that no other stack has. May be left out
        where the folder holds one stack.

    Raises
    ------
    PublishedDataMissingError
        No folder has this name; the message lists those there are.
    ValueError
        Several stacks, none of this name, two logs of one model, or no log that can be fitted; the message lists
        what there is.

    Warns
    -----
    IncompleteLogWarning
        A log in which every setting failed, or too few were timed for a fit, is left out.
    """
    timed, left_out = {}, []
    for path in find_logs(hardware):
        try:
            timed[path] = read_timed_model(path)
        except NothingTimedError as error:
            left_out.append(str(error))
    stacks = sorted({model.software for model in timed.values()})
    stack = _choose_software(hardware, stacks, software) if stacks else None
    models = {}
    for path, model in timed.items():
        if model.software != stack:
            continue
        if model.architecture.name in models:
            raise ValueError(f"{hardware}: two logs of {model.architecture.name} with {stack}; keep one in the folder")
        # A campaign that its budget cut off leaves logs that cannot be fitted.
        try:
            _ = model.fit
        except ValueError as error:
            left_out.append(f"{path}: {error}")
        else:
            models[model.architecture.name] = model
    if not models:
        raise ValueError(f"{hardware}: no log can be fitted: {'; '.join(sorted(left_out))}")
    for reason in sorted(left_out):
        warnings.warn(f"left out: {reason}", IncompleteLogWarning, stacklevel=2)
    return models


def read_timed_model(path) -> TimedModel:
    """What one log, JSON Lines or the text of 2023, measured.

    Raises
    ------
    LogFormatError
        As ``read_log``; or a text log does not print its data type.
    """
    path = Path(path)
    runtimes, architecture = read_log(path), read_architecture(path)
    first = runtimes.iloc[0]
    model = TimedModel(
        architecture=replace(architecture, name=first["model"]),
        dtype="",
        hardware=first["hardware"],
        software=first["software"],
        is_cuda=True,
        tensor_parallel_size=_known_or_one(first["tensor_parallel_size"]),
        pipeline_parallel_size=_known_or_one(first["pipeline_parallel_size"]),
        num_layers_profiled=architecture.num_layers_profiled or architecture.num_layers,
        runtimes=runtimes,
    )
    return replace(model, **(_json_fields(path) if is_json_log(path) else {"dtype": _text_dtype(path)}))


def _json_fields(path) -> dict:
    log = load_log(path)
    header = log.header
    profiled = header["num_layers_profiled"]
    if isinstance(profiled, list):
        # The line through several slices counts once what does not grow with depth, as the whole model does.
        profiled = profiled[0] if len(profiled) == 1 else header["architecture"]["num_layers"]
    return {
        "dtype": header.get("dtype") or "float32",
        "is_cuda": header["software"].get("cuda") is not None,
        "num_layers_profiled": profiled,
        "machine_rates": best_rates(_measured_rates(path, record) for record in (header, *log.resumes)),
    }


def _measured_rates(path, record) -> Mapping | None:
    environment = record.get("environment") or {}
    rates = environment.get("machine_rates") if isinstance(environment, Mapping) else None
    if rates is None:
        return None
    flops_per_s = rates.get("matmul_flops_per_s") if isinstance(rates, Mapping) else None
    if not isinstance(flops_per_s, Mapping) or not all(
        isinstance(rate, int | float) and 0 < rate < math.inf
        for rate in (rates.get("memory_bytes_per_s"), *flops_per_s.values())
    ):
        raise LogFormatError(
            f"{path}: machine_rates must have memory_bytes_per_s and, by data type, matmul_flops_per_s, all positive; "
            f"got {rates!r:.80}"
        )
    return rates


def best_rates(measured: Iterable[Mapping | None]) -> dict | None:
    """The highest of each rate in measurements of one machine: what holds a machine up only ever lowers them.

    Parameters
    ----------
    measured : iterable of mapping or None
        As the driver writes them into a header's ``environment.machine_rates``; None: none was taken.
    """
    known = [rates for rates in measured if rates is not None]
    if not known:
        return None
    best = {name: max(rates.get(name, 0.0) for rates in known) for name in known[0] if name.endswith("_bytes_per_s")}
    dtypes = {dtype for rates in known for dtype in rates["matmul_flops_per_s"]}
    return {
        **known[0],
        **best,
        "matmul_flops_per_s": {
            dtype: max(rates["matmul_flops_per_s"].get(dtype, 0.0) for rates in known) for dtype in sorted(dtypes)
        },
    }


def _text_dtype(path) -> str:
    match = _TEXT_DTYPE.search(path.read_text(encoding="utf-8", errors="replace"))
    if match is None:
        raise LogFormatError(f"{path}: the printed arguments lack params_dtype, and so the size of a weight")
    return match[1]


def _known_or_one(size) -> int:
    return 1 if pd.isna(size) else int(size)


def _choose_software(hardware, stacks, software) -> str:
    if software is None and len(stacks) == 1:
        return stacks[0]
    named = [stack for stack in stacks if software is not None and software in stack]
    named = [software] if software in stacks else named
    if len(named) != 1:
        given = "none was given" if software is None else f"{software!r} names {len(named)} of them"
        raise ValueError(f"{hardware} has logs of these software stacks: {'; '.join(stacks)}. Name one; {given}")
    return named[0]
