"""Results of ``vllm bench serve --save-result --save-detailed``: a JSON object a run, several where it appended.

Read as vLLM 0.32 writes them, and as older ones did: ``endpoint_type`` was ``backend``; ``start_times`` and
``latencies`` came late, and the latter are the sums of ``ttfts`` and ``itls`` in files without them.
"""

import json
from datetime import UTC, datetime

import numpy as np

from idealized_runtime.records import definitions
from idealized_runtime.records.importers.common import (
    Fields,
    Imported,
    ImportFormatError,
    drop_missing,
    make_header,
    utc_text,
)

TOOL = "vllm bench serve"
_DETAILS = ("input_lens", "output_lens", "ttfts", "itls", "errors")
_QUANTITIES = {
    "ttft": "time_to_first_token_s",
    "tpot": "time_per_output_token_s",
    "itl": "inter_chunk_time_s",
    "e2el": "runtime_s",
}


def is_result(record) -> bool:
    """Whether an object of a JSON file is such a result."""
    if not isinstance(record, dict) or not {"model_id", "request_throughput"} <= record.keys():
        return False
    return "endpoint_type" in record or "backend" in record


def read_results(text: str) -> list[dict]:
    """Objects of a file: one, with ``--append-result`` one a line, or a list of them (``vllm bench sweep serve``)."""
    decoder, results, place = json.JSONDecoder(), [], 0
    while place < len(text):
        result, place = decoder.raw_decode(text, place)
        results.append(result)
        place += len(text[place:]) - len(text[place:].lstrip())
    return results[0] if len(results) == 1 and isinstance(results[0], list) else results


def import_result(result: dict, where: str, *, repetition: int = 0, hardware: str | None) -> Imported:
    """Requests of one result, which is so many-th of its file.

    Its clock starts anywhere: sending times are set so that the run ends at the file's ``date``, which has no time zone
    and is taken for UTC. Differences between them are exact.

    Raises
    ------
    ImportFormatError
        A field is missing or malformed, or the result holds no single requests.
    """
    fields = Fields(result, where, TOOL)
    if missing := [name for name in _DETAILS if name not in result]:
        raise ImportFormatError(
            f"{where}: field {missing[0]!r} is missing: the result holds no single requests; run {TOOL} with "
            "--save-detailed, or read its totals with import_summary"
        )
    lists = _lists(fields)
    header = make_header(
        fields.get("model_id", str),
        software="unknown",
        hardware=hardware or str(result.get("hardware", "unknown")),
        base_url="unknown",
        endpoint=fields.get("endpoint_type" if "endpoint_type" in result else "backend", str),
    )
    load = {**_load(fields, len(lists["errors"])), "repetition": repetition}
    return Imported(header, [_trial(fields, lists, index, load) for index in range(len(lists["errors"]))])


def import_totals(result: dict, where: str) -> list[dict]:
    """Rows of :func:`idealized_runtime.records.importers.import_summary`: means and percentiles of a result."""
    fields = Fields(result, where, TOOL)
    key = {"model": fields.get("model_id", str), **_load(fields, int(fields.number("num_prompts")))}
    rows = []
    for name, quantity in _QUANTITIES.items():
        if f"mean_{name}_ms" in result:
            rows.append({**key, "quantity": quantity, **_total(fields, name)})
    return rows


def _total(fields, name) -> dict:
    row = {
        "num_values": fields.get("completed", int) if name != "itl" else None,
        "mean": fields.number(f"mean_{name}_ms") / 1e3,
        "std": fields.number(f"std_{name}_ms") / 1e3,
        "p50": fields.number(f"median_{name}_ms") / 1e3,
    }
    ending = f"_{name}_ms"
    for field in fields.values:
        if field.startswith("p") and field.endswith(ending) and field[1 : -len(ending)].replace(".", "").isdigit():
            row[field.removesuffix(ending)] = fields.number(field) / 1e3
    return row


def _lists(fields) -> dict[str, list]:
    names = [*_DETAILS, *(name for name in ("latencies", "start_times") if name in fields.values)]
    lists = {name: fields.get(name, list) for name in names}
    if len(lengths := {name: len(values) for name, values in lists.items()}) and len(set(lengths.values())) > 1:
        raise ImportFormatError(f"{fields.where}: lists of one length each request; got {lengths}")
    return lists


def _load(fields, num_requests) -> dict:
    """Open at a finite rate; else closed, with all requests at once where nothing limits them."""
    limit = fields.get("max_concurrency", int, is_optional=True)
    if "ramp_up_strategy" in fields.values:
        # No single rate: it rises while requests are sent.
        return drop_missing({"load": "open", "num_parallel": limit})
    if fields.values.get("request_rate") != "inf":
        return drop_missing({"load": "open", "rate_per_s": float(fields.number("request_rate")), "num_parallel": limit})
    return {"load": "closed", "num_parallel": limit or num_requests}


def _trial(fields, lists, index, load) -> dict:
    request = Fields({name: values[index] for name, values in lists.items()}, f"{fields.where}[{index}]", TOOL)
    record = {
        "trial": index,
        "num_prompt_tokens": request.get("input_lens", int),
        **load,
        "sent_at": _sent_at(fields, lists, index),
        "definitions": definitions.VLLM,
    }
    if error := _error(request):
        return record | {"num_output_tokens": None, "error": {"type": "RequestError", "message": error}}
    return record | _times(request)


def _error(request) -> str:
    error = request.get("errors", str)
    if not error and request.number("ttfts") == 0 and request.get("output_lens", int) == 0:
        # Of a refused request vLLM keeps the reason in words, which a server may leave out.
        return "refused without a reason"
    return error


def _times(request) -> dict:
    chunk_times_s = np.cumsum([request.number("ttfts"), *request.get("itls", list)])
    runtime_s = request.number("latencies") if "latencies" in request.values else float(chunk_times_s[-1])
    num_output_tokens = request.get("output_lens", int)
    ttft_s = float(chunk_times_s[0])
    return {
        "num_output_tokens": num_output_tokens,
        "time_to_first_token_s": ttft_s,
        "runtime_s": runtime_s,
        "time_per_output_token_s": (runtime_s - ttft_s) / (num_output_tokens - 1) if num_output_tokens > 1 else None,
        "chunk_times_s": chunk_times_s.tolist(),
        "usage": {"prompt_tokens": request.get("input_lens", int), "completion_tokens": num_output_tokens},
    }


def _sent_at(fields, lists, index) -> str | None:
    if "start_times" not in lists:
        return None
    try:
        end = datetime.strptime(fields.get("date", str), "%Y%m%d-%H%M%S").replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise ImportFormatError(f"{fields.where}: field 'date' must be like 20260105-103000; {error}") from error
    starts_s = lists["start_times"]
    return utc_text(end - fields.number("duration") + starts_s[index] - min(starts_s))
