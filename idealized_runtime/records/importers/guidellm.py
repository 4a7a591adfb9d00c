"""Reports of GuideLLM (``guidellm run --output kind=json,path=...``): benchmarks, each of many requests.

Read as GuideLLM 0.3 to 0.8 write them. Requests that were under way when a benchmark ended are left out. The clock of
0.3 starts before a connection is opened, that of later ones after.
"""

from idealized_runtime.records import definitions
from idealized_runtime.records.importers.common import (
    Fields,
    Imported,
    ImportFormatError,
    drop_missing,
    make_header,
    utc_text,
)

TOOL = "GuideLLM"


def is_report(record) -> bool:
    """Whether an object of a JSON file is such a report."""
    if not isinstance(record, dict) or not isinstance(record.get("benchmarks"), list):
        return False
    # Until 0.3 a report named no version.
    first = next(iter(record["benchmarks"]), None)
    metadata = record.get("metadata", first if isinstance(first, dict) and "request_totals" in first else None)
    return isinstance(metadata, dict) and bool({"guidellm_version", "request_totals"} & metadata.keys())


def import_report(report: dict, where: str, *, hardware: str | None) -> Imported:
    """Requests of all benchmarks of a report.

    Raises
    ------
    ImportFormatError
        A field is missing or malformed, or the report holds no request.
    """
    trials, header = [], None
    for number, benchmark in enumerate(Fields(report, where, TOOL).items("benchmarks")):
        strategy, model, base_url, endpoint = _circumstances(benchmark)
        load, requests = {**_load(strategy), "repetition": number}, benchmark.inner("requests")
        header = header or make_header(
            model, software="unknown", hardware=hardware or "unknown", base_url=base_url, endpoint=endpoint
        )
        for kind in ("successful", "errored"):
            for request in requests.items(kind, is_optional=True):
                trials.append(_trial(request, len(trials), load, has_failed=kind == "errored"))
    if not trials:
        raise ImportFormatError(f"{where}: no benchmark holds single requests; run {TOOL} without a sample size")
    return Imported(header, trials)


def _circumstances(benchmark) -> tuple:
    """Strategy, model, address and protocol of a benchmark."""
    if "request_totals" in benchmark.values:  # 0.3
        worker = benchmark.inner("worker")
        strategy = benchmark.inner("args").inner("strategy")
        return strategy, worker.get("backend_model", str), worker.get("backend_target", str), "unknown"
    backend = benchmark.inner("config").inner("backend")
    # Named from 0.7 on, and null where it is the default.
    endpoint = backend.get("request_format", str, is_optional=True) or "unknown"
    return (
        benchmark.inner("config").inner("strategy"), backend.get("model", str), backend.get("target", str), endpoint,
    )  # fmt: skip


def _load(strategy) -> dict:
    kind = strategy.get("type_", str)
    if kind == "synchronous":
        return {"load": "closed", "num_parallel": 1}
    if kind == "concurrent":
        return {"load": "closed", "num_parallel": strategy.get("streams", int)}
    if kind == "throughput":
        limit = strategy.get("max_concurrency", int, is_optional=True)
        return drop_missing({"load": "closed", "num_parallel": limit})
    if kind in ("constant", "poisson"):
        return {"load": "open", "rate_per_s": float(strategy.number("rate"))}
    if kind == "trace":
        return {"load": "open"}
    raise ImportFormatError(
        f"{strategy.where}: field 'type_' must be synchronous, concurrent, throughput, constant, poisson or trace; "
        f"got {kind!r}"
    )


def _trial(request, number, load, *, has_failed) -> dict:
    sent_s, planned_s, error = _course(request)
    record = {
        "trial": number,
        "num_prompt_tokens": request.get("prompt_tokens", int, is_optional=True),
        "num_output_tokens": request.get("output_tokens", int, is_optional=True),
        **load,
        "sent_at": utc_text(sent_s),
        # Closed loops have no schedule: their target is as soon as possible.
        "scheduled_at": utc_text(planned_s) if load["load"] == "open" and planned_s is not None else None,
        "definitions": definitions.GUIDELLM,
    }
    if has_failed:
        error = error or "failed without a reason"
        return record | {"error": {"type": error.partition("(")[0], "message": error}}
    return record | _times(request)


def _course(request) -> tuple[float, float | None, str | None]:
    """When a request was sent and when it was due, in seconds since 1970, and what failed."""
    old = request.inner("scheduler_info", is_optional=True)  # 0.3
    if old is not None:
        planned_s = old.number("targeted_start_time", is_optional=True)
        return request.number("start_time"), planned_s, request.get("error", str, is_optional=True)
    info = request.inner("info")
    timings = info.inner("timings")
    # One that failed before it was sent has the time it was taken up.
    sent_s = timings.number("request_start", is_optional=True) or timings.number("resolve_start")
    return sent_s, timings.number("targeted_start", is_optional=True), info.get("error", str, is_optional=True)


def _times(request) -> dict:
    ttft_ms = request.number("time_to_first_token_ms", is_optional=True)
    between_ms = request.number("inter_token_latency_ms", is_optional=True)
    p, o = request.get("prompt_tokens", int), request.get("output_tokens", int)
    return {
        "num_prompt_tokens": p,
        "num_output_tokens": o,
        "time_to_first_token_s": None if ttft_ms is None else ttft_ms / 1e3,
        "runtime_s": request.number("request_latency"),
        "time_per_output_token_s": None if between_ms is None else between_ms / 1e3,
        "usage": {"prompt_tokens": p, "completion_tokens": o},
    }
