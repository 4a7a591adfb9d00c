"""Exports of AIPerf (``aiperf profile``): single requests in ``profile_export.jsonl``, totals as JSON and CSV.

Read as AIPerf 0.3 to 0.13 write them. The requests do not name the model and the load: those stand in the totals beside
them, ``profile_export_aiperf.json``. Sizes are counted by AIPerf's own tokenizer; since 0.13 the server's usage stands
beside them.
"""

import csv
import json

import numpy as np

from idealized_runtime.records import definitions
from idealized_runtime.records.importers.common import (
    Fields,
    Imported,
    ImportFormatError,
    drop_missing,
    make_header,
    utc_text,
)

TOOL = "AIPerf"
REQUESTS_FILE, TOTALS_FILE = "profile_export.jsonl", "profile_export_aiperf.json"
# Their inter-token latency is one value a request, what others call TPOT.
_QUANTITIES = {
    "time_to_first_token": "time_to_first_token_s",
    "inter_token_latency": "time_per_output_token_s",
    "inter_chunk_latency": "inter_chunk_time_s",
    "request_latency": "runtime_s",
}
_STATISTICS = {"avg": "mean", "std": "std", "min": "minimum", "max": "maximum"}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0}


def is_totals(record) -> bool:
    """Whether an object of a JSON file is AIPerf's totals."""
    # Until 0.3 the version was not named.
    named = {"aiperf_version", "request_count"}
    return isinstance(record, dict) and "input_config" in record and bool(named & record.keys())


def is_request(record) -> bool:
    """Whether the object of a line is one request."""
    return isinstance(record, dict) and {"metadata", "metrics"} <= record.keys()


def is_csv(text: str) -> bool:
    """Whether a file begins as AIPerf's totals as CSV."""
    return text.startswith("Metric,avg,min,max")


def requests_file(folder):
    """The single requests in a folder: under AIPerf's own name for them, or the only ones with totals beside them."""
    if (folder / REQUESTS_FILE).is_file():
        return folder / REQUESTS_FILE
    found = [path for path in folder.glob("*.jsonl") if _totals_path(path).is_file()]
    return found[0] if len(found) == 1 else None


def _totals_path(path):
    """Totals of the same run, whose name a user may have chosen (``--profile-export-prefix``)."""
    return path.with_name(TOTALS_FILE if path.name == REQUESTS_FILE else f"{path.stem}.json")


def import_requests(path, *, hardware: str | None) -> Imported:
    """Requests of a ``profile_export.jsonl``, warm-ups included and marked.

    Raises
    ------
    ImportFormatError
        The totals are not beside it, or a line or field is missing or malformed.
    """
    totals_path = _totals_path(path)
    if not totals_path.is_file():
        raise ImportFormatError(f"{path}: {totals_path.name} must lie beside it: it names the model and the load")
    config = Fields(_parse(totals_path.read_bytes(), totals_path), str(totals_path), TOOL).inner("input_config")
    endpoint = config.inner("endpoint")
    # One address until 0.3.
    urls = endpoint.get("urls", list, is_optional=True) or [endpoint.get("url", str)]
    header = make_header(
        _model(config), hardware=hardware, base_url=", ".join(urls), endpoint=endpoint.get("type", str)
    )
    loads, trials = _loads(config), []
    for number, line in enumerate(path.read_bytes().splitlines()):
        where = f"{path}:{number + 1}"
        record = _parse(line, where)
        if not is_request(record):
            raise ImportFormatError(f"{where}: fields 'metadata' and 'metrics' are missing; {TOOL} writes them")
        trials.append(_trial(Fields(record, where, TOOL), number, loads))
    return Imported(header, trials)


def import_totals(record: dict, where: str) -> list[dict]:
    """Rows of :func:`idealized_runtime.records.importers.import_totals`, of the totals as JSON."""
    totals = Fields(record, where, TOOL)
    config = totals.inner("input_config")
    key = {"model": _model(config), **next(iter(_loads(config, is_counted=True).values()), {})}
    rows = []
    for name in _QUANTITIES:
        if metric := totals.inner(name, is_optional=True):
            row = _total(name, metric, metric.get("unit", str))
            rows.append({**key, "num_values": metric.get("count", int, is_optional=True), **row})
    return rows


def import_csv(path) -> list[dict]:
    """Rows of the totals as CSV, which names neither model nor load and counts no requests."""
    rows = []
    with path.open(encoding="utf-8", newline="") as file:
        columns, *lines = csv.reader(file)
    for number, line in enumerate(lines, start=2):
        if not line:
            break
        metric, _, unit = line[0].partition(" (")
        name = metric.lower().replace(" ", "_")
        if name in _QUANTITIES:
            values = {field: text for field, text in zip(columns[1:], line[1:], strict=False) if text}
            rows.append(_total(name, Fields(values, f"{path}:{number}", TOOL), unit.rstrip(")")))
    if not rows:
        raise ImportFormatError(f"{path}: none of the metrics {', '.join(_QUANTITIES)}; {TOOL} writes them")
    return rows


def _total(name, metric, unit) -> dict:
    """Row of one metric: its statistics in seconds."""
    scale, row = _scale(unit, metric.where), {"quantity": _QUANTITIES[name]}
    for field, value in metric.values.items():
        if field in _STATISTICS or (field[:1] == "p" and field[1:].isdigit()):
            try:
                row[_STATISTICS.get(field, field)] = float(value) * scale
            except (TypeError, ValueError) as error:
                raise ImportFormatError(f"{metric.where}: field {field!r} must be a number; got {value!r}") from error
    return row


def _parse(text, where):
    try:
        return json.loads(text)
    except ValueError as error:
        raise ImportFormatError(f"{where}: not JSON: {error}") from error


def _model(config) -> str:
    if "models" not in config.values:  # older than 0.13
        return ", ".join(map(str, config.inner("endpoint").get("model_names", list)))
    return ", ".join(model.get("name", str) for model in config.inner("models").items("items"))


def _loads(config, *, is_counted=False) -> dict[str, dict]:
    """Load of each phase by its name, or of those only that the totals count."""
    if "phases" not in config.values and "models" not in config.values:  # older than 0.13
        load = _load(config.inner("loadgen"), rate_name="request_rate")
        return {"profiling": load, "warmup": load}
    phases = config.items("phases")
    return {p.get("name", str): _load(p) for p in phases if not (is_counted and p.values.get("exclude_from_results"))}


def _load(phase, *, rate_name="rate") -> dict:
    """Closed where requests wait for each other, open at a rate."""
    rate, limit = phase.number(rate_name, is_optional=True), phase.get("concurrency", int, is_optional=True)
    return drop_missing({"load": "closed" if rate is None else "open", "rate_per_s": rate, "num_parallel": limit})


def _trial(line, number, loads) -> dict:
    metadata = line.inner("metadata")
    phase = metadata.get("phase_name", str, is_optional=True) or metadata.get("benchmark_phase", str)
    load = loads.get(phase, {})
    issued_ns = metadata.number("credit_issued_ns", scale=1e9, is_optional=True)
    record = {
        "trial": number,
        "is_warmup": metadata.get("benchmark_phase", str) != "profiling",
        **load,
        "sent_at": utc_text(metadata.number("request_start_ns", scale=1e9)),
        "scheduled_at": utc_text(issued_ns) if load.get("load") == "open" else None,
        "definitions": definitions.AIPERF,
    }
    if error := line.inner("error", is_optional=True):
        kept = {"type": error.get("type", str), "message": error.get("message", str)}
        status = error.get("code", int, is_optional=True)
        return record | {"num_prompt_tokens": None, "num_output_tokens": None, "status": status, "error": kept}
    return record | _measured(line.inner("metrics"))


def _measured(metrics) -> dict:
    """Sizes and times of a request."""

    def value(name, default=None):
        metric = metrics.inner(name, is_optional=default is not None)
        return default if metric is None else int(metric.number("value"))

    def seconds(name, *, is_optional=True):
        metric = metrics.inner(name, is_optional=is_optional)
        return metric and metric.number("value") * _scale(metric.get("unit", str), metric.where)

    p, o, ttft_s = value("input_sequence_length"), value("output_sequence_length"), seconds("time_to_first_token")
    between, chunk_times_s = metrics.inner("inter_chunk_latency", is_optional=True), None
    if ttft_s is not None and between is not None:
        scale = _scale(between.get("unit", str), between.where)
        chunk_times_s = np.cumsum([ttft_s, *(time * scale for time in between.durations("value"))]).tolist()
    return drop_missing(
        {
            "num_prompt_tokens": p,
            "num_output_tokens": o,
            "time_to_first_token_s": ttft_s,
            "runtime_s": seconds("request_latency", is_optional=False),
            "time_per_output_token_s": seconds("inter_token_latency"),
            "chunk_times_s": chunk_times_s,
            "usage": {
                "prompt_tokens": value("usage_prompt_tokens", p),
                "completion_tokens": value("usage_completion_tokens", o),
            },
        }
    )


def _scale(unit, where) -> float:
    if unit not in _SECONDS:
        raise ImportFormatError(f"{where}: field 'unit' must be one of {', '.join(_SECONDS)}; got {unit!r}")
    return _SECONDS[unit]
