"""The text that Megatron drivers printed in 2023 (arXiv:2305.02440), as published."""

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from idealized_runtime.architectures import Architecture, published_architecture
from idealized_runtime.records.common import (
    BATCH_COLUMNS,
    FRAME_COLUMNS,
    TOKEN_COLUMNS,
    LogFormatError,
    NothingTimedError,
    RepeatedSettingWarning,
    with_frame_dtypes,
)

# Three decimals and then the end of the line: a number that was cut does not match.
_RUNTIME = re.compile(
    r"Runtime for \{'num_input_tokens': ([1-9]\d*), 'num_output_tokens': ([1-9]\d*)\}: "
    r"(\d+\.\d{3}) seconds \+- (\d+\.\d{3})$",
    re.ASCII,
)
_RUNTIME_BEGIN = "Runtime for"
# A runtime that lost its beginning, its end or both still has one of these.
_RUNTIME_WORDS = (_RUNTIME_BEGIN, "{'num_input_tokens'", " seconds +- ")
_ARGUMENT = re.compile(r"^ {1,4}(\w+) \.{3,} (.*)$")
_VOCABULARY = re.compile(r"\(new size: (\d+)\)$")
# A registry row is recognised by these; V100 runs pad ffn_hidden_size and the vocabulary to more ranks.
_ROW_ARGUMENTS = ("num_layers", "hidden_size", "num_attention_heads")
_SHAPE_ARGUMENTS = (*_ROW_ARGUMENTS, "ffn_hidden_size")
_DESCRIPTION = ("name", "num_layers_profiled", "published_params", "published_log", "helm_names")
_PARALLELISM_ARGUMENTS = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "micro_batch_size")


@dataclass
class _TextRun:
    """One launch in a text log: the arguments it printed and the settings it timed."""

    arguments: dict[str, str] = field(default_factory=dict)
    padded_vocab_size: int | None = None
    settings: list[tuple[int, int, float, float]] = field(default_factory=list)

    def shape(self) -> tuple:
        """What two launches must share for their timings to belong together."""
        return tuple(self.arguments.get(name) for name in (*_SHAPE_ARGUMENTS, *_PARALLELISM_ARGUMENTS))


@dataclass(frozen=True)
class TextLog:
    """A text log, parsed: the launches that timed something, and the registry row of what they timed."""

    path: Path
    _runs: list[_TextRun]
    _row: Architecture | None
    # Megatron ran on GPUs only, whose rates nobody measured.
    is_cuda = True
    machine_rates = ()
    # What a text log does not tell.
    measured_on, is_intact = "", None

    def frame(self) -> pd.DataFrame:
        """One row a setting, as :func:`idealized_runtime.records.read_log` gives it."""
        rows, keys = self._rows(), TOKEN_COLUMNS
        repeated = rows.loc[rows.duplicated(keys, keep="last"), keys].drop_duplicates()
        if len(repeated):
            named = ", ".join(f"p={p} o={o}" for p, o in repeated.itertuples(index=False))
            counted = f"{len(repeated)} settings stand there more than once; the last of each counts: {named}"
            warnings.warn(f"{self.path}: {counted}", RepeatedSettingWarning, stacklevel=3)
        return self.settings_frame()

    def settings_frame(self) -> pd.DataFrame:
        """The same rows, without a word on what is repeated."""
        rows, row = self._rows(), self._row
        rows = rows.drop_duplicates(TOKEN_COLUMNS, keep="last", ignore_index=True)
        scale = row.num_layers / row.num_layers_profiled if row is not None and row.num_layers_profiled else 1.0
        tensor_parallel_size, pipeline_parallel_size, batch_size, num_layers = (
            self._integer(name, default=pd.NA) for name in (*_PARALLELISM_ARGUMENTS, "num_layers")
        )
        frame = rows.assign(
            model=self.path.stem if row is None else row.name,
            hardware=self.hardware,
            software="Megatron-LM 2022",
            # The scripts of 2023 knew one micro-batch size, which was the batch.
            **dict.fromkeys(BATCH_COLUMNS, batch_size),
            tensor_parallel_size=tensor_parallel_size,
            pipeline_parallel_size=pipeline_parallel_size,
            num_layers_profiled=num_layers,
            runtime_s=rows["runtime_s"] * scale,
            runtime_std_s=rows["runtime_std_s"] * scale,
            is_extrapolated=scale > 1,
            **dict.fromkeys(["runtime_min_s", "prompt_encoding_time_s", "generation_time_s", "energy_joules"], np.nan),
            **dict.fromkeys(["num_trials", "num_disturbed"], pd.NA),
            **dict.fromkeys(["trial_runtimes_s", "trial_starts_s"]),
            # Mean and std are both printed with three decimals.
            runtime_resolution_s=1e-3 * scale,
        )
        return with_frame_dtypes(frame[FRAME_COLUMNS])

    def _rows(self) -> pd.DataFrame:
        settings = [setting for run in self._runs for setting in run.settings]
        return pd.DataFrame(settings, columns=[*TOKEN_COLUMNS, "runtime_s", "runtime_std_s"])

    @property
    def hardware(self) -> str:
        """What was timed on: the name of the folder."""
        return self.path.resolve().parent.name

    @property
    def parallelism(self) -> tuple[int, int]:
        """Sizes of tensor and pipeline parallelism; 1 where no launch printed them."""
        return tuple(self._integer(name, default=1) for name in _PARALLELISM_ARGUMENTS[:2])

    def architecture(self) -> Architecture:
        """The architecture that was printed; the registry row's depth where only some layers were profiled."""
        sizes = {name: self._integer(name) for name in (*_SHAPE_ARGUMENTS, "max_position_embeddings")}
        if (vocab_size := self._runs[-1].padded_vocab_size) is None:
            raise LogFormatError(f"{self.path}: the log lacks the line 'padded vocab (size: ...) ... (new size: ...)'")
        described = {"name": self.path.stem}
        if self._row is not None:
            described = {name: getattr(self._row, name) for name in _DESCRIPTION}
            sizes["num_layers"] = self._row.num_layers
        return Architecture(**described, **sizes, vocab_size=vocab_size, source="arguments printed by the log")

    @property
    def dtype(self) -> str | None:
        """Data type of weights and activations; None where no launch printed it."""
        return self._runs[-1].arguments.get("params_dtype", "").removeprefix("torch.") or None

    @property
    def num_layers_scaled(self) -> int | None:
        """Layers whose time was multiplied to that of the whole model; None where the log does not tell."""
        return self._integer("num_layers", default=None)

    def _integer(self, name, **default):
        """A printed argument."""
        arguments = self._runs[-1].arguments
        if name not in arguments:
            if default:
                return default["default"]
            raise LogFormatError(f"{self.path}: the printed arguments lack {name!r}")
        try:
            return int(arguments[name])
        except ValueError as error:
            raise LogFormatError(f"{self.path}: the printed argument {name} must be an integer; got {error}") from error


def parse_text_log(path: Path) -> TextLog:
    """A text log; launches that failed are passed over.

    Raises
    ------
    LogFormatError
        No launch timed anything, or they timed different models; the message has the file, and the line.
    """
    runs = [_TextRun()]
    lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    for line_number, line in enumerate(lines, start=1):
        # A progress bar goes back to the start of its line; Windows ends every line that way.
        for part in line.split("\r"):
            _parse_line(f"{path}:{line_number}", part, runs, is_last=line_number == len(lines))
    runs = [run for run in runs if run.settings]
    if not runs:
        raise NothingTimedError(f"{path}: holds no timing: no line begins with 'Runtime for'")
    if len({run.shape() for run in runs}) > 1:
        raise LogFormatError(f"{path}: holds timings of different models or parallelisms; split it into one log each")
    return TextLog(path, runs, _registry_row(path, runs[-1]))


def _parse_line(where, line, runs, *, is_last):
    if "- arguments -" in line:
        runs.append(_TextRun())
    elif argument := _ARGUMENT.match(line):
        runs[-1].arguments[argument[1]] = argument[2].strip()
    elif vocabulary := _VOCABULARY.search(line):
        runs[-1].padded_vocab_size = int(vocabulary[1])
    # The last line may be cut anywhere, even before it says what it is.
    elif any(words in line for words in _RUNTIME_WORDS) or (is_last and line and _RUNTIME_BEGIN.startswith(line)):
        match = _RUNTIME.match(line.rstrip())
        if match is None and ("batch_size': " in line or "'num_layers_profiled': " in line):
            raise LogFormatError(f"{where}: of a sweep over batches or slices; read the log that it wrote with --log")
        if match is None:
            raise LogFormatError(
                f"{where}: cut or malformed runtime: {line[:100]!r}; expected \"Runtime for {{'num_input_tokens': p, "
                "'num_output_tokens': o}: T seconds +- S\" with three decimals"
            )
        runs[-1].settings.append((int(match[1]), int(match[2]), float(match[3]), float(match[4])))


def _registry_row(path: Path, run: _TextRun) -> Architecture | None:
    """Registry row of a published log, if the arguments it printed are those of the row."""
    row = published_architecture(path.stem)
    if row is None:
        return None
    if row.num_layers_profiled is not None and "num_layers" not in run.arguments:
        raise LogFormatError(
            f"{path}: the log does not print num_layers, and so not whether it timed {row.num_layers_profiled} or all "
            f"{row.num_layers} layers of {row.name}"
        )
    printed = tuple(run.arguments.get(name) for name in _ROW_ARGUMENTS)
    expected = (row.num_layers_profiled or row.num_layers, row.hidden_size, row.num_attention_heads)
    return row if printed == tuple(map(str, expected)) else None
