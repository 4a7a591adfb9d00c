"""The sweep of an API from its command line: what is sent, kept, resumed, and where it stops."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from api_server import (
    CUT,
    DONE,
    END,
    ApiServer,
    chunk,
    head,
    json_answer,
    refusal,
    text_event,
    usage_event,
    usage_of,
    well_behaved,
)
from makers import flags_of, make_trial, write_api_log

from idealized_runtime.cli.api.fit import ESTIMATORS
from idealized_runtime.cli.main import COMMANDS, main
from idealized_runtime.fits import read_parameters
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.records import IncompleteLogWarning, Journal, definitions, load_log, read_requests, read_trials

KEY = "sk-not-to-be-seen"
SIZES = ("--all-num-input-tokens", 1, 16, "--all-num-output-tokens", 1, 2, 5)
SETTINGS = [(p, o) for p in (1, 16) for o in (1, 2, 5)]
PRICES = ("--usd-per-million-prompt-tokens", 1e6, "--usd-per-million-output-tokens", 1e6)
# Texts of 1 and 33 words, and no filler: a word is a token here.
NUM_CALIBRATIONS = 2


def command(server, log, *extra, sizes=SIZES, num_trials=2):
    words = [
        "api",
        "profile",
        "--base-url",
        server.base_url,
        "--model",
        "tiny",
        *sizes,
        *(() if num_trials is None else ("--num-trials", num_trials)),
        "--log",
        log,
    ]
    return [str(word) for word in (*words, *extra)]


@pytest.fixture
def log_path(tmp_path):
    return tmp_path / "new folder" / "tiny.jsonl"


@pytest.fixture
def profile(log_path, capsys):
    """Runs the command in this process; its exit code and what it printed."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(server, *extra, log=log_path, **options):
        try:
            code = main(command(server, log, *extra, **options))
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    return run


def rows(path, *, is_whole=True):
    with warnings.catch_warnings():
        warnings.simplefilter("error" if is_whole else "ignore")
        return read_requests(path)


def timed(path, **options):
    frame = rows(path, **options)
    return frame[~frame["is_warmup"]]


def sizes_of(frame):
    return list(zip(frame["num_prompt_tokens"], frame["num_output_tokens"], strict=True))


# What a sweep sends and keeps.


def test_every_request_is_a_record(profile, log_path):
    with ApiServer([well_behaved]) as server:
        answer = profile(server)
    assert answer.code == 0
    frame = rows(log_path)
    assert len(frame) == len(server.requests) == NUM_CALIBRATIONS + 6 + 12
    assert frame["num_requests"].eq(1).all()
    assert Counter(sizes_of(timed(log_path))) == dict.fromkeys(SETTINGS, 2)
    assert timed(log_path)["is_fit"].all()
    assert set(frame["definitions"]) <= set(definitions.DEFINITIONS)


def test_prompts_have_the_sizes_asked_for(profile, log_path):
    with ApiServer([well_behaved]) as server:
        profile(server)
    frame = timed(log_path)
    assert frame["num_prompt_tokens_reported"].tolist() == frame["num_prompt_tokens"].tolist()
    assert frame["num_output_tokens_reported"].tolist() == frame["num_output_tokens"].tolist()


def test_no_prompt_is_sent_twice(profile):
    with ApiServer([well_behaved]) as server:
        profile(server)
    prompts = [request.prompt for request in server.requests if request.num_prompt_tokens == 16]
    assert len(set(prompts)) == len(prompts) == 9


def test_another_run_sends_other_prompts(profile, tmp_path):
    with ApiServer([well_behaved]) as server:
        for name in ("a", "b"):
            profile(server, log=tmp_path / name)
    prompts = [request.prompt for request in server.requests if request.num_prompt_tokens == 16]
    assert len(set(prompts)) == 18


def test_blocks_hold_every_setting_once_each_in_an_order_of_its_own(profile, log_path):
    with ApiServer([well_behaved]) as server:
        profile(server, num_trials=6)
    blocks = [sizes_of(block) for _, block in timed(log_path).groupby("block", sort=False)]
    assert all(sorted(block) == SETTINGS for block in blocks)
    assert len({tuple(block) for block in blocks}) > 1


def test_warmups_are_kept_apart(profile, log_path):
    with ApiServer([lambda request: well_behaved(request, first_s=0.3), well_behaved]) as server:
        profile(server, "--num-warmup", 2)
    frame = rows(log_path)
    warmups = frame[frame["is_warmup"]]
    assert len(warmups) == NUM_CALIBRATIONS + 12
    assert warmups["runtime_s"].iloc[0] > 0.3, "the slow first request is none of the trials"
    assert not warmups["is_fit"].any()


def test_deviating_trials_are_kept_and_left_out(profile, log_path):
    def short(request):
        request.body["max_tokens"] = min(request.body["max_tokens"], 4)
        return well_behaved(request)

    with ApiServer([short]) as server:
        answer = profile(server)
    frame = timed(log_path, is_whole=False)
    assert frame.loc[~frame["is_fit"], "deviations"].tolist() == ["4 output tokens reported"] * 4
    with pytest.warns(IncompleteLogWarning, match="4 of 12 trials deviate"):
        fitted = read_trials(log_path)
    assert sorted(set(sizes_of(fitted))) == [(p, o) for p in (1, 16) for o in (1, 2)]
    assert answer.code == 0


def test_sentences_of_2023_are_printed(profile):
    with ApiServer([well_behaved]) as server:
        answer = profile(server)
    assert len(answer.out.splitlines()) == 6
    assert answer.out.startswith("Runtime for {'num_input_tokens': 1, 'num_output_tokens': 1}: 0.0")


@pytest.mark.parametrize("extra", [("--no-stream",), ("--endpoint", "chat")])
def test_whole_answers_and_chat_are_profiled_too(profile, log_path, extra):
    with ApiServer([well_behaved]) as server:
        assert profile(server, *extra).code == 0
    assert timed(log_path)["is_fit"].all()
    assert timed(log_path)["time_to_first_token_s"].isna().all() == ("--no-stream" in extra)
    assert ("/chat/" in server.requests[0].path) == ("chat" in extra)


def test_header_says_how_it_was_asked(profile, log_path):
    with ApiServer([well_behaved]) as server:
        profile(server, "--hardware", "2 cores", "--software", "test server 1", "--seed", 7)
    header = load_log(log_path).header
    assert (header["hardware"], header["software"], header["model"]) == ("2 cores", "test server 1", "tiny")
    assert (header["base_url"], header["endpoint"], header["is_streaming"]) == (server.base_url, "completions", True)
    assert (header["prompts"], header["sweep"]["seed"]) == ({"counted_by": "usage"}, 7)


# The key.


def test_key_is_sent_and_nowhere_kept(profile, log_path, monkeypatch):
    monkeypatch.setenv("TEST_API_KEY", KEY)
    tell = refusal(503, f"the key {KEY} is slow", Retry_After="0", X_Echo=KEY)
    with ApiServer([well_behaved, tell, well_behaved]) as server:
        answer = profile(server, "--api-key-env", "TEST_API_KEY")
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}
    assert KEY not in log_path.read_text() + answer.out + answer.err
    assert "the key [key] is slow" in log_path.read_text()


def test_key_that_is_not_set_is_bad_input(profile, log_path, monkeypatch):
    monkeypatch.delenv("TEST_API_KEY", raising=False)
    with ApiServer([well_behaved]) as server:
        answer = profile(server, "--api-key-env", "TEST_API_KEY")
    assert (answer.code, server.requests) == (2, [])
    assert "the environment variable TEST_API_KEY is not set" in answer.err
    assert not log_path.exists()


@pytest.mark.parametrize(
    ("status", "message"), [(401, "Incorrect API key provided"), (404, "The model `tiny` does not exist")]
)
def test_wrong_key_or_model_stops_at_once(profile, status, message):
    with ApiServer([refusal(status, message)]) as server:
        answer = profile(server)
    assert (answer.code, len(server.requests)) == (2, 1)
    assert answer.err.splitlines()[-1] == f"idealized-runtime api profile: error: HTTP {status}: {message}"


def named(model):
    """A server that answers as this model, whichever it is asked for."""

    def behave(request):
        yield json_answer({"model": model, "choices": [{"text": "a", "finish_reason": "length"}],
                           "usage": usage_of(request)})  # fmt: skip

    return behave


def test_answer_by_another_model_is_said_and_kept(profile, log_path):
    with ApiServer([named("tiny-2026")]) as server:
        answer = profile(server, "--no-stream")
    assert answer.code == 0
    assert "asked for model 'tiny', answered by 'tiny-2026': is it the same?" in answer.err
    assert set(rows(log_path)["model_reported"]) == {"tiny-2026"}


@pytest.mark.parametrize(("models", "is_said"), [(("large", "huge"), True), (("huge", "tiny"), False), ((), False)])
def test_model_that_the_server_does_not_list_is_said(profile, models, is_said):
    with ApiServer([well_behaved], models=models) as server:
        answer = profile(server)
        assert (answer.code, len(server.requests)) == (0, NUM_CALIBRATIONS + 6 + 12)
    said = "model 'tiny' is none of those that the server lists, and was answered all the same: large, huge"
    assert (said in answer.err) == is_said


def test_key_that_is_withdrawn_midway_stops_at_once_and_keeps_the_rest(profile, log_path):
    with ApiServer([well_behaved] * 10 + [refusal(401, "revoked")]) as server:
        assert profile(server).code == 2
        assert len(server.requests) == 11
    assert len(rows(log_path, is_whole=False)) == 11
    with ApiServer([well_behaved], port=server.port) as server:
        assert profile(server).code == 0


def test_field_that_the_server_refuses_stops_at_once_with_the_remedy(profile):
    with ApiServer([refusal(400, "Unrecognized request argument: ignore_eos")]) as server:
        answer = profile(server)
    assert (answer.code, len(server.requests)) == (2, 1)
    assert "Unrecognized request argument: ignore_eos; if it names a field that it does not know" in answer.err


def test_server_that_is_not_there_is_an_error(profile):
    with ApiServer([]) as server:
        pass
    answer = profile(server, "--max-retries", 0)
    assert answer.code == 2
    assert f"no answer from {server.base_url}" in answer.err


# Faults midway.


def refuse_large(request):
    if request.num_prompt_tokens == 16 and request.num_output_tokens == 5:
        return refusal(400, "context length exceeded")(request)
    return well_behaved(request)


def test_setting_that_is_refused_for_its_size_is_left_out_and_the_sweep_goes_on(profile, log_path):
    with ApiServer([refuse_large]) as server:
        answer = profile(server)
    assert answer.code == 0
    assert Counter(sizes_of(timed(log_path, is_whole=False))) == dict.fromkeys(SETTINGS[:-1], 2)
    assert "p=16 o=5 failed: HTTP 400: context length exceeded" in answer.err
    assert len([r for r in server.requests if (r.num_prompt_tokens, r.num_output_tokens) == (16, 5)]) == 1


def cut(_request):
    yield 0.0
    yield b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 100\r\n\r\ndata: "
    yield CUT


def test_trial_that_failed_is_kept_and_measured_by_the_next_run(profile, log_path):
    with ApiServer([well_behaved] * 12 + [cut, well_behaved]) as server:
        answer = profile(server)
        assert answer.code == 0
        assert "1 trials failed and are left out" in answer.err
        assert len(read_fit(log_path)) == 11
        profile(server)
    assert len(read_fit(log_path)) == 12
    assert (rows(log_path, is_whole=False)["error_type"] == "CutAnswerError").sum() == 1


def read_fit(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_trials(path)


def test_server_that_fails_again_and_again_stops_the_sweep(profile, log_path):
    with ApiServer([well_behaved] * 9 + [cut]) as server:
        answer = profile(server)
    assert (answer.code, len(server.requests)) == (1, 14)
    assert "stopped: 5 trials in a row failed, the last: the connection broke" in answer.err
    assert "give the same command to go on" in answer.err
    assert not load_log(log_path).is_complete


def ended(*sizes):
    """A server that ends answers of these sizes after one token."""

    def behave(request):
        if request.num_output_tokens not in sizes:
            return well_behaved(request)
        usage = usage_of(request) | {"completion_tokens": 1}
        return iter([json_answer({"choices": [{"text": "a", "finish_reason": "length"}], "usage": usage})])

    return behave


def test_sweep_whose_trials_all_deviate_stops_after_the_first_block_with_what_to_do(profile):
    with ApiServer([ended(2, 5)]) as server:
        answer = profile(server, num_trials=9, sizes=(*SIZES[:4], 2, 5))
    assert (answer.code, len(server.requests)) == (1, NUM_CALIBRATIONS + 4 + 4)
    assert "4 of 4 trials deviate from what was asked for" in answer.err
    assert "p=16 o=5 (1 of 1: 1 output tokens reported)" in answer.err
    assert "--force-with min_tokens" in answer.err


def test_settings_that_deviate_are_named_at_the_end(profile):
    with ApiServer([ended(5)]) as server:
        answer = profile(server)
    assert answer.code == 0
    assert "warning" in answer.err
    assert "4 of 12 trials deviate from what was asked for: p=" in answer.err
    assert "p=1 o=5 (2 of 2: 1 output tokens reported)" in answer.err


def test_stream_that_is_held_back_is_told_and_meets_no_objective(profile, log_path, capsys):
    def held(request):
        yield head()
        yield 0.05
        events = [text_event(finish_reason="length")] * request.num_output_tokens
        yield chunk(b"".join(events) + usage_event(request) + DONE) + END

    with ApiServer([held]) as server:
        answer = profile(server, num_trials=1, sizes=(*SIZES[:4], 5))
    assert answer.code == 0
    assert answer.err.count("held back on the way: 5 tokens came in 1 piece: such answers have a runtime") == 1
    assert "held_back: 2 of 2 answers were held back on their way" in answer.err
    assert main(["api", "summary", str(log_path), "--objective", "tpot=1", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert {row["quantity"] for row in summary["percentiles"]} == {"runtime_s"}
    assert [row["num_met"] for row in summary["goodput"]] == [0, 0]


# Budgets.


def test_requests_hold_their_budget_over_runs(profile, log_path):
    with ApiServer([well_behaved]) as server:
        for _ in range(2):
            answer = profile(server, "--max-requests", 9)
            assert (answer.code, len(server.requests)) == (1, 9)
        assert "stopped: --max-requests 9: 9 were sent, the budget is spent; what was measured is in" in answer.err
        assert profile(server, "--max-requests", 20).code in (0, 1)
        assert len(server.requests) == 20
    assert len(rows(log_path, is_whole=False)) == 20


def test_repeated_requests_count(profile, log_path):
    with ApiServer([well_behaved] * 4 + [refusal(503, Retry_After="0")]) as server:
        assert profile(server, "--max-requests", 6).code == 1
        assert len(server.requests) == 6
    assert rows(log_path, is_whole=False)["num_requests"].sum() == 6


def test_cost_holds_its_budget(profile, log_path):
    with ApiServer([well_behaved]) as server:
        answer = profile(server, "--max-cost", 200, *PRICES)
    spent_usd = sum(request.num_prompt_tokens + request.num_output_tokens for request in server.requests)
    assert answer.code == 1
    assert 200 - 21 < spent_usd <= 200
    assert rows(log_path, is_whole=False)["cost_usd"].sum() == pytest.approx(spent_usd)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--max-cost", 1), "--max-cost needs --usd-per-million-prompt-tokens and"),
        (("--max-requests", -1), "--max-requests: must be an integer of at least 0; got '-1'"),
        (("--max-retries", -2), "--max-retries: must be an integer of at least 0; got '-2'"),
        (("--max-retry-wait-s", "nan"), "--max-retry-wait-s: must be zero or a positive number; got 'nan'"),
        (("--base-url", "nowhere"), "--base-url must be an address such as"),
        (("--all-num-input-tokens", 0), "--all-num-input-tokens: must be an integer of at least 1; got '0'"),
        (("--all-num-input-tokens", 8, 8), "--all-num-input-tokens must be different integers"),
        (("--num-trials", 0), "--num-trials: must be an integer of at least 1; got '0'"),
        (("--tokenizer", "nowhere.json"), "--tokenizer nowhere.json: No such file"),
        (("--force-with", "logit_bias"), "give --eos-token-ids"),
        (("--all-num-input-tokens", 40, "--endpoint", "chat", "--max-requests", 0), "--max-requests 0: 0 were sent"),
    ],
)
def test_input_that_cannot_be_is_refused_before_anything_is_sent(profile, extra, message):
    with ApiServer([well_behaved]) as server:
        answer = profile(server, *extra)
    assert answer.code == (1 if "were sent" in message else 2)
    assert message in answer.err
    assert server.requests == []


# Runs that are cut off.


def test_complete_log_is_left_as_it_is(profile, log_path):
    with ApiServer([well_behaved]) as server:
        profile(server)
        contents, num_requests = log_path.read_bytes(), len(server.requests)
        assert profile(server).code == 0
    assert log_path.read_bytes() == contents
    assert len(server.requests) == num_requests


def test_more_trials_are_added_to_a_complete_log(profile, log_path):
    with ApiServer([well_behaved]) as server:
        profile(server)
        profile(server, num_trials=3)
    assert Counter(sizes_of(timed(log_path))) == dict.fromkeys(SETTINGS, 3)


def test_resumed_run_warms_up_and_does_not_calibrate_again(profile, log_path):
    with ApiServer([well_behaved]) as server:
        profile(server, "--max-requests", 12)
        num_requests = len(server.requests)
        profile(server)
    first = rows(log_path).iloc[num_requests]
    assert bool(first["is_warmup"])
    assert len(server.requests) == NUM_CALIBRATIONS + 6 + 1 + 12


def test_log_of_another_server_is_refused(profile):
    with ApiServer([well_behaved]) as server:
        profile(server)
    with ApiServer([well_behaved]) as other:
        answer = profile(other)
    assert (answer.code, other.requests) == (2, [])
    assert "holds another measurement; give another --log" in answer.err


class Killed(BaseException):
    """What a test ends a run with in the midst of a write."""


def kill_at(num_writes, monkeypatch):
    """The given write of the next run is cut in half, and nothing comes after it."""
    writes = iter(range(num_writes))

    def write(journal, line, **options):
        if next(writes) + 1 == num_writes:
            journal._file.write(line[: len(line) // 2])
            journal._file.flush()
            raise Killed
        WRITE(journal, line, **options)

    monkeypatch.setattr(Journal, "_write", write)


WRITE = Journal._write


def whole_trials(path):
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [line for line in lines if b'"record": "trial"' in line]


def test_run_killed_at_any_write_loses_only_the_trial_under_way(profile, log_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)
    with ApiServer([well_behaved]) as server:
        for num_writes in range(1, 11):
            held = whole_trials(log_path)
            kill_at(num_writes, monkeypatch)
            with pytest.raises(Killed):
                profile(server)
            assert whole_trials(log_path)[: len(held)] == held
            # The header or that the run goes on, then for each request that it is sent and its trial.
            assert len(whole_trials(log_path)) == len(held) + max(0, num_writes - 2) // 2
        monkeypatch.setattr(Journal, "_write", WRITE)
        assert profile(server).code == 0
    assert Counter(sizes_of(timed(log_path))) == dict.fromkeys(SETTINGS, 2)


@pytest.fixture
def start(log_path):
    """Starts the command in a process of its own."""
    started = []

    def start(server, *extra):
        arguments = [sys.executable, "-m", "idealized_runtime", *command(server, log_path, *extra, num_trials=3)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(arguments, cwd=ROOT, env=environment, text=True, stderr=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(condition, deadline_s=60):
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def slow(request):
    return well_behaved(request, first_s=0.03, next_s=0.005)


def test_killed_process_loses_only_the_trial_under_way(start, log_path):
    with ApiServer([slow]) as server:
        for num_requests in (1, 14):
            process = start(server)
            wait_for(lambda number=num_requests: len(server.requests) >= number)
            process.send_signal(signal.SIGKILL)
            process.wait()
            lines = log_path.read_bytes().split(b"\n")
            assert (
                sum(b'"record": "trial"' in line for line in lines[:-1]) >= len(server.requests) - num_kills(lines) - 1
            )
        assert start(server).wait() == 0
    frame = rows(log_path)
    assert Counter(sizes_of(frame[~frame["is_warmup"]])) == dict.fromkeys(SETTINGS, 3)
    assert load_log(log_path).num_kills == 2
    assert len(frame) + 2 >= len(server.requests)


def num_kills(lines):
    return sum(b'"is_after_kill": true' in line for line in lines)


def test_killed_process_does_not_exceed_its_budget_afterwards(start, log_path):
    with ApiServer([slow]) as server:
        process = start(server, "--max-requests", 8)
        wait_for(lambda: len(server.requests) >= 4)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert start(server, "--max-requests", 8).wait() == 1
        assert 7 <= len(server.requests) <= 8
    assert load_log(log_path).num_kills == 1


def test_repeated_requests_of_a_killed_run_count(start, log_path):
    refused = refusal(503, Retry_After="0.2")
    with ApiServer([slow] * 3 + [refused] * 4 + [slow]) as server:
        process = start(server, "--max-requests", 9, "--max-retries", 9)
        wait_for(lambda: len(server.requests) >= 6)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert start(server, "--max-requests", 9).wait() == 1
        assert 6 <= len(server.requests) <= 9


def test_cost_of_what_a_killed_run_had_under_way_counts_in_full(start, log_path):
    with ApiServer([lambda request: well_behaved(request, first_s=60)]) as server:
        process = start(server, "--max-cost", 9, *PRICES)
        wait_for(lambda: server.requests)
        process.send_signal(signal.SIGKILL)
        process.wait()
        # The first probe is a word of four letters, which may cost four tokens, and one token out.
        assert start(server, "--max-cost", 9, *PRICES).wait() == 1
        assert len(server.requests) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_cleanly_and_says_what_was_kept(start, log_path, number):
    with ApiServer([slow]) as server:
        process = start(server)
        wait_for(lambda: len(server.requests) >= 4)
        process.send_signal(number)
        _, printed = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "Traceback" not in printed
        assert f"interrupted; what was measured is in {log_path}: give the same command to go on" in printed
        records = [json.loads(line) for line in log_path.read_text().splitlines()]
        assert records[-1]["record"] == "stop"
        assert records[-1]["reason"] == "interrupted"
        assert sum(record.get("num_requests", 0) for record in records) == len(server.requests), "none is lost"
        assert start(server).wait() == 0
    assert Counter(sizes_of(timed(log_path, is_whole=False).query("is_fit"))) == dict.fromkeys(SETTINGS, 3)


# From the log to parameters.


def write_known(path):
    """Trials of an API that takes 30 + 2 p ms for a prompt and 10 ms a further token; the first is undisturbed."""
    delays_s = np.random.default_rng(0).exponential(0.05, 4)
    trials = [
        make_trial(number, p=p, o=o, start_s=0.03 + 0.002 * p + number * delays_s[number], step_s=0.01)
        for number in range(4)
        for p in (4, 16, 32)
        for o in (1, 4, 8)
    ]
    return write_api_log(path, trials)


def test_parameters_are_recovered_from_a_log_of_known_times(tmp_path, capsys):
    parameters, figure = tmp_path / "parameters.json", tmp_path / "figure"
    path = write_known(tmp_path / "known.jsonl")
    assert main(["api", "fit", str(path), "--out", str(parameters), "--figure", str(figure)]) == 0
    model = read_parameters(parameters)["tiny"]
    assert model.time_per_output_token_s == pytest.approx(0.01)
    # make_trial ends 1 ms after its last token; a prompt of 4 tokens takes as long as one token, by the convention.
    assert model.overhead_s == pytest.approx(0.03 + 0.008 + 0.001 - 0.01)
    assert model.prompt_encoding_time_s(32) == pytest.approx(0.01 + 28 * 0.002)
    assert re.search(r"time per output token, ms: +10   \[", capsys.readouterr().out)
    assert sorted(path.suffix for path in tmp_path.glob("figure.*")) == [".pdf", ".png"]


def test_interval_that_ends_at_its_estimate_is_told(tmp_path, capsys):
    # The time of a prompt falls at first, not significantly: the fit pools it, and the interval is that of both.
    rng = np.random.default_rng(345)
    sizes = [(p, o, number) for p in (1, 32, 128) for o in (1, 8) for number in range(3)]
    trials = [make_trial(number, p=p, o=o, start_s=0.1 + rng.normal(0, 5e-4), step_s=0.01) for p, o, number in sizes]
    assert main(["api", "fit", str(write_api_log(tmp_path / "log.jsonl", trials))]) == 0
    *_, intervals, note, convention = capsys.readouterr().out.splitlines()
    assert "by convention a prompt of 1 tokens" in convention
    assert intervals.endswith("none with the bias of a floor")
    assert note.startswith("an interval ends at its estimate for prompts of 1, 32: ")


def test_every_estimator_draws_and_prints(tmp_path, capsys):
    path = write_known(tmp_path / "known.jsonl")
    for estimator in ESTIMATORS:
        assert main(["api", "fit", str(path), "--estimator", estimator, "--figure", str(tmp_path / estimator)]) == 0
        assert f"estimator '{estimator}'" in capsys.readouterr().out
        assert (tmp_path / f"{estimator}.pdf").exists()


def test_log_that_is_no_log_is_bad_input(tmp_path, capsys):
    path = tmp_path / "notes.jsonl"
    path.write_text("{}\n")
    assert main(["api", "fit", str(path)]) == 2
    assert f"{path}:1: not a header" in capsys.readouterr().err


# The command itself.


def api_guide():
    return (ROOT / "docs" / "guides" / "api.md").read_text(encoding="utf-8")


def test_flags_of_the_guide_are_flags_of_the_command():
    known = flags_of(*(name for name in COMMANDS if name.startswith("api ")))
    ours = re.sub(r"guidellm mock-server .*", "", api_guide())
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", ours)) <= known


@pytest.mark.parametrize("name", [definitions.STREAMED, definitions.WHOLE])
def test_definitions_of_the_guide_are_those_of_the_code(name):
    said = vars(definitions.DEFINITIONS[name]).values()
    assert [text for text in said if text not in api_guide()] == []


# Until it is known well enough.

UNTIL = ("--target-error", 0.2, "--seed", 3)
MORE_SIZES = ("--all-num-input-tokens", 1, 16, 64, "--all-num-output-tokens", 1, 4)


def unhurried(request):
    """Long enough for what a busy machine adds to be little."""
    return well_behaved(request, first_s=0.05 + 1e-3 * request.num_prompt_tokens, next_s=0.02)


def stopped(path):
    return json.loads(path.read_text().splitlines()[-1]).get("stopped")


def test_target_chooses_settings_and_trials_and_says_what_they_cost(profile, log_path):
    with ApiServer([unhurried]) as server:
        answer = profile(server, *UNTIL, *PRICES, sizes=MORE_SIZES, num_trials=None)
    assert answer.code == 0
    assert stopped(log_path)["rule"] == "target"
    assert stopped(log_path)["error"] <= 0.2
    assert stopped(log_path)["sentence"] in answer.err
    frame = rows(log_path, is_whole=False)
    assert len(frame) == len(server.requests)
    usd = f"{frame['cost_usd'].sum():.3g}"
    assert f"{len(frame)} requests, {frame['runtime_s'].sum():.3g} s and {usd} USD so far" in answer.err
    assert re.search(r"block 1: a first look at the sizes; .* USD so far; this block [\d.]+ USD", answer.err)
    header = json.loads(log_path.read_text().splitlines()[0])
    assert header["sweep"]["target"] == {"target_error": 0.2, "level": 0.95, "max_seconds": None, "of": "each"}
    assert len(answer.out.splitlines()) == len(read_trials(log_path)[["num_prompt_tokens", "num_output_tokens"]]
                                               .drop_duplicates())  # fmt: skip


def test_target_that_was_reached_is_not_asked_for_again_and_a_tighter_one_goes_on(profile, log_path):
    with ApiServer([unhurried]) as server:
        profile(server, *UNTIL, sizes=MORE_SIZES, num_trials=None)
        before, number = log_path.read_bytes(), len(server.requests)
        assert profile(server, *UNTIL, sizes=MORE_SIZES, num_trials=None).code == 0
        assert (log_path.read_bytes(), len(server.requests)) == (before, number)
        tighter = ("--target-error", 0.01, "--max-seconds", 4, "--seed", 3)
        assert profile(server, *tighter, sizes=MORE_SIZES, num_trials=None).code == 0
    assert len(server.requests) > number
    assert stopped(log_path)["rule"] in ("target", "budget")


def test_server_that_becomes_slower_is_timed_anew(profile, log_path):
    number = itertools.count()

    def slower(request):
        times = 1.0 if next(number) < 20 else 2.0
        sizes = 0.05 + 1e-3 * request.num_prompt_tokens
        return well_behaved(request, first_s=times * sizes, next_s=times * 0.02)

    with ApiServer([slower]) as server:
        until = ("--target-error", 0.004, "--max-seconds", 15, "--seed", 3)
        answer = profile(server, *until, sizes=MORE_SIZES, num_trials=None)
    assert answer.code == 0
    guards = [json.loads(line) for line in log_path.read_text().splitlines() if '"record": "guard"' in line]
    assert {guard["finding"] for guard in guards} & {"throttling", "drift"}
    assert "are set aside" in answer.err
    frame = timed(log_path, is_whole=False)
    aside = frame["deviations"].str.startswith("set aside")
    assert aside.any()
    assert not frame.loc[aside, "is_fit"].any()


def test_what_a_guard_sets_aside_is_not_fitted(tmp_path):
    trials = [make_trial(number, p=p, o=o, block=1) for number in range(3) for p in (1, 16) for o in (1, 4)]
    path = write_api_log(tmp_path / "log.jsonl", trials, finish=False)
    with Journal(path, json.loads(path.read_text().splitlines()[0])) as journal:
        guard = {"finding": "throttling", "action": "again", "message": "slower", "block": 1, "visits": [2, 5]}
        journal.append("guard", guard)
        journal.finish()
    frame = rows(path, is_whole=False)
    assert frame.loc[~frame["is_fit"], "deviations"].tolist() == ["set aside: throttling"] * 2
    assert frame.index[~frame["is_fit"]].tolist() == [2, 5]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--target-error", 0.1, "--num-trials", 3), "--num-trials: --target-error chooses as it goes; leave it out"),
        (("--max-seconds", 3), "--max-seconds: of --target-error, which is not there"),
        (("--target-error", 2), "--target-error: must be between 0 and 1"),
    ],
)
def test_target_that_contradicts_other_flags_is_refused(profile, extra, message):
    with ApiServer([well_behaved]) as server:
        answer = profile(server, *extra, num_trials=None)
    assert (answer.code, len(server.requests)) == (2, 0)
    assert message in answer.err
