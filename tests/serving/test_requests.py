import numpy as np
import pandas as pd
import pytest
from makers import make_trial, write_api_log

from idealized_runtime.checks import MissingValueWarning
from idealized_runtime.serving.requests import check_requests, random_requests, read_request_table

ROW = {
    "arrival_s": 10.0,
    "num_prompt_tokens": 100,
    "num_output_tokens": 8,
    "time_to_first_token_s": 0.2,
    "runtime_s": 1.0,
}


def make_table(*changes):
    return pd.DataFrame([{**ROW, **change} for change in changes])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_to_first_token_s": -0.1}, "request 2 had its first token before it arrived"),
        ({"runtime_s": 0.1}, "request 2 ended before its first token"),
        ({"runtime_s": -1.0}, "request 2 ended before it arrived"),
        ({"num_output_tokens": 1}, "request 2 has one output token, yet took longer than its first token"),
        ({"num_output_tokens": 0}, "request 2 has a num_output_tokens that is no whole number of at least 1"),
        ({"num_prompt_tokens": 1.5}, "request 2 has a num_prompt_tokens that is no whole number of at least 1"),
        ({"arrival_s": np.nan}, "request 2 has no arrival"),
        ({"runtime_s": np.inf}, "request 2 has a time that is not finite"),
        ({"time_to_first_token_s": np.inf}, "request 2 has a time that is not finite"),
        ({"time_per_output_token_s": 0.5}, "request 2 has a time_per_output_token_s that its runtime_s is too short"),
    ],
)
def test_times_that_contradict_each_other_are_refused_by_row(change, message):
    with pytest.raises(ValueError, match=f"requests: {message}.*; 1 of 3 do"):
        check_requests(make_table({}, change, {}))


def test_time_per_output_token_of_an_answer_of_one_token_is_refused():
    table = make_table({}, {"num_output_tokens": 1, "runtime_s": 0.2}).assign(time_per_output_token_s=0.01)
    with pytest.raises(ValueError, match="request 2 has one output token, yet a time_per_output_token_s"):
        check_requests(table)


def test_failed_and_cached_requests_stay_in_the_server_without_times():
    table = make_table({}, {"error": "timeout"}, {"num_cached_tokens": 16}, {"error": "lost", "num_output_tokens": 0})
    with pytest.warns(MissingValueWarning) as warned:
        kept = check_requests(table)
    assert kept["num_prompt_tokens"].tolist() == [100, 100, 84]
    assert kept["runtime_s"].isna().tolist() == [False, True, True]
    assert [str(w.message) for w in warned] == [
        "requests: 2 of 4 requests failed: they are in the server, without times; 1 of them without an arrival or a "
        "size are left out",
        "requests: 1 of 4 requests had prompt tokens in the server's cache: they are in the server with the rest of "
        "their prompts, without times",
    ]


def test_prompt_that_was_cached_whole_gives_its_first_token_from_its_last():
    with pytest.warns(MissingValueWarning, match="1 of 2 requests had prompt tokens in the server's cache"):
        assert check_requests(make_table({}, {"num_cached_tokens": 100}))["num_prompt_tokens"].tolist() == [100, 1]
    message = "request 2 has more cached tokens than its prompt"
    with pytest.warns(MissingValueWarning), pytest.raises(ValueError, match=message):
        check_requests(make_table({}, {"num_cached_tokens": 101}))


def test_requests_still_in_the_server_have_no_times():
    checked = check_requests(make_table({}, {"time_to_first_token_s": np.nan, "runtime_s": np.nan}))
    assert len(checked) == 2
    # Sizes that were read beside missing ones are whole numbers all the same.
    assert checked["num_prompt_tokens"].dtype == checked["num_output_tokens"].dtype == int


def test_table_is_read_with_its_own_names_and_counted_from_its_first_arrival(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("TIMESTAMP,In,Out\n2023-11-16 18:17:04.0319600,5,8\n2023-11-16 18:17:03.9799600,4,10\n")
    columns = {"arrival_s": "TIMESTAMP", "num_prompt_tokens": "In", "num_output_tokens": "Out"}
    assert read_request_table(path, columns=columns)["arrival_s"].tolist() == pytest.approx([0.052, 0.0])


def test_table_without_arrivals_says_how_to_name_them(tmp_path):
    path = tmp_path / "q.csv"
    path.write_text("num_prompt_tokens,num_output_tokens\n5,8\n")
    with pytest.raises(ValueError, match=r"no column arrival_s.*--columns arrival_s=THEIRS"):
        read_request_table(path)


@pytest.mark.parametrize("burstiness", [0.5, 1.0, 2.0])
def test_random_requests_come_at_their_rate_and_burstiness(burstiness):
    sizes = pd.DataFrame({"num_prompt_tokens": [1, 2], "num_output_tokens": [3, 4], "weight": [3, 1]})
    requests = random_requests(sizes, rate_per_s=5, num_requests=40_000, rng=0, burstiness=burstiness)
    gaps = np.diff(requests["arrival_s"])
    assert gaps.mean() == pytest.approx(0.2, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness, rel=0.04)
    assert (requests["num_prompt_tokens"] == 1).mean() == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("no_error", [None, "", " ", False, "None", 0])
def test_error_that_says_there_was_none_leaves_a_request_in(no_error):
    assert len(check_requests(make_table({"error": no_error}, {"error": no_error}))) == 2


def test_row_of_a_contradiction_is_that_of_the_table():
    table = make_table({"error": "timeout", "runtime_s": np.nan}, {}, {"runtime_s": -1.0})
    message = r"request 3 ended before it arrived .*1 of 3"
    with pytest.warns(MissingValueWarning), pytest.raises(ValueError, match=message):
        check_requests(table)


def test_queries_without_a_size_are_never_drawn():
    sizes = pd.DataFrame({"num_prompt_tokens": [5, np.nan], "num_output_tokens": [3, 4]})
    with pytest.warns(MissingValueWarning, match="1 of 2 rows of the queries lack a size"):
        assert set(random_requests(sizes, rate_per_s=1, num_requests=50, rng=0)["num_prompt_tokens"]) == {5}
    with pytest.warns(MissingValueWarning), pytest.raises(ValueError, match="there is nothing to draw"):
        random_requests(sizes[1:], rate_per_s=1, num_requests=50, rng=0)
    with pytest.raises(ValueError, match="num_output_tokens must be a positive finite number; got 0"):
        random_requests(sizes.assign(num_output_tokens=0), rate_per_s=1, num_requests=5, rng=0)


def test_requests_of_a_log_arrive_when_they_were_sent_but_for_those_that_were_refused(tmp_path):
    load = {"load": "open", "rate_per_s": 2.0, "repetition": 0}
    due = [f"2026-11-21T10:00:0{second}+00:00" for second in range(3)]
    late = ["2026-11-21T10:00:00.5+00:00", "2026-11-21T10:00:02+00:00", due[2]]
    error = {"error": {"type": "StatusError", "message": "HTTP 429"}, "status": 429}
    trials = [
        make_trial(number, **load, scheduled_at=due[number], sent_at=late[number], **(error if number == 2 else {}))
        for number in range(3)
    ]
    path = write_api_log(tmp_path / "load.jsonl", trials)
    with pytest.warns(MissingValueWarning, match="1 of 3 requests were refused, and are left out"):
        assert read_request_table(path)["arrival_s"].tolist() == [0.0, 1.5]


def test_warm_ups_of_a_load_are_in_the_server_and_have_no_times(tmp_path):
    load = {"load": "open", "rate_per_s": 2.0, "repetition": 0}
    sent = [{"sent_at": f"2026-11-21T10:00:0{second}+00:00"} for second in range(3)]
    fields = [{"is_warmup": True, **load}, load, {}]
    trials = [make_trial(0, **field, **when) for field, when in zip(fields, sent, strict=True)]
    requests = read_request_table(write_api_log(tmp_path / "load.jsonl", trials))
    assert requests["arrival_s"].tolist() == [0.0, 1.0, 0.0]
    assert requests["runtime_s"].isna().tolist() == [True, False, False]
    assert requests["run"].nunique() == 2
