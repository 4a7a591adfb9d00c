"""Timing logs: what a measurement was taken on, and every trial of it.

A log is JSON Lines: a ``header`` (what was timed, and on what), one ``setting`` a line with every
trial unrounded, a ``footer`` with the count. Trials of a setting are spread over the sweep: those of a pass stand in a
``block`` until the ``setting`` has all of them; a sweep that chooses its settings as it goes notes in a ``guard`` what
it noticed between blocks, and which of them it set aside. Each line is flushed as it is written, so a run that is
killed loses at most the block it was in; a log without footer is incomplete. The log of an API holds
one ``trial`` a request instead, and before it that the request was ``sent``. The text that Megatron drivers
printed in 2023 (arXiv:2305.02440) reads into the same frame.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from idealized_runtime.records.common import (
    BATCH_COLUMNS,
    PARALLELISM_COLUMNS,
    SETTING_COLUMNS,
    TOKEN_COLUMNS,
    IncompleteLogWarning,
    LogFormatError,
    LogMismatchError,
    NothingTimedError,
    RepeatedSettingWarning,
    SliceWarning,
    setting_name,
    with_frame_dtypes,
)
from idealized_runtime.records.journal import Journal
from idealized_runtime.records.json_lines import load_log
from idealized_runtime.records.log import Log
from idealized_runtime.records.megatron_text import TextLog, parse_text_log
from idealized_runtime.records.requests import trial_key
from idealized_runtime.records.settings import SettingsLog, joined_blocks, runtime_sentence, setting_key
from idealized_runtime.records.validity import (
    Finding,
    ImplausibleLogError,
    SuspiciousLogWarning,
    check_log,
    log_findings,
)

__all__ = [
    "BATCH_COLUMNS",
    "PARALLELISM_COLUMNS",
    "SETTING_COLUMNS",
    "TOKEN_COLUMNS",
    "Finding",
    "ImplausibleLogError",
    "IncompleteLogWarning",
    "Journal",
    "LogFormatError",
    "LogMismatchError",
    "NothingTimedError",
    "RepeatedSettingWarning",
    "SliceWarning",
    "SuspiciousLogWarning",
    "joined_blocks",
    "load_log",
    "log_findings",
    "parse_log",
    "read_failures",
    "read_log",
    "read_requests",
    "read_trials",
    "runtime_sentence",
    "setting_key",
    "setting_name",
    "trial_key",
]


def read_log(path: str | os.PathLike, *, accept: Iterable[str] = ()) -> pd.DataFrame:
    """Timings of one log, JSON Lines or the text of 2023, one row a setting.

    Parameters
    ----------
    path : path-like
        A log of this project, or a published text log. The name of a text log's folder is its
        hardware; a registry row whose ``published_log`` is its stem names the model and says how
        many of its layers were profiled.
    accept : iterable of str
        Names of severe findings, as :func:`~idealized_runtime.records.validity.log_findings` has them, that are warned
        of and not refused.

    Returns
    -------
    DataFrame
        ``model, hardware, software, num_prompt_tokens, num_output_tokens, batch_size, micro_batch_size,
        token_micro_batch_size`` (sequences of the batch; prompts encoded together; sequences that generate a
        token together), ``tensor_parallel_size, pipeline_parallel_size``; ``runtime_s`` (mean over trials, of
        the whole batch and the whole model), ``runtime_std_s`` (ddof = 1; missing for a single trial),
        ``runtime_min_s``, ``num_trials``, ``num_disturbed`` (trials left out of these four because something
        else held the machine up, by the rule of :func:`read_trials`), ``runtime_resolution_s`` (0 where nothing
        was rounded), ``prompt_encoding_time_s``, ``generation_time_s`` and ``energy_joules`` (means; NaN where not
        recorded, joules also where the trials together lasted less than ten updates of their counter),
        ``num_layers_profiled`` (the smallest slice) and ``is_extrapolated`` (no slice was the whole model: times and
        energies are scaled with depth or, from several slices, on the line through them, and then
        ``runtime_std_s / sqrt(num_trials)`` is the standard error of its value); ``trial_runtimes_s`` and
        ``trial_starts_s``, tuples of all trials but the disturbed ones (None where not known, or of a line through
        slices). Text logs print neither the minimum nor the number of trials: missing there, as are the batch sizes,
        parallelism and layers of a text log without Megatron's arguments.

    Raises
    ------
    LogFormatError
        A line is cut or malformed, or the file holds no timing; the message has file and line.
    ImplausibleLogError
        The log cannot be true, or its numbers are wrong by a factor; the message has the findings.
    OSError
        The file is missing or is a folder.

    Warns
    -----
    IncompleteLogWarning
        No footer, settings that failed, or settings that lack a slice of the layers.
    SliceWarning
        The line through the slices is negative at no layers.
    RepeatedSettingWarning
        A text log repeats a setting; as in the authors' notebook the last one counts.
    SuspiciousLogWarning
        What was timed was disturbed, or the log lacks what its header announces.

    Examples
    --------
    >>> timings = read_log("logs/cpu/gpt2-small.jsonl")
    >>> timings[["num_prompt_tokens", "num_output_tokens", "num_trials"]].head(2)
       num_prompt_tokens  num_output_tokens  num_trials
    0                  1                  1          20
    1                  1                  2          20
    """
    return parse_log(path, accept=accept).frame()


def read_trials(path: str | os.PathLike, *, accept: Iterable[str] = ()) -> pd.DataFrame:
    """Timings of one JSON Lines log, one row a trial.

    Returns
    -------
    DataFrame
        ``model, hardware, software, num_prompt_tokens, num_output_tokens, batch_size, micro_batch_size,
        token_micro_batch_size, tensor_parallel_size, pipeline_parallel_size, num_layers_profiled, trial`` (from
        0), the ``runtime_s`` of that trial, of the whole model, its parts ``prompt_encoding_time_s`` and
        ``generation_time_s``, its ``energy_joules`` and ``trial_start_s``, by the wall clock (NaN where not recorded),
        and ``is_disturbed``: slower
        than 1.25 times the median of its setting and more than 5 standard deviations (from the median absolute
        deviation) above it, judged where there are 5 trials or more. Warm-ups are left out.

    Raises
    ------
    LogFormatError
        A line is cut or malformed, or no setting was timed; the message has the file, and the line.
    ValueError
        The log timed several slices of the layers: no trial tells the runtime of the whole model.

    Warns
    -----
    IncompleteLogWarning
        No footer, or settings that failed.

    Examples
    --------
    >>> trials = read_trials("logs/cpu/gpt2-small.jsonl")
    >>> len(trials), trials["runtime_s"].min().round(4).item()
    (480, 0.0201)
    """
    log = load_log(path)
    log.warn_if_partial()
    check_log(log, accept=accept)
    return log.trials_frame()


def read_failures(path: str | os.PathLike) -> pd.DataFrame:
    """Settings of one JSON Lines log that failed, such as those that ran out of memory; one row each.

    Returns
    -------
    DataFrame
        ``model``, the columns of a setting, ``num_layers_profiled, error_type, error_message``; no row where
        nothing failed.

    Raises
    ------
    LogFormatError
        A line is cut or malformed; the message has the file, and the line.
    """
    log = load_log(path)
    if not isinstance(log, SettingsLog):
        raise LogFormatError(f"{log.path}: a log of an API; read_requests has its failures")
    columns = ["model", *SETTING_COLUMNS, "num_layers_profiled", "error_type", "error_message"]
    rows = [
        (log.header["model"], *setting_key(setting), setting["error"]["type"], setting["error"].get("message"))
        for setting in log.failed
    ]
    return with_frame_dtypes(pd.DataFrame(rows, columns=columns))


def read_requests(path: str | os.PathLike, *, accept: Iterable[str] = ()) -> pd.DataFrame:
    """Every trial of a log of API trials, one row a request, warm-ups and failures included.

    Parameters
    ----------
    path : path-like
        A log that ``idealized-runtime api`` wrote.

    Returns
    -------
    DataFrame
        ``model, hardware, software``; ``num_prompt_tokens, num_output_tokens`` as asked for; ``trial`` (from 0),
        ``is_warmup`` (calibration included), ``block``; of a trial under load ``load`` (``"closed"``, ``"open"``),
        ``num_parallel``, ``rate_per_s``, ``repetition``, ``scheduled_at``; ``sent_at`` (UTC); ``time_to_connect_s``
        (missing where a connection was used again), ``time_to_headers_s``, ``time_to_first_token_s``, ``runtime_s``,
        ``time_per_output_token_s``, ``inter_chunk_times_s`` (an array a row), ``num_chunks`` (with text),
        ``is_held_back``, whether something on the way collected the stream
        (:func:`~idealized_runtime.records.requests.held_back`), which then has none of these but its runtime, as an
        answer that was not streamed has; ``num_prompt_tokens_reported, num_output_tokens_reported,
        num_cached_prompt_tokens`` from the server's usage; ``status, finish_reason``; ``model_reported``, as the
        answer names it; ``num_requests``, more than one where they were repeated; ``cost_usd``; ``error_type,
        error_message`` of a failure; ``deviations``, why a trial is left out of the fit, and ``notes``, what else was
        odd, both joined by commas; ``is_fit``, whether a fit uses the row; ``definitions``, which ones its times follow
        (:mod:`idealized_runtime.records.definitions`).

    Raises
    ------
    LogFormatError
        A line is cut or malformed, or the log times no API; the message has the file, and the line.

    Warns
    -----
    IncompleteLogWarning
        No footer, or trials that failed.

    Examples
    --------
    >>> requests = read_requests("logs/api/llama-27m-vllm-load.jsonl")
    >>> len(requests), requests["time_to_first_token_s"].median().round(4).item()
    (2282, 0.0797)
    """
    log = load_log(path)
    requests = log.requests_frame()
    log.warn_if_partial()
    check_log(log, accept=accept)
    return requests


def parse_log(path: str | os.PathLike, *, accept: Iterable[str] = ()) -> Log | TextLog:
    """A log, JSON Lines or the text of 2023, read, parsed and checked once.

    Returns
    -------
    Log or TextLog
        Both have ``frame()`` (that of :func:`read_log`), ``architecture()``, ``dtype`` and ``num_layers_scaled`` (None
        where the log does not tell), ``is_cuda`` and ``machine_rates`` (as the driver measured them).

    Raises
    ------
    LogFormatError
        As :func:`read_log`.
    """
    path = Path(path)
    with path.open("rb") as file:
        is_json = file.read(1) == b"{" or path.suffix == ".jsonl"
    log = load_log(path) if is_json else parse_text_log(path)
    check_log(log, accept=accept, stacklevel=4)
    return log
