"""The text that Megatron drivers printed in 2023 (arXiv:2305.02440), as published."""

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from idealized_runtime.architectures import Architecture, published_architecture
from idealized_runtime.records.common import LogFormatError, RepeatedSettingWarning

_RUNTIME = re.compile(
    r"Runtime for \{'num_input_tokens': (\d+), 'num_output_tokens': (\d+)\}: "
    r"(\d+\.\d{3}) seconds \+- (\d+\.\d{3})$"
)
_ARGUMENT = re.compile(r"^ {1,4}(\w+) \.{3,} (.*)$")
_VOCABULARY = re.compile(r"\(new size: (\d+)\)$")
_SHAPE_ARGUMENTS = ("num_layers", "hidden_size", "num_attention_heads", "ffn_hidden_size")
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


def read_settings(path: Path) -> pd.DataFrame:
    """Rows of :func:`idealized_runtime.records.read_log` for a text log."""
    runs = _timed_text_runs(path)
    rows = pd.DataFrame(
        [row for run in runs for row in run.settings],
        columns=["num_prompt_tokens", "num_output_tokens", "runtime_s", "runtime_std_s"],
    )
    rows = _keep_last_of_repeated(path, rows)
    row = _registry_row(path, runs[-1])
    scale = row.num_layers / row.num_layers_profiled if row is not None and row.num_layers_profiled else 1.0
    tensor_parallel_size, pipeline_parallel_size, batch_size = (
        int(value) if (value := runs[-1].arguments.get(name)) is not None else pd.NA for name in _PARALLELISM_ARGUMENTS
    )
    return pd.DataFrame(
        {
            "model": path.stem if row is None else row.name,
            "hardware": path.resolve().parent.name,
            "software": "Megatron-LM 2022",
            "num_prompt_tokens": rows["num_prompt_tokens"],
            "num_output_tokens": rows["num_output_tokens"],
            "batch_size": batch_size,
            "tensor_parallel_size": tensor_parallel_size,
            "pipeline_parallel_size": pipeline_parallel_size,
            "runtime_s": rows["runtime_s"] * scale,
            "runtime_std_s": rows["runtime_std_s"] * scale,
            "runtime_min_s": np.nan,
            "num_trials": pd.NA,
            # Mean and std are both printed with three decimals.
            "runtime_resolution_s": 1e-3 * scale,
        }
    )


def _timed_text_runs(path: Path) -> list[_TextRun]:
    """The launches of a text log that timed something; failed ones are passed over."""
    timed = [run for run in _parse_text_log(path) if run.settings]
    if not timed:
        raise LogFormatError(f"{path}: holds no timing: no line begins with 'Runtime for'")
    if len({run.shape() for run in timed}) > 1:
        raise LogFormatError(f"{path}: holds timings of different models or parallelisms; split it into one log each")
    return timed


def _parse_text_log(path: Path) -> list[_TextRun]:
    runs = [_TextRun()]
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for line_number, line in enumerate(lines, start=1):
        if "- arguments -" in line:
            runs.append(_TextRun())
        elif argument := _ARGUMENT.match(line):
            runs[-1].arguments[argument[1]] = argument[2].strip()
        elif vocabulary := _VOCABULARY.search(line):
            runs[-1].padded_vocab_size = int(vocabulary[1])
        elif "Runtime for" in line or (line_number == len(lines) and line and "Runtime for".startswith(line)):
            runs[-1].settings.append(_parse_runtime_line(f"{path}:{line_number}", line))
    return runs


def _parse_runtime_line(where, line) -> tuple[int, int, float, float]:
    match = _RUNTIME.match(line.rstrip())
    if match is None:
        raise LogFormatError(
            f"{where}: cut or malformed runtime: {line[:100]!r}; expected \"Runtime for {{'num_input_tokens': p, "
            "'num_output_tokens': o}: T seconds +- S\" with three decimals"
        )
    return int(match[1]), int(match[2]), float(match[3]), float(match[4])


def _keep_last_of_repeated(path, rows) -> pd.DataFrame:
    keys = ["num_prompt_tokens", "num_output_tokens"]
    repeated = rows.loc[rows.duplicated(keys, keep="last"), keys]
    if len(repeated):
        named = ", ".join(f"p={p} o={o}" for p, o in repeated.itertuples(index=False))
        warnings.warn(
            f"{path}: {len(repeated)} settings stand there more than once; the last of each counts: {named}",
            RepeatedSettingWarning,
            stacklevel=4,
        )
    return rows.drop_duplicates(keys, keep="last", ignore_index=True)


def _registry_row(path: Path, run: _TextRun) -> Architecture | None:
    """Registry row of a published log, if the arguments it printed are those of the row."""
    row = published_architecture(path.stem)
    if row is None:
        return None
    printed = (run.arguments.get("hidden_size"), run.arguments.get("num_layers"))
    return row if printed == (str(row.hidden_size), str(row.num_layers_profiled or row.num_layers)) else None


def read_architecture(path: Path) -> Architecture:
    """Architecture a text log printed; the registry row's depth where only some layers were profiled."""
    run = _timed_text_runs(path)[-1]
    row = _registry_row(path, run)
    try:
        sizes = {name: int(run.arguments[name]) for name in (*_SHAPE_ARGUMENTS, "max_position_embeddings")}
    except KeyError as error:
        raise LogFormatError(f"{path}: the printed arguments lack {error}") from error
    if row is not None:
        sizes["num_layers"] = row.num_layers
    return Architecture(
        path.stem if row is None else row.name,
        **sizes,
        vocab_size=run.padded_vocab_size,
        num_layers_profiled=None if row is None else row.num_layers_profiled,
        published_params=None if row is None else row.published_params,
        published_log=None if row is None else row.published_log,
        helm_names=() if row is None else row.helm_names,
        source="arguments printed by the log",
    )
