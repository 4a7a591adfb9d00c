"""Sweeps that choose their own settings: real runs of the driver, whose every pass takes what a machine of known
runtimes and faults says, by clocks that only it moves."""

import gc
import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from makers_torch import RATES

from idealized_runtime.fits import RuntimeModel
from idealized_runtime.records import read_log
from idealized_runtime.records.validity import SEVERE
from megatron_lm import floors, sweep, timing
from megatron_lm.engines.sdpa import SdpaEngine

SHAPE = ("--num-layers", 1, "--hidden-size", 16, "--num-attention-heads", 1, "--max-position-embeddings", 600,
         "--vocab-size", 256, "--make-vocab-size-divisible-by", 1, "--device", "cpu")  # fmt: skip
SIZES = ("--all-num-input-tokens", 1, 64, 128, 256, 512, "--all-num-output-tokens", 1, 2, 8, 16)
# Seconds of a pass over p prompt tokens, and of one token.
PROMPT_S, TOKEN_S = (lambda p: 0.02 + 6e-4 * p), 0.02
NOISE = 0.015


class Machine:
    """What a pass takes: the known time, times ``slower(self)``, times noise. ``now_s`` is what its clocks read."""

    def __init__(self, slower=lambda machine: 1.0, noise=NOISE, seed=0):
        self.slower, self._noise, self._rng = slower, noise, np.random.default_rng(seed)
        self.now_s = self.started_s = 1000.0
        self.ahead_s, self.num_queries = 0.0, 0

    @property
    def elapsed_s(self):
        return self.now_s - self.started_s

    def work(self, seconds):
        self.now_s += seconds * self.slower(self) * math.exp(self._noise * self._rng.standard_normal())


@pytest.fixture
def run_on(monkeypatch, drive):
    """Runs the driver on a machine."""
    monkeypatch.setattr(floors, "measure_machine_rates", lambda device, dtype: RATES)
    gc.freeze()

    def run(machine, *argv, log, target=0.02):
        class Timed(SdpaEngine):
            def encode(self, tokens, first_sequence=0):
                machine.num_queries += 1
                machine.work(len(tokens) * PROMPT_S(tokens.shape[1]))
                return super().encode(tokens, first_sequence)

            def decode(self, tokens, num_cached_tokens, first_sequence=0):
                machine.work(TOKEN_S)
                return super().decode(tokens, num_cached_tokens, first_sequence)

        monkeypatch.setattr(sweep, "load_engine", {"sdpa": Timed}.get)
        monkeypatch.setattr(timing, "perf_counter", lambda: machine.now_s)
        # Trials are counted from the start of the log, by the clock that they are timed by.
        monkeypatch.setattr(sweep, "_origin_s", lambda header: machine.started_s)
        monkeypatch.setattr(timing, "time", lambda: machine.now_s + machine.ahead_s)
        answer = drive(*SHAPE, *SIZES, "--target-error", target, "--log", log, *argv)
        records = [json.loads(line) for line in log.read_text().splitlines()]
        return SimpleNamespace(
            **vars(answer), records=records, guards=[it for it in records if it["record"] == "guard"]
        )

    yield run
    gc.unfreeze()


@pytest.fixture
def log(tmp_path):
    return tmp_path / "tiny.jsonl"


def stopped(answer):
    return answer.records[-1]["stopped"]


def errors(log):
    """Relative error of the fit at every pair of the sizes."""
    model = RuntimeModel.fit(read_log(log, accept=SEVERE))
    p, o = (grid.ravel() for grid in np.meshgrid([1, 64, 128, 256, 512], [1, 2, 8, 16]))
    return model.predict(p, o) / (PROMPT_S(p) + (o - 1) * TOKEN_S) - 1


def test_sweep_stops_at_its_target_and_its_log_reads_as_any_other(run_on, log):
    answer = run_on(Machine(), log=log)
    assert answer.code == 0
    assert stopped(answer)["rule"] == "target"
    assert stopped(answer)["error"] <= 0.02
    assert stopped(answer)["sentence"] in answer.err
    assert answer.records[0]["sweep"]["target"] == {
        "target_error": 0.02,
        "level": 0.95,
        "max_seconds": None,
        "of": "each",
    }
    assert answer.guards == []
    assert np.sqrt(np.mean(errors(log) ** 2)) < 0.02
    frame = read_log(log)
    assert len(answer.out.splitlines()) == len(frame)
    assert frame["num_trials"].sum() == sum(len(it["runtimes_s"]) for it in answer.records if it["record"] == "block")


def test_trials_of_a_setting_are_spread_over_blocks_whose_orders_differ(run_on, log):
    answer = run_on(Machine(), log=log, target=0.01)
    blocks = [it for it in answer.records if it["record"] == "block"]
    assert [it["visit"] for it in blocks] == list(range(1, len(blocks) + 1))
    first = [(it["num_prompt_tokens"], it["num_output_tokens"]) for it in blocks if it["block"] == 1]
    assert first[0] == first[-1], "what begins a block ends it"
    assert first != sorted(first)
    assert len({it["block"] for it in blocks}) > 1


def test_budget_stops_a_target_that_is_out_of_reach(run_on, log):
    machine = Machine(noise=0.05)
    answer = run_on(machine, "--max-seconds", 8, log=log, target=0.001)
    assert answer.code == 0
    assert stopped(answer)["rule"] == "budget"
    assert 4 < machine.elapsed_s < 9.5
    assert "100%" in answer.err
    assert not re.search(r"10[1-9]%|1[1-9]\d%|-00:", answer.err), "no more than all, nor less than nothing left"
    assert "target of 0.1 % is not reached within 8 s" in answer.err


@pytest.mark.parametrize("num_lines", [1, 3, 9])
def test_run_that_was_killed_goes_on_with_what_is_there(run_on, log, num_lines):
    whole = run_on(Machine(), log=log)
    kept = log.read_text().splitlines(keepends=True)[:num_lines]
    log.write_text("".join(kept) + '{"record": "blo')
    again = run_on(Machine(seed=1), log=log)
    assert "".join(kept) == "".join(log.read_text().splitlines(keepends=True)[:num_lines])
    assert stopped(again)["rule"] == stopped(whole)["rule"] == "target"
    visits = [it["visit"] for it in again.records if it["record"] == "block"]
    assert visits == list(range(1, len(visits) + 1))
    assert np.sqrt(np.mean(errors(log) ** 2)) < 0.02


def test_complete_log_stays_as_it_is_and_a_tighter_target_goes_on_with_it(run_on, log):
    first = run_on(Machine(), log=log)
    before = log.read_bytes()
    again = run_on(Machine(), log=log)
    assert (again.code, log.read_bytes()) == (0, before), "nothing is left to do"
    assert stopped(first)["sentence"] in again.err
    looser = run_on(Machine(), log=log, target=0.05)
    assert looser.records[-2]["sweep"]["target"]["target_error"] == 0.05
    assert [it for it in looser.records if it["record"] == "block"] == [
        it for it in first.records if it["record"] == "block"
    ]
    tighter = run_on(Machine(seed=1), log=log, target=0.016)
    assert stopped(tighter)["error"] <= 0.016
    assert len(read_log(log)) >= len({json.dumps(it) for it in first.records if it["record"] == "setting"})
    assert read_log(log)["num_trials"].sum() == sum(
        len(it["runtimes_s"]) for it in tighter.records if it["record"] == "block"
    )
    assert np.sqrt(np.mean(errors(log) ** 2)) < 0.008


def test_queries_are_what_is_to_be_known(run_on, log, tmp_path):
    path = tmp_path / "queries.csv"
    path.write_text("num_prompt_tokens,num_output_tokens\n256,8\n250,9\n500,2\n")
    answer = run_on(Machine(), "--queries", path, log=log)
    assert stopped(answer)["rule"] == "target"
    assert answer.records[0]["sweep"]["target"]["queries"]["source"] == str(path)
    model = RuntimeModel.fit(read_log(log))
    assert model.predict(250, 9) == pytest.approx(PROMPT_S(250) + 8 * TOKEN_S, rel=0.02)


def test_total_of_the_queries_is_known_before_each_of_them(run_on, log, tmp_path):
    each, total = (
        run_on(Machine(noise=0.03), "--target", of, "--max-seconds", 30, log=tmp_path / f"{of}.jsonl")
        for of in ("each", "total")
    )
    assert stopped(total)["rule"] == "target"
    spent_s = [sum(sum(it["runtimes_s"]) for it in run.records if it["record"] == "block") for run in (total, each)]
    assert spent_s[0] < spent_s[1]


def test_batches_are_known_each_by_its_own_timings_in_the_same_blocks(run_on, log):
    answer = run_on(Machine(), "--global-batch-size", 1, 4, log=log, target=0.03)
    assert answer.code == 0
    assert stopped(answer)["rule"] == "target"
    assert all(f"batch_size {size}: the target of 3 % is reached" in stopped(answer)["sentence"] for size in (1, 4))
    blocks = [it for it in answer.records if it["record"] == "block"]
    assert {it["batch_size"] for it in blocks if it["block"] == 1} == {1, 4}
    settings = read_log(log)
    for size, own in settings.groupby("batch_size"):
        p, o = own["num_prompt_tokens"], own["num_output_tokens"]
        fit = RuntimeModel.fit(own)
        assert np.mean(np.abs(fit.predict(p, o) / (size * PROMPT_S(p) + (o - 1) * TOKEN_S) - 1)) < 0.03


def test_batches_share_the_seconds(run_on, log):
    machine = Machine(noise=0.05)
    answer = run_on(machine, "--global-batch-size", 1, 2, 4, "--max-seconds", 20, log=log, target=0.001)
    assert stopped(answer)["rule"] == "budget"
    assert 12 < machine.elapsed_s < 22
    blocks = [it for it in answer.records if it["record"] == "block"]
    seconds = [sum(sum(it["runtimes_s"]) for it in blocks if it["batch_size"] == size) for size in (1, 2, 4)]
    assert min(seconds) > 0.15 * sum(seconds)


@pytest.mark.parametrize("num_lines", [1, 9])
def test_batches_go_on_where_they_were_killed(run_on, log, num_lines):
    command = ("--global-batch-size", 1, 4)
    run_on(Machine(), *command, log=log, target=0.03)
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:num_lines]))
    answer = run_on(Machine(seed=1), *command, log=log, target=0.03)
    assert stopped(answer)["rule"] == "target"
    assert set(read_log(log)["batch_size"]) == {1, 4}


def test_batch_of_which_nothing_fits_is_given_up_and_the_others_are_timed(run_on, log, monkeypatch):
    reset = SdpaEngine.reset

    def refuse_batches(engine, batch_size, num_positions):
        if batch_size > 1:
            raise MemoryError("no room")
        return reset(engine, batch_size, num_positions)

    monkeypatch.setattr(SdpaEngine, "reset", refuse_batches)
    answer = run_on(Machine(), "--global-batch-size", 1, 4, log=log, target=0.03)
    assert answer.code == 0
    assert "batch_size 4 is given up: what is left of the sizes is too little" in answer.err
    assert stopped(answer)["rule"] == "target"
    assert set(read_log(log)["batch_size"]) == {1}


def test_setting_that_does_not_fit_is_not_chosen_again(run_on, log, monkeypatch):
    reset = SdpaEngine.reset

    def full(engine, batch_size, num_positions):
        if num_positions > 300:
            raise MemoryError
        return reset(engine, batch_size, num_positions)

    monkeypatch.setattr(SdpaEngine, "reset", full)
    answer = run_on(Machine(), log=log)
    assert answer.code == 0
    failed = [it for it in answer.records if it["record"] == "setting" and "error" in it]
    assert 1 <= len(failed) <= 2, "one of 512 tokens, which stands twice in the first block"
    assert all(it["num_prompt_tokens"] == 512 for it in failed)
    assert {it["error"]["type"] for it in failed} == {"OutOfMemoryError"}
    assert read_log(log, accept=SEVERE)["num_prompt_tokens"].max() == 256


# What is noticed between blocks, and what is done about it.


def findings(answer):
    return [(it["finding"], it["action"]) for it in answer.guards]


def counted(answer):
    """Trials that the settings hold, and those of blocks that were not set aside."""
    aside = {visit for it in answer.guards for visit in it["visits"]}
    blocks = [it for it in answer.records if it["record"] == "block" and it["visit"] not in aside]
    held = [seconds for it in answer.records if it["record"] == "setting" for seconds in it.get("runtimes_s", ())]
    return sorted(held), sorted(seconds for it in blocks for seconds in it["runtimes_s"])


def test_cold_start_is_set_aside(run_on, log):
    answer = run_on(Machine(lambda machine: 1.3 if machine.elapsed_s < 2.5 else 1.0), log=log, target=0.01)
    # It ends in the midst of the first block: either that block stands out, or single visits of it do.
    assert {("cold_start", "anew"), ("held_up", "again")} & set(findings(answer))
    held, not_aside = counted(answer)
    assert held == not_aside
    assert np.abs(np.median(errors(log))) < 0.015
    assert "warning: " in answer.err


def test_throttled_machine_is_timed_anew_in_the_state_that_lasts(run_on, log):
    answer = run_on(Machine(lambda machine: 1.3 if machine.elapsed_s > 3 else 1.0), log=log, target=0.01)
    # It began in the midst of a block, whose end stands out from its beginning.
    found = [pair for pair in findings(answer) if pair[0] != "held_up"]
    assert found[:2] == [("throttling", "again"), ("throttling", "anew")]
    held, not_aside = counted(answer)
    assert held == not_aside
    assert np.median(errors(log)) == pytest.approx(0.3, abs=0.02), "of one state, not of the two mixed"


def test_machine_that_is_throttled_when_the_seconds_are_spent_keeps_what_was_timed(run_on, log):
    machine = Machine(lambda machine: 1 + 0.9 * (machine.elapsed_s > 17))
    answer = run_on(machine, "--max-seconds", 30, log=log, target=0.002)
    assert findings(answer)[-1] in {("throttling", "marked"), ("drift", "marked")}
    assert "anew" not in {action for _, action in findings(answer)}
    with pytest.warns(UserWarning, match="guard: noticed while it was timed: (drift|throttling): block"):
        settings = read_log(log, accept=SEVERE)
    assert settings["num_prompt_tokens"].nunique() >= 3
    assert settings["num_output_tokens"].nunique() >= 2


def test_machine_that_does_not_come_to_rest_is_marked(run_on, log):
    answer = run_on(Machine(lambda machine: 1 + 0.06 * machine.elapsed_s), "--max-seconds", 80, log=log, target=0.004)
    assert {"drift", "throttling"} & {name for name, action in findings(answer) if action == "marked"}
    with pytest.warns(UserWarning, match="guard: noticed while it was timed: (drift|throttling): block"):
        read_log(log, accept=SEVERE)


def test_trials_of_two_populations_are_marked(run_on, log):
    machine = Machine(noise=0.01)
    machine.slower = lambda it: 1.5 if it.num_queries * 7 % 5 < 2 else 1.0
    answer = run_on(machine, "--max-seconds", 40, log=log, target=0.01)
    assert any(action == "marked" for _, action in findings(answer))
    with pytest.warns(UserWarning, match="guard: noticed while it was timed"):
        read_log(log, accept=SEVERE)


def test_trial_that_was_held_up_is_set_aside(run_on, log):
    machine = Machine()
    machine.slower = lambda it: 3.0 if it.num_queries == 5 else 1.0
    answer = run_on(machine, log=log, target=0.01)
    assert findings(answer) == [("held_up", "again")]
    held, not_aside = counted(answer)
    assert held == not_aside
    assert np.abs(errors(log)).max() < 0.03


def test_run_during_which_a_clock_jumps_is_set_aside(run_on, log):
    class Jumps(Machine):
        def work(self, seconds):
            super().work(seconds)
            if self.num_queries == 9 and not self.ahead_s:
                # The counter that runs are timed by, which the system's clock does not follow.
                self.now_s, self.ahead_s = self.now_s + 0.5, -0.5

    answer = run_on(Jumps(), log=log, target=0.01)
    assert findings(answer) == [("clock", "again")]
    held, not_aside = counted(answer)
    assert held == not_aside
    assert np.abs(errors(log)).max() < 0.03


def test_clocks_that_never_agree_are_no_answer(run_on, log):
    class TwoClocks(Machine):
        def work(self, seconds):
            super().work(seconds)
            self.ahead_s += seconds

    answer = run_on(TwoClocks(), log=log)
    assert answer.code == 1
    assert "stopped: clock: a run that took" in answer.err
    assert answer.records[-1]["record"] == "stop"
    assert not any(it["record"] == "setting" for it in answer.records)


@pytest.mark.parametrize("is_once", [True, False])
def test_runtime_below_the_floor_is_set_aside_and_if_it_lasts_refused(run_on, log, monkeypatch, is_once):
    class Floors(sweep.Floors):
        def why_impossible(self, setting, runtimes_s):
            least_s = 0.5 * (PROMPT_S(setting["num_prompt_tokens"]) + TOKEN_S * (setting["num_output_tokens"] - 1))
            return "a trial took too little" if min(runtimes_s) < least_s else None

    monkeypatch.setattr(sweep, "Floors", Floors)
    answer = run_on(Machine(lambda it: 0.1 if it.num_queries == 4 or not is_once else 1.0), log=log)
    if is_once:
        assert findings(answer)[0] == ("below_floor", "again")
        assert stopped(answer)["rule"] == "target"
        assert np.abs(errors(log)).max() < 0.04
    else:
        assert answer.code == 1
        assert findings(answer) == [("below_floor", "again")] * 3
        assert "stopped: below_floor" in answer.err
        assert answer.records[-1]["reason"].startswith("below_floor: p=")
