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
        if "request_totals" in benchmark.values:  # 0.3
            strategy, worker = benchmark.inner("args").inner("strategy"), benchmark.inner("worker")
            model, base_url = worker.get("backend_model", str), worker.get("backend_target", str)
            endpoint = None
        else:
            strategy, backend = benchmark.inner("config").inner("strategy"), benchmark.inner("config").inner("backend")
            model, base_url = backend.get("model", str), backend.get("target", str)
            # Named from 0.7 on, and null where it is the default.
            endpoint = backend.get("request_format", str, is_optional=True)
        header = header or make_header(model, hardware=hardware, base_url=base_url, endpoint=endpoint or "unknown")
        load, requests = {**_load(strategy), "repetition": number}, benchmark.inner("requests")
        for kind in ("successful", "errored"):
            for request in requests.items(kind, is_optional=True):
                trials.append(_trial(request, len(trials), load, has_failed=kind == "errored"))
    if not trials:
        raise ImportFormatError(f"{where}: no benchmark holds single requests; run {TOOL} without a sample size")
    return Imported(header, trials)


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
    if old := request.inner("scheduler_info", is_optional=True):  # 0.3
        sent_s, planned_s = request.number("start_time"), old.number("targeted_start_time", is_optional=True)
        error = request.get("error", str, is_optional=True)
    else:
        timings = request.inner("info").inner("timings")
        # One that failed before it was sent has the time it was taken up.
        sent_s = timings.number("request_start", is_optional=True) or timings.number("resolve_start")
        planned_s = timings.number("targeted_start", is_optional=True)
        error = request.inner("info").get("error", str, is_optional=True)
    p, o = (request.get(name, int, is_optional=has_failed) for name in ("prompt_tokens", "output_tokens"))
    record = {
        "trial": number,
        "num_prompt_tokens": p,
        "num_output_tokens": o,
        **load,
        "sent_at": utc_text(sent_s),
        # Closed loops have no schedule: their target is as soon as possible.
        "scheduled_at": utc_text(planned_s) if load["load"] == "open" else None,
        "definitions": definitions.GUIDELLM,
    }
    if has_failed:
        error = error or "failed without a reason"
        return record | {"error": {"type": error.partition("(")[0], "message": error}}
    return record | {
        "time_to_first_token_s": request.number("time_to_first_token_ms", scale=1e3, is_optional=True),
        "runtime_s": request.number("request_latency"),
        "time_per_output_token_s": request.number("inter_token_latency_ms", scale=1e3, is_optional=True),
        "usage": {"prompt_tokens": p, "completion_tokens": o},
    }
