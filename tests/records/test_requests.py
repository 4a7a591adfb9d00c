"""Logs of API trials: written, cut anywhere, gone on with, read."""

import json
import math
import os
import re
import tracemalloc
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from makers import API_HEADER, TRIALS, make_trial, write_api_log

from idealized_runtime.records import (
    IncompleteLogWarning,
    Journal,
    LogFormatError,
    LogMismatchError,
    NothingTimedError,
    load_log,
    parse_log,
    read_log,
    read_requests,
    read_trials,
)
from idealized_runtime.records.requests import Trials
from idealized_runtime.records.validity import SuspiciousLogWarning


def make_failed(number=0, **fields):
    trial = make_trial(number, **fields, error={"type": "HTTPStatusError", "message": "busy"}, status=503)
    return {name: value for name, value in trial.items() if name not in ("runtime_s", "chunk_times_s", "usage")}


@pytest.fixture
def log_path(tmp_path):
    return tmp_path / "tiny.jsonl"


def test_every_field_of_a_trial_is_read_back(log_path):
    rows = read_requests(write_api_log(log_path))
    row = rows.iloc[1]
    assert len(rows) == 4
    assert (row["model"], row["hardware"], row["software"]) == ("tiny", "somewhere", "mock 1.0")
    assert (row["num_prompt_tokens"], row["num_output_tokens"], row["trial"]) == (16, 4, 0)
    assert row["time_to_first_token_s"] == pytest.approx(0.1)
    assert row["time_per_output_token_s"] == pytest.approx(0.01)
    assert row["inter_chunk_times_s"] == pytest.approx(np.full(3, 0.01))
    assert row["runtime_s"] == pytest.approx(0.131)
    assert (row["num_prompt_tokens_reported"], row["num_output_tokens_reported"]) == (16, 4)
    assert row["num_cached_prompt_tokens"] == 0
    assert (row["status"], row["num_requests"], row["definitions"]) == (200, 1, "client-streamed")
    assert str(rows["sent_at"].dtype).startswith("datetime64")


def test_tokens_in_larger_chunks_give_the_time_per_token(log_path):
    trial = make_trial(chunk_times_s=[0.1, 0.4], o=4, runtime_s=0.41)
    assert read_requests(write_api_log(log_path, [trial]))["time_per_output_token_s"].item() == pytest.approx(0.1)


def test_fit_leaves_out_warmups_failures_and_deviations(log_path):
    trials = [
        *TRIALS,
        make_failed(2),
        make_trial(3, deviations=["7 output tokens"]),
        make_trial(4, notes=["no [DONE]"]),
    ]
    said = r"1 of 5 trials deviate from what was asked for: p=16 o=4 \(1 of 4: 7 output tokens\); they are left out"
    failed = r"1 trials failed and are left out: p=16 o=4 \(HTTPStatusError\)"
    with pytest.warns(IncompleteLogWarning, match=failed), pytest.warns(IncompleteLogWarning, match=said):
        rows = read_requests(write_api_log(log_path, trials))
    assert rows["is_fit"].tolist() == [False, True, True, True, False, False, True]
    assert rows["error_type"].tolist()[4] == "HTTPStatusError"
    with pytest.warns(IncompleteLogWarning):
        timings = read_trials(log_path)
    assert timings["trial"].tolist() == [0, 1, 0, 4]


def test_settings_of_an_api_log_have_the_columns_of_every_log(log_path):
    settings = read_log(write_api_log(log_path))
    assert settings["num_trials"].tolist() == [2, 1]
    assert settings["runtime_s"].tolist() == pytest.approx([0.131, 0.101])
    assert settings["tensor_parallel_size"].isna().all()


def test_trials_under_load_are_kept_from_the_fit(log_path):
    trials = [*TRIALS, make_trial(0, load="closed", num_parallel=4)]
    rows = read_requests(write_api_log(log_path, trials))
    assert rows["num_parallel"].tolist()[-1] == 4
    with pytest.warns(IncompleteLogWarning, match="5 requests, 1 of them is under load"):
        assert len(read_trials(log_path)) == 3


def test_run_killed_at_any_byte_resumes_to_the_same_trials(log_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)
    contents = write_api_log(log_path).read_bytes()
    for cut in range(contents.index(b"\n"), len(contents) + 1, 7):
        log_path.write_bytes(contents[:cut])
        with Journal(log_path, API_HEADER) as journal:
            held = len(journal.log.completed)
            for trial in TRIALS[held:]:
                journal.append("trial", trial)
            journal.finish()
        log = load_log(log_path)
        assert log.is_complete
        assert len(log.records) == len(TRIALS)


def test_trial_that_failed_is_tried_again_on_resume(log_path):
    write_api_log(log_path, [make_failed(0)], finish=False)
    with Journal(log_path, API_HEADER) as journal:
        assert journal.log.completed == set()
        journal.append("trial", make_trial(0))
        journal.finish()
    assert json.loads(log_path.read_text().splitlines()[-1])["num_trials"] == 2


def test_kill_is_told_from_a_clean_stop(log_path):
    write_api_log(log_path, TRIALS[:1], finish=False)
    with Journal(log_path, API_HEADER) as journal:
        journal.append("trial", TRIALS[1])
        journal.stop("budget")
    assert load_log(log_path).num_kills == 1
    write_api_log(log_path, TRIALS[2:])
    assert load_log(log_path).num_kills == 1


def test_requests_of_a_killed_run_that_are_in_no_trial_are_lost(log_path):
    with Journal(log_path, API_HEADER) as journal:
        journal.start()
        for number, cost_usd in ((0, 0.1), (0, 0.2), (1, 0.3), (2, 0.4)):
            journal.append(
                "sent", {"num_prompt_tokens": 16, "num_output_tokens": 4, "trial": number, "cost_usd": cost_usd}
            )
        journal.append("trial", make_trial(0, num_requests=2))
        journal.append("trial", make_trial(2))
    with Journal(log_path, API_HEADER) as journal:
        assert [(sent["trial"], sent["cost_usd"]) for sent in journal.log.lost] == [(1, 0.3)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"trial": None}, "trial must be an integer of at least 0; got None"), ({"cost_usd": -1}, "must be US dollars")],
)
def test_sent_request_of_no_trial_is_refused(log_path, fields, message):
    write_api_log(log_path, finish=False)
    sent = {"record": "sent", "num_prompt_tokens": 16, "num_output_tokens": 4, "trial": 0, "cost_usd": 0.0, **fields}
    with log_path.open("a") as file:
        file.write(json.dumps(sent) + "\n")
    with pytest.raises(LogFormatError, match=message):
        load_log(log_path)


def test_repeated_trial_is_refused(log_path):
    with pytest.raises(LogFormatError, match="trial 0 of p=16, o=4 stands here a second time"):
        write_api_log(log_path, [make_trial(0), make_trial(0)])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_prompt_tokens", 0, "num_prompt_tokens must be an integer of at least 1; got 0"),
        ("trial", "1", "trial must be an integer of at least 0; got '1'"),
        ("runtime_s", None, "runtime_s must be positive seconds; got None"),
        ("chunk_times_s", [0.1, -1], r"chunk_times_s must be a list of positive seconds; got \[0.1, -1\]"),
        ("definitions", None, "definitions must be a text; got None"),
    ],
)
def test_malformed_trial_is_refused(log_path, field, value, message):
    with pytest.raises(LogFormatError, match=message):
        write_api_log(log_path, [make_trial(**{field: value})] if field != "trial" else [make_trial(value)])


def test_other_model_or_address_is_refused(log_path):
    write_api_log(log_path)
    with pytest.raises(LogMismatchError, match=r"base_url: 'http://127\.0\.0\.1:1/v1' in the log, 'http://x' now"):
        write_api_log(log_path, header={**API_HEADER, "base_url": "http://x"})


def test_header_without_address_is_refused(log_path):
    with pytest.raises(ValueError, match="the header's base_url must be a name; got None"):
        write_api_log(log_path, header={**API_HEADER, "base_url": None})


def test_setting_in_an_api_log_is_refused(log_path):
    write_api_log(log_path, finish=False)
    with log_path.open("a") as file:
        file.write('{"record": "setting"}\n')
    with pytest.raises(LogFormatError, match="a 'setting' record; its header announces the other kind of log"):
        load_log(log_path)


def test_architecture_of_an_api_is_not_known(log_path):
    with pytest.raises(LogFormatError, match="does not tell the architecture of tiny"):
        parse_log(write_api_log(log_path)).architecture()


def test_log_of_failures_only_holds_no_timing(log_path):
    write_api_log(log_path, [make_failed(0)])
    with pytest.warns(IncompleteLogWarning), pytest.raises(LogFormatError, match="none of its 1 trials can be used"):
        read_trials(log_path)


# What a log of requests cannot say.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"runtime_s": 0.09}, "the answer ended, by runtime_s, after 0.09 s, and sent its last after 0.13 s"),
        ({"chunk_times_s": [0.1, 0.12, 0.11]}, "chunk_times_s must ascend"),
        ({"chunk_times_s": [0.1, -0.12]}, "chunk_times_s must be a list of positive seconds"),
        ({"time_to_first_token_s": 0.05}, "time_to_first_token_s is 0.05 s, its first event with text came after 0.1"),
        ({"time_to_headers_s": 0.11}, "sent its first token after 0.1 s, and sent headers after 0.11 s"),
        ({"time_to_connect_s": -0.1}, "time_to_connect_s must be seconds or null; got -0.1"),
        ({"time_to_headers_s": "soon"}, "time_to_headers_s must be seconds or null; got 'soon'"),
        ({"usage": [3]}, "usage must be an object or null"),
        ({"sent_at": "yesterday"}, "sent_at must be a time or null; got 'yesterday'"),
        ({"load": "wild"}, "load must be closed, open or null"),
        ({"num_requests": 1.5}, "num_requests must be a count or null"),
        ({"notes": "odd"}, "notes must be a list of texts"),
        ({"model_reported": 3}, "model_reported must be a text or null"),
        ({"is_warmup": "no"}, "is_warmup must be true, false or null"),
        ({"cost_usd": 10**400}, "cost_usd must be US dollars or null"),
    ],
)
def test_trial_that_contradicts_itself_is_refused(log_path, fields, message):
    with pytest.raises(LogFormatError, match=re.escape(message)):
        write_api_log(log_path, [make_trial(**fields)])


@pytest.mark.parametrize(
    ("usage", "deviation"),
    [
        ({"completion_tokens": 3}, "3 output tokens reported"),
        ({"prompt_tokens": 15}, "15 prompt tokens reported"),
        ({"cached_tokens": 15}, "15 prompt tokens cached"),
    ],
)
def test_usage_that_differs_keeps_a_trial_from_the_fit_whatever_its_record_says(log_path, usage, deviation):
    odd = make_trial(0)
    odd["usage"] = odd["usage"] | usage
    write_api_log(log_path, [odd, make_trial(1)])
    with pytest.warns(
        IncompleteLogWarning, match=rf"1 of 2 trials deviate .*\(1 of 2: {deviation}\); they are left out"
    ):
        assert read_trials(log_path)["trial"].tolist() == [1]
    with pytest.warns(IncompleteLogWarning):
        assert read_requests(log_path)["deviations"].tolist() == [deviation, ""]


def test_log_whose_trials_all_deviate_says_why_it_holds_nothing(log_path):
    write_api_log(log_path, [make_trial(number, usage={"completion_tokens": 2}) for number in range(3)])
    message = (
        r"none of its 3 trials can be used; 3 of 3 trials deviate .* p=16 o=4 \(3 of 3: 2 output tokens reported\)"
    )
    with pytest.raises(NothingTimedError, match=message):
        read_trials(log_path)


def test_stream_that_was_held_back_has_a_runtime_only(log_path):
    times_s = [0.5, 0.50001, 0.50002, 0.50003]
    held = make_trial(0, chunk_times_s=times_s, time_to_first_token_s=0.5, runtime_s=0.501)
    rows = read_requests(write_api_log(log_path, [held, make_trial(1)]))
    assert rows["is_held_back"].tolist() == [True, False]
    assert rows["time_to_first_token_s"].isna().tolist() == [True, False]
    assert rows["time_per_output_token_s"].isna().tolist() == [True, False]
    assert [len(gaps) for gaps in rows["inter_chunk_times_s"]] == [0, 3]
    assert rows["notes"].tolist() == ["held back on the way: 4 tokens came in 1 piece", ""]
    assert rows["is_fit"].all(), "its runtime is that of the whole answer"
    assert rows["num_chunks"].tolist() == [4, 4]


def test_one_quick_token_behind_a_long_prompt_is_not_held_back(log_path):
    rows = read_requests(write_api_log(log_path, [make_trial(o=2, start_s=10.0, step_s=0.008)]))
    assert rows["time_to_first_token_s"].tolist() == [10.0]


def test_trials_are_kept_in_some_hundred_bytes_each():
    tracemalloc.start()
    trials = Trials()
    for number in range(400):
        text = json.dumps(make_trial(number, o=16, headers={"date": "x" * 50}, prompt_sha256="0" * 64))
        trials.append(json.loads(text))
    assert tracemalloc.get_traced_memory()[0] < 400 * 600
    frame = trials.frame(API_HEADER)
    assert tracemalloc.get_traced_memory()[1] < 400 * 2500
    tracemalloc.stop()
    assert len(frame) == 400
    assert trials[7]["trial"] == 7


def sent_in_turn(factor, *, num_trials=40):
    """Trials each sent as soon as the one before has ended; their times then multiplied."""
    trials, clock = [], datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(num_trials):
        runtime_s = 0.1 + 0.001 * math.sin(number)
        times = {"sent_at": clock.isoformat(), "start_s": factor * runtime_s, "runtime_s": factor * (runtime_s + 0.05)}
        trials.append(make_trial(number, step_s=0.0001, **times))
        clock += timedelta(seconds=runtime_s + 0.05)
    return trials


@pytest.mark.parametrize("factor", [1.6, 1000.0])
def test_trials_beyond_the_clock_are_refused_unless_accepted(log_path, factor):
    write_api_log(log_path, sent_in_turn(factor))
    with pytest.raises(LogFormatError, match="clock: 39 of 40 trials that were sent one after the other end after the"):
        read_trials(log_path)
    with pytest.warns(SuspiciousLogWarning, match="clock"):
        assert len(read_trials(log_path, accept=["clock"])) == 40


def test_one_trial_beyond_the_clock_is_warned_of(log_path):
    trials = sent_in_turn(1.0)
    trials[7]["runtime_s"] *= 3
    write_api_log(log_path, trials)
    with pytest.warns(SuspiciousLogWarning, match="clock: 1 of 40 trials"):
        read_requests(log_path)


def test_trials_in_turn_and_trials_at_once_under_load_are_not_beyond_the_clock(log_path, tmp_path):
    assert load_log(write_api_log(log_path, sent_in_turn(1.0))).records.beyond_the_clock()[0] == 0
    loaded = [trial | {"load": "closed", "num_parallel": 4} for trial in sent_in_turn(3.9)]
    assert load_log(write_api_log(tmp_path / "load.jsonl", loaded)).records.beyond_the_clock()[0] == 0
