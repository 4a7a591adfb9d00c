"""Results of ``vllm bench serve --save-result --save-detailed``: a JSON object a run, several where it appended.

Read as vLLM 0.32 writes them, and as older ones did: ``endpoint_type`` was ``backend``; ``start_times`` and
``latencies`` came late, and the latter are the sums of ``ttfts`` and ``itls`` in files without them.
"""

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
_LATER_DETAILS = ("latencies", "start_times")
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
            "--save-detailed, or read its totals with a summary"
        )
    lists = {name: fields.get(name, list) for name in (*_DETAILS, *(name for name in _LATER_DETAILS if name in result))}
    if len(set(map(len, lists.values()))) > 1:
        lengths = {name: len(values) for name, values in lists.items()}
        raise ImportFormatError(f"{where}: lists of one length each request; got {lengths}")
    num_requests = len(lists["errors"])
    header = make_header(
        fields.get("model_id", str),
        hardware=hardware or str(result.get("hardware", "unknown")),
        endpoint=fields.get("endpoint_type" if "endpoint_type" in result else "backend", str),
    )
    load = {**_load(fields, num_requests), "repetition": repetition}
    starts_s = [None] * num_requests
    if "start_times" in lists:
        try:
            end = datetime.strptime(fields.get("date", str), "%Y%m%d-%H%M%S").replace(tzinfo=UTC).timestamp()
        except ValueError as error:
            raise ImportFormatError(f"{where}: field 'date' must be like 20260105-103000; {error}") from error
        starts_s = np.array(fields.durations("start_times"))
        starts_s = end - fields.number("duration") + starts_s - starts_s.min(initial=np.inf)
    trials = []
    for index, start_s in enumerate(starts_s):
        request = Fields({name: values[index] for name, values in lists.items()}, f"{where}[{index}]", TOOL)
        base = {"trial": index, **load, "sent_at": utc_text(start_s), "definitions": definitions.VLLM}
        trials.append(base | _measured(request))
    return Imported(header, trials)


def import_totals(result: dict, where: str) -> list[dict]:
    """Rows of :func:`idealized_runtime.records.importers.import_totals`: means and percentiles of a result."""
    fields = Fields(result, where, TOOL)
    key = {"model": fields.get("model_id", str), **_load(fields, int(fields.number("num_prompts")))}
    rows = []
    for name, quantity in _QUANTITIES.items():
        ending = f"_{name}_ms"
        if f"mean{ending}" not in result:
            continue
        columns = {"mean": "mean", "std": "std", "median": "p50"} | {
            field.removesuffix(ending): field.removesuffix(ending)
            for field in result
            if field.startswith("p") and field.endswith(ending) and field[1 : -len(ending)].replace(".", "").isdigit()
        }
        values = {column: fields.number(f"{theirs}{ending}", scale=1e3) for theirs, column in columns.items()}
        num_values = fields.get("completed", int) if name != "itl" else None
        rows.append({**key, "quantity": quantity, "num_values": num_values, **values})
    return rows


def _load(fields, num_requests) -> dict:
    """Open at a finite rate; else closed, with all requests at once where nothing limits them."""
    limit = fields.get("max_concurrency", int, is_optional=True)
    if "ramp_up_strategy" in fields.values:
        # No single rate: it rises while requests are sent.
        return drop_missing({"load": "open", "num_parallel": limit})
    if fields.values.get("request_rate") != "inf":
        return drop_missing({"load": "open", "rate_per_s": float(fields.number("request_rate")), "num_parallel": limit})
    return {"load": "closed", "num_parallel": limit or num_requests}


def _measured(request) -> dict:
    """Sizes and times of a request, or its error."""
    p, o, ttft_s = request.get("input_lens", int), request.get("output_lens", int), request.number("ttfts")
    error = request.get("errors", str)
    if error or (ttft_s == 0 and o == 0):
        # Of a refused request vLLM keeps the reason in words, which a server may leave out.
        error = {"type": "RequestError", "message": error or "refused without a reason"}
        return {"num_prompt_tokens": p, "num_output_tokens": None, "error": error}
    chunk_times_s = np.cumsum([ttft_s, *request.durations("itls")]).tolist()
    runtime_s = request.number("latencies") if "latencies" in request.values else chunk_times_s[-1]
    return {
        "num_prompt_tokens": p,
        "num_output_tokens": o,
        "time_to_first_token_s": float(ttft_s),
        "runtime_s": runtime_s,
        "time_per_output_token_s": (runtime_s - ttft_s) / (o - 1) if o > 1 else None,
        "chunk_times_s": chunk_times_s,
        "usage": {"prompt_tokens": p, "completion_tokens": o},
    }
