"""Measurements of other tools as the frame of this project: nobody must measure again.

``import_requests`` gives one row a request, as :func:`idealized_runtime.records.read_requests` does for a log; where a
tool kept totals only, ``import_summary`` gives one row a quantity, as
:func:`idealized_runtime.api.statistics.summarize_requests` does. What the times of each tool mean stands in
:data:`idealized_runtime.records.definitions.DEFINITIONS`.
"""

from pathlib import Path

import pandas as pd

from idealized_runtime.api.statistics import LOAD, summarize_requests, summary_columns
from idealized_runtime.records.importers import aiperf, guidellm, vllm_bench
from idealized_runtime.records.importers.common import Imported, ImportFormatError

__all__ = ["ImportFormatError", "import_requests", "import_summary", "import_trials"]

_KNOWN = (
    "known are the results of `vllm bench serve` (JSON), reports of GuideLLM (JSON), exports of AIPerf "
    f"({aiperf.REQUESTS_FILE}, {aiperf.TOTALS_FILE}, their CSV, or the folder of them) and folders of HELM runs"
)


def import_requests(path, *, hardware: str | None = None) -> pd.DataFrame:
    """Requests that another tool timed, one a row.

    Parameters
    ----------
    path : path-like
        A result of ``vllm bench serve --save-result --save-detailed``, a JSON report of GuideLLM, AIPerf's
        ``profile_export.jsonl`` or its folder, or a folder of HELM runs; told apart by what they hold.
    hardware : str, optional
        What the model ran on, which none of them says.

    Returns
    -------
    DataFrame
        The columns of :func:`idealized_runtime.records.read_requests`. The sizes are those that the tool counted, of a
        failed request perhaps missing. ``definitions`` names what its times mean.

    Raises
    ------
    ImportFormatError
        It is none of these, or a field is missing or malformed; the message names file and field.
    FileNotFoundError
        There is no such file or folder.

    Warns
    -----
    MissingValueWarning
        HELM instances without runtime.
    """
    path = Path(path)
    if path.is_dir() and aiperf.requests_file(path) is None:
        from idealized_runtime.records.importers.helm_runs import import_runs

        return import_runs(path, hardware=hardware)
    return pd.concat([part.frame() for part in import_trials(path, hardware=hardware)], ignore_index=True)


def import_trials(path, *, hardware: str | None = None) -> list[Imported]:
    """The same requests as headers and trials of a log, one for each run in the file; HELM's have no times to log.

    Raises
    ------
    ImportFormatError, FileNotFoundError
        As :func:`import_requests`.
    """
    path = _requests_file(Path(path))
    if path.suffix == ".csv" and aiperf.is_csv(path.read_text(encoding="utf-8", errors="replace")):
        raise ImportFormatError(_totals_only(path))
    records = _read_records(path)
    if all(map(vllm_bench.is_result, records)):
        places = [str(path) if len(records) == 1 else f"{path}: result {index}" for index in range(len(records))]
        pairs = zip(records, places, strict=True)
        return [
            vllm_bench.import_result(record, where, repetition=number, hardware=hardware)
            for number, (record, where) in enumerate(pairs)
        ]
    if guidellm.is_report(records[0]):
        return [guidellm.import_report(records[0], str(path), hardware=hardware)]
    if aiperf.is_request(records[0]):
        return [aiperf.import_requests(path, hardware=hardware)]
    if aiperf.is_totals(records[0]):
        raise ImportFormatError(_totals_only(path))
    raise ImportFormatError(f"{path}: no known format; {_KNOWN}")


def _requests_file(path) -> Path:
    """The file itself, or that of the single requests in a folder."""
    found = aiperf.requests_file(path) if path.is_dir() else path
    if found is None:
        raise ImportFormatError(
            f"{path}: holds no {aiperf.REQUESTS_FILE} of AIPerf; HELM does not say when it sent its queries, and its "
            "runs are read without a log"
        )
    return found


def import_summary(path, *, hardware: str | None = None) -> pd.DataFrame:
    """Means and percentiles that another tool measured, one row a quantity.

    Parameters
    ----------
    path, hardware
        As for :func:`import_requests`; files of totals as well, without ``--save-detailed`` or as CSV.

    Returns
    -------
    DataFrame
        The columns of :func:`~idealized_runtime.api.statistics.summarize_requests`, over all sizes of a load. Totals
        have no intervals, only the percentiles that the tool wrote, and ``std`` over all values (ddof = 0); what is
        missing is NaN.

    Raises
    ------
    ImportFormatError, FileNotFoundError
        As :func:`import_requests`.
    """
    path = Path(path)
    if path.is_dir():
        return _summarize(import_requests(path, hardware=hardware))
    if path.suffix == ".csv":
        if not aiperf.is_csv(path.read_text(encoding="utf-8", errors="replace")):
            raise ImportFormatError(f"{path}: no known format; {_KNOWN}")
        return _totals_frame(aiperf.import_csv(path))
    records = _read_records(path)
    if aiperf.is_totals(records[0]):
        return _totals_frame(aiperf.import_totals(records[0], str(path)))
    if all(vllm_bench.is_result(record) and "itls" not in record for record in records):
        rows = [row for record in records for row in vllm_bench.import_totals(record, str(path))]
        return _totals_frame(rows)
    return _summarize(import_requests(path, hardware=hardware))


def _totals_only(path) -> str:
    return f"{path}: holds totals only; give {aiperf.REQUESTS_FILE} beside it, or read it with import_summary"


def _summarize(requests) -> pd.DataFrame:
    """By load, over all sizes, as the totals of other tools are."""
    return summarize_requests(requests, by=["model", *LOAD]).reindex(columns=summary_columns())


def _read_records(path) -> list[dict]:
    """Objects of a file: of one JSON text, or of each of several in a row."""
    try:
        records = vllm_bench.read_results(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ImportFormatError(f"{path}: not JSON in UTF-8 ({error}); {_KNOWN}") from error
    if not records:
        raise ImportFormatError(f"{path}: empty; {_KNOWN}")
    return records


def _totals_frame(rows) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    columns = summary_columns()
    return frame.reindex(columns=[*columns, *(name for name in frame if name not in columns)])
