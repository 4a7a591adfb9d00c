"""What a campaign measured, beside the floors of the machine: a row a job."""

import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd

from idealized_runtime.measurements.floors import roofline_table
from idealized_runtime.measurements.timed_models import TimedModel, read_timed_model
from idealized_runtime.records import IncompleteLogWarning, LogFormatError, load_log
from megatron_lm.campaigns.campaign_jobs import CampaignJob
from megatron_lm.campaigns.execution import Outcome

# Of the prompt that is compared with its floor, where a model was timed at one so long.
_NUM_PROMPT_TOKENS = 2048


def summarize(outcomes: Mapping[CampaignJob, Outcome]) -> pd.DataFrame:
    """One row a job, by what its log holds.

    Returns
    -------
    DataFrame
        ``model, engine``; ``num_settings`` that were timed and ``num_failed_settings``; the columns of
        :func:`idealized_runtime.measurements.floors.roofline_table` at 2048 prompt tokens, or the most that were timed;
        ``joules_per_output_token`` at that prompt size; ``status, error, log``. What could not be fitted or read
        is missing, and ``error`` says why.
    """
    return pd.DataFrame([_row(job, outcome) for job, outcome in outcomes.items()])


def format_summary(summary: pd.DataFrame) -> str:
    """The table for a terminal, rounded."""
    table = pd.DataFrame(
        {
            "model": summary["model"],
            "engine": summary["engine"],
            "timed": summary["num_settings"],
            "failed": summary["num_failed_settings"],
            "ms/token": _rounded(summary["time_per_output_token_ms"]),
            "/floor": _rounded(summary["token_over_floor"]),
            "prompt": summary["num_prompt_tokens"].astype("Int64"),
            "ms": _rounded(summary["prompt_encoding_time_ms"]),
            "/floor ": _rounded(summary["prompt_over_floor"]),
            "J/token": _rounded(summary["joules_per_output_token"]),
            "status": summary["status"],
        }
    )
    # Missing integers would print as <NA>.
    return table.astype(object).where(table.notna(), "-").to_string(index=False)


def _rounded(values) -> pd.Series:
    return values.astype(float).map("{:.3g}".format, na_action="ignore")


def _row(job, outcome) -> dict:
    settings = _settings(job)
    num_failed = sum("error" in setting for setting in settings)
    return {
        "model": job.model,
        "engine": job.engine,
        "num_settings": len(settings) - num_failed,
        "num_failed_settings": num_failed,
        **(beside := _beside_floors(job)),
        "status": outcome.status,
        "error": outcome.error or beside["error"],
        "log": str(job.log),
    }


def _settings(job) -> list[dict]:
    try:
        return load_log(job.log).settings
    except (OSError, LogFormatError):
        return []


def _beside_floors(job) -> dict:
    """Fitted times, their floors and joules; missing where a log cannot be fitted, and ``error`` says why."""
    missing = dict.fromkeys(
        ("time_per_output_token_ms", "token_floor_ms", "token_over_floor", "num_prompt_tokens",
         "prompt_encoding_time_ms", "prompt_floor_ms", "prompt_over_floor", "joules_per_output_token"), np.nan,
    )  # fmt: skip
    try:
        with warnings.catch_warnings():
            # What is missing stands in the columns beside.
            warnings.simplefilter("ignore", IncompleteLogWarning)
            model = read_timed_model(job.log)
            p = min(_NUM_PROMPT_TOKENS, int(model.fit.num_prompt_tokens[-1]))
            row = roofline_table({job.name: model}, num_prompt_tokens=p).iloc[0].to_dict()
    except (OSError, ValueError) as error:
        return {**missing, "error": str(error)}
    return {"error": "", **missing, **row, "joules_per_output_token": joules_per_output_token(model, p)}


def joules_per_output_token(model: TimedModel, num_prompt_tokens: int) -> float:
    """Measured joules of a further output token: of the longest generation over the shortest; NaN if none was read."""
    settings = model.runtimes[model.runtimes["num_prompt_tokens"] == num_prompt_tokens]
    energies = settings.groupby("num_output_tokens")["energy_joules"].mean().dropna()
    if len(energies) < 2:
        return np.nan
    return float((energies.iloc[-1] - energies.iloc[0]) / (energies.index[-1] - energies.index[0]))
