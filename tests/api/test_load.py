import asyncio
import itertools
import json
import subprocess
import sys
import time

import numpy as np
import pytest
from api_server import DONE, ApiServer, event, refusal, stream, text_event, well_behaved

from idealized_runtime.api.load import LoadSweep, poisson_arrivals, run_closed_loop, run_open_loop
from idealized_runtime.cli.main import main
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.records import IncompleteLogWarning, Journal, load_log, read_requests


class Recorder:
    """Answers every request after a while, and remembers how many were under way when each was sent."""

    def __init__(self, runtime_s=0.01):
        self.runtime_s = runtime_s
        self.numbers, self.in_flight, self.due_s = [], [], []
        self._under_way = 0

    async def send(self, number, due_s):
        self._under_way += 1
        self.numbers.append(number)
        self.in_flight.append(self._under_way)
        self.due_s.append(due_s)
        await asyncio.sleep(self.runtime_s)
        self._under_way -= 1


def make_sweep(**changes):
    values = {
        "all_num_prompt_tokens": (8,),
        "all_num_output_tokens": (2,),
        "all_num_parallel": (1, 3),
        "all_rates_per_s": (),
        "num_requests": 5,
        "num_warmup": 1,
        "num_repetitions": 1,
        "seed": 0,
    }
    return LoadSweep(**values | changes)


def test_closed_loop_keeps_as_many_under_way_until_the_last_counted_is_answered():
    recorder = Recorder()
    asyncio.run(run_closed_loop(recorder.send, num_parallel=4, num_warmup=2, num_requests=9))
    assert recorder.numbers == list(range(len(recorder.numbers)))
    # From the fourth on, every request is sent while three others are under way.
    assert recorder.in_flight[:11] == [1, 2, 3, *[4] * 8]
    # Uncounted ones at the end: at most two a stream.
    assert 11 <= len(recorder.numbers) <= 11 + 8


def test_closed_loop_of_one_sends_one_after_the_other():
    recorder = Recorder()
    asyncio.run(run_closed_loop(recorder.send, num_parallel=1, num_warmup=1, num_requests=3))
    assert recorder.in_flight == [1] * 4


def test_open_loop_sends_at_its_times_whether_answers_come_or_not():
    recorder = Recorder(runtime_s=10)

    async def run():
        arrivals_s = [0.0, 0.01, 0.02, 0.03]
        task = asyncio.ensure_future(run_open_loop(recorder.send, iter(arrivals_s), num_warmup=0, num_requests=4))
        while len(recorder.numbers) < 4:
            await asyncio.sleep(0.005)
        task.cancel()

    asyncio.run(run())
    assert recorder.in_flight == [1, 2, 3, 4]
    assert recorder.due_s == [0.0, 0.01, 0.02, 0.03]


def test_open_loop_ends_when_the_counted_requests_are_answered():
    recorder = Recorder()
    # The last arrival, which does not count, is an hour away.
    arrivals_s = iter([0.0, 0.01, 0.02, 3600.0])
    asyncio.run(asyncio.wait_for(run_open_loop(recorder.send, arrivals_s, num_warmup=1, num_requests=2), 60))
    assert recorder.numbers == [0, 1, 2]


@pytest.mark.parametrize("loop", ["closed", "open"])
def test_error_of_one_request_ends_the_loop(loop):
    async def send(number, _due_s):
        if number == 2:
            raise ValueError("the server refuses")
        await asyncio.sleep(0.01)

    numbers = {"num_warmup": 0, "num_requests": 50}
    run = (
        run_closed_loop(send, num_parallel=2, **numbers)
        if loop == "closed"
        else run_open_loop(send, itertools.count(0, 0.001), **numbers)
    )
    with pytest.raises(ValueError, match="the server refuses"):
        asyncio.run(run)


def test_arrivals_are_those_of_a_poisson_process():
    arrivals_s = np.array(list(itertools.islice(poisson_arrivals(20.0, np.random.default_rng(0)), 4000)))
    gaps_s = np.diff(arrivals_s)
    assert (gaps_s > 0).all()
    # Standard errors of mean and deviation are 1.6 % and 3 %.
    assert gaps_s.mean() == pytest.approx(1 / 20, rel=0.06)
    assert gaps_s.std() == pytest.approx(1 / 20, rel=0.12)
    counts = np.histogram(arrivals_s, np.arange(0, arrivals_s[-1], 1.0))[0]
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.35)


def test_points_are_every_size_at_every_load_in_shuffled_order():
    sweep = make_sweep(all_num_output_tokens=(2, 4), all_rates_per_s=(0.5,), num_repetitions=2)
    assert len(sweep.points()) == 6
    pending = sweep.pending([])
    assert len(pending) == 12
    first, second = pending[:6], pending[6:]
    assert [point["repetition"] for point in pending] == [0] * 6 + [1] * 6
    assert [{**point, "repetition": 1} for point in first] != second


def counted_trials(sweep, point, count):
    return [{**point, "trial": number, "is_warmup": False} for number in range(count)]


def test_complete_points_are_not_measured_again():
    sweep = make_sweep()
    first, second = sweep.pending([])
    assert sweep.pending(counted_trials(sweep, first, 5)) == [second]


def test_point_that_was_cut_off_is_measured_whole_under_a_new_number():
    sweep = make_sweep()
    first, second = sweep.pending([])
    assert sweep.pending(counted_trials(sweep, first, 3)) == [{**first, "repetition": 1}, second]
    interrupted = [{**trial, "error": {"type": "InterruptedError"}} for trial in counted_trials(sweep, first, 5)[3:]]
    assert len(sweep.pending([*counted_trials(sweep, first, 3), *interrupted])) == 2


def test_point_that_was_cut_off_in_its_warm_up_is_measured_under_a_new_number():
    sweep = make_sweep(num_warmup=3)
    first, second = sweep.pending([])
    warmups = [{**first, "trial": number, "is_warmup": True} for number in range(2)]
    assert sweep.pending(warmups) == [{**first, "repetition": 1}, second]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"all_num_parallel": (0,)}, "all_num_parallel must be different integers of at least 1"),
        ({"all_rates_per_s": (-1.0,)}, "all_rates_per_s must be positive"),
        ({"all_num_parallel": ()}, "give --all-num-parallel or --all-rates"),
        ({"num_requests": 0}, "num_requests must be at least 1; got 0"),
    ],
)
def test_impossible_sweep_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_sweep(**changes)


def run_load(server, log, *arguments, parallel=("1", "3")):
    sizes = ["--all-num-input-tokens", "8", "--all-num-output-tokens", "2", "--num-requests", "6", "--num-warmup", "1"]
    where = ["--base-url", server.base_url, "--model", "tiny", "--log", str(log), "--seed", "7"]
    return main(["api", "load", *where, *sizes, "--all-num-parallel", *parallel, *arguments])


def test_load_is_measured_logged_and_summarised(tmp_path, capsys):
    log = tmp_path / "load.jsonl"
    with ApiServer([lambda request: well_behaved(request, first_s=0.02)]) as server:
        assert run_load(server, log, "--all-rates", "40", "--objective", "e2e=10") == 0
        prompts = [request.prompt for request in server.requests]
    requests = read_requests(log)
    counted = requests[~requests["is_warmup"]]
    assert counted.groupby(["load", "num_parallel"], dropna=False).size().tolist() == [6, 6, 6]
    assert counted["is_fit"].all()
    opened = counted[counted["load"] == "open"]
    assert (opened["sent_at"] >= opened["scheduled_at"]).all()
    # No cache can answer: no prompt is sent twice, probes of the tokenizer aside.
    assert len(set(prompts)) == len(prompts)
    out, err = capsys.readouterr()
    assert "goodput_per_s" in out
    assert "goodput counts answers whole and as asked for with e2e <= 10 s" in out
    assert "few_requests: 1 parallel, p=8 o=2: p99 of 6 requests" in err


def test_mixed_load_has_requests_of_all_sizes_and_is_summarised_as_one(tmp_path, capsys):
    log = tmp_path / "load.jsonl"
    sizes = ["--all-num-input-tokens", "8", "12", "--all-num-output-tokens", "2", "3", "--num-requests", "24"]
    with ApiServer([well_behaved]) as server:
        where = ["--base-url", server.base_url, "--model", "tiny", "--log", str(log), "--seed", "7"]
        command = ["api", "load", *where, *sizes, "--mix", "--all-num-parallel", "3", "--json"]
        assert main(command) == 0
        answer, num_requests = json.loads(capsys.readouterr().out), len(server.requests)
        assert main(command) == 0
        assert len(server.requests) == num_requests
    counted = read_requests(log).query("not is_warmup")
    assert counted.groupby(["num_prompt_tokens", "num_output_tokens"]).size().shape == (4,)
    assert [row["num_requests"] for row in answer["throughput"]] == [24]


def test_finished_load_sweep_sends_nothing_again(tmp_path):
    log = tmp_path / "load.jsonl"
    with ApiServer([well_behaved]) as server:
        assert run_load(server, log) == 0
        num_requests, contents = len(server.requests), log.read_bytes()
        assert run_load(server, log) == 0
        assert len(server.requests) == num_requests
    assert log.read_bytes() == contents


def test_load_sweep_that_was_killed_keeps_its_answers_and_goes_on(tmp_path):
    log = tmp_path / "load.jsonl"
    with ApiServer([lambda request: well_behaved(request, first_s=0.05)]) as server:
        arguments = ["api", "load", "--base-url", server.base_url, "--model", "tiny", "--log", str(log), "--seed", "7"]
        arguments += ["--all-num-input-tokens", "8", "--all-num-output-tokens", "2", "--all-num-parallel", "2"]
        arguments += ["--num-requests", "12", "--num-warmup", "1"]
        process = subprocess.Popen([sys.executable, "-m", "idealized_runtime", *arguments], cwd=ROOT)
        while len(server.requests) < 10 and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        process.wait()
        num_kept, num_sent = (log.read_bytes().count(b'"record": "%s"' % kind) for kind in (b"trial", b"sent"))
        # Those under way when it was killed are known to have been sent.
        assert 0 < num_kept <= len(server.requests) <= num_sent
        assert main(arguments) == 0
    requests = read_requests(log)
    counted = requests[~requests["is_warmup"]]
    # The kill may have cut the last line.
    assert num_kept - 4 + 12 <= len(counted) <= num_kept - 3 + 12
    assert counted["repetition"].value_counts().to_dict()[1] == 12


def test_requests_that_a_killed_open_loop_had_under_way_hold_its_budget(tmp_path):
    log = tmp_path / "load.jsonl"
    waits_s = [60]
    with ApiServer([well_behaved, well_behaved, lambda request: well_behaved(request, first_s=waits_s[-1])]) as server:
        arguments = ["api", "load", "--base-url", server.base_url, "--model", "tiny", "--log", str(log), "--seed", "7"]
        arguments += ["--all-num-input-tokens", "8", "--all-num-output-tokens", "2", "--all-rates", "40"]
        arguments += ["--num-requests", "50", "--max-requests", "30"]
        process = subprocess.Popen([sys.executable, "-m", "idealized_runtime", *arguments], cwd=ROOT)
        while len(server.requests) < 20 and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        process.wait()
        waits_s.append(0)
        assert main(arguments) == 1
        assert 20 <= len(server.requests) <= 30


def test_load_that_was_stopped_in_a_warm_up_goes_on_and_ends(tmp_path):
    log = tmp_path / "load.jsonl"
    with ApiServer([well_behaved]) as server:
        # Two probes, and two of four warm-ups.
        assert run_load(server, log, "--num-warmup", "4", "--max-requests", "4", parallel=("1",)) == 1
        assert run_load(server, log, "--num-warmup", "4", parallel=("1",)) == 0
        assert run_load(server, log, "--num-warmup", "4", parallel=("1",)) == 0
    # And at most two behind them, which do not count.
    assert 4 + 4 + 6 <= len(server.requests) <= 4 + 4 + 6 + 2


def shortened(request):
    """A server whose sequences end after one token."""
    yield from stream(text_event(finish_reason="length"), event({"choices": [], "usage": {
        "prompt_tokens": request.num_prompt_tokens, "completion_tokens": 1}}), DONE)(request)  # fmt: skip


def test_load_whose_requests_all_deviate_stops_with_what_to_do(tmp_path, capsys):
    with ApiServer([shortened]) as server:
        assert run_load(server, tmp_path / "load.jsonl") == 1
        num_requests = len(server.requests)
        err = capsys.readouterr().err
        assert "6 of 6 trials deviate from what was asked for: p=8 o=2 (6 of 6: 1 output tokens reported)" in err
        assert "--force-with min_tokens" in err
    assert num_requests <= 2 + 1 + 6 + 6, "the second point is not asked for"
    assert main(["api", "summary", str(tmp_path / "load.jsonl")]) == 1
    assert "nothing is summarised: none of" in capsys.readouterr().err


def test_load_and_profile_do_not_mix_in_a_log(tmp_path, capsys):
    with ApiServer([well_behaved]) as server:
        sizes = ["--all-num-input-tokens", "8", "--all-num-output-tokens", "2", "--num-trials", "1"]
        where = ["--base-url", server.base_url, "--model", "tiny", "--log"]
        profile = ["api", "profile", *sizes, *where]
        assert run_load(server, tmp_path / "load.jsonl", parallel=("1",)) == 0
        assert main([*profile, str(tmp_path / "sweep.jsonl")]) == 0
        contents, num_requests = (tmp_path / "sweep.jsonl").read_bytes(), len(server.requests)
        capsys.readouterr()
        assert main([*profile, str(tmp_path / "load.jsonl")]) == 2
        assert "load.jsonl holds requests under load, which a sweep of sizes would mix into" in capsys.readouterr().err
        assert run_load(server, tmp_path / "sweep.jsonl", parallel=("1",)) == 2
        assert "sweep.jsonl holds a sweep of sizes, which requests under load would mix" in capsys.readouterr().err
        assert len(server.requests) == num_requests
    assert (tmp_path / "sweep.jsonl").read_bytes() == contents


def test_log_that_another_run_has_open_is_refused(tmp_path, capsys):
    log = tmp_path / "load.jsonl"
    with ApiServer([well_behaved]) as server:
        assert run_load(server, log, parallel=("1",)) == 0
        num_requests = len(server.requests)
        with Journal(log, load_log(log).header):
            assert run_load(server, log, "--num-requests", "9", parallel=("1",)) == 2
        assert len(server.requests) == num_requests
    assert "another run writes to it" in capsys.readouterr().err


def test_refusals_under_load_are_results(tmp_path, capsys):
    log = tmp_path / "load.jsonl"
    # Two probes of the tokenizer; then every third request is one too many.
    behaviours = [well_behaved] * 2 + [well_behaved, well_behaved, refusal(429, "too many")] * 40
    with ApiServer(behaviours) as server:
        assert run_load(server, log, parallel=("2",)) == 0
    with pytest.warns(IncompleteLogWarning, match="trials failed"):
        requests = read_requests(log)
    counted = requests[~requests["is_warmup"]]
    assert counted["error_message"].dropna().str.contains("HTTP 429: too many").all()
    assert counted["error_type"].notna().sum() == 2
    assert "2 of 6 requests failed or deviate" in capsys.readouterr().err


def test_server_that_answers_nothing_under_load_ends_the_sweep(tmp_path, capsys):
    with ApiServer([well_behaved, well_behaved, refusal(500, "broken")]) as server:
        assert run_load(server, tmp_path / "load.jsonl") == 1
    assert "stopped: all 6 requests failed, the last: HTTP 500: broken" in capsys.readouterr().err


def test_budget_holds_under_load(tmp_path, capsys):
    log = tmp_path / "load.jsonl"
    with ApiServer([lambda request: well_behaved(request, first_s=0.01)]) as server:
        assert run_load(server, log, "--max-requests", "9") == 1
        assert len(server.requests) == 9
    assert "--max-requests 9: 9 were sent" in capsys.readouterr().err
    assert json.loads(log.read_text().splitlines()[-1])["record"] == "stop"


def test_wrong_key_under_load_stops_at_once(tmp_path, capsys):
    with ApiServer([refusal(401, "Incorrect API key")]) as server:
        assert run_load(server, tmp_path / "load.jsonl") == 2
        assert len(server.requests) == 1
    assert "Incorrect API key" in capsys.readouterr().err


@pytest.mark.parametrize("objective", ["ttft", "ttft=fast", "itl=1"])
def test_unusable_objective_is_refused_before_anything_is_sent(tmp_path, capsys, objective):
    with ApiServer([well_behaved]) as server:
        assert run_load(server, tmp_path / "load.jsonl", "--objective", objective) == 2
        assert server.requests == []
    assert "objective" in capsys.readouterr().err
