"""Tensor and pipeline parallelism on real processes. A launch takes seconds: each fixture makes one for many tests."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from parallel_worker import ARCHITECTURES, CASES, can_be_shared_out, run_cases

from idealized_runtime.records import read_log
from idealized_runtime.records.validity import SEVERE
from megatron_lm import device as devices
from megatron_lm.parallel import ProcessGrid

ROOT = Path(__file__).resolve().parents[2]
GRIDS = [(2, 1), (1, 2), (2, 2)]
GRIDS_AND_CASES = [(grid, case) for grid in GRIDS for case in CASES if can_be_shared_out(case[0], grid[0])]
GRIDS_AND_NAMES = [(grid, name) for grid in GRIDS for name in ARCHITECTURES if can_be_shared_out(name, grid[0])]
SHAPE = ("--num-layers", 4, "--hidden-size", 32, "--num-attention-heads", 2, "--max-position-embeddings", 64,
         "--vocab-size", 4096, "--make-vocab-size-divisible-by", 1, "--device", "cpu")  # fmt: skip
SWEEP = ("--all-num-input-tokens", 5, 16, "--all-num-output-tokens", 1, 4, "--num-warmup", 1, "--num-trials", 3,
         "--num-blocks", 1)  # fmt: skip
BATCHES = ("--global-batch-size", 4, "--token-micro-batch-size", 1, 2)


def launch(num_ranks, script, *argv, max_restarts=0, launcher="torch.distributed.run"):
    """torchrun, or the launcher of 2023, which gives each rank --local-rank; a thread a process.

    The dashes keep it from taking a flag of ours for one of its own.
    """
    command = [sys.executable, "-m", launcher, "--standalone", "--nproc-per-node", num_ranks,
               "--max-restarts", max_restarts, "--", ROOT / script, *argv]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=environment)  # fmt: skip


def finish(process, timeout=120):
    out, err = process.communicate(timeout=timeout)
    return SimpleNamespace(code=process.returncode, out=out, err=err)


# The same model, however it is shared out.


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """By grid, what each of its ranks computed; (1, 1) is this process."""
    folder = tmp_path_factory.mktemp("grids")

    def run(num_ranks):
        """All grids of so many ranks, one after the other in the same processes, which take seconds to start."""
        grids = [grid for grid in GRIDS if grid[0] * grid[1] == num_ranks]
        names = [f"{width}x{depth}" for width, depth in grids]
        finished = finish(launch(num_ranks, "tests/parallel_worker.py", folder, *names))
        assert finished.code == 0, finished.err
        ranks = range(num_ranks)
        return [(grid, [torch.load(folder / f"{name}-rank{rank}.pt") for rank in ranks])
                for grid, name in zip(grids, names, strict=True)]  # fmt: skip

    with ThreadPoolExecutor(2) as pool:
        results = dict(itertools.chain(*pool.map(run, (2, 4))))
    with ProcessGrid(devices.select_device("cpu")) as single:
        results[1, 1] = [run_cases(single)]
    return results


@pytest.mark.parametrize(("grid", "case"), GRIDS_AND_CASES, ids=str)
def test_logits_are_those_of_one_process(answers, grid, case):
    expected = answers[1, 1][0][case]["logits"]
    assert torch.cat(expected).std() > 0.5, "logits this flat would hide a fault"
    last_stage = range((grid[1] - 1) * grid[0], grid[0] * grid[1])
    for rank in last_stage:
        logits = answers[grid][rank][case]["logits"]
        assert len(logits) == len(expected)
        for ours, theirs in zip(logits, expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("grid", "case"), GRIDS_AND_CASES, ids=str)
def test_tokens_are_those_of_one_process(answers, grid, case):
    expected = answers[1, 1][0][case]["tokens"]
    assert torch.equal(answers[grid][0][case]["tokens"], expected)
    assert len(expected.unique()) > 4, "a constant answer would show little"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-m{case[2][0]}-k{case[2][1]}")
def test_greedy_tokens_do_not_depend_on_the_micro_batches(answers, case):
    whole = (case[0], case[1], (4, 4))
    assert torch.equal(answers[1, 1][0][case]["tokens"], answers[1, 1][0][whole]["tokens"])


@pytest.mark.parametrize(("grid", "name"), GRIDS_AND_NAMES)
def test_ranks_hold_equal_parts_of_the_weights_of_one_process(answers, grid, name):
    whole = answers[1, 1][0][name]
    parts = [part[name] for part in answers[grid]]
    assert set().union(*parts) == set(whole)
    for rank, part in enumerate(parts):
        for key, value in part.items():
            # Values occur in the whole; where a dimension was shared out, the part is smaller.
            assert torch.isin(value[value != 0], whole[key]).all(), (rank, key)


# The driver under torchrun.


def records(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def settings(path):
    return [record for record in records(path) if record["record"] == "setting"]


def tokens_by_size(path):
    sizes = ("num_prompt_tokens", "num_output_tokens", "batch_size", "micro_batch_size", "token_micro_batch_size")
    return {tuple(setting[name] for name in sizes): setting["output_token_ids"] for setting in settings(path)}


def parallel_flags(tensor_parallel_size, pipeline_parallel_size):
    return ("--tensor-model-parallel-size", tensor_parallel_size,
            "--pipeline-model-parallel-size", pipeline_parallel_size)  # fmt: skip


@pytest.fixture(scope="module")
def driven(tmp_path_factory):
    """Runs of the driver, by grid; one process is started without torchrun."""
    folder = tmp_path_factory.mktemp("driven")

    def run(grid):
        log = folder / f"{grid[0]}x{grid[1]}.jsonl"
        # The same cuts as by default with two stages; greedy, as samples depend on them.
        argv = (*SHAPE, *SWEEP, *BATCHES, "--micro-batch-size", 2, "--top-k", 1, *parallel_flags(*grid), "--log", log)
        if grid == (1, 1):
            command = [sys.executable, ROOT / "generate_text.py", *argv]
            process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                       text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
        else:
            launcher = "torch.distributed.launch" if grid == (2, 1) else "torch.distributed.run"
            process = launch(2, "generate_text.py", *argv, launcher=launcher)
        finished = finish(process)
        return SimpleNamespace(**vars(finished), log=log, argv=argv)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip([(1, 1), (2, 1), (1, 2)], pool.map(run, [(1, 1), (2, 1), (1, 2)]), strict=True))


@pytest.mark.parametrize("grid", [(2, 1), (1, 2)])
def test_driver_generates_the_tokens_of_one_process_and_writes_one_log(driven, grid):
    answer = driven[grid]
    assert answer.code == 0, answer.err
    assert tokens_by_size(answer.log) == tokens_by_size(driven[1, 1].log)
    assert [record["record"] for record in records(answer.log)] == ["header"] + ["setting"] * 8 + ["footer"]
    assert len(re.findall("Runtime for", answer.out)) == 8
    header = records(answer.log)[0]
    assert (header["tensor_parallel_size"], header["pipeline_parallel_size"]) == grid
    frame = read_log(answer.log, accept=SEVERE)
    assert (frame["tensor_parallel_size"].unique().item(), frame["pipeline_parallel_size"].unique().item()) == grid
    assert sorted(set(zip(frame["batch_size"], frame["micro_batch_size"], frame["token_micro_batch_size"],
                          strict=True))) == [(4, 2, 1), (4, 2, 2)]  # fmt: skip


@pytest.mark.parametrize("grid", [(1, 1), (2, 1), (1, 2)])
def test_log_tells_how_the_output_layer_is_multiplied_on_whichever_rank_it_is(driven, grid):
    products = records(driven[grid].log)[0]["environment"]["products"]
    counts = ("1 row", "2 rows", "16 rows", "128 rows")
    assert set(products) == {f"{count}, {4096 // grid[0]} x 32" for count in counts}


@pytest.mark.parametrize("grid", [(1, 1), (2, 1), (1, 2)])
def test_every_trial_has_its_prompt_encoding_and_its_generation_time(driven, grid):
    for setting in settings(driven[grid].log):
        parts = [setting[name] for name in ("prompt_encoding_times_s", "generation_times_s", "runtimes_s")]
        for prompt_s, generation_s, runtime_s in zip(*parts, strict=True):
            assert 0 < prompt_s <= runtime_s
            assert generation_s >= 0
            assert prompt_s + generation_s == pytest.approx(runtime_s, abs=1e-12)
        if setting["num_output_tokens"] > 1:
            assert min(setting["generation_times_s"]) > 1e-4


def test_cut_log_is_finished_by_the_same_command_under_torchrun(driven, tmp_path):
    lines = driven[1, 2].log.read_bytes().splitlines(keepends=True)
    log = tmp_path / "cut.jsonl"
    log.write_bytes(b"".join(lines[:4]) + lines[4][:50])
    argv = [*driven[1, 2].argv[:-1], log]
    answer = finish(launch(2, "generate_text.py", *argv))
    assert answer.code == 0, answer.err
    assert "skipping 3 settings it holds" in answer.err
    assert len(re.findall("Runtime for", answer.out)) == 5
    assert log.read_bytes().startswith(b"".join(lines[:4]))
    assert tokens_by_size(log) == tokens_by_size(driven[1, 2].log)
    (resumed,) = (record for record in records(log) if record["record"] == "resume")
    assert "products" not in resumed["environment"], "as the header tells, and nothing anew"


def test_ranks_time_the_blocks_that_the_first_one_chooses(tmp_path):
    log = tmp_path / "known.jsonl"
    sizes = ("--all-num-input-tokens", 5, 16, 48, "--all-num-output-tokens", 1, 4, "--target-error", 0.2)
    argv = (*SHAPE, *sizes, "--max-seconds", 4, *parallel_flags(1, 2), "--log", log)
    answer = finish(launch(2, "generate_text.py", *argv))
    assert answer.code == 0, answer.err
    found = records(log)
    assert found[-1]["stopped"]["rule"] in ("target", "budget", "floor", "exhausted")
    blocks = [record for record in found if record["record"] == "block"]
    assert [record["visit"] for record in blocks] == list(range(1, len(blocks) + 1))
    assert len(re.findall("Runtime for", answer.out)) == len(settings(log)) >= 3
    assert read_log(log, accept=SEVERE)["pipeline_parallel_size"].unique().item() == 2


# A rank that fails.


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """Runs one of whose ranks fails in the second setting, by how; and how long they went on without it."""
    folder = tmp_path_factory.mktemp("failed")

    def run(how):
        log = folder / f"{how}.jsonl"
        process = launch(
            2, "tests/megatron_lm/failing_rank.py", how, *SHAPE, *SWEEP, *parallel_flags(1, 2), "--log", log
        )
        answer = finish(process)
        return SimpleNamespace(**vars(answer), log=log)

    with ThreadPoolExecutor(2) as pool:
        hows = ("killed", "fault", "memory")
        return dict(zip(hows, pool.map(run, hows), strict=True))


@pytest.mark.parametrize("how", ["killed", "fault", "memory"])
def test_rank_that_dies_ends_the_run_and_the_log_keeps_what_was_measured(failed, how):
    answer = failed[how]
    assert answer.code != 0
    assert [setting["num_output_tokens"] for setting in settings(answer.log) if "error" not in setting] == [1]
    assert records(answer.log)[-1]["record"] != "footer"
    assert f"what was measured is in {answer.log}" in answer.err


def test_run_ends_within_seconds_of_the_death_of_a_rank(tmp_path):
    log = tmp_path / "long.jsonl"
    process = launch(2, "generate_text.py", *SHAPE, *parallel_flags(1, 2), "--all-num-input-tokens", 1,
                     "--all-num-output-tokens", 1, 60, 61, "--num-warmup", 1, "--num-trials", 2000, "--num-blocks", 1,
                     "--log", log)  # fmt: skip
    assert process.stdout.readline().startswith("Runtime for")
    ranks = psutil.Process(process.pid).children(recursive=True)
    (last,) = [rank for rank in ranks if rank.environ().get("RANK") == "1"]
    died_s = time.monotonic()
    last.send_signal(signal.SIGKILL)
    answer = finish(process)
    assert time.monotonic() - died_s < 30
    assert answer.code != 0
    assert len(settings(log)) == 1


def test_error_of_the_rank_that_failed_comes_first(failed):
    err = failed["fault"].err
    assert "RuntimeError: a fault" in err
    first_error = next(line for line in err.splitlines() if "Error" in line and "torch/distributed" not in line)
    assert "a fault" in first_error or "Traceback" in first_error, err
    assert err.index("a fault") < err.index("ChildFailedError")
    assert "Connection closed" not in err.split("ChildFailedError")[0].split("a fault")[0]


def test_rank_without_memory_is_recorded_and_the_same_command_goes_on_behind_it(failed):
    (error,) = [setting["error"] for setting in settings(failed["memory"].log) if "error" in setting]
    assert error["type"] == "OutOfMemoryError"
    assert "can't allocate memory" in error["message"]
    assert "error: rank 1: out of memory at p=5 o=4" in failed["memory"].err
    assert "Traceback" not in failed["memory"].err.split("torch.distributed.elastic")[0].split("Traceback (most")[0]


def test_run_goes_on_after_the_failure_of_a_rank(failed, tmp_path):
    log = tmp_path / "again.jsonl"
    log.write_bytes(failed["fault"].log.read_bytes())
    answer = finish(launch(2, "generate_text.py", *SHAPE, *SWEEP, *parallel_flags(1, 2), "--log", log))
    assert answer.code == 0, answer.err
    assert "skipping 1 settings" in answer.err
    assert records(log)[-1] == {**records(log)[-1], "record": "footer", "num_settings": 4}


def test_run_goes_on_by_itself_where_torchrun_may_start_the_ranks_again(tmp_path):
    log = tmp_path / "restarted.jsonl"
    # Each attempt is killed in its second setting.
    argv = (*SHAPE, *SWEEP, "--all-num-output-tokens", 4, *parallel_flags(1, 2), "--log", log)
    answer = finish(launch(2, "tests/megatron_lm/failing_rank.py", "killed", *argv, max_restarts=1))
    assert answer.code == 0, answer.err
    # Of the attempt that was killed in its second setting a trial may be kept.
    kinds = [record["record"] for record in records(log) if record["record"] != "block"]
    assert kinds == ["header", "setting", "resume", "setting", "footer"]


# Refusals.


def test_wrong_number_of_processes_is_refused_once_and_before_anything_is_built(tmp_path):
    log = tmp_path / "none.jsonl"
    answer = finish(launch(2, "generate_text.py", *SHAPE, *SWEEP, *parallel_flags(1, 1), "--log", log))
    assert answer.code != 0
    message = "--tensor-model-parallel-size 1 x --pipeline-model-parallel-size 1 needs 1 processes; there are 2"
    assert answer.err.count(message) == 1
    assert not log.exists()
