"""Exports of AIPerf (``aiperf profile``): single requests in ``profile_export.jsonl``, totals as JSON and CSV.

Read as AIPerf 0.3 to 0.13 write them. The requests do not name the model and the load: those stand in the totals beside
them, ``profile_export_aiperf.json``. Sizes are counted by AIPerf's own tokenizer; since 0.13 the server's usage stands
beside them.
"""

import csv
import re

import numpy as np

from idealized_runtime.records import definitions
from idealized_runtime.records.importers.common import (
    Fields,
    ImportFormatError,
    Run,
    drop_missing,
    make_header,
    measured,
    parse,
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
# What is counted over a run: our column, and how it is written.
_COUNTS = {
    "num_requests": "request_count",
    "num_failed": "error_request_count",
    "num_prompt_tokens": "total_isl",
    "num_output_tokens": "total_osl",
    "duration_s": "benchmark_duration",
    "requests_per_s": "request_throughput",
    "output_tokens_per_s": "output_token_throughput",
}
_GROUPED = re.compile(r"-?\d{1,3}(,\d{3})+(\.\d+)?")


def is_totals(record) -> bool:
    """Whether an object of a JSON file is AIPerf's totals."""
    config = record.get("input_config") if isinstance(record, dict) else None
    # Until 0.3 the version was not named.
    return isinstance(config, dict) and ("aiperf_version" in record or "loadgen" in config)


def is_request(record) -> bool:
    """Whether the object of a line is one request."""
    metadata = record.get("metadata") if isinstance(record, dict) else None
    return isinstance(metadata, dict) and "benchmark_phase" in metadata and ("metrics" in record or "error" in record)


def is_csv(text: str) -> bool:
    """Whether a file begins as AIPerf's totals as CSV; its predecessor's, GenAI-Perf's, has no ``std``."""
    columns = text.partition("\n")[0].strip().split(",")
    return columns[:4] == ["Metric", "avg", "min", "max"] and "std" in columns


def totals_path(path):
    """Totals of the same run, whose name a user may have chosen (``--profile-export-prefix``)."""
    return path.with_name(TOTALS_FILE if path.name == REQUESTS_FILE else f"{path.stem}.json")


def import_requests(path, *, hardware: str | None) -> Run:
    """The run of a ``profile_export.jsonl``, its warm-ups included and marked.

    Raises
    ------
    ImportFormatError
        The totals are not beside it, or a line or field is missing or malformed.
    """
    beside = totals_path(path)
    if not beside.is_file():
        raise ImportFormatError(f"{path}: {beside.name} must lie beside it: it names the model and the load")
    totals = Fields(parse(beside.read_bytes(), beside), str(beside), TOOL)
    loads, trials = _loads(totals.inner("input_config")), []
    # The rest of a line is large: one at a time.
    with path.open("rb") as file:
        for number, line in enumerate(file):
            where = f"{path}:{number + 1}"
            if not is_request(record := parse(line, where)):
                raise ImportFormatError(f"{where}: fields 'metadata' and 'metrics' are missing; {TOOL} writes them")
            trials.append(_trial(Fields(record, where, TOOL), number, loads))
    return _run(totals, str(path), hardware, trials)


def import_totals(record: dict, where: str, *, hardware: str | None) -> Run:
    """The run of totals as JSON."""
    return _run(Fields(record, where, TOOL), where, hardware, [])


def import_csv(path, *, hardware: str | None) -> Run:
    """The run of totals as CSV, which names neither model nor load."""
    metrics, columns = {}, []
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            lines = list(csv.reader(file))
        except (csv.Error, ValueError) as error:
            raise ImportFormatError(f"{path}: not CSV in UTF-8 ({error})") from error
    for number, line in enumerate(lines, start=1):
        if not line or line[0] == "Metric":
            # Of the second table the only column is ``Value``.
            columns = ["avg" if name == "Value" else name for name in line[1:]]
        elif columns:
            metric, _, unit = line[0].rpartition(" (") if line[0].endswith(")") else (line[0], "", "")
            values = {field: _number(text) for field, text in zip(columns, line[1:], strict=False) if text}
            name = metric.lower().replace(" ", "_")
            metrics.setdefault(name, (values | {"unit": unit.rstrip(")")}, f"{path}:{number}"))
    wanted = {name: Fields(*metrics[name], TOOL) for name in (*_QUANTITIES, *_COUNTS.values()) if name in metrics}
    run = Run(str(path), TOOL, make_header("unknown", hardware=hardware), {}, [], _rows(wanted), _counts(wanted))
    if not run.totals:
        raise ImportFormatError(f"{path}: none of the metrics {', '.join(_QUANTITIES)}; {TOOL} writes them")
    return run


def _number(text):
    """A number of a CSV, perhaps with commas between thousands; what is none is left for its field to refuse."""
    try:
        return float(text.replace(",", "") if _GROUPED.fullmatch(text) else text)
    except ValueError:
        return text


def _run(totals, where, hardware, trials) -> Run:
    config = totals.inner("input_config")
    endpoint = config.inner("endpoint")
    # One address until 0.3.
    urls = endpoint.names("urls") if endpoint.values.get("urls") else [endpoint.name("url")]
    header = make_header(_model(config), hardware=hardware, base_url=", ".join(urls), endpoint=endpoint.name("type"))
    metrics = {name: totals.inner(name, is_optional=True) for name in (*_QUANTITIES, *_COUNTS.values())}
    metrics = {name: metric for name, metric in metrics.items() if metric is not None}
    load = next(iter(_loads(config, is_counted=True).values()), {})
    return Run(where, TOOL, header, load, trials, _rows(metrics), _counts(metrics))


def _rows(metrics) -> list[dict]:
    """Statistics of each time, in seconds."""
    rows = []
    for name, quantity in _QUANTITIES.items():
        if (metric := metrics.get(name)) is None:
            continue
        scale, row = _scale(metric), {"quantity": quantity, "num_values": metric.count("count", is_optional=True)}
        for field in metric.values:
            if field in _STATISTICS or (field[:1] == "p" and field[1:].isdigit()):
                value = metric.duration(field, is_optional=True)
                row[_STATISTICS.get(field, field)] = None if value is None else value * scale
        rows.append(row)
    return rows


def _counts(metrics) -> dict:
    counts = {column: metrics[name].duration("avg") for column, name in _COUNTS.items() if name in metrics}
    if "num_requests" in counts:
        # What failed is not among them.
        counts["num_failed"] = metrics["error_request_count"].count("avg") if "num_failed" in counts else 0
        counts["num_requests"] = metrics["request_count"].count("avg") + counts["num_failed"]
    return counts


def _model(config) -> str:
    if "models" not in config.values:  # older than 0.13
        return ", ".join(config.inner("endpoint").names("model_names"))
    return ", ".join(model.name("name") for model in config.inner("models").items("items"))


def _loads(config, *, is_counted=False) -> dict[str, dict]:
    """Load of each phase by its name, or of those only that the totals count."""
    if "phases" not in config.values and "models" not in config.values:  # older than 0.13
        load = _load(config.inner("loadgen"), rate_name="request_rate")
        return {"profiling": load, "warmup": load}
    phases = config.items("phases")
    return {p.get("name", str): _load(p) for p in phases if not (is_counted and p.values.get("exclude_from_results"))}


def _load(phase, *, rate_name="rate") -> dict:
    """Closed where requests wait for each other, open at a rate."""
    rate, limit = phase.number(rate_name, is_optional=True), phase.count("concurrency", is_optional=True)
    return drop_missing({"load": "closed" if rate is None else "open", "rate_per_s": rate, "num_parallel": limit})


def _trial(line, number, loads) -> dict:
    metadata = line.inner("metadata")
    phase = metadata.get("phase_name", str, is_optional=True) or metadata.get("benchmark_phase", str)
    load = loads.get(phase, {})
    issued_s = metadata.time("credit_issued_ns", scale=1e9, is_optional=True)
    trial = {
        "trial": number,
        "is_warmup": metadata.get("benchmark_phase", str) != "profiling",
        **load,
        "sent_at": utc_text(metadata.time("request_start_ns", scale=1e9)),
        "scheduled_at": utc_text(issued_s) if load.get("load") == "open" else None,
        "definitions": definitions.AIPERF,
    }
    if error := line.inner("error", is_optional=True):
        kept = {"type": error.get("type", str), "message": error.get("message", str)}
        status = error.count("code", is_optional=True)
        return trial | {"num_prompt_tokens": None, "num_output_tokens": None, "status": status, "error": kept}
    return trial | _measured(line.inner("metrics"))


def _measured(metrics) -> dict:
    """Sizes and times of a request."""

    def value(name, default=None):
        metric = metrics.inner(name, is_optional=True)
        return default if metric is None else metric.count("value")

    def seconds(name, *, is_optional=True):
        metric = metrics.inner(name, is_optional=is_optional)
        return metric and metric.duration("value") * _scale(metric)

    p, o, ttft_s = value("input_sequence_length"), value("output_sequence_length"), seconds("time_to_first_token")
    between, chunk_times_s = metrics.inner("inter_chunk_latency", is_optional=True), None
    if ttft_s is not None and between is not None:
        scale = _scale(between)
        chunk_times_s = np.cumsum([ttft_s, *(time * scale for time in between.durations("value"))]).tolist()
    usage = drop_missing(
        {
            "prompt_tokens": value("usage_prompt_tokens", p),
            "completion_tokens": value("usage_completion_tokens", o),
            "cached_tokens": value("usage_prompt_cache_read_tokens"),
        }
    )
    return measured(
        metrics,
        p=p,
        o=o,
        runtime_s=seconds("request_latency", is_optional=False),
        ttft_s=ttft_s,
        tpot_s=seconds("inter_token_latency"),
        chunk_times_s=chunk_times_s,
        usage=usage,
    )


def _scale(metric) -> float:
    unit = metric.get("unit", str)
    if unit not in _SECONDS:
        raise metric.refusal("unit", f"one of {', '.join(_SECONDS)}", unit)
    return _SECONDS[unit]
