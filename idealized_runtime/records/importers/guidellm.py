"""Reports of GuideLLM (``guidellm run --output kind=json,path=...``): benchmarks, each of many requests.

Read as GuideLLM 0.3 to 0.8 write them. Requests that were under way when a benchmark ended are left out. The clock of
0.3 starts before a connection is opened, that of later ones after.
"""

from idealized_runtime.records import definitions
from idealized_runtime.records.importers.common import (
    Fields,
    ImportFormatError,
    Run,
    drop_missing,
    make_header,
    measured,
    utc_text,
)

TOOL = "GuideLLM"


def is_report(record) -> bool:
    """Whether an object of a JSON file is such a report."""
    if not isinstance(record, dict) or not isinstance(record.get("benchmarks"), list):
        return False
    if isinstance(metadata := record.get("metadata"), dict) and "guidellm_version" in metadata:
        return True
    # Until 0.3 a report named no version.
    first = next(iter(record["benchmarks"]), None)
    return isinstance(first, dict) and {"request_totals", "worker"} <= first.keys()


def import_report(report: dict, where: str, *, hardware: str | None) -> list[Run]:
    """The benchmarks of a report.

    Raises
    ------
    ImportFormatError
        A field is missing or malformed, or there is no benchmark.
    """
    benchmarks = Fields(report, where, TOOL).items("benchmarks")
    if not benchmarks:
        raise ImportFormatError(f"{where}: field 'benchmarks' is empty: {TOOL} ran none to its end")
    return [_run(benchmark, hardware) for benchmark in benchmarks]


def _run(benchmark, hardware) -> Run:
    metrics = benchmark.inner("metrics", is_optional=True)
    if "request_totals" in benchmark.values:  # 0.3
        strategy, worker = benchmark.inner("args").inner("strategy"), benchmark.inner("worker")
        model, base_url = worker.name("backend_model"), worker.name("backend_target")
        endpoint, totals = None, benchmark.inner("request_totals")
    else:
        strategy, backend = benchmark.inner("config").inner("strategy"), benchmark.inner("config").inner("backend")
        model, base_url = backend.name("model", is_optional=True) or "unknown", backend.name("target")
        # Named from 0.7 on, and null where it is the default.
        endpoint = backend.name("request_format", is_optional=True)
        scheduler = benchmark.inner("scheduler_metrics", is_optional=True)
        totals = (metrics and metrics.inner("request_totals", is_optional=True)) or (
            scheduler and scheduler.inner("requests_made", is_optional=True)
        )
    load, requests, trials = _load(strategy), benchmark.inner("requests"), []
    for kind in ("successful", "errored"):
        for request in requests.items(kind, is_optional=True):
            trials.append(_trial(request, len(trials), load, has_failed=kind == "errored"))
    counts = {"duration_s": benchmark.duration("duration", is_optional=True)}
    if totals:
        num_failed = totals.count("errored")
        counts |= {"num_requests": totals.count("successful") + num_failed, "num_failed": num_failed,
                   "num_unfinished": totals.count("incomplete", is_optional=True)}  # fmt: skip
    for column, name in (
        ("requests_per_s", "requests_per_second"),
        ("output_tokens_per_s", "output_tokens_per_second"),
    ):
        metric = metrics and metrics.inner(name, is_optional=True)
        if successful := metric and metric.inner("successful", is_optional=True):
            counts[column] = successful.duration("mean")
    header = make_header(model, hardware=hardware, base_url=base_url, endpoint=endpoint)
    return Run(benchmark.where, TOOL, header, load, trials, counts=counts)


def _load(strategy) -> dict:
    kind = strategy.get("type_", str)
    if kind == "synchronous":
        return {"load": "closed", "num_parallel": 1}
    if kind == "concurrent":
        return {"load": "closed", "num_parallel": strategy.count("streams")}
    if kind == "throughput":
        limit = strategy.count("max_concurrency", is_optional=True)
        return drop_missing({"load": "closed", "num_parallel": limit})
    if kind in ("constant", "poisson"):
        return {"load": "open", "rate_per_s": float(strategy.number("rate"))}
    if kind == "trace":
        return {"load": "open"}
    raise ImportFormatError(
        f"{strategy.where}: field 'type_' must be synchronous, concurrent, throughput, constant, poisson or trace; "
        f"got {kind!r:.60}"
    )


def _trial(request, number, load, *, has_failed) -> dict:
    if old := request.inner("scheduler_info", is_optional=True):  # 0.3
        sent_s, planned_s = request.time("start_time"), old.time("targeted_start_time", is_optional=True)
        error = request.get("error", str, is_optional=True)
    else:
        timings = request.inner("info").inner("timings")
        # One that failed before it was sent has the time it was taken up.
        sent_s = timings.time("request_start", is_optional=True) or timings.time("resolve_start")
        planned_s = timings.time("targeted_start", is_optional=True)
        error = request.inner("info").get("error", str, is_optional=True)
    p, o = (request.count(name, is_optional=True) for name in ("prompt_tokens", "output_tokens"))
    trial = {
        "trial": number,
        "sent_at": utc_text(sent_s),
        # Closed loops have no schedule: their target is as soon as possible.
        "scheduled_at": utc_text(planned_s) if load["load"] == "open" else None,
        "definitions": definitions.GUIDELLM,
    }
    if has_failed:
        error = error or "failed without a reason"
        error = {"type": error.partition("(")[0], "message": error}
        return trial | {"num_prompt_tokens": p, "num_output_tokens": o, "error": error}
    cached = request.count("cached_tokens", is_optional=True)
    return trial | measured(
        request,
        p=p,
        o=o,
        usage=drop_missing({"prompt_tokens": p, "completion_tokens": o, "cached_tokens": cached}),
        runtime_s=request.duration("request_latency"),
        ttft_s=request.duration("time_to_first_token_ms", scale=1e3, is_optional=True),
        tpot_s=request.duration("inter_token_latency_ms", scale=1e3, is_optional=True),
    )
