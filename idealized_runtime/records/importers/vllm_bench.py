"""Results of ``vllm bench serve --save-result --save-detailed``: a JSON object a run, several where it appended.

Read as vLLM 0.32 writes them, and as older ones did: ``endpoint_type`` was ``backend``; ``start_times`` and
``latencies`` came late, and the latter are the sums of ``ttfts`` and ``itls`` in files without them.
"""

import math
from datetime import UTC, datetime

import numpy as np

from idealized_runtime.records import definitions
from idealized_runtime.records.importers.common import (
    Fields,
    ImportFormatError,
    Run,
    drop_missing,
    make_header,
    measured,
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
    if not isinstance(record, dict) or not {"model_id", "num_prompts", "request_throughput"} <= record.keys():
        return False
    return "endpoint_type" in record or "backend" in record


def import_result(result: dict, where: str, *, hardware: str | None) -> Run:
    """A result, with its requests where it holds them.

    Its clock starts anywhere: sending times are set so that the run ends at the file's ``date``, which has no time zone
    and is taken for UTC. Differences between them are exact.

    Raises
    ------
    ImportFormatError
        A field is missing or malformed.
    """
    fields = Fields(result, where, TOOL)
    lists = {name: fields.get(name, list) for name in (*_DETAILS, *_LATER_DETAILS) if name in result}
    # Totals may come with the latencies alone.
    if "itls" not in lists:
        lists = {}
    elif missing := [name for name in _DETAILS if name not in lists]:
        raise ImportFormatError(f"{where}: field {missing[0]!r} is missing; {TOOL} writes it beside 'itls'")
    if len(set(map(len, lists.values()))) > 1:
        lengths = {name: len(values) for name, values in lists.items()}
        raise ImportFormatError(f"{where}: lists of one length each request; got {lengths}")
    num_prompts, num_failed = fields.count("num_prompts"), fields.count("failed", is_optional=True)
    if (completed := fields.count("completed", is_optional=True)) is not None:
        if completed > num_prompts:
            raise ImportFormatError(f"{where}: field 'completed' is {completed}, of 'num_prompts' {num_prompts}")
        # Older ones count no failures.
        num_failed = num_prompts - completed if num_failed is None else num_failed
    header = make_header(
        fields.name("model_id"),
        hardware=hardware or fields.name("hardware", is_optional=True),
        endpoint=fields.name("endpoint_type" if "endpoint_type" in result else "backend"),
    )
    duration_s = fields.duration("duration")
    return Run(
        where,
        TOOL,
        header,
        _load(fields, num_prompts),
        trials=_trials(lists, fields, duration_s) if lists else [],
        totals=_totals(fields, completed) if completed != 0 else [],
        counts={
            "num_requests": num_prompts,
            "num_failed": num_failed,
            "num_prompt_tokens": fields.count("total_input_tokens", is_optional=True),
            "num_output_tokens": fields.count("total_output_tokens", is_optional=True),
            "duration_s": duration_s,
            "requests_per_s": fields.duration("request_throughput"),
            "output_tokens_per_s": fields.duration("output_throughput", is_optional=True),
        },
    )


def _trials(lists, fields, duration_s) -> list[dict]:
    starts_s = [None] * len(lists["errors"])
    if "start_times" in lists:
        try:
            end = datetime.strptime(fields.get("date", str), "%Y%m%d-%H%M%S").replace(tzinfo=UTC).timestamp()
        except ValueError as error:
            raise ImportFormatError(f"{fields.where}: field 'date' must be like 20260105-103000; {error}") from error
        starts_s = np.array(fields.durations("start_times"), dtype=float)
        starts_s = end - duration_s + starts_s - starts_s.min(initial=np.inf)
        if len(starts_s) and np.ptp(starts_s) > 1.5 * duration_s + 1:
            raise ImportFormatError(
                f"{fields.where}: requests were sent over {np.ptp(starts_s):.4g} s, of a run of {duration_s:.4g} s"
            )
    trials = []
    for index, start_s in enumerate(starts_s):
        request = Fields({name: values[index] for name, values in lists.items()}, fields, TOOL, f"[{index}]")
        trial = {"trial": index, "sent_at": utc_text(start_s), "definitions": definitions.VLLM}
        trials.append(trial | _measured(request))
    return trials


def _totals(fields, completed) -> list[dict]:
    rows = []
    for name, quantity in _QUANTITIES.items():
        ending = f"_{name}_ms"
        if f"mean{ending}" not in fields.values:
            continue
        columns = {"mean": "mean", "std": "std", "median": "p50"} | {
            field.removesuffix(ending): field.removesuffix(ending)
            for field in fields.values
            if field.startswith("p") and field.endswith(ending) and field[1 : -len(ending)].replace(".", "").isdigit()
        }
        values = {column: fields.duration(f"{theirs}{ending}", scale=1e3) for theirs, column in columns.items()}
        rows.append({"quantity": quantity, "num_values": completed if name != "itl" else None, **values})
    return rows


def _load(fields, num_requests) -> dict:
    """Open at a finite rate; else closed, with all requests at once where nothing limits them."""
    limit = fields.count("max_concurrency", is_optional=True)
    if "ramp_up_strategy" in fields.values:
        # No single rate: it rises while requests are sent.
        return drop_missing({"load": "open", "num_parallel": limit})
    if fields.values.get("request_rate") not in ("inf", math.inf):
        return drop_missing({"load": "open", "rate_per_s": float(fields.number("request_rate")), "num_parallel": limit})
    return {"load": "closed", "num_parallel": limit or num_requests}


def _measured(request) -> dict:
    """Sizes and times of a request, or its error."""
    p, o, ttft_s = request.count("input_lens"), request.count("output_lens"), request.duration("ttfts")
    error = request.get("errors", str)
    if error or (ttft_s == 0 and o == 0):
        # Of a refused request vLLM keeps the reason in words, which a server may leave out.
        error = {"type": "RequestError", "message": error or "refused without a reason"}
        return {"num_prompt_tokens": p, "num_output_tokens": None, "error": error}
    chunk_times_s = np.cumsum([ttft_s, *request.durations("itls")]).tolist()
    runtime_s = request.duration("latencies") if "latencies" in request.values else chunk_times_s[-1]
    tpot_s = (runtime_s - ttft_s) / (o - 1) if o > 1 else None
    return measured(request, p=p, o=o, runtime_s=runtime_s, ttft_s=ttft_s, tpot_s=tpot_s, chunk_times_s=chunk_times_s)
