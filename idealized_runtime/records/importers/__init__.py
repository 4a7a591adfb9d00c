"""Measurements of other tools as the frame of this project: nobody must measure again.

``import_file`` gives all that a file or a folder of them holds: one row a request, as
:func:`idealized_runtime.records.read_requests` does for a log, the same as trials of a log and, where a tool kept
totals only, those. :data:`idealized_runtime.records.definitions.DEFINITIONS` says what the times of each tool mean.
"""

import contextlib
import warnings
from pathlib import Path

import pandas as pd

from idealized_runtime.checks import parse_json, parse_json_texts
from idealized_runtime.records.helm.folders import PER_INSTANCE_STATS, RUN_SPEC, natural_order
from idealized_runtime.records.importers import aiperf, guidellm, vllm_bench
from idealized_runtime.records.importers.common import (
    Imported,
    ImportedDataWarning,
    ImportFormatError,
    Run,
    UnknownFormatError,
)

__all__ = [
    "ImportFormatError",
    "Imported",
    "ImportedDataWarning",
    "UnknownFormatError",
    "import_file",
    "import_requests",
]

_KNOWN = (
    "known are the results of `vllm bench serve` (JSON), reports of GuideLLM (JSON), exports of AIPerf "
    f"({aiperf.REQUESTS_FILE}, {aiperf.TOTALS_FILE}, their CSV), folders of these, and folders of HELM runs"
)
# How a tool is made to keep its requests.
_REMEDIES = {
    aiperf.TOOL: f"give {aiperf.REQUESTS_FILE} beside it",
    guidellm.TOOL: f"run {guidellm.TOOL} without a sample size",
    vllm_bench.TOOL: f"run {vllm_bench.TOOL} with --save-detailed",
}
# Files that look alike, by fields that no other tool writes together.
_NOT_READ = {
    "GenAI-Perf, the predecessor of AIPerf": ({"input_config", "request_latency"}, {"input_config", "request_count"}),
    "SGLang's bench_serving": ({"request_throughput", "mean_e2e_latency_ms"}, {"backend", "sharegpt_output_len"}),
    "`vllm bench throughput`": ({"elapsed_time", "requests_per_second", "tokens_per_second"},),
    "`vllm bench latency`": ({"avg_latency", "latencies", "percentiles"},),
    "TensorRT-LLM's trtllm-bench, whose server `api profile` and `api load` time": (
        {"world_info", "request_info", "performance"},
        {"num_input_tokens", "first_token_timestamp", "end_timestamp"},
    ),
    "LLMPerf": ({"results_ttft_s_mean"}, {"results_ttft_s"}, {"results_num_requests_started"}),
    "inference-perf": ({"load_summary", "successes", "failures"},),
    "llama-bench": ({"build_commit", "avg_ts"},),
    "lm-evaluation-harness": ({"lm_eval_version"}, {"n-shot", "versions"}),
    "HELM as a file of a run, whose folder is read": ({"adapter_spec"}, {"instance_id", "stats"}),
    "this project as a log, which needs no import": ({"record", "schema_version"},),
}


def import_file(path, *, hardware: str | None = None) -> Imported:
    """What another tool timed.

    Parameters
    ----------
    path : path-like
        A result of ``vllm bench serve --save-result``, with ``--save-detailed`` for its requests; a JSON report of
        GuideLLM; AIPerf's ``profile_export.jsonl`` or its totals; a folder of such files, or of HELM runs. They are
        told apart by what they hold.
    hardware : str, optional
        What the model ran on, which few of them say.

    Raises
    ------
    UnknownFormatError
        It is none of these; the message names the tool where that is another known one.
    ImportFormatError
        A field is missing or malformed; the message names file and field.
    FileNotFoundError
        There is no such file or folder.

    Warns
    -----
    MissingValueWarning
        HELM instances without runtime.
    """
    path = Path(path)
    return _import_folder(path, hardware) if path.is_dir() else Imported.of(_runs(path, hardware))


def import_requests(path, *, hardware: str | None = None) -> pd.DataFrame:
    """Requests that another tool timed, one a row, of :func:`import_file`.

    Raises
    ------
    ImportFormatError, FileNotFoundError
        As :func:`import_file`, or it holds totals only.

    Warns
    -----
    ImportedDataWarning
        Some of the requests are here only, failed, or do not give the totals beside them.
    """
    imported = import_file(path, hardware=hardware)
    if imported.requests.empty:
        raise ImportFormatError(
            f"{path}: holds totals only, no single requests; {_REMEDIES[imported.tools[0]]}, or summarise it"
        )
    for finding in imported.findings:
        warnings.warn(f"{path}: {finding['message']}", ImportedDataWarning, stacklevel=2)
    return imported.requests


def _runs(path, hardware) -> list[Run]:
    """The runs of one file."""
    if path.suffix == ".csv":
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        if aiperf.is_csv(text):
            return [aiperf.import_csv(path, hardware=hardware)]
        named = (
            "written by GenAI-Perf, the predecessor of AIPerf"
            if text.startswith("Metric,avg,min")
            else "no known format"
        )
        raise UnknownFormatError(f"{path}: {named}; {_KNOWN}")
    records = [_first_line(path)] if path.suffix == ".jsonl" else []
    if not (records and aiperf.is_request(records[0])):
        records = _read_records(path)
    first = records[0]
    if aiperf.is_request(first):
        return [aiperf.import_requests(path, hardware=hardware)]
    if aiperf.is_totals(first):
        return [aiperf.import_totals(first, str(path), hardware=hardware)]
    if guidellm.is_report(first):
        return guidellm.import_report(first, str(path), hardware=hardware)
    if all(map(vllm_bench.is_result, records)):
        places = [str(path) if len(records) == 1 else f"{path}: result {index}" for index in range(len(records))]
        pairs = zip(records, places, strict=True)
        return [vllm_bench.import_result(record, place, hardware=hardware) for record, place in pairs]
    fields = first.keys() if isinstance(first, dict) else set()
    tool = next((tool for tool, marks in _NOT_READ.items() if any(mark <= fields for mark in marks)), None)
    raise UnknownFormatError(f"{path}: " + (f"written by {tool}: not read; " if tool else "no known format; ") + _KNOWN)


def _import_folder(folder, hardware) -> Imported:
    """Everything at or below a folder that is of a known format: HELM's runs, or else what its files hold."""
    paths = [path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".csv") and path.is_file()]
    if any(path.name in (RUN_SPEC, PER_INSTANCE_STATS) for path in paths) or not paths:
        from idealized_runtime.records.importers.helm_runs import import_runs

        return Imported(import_runs(folder, hardware=hardware), [])
    # Requests before the totals beside them, and JSON before CSV of the same.
    paths.sort(key=lambda path: ((".jsonl", ".json", ".csv").index(path.suffix), natural_order(str(path))))
    runs, unused, known = [], [], set()
    for path in paths:
        if path.with_suffix("") in known:
            continue
        try:
            found = _runs(path, hardware)
        except UnknownFormatError:
            unused.append(path)
            continue
        runs += found
        known.add(path.with_suffix(""))
        if found[0].tool == aiperf.TOOL and found[0].trials:
            known.add(aiperf.totals_path(path).with_suffix(""))
    if not runs:
        raise UnknownFormatError(
            f"{folder}: none of its {len(unused)} JSON and CSV files is of a known format; {_KNOWN}"
        )
    return Imported.of(runs, unused)


def _first_line(path):
    with path.open("rb") as file, contextlib.suppress(ValueError):
        return parse_json(file.readline())


def _read_records(path) -> list:
    """Objects of a file: of one JSON text, of several in a row, or of a list of them."""
    text, records = path.read_bytes(), None
    with contextlib.suppress(ValueError):
        records = [parse_json(text)]
    try:
        # `vllm bench serve --append-result` writes one behind the other.
        records = records or parse_json_texts(text.decode("utf-8-sig"))
    except ValueError as error:
        raise UnknownFormatError(f"{path}: not JSON in UTF-8 ({error}); {_KNOWN}") from error
    # `vllm bench sweep serve` writes a list.
    if len(records) == 1 and isinstance(records[0], list):
        records = records[0]
    if not records:
        raise UnknownFormatError(f"{path}: empty; {_KNOWN}")
    return records
