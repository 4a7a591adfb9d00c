"""Files from which step times are fitted: what kind each is, and whose it is."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from idealized_runtime.architectures import read_architecture
from idealized_runtime.checks import check_positive, check_positive_or_missing, numeric_columns, warn_missing
from idealized_runtime.measurements.folders import find_logs
from idealized_runtime.queries.tables import read_queries
from idealized_runtime.records import TOKEN_COLUMNS, load_log, read_log
from idealized_runtime.records.files import sha256_of
from idealized_runtime.serving.fitting import PublishedPoints, ServedRequests, TimedBatches
from idealized_runtime.serving.requests import TIMES, is_log, read_request_table
from idealized_runtime.serving.scheduler import Scheduler

# What a point table may say of a server, and one step model is of one of them only.
_SERVER_COLUMNS = ("hardware", "software", "num_accelerators", "tensor_parallel_size", "dtype")


def read_evidence(
    sources: Sequence, scheduler: Scheduler, *, columns: Mapping[str, str] | None = None, model: str | None = None
) -> tuple[list, str, tuple]:
    """What each file tells of the step times of one model.

    Parameters
    ----------
    sources : sequence of path-like
        Request tables, point tables, logs of ``api load``, logs of batches or folders of these.
    scheduler : Scheduler
        Of the server that answered the requests.
    columns : mapping of our name to theirs, optional
    model : str, optional
        Of files of several models, the one whose files count; of one, what it is called here.

    Returns
    -------
    evidence : list
    name : str
        As given, else as the files say, else as the first of them is called.
    files : tuple of dict
        Each that counts with its SHA-256, for the parameter file.

    Raises
    ------
    ValueError
        A file is none of these, or they are of several models and none of them is named.
    """
    paths = [path for source in sources for path in (find_logs(source) if Path(source).is_dir() else [Path(source)])]
    read = [(path, *_read(path, scheduler, columns, model)) for path in paths]
    # A table need not say whose it is.
    names = list(dict.fromkeys(name for _, name, _ in read if name is not None))
    if len(names) > 1:
        if model not in names:
            raise ValueError(
                f"step times are of one model; these are of {', '.join(names)}: give the files of one, or name it by "
                "model (--model)"
            )
        read = [entry for entry in read if entry[1] in (None, model)]
    files = tuple({"file": path.as_posix(), "sha256": sha256_of(path)} for path, *_ in read if path.is_file())
    return [item for *_, item in read], model or next(iter(names), paths[0].stem), files


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


def _read(path, scheduler, columns, model):
    """Name of the model, None where the file does not say it, and what the file tells."""
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
    if "concurrency" in table and "arrival_s" not in table:
        if len(names) > 1 and model in names:
            table, names = table[table["model"] == model].reset_index(drop=True), [model]
        _refuse_several(path, names)
        return (str(names[0]) if len(names) else None), PublishedPoints(points_to_fit(table, path), scheduler)
    _refuse_several(path, names)
    requests = read_request_table(path, columns=columns)
    if absent := [time for time in TIMES if time not in requests]:
        raise ValueError(
            f"{path}: no column {', '.join(absent)}; steps are fitted to requests whose times were measured "
            f"({', '.join(['arrival_s', *TOKEN_COLUMNS, *TIMES])}) or to points (concurrency, time_per_output_token_s)"
        )
    return (str(names[0]) if len(names) else None), ServedRequests(requests, scheduler)


def _refuse_several(path, names):
    if len(names) > 1:
        raise ValueError(
            f"{path}: holds {', '.join(map(str, names))}; step times are of one model: give its rows alone"
        )


def points_to_fit(table, path):
    """The points that no flag speaks against, of several tokens and that lack no size or time, all of one server."""
    needed = ["concurrency", *TOKEN_COLUMNS, "time_per_output_token_s"]
    numbers = np.column_stack(numeric_columns(table, needed, name=str(path)))
    is_flagged = np.zeros(len(table), dtype=bool)
    if "flags" in table:
        is_flagged = (table["flags"].notna() & ~table["flags"].astype(str).str.strip().isin(["", "[]"])).to_numpy()
    warn_missing(is_flagged, f"of {path} are flagged, and left out")
    is_missing = np.isnan(numbers).any(axis=1)
    warn_missing(is_missing, f"of {path} lack one of {', '.join(needed)}, and are left out")
    is_one = ~is_missing & (numbers[:, needed.index("num_output_tokens")] == 1)
    warn_missing(is_one, f"of {path} have a time per output token, yet one output token, and are left out")
    table = table[~is_flagged & ~is_missing & ~is_one].reset_index(drop=True)
    if table.empty:
        raise ValueError(f"{path}: no point is left")
    check_positive(**{name: table[name] for name in needed})
    if "time_to_first_token_s" in table:
        check_positive_or_missing(time_to_first_token_s=table["time_to_first_token_s"])
    for name in _SERVER_COLUMNS:
        if name in table and len(values := table[name].dropna().unique()) > 1:
            raise ValueError(
                f"{path}: holds points of {name} {', '.join(map(str, values))}; steps are of one server: give its rows "
                "alone"
            )
    return table
