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
_CSV_NAMES = {
    "Time to First Token": "time_to_first_token_s",
    "Inter Token Latency": "time_per_output_token_s",
    "Inter Chunk Latency": "inter_chunk_time_s",
    "Request Latency": "runtime_s",
}
_STATISTICS = {"avg": "mean", "std": "std", "min": "minimum", "max": "maximum"}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0}


def is_totals(record) -> bool:
    """Whether an object of a JSON file is AIPerf's totals."""
    # Until 0.3 the version was not named.
    return (
        isinstance(record, dict)
        and "input_config" in record
        and bool({"aiperf_version", "request_count"} & set(record))
    )


def is_request(record) -> bool:
    """Whether the object of a line is one request."""
    return isinstance(record, dict) and {"metadata", "metrics"} <= record.keys()


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
    try:
        totals = Fields(json.loads(totals_path.read_text(encoding="utf-8")), str(totals_path), TOOL)
    except ValueError as error:
        raise ImportFormatError(f"{totals_path}: not JSON: {error}") from error
    config = totals.inner("input_config")
    endpoint = config.inner("endpoint")
    # One address until 0.3.
    urls = endpoint.get("urls", list, is_optional=True) or [endpoint.get("url", str)]
    header = make_header(
        _model(config),
        software="unknown",
        hardware=hardware or "unknown",
        base_url=", ".join(urls),
        endpoint=endpoint.get("type", str),
    )
    loads = _loads(config)
    return Imported(header, [_trial(line, number, loads) for number, line in enumerate(_lines(path))])


def import_totals(record: dict, where: str) -> list[dict]:
    """Rows of :func:`idealized_runtime.records.importers.import_summary` of the totals as JSON."""
    totals = Fields(record, where, TOOL)
    config = totals.inner("input_config")
    key = {"model": _model(config), **next(iter(_loads(config, is_counted=True).values()), {})}
    rows = []
    for name, quantity in _QUANTITIES.items():
        metric = totals.inner(name, is_optional=True)
        if metric is not None:
            scale = _scale(metric.get("unit", str), metric.where)
            values = {field: metric.number(field) * scale for field in metric.values if _is_statistic(field)}
            row = {_STATISTICS.get(field, field): value for field, value in values.items()}
            rows.append({**key, "quantity": quantity, "num_values": metric.get("count", int, is_optional=True), **row})
    return rows


def import_csv(path) -> list[dict]:
    """Rows of the totals as CSV, which names neither model nor load and counts no requests."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    columns, rows = lines[0], []
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            break
        name, _, unit = line[0].partition(" (")
        if name in _CSV_NAMES:
            scale = _scale(unit.rstrip(")"), f"{path}:{number}")
            values = dict(zip(columns[1:], line[1:], strict=False))
            row = {
                _STATISTICS.get(field, field): _float(text, f"{path}:{number}", field) * scale
                for field, text in values.items()
                if _is_statistic(field) and text
            }
            rows.append({"quantity": _CSV_NAMES[name], **row})
    if not rows:
        raise ImportFormatError(f"{path}: none of the metrics {', '.join(_CSV_NAMES)}; {TOOL} writes them")
    return rows


def is_csv(text: str) -> bool:
    """Whether a file begins as AIPerf's totals as CSV."""
    return text.startswith("Metric,avg,min,max")


def _lines(path):
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        where = f"{path}:{number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ImportFormatError(f"{where}: not JSON: {line[:60]!r}") from error
        if not is_request(record):
            raise ImportFormatError(f"{where}: fields 'metadata' and 'metrics' are missing; {TOOL} writes them")
        yield Fields(record, where, TOOL)


def requests_file(folder):
    """The single requests in a folder: under AIPerf's own name for them, or the only ones with totals beside them."""
    if (folder / REQUESTS_FILE).is_file():
        return folder / REQUESTS_FILE
    found = [path for path in folder.glob("*.jsonl") if _totals_path(path).is_file()]
    return found[0] if len(found) == 1 else None


def _totals_path(path):
    """Totals of the same run, whose name a user may have chosen (``--profile-export-prefix``)."""
    return path.with_name(TOTALS_FILE if path.name == REQUESTS_FILE else f"{path.stem}.json")


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
    if rate is not None:
        return drop_missing({"load": "open", "rate_per_s": float(rate), "num_parallel": limit})
    return drop_missing({"load": "closed", "num_parallel": limit})


def _trial(line, number, loads) -> dict:
    metadata = line.inner("metadata")
    error = line.inner("error", is_optional=True)
    phase = metadata.get("phase_name", str, is_optional=True) or metadata.get("benchmark_phase", str)
    record = {
        "trial": number,
        "is_warmup": metadata.get("benchmark_phase", str) != "profiling",
        **loads.get(phase, {}),
        "sent_at": utc_text(metadata.get("request_start_ns", int) / 1e9),
        "scheduled_at": _scheduled_at(metadata, loads.get(phase, {})),
        "definitions": definitions.AIPERF,
    }
    if error is not None:
        status = error.get("code", int, is_optional=True)
        kept = {"type": error.get("type", str), "message": error.get("message", str)}
        return record | {"num_prompt_tokens": None, "num_output_tokens": None, "status": status, "error": kept}
    return record | _times(line.inner("metrics"))


def _scheduled_at(metadata, load) -> str | None:
    issued_ns = metadata.get("credit_issued_ns", int, is_optional=True)
    return utc_text(issued_ns / 1e9) if load.get("load") == "open" and issued_ns is not None else None


def _times(metrics) -> dict:
    p, o = (int(_value(metrics, name)) for name in ("input_sequence_length", "output_sequence_length"))
    ttft_s = _seconds(metrics, "time_to_first_token")
    between = metrics.inner("inter_chunk_latency", is_optional=True)
    chunk_times_s = None
    if ttft_s is not None and between is not None:
        scale = _scale(between.get("unit", str), between.where)
        chunk_times_s = np.cumsum([ttft_s, *(time * scale for time in between.get("value", list))]).tolist()
    return {
        "num_prompt_tokens": p,
        "num_output_tokens": o,
        "time_to_first_token_s": ttft_s,
        "runtime_s": _seconds(metrics, "request_latency", is_optional=False),
        "time_per_output_token_s": _seconds(metrics, "inter_token_latency"),
        "chunk_times_s": chunk_times_s,
        "usage": {
            "prompt_tokens": int(_value(metrics, "usage_prompt_tokens", p)),
            "completion_tokens": int(_value(metrics, "usage_completion_tokens", o)),
        },
    }


def _value(metrics, name, default=None) -> float:
    metric = metrics.inner(name, is_optional=default is not None)
    return default if metric is None else metric.number("value")


def _seconds(metrics, name, *, is_optional=True) -> float | None:
    metric = metrics.inner(name, is_optional=is_optional)
    return None if metric is None else metric.number("value") * _scale(metric.get("unit", str), metric.where)


def _scale(unit, where) -> float:
    if unit not in _SECONDS:
        raise ImportFormatError(f"{where}: field 'unit' must be one of {', '.join(_SECONDS)}; got {unit!r}")
    return _SECONDS[unit]


def _is_statistic(field) -> bool:
    return field in _STATISTICS or (field[:1] == "p" and field[1:].isdigit())


def _float(text, where, field) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ImportFormatError(f"{where}: field {field!r} must be a number; got {text!r}") from error
