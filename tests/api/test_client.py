"""One request to servers that differ: what is read, recorded, retried or refused."""

import asyncio
import gzip
import json
import tracemalloc
import zlib
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from api_server import (
    CUT,
    DONE,
    END,
    ApiServer,
    chunk,
    event,
    head,
    json_answer,
    refusal,
    stream,
    text_event,
    well_behaved,
    whole,
)

from idealized_runtime.api.answers import CUT_ERROR, UNREADABLE_ERROR, Answer, AnswerError, AnswerReader
from idealized_runtime.api.budget import Budget, BudgetSpentError, Prices
from idealized_runtime.api.client import ApiClient, ExposedKeyWarning
from idealized_runtime.api.endpoint import Endpoint, read_key
from idealized_runtime.api.trials import RefusedError, Retries, TrialSender, judge, retry_after_s

KEY = "sk-very-secret"
TRIAL = {"num_prompt_tokens": 3, "num_output_tokens": 4, "trial": 0, "is_warmup": False}
QUICK = Retries(max_retries=2, first_wait_s=0.01)


def ask(*behaviours, retries=QUICK, budget=None, num_times=1, **endpoint):
    """Records of one or more trials, and the server with the requests that it got."""
    records = []

    async def send(server):
        options = {"base_url": server.base_url, "model": "tiny", "api_key": KEY, "timeout_s": 10, **endpoint}
        async with ApiClient(Endpoint(**options)) as client:
            sender = TrialSender(client, budget or Budget(), retries)
            for number in range(num_times):
                await sender.send(
                    lambda attempt: f"one two {'xyz'[attempt]}", TRIAL | {"trial": number}, records.append
                )

    with ApiServer(list(behaviours)) as server:
        try:
            asyncio.run(send(server))
        except (RefusedError, BudgetSpentError) as error:
            server.stopped = error
    return (records[0] if num_times == 1 and len(records) == 1 else records), server


def test_stream_gives_all_times_in_order():
    record, _ = ask(lambda request: well_behaved(request, first_s=0.05, next_s=0.02))
    times_s = record["chunk_times_s"]
    assert len(times_s) == 4
    assert record["time_to_first_token_s"] == times_s[0] >= 0.05
    assert times_s == sorted(times_s)
    assert times_s[-1] - times_s[0] >= 0.055
    assert 0 < record["time_to_connect_s"] < record["time_to_headers_s"] < times_s[0]
    assert record["runtime_s"] >= times_s[-1]
    assert (record["status"], record["finish_reason"], record["definitions"]) == (200, "length", "client-streamed")
    assert "deviations" not in record
    assert "error" not in record


def test_connection_is_used_again():
    records, _ = ask(well_behaved, num_times=2)
    assert ["time_to_connect_s" in record for record in records] == [True, False]


def test_whole_answer_has_no_time_to_first_token():
    record, server = ask(well_behaved, is_streaming=False)
    assert server.requests[0].body["stream"] is False
    assert (record["definitions"], record["finish_reason"]) == ("client-whole", "length")
    assert record["runtime_s"] > 0
    assert not {"time_to_first_token_s", "chunk_times_s", "notes"} & set(record)


def test_request_says_what_the_endpoint_says():
    _, server = ask(
        well_behaved, forcings=("ignore_eos", "min_tokens", "logit_bias"), eos_token_ids=(7,), temperature=0
    )
    (request,) = server.requests
    assert request.path == "/v1/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "tiny", "prompt": "one two x", "max_tokens": 4, "stream": True,
        "stream_options": {"include_usage": True}, "temperature": 0, "ignore_eos": True, "min_tokens": 4,
        "logit_bias": {"7": -100},
    }  # fmt: skip


def test_chat_text_and_thoughts_are_text():
    says = [{"role": "assistant", "content": ""}, {"reasoning_content": "hm"}, {"content": "a"}, {"content": "b"}, {}]
    events = [event({"choices": [{"delta": delta, "finish_reason": None}]}) for delta in says]
    record, server = ask(stream(*events, event({"choices": [{"delta": {}, "finish_reason": "length"}]}), DONE),
                         protocol="chat", max_tokens_field="max_completion_tokens")  # fmt: skip
    assert server.requests[0].path == "/v1/chat/completions"
    assert server.requests[0].body["messages"] == [{"role": "user", "content": "one two x"}]
    assert server.requests[0].body["max_completion_tokens"] == 4
    assert len(record["chunk_times_s"]) == 3


# Streams that differ, and are all read.

FOUR = [text_event()] * 3 + [text_event(finish_reason="length")]
USAGE = {"prompt_tokens": 3, "completion_tokens": 4}
USED = event({"choices": [], "usage": USAGE})
HTML = "text/html"


def notes_of(record):
    """Without that of a stream whose events come at once, as nearly all of these do."""
    return [note for note in record.get("notes", []) if not note.startswith("held back")]


def four_that_end(end):
    """Four events with text, usage and [DONE], each ended so."""
    last = text_event(finish_reason="length", usage=USAGE, end=end)
    return [*[text_event(end=end)] * 3, last, event("[DONE]", end)]


ODD_STREAMS = {
    "no done": (stream(*FOUR, USED), "no [DONE]"),
    "comments": (stream(b": ping\n\n", FOUR[0], b":\n", *FOUR[1:], USED, DONE), "2 comment lines"),
    "empty choices": (stream(event({"choices": []}), *FOUR, event({"choices": None, "usage": USAGE}), DONE), None),
    "no usage": (stream(*FOUR, DONE), "no usage"),
    "usage everywhere": (stream(*[text_event(finish_reason="length", usage=USAGE)] * 4, DONE), None),
    "two tokens a chunk": (stream(text_event("aa"), text_event("aa", "length"), USED, DONE), "2 events with text"),
    "wrong content type": (stream(*FOUR, USED, DONE, content_type=HTML), "content type text/html"),
    "one line end": (stream(*four_that_end("\n")), None),
    "carriage returns": (stream(*four_that_end("\r\n\r\n")), None),
    "old carriage returns": (stream(*four_that_end("\r\r")), None),
    "other fields": (stream(b"\xef\xbb\xbfevent: completion\nid: 1\nretry: 5\n", *FOUR, USED, DONE), None),
    "http 1.0": (stream(*FOUR, USED, DONE, is_chunked=False), None),
    "last line not ended": (stream(*FOUR, USED, b"data: [DONE]"), None),
    "whole": (whole, "answered whole though a stream was asked for"),
}


@pytest.mark.parametrize(("behaviour", "note"), ODD_STREAMS.values(), ids=ODD_STREAMS)
def test_stream_that_differs_is_read_and_noted(behaviour, note):
    record, _ = ask(behaviour)
    assert "error" not in record
    assert "deviations" not in record
    assert notes_of(record) == ([note] if note else [])


def stuttering(*sizes, wait_s=0.03):
    """A stream of tokens in pieces of so many, each sent at once, with usage."""

    def behave(request):
        yield head()
        events = [text_event(finish_reason="length")] * sum(sizes)
        for size in sizes:
            yield wait_s
            yield chunk(b"".join(events[:size]))
        yield chunk(event({"choices": [], "usage": USAGE | {"completion_tokens": sum(sizes)}})) + chunk(DONE) + END

    return behave


@pytest.mark.parametrize(
    ("sizes", "is_held_back"),
    [((4,), True), ((4, 4), True), ((2, 2), False), ((16, 16), True), ((8, 8, 8, 8), True), ((5, 1, 6), True),
     ((2,), True), ((1, 1, 1, 1), False), ((1, 3), False), ((1,), False), ((2, 1, 1, 1, 1), False),
     ((1, 3, 2, 4), False)],
)  # fmt: skip
def test_stream_that_is_held_back_has_no_time_to_first_token(sizes, is_held_back):
    record, _ = ask(stuttering(*sizes))
    assert ("time_to_first_token_s" not in record) == is_held_back
    said = [note for note in record.get("notes", []) if note.startswith("held back on the way")]
    pieces = f"{sum(sizes)} tokens came in {len(sizes)} piece"
    assert [pieces in note for note in said] == [True] * is_held_back
    assert "runtime_s" in record


def test_event_in_many_pieces_is_read_when_it_is_whole():
    reader = AnswerReader(Answer("now", headers={"content-type": "text/event-stream"}), is_streaming=True)
    contents = text_event("ä") + text_event("b", "length") + DONE
    for index in range(len(contents)):
        reader.feed(contents[index : index + 1], float(index))
    reader.close(1e3)
    assert reader.answer.chunk_times_s == [
        len(text_event("ä")) - 2,
        len(text_event("ä") + text_event("b", "length")) - 2,
    ]
    assert reader.answer.runtime_s == len(contents) - 2


def test_event_over_several_data_lines_is_one_event():
    reader = AnswerReader(Answer("now", headers={"content-type": "text/event-stream"}), is_streaming=True)
    reader.feed(b'data: {"choices": [{"text": "a",\ndata: "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n', 1.0)
    assert (reader.answer.chunk_times_s, reader.answer.finish_reason) == ([1.0], "stop")


# Trials that deviate are kept and say why.

CACHED = [
    {"cached_tokens": 3},
    {"prompt_cache_hit_tokens": 3, "prompt_cache_miss_tokens": 0},
    {"cache_read_input_tokens": 3, "cache_creation_input_tokens": 9},
    {"input_tokens_details": {"cached_tokens": 3}},
    {"cachedContentTokenCount": 3},
    {"cacheReadInputTokens": 3},
    {"num_cached_tokens": 3.0},
    {"details": {"prompt": {"cached_prompt_tokens": 3}}},
    {"input_token_details": {"cache_read": 3}},
    {"prompt_tokens_details": {"cached": 3}},
    {"prompt_tokens_cached": 3},
    {"cached_tokens": 0, "prompt_tokens_details": {"cached_tokens": 3}},
]
UNCACHED = [
    {"prompt_cache_miss_tokens": 3},
    {"cache_creation_input_tokens": 3},
    {"cached_tokens": None},
    {"cached_tokens": "3"},
    {"cached_tokens": [3]},
    {"cache_write_tokens": 3},
    {"input_token_details": {"cache_creation": 3}},
    {"cache_hit_rate": 3},
]


@pytest.mark.parametrize("usage", UNCACHED)
def test_tokens_that_no_cache_held_are_no_deviation(usage):
    record, _ = ask(stream(*FOUR, event({"choices": [], "usage": USAGE | usage}), DONE))
    assert "deviations" not in record


@pytest.mark.parametrize(
    "fields",
    [
        {"choices": [{"text": "", "usage": {**USAGE, "cached_tokens": 3}}]},
        {"choices": [], "x_groq": {"usage": {**USAGE, "cached_tokens": 3}}},
        {"choices": [], "usage": USAGE, "timings": {"cache_n": 3}},
    ],
)
def test_usage_is_found_where_servers_put_it(fields):
    record, _ = ask(stream(*FOUR, event(fields), DONE))
    assert record["deviations"] == ["3 prompt tokens cached"]


def test_answer_of_a_cache_before_the_server_is_a_deviation():
    record, _ = ask(lambda _: iter([head(X_Cache_Status="HIT"), *map(chunk, [*FOUR, USED, DONE]), END]))
    assert record["deviations"] == ["answered from a cache, by x-cache-status: HIT"]


@pytest.mark.parametrize(
    ("usage", "finish_reason", "deviation"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 2}, "stop", "2 output tokens reported"),
        ({"prompt_tokens": 9, "completion_tokens": 4}, "length", "9 prompt tokens reported"),
        (None, "stop", "number of output tokens not known"),
        ({"prompt_tokens": 3}, "stop", "number of output tokens not known"),
        ({**USAGE, "prompt_tokens_details": {"cached_tokens": 3}}, "length", "3 prompt tokens cached"),
        *(({**USAGE, **cached}, "length", "3 prompt tokens cached") for cached in CACHED),
    ],
)
def test_deviating_trial_is_flagged(usage, finish_reason, deviation):
    record, _ = ask(
        stream(*FOUR[:3], text_event(finish_reason=finish_reason), event({"choices": [], "usage": usage}), DONE)
    )
    assert record["deviations"] == [deviation]
    assert "error" not in record


def test_cached_tokens_that_every_prompt_shares_are_no_deviation():
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 12}}
    record = TRIAL | {"usage": usage, "runtime_s": 1.0, "definitions": "client-streamed"}
    assert "deviations" not in judge(record | {"num_shared_tokens": 10})
    assert "deviations" in judge(record | {"num_shared_tokens": 9})


# Faults that a wait may mend are retried, others are errors.


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 529])
def test_busy_server_is_asked_again(status):
    record, server = ask(refusal(status, "busy"), refusal(status, "busy"), well_behaved)
    assert "error" not in record
    assert record["num_requests"] == len(server.requests) == 3
    assert [attempt["status"] for attempt in record["attempts"]] == [status, status]
    assert "busy" in record["attempts"][0]["error"]["message"]


def test_repeated_request_is_not_the_same():
    _, server = ask(refusal(503), well_behaved)
    assert [request.prompt for request in server.requests] == ["one two x", "one two y"]


def test_waits_double_without_a_wish_of_the_server():
    answer = Answer("now", status=503, error={"type": "StatusError", "message": ""})
    waits_s = [Retries(max_retries=9, first_wait_s=1, max_wait_s=5).wait_s(number, answer) for number in range(1, 6)]
    for wait_s, expected_s in zip(waits_s, [1, 2, 4, 5, 5], strict=True):
        assert 0.75 * expected_s <= wait_s <= 1.25 * expected_s
    assert Retries(max_retries=9).wait_s(10, answer) is None


def test_server_says_how_long_to_wait():
    record, server = ask(refusal(429, "slow down", Retry_After="0.3"), well_behaved)
    assert server.requests[1].received_s - server.requests[0].received_s >= 0.3
    assert record["attempts"][0]["waited_s"] == 0.3


@pytest.mark.parametrize(
    ("headers", "expected_s"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers, expected_s):
    found_s = retry_after_s(headers)
    assert found_s is None if expected_s is None else found_s == pytest.approx(expected_s, abs=120)


def test_retry_after_is_counted_from_now():
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    assert retry_after_s({"retry-after": format_datetime(in_an_hour, usegmt=True)}) == pytest.approx(3600, abs=120)


def test_server_that_asks_for_an_hour_is_not_waited_for():
    record, server = ask(refusal(429, "later", Retry_After="3600"))
    assert record["error"]["type"] == "StatusError"
    assert len(server.requests) == 1


def test_server_that_stays_busy_is_an_error_with_its_message():
    record, server = ask(refusal(503, "overloaded"))
    assert record["error"] == {"type": "StatusError", "message": "HTTP 503: overloaded"}
    assert record["num_requests"] == len(server.requests) == 3


def test_server_that_cannot_be_reached_is_asked_again():
    with ApiServer([]) as server:
        base_url = server.base_url
    record, _ = ask(base_url=base_url)
    assert record["error"]["type"] == "ConnectionError"
    assert record["num_requests"] == 3


def test_connection_closed_before_the_answer_is_asked_again():
    record, _ = ask(lambda _: iter([CUT]), well_behaved)
    assert record["num_requests"] == 2
    assert "error" not in record


def cut_after_two(_request):
    yield head()
    yield chunk(FOUR[0]) + chunk(FOUR[1])
    yield 0.05
    yield CUT


@pytest.mark.parametrize(
    ("behaviour", "kind", "message"),
    [
        (cut_after_two, "CutAnswerError", "the connection broke after 2 events with text"),
        (stream(*FOUR[:2], is_chunked=False), "CutAnswerError", "without [DONE] or a finish_reason"),
        (stream(*FOUR[:2], FOUR[2][:20], is_chunked=False), "CutAnswerError", "without [DONE] or a finish_reason"),
        (lambda _: iter([json_answer({"choices": []})[:-4], CUT]), "CutAnswerError", "the connection broke"),
        (stream(is_chunked=False), "CutAnswerError", "the answer is empty"),
        (stream(b"<html>Hi</html>", content_type=HTML), "UnreadableAnswerError", "content type text/html: '<html>Hi"),
        (stream(b"data: {oops}\n\n"), "UnreadableAnswerError", "an event is not JSON: '{oops}'"),
        (stream(b"data: [1]\n\n"), "UnreadableAnswerError", "an event is no object"),
        (lambda _: iter([json_answer({"id": 1})]), "UnreadableAnswerError", "an object without choices"),
        (stream(b""), "CutAnswerError", "the answer is empty"),
        (stream(FOUR[0], event({"error": {"message": "CUDA error", "code": 500}})), "ServerError", "CUDA error"),
        (stream(b"event: error\ndata: {\"error\": \"gone\"}\n\n"), "ServerError", "gone"),
    ],
)  # fmt: skip
def test_broken_answer_is_an_error_and_not_repeated(behaviour, kind, message):
    record, server = ask(behaviour)
    assert record["error"]["type"] == kind
    assert message in record["error"]["message"]
    assert len(server.requests) == 1


def test_times_before_a_cut_are_kept():
    record, _ = ask(cut_after_two)
    assert len(record["chunk_times_s"]) == 2
    assert "runtime_s" not in record


def test_silent_server_is_a_timeout():
    record, server = ask(lambda _: iter([head(), chunk(FOUR[0]), 60.0]), timeout_s=0.3)
    assert record["error"] == {"type": "TimeoutError", "message": "no whole answer within 0.3 s"}
    assert len(server.requests) == 1


def test_stream_that_stays_open_after_done_ends_there():
    record, _ = ask(lambda _: iter([head(), *map(chunk, FOUR), chunk(DONE), 60.0]))
    assert "error" not in record, "it is not waited for until the timeout"


def test_first_request_that_is_slow_shows_as_it_is():
    records, _ = ask(lambda request: well_behaved(request, first_s=0.3, next_s=0.01), well_behaved, num_times=3)
    assert records[0]["time_to_first_token_s"] > 0.3
    assert all("error" not in record for record in records)


# What cannot succeed stops at once.


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (401, "Incorrect API key provided", "invalid_api_key"),
        (403, "not allowed", None),
        (404, "The model `tiny` does not exist", "model_not_found"),
        (402, "no credit", None),
        (429, "You exceeded your current quota", "insufficient_quota"),
    ],
)
def test_wrong_key_or_model_stops_at_once_with_the_message(status, message, code):
    record, server = ask(refusal(status, message, code=code))
    assert str(server.stopped) == f"HTTP {status}: {message}"
    assert len(server.requests) == 1
    assert record["error"]["message"] == f"HTTP {status}: {message}", "the refusal is kept, too"


def test_redirect_is_not_followed_with_the_key():
    _, server = ask(lambda _: iter([head(307, length=0, Location="http://elsewhere/v1")]))
    assert "redirected to http://elsewhere/v1; give the address itself" in str(server.stopped)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error": {"message": "a"}}', "a"),
        (b'{"error": "b"}', "b"),
        (b'{"object": "error", "message": "c"}', "c"),
        (b'{"detail": "d"}', "d"),
        (b"<html><b>e</b>\n f</html>", "e f"),
        (b"", "(no message)"),
    ],
)
def test_message_of_a_refusal_is_found_in_any_form(body, expected):
    record, _ = ask(lambda _: iter([head(503, "text/plain", length=len(body)) + body]), retries=Retries(0))
    assert record["error"]["message"] == f"HTTP 503: {expected}"


# The key and budgets.


def test_key_is_in_no_record():
    records, _ = ask(refusal(503, f"key {KEY} is throttled", X_Debug=f"Bearer {KEY}"), well_behaved, num_times=2)
    assert KEY not in json.dumps(records)
    assert "key [key] is throttled" in json.dumps(records)


def test_cookies_are_in_no_record():
    record, _ = ask(well_behaved)
    assert "session=secret" not in json.dumps(record)


def test_key_is_in_no_representation_of_the_endpoint():
    endpoint = Endpoint("http://127.0.0.1/v1", "tiny", api_key=KEY)
    assert KEY not in repr(endpoint) + json.dumps(endpoint.header())


def test_key_comes_from_the_named_variable():
    assert read_key("MY_KEY", {"MY_KEY": " abc\n"}) == "abc"
    assert read_key(None, {"OPENAI_API_KEY": "abc"}) is None
    with pytest.raises(ValueError, match="the environment variable MY_KEY is not set"):
        read_key("MY_KEY", {})
    with pytest.raises(ValueError, match="characters that no HTTP header can carry"):
        read_key("MY_KEY", {"MY_KEY": "a\u2013b"})


def test_requests_stop_at_the_budget_repeated_ones_included():
    records, server = ask(refusal(503), budget=Budget(max_requests=2))
    assert len(server.requests) == 2
    assert "--max-requests 2: 2 were sent" in str(server.stopped)
    assert records["num_requests"] == 2, "what was sent is kept"


def test_cost_stops_before_the_request_that_may_exceed_it():
    prices = Prices(usd_per_million_prompt_tokens=1e6, usd_per_million_output_tokens=2e6)
    records, server = ask(well_behaved, budget=Budget(max_cost_usd=30, prices=prices), num_times=5)
    assert [record["cost_usd"] for record in records] == [11, 11]
    assert "22 USD are spent, the next request may cost 11" in str(server.stopped)


def test_reported_usage_is_what_counts():
    prices = Prices(1e6, 2e6)
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    budget = Budget(prices=prices)
    record, _ = ask(stream(text_event(finish_reason="stop", usage=usage), DONE), budget=budget)
    assert record["cost_usd"] == budget.cost_usd == 5


def test_refused_request_costs_nothing_and_a_cut_one_its_whole_price():
    budget = Budget(prices=Prices(1e6, 2e6))
    ask(refusal(503), cut_after_two, budget=budget)
    assert budget.cost_usd == 11


def test_connection_that_breaks_after_the_request_was_sent_may_cost_its_whole_price():
    budget = Budget(prices=Prices(1e6, 2e6))
    ask(lambda _: iter([CUT]), budget=budget, retries=Retries(0))
    assert budget.cost_usd == 11


@pytest.mark.parametrize(
    "usage", [{"prompt_tokens": "3", "completion_tokens": None}, {"total_tokens": 7}, {"prompt_tokens": -1}]
)
def test_usage_that_is_no_usage_is_none(usage):
    budget = Budget(prices=Prices(1e6, 2e6))
    record, _ = ask(stream(*FOUR, event({"choices": [], "usage": usage}), DONE), budget=budget)
    assert notes_of(record) == ["no usage"]
    assert "deviations" not in record
    assert budget.cost_usd == 11, "its whole price, since the server does not tell"


def test_numbers_that_no_log_can_hold_are_left_out():
    record, _ = ask(stream(*FOUR, b'data: {"choices": [], "usage": {"prompt_tokens": 3, "cost": NaN}}\n\n', DONE))
    json.dumps(record, allow_nan=False)


# What a server sends is bounded, and none of it ends the sweep.


def usage_text(text):
    """A stream of four events whose last has this usage, as it stands here."""
    return stream(*FOUR, b'data: {"choices": [], "usage": ' + text.encode() + b"}\n\n", DONE)


COUNTS = '"prompt_tokens": 3, "completion_tokens": 4'
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("usage", "is_read"),
    [
        (f'{{{COUNTS}, "x": 1e400}}', True),
        (f'{{{COUNTS}, "x": {"1" * 4000}}}', True),
        (f'{{{COUNTS}, "x": "{"y" * 10**6}"}}', True),
        (f'{{{COUNTS}, "x": {"[" * 50}{"]" * 50}}}', True),
        (f'{{{COUNTS}, "x": {DEEP}}}', False),
        (f'{{{COUNTS}, "x": {"1" * 5000}}}', False),
        ('{"prompt_tokens": 1e400, "completion_tokens": [4]}', True),
        ('["prompt_tokens"]', True),
    ],
)
def test_hostile_usage_is_one_odd_trial(usage, is_read):
    record, _ = ask(usage_text(usage))
    assert ("error" not in record) == is_read
    assert len(json.dumps(record, allow_nan=False)) < 5000


@pytest.mark.parametrize(
    ("fields", "name"),
    [({"model": [KEY]}, "model_reported"), ({"model": 1e308}, "model_reported"), ({"choices": {"a": 1}}, "x")],
)
def test_field_of_another_kind_is_not_kept(fields, name):
    record, _ = ask(stream(*FOUR, event({"choices": [], **fields}), USED, DONE))
    assert "error" not in record
    assert name not in record


@pytest.mark.parametrize("reason", [KEY.upper(), ["length"], 7, {"a": "b"}])
def test_finish_reason_is_a_text_without_the_key(reason):
    record, _ = ask(stream(*FOUR[:3], text_event(finish_reason=reason), USED, DONE))
    assert record.get("finish_reason") == ("[key]" if isinstance(reason, str) else None)


def test_key_is_in_no_field_of_a_record():
    def echo(_request):
        yield head(content_type=f"text/plain; {KEY}", **{f"X_{KEY.replace('-', '_')}": KEY.upper()})
        yield chunk(text_event(finish_reason="length", model=f"model of {KEY}"))
        yield chunk(event({"choices": [], "usage": {**USAGE, KEY: {"of": [KEY]}}})) + chunk(DONE) + END

    record, _ = ask(echo)
    assert KEY not in json.dumps(record).lower()
    assert json.dumps(record).count("[key]") == 7


def bomb(size=2**25):
    return gzip.compress(b"data: " + b"x" * size, 9)


@pytest.mark.parametrize(
    ("status", "content_type"), [(200, "text/event-stream"), (200, "application/json"), (400, "application/json")]
)
def test_compressed_answer_that_unpacks_to_gigabytes_is_not_unpacked(status, content_type):
    body = bomb() if content_type.startswith("text") else gzip.compress(b"{" + b" " * 2**25, 9)
    tracemalloc.start()
    record, _ = ask(lambda _: iter([head(status, content_type, length=len(body), Content_Encoding="gzip") + body]))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "error" in record
    assert peak_bytes < 2.5e7


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_answer_that_is_compressed_unasked_is_read_and_noted(encoding):
    text = b"".join([*FOUR, USED, DONE])
    body = gzip.compress(text) if encoding == "gzip" else zlib.compress(text)
    record, _ = ask(lambda _: iter([head(length=len(body), Content_Encoding=encoding) + body]))
    assert "error" not in record
    assert f"compressed by {encoding} though not asked to" in record["notes"]


@pytest.mark.parametrize(("encoding", "message"), [("br", "in an unknown way"), ("gzip", "not compressed by gzip")])
def test_answer_that_cannot_be_decompressed_is_an_error(encoding, message):
    record, _ = ask(lambda _: iter([head(length=4, Content_Encoding=encoding) + b"oops"]))
    assert record["error"]["type"] == "UnreadableAnswerError"
    assert message in record["error"]["message"]


def test_long_body_of_an_error_is_not_read_to_its_end():
    def endless(_request):
        yield head(400, "text/plain")
        while True:
            yield chunk(b"x" * 2**16)

    record, _ = ask(endless)
    assert record["error"]["message"].startswith("HTTP 400: xxx")
    assert len(record["error"]["message"]) < 400


@pytest.mark.parametrize(
    "pieces",
    [
        [b"data: ", *[b"x" * 1000] * 20_000],
        [b'data: {"a": "y\n'] * 50_000,
        [b"{", *[b'"a": 1,'] * 1_000_000],
        [b"\n"] * 100_000,
    ],
    ids=["one line", "one event", "one object", "nothing"],
)
def test_answer_in_many_pieces_takes_time_in_proportion(pieces):
    """Joined or split anew at each piece, these would take minutes."""
    reader = AnswerReader(Answer("now"), is_streaming=True)
    with suppress(AnswerError):
        for piece in pieces:
            reader.feed(piece, 1.0)
        reader.close(2.0)
    assert sum(map(len, [*reader._pieces, *reader._event])) < 2**25


def test_models_are_listed_without_the_key_and_controls():
    server = ApiServer([well_behaved], models=(KEY, "a\x1b[2J"))
    assert list_models(server) == ["[key]", "a\\x1b[2J"]


@pytest.mark.parametrize(
    "body", [b'{"data": ' + DEEP.encode() + b"}", b'{"data": [1]}', b'{"data": 1e400}', b"[" + b"1," * 2**22]
)
def test_list_of_models_that_cannot_be_is_none(body):
    server = ApiServer([well_behaved])
    server._list_models = lambda: head(200, "application/json", length=len(body)) + body
    assert list_models(server) is None


def test_list_of_models_is_sought_on_no_other_host():
    with ApiServer([well_behaved], models=("a",)) as other:
        server = ApiServer([well_behaved])
        server._list_models = lambda: json_answer({}, 302, Location=f"{other.base_url}/models")
        assert list_models(server) is None


def list_models(server):
    async def ask_for_them():
        async with ApiClient(Endpoint(server.base_url, "tiny", api_key=KEY)) as client:
            return await client.list_models()

    with server:
        return asyncio.run(ask_for_them())


def test_key_over_plain_http_to_another_machine_is_warned_of():
    with pytest.warns(ExposedKeyWarning, match=r"unencrypted over http://api\.example\.com/v1 to another machine"):
        ApiClient(Endpoint("http://api.example.com/v1", "tiny", api_key=KEY))


# A server closes connections that nobody uses for a while.


def test_request_that_meets_a_closed_idle_connection_is_sent_again_once_and_noted():
    records, server = ask(well_behaved, lambda _: iter([CUT]), well_behaved, num_times=2, retries=Retries(0))
    assert "error" not in records[1]
    assert records[1]["notes"][:1] == ["sent again, since the server had closed the idle connection"]
    assert records[1]["num_requests"] == 1
    assert "time_to_connect_s" in records[1], "on a fresh connection"
    assert len(server.requests) == 3
    assert server.requests[1].prompt == server.requests[2].prompt


def test_request_is_sent_again_no_more_than_once():
    records, server = ask(well_behaved, lambda _: iter([CUT]), num_times=2, retries=Retries(0))
    assert records[1]["error"]["type"] == "ConnectionError"
    assert len(server.requests) == 3


def test_answer_that_breaks_on_a_used_connection_is_not_asked_for_again():
    records, server = ask(well_behaved, cut_after_two, num_times=2, retries=Retries(0))
    assert records[1]["error"]["type"] == "CutAnswerError"
    assert len(server.requests) == 2


def test_address_without_a_version_is_the_hint_of_a_404():
    with ApiServer([refusal(404, "Not Found")]) as server:
        record, _ = ask(base_url=server.base_url.removesuffix("/v1"))
        assert record["error"]["message"] == (
            f"HTTP 404: Not Found; --base-url names no version: try {server.base_url}"
        )


# Input that cannot be right.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base_url": "127.0.0.1:8000"}, "--base-url must be an address such as"),
        ({"base_url": "http://a:99999/v1"}, "--base-url must be an address such as"),
        ({"base_url": "ftp://a/v1"}, "--base-url must be an address such as"),
        ({"base_url": "http://me:pw@a/v1"}, "takes no user, password or query"),
        ({"base_url": "http://a/v1?key=1"}, "takes no user, password or query"),
        ({"base_url": "http://a/v1/chat/completions"}, "ends with the version, before /completions"),
        ({"protocol": "responses"}, "protocol must be one of completions, chat; got 'responses'"),
        ({"forcings": ("hope",)}, "forcings must be among ignore_eos, min_tokens, logit_bias; got hope"),
        ({"forcings": ("logit_bias",)}, "give --eos-token-ids"),
        ({"max_tokens_field": "tokens"}, "max_tokens_field must be one of"),
        ({"timeout_s": 0}, "timeout_s must be positive"),
        ({"timeout_s": float("inf")}, "timeout_s must be positive and finite"),
        ({"eos_token_ids": (-3,)}, "eos_token_ids must be at least 0; got -3"),
    ],
)
def test_endpoint_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Endpoint(**{"base_url": "http://a/v1", "model": "tiny", **fields})


def test_slash_at_the_end_of_the_address_is_taken_off():
    assert Endpoint("http://a/v1/", "tiny").url == "http://a/v1/completions"


def test_reader_tells_half_an_object_from_something_else():
    for body, kind in ((b'{"choices": [', CUT_ERROR), (b"Service ready", UNREADABLE_ERROR)):
        reader = AnswerReader(Answer("now", headers={"content-type": "application/json"}), is_streaming=False)
        reader.feed(body, 1.0)
        with pytest.raises(AnswerError) as caught:
            reader.close(2.0)
        assert caught.value.kind == kind
