"""What a sweep measured: a row a job, with its best setting."""

import warnings
from collections.abc import Mapping

import pandas as pd

from idealized_runtime.records import IncompleteLogWarning, LogFormatError, load_log, read_log
from megatron_lm.campaigns.execution import Outcome
from megatron_lm.campaigns.jobs import Job

_SIZE_COLUMNS = ["num_prompt_tokens", "num_output_tokens", "batch_size", "token_micro_batch_size"]
_BEST_DTYPES = {**dict.fromkeys(_SIZE_COLUMNS, "Int64"), "is_extrapolated": "boolean"}


def summarize(outcomes: Mapping[Job, Outcome]) -> pd.DataFrame:
    """One row a job of a sweep, by what its log holds.

    Returns
    -------
    DataFrame
        ``model, tensor_parallel_size, pipeline_parallel_size``; ``num_settings`` that were timed and
        ``num_failed_settings`` that did not fit; the longest query timed (most output tokens, then most
        prompt tokens), ``num_prompt_tokens, num_output_tokens``; its ``batch_size`` and
        ``token_micro_batch_size`` with the most ``output_tokens_per_s`` (batch size x output tokens /
        runtime, prompt encoding included), and ``is_extrapolated`` where slices of the layers were timed and
        not the whole model, all missing where none was timed; ``status, error, log``.
    """
    frame = pd.DataFrame([_row(job, outcome) for job, outcome in outcomes.items()])
    return frame.astype(_BEST_DTYPES)


def format_summary(summary: pd.DataFrame) -> str:
    """The table for a terminal, rounded; errors stand in the summary, and were said when they occurred."""
    is_extrapolated = summary["is_extrapolated"].fillna(False)
    table = pd.DataFrame(
        {
            "model": summary["model"],
            "T": summary["tensor_parallel_size"],
            "P": summary["pipeline_parallel_size"],
            "timed": summary["num_settings"],
            "failed": summary["num_failed_settings"],
            "prompt": summary["num_prompt_tokens"],
            "output": summary["num_output_tokens"],
            "B": summary["batch_size"],
            "k": summary["token_micro_batch_size"],
            "tokens/s": summary["output_tokens_per_s"].map("{:.4g}".format, na_action="ignore")
            + is_extrapolated.map({True: "*", False: ""}),
            "status": summary["status"],
            "log": summary["log"],
        }
    )
    # Missing integers would print as <NA>.
    text = table.astype(object).where(table.notna(), "-").to_string(index=False)
    return text + ("\n* extrapolated to the whole model from slices of its layers" if is_extrapolated.any() else "")


def _row(job, outcome) -> dict:
    timed, num_failed = _timed_settings(job)
    return {
        "model": job.model,
        "tensor_parallel_size": job.tensor_parallel_size,
        "pipeline_parallel_size": job.pipeline_parallel_size,
        "num_settings": len(timed),
        "num_failed_settings": num_failed,
        **_best_setting(timed),
        "status": outcome.status,
        "error": outcome.error,
        "log": str(job.log),
    }


def _timed_settings(job) -> tuple[pd.DataFrame, int]:
    """Frame of the settings that were timed, and the number of those that failed; a partial log counts as it is."""
    try:
        num_failed = sum("error" in setting for setting in load_log(job.log).settings)
    except (OSError, LogFormatError):
        return pd.DataFrame(), 0
    try:
        with warnings.catch_warnings():
            # What is missing stands in the columns beside.
            warnings.simplefilter("ignore", IncompleteLogWarning)
            return read_log(job.log), num_failed
    except LogFormatError:
        return pd.DataFrame(), num_failed


def _best_setting(timed) -> dict:
    if timed.empty:
        return dict.fromkeys([*_BEST_DTYPES, "output_tokens_per_s"], pd.NA)
    # Batches are compared on one query: of more output tokens, fewer a second are no worse.
    longest = timed[timed["num_output_tokens"] == timed["num_output_tokens"].max()]
    longest = longest[longest["num_prompt_tokens"] == longest["num_prompt_tokens"].max()]
    tokens_per_s = (longest["batch_size"] * longest["num_output_tokens"] / longest["runtime_s"]).astype(float)
    best = longest.loc[tokens_per_s.idxmax()]
    return {**best[[*_BEST_DTYPES]], "output_tokens_per_s": tokens_per_s.max()}
