"""What each time of a request means: where the clock starts and stops, and what it is computed from.

Tools differ in these words, so each record names the definitions that its times follow: a key of
:data:`DEFINITIONS`.
"""

from dataclasses import dataclass

STREAMED = "client-streamed"
WHOLE = "client-whole"
# Of requests that other tools timed.
VLLM, GUIDELLM, AIPERF, HELM = IMPORTED = ("vllm-bench-serve", "guidellm", "aiperf", "helm")
# Of generation without a server.
IN_PROCESS = "in-process"


@dataclass(frozen=True)
class Definitions:
    """Meaning of each time of a request, in words."""

    clock_start: str
    runtime: str
    time_to_first_token: str
    time_per_output_token: str
    inter_chunk_times: str


_SEND = "just before the request is handed to the HTTP client; opening a connection counts"
DEFINITIONS = {
    STREAMED: Definitions(
        clock_start=_SEND,
        runtime="end-to-end: from the start of the clock to the end of the stream, [DONE] or the last byte",
        time_to_first_token="TTFT: from the start of the clock to the first event with non-empty text",
        time_per_output_token="TPOT: (time of the last event with text - time of the first) / "
        "(output tokens that the server reports - 1)",
        inter_chunk_times="ITL: between events with text; these are tokens if the server sends one in each event",
    ),
    WHOLE: Definitions(
        clock_start=_SEND,
        runtime="end-to-end: from the start of the clock to the last byte of the answer",
        time_to_first_token="none: the answer arrives as a whole",
        time_per_output_token="none: only a fit over several numbers of output tokens gives it",
        inter_chunk_times="none",
    ),
    IN_PROCESS: Definitions(
        clock_start="when the prompt's tokens are in memory and generation begins",
        runtime="end-to-end: until the last output token is there, as a number and not as text",
        time_to_first_token="TTFT: until the first output token is there",
        time_per_output_token="TPOT: (last - first output token) / (output tokens - 1)",
        inter_chunk_times="ITL: between output tokens",
    ),
    VLLM: Definitions(
        clock_start="just before the request is handed to aiohttp, once it has a place under --max-concurrency",
        runtime="end-to-end: until the last event with a choice, which may hold a finish reason and no text",
        time_to_first_token="TTFT: until the first event with a choice, even one of empty text",
        time_per_output_token="TPOT: (runtime - TTFT) / (output tokens - 1)",
        inter_chunk_times="ITL: between events with a choice, the last one without text included",
    ),
    GUIDELLM: Definitions(
        clock_start="when the request's headers are written: opening a connection is left out",
        runtime="end-to-end: until the stream has been closed",
        time_to_first_token="TTFT: until the first event with text",
        time_per_output_token="TPOT: (last - first event with text) / (output tokens - 1), which GuideLLM calls ITL; "
        "what it calls TPOT counts the first token",
        inter_chunk_times="none: GuideLLM keeps the first and the last only",
    ),
    AIPERF: Definitions(
        clock_start="just before the request is handed to aiohttp; a connection that must be opened first counts",
        runtime="end-to-end: until the last event with text",
        time_to_first_token="TTFT: until the first event with text",
        time_per_output_token="TPOT: (runtime - TTFT) / (output tokens - those of the first event); AIPerf's ITL",
        inter_chunk_times="ITL: between events with text",
    ),
    HELM: Definitions(
        clock_start="as HELM's client of the provider has it, around its call",
        runtime="end-to-end: until that call returns; of a batch where queries ran in one",
        time_to_first_token="none: HELM does not stream",
        time_per_output_token="none",
        inter_chunk_times="none",
    ),
}
