"""What a server did, or is to do: tables with a row a request, read, checked, or drawn at random."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from idealized_runtime.checks import (
    MissingValueWarning,
    check_columns,
    check_positive,
    check_positive_or_missing,
    numeric_columns,
    warn_missing,
)
from idealized_runtime.queries.tables import WEIGHT_COLUMN, read_queries
from idealized_runtime.records import TOKEN_COLUMNS, read_requests

TIMES = ("time_to_first_token_s", "runtime_s")
# Clocks of a server and its client differ, and an answer of one token ends a little after it.
_CLOCK_TOLERANCE = 1e-3
# What tools write into the error of a request that had none.
_NO_ERROR = ("", "false", "0", "none", "null", "nan")


def read_request_table(
    path: str | os.PathLike, *, columns: Mapping[str, str] | None = None, is_demand: bool = False
) -> pd.DataFrame:  # fmt: skip
    """Requests of a file, one a row, in its order.

    Parameters
    ----------
    path : path-like
        A table (.csv, .jsonl, .json, .parquet) or a log of ``api load`` or ``api profile``.
    columns : mapping of our name to theirs, optional
        As for :func:`~idealized_runtime.queries.tables.read_queries`.
    is_demand : bool
        Arrivals and sizes are what is asked for: what a server made of them, in times, errors or in its cache, is
        dropped.

    Returns
    -------
    DataFrame
        ``arrival_s`` (of a log, when each was sent, from the first of its run), ``num_prompt_tokens`` (without those
        that were cached), ``num_output_tokens``; where they are there ``time_to_first_token_s, runtime_s, error``;
        where there are several stretches between which the server was idle, ``run`` numbers them (of a log, its loads
        and rates). The requests of a log that keep up its load, before and after those that count, have no times.

    Raises
    ------
    ValueError
        A column is absent, times contradict each other (:func:`check_requests`), or no request is left.

    Warns
    -----
    MissingValueWarning
        As :func:`check_requests`; and requests of a log that a status refused, which never were in the server.
    """
    if is_log(path):
        requests = _of_log(path)
    else:
        requests = read_queries(path, columns=columns)
        if "arrival_s" not in requests:
            raise ValueError(
                f"{path}: no column arrival_s, when each request came, in seconds; there are: "
                f"{', '.join(requests.columns)}"
                ". Say what theirs is called by columns (--columns arrival_s=THEIRS)"
            )
    if is_demand:
        made = [*TIMES, "time_per_output_token_s", "num_cached_tokens", "error"]
        requests = requests.drop(columns=made, errors="ignore")
    return check_requests(requests, name=str(path))


def check_requests(requests: pd.DataFrame, *, name: str = "requests") -> pd.DataFrame:
    """The requests that were in a server; those that cannot be true are refused.

    Raises
    ------
    ValueError
        A size is no positive whole number, an arrival is absent, a time is infinite, more tokens were cached than a
        prompt has, a first token came before its request or after its end, an answer of one token took longer than its
        first token, or one of several less than its times per token; the message has the first such row.

    Warns
    -----
    MissingValueWarning
        Requests with an error or with cached prompt tokens, which are counted, stay without times: others waited for
        them. Of a prompt what was not cached is left, and failed requests without an arrival or a size are left out.
    """
    needed = ["arrival_s", *TOKEN_COLUMNS]
    check_columns(requests, needed, name=name)
    rows, number = np.arange(1, len(requests) + 1), len(requests)
    if "error" in requests:
        errors = requests["error"]
        has_failed = (errors.notna() & ~errors.astype(str).str.strip().str.lower().isin(_NO_ERROR)).to_numpy()
        if has_failed.any():
            is_known = np.all([values >= 1 for values in numeric_columns(requests, TOKEN_COLUMNS, name=name)], axis=0)
            is_out = has_failed & ~(is_known & requests["arrival_s"].notna().to_numpy())
            lost = f"; {is_out.sum()} of them without an arrival or a size are left out" if is_out.any() else ""
            said = (
                f"{name}: {has_failed.sum()} of {number} requests failed: they are in the server, without times{lost}"
            )
            warnings.warn(said, MissingValueWarning, stacklevel=2)
            requests = _without_times(requests, has_failed)[~is_out]
            rows = rows[~is_out]
    cached = np.zeros(len(requests))
    if "num_cached_tokens" in requests:
        cached = np.nan_to_num(numeric_columns(requests, ["num_cached_tokens"], name=name)[0])
        if (is_cached := cached > 0).any():
            warnings.warn(
                f"{name}: {is_cached.sum()} of {number} requests had prompt tokens in the server's cache: they are in "
                "the server with the rest of their prompts, without times", MissingValueWarning, stacklevel=2,
            )  # fmt: skip
            requests = _without_times(requests, is_cached)
    if requests.empty:
        raise ValueError(f"{name}: no request is left")
    present = [*needed, *(time for time in TIMES if time in requests)]
    values = dict(zip(present, numeric_columns(requests, present, name=name), strict=True))
    first_s, runtime_s = (values.get(time, np.full(len(requests), np.nan)) for time in TIMES)
    per_token_s = np.zeros(len(requests))
    if "time_per_output_token_s" in requests:
        per_token_s = numeric_columns(requests, ["time_per_output_token_s"], name=name)[0]
    tolerance_s = _CLOCK_TOLERANCE + 0.01 * runtime_s
    contradictions = {
        "has no arrival": ~np.isfinite(values["arrival_s"]),
        "has more cached tokens than its prompt": cached > values["num_prompt_tokens"],
        **{
            f"has a {column} that is no whole number of at least 1": ~(
                (values[column] >= 1) & (values[column] == np.floor(values[column]))
            )
            for column in TOKEN_COLUMNS
        },
        "has a time that is not finite": np.isinf(first_s) | np.isinf(runtime_s),
        "had its first token before it arrived (a negative time_to_first_token_s)": first_s < 0,
        "ended before it arrived (a runtime_s that is not positive)": runtime_s <= 0,
        "ended before its first token (runtime_s below time_to_first_token_s)": runtime_s < first_s - tolerance_s,
        "has one output token, yet took longer than its first token": (values["num_output_tokens"] == 1)
        & (runtime_s > 1.5 * first_s + 0.01),
        "has one output token, yet a time_per_output_token_s": (values["num_output_tokens"] == 1) & (per_token_s > 0),
        "has a time_per_output_token_s that its runtime_s is too short for": per_token_s
        * (values["num_output_tokens"] - 1)
        > runtime_s + tolerance_s,
    }
    for text, is_bad in contradictions.items():
        if np.any(is_bad):
            raise ValueError(
                f"{name}: request {rows[np.asarray(is_bad)][0]} {text}; {np.count_nonzero(is_bad)} of {len(requests)} "
                "do. Such times were not measured: correct them or take the rows out"
            )
    # One token of a prompt is always encoded: it gives the first of the answer.
    values["num_prompt_tokens"] = np.maximum(values["num_prompt_tokens"] - cached, 1)
    sizes = {column: values[column].astype(int) for column in TOKEN_COLUMNS}
    requests = requests.drop(columns="num_cached_tokens", errors="ignore")
    return requests.assign(**{**values, **sizes}).reset_index(drop=True)


def _without_times(requests, is_without):
    times = [time for time in (*TIMES, "time_per_output_token_s") if time in requests]
    return requests.assign(**{time: requests[time].mask(is_without) for time in times})


def random_requests(
    queries: pd.DataFrame,
    *,
    rate_per_s: float | None,
    num_requests: int,
    rng: int | np.random.Generator,
    burstiness: float = 1.0,
) -> pd.DataFrame:
    """Requests of these sizes that come at random.

    Parameters
    ----------
    queries : DataFrame
        ``num_prompt_tokens, num_output_tokens``, optional ``weight``: sizes are drawn with these shares, those that
        are missing never.
    rate_per_s : float or None
        Mean number a second; None is all at once, as for a closed loop, whose clients decide when they come.
    num_requests : int
    rng : Generator or seed
    burstiness : float
        Coefficient of variation of the times between arrivals, which are gamma distributed: 1 is a Poisson process, 0
        sends at equal distances, more comes in bursts.
    """
    check_positive(rate_per_s=1.0 if rate_per_s is None else rate_per_s, num_requests=num_requests)
    if not 0 <= burstiness < np.inf:
        raise ValueError(f"burstiness must be 0 or more; got {burstiness!r}")
    rng = np.random.default_rng(rng)
    p, o = numeric_columns(queries, TOKEN_COLUMNS, name="queries")
    check_positive_or_missing(num_prompt_tokens=p, num_output_tokens=o)
    is_missing = np.isnan(p + o)
    warn_missing(is_missing, "of the queries lack a size, and are not asked")
    weights = queries[WEIGHT_COLUMN].to_numpy(float) if WEIGHT_COLUMN in queries else np.ones(len(queries))
    weights = np.where(is_missing | np.isnan(weights), 0.0, weights)
    if not weights.sum() > 0:
        raise ValueError(f"none of {len(queries)} queries has sizes and a weight above 0: there is nothing to draw")
    rows = rng.choice(len(queries), num_requests, p=weights / weights.sum())
    gaps = np.ones(num_requests)
    if burstiness:
        gaps = rng.gamma(burstiness**-2, burstiness**2, num_requests)
    # A mix may have real means of sizes.
    sizes = queries[TOKEN_COLUMNS].iloc[rows].round().clip(lower=1).astype(int).reset_index(drop=True)
    return sizes.assign(arrival_s=0.0 if rate_per_s is None else (np.cumsum(gaps) - gaps[0]) / rate_per_s)


def is_log(path: str | os.PathLike) -> bool:
    """Whether a file is a timing log, which begins with a header, and not a table."""
    path = Path(path)
    if path.suffix != ".jsonl" or not path.is_file():
        return False
    with path.open("rb") as file:
        return b'"header"' in file.read(200)


def _of_log(path) -> pd.DataFrame:
    trials = read_requests(path)
    trials = trials[~(trials["is_warmup"] & trials["load"].isna())]
    # Of what a status refused nothing was generated.
    if (is_refused := trials["status"].ge(400).fillna(False).to_numpy(bool)).any():
        said = f"{path}: {is_refused.sum()} of {len(trials)} requests were refused, and are left out"
        warnings.warn(said, MissingValueWarning, stacklevel=3)
        trials = trials[~is_refused]
    # TTFT counts from sending, which a busy client may do late: the server knows of no other time.
    sent = trials["sent_at"].fillna(trials["scheduled_at"])
    # Of a profile, each request is alone with the server; of a load, those of one point and repetition share it.
    keys = ["load", "num_parallel", "rate_per_s", "repetition"]
    number = trials.groupby(keys, dropna=False, sort=False).ngroup()
    run = number.where(trials["load"].notna(), -np.arange(1, len(trials) + 1))
    arrival_s = (sent - sent.groupby(run).transform("min")).dt.total_seconds()
    return pd.DataFrame(
        {
            "arrival_s": arrival_s,
            **{name: trials[f"{name}_reported"].fillna(trials[name]) for name in TOKEN_COLUMNS},
            # Those before and after the counted ones were in the server, too.
            **{name: trials[name].mask(trials["is_warmup"]) for name in TIMES},
            "num_cached_tokens": trials["num_cached_prompt_tokens"],
            "error": trials["error_type"],
            "rate_per_s": trials["rate_per_s"],
            "run": run,
        }
    ).reset_index(drop=True)
