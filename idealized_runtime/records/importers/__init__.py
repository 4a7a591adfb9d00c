"""Measurements of other tools as the frame of this project: nobody must measure again.

``import_requests`` gives one row a request, as :func:`idealized_runtime.records.read_requests` does for a log; where a
tool kept totals only, ``import_totals`` gives those. What the times of each tool mean stands in
:data:`idealized_runtime.records.definitions.DEFINITIONS`.
"""

import json
from pathlib import Path

import pandas as pd

from idealized_runtime.records.importers import aiperf, guidellm, vllm_bench
from idealized_runtime.records.importers.common import Imported, ImportFormatError

__all__ = ["ImportFormatError", "import_requests", "import_totals", "import_trials"]

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
    path = Path(path)
    if path.is_dir():
        if (found := aiperf.requests_file(path)) is None:
            raise ImportFormatError(
                f"{path}: holds no {aiperf.REQUESTS_FILE} of AIPerf; HELM does not say when it sent its queries, and "
                "its runs are read without a log"
            )
        path = found
    records = [] if path.suffix == ".csv" else _read_records(path)
    first = records[0] if records else None
    if vllm_bench.is_result(first):
        places = [str(path) if len(records) == 1 else f"{path}: result {index}" for index in range(len(records))]
        return [
            vllm_bench.import_result(record, where, repetition=number, hardware=hardware)
            for number, (record, where) in enumerate(zip(records, places, strict=True))
        ]
    if guidellm.is_report(first):
        return [guidellm.import_report(first, str(path), hardware=hardware)]
    if aiperf.is_request(first):
        return [aiperf.import_requests(path, hardware=hardware)]
    if import_totals(path):
        raise ImportFormatError(f"{path}: holds totals only; give {aiperf.REQUESTS_FILE} beside it, or summarise it")
    raise ImportFormatError(f"{path}: no known format; {_KNOWN}")


def import_totals(path) -> list[dict]:
    """Means and percentiles of a file that holds nothing else, a row a quantity.

    Returns
    -------
    list of dict
        ``quantity``, and of it what the tool wrote: ``num_values, mean, std`` over all values (ddof = 0), ``minimum,
        maximum``, percentiles such as ``p99``; ``model`` and load where the file names them. Empty where it holds
        single requests.

    Raises
    ------
    ImportFormatError, FileNotFoundError
        As :func:`import_requests`.
    """
    path = Path(path)
    if path.is_dir():
        return []
    if path.suffix == ".csv":
        if not aiperf.is_csv(path.read_text(encoding="utf-8", errors="replace")):
            raise ImportFormatError(f"{path}: no known format; {_KNOWN}")
        return aiperf.import_csv(path)
    records = _read_records(path)
    if aiperf.is_totals(records[0]):
        return aiperf.import_totals(records[0], str(path))
    if all(vllm_bench.is_result(record) and "itls" not in record for record in records):
        return [row for record in records for row in vllm_bench.import_totals(record, str(path))]
    return []


def _read_records(path) -> list:
    """Objects of a file: of one JSON text, of several in a row, or of a list of them."""
    decoder, records, place = json.JSONDecoder(), [], 0
    try:
        text = path.read_text(encoding="utf-8")
        while place < len(text):
            record, place = decoder.raw_decode(text, place)
            records.append(record)
            place = json.decoder.WHITESPACE.match(text, place).end()
    except ValueError as error:
        raise ImportFormatError(f"{path}: not JSON in UTF-8 ({error}); {_KNOWN}") from error
    # `vllm bench sweep serve` writes a list.
    if len(records) == 1 and isinstance(records[0], list):
        records = records[0]
    if not records:
        raise ImportFormatError(f"{path}: empty; {_KNOWN}")
    return records
