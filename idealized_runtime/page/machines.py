"""What models can be run on: stacks of timing logs, each read once, and engines that served others."""

import contextlib
import warnings
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import ClassVar

import pandas as pd

from idealized_runtime.architectures import Architecture, read_architecture
from idealized_runtime.hardware.accelerators import Accelerator, get_accelerator
from idealized_runtime.measurements.folders import find_logs
from idealized_runtime.measurements.published import PublishedDataMissingError
from idealized_runtime.measurements.shipped import SHIPPED_STACKS, read_shipped, read_stack
from idealized_runtime.measurements.timed_models import TimedModel, read_timed_models
from idealized_runtime.prediction import RuntimePredictor, fit_predictor
from idealized_runtime.records.files import sha256_of
from idealized_runtime.serving.known_stacks import get_known_stack

# For a message: the box of names offers them all.
_SOME_MODELS = ("gpt-j", "llama-3.1-8b", "qwen3-8b", "mixtral-8x7b", "and all that the box offers")


@dataclass(frozen=True, eq=False)
class Machine:
    """A machine with its software, and what predicts runtimes on it.

    Parameters
    ----------
    name : str
        Of its folder of logs, as ``--logs`` takes it.
    predictor : RuntimePredictor
    findings : tuple of str
        What speaks against its logs.
    """

    name: str
    predictor: RuntimePredictor
    findings: tuple[str, ...]

    @property
    def flags(self) -> tuple[str, ...]:
        """What the command takes for it."""
        return ("--logs", self.name)

    @property
    def models(self) -> tuple[TimedModel, ...]:
        """What was timed on it."""
        return self.predictor.models

    @property
    def accelerator(self) -> Accelerator | None:
        """Row of the registry, which has its price and watts."""
        return self.predictor.accelerator

    @property
    def title(self) -> str:
        """What it is called where the registry knows it."""
        return self.accelerator.name if self.accelerator is not None else self.predictor.models[0].hardware

    @property
    def software(self) -> str:
        """Engine and data type."""
        stack = self.predictor.models[0]
        return stack.software if stack.dtype in stack.software else f"{stack.software}, {stack.dtype}"

    def timed(self, model: str) -> TimedModel | None:
        """The log of a model, or its coefficients; None where it was not timed here."""
        return next((one for one in self.predictor.models if one.name == model), None)


@dataclass(frozen=True)
class ServingMachine:
    """A machine with an engine that served other models; what that tells comes with the package.

    Parameters
    ----------
    hardware : str
        Row of the accelerators.
    engine : str
    """

    hardware: str
    engine: str
    models: ClassVar[tuple] = ()
    findings: ClassVar[tuple] = ()

    @property
    def name(self) -> str:
        """As a state has it."""
        return f"{self.hardware} {self.engine}"

    @property
    def flags(self) -> tuple[str, ...]:
        """What the command takes for it."""
        return ("--hardware", self.hardware, "--software", self.engine)

    @property
    def accelerator(self) -> Accelerator:
        """Row of the registry, which has its price."""
        return get_accelerator(self.hardware)

    @property
    def title(self) -> str:
        """What it is called."""
        return self.accelerator.name

    @property
    def software(self) -> str:
        """Engine and what it is."""
        return f"{get_known_stack(self.engine).software}, a server"


# Measured on the first, and taken to the others by the data sheets.
SERVING_MACHINES = {one.name: one for one in (ServingMachine(name, "vllm") for name in ("H100", "H200", "B200"))}


@cache
def read_machine(name: str) -> Machine | ServingMachine:
    """A serving machine, or that of a folder of logs; shipped coefficients are taken where they are of these very logs.

    Raises
    ------
    ValueError
        There is no such folder, or its logs do not tell what a prediction needs.
    """
    if name in SERVING_MACHINES:
        return SERVING_MACHINES[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        timed = read_shipped(name) if _is_as_shipped(name) else read_stack(name)
        predictor = fit_predictor(timed.values())
    return Machine(name, predictor, tuple(dict.fromkeys(str(it.message) for it in caught)))


@lru_cache(maxsize=64)
def read_model(name_or_path: str) -> Architecture:
    """The architecture of a registry name or a ``config.json``.

    Raises
    ------
    ValueError
        As :func:`~idealized_runtime.architectures.read_architecture`.
    """
    return read_architecture(name_or_path, suggested=_SOME_MODELS)


@lru_cache(maxsize=64)
def measured_runtimes(machine: str, model: str) -> pd.DataFrame | None:
    """Settings of one sequence that were timed of a model; None where its log is not at hand."""
    with warnings.catch_warnings():
        # They are told with the machine.
        warnings.simplefilter("ignore")
        with contextlib.suppress(ValueError, FileNotFoundError):
            timed = read_timed_models(machine, [model])[model]
            return timed.runtimes[timed.runtimes["batch_size"].isna() | (timed.runtimes["batch_size"] == 1)]
    return None


@lru_cache(maxsize=64)
def log_path(machine: str, model: str) -> Path | None:
    """The log of a model on a machine, if it is at hand."""
    with contextlib.suppress(ValueError, FileNotFoundError):
        (path,) = find_logs(machine, [model])
        return path
    return None


def _is_as_shipped(name) -> bool:
    """Whether a stack is shipped of the logs that are found under its name, or there are none."""
    if name not in SHIPPED_STACKS:
        return False
    try:
        logs = find_logs(name)
    except PublishedDataMissingError:
        return True
    return {sha256_of(path) for path in logs} == {model.source["sha256"] for model in read_shipped(name).values()}
