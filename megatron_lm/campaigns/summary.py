"""What a campaign measured: a row a job, with its best setting and its fitted times beside the machine's floors."""

import contextlib
import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd

from idealized_runtime.measurements.floors import roofline_table
from idealized_runtime.measurements.timed_models import TimedModel, read_timed_model
from idealized_runtime.records.validity import SEVERE, SuspiciousLogWarning
from megatron_lm.campaigns.jobs import Job
from megatron_lm.campaigns.outcomes import Outcome

_BEST_DTYPES = {
    **dict.fromkeys(("num_prompt_tokens", "num_output_tokens", "batch_size", "token_micro_batch_size"), "Int64"),
    "is_extrapolated": "boolean",
}
_FLOOR_COLUMNS = (
    "time_per_output_token_ms", "token_floor_ms", "token_over_floor",
    "prompt_encoding_time_ms", "prompt_floor_ms", "prompt_over_floor",
)  # fmt: skip
# Of the table for a terminal.
_SHORT_NAMES = {
    "model": "model", "engine": "engine", "tensor_parallel_size": "T", "pipeline_parallel_size": "P",
    "num_settings": "timed", "num_failed_settings": "failed", "num_prompt_tokens": "prompt",
    "num_output_tokens": "output", "batch_size": "B", "token_micro_batch_size": "k",
    "output_tokens_per_s": "tokens/s", "is_extrapolated": "extrapolated", "time_per_output_token_ms": "ms/token",
    "token_over_floor": "/floor", "prompt_encoding_time_ms": "prompt ms", "prompt_over_floor": "/floor ",
    "joules_per_output_token": "J/token", "status": "status",
}  # fmt: skip


def summary_table(outcomes: Mapping[Job, Outcome]) -> pd.DataFrame:
    """One row a job, by what its log holds.

    Returns
    -------
    DataFrame
        ``model, engine, tensor_parallel_size, pipeline_parallel_size``; ``num_settings`` that were timed and
        ``num_failed_settings`` that were not; the longest query timed (most output tokens, then most prompt tokens),
        ``num_prompt_tokens, num_output_tokens``; its ``batch_size`` and ``token_micro_batch_size`` with the most
        ``output_tokens_per_s`` (batch size x output tokens / runtime, prompt encoding included), and
        ``is_extrapolated`` where slices of the layers were timed and not the whole model; at that prompt size and a
        batch of one the times of :func:`idealized_runtime.measurements.floors.roofline_table`, and
        ``joules_per_output_token``; ``findings``, what speaks against the log; ``status, error, log``. What was not
        timed, or cannot be fitted, is missing.
    """
    return pd.DataFrame([_row(job, outcome) for job, outcome in outcomes.items()]).astype(_BEST_DTYPES)


def shorten(summary: pd.DataFrame) -> pd.DataFrame:
    """The same in a few narrow columns, for a terminal; what says the same of every job is left out."""
    table = summary[[*_SHORT_NAMES]]
    same = [name for name in ("tensor_parallel_size", "pipeline_parallel_size") if (table[name] == 1).all()]
    same += [] if table["is_extrapolated"].any() else ["is_extrapolated"]
    return table.drop(columns=same).rename(columns=_SHORT_NAMES)


def _row(job, outcome) -> dict:
    log = job.read()
    num_failed = len(log.failed) if log else 0
    num_timed = len(log.records) - num_failed if log else 0
    missing = dict.fromkeys((*_BEST_DTYPES, "output_tokens_per_s"), pd.NA)
    missing.update(dict.fromkeys((*_FLOOR_COLUMNS, "joules_per_output_token"), np.nan))
    return {
        "model": job.model,
        "engine": job.engine,
        "tensor_parallel_size": job.tensor_parallel_size,
        "pipeline_parallel_size": job.pipeline_parallel_size,
        "num_settings": num_timed,
        "num_failed_settings": num_failed,
        **missing,
        "findings": "",
        **(_measured(job) if num_timed else {}),
        "status": outcome.status,
        "error": outcome.error,
        "log": str(job.log),
    }


def _measured(job) -> dict:
    """Best setting, fitted times beside their floors, and joules of a log that holds timings."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            model = read_timed_model(job.log, accept=SEVERE)
        except ValueError:
            # It was cut off before any setting had all of its slices.
            return {}
    best = _best_setting(model.runtimes)
    # What is missing stands in the columns beside.
    found = (str(it.message) for it in warned if issubclass(it.category, SuspiciousLogWarning))
    best["findings"] = "; ".join(text.removeprefix(f"{job.log}: ") for text in found)
    p = int(best["num_prompt_tokens"])
    best["joules_per_output_token"] = joules_per_output_token(model, p)
    # Without enough sizes of one sequence nothing is fitted.
    with contextlib.suppress(ValueError):
        best.update(roofline_table({job.name: model}, num_prompt_tokens=p).iloc[0][[*_FLOOR_COLUMNS]])
    return best


def _best_setting(timed) -> dict:
    # Batches are compared on one query: of more output tokens, fewer a second are no worse.
    longest = timed[timed["num_output_tokens"] == timed["num_output_tokens"].max()]
    longest = longest[longest["num_prompt_tokens"] == longest["num_prompt_tokens"].max()]
    tokens_per_s = (longest["batch_size"] * longest["num_output_tokens"] / longest["runtime_s"]).astype(float)
    best = longest.loc[tokens_per_s.idxmax()]
    return {**best[[*_BEST_DTYPES]], "output_tokens_per_s": tokens_per_s.max()}


def joules_per_output_token(model: TimedModel, num_prompt_tokens: int) -> float:
    """Measured joules of a further token of one sequence: longest generation over shortest; NaN if none was read."""
    runtimes = model.runtimes
    settings = runtimes[(runtimes["num_prompt_tokens"] == num_prompt_tokens) & (runtimes["batch_size"] == 1)]
    energies = settings.groupby("num_output_tokens")["energy_joules"].mean().dropna()
    if len(energies) < 2:
        return np.nan
    return float((energies.iloc[-1] - energies.iloc[0]) / (energies.index[-1] - energies.index[0]))
