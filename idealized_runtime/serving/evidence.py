"""Files from which step times are fitted: what kind each is, and whose it is."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from idealized_runtime.architectures import read_architecture
from idealized_runtime.measurements.folders import find_logs
from idealized_runtime.queries.tables import read_queries
from idealized_runtime.records import TOKEN_COLUMNS, load_log, read_log
from idealized_runtime.serving.fitting import PublishedPoints, ServedRequests, TimedBatches
from idealized_runtime.serving.requests import TIMES, is_log, read_request_table
from idealized_runtime.serving.scheduler import Scheduler


def read_evidence(
    sources: Sequence, scheduler: Scheduler, *, columns: Mapping[str, str] | None = None
) -> tuple[list, str]:
    """What each file tells of the step times of one model, and the model's name.

    Parameters
    ----------
    sources : sequence of path-like
        Request tables, point tables, logs of ``api load``, logs of batches or folders of these.
    scheduler : Scheduler
        Of the server that answered the requests.
    columns : mapping of our name to theirs, optional

    Raises
    ------
    ValueError
        A file is none of these, or they are of several models.
    """
    evidence, names = [], {}
    for source in sources:
        paths = find_logs(source) if Path(source).is_dir() else [Path(source)]
        for path in paths:
            name, item = _read(path, scheduler, columns)
            evidence.append(item)
            names.setdefault(name, path)
    if len(names) > 1:
        raise ValueError(f"step times are of one model; these are of {', '.join(names)}: give the files of one")
    return evidence, next(iter(names))


def sources_of(evidence_files: Sequence) -> tuple[dict, ...]:
    """Each file with its SHA-256, for the parameter file."""
    paths = [
        path for source in evidence_files for path in (find_logs(source) if Path(source).is_dir() else [Path(source)])
    ]
    return tuple({"file": path.as_posix(), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in paths)


def expert_share_of(name: str) -> tuple[str, float]:
    """Name of a model, and the share of a layer's experts that a token visits; 0 where nothing is known of it."""
    try:
        architecture = read_architecture(name)
    except (ValueError, OSError):
        if name.endswith(".json"):
            raise
        return name, 0.0
    return architecture.name, expert_share(architecture)


def expert_share(architecture) -> float:
    """Share of a layer's experts that a token visits; 0 where all of them are read for every token."""
    if architecture.num_experts is None or architecture.moe_router_topk >= architecture.num_experts:
        return 0.0
    return architecture.moe_router_topk / architecture.num_experts


def _read(path, scheduler, columns):
    """Name of the model and what one file tells."""
    if path.suffix == ".jsonl" and is_log(path):
        log = load_log(path)
        if log.header.get("kind") == "api":
            return log.header["model"], ServedRequests(read_request_table(path), scheduler)
        timings = read_log(path)
        timings = timings[timings["prompt_encoding_time_s"].notna() & (timings["pipeline_parallel_size"] == 1)]
        if timings.empty:
            raise ValueError(
                f"{path}: no setting has a prompt encoding time and ran without pipeline stages; steps of a server are "
                "fitted to batches on one stage"
            )
        return log.header["model"], TimedBatches(timings)
    table = read_queries(path, columns=columns)
    names = table["model"].dropna().unique() if "model" in table else []
    if len(names) > 1:
        raise ValueError(
            f"{path}: holds {', '.join(map(str, names))}; step times are of one model: give its rows alone"
        )
    name = str(names[0]) if len(names) else path.stem
    if "concurrency" in table:
        return name, PublishedPoints(table, scheduler)
    requests = read_request_table(path, columns=columns)
    if absent := [time for time in TIMES if time not in requests]:
        raise ValueError(
            f"{path}: no column {', '.join(absent)}; steps are fitted to requests whose times were measured "
            f"({', '.join(['arrival_s', *TOKEN_COLUMNS, *TIMES])}) or to points (concurrency, time_per_output_token_s)"
        )
    return name, ServedRequests(requests, scheduler)
