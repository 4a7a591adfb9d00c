import errno
import gc
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import ANY

import psutil
import pytest
import torch
from makers import write_gpt2_files
from makers_torch import RATES

from idealized_runtime.records import (
    IncompleteLogWarning,
    SliceWarning,
    parse_log,
    read_log,
    read_trials,
    runtime_sentence,
)
from idealized_runtime.records.validity import SEVERE
from megatron_lm import device as devices
from megatron_lm import environment, floors, sweep, timing
from megatron_lm.engines import PORTABLE_ENGINES
from megatron_lm.engines.sdpa import SdpaEngine
from megatron_lm.prompts import DEFAULT_PROMPTS_FILES

ROOT = Path(__file__).resolve().parents[2]
SHAPE = ("--num-layers", 2, "--hidden-size", 32, "--num-attention-heads", 2, "--max-position-embeddings", 64,
         "--vocab-size", 256, "--make-vocab-size-divisible-by", 1)  # fmt: skip
# One setting after the other, in the order given; blocks are for test_blocks.py.
TINY = (*SHAPE, "--device", "cpu", "--num-warmup", 1, "--num-trials", 3, "--num-blocks", 1)
SWEEP = ("--all-num-input-tokens", 1, 16, "--all-num-output-tokens", 1, 2, 5)
SETTINGS = [(p, o) for p in (1, 16) for o in (1, 2, 5)]
# What scripts of 2023 search for.
SENTENCE = re.compile(
    r"Runtime for {'num_input_tokens': (\d+), 'num_output_tokens': (\d+)}: (\d+\.\d{3}) seconds \+- (\d+\.\d{3})"
)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """One thread, which a busy neighbour does not slow down; no collection of what imports left behind; no rates."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(floors, "measure_machine_rates", lambda device, dtype: RATES)
        yield
    gc.unfreeze()
    torch.set_num_threads(num_threads)


@pytest.fixture
def log_path(tmp_path):
    return tmp_path / "new folder" / "tiny.jsonl"


def records(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def settings(path):
    return [record for record in records(path) if record["record"] == "setting"]


def sizes(path):
    return [(setting["num_prompt_tokens"], setting["num_output_tokens"]) for setting in settings(path)]


def read_whole(path):
    """Frame of a log that must be complete and without failures."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", IncompleteLogWarning)
        return read(path)


def read(path):
    """Frame of a log of trials so short that a busy machine makes them contradict each other."""
    return read_log(path, accept=SEVERE)


# What a run prints and keeps.


def test_arguments_of_2023_print_the_sentences_of_2023(tmp_path, monkeypatch, drive):
    files = write_gpt2_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    answer = drive(
        "--tensor-model-parallel-size", 1, "--pipeline-model-parallel-size", 1, "--num-layers", 2,
        "--hidden-size", 64, "--num-attention-heads", 4, "--max-position-embeddings", 128,
        "--tokenizer-type", "GPT2BPETokenizer", "--micro-batch-size", 1, "--seq-length", 128,
        "--out-seq-length", 128, "--temperature", "1.0", "--vocab-file", files["vocab_file"],
        "--merge-file", files["merge_file"], "--top-p", 0.9, "--seed", 42,
        "--prompts-file", DEFAULT_PROMPTS_FILES["GPT2BPETokenizer"],
        "--all-num-output-tokens", 1, 2, 4, "--all-num-input-tokens", 1, 16, 32,
        "--num-warmup", 1, "--num-trials", 2,
    )  # fmt: skip
    assert answer.code == 0
    matches = [SENTENCE.fullmatch(line) for line in answer.out.splitlines()]
    assert all(matches), answer.out
    timed = sorted((int(match[1]), int(match[2])) for match in matches)
    assert timed == [(p, o) for p in (1, 16, 32) for o in (1, 2, 4)]
    assert sorted(tmp_path.iterdir()) == before, "without --log nothing is written"


def test_each_sentence_is_that_of_its_record(drive, log_path):
    answer = drive(*TINY, *SWEEP, "--log", log_path)
    assert answer.code == 0
    assert sizes(log_path) == SETTINGS
    assert answer.out.splitlines() == [runtime_sentence(setting) for setting in settings(log_path)]
    assert "batch_size" not in answer.out, "all have one"
    for line, setting in zip(answer.out.splitlines(), settings(log_path), strict=True):
        mean_s = sum(setting["runtimes_s"]) / 3
        assert f"{mean_s:.3f} seconds" in line


def test_progress_with_time_left_goes_to_standard_error(drive):
    answer = drive(*TINY, *SWEEP)
    assert re.search(r"gpt-l2-h32-a2 p=16 o=5: *100%\|.*elapsed, 00:00 left", answer.err)
    assert "left" not in answer.out


def test_every_trial_is_logged_unrounded_and_reads_back(drive, log_path):
    drive(*TINY, *SWEEP, "--log", log_path)
    for setting in settings(log_path):
        assert (len(setting["warmups_s"]), len(setting["runtimes_s"])) == (1, 3)
        assert all(0 < seconds < 60 for seconds in setting["warmups_s"] + setting["runtimes_s"])
        assert any(seconds != round(seconds, 6) for seconds in setting["runtimes_s"])
    frame, trials = read_whole(log_path), read_trials(log_path)
    assert frame[["num_prompt_tokens", "num_output_tokens"]].to_numpy().tolist() == [list(s) for s in SETTINGS]
    assert len(trials) == 3 * len(SETTINGS)
    logged = [seconds for setting in settings(log_path) for seconds in setting["runtimes_s"]]
    assert trials["runtime_s"].tolist() == logged
    assert frame["runtime_s"].tolist() == pytest.approx([sum(logged[i : i + 3]) / 3 for i in range(0, 18, 3)])


def test_log_is_a_header_settings_and_a_footer(drive, log_path):
    drive(*TINY, *SWEEP, "--log", log_path)
    assert [record["record"] for record in records(log_path)] == ["header"] + ["setting"] * 6 + ["footer"]
    header, footer = records(log_path)[0], records(log_path)[-1]
    assert footer["num_settings"] == 6
    assert header["sweep"]["all_num_prompt_tokens"] == [1, 16]
    assert header["sweep"]["all_num_output_tokens"] == [1, 2, 5]
    assert (header["engine"], header["dtype"], header["seed"]) == ("sdpa", "float32", 1234)
    assert (header["num_warmup"], header["num_trials"]) == (1, 3)
    assert header["sampling"] == {"temperature": 1.0, "top_k": 0, "top_p": 0.0}
    architecture = parse_log(log_path).architecture()
    assert (architecture.num_layers, architecture.hidden_size, architecture.vocab_size) == (2, 32, 256)


@pytest.mark.parametrize("engine", PORTABLE_ENGINES)
def test_log_names_the_engine_and_data_type_that_were_timed(drive, log_path, engine):
    answer = drive(*TINY, "--all-num-input-tokens", 4, "--all-num-output-tokens", 3, "--bf16",
                   "--inference-engine", engine, "--micro-batch-size", 2, "--log", log_path)  # fmt: skip
    assert answer.code == 0
    header, (setting,) = records(log_path)[0], settings(log_path)
    assert (header["engine"], header["dtype"]) == (engine, "bfloat16")
    assert setting["batch_size"] == 2
    assert engine in read_whole(log_path)["software"][0]


def test_header_says_what_the_run_was_on(drive, log_path):
    drive(*TINY, "--all-num-input-tokens", 1, "--all-num-output-tokens", 1, "--log", log_path)
    header = records(log_path)[0]
    found = header["environment"]
    assert found["cpu_model"]
    assert found["cpu_model"] in header["hardware"]
    assert found["num_cores"] == len(os.sched_getaffinity(0))
    assert found["memory_bytes"] == psutil.virtual_memory().total
    assert found["num_threads"] == header["num_threads"] == torch.get_num_threads()
    assert found["os"].startswith("Linux")
    assert "cpu_clock_mhz" in found
    assert header["software"]["torch"] == torch.__version__
    assert header["software"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert re.match(r"\d+\.\d+", header["software"]["megatron-core"])
    assert found["git_is_clean"] in (None, True, False)
    assert found["git_commit"] is None or re.fullmatch(r"[0-9a-f]{40}", found["git_commit"])
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", header["started_at"])


def test_header_has_the_rates_of_the_machine_and_a_resumed_run_its_own(drive, log_path):
    sizes = ("--all-num-input-tokens", 1, "--log", log_path, "--all-num-output-tokens")
    assert drive(*TINY, *sizes, 1).code == drive(*TINY, *sizes, 1, 2).code == 0
    found = [record["environment"] for record in records(log_path) if record["record"] in ("header", "resume")]
    assert [environment["machine_rates"] for environment in found] == [RATES, RATES]
    before = log_path.read_bytes()
    assert drive(*TINY, *sizes, 1, 2).code == 0
    assert log_path.read_bytes() == before, "with nothing left to time, nothing is measured"


def test_impossible_runtime_is_an_error_of_its_setting_and_the_sweep_goes_on(drive, log_path, monkeypatch):
    class Broken(sweep.Floors):
        def why_impossible(self, setting, runtimes_s):
            return "too quick" if setting["num_output_tokens"] == 2 else None

    monkeypatch.setattr(sweep, "Floors", Broken)
    answer = drive(*TINY, "--all-num-input-tokens", 4, "--all-num-output-tokens", 1, 2, 5, "--log", log_path)
    assert answer.code == 0
    assert "p=4 o=2 failed: too quick" in answer.err
    assert [setting.get("error") for setting in settings(log_path)] == [
        None,
        {"type": "ImpossibleMeasurementError", "message": "too quick", "runtimes_s": ANY},
        None,
    ]
    # The machine's rates may have been measured while it was busy.
    monkeypatch.undo()
    again = drive(*TINY, "--all-num-input-tokens", 4, "--all-num-output-tokens", 1, 2, 5, "--log", log_path)
    assert again.code == 0
    assert re.findall("'num_output_tokens': (.)", again.out) == ["2"]
    assert len(read_whole(log_path)) == 3


def test_trials_have_the_energy_that_a_meter_counts(drive, log_path, monkeypatch):
    class Meter:
        source = "test"

        def start(self):
            pass

        def joules(self):
            return 2.5

    for module in (sweep, environment):
        monkeypatch.setattr(module, "open_energy_meter", lambda device: Meter())
    drive(*TINY, "--all-num-input-tokens", 4, "--all-num-output-tokens", 3, "--log", log_path)
    assert records(log_path)[0]["environment"]["energy_counter"] == "test"
    assert settings(log_path)[0]["energies_joules"] == [2.5] * 3
    assert read_whole(log_path)["energy_joules"].tolist() == [2.5]


def test_commit_is_unknown_outside_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    found = environment.describe_environment(torch.device("cpu"))
    assert (found["git_commit"], found["git_is_clean"]) == (None, None)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_commit_and_cleanness_are_those_of_the_checkout(monkeypatch, tmp_path):
    def git(*argv):
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *identity, "-C", tmp_path, *argv], check=True, capture_output=True)

    def found():
        return environment.describe_environment(torch.device("cpu"))

    monkeypatch.setattr(environment, "ROOT", tmp_path)
    git("init")
    git("commit", "--allow-empty", "-m", "begin")
    assert len(found()["git_commit"]) == 40
    assert found()["git_is_clean"] is True
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "new.jsonl").write_text("")
    assert found()["git_is_clean"] is True, "a log of an earlier run changes no timing"
    (tmp_path / "code.py").write_text("")
    assert found()["git_is_clean"] is False


# What goes into the model, and what comes out.


@pytest.fixture
def passes(monkeypatch):
    """Every pass that the sdpa engine makes: (its name, the tokens it was given)."""
    seen = []

    class Recorder(SdpaEngine):
        def encode(self, tokens, first_sequence=0):
            seen.append(("encode", tokens.clone()))
            return super().encode(tokens, first_sequence)

        def decode(self, tokens, num_cached_tokens, first_sequence=0):
            seen.append(("decode", tokens.clone()))
            return super().decode(tokens, num_cached_tokens, first_sequence)

    monkeypatch.setattr(sweep, "load_engine", {"sdpa": Recorder}.get)
    return seen


@pytest.mark.parametrize(("p", "o", "batch_size"), [(1, 1, 1), (7, 1, 1), (7, 5, 3), (60, 5, 1), (64, 1, 1)])
def test_exactly_p_tokens_go_in_and_o_come_out(drive, log_path, passes, p, o, batch_size):
    answer = drive(*TINY, "--all-num-input-tokens", p, "--all-num-output-tokens", o, "--micro-batch-size", batch_size,
                   "--log", log_path)  # fmt: skip
    assert answer.code == 0
    runs = 1 + 3
    assert [name for name, _ in passes] == (["encode"] + ["decode"] * (o - 1)) * runs
    prompt = list(DEFAULT_PROMPTS_FILES["ByteTokenizer"].read_bytes()[:p])
    for name, tokens in passes:
        if name == "encode":
            assert tokens.tolist() == [prompt] * batch_size
        else:
            assert tokens.shape == (batch_size, 1)
    (setting,) = settings(log_path)
    assert len(setting["output_token_ids"]) == o
    fed_back = [int(tokens[0]) for name, tokens in passes if name == "decode"][: o - 1]
    assert fed_back == setting["output_token_ids"][:-1]


def test_batches_are_timed_in_their_micro_batches(drive, log_path, passes):
    answer = drive(*TINY, "--all-num-input-tokens", 3, "--all-num-output-tokens", 3, "--global-batch-size", 4,
                   "--micro-batch-size", 2, "--token-micro-batch-size", 1, 4, "--num-warmup", 0, "--num-trials", 1,
                   "--log", log_path)  # fmt: skip
    assert answer.code == 0
    assert [(name, len(tokens)) for name, tokens in passes] == [
        *[("encode", 2)] * 2, *[("decode", 1)] * 8, *[("encode", 2)] * 2, *[("decode", 4)] * 2,
    ]  # fmt: skip
    sizes = [(s["batch_size"], s["micro_batch_size"], s["token_micro_batch_size"]) for s in settings(log_path)]
    assert sizes == [(4, 2, 1), (4, 2, 4)]
    for setting in settings(log_path):
        assert setting["prompt_encoding_times_s"][0] + setting["generation_times_s"][0] == setting["runtimes_s"][0]


def test_slices_of_the_layers_are_timed_and_extended_to_the_depth(drive, log_path, monkeypatch):
    built = []
    build_model = sweep.build_model

    def counted(*arguments, **options):
        built.append(len((model := build_model(*arguments, **options)).decoder.layers))
        return model

    monkeypatch.setattr(sweep, "build_model", counted)
    answer = drive(*TINY, "--num-layers", 8, *SWEEP, "--num-layers-profiled", 1, 2, "--log", log_path)
    assert answer.code == 0
    assert built == [1, 2]
    assert records(log_path)[0]["num_layers_profiled"] == [1, 2]
    assert [setting["num_layers_profiled"] for setting in settings(log_path)] == [1] * 6 + [2] * 6
    # Layers of microseconds: the line through them may fall below zero by chance, of which the reader warns.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SliceWarning)
        frame = read(log_path)
    assert len(frame) == 6
    assert frame["is_extrapolated"].all()
    for row in frame.itertuples():
        one, two = (
            sum(setting["runtimes_s"]) / 3
            for setting in settings(log_path)
            if (setting["num_prompt_tokens"], setting["num_output_tokens"])
            == (row.num_prompt_tokens, row.num_output_tokens)
        )
        # Two slices make the line; trials that were held up are left out from five trials on only.
        assert row.runtime_s == pytest.approx(one + 7 * (two - one), abs=1e-9)
    assert (frame["runtime_std_s"] > 0).all()


def test_null_tokenizer_feeds_the_ids_of_its_default_file(drive, passes):
    answer = drive(*TINY, "--tokenizer-type", "NullTokenizer", "--all-num-input-tokens", 9,
                   "--all-num-output-tokens", 1)  # fmt: skip
    assert answer.code == 0
    expected = list(map(int, DEFAULT_PROMPTS_FILES["NullTokenizer"].read_text().split()[:9]))
    assert passes[0][1].tolist() == [expected]


def test_file_too_short_for_a_prompt_is_refused_before_anything_is_timed(drive, tmp_path, log_path):
    path = tmp_path / "short.txt"
    path.write_text("twelve bytes")
    answer = drive(*TINY, *SWEEP, "--prompts-file", path, "--log", log_path)
    assert answer.code == 2
    assert f"{path} holds 12 tokens; a prompt of 16 was asked for" in answer.err
    assert answer.out == ""
    assert not log_path.exists()


def test_tokens_outside_the_vocabulary_are_refused(drive, tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("1 2 256 " * 9)
    answer = drive(*TINY, *SWEEP, "--prompts-file", path, "--tokenizer-type", "NullTokenizer")
    assert answer.code == 2
    assert "token 256 lies outside the model's vocabulary of 256" in answer.err


def output_tokens(path):
    return {
        (setting["num_prompt_tokens"], setting["num_output_tokens"]): setting["output_token_ids"]
        for setting in settings(path)
    }


@pytest.fixture
def uninterrupted(drive, tmp_path):
    """Log of a whole run, and its lines."""
    path = tmp_path / "whole.jsonl"
    assert drive(*TINY, *SWEEP, "--log", path).code == 0
    return path


def test_seed_repeats_the_tokens(drive, uninterrupted, tmp_path):
    tokens = []
    for seed in (1234, 4321):
        drive(*TINY, *SWEEP, "--seed", seed, "--log", tmp_path / f"{seed}.jsonl")
        tokens.append(output_tokens(tmp_path / f"{seed}.jsonl"))
    assert tokens[0] == output_tokens(uninterrupted)
    assert tokens[1] != tokens[0]
    assert len(set(tokens[0][16, 5])) > 1


def test_engines_generate_the_same_tokens(drive, uninterrupted, tmp_path):
    drive(*TINY, *SWEEP, "--inference-engine", "eager", "--log", tmp_path / "eager.jsonl")
    assert output_tokens(tmp_path / "eager.jsonl") == output_tokens(uninterrupted)


# A run that was cut off.


def check_resumed(path, expected_tokens, num_kept, answer):
    """Every setting stands in the log once, and what had been measured was not measured again."""
    assert answer.code == 0
    read_whole(path)
    assert sizes(path) == SETTINGS
    assert output_tokens(path) == expected_tokens
    assert len(answer.out.splitlines()) == len(SETTINGS) - num_kept
    if num_kept:
        skipped = ", ".join(f"p={p} o={o}" for p, o in SETTINGS[:num_kept])
        assert f"skipping {num_kept} settings it holds ({skipped})" in answer.err


# Records of a whole log: header, six settings, footer. Cut after some, with a part of the next.
@pytest.mark.parametrize(
    ("num_records", "num_extra_bytes"),
    [(0, 0), (0, 25), (1, 0), (1, 1), (3, 0), (3, 40), (6, 60), (7, 0), (7, 20)],
)
def test_cut_log_is_finished_by_the_same_command(drive, uninterrupted, num_records, num_extra_bytes):
    lines = uninterrupted.read_bytes().splitlines(keepends=True)
    expected_tokens = output_tokens(uninterrupted)
    kept = b"".join(lines[:num_records])
    uninterrupted.write_bytes(kept + lines[num_records][:num_extra_bytes])
    answer = drive(*TINY, *SWEEP, "--log", uninterrupted)
    check_resumed(uninterrupted, expected_tokens, max(0, num_records - 1), answer)
    assert uninterrupted.read_bytes().startswith(kept)


def test_complete_log_is_left_as_it_is(drive, uninterrupted, monkeypatch):
    before = uninterrupted.read_bytes()
    monkeypatch.setattr(sweep, "build_model", lambda *_, **__: pytest.fail("a model was built for nothing"))
    answer = drive(*TINY, *SWEEP, "--log", uninterrupted)
    assert answer.code == 0
    assert answer.out == ""
    assert "nothing left to do" in answer.err
    assert uninterrupted.read_bytes() == before


def test_larger_sweep_adds_to_a_complete_log(drive, uninterrupted):
    before = settings(uninterrupted)
    answer = drive(*TINY, "--all-num-input-tokens", 1, 16, 32, "--all-num-output-tokens", 1, 2, 5,
                   "--log", uninterrupted)  # fmt: skip
    assert answer.code == 0
    assert settings(uninterrupted)[:6] == before
    assert sizes(uninterrupted) == [*SETTINGS, (32, 1), (32, 2), (32, 5)]
    assert len(read_whole(uninterrupted)) == 9


OTHERS = {
    "num_layers": ("--num-layers", 3),
    "hidden_size": ("--hidden-size", 64),
    "engine": ("--inference-engine", "eager"),
    "dtype": ("--bf16",),
    "seed": ("--seed", 1),
    "num_trials": ("--num-trials", 4),
    "num_warmup": ("--num-warmup", 0),
    "sampling": ("--top-p", 0.5),
    "prompt": ("--tokenizer-type", "NullTokenizer"),
}


@pytest.mark.parametrize(("name", "argv"), OTHERS.items(), ids=OTHERS)
def test_log_of_another_measurement_is_refused_and_left_as_it_is(drive, uninterrupted, name, argv):
    check_refused(drive, uninterrupted, name, *argv)


def test_log_of_another_machine_is_refused(drive, uninterrupted, monkeypatch):
    monkeypatch.setattr(sweep, "describe_hardware", lambda device: "Abacus, 10 beads")
    check_refused(drive, uninterrupted, "Abacus, 10 beads")


def test_log_of_another_software_is_refused(drive, uninterrupted, monkeypatch):
    monkeypatch.setattr(sweep, "describe_software", lambda device: {"megatron-core": "0.99"})
    check_refused(drive, uninterrupted, "0.99")


def test_log_of_another_number_of_threads_is_refused(drive, uninterrupted):
    num_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(num_threads + 1)
        check_refused(drive, uninterrupted, "num_threads")
    finally:
        torch.set_num_threads(num_threads)


def check_refused(drive, path, name, *argv):
    # Refused while there is something left to do as well.
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]) + b'{"rec')
    before = path.read_bytes()
    answer = drive(*TINY, *SWEEP, *argv, "--log", path)
    assert answer.code == 2
    assert f"{path} holds another measurement" in answer.err
    assert name in answer.err.replace("--", "").replace("-", "_")
    assert answer.out == ""
    assert path.read_bytes() == before


def test_file_that_is_no_log_is_left_as_it_is(drive, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("precious\nnotes")
    answer = drive(*TINY, *SWEEP, "--log", path)
    assert answer.code == 2
    assert f"{path}:1" in answer.err
    assert path.read_text() == "precious\nnotes"


def test_interrupt_keeps_what_was_measured(drive, uninterrupted, log_path, monkeypatch):
    whole_generate, calls = sweep.generate, []

    def interrupted_generate(*args, **kwargs):
        calls.append(1)
        # One warm-up and three trials a setting: this is the second trial of the third.
        if len(calls) == 11:
            raise KeyboardInterrupt
        return whole_generate(*args, **kwargs)

    monkeypatch.setattr(sweep, "generate", interrupted_generate)
    answer = drive(*TINY, *SWEEP, "--log", log_path)
    assert answer.code == 130
    assert f"interrupted; what was measured is in {log_path}: give the same command to go on" in answer.err
    assert sizes(log_path) == SETTINGS[:2]
    with pytest.warns(IncompleteLogWarning, match="incomplete"):
        assert len(read(log_path)) == 2
    monkeypatch.setattr(sweep, "generate", whole_generate)
    check_resumed(log_path, output_tokens(uninterrupted), 2, drive(*TINY, *SWEEP, "--log", log_path))


# Trials in blocks.

BLOCKS = (*SHAPE, "--device", "cpu", "--num-warmup", 2, "--num-trials", 5, "--num-blocks", 3, *SWEEP)


def test_trials_of_every_setting_are_spread_over_the_sweep(drive, log_path):
    answer = drive(*BLOCKS, "--log", log_path)
    assert answer.code == 0
    assert [record["record"] for record in records(log_path)] == [
        "header", *["block"] * 12, *["setting"] * 6, "footer"
    ]  # fmt: skip
    read_whole(log_path)
    starts = [(start_s, p) for p, setting in enumerate(settings(log_path)) for start_s in setting["trial_starts_s"]]
    order = [p for _, p in sorted(starts)]
    assert len(order) == 30
    for number, end in enumerate((6, 18, 30)):
        # One trial of every setting, then two, then two.
        assert {p: order[:end].count(p) for p in range(6)} == dict.fromkeys(range(6), (1, 3, 5)[number])
    for setting in settings(log_path):
        assert (len(setting["warmups_s"]), len(setting["later_warmups_s"])) == (2, 2)
        assert setting["trial_starts_s"] == sorted(setting["trial_starts_s"])
        assert all(start_s >= 0 for start_s in setting["trial_starts_s"])
    assert (records(log_path)[0]["num_trials"], records(log_path)[0]["sweep"]["num_blocks"]) == (5, 3)


def test_blocks_generate_the_tokens_that_single_settings_do(drive, log_path, uninterrupted):
    drive(*BLOCKS, "--log", log_path)
    assert output_tokens(log_path) == output_tokens(uninterrupted)


@pytest.mark.parametrize(("num_lines", "num_blocks"), [(1, 3), (5, 3), (5, 2), (13, 3), (15, 1)])
def test_log_cut_in_the_midst_of_its_blocks_is_finished_and_keeps_them(drive, log_path, num_lines, num_blocks):
    drive(*BLOCKS, "--log", log_path)
    lines = log_path.read_bytes().splitlines(keepends=True)
    log_path.write_bytes(b"".join(lines[:num_lines]) + lines[num_lines][:30])
    answer = drive(*BLOCKS, "--num-blocks", num_blocks, "--log", log_path)
    assert answer.code == 0
    assert log_path.read_bytes().startswith(b"".join(lines[:num_lines]))
    read_whole(log_path)
    assert sorted(sizes(log_path)) == sorted(SETTINGS)
    kept = [record for record in records(log_path)[1:num_lines] if record["record"] == "block"]
    for setting in settings(log_path):
        assert len(setting["runtimes_s"]) == 5
        of_setting = [block for block in kept if sizes_of(block) == sizes_of(setting)]
        held = [seconds for block in of_setting for seconds in block["runtimes_s"]][:5]
        assert setting["runtimes_s"][: len(held)] == held


def sizes_of(record):
    return record["num_prompt_tokens"], record["num_output_tokens"]


def test_interrupt_in_a_block_keeps_the_trials_before_it(drive, log_path, monkeypatch):
    whole_generate, calls = sweep.generate, []

    def interrupted_generate(*args, **kwargs):
        calls.append(1)
        # Two warm-ups and a trial of each of six settings, then one and two trials: the second trial of the first.
        if len(calls) == 6 * 3 + 3:
            raise KeyboardInterrupt
        return whole_generate(*args, **kwargs)

    monkeypatch.setattr(sweep, "generate", interrupted_generate)
    assert drive(*BLOCKS, "--log", log_path).code == 130
    blocks = [len(record["runtimes_s"]) for record in records(log_path) if record["record"] == "block"]
    assert blocks == [1] * 6 + [1]
    calls.clear()
    monkeypatch.setattr(sweep, "generate", lambda *a, **k: calls.append(1) or whole_generate(*a, **k))
    assert drive(*BLOCKS, "--log", log_path).code == 0
    # Seven of thirty trials are held; all settings warm up twice, and five of them once more.
    assert len(calls) == 30 - 7 + 6 * 2 + 6
    assert len(read_whole(log_path)) == 6


def test_setting_that_failed_is_not_visited_again(drive, log_path):
    answer = drive(*BLOCKS, "--all-num-output-tokens", 64, 1, "--log", log_path)
    assert answer.code == 0
    assert answer.err.count("p=16 o=64 failed") == 1
    assert sum("error" in setting for setting in settings(log_path)) == 1
    assert len(answer.out.splitlines()) == 3


def test_sentences_name_what_else_varies(drive):
    answer = drive(*TINY, "--all-num-input-tokens", 4, "--all-num-output-tokens", 2, "--global-batch-size", 4,
                   "--token-micro-batch-size", 1, 4)  # fmt: skip
    assert [line.split(":")[-2] for line in answer.out.splitlines()] == [" 1}", " 4}"]
    assert "{'num_input_tokens': 4, 'num_output_tokens': 2, 'token_micro_batch_size': 1}: " in answer.out


# A machine that is not quiet.


@pytest.fixture
def slow_trials(monkeypatch):
    """Runtimes that the clock of trials shows, one after the other; what follows them is the last."""

    def show(*runtimes_s):
        left = list(runtimes_s)

        def stop(clock):
            runtime_s = left.pop(0) if len(left) > 1 else left[0]
            return runtime_s / 2, runtime_s

        monkeypatch.setattr(timing._Clock, "stop", stop)

    return show


ONE = ("--all-num-input-tokens", 1, "--all-num-output-tokens", 1)


def test_disturbed_setting_is_named_at_once_and_counted_at_the_end(drive, slow_trials):
    slow_trials(1.0, 1.0, 1.02, 1.9)
    answer = drive(*TINY, *ONE)
    assert answer.code == 0
    assert "p=1 o=1 was disturbed: its 3 trials took 1 to 1.9 s, their standard deviation is 39% of the" in answer.err
    last = answer.err.splitlines()[-1]
    assert last.startswith("generate_text.py: warning: 1 of 1 settings were disturbed while they were timed")


def test_quiet_setting_is_not_called_disturbed(drive, slow_trials):
    slow_trials(5.0, 1.0, 1.02, 1.05)
    assert "disturbed" not in drive(*TINY, *ONE).err


# Settings that fail.


def test_setting_beyond_the_context_is_recorded_and_the_rest_is_measured(drive, log_path):
    # The last output token is not fed back: 60 + 5 - 1 positions fill the context of 64.
    answer = drive(*TINY, "--all-num-input-tokens", 100000, 60, 65, 1, "--all-num-output-tokens", 5, 6,
                   "--log", log_path)  # fmt: skip
    assert answer.code == 0
    failed = {
        (setting["num_prompt_tokens"], setting["num_output_tokens"]): setting["error"]
        for setting in settings(log_path)
        if "error" in setting
    }
    assert set(failed) == {(100000, 5), (100000, 6), (60, 6), (65, 5), (65, 6)}
    assert failed[60, 6] == {"type": "ContextLengthError", "message": "needs 65 positions; the model has 64"}
    assert "p=60 o=6 failed: needs 65 positions; the model has 64" in answer.err
    assert len(answer.out.splitlines()) == 3
    with pytest.warns(IncompleteLogWarning, match="5 settings failed"):
        assert len(read(log_path)) == 3


def test_run_in_which_every_setting_fails_says_so(drive, log_path):
    for _ in range(2):
        answer = drive(*TINY, "--all-num-input-tokens", 65, "--all-num-output-tokens", 1, 2, "--log", log_path)
        assert answer.code == 1
        assert answer.out == ""
    assert len(settings(log_path)) == 2


@pytest.fixture
def little_memory(monkeypatch):
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=120 * 2**20))


@pytest.mark.parametrize(("content", "num_bytes"), [(f"{2**40}\n", 2**30), (f"{2**29}\n", 2**29), ("max\n", 2**30)])
def test_memory_limit_is_that_of_the_container(monkeypatch, tmp_path, content, num_bytes):
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=2**30))
    in_use = SimpleNamespace(rss=0, data=2**35)
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(memory_info=lambda: in_use))
    (tmp_path / "memory.max").write_text(content)
    monkeypatch.setattr(devices, "_CONTAINER_MEMORY_LIMITS", (tmp_path / "memory.max", tmp_path / "absent"))
    set_limits = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: set_limits.append((kind, limits[0])))
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    devices.limit_host_memory(torch.device("cpu"))
    assert set_limits == [(resource.RLIMIT_DATA, 2**35 + num_bytes)]
    devices.limit_host_memory(torch.device("cuda"))
    assert len(set_limits) == 1


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("engine", PORTABLE_ENGINES)
def test_setting_that_does_not_fit_the_memory_is_recorded_and_the_rest_is_measured(drive, log_path, engine):
    # 128 sequences of 8192 tokens: 512 MiB for the feed-forward network of one layer.
    argv = (*TINY, "--max-position-embeddings", 8192, "--micro-batch-size", 128, "--num-trials", 1,
            "--inference-engine", engine, "--all-num-input-tokens", 4, 8191, 8, "--all-num-output-tokens", 2,
            "--log", log_path)  # fmt: skip
    answer = drive(*argv)
    assert answer.code == 0
    fits, fails, fits_again = settings(log_path)
    assert fails["error"]["type"] == "OutOfMemoryError"
    assert "memory" in fails["error"]["message"]
    assert "runtimes_s" not in fails
    assert "p=8191 o=2 B=128 m=128 k=128 failed" in answer.err
    for setting in (fits, fits_again):
        assert len(setting["runtimes_s"]) == 1
        assert len(setting["output_token_ids"]) == 2
    # Given again, what did not fit is not tried again.
    again = drive(*argv)
    assert again.code == 0
    assert "nothing left to do" in again.err


@pytest.mark.usefixtures("little_memory")
def test_model_that_does_not_fit_the_memory_is_refused_with_its_size(drive, log_path):
    # 12 layers x 12 x 4096**2 weights of 4 bytes: 9 GiB.
    answer = drive(*TINY, "--num-layers", 12, "--hidden-size", 4096, *SWEEP, "--log", log_path)
    assert answer.code == 2
    assert re.search(r"does not fit the memory of .*its 12 layers take 9\.0 GiB in torch.float32", answer.err)
    assert not log_path.exists()


def test_engine_that_does_not_fit_beside_its_model_is_refused_as_the_model_is(drive, monkeypatch):
    def take_too_much(model, architecture):
        torch.empty(2**50)

    monkeypatch.setattr(sweep, "load_engine", lambda name: take_too_much)
    answer = drive(*TINY, *SWEEP)
    assert answer.code == 2
    assert "does not fit the memory of" in answer.err


def test_layouts_that_do_not_fit_beside_the_model_are_refused_as_the_model_is(drive, monkeypatch):
    monkeypatch.setattr(SdpaEngine, "tune", lambda *arguments: torch.empty(2**50))
    answer = drive(*TINY, *SWEEP)
    assert answer.code == 2
    assert "does not fit the memory of" in answer.err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--fp16",), "--fp16 needs a CUDA device; on a CPU use --bf16"),
    ],
)
def test_what_this_machine_cannot_run_is_refused_before_a_model_is_built(drive, monkeypatch, log_path, argv, message):
    monkeypatch.setattr(sweep, "build_model", lambda *_, **__: pytest.fail("a model was built"))
    answer = drive(*TINY, *SWEEP, *argv, "--log", log_path)
    assert answer.code == 2
    assert message in answer.err
    assert not log_path.exists()


def test_fault_that_is_not_lack_of_memory_is_not_hidden(drive, log_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(sweep, "generate", fail)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        drive(*TINY, *SWEEP, "--log", log_path)


def test_run_without_standard_streams_is_logged(drive, log_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert drive(*TINY, *SWEEP, "--log", log_path).code == 0
    assert len(read_whole(log_path)) == 6


def test_full_disk_is_an_error_and_not_a_traceback(drive, log_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    answer = drive(*TINY, *SWEEP, "--log", log_path)
    assert answer.code == 2
    assert f"generate_text.py: error: {log_path}: No space left on device; nothing was kept" in answer.err
    assert answer.out == "", "it is found before anything is timed"


# Processes: signals, pipes, and a copy without git.

# Seconds of work left when the first sentence appears.
LONG_SWEEP = ("--all-num-input-tokens", 1, "--all-num-output-tokens", 1, 60, 61, 62, 63, 64)
LONG = (*SHAPE, "--device", "cpu", "--num-warmup", 1, "--num-trials", 30, "--num-blocks", 1, *LONG_SWEEP)


def start(*argv, root=ROOT, launcher=(), env=os.environ, **options):
    return subprocess.Popen(
        [*launcher, sys.executable, str(root / "generate_text.py"), *map(str, argv)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**env, "OMP_NUM_THREADS": "1"}, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Runs that were stopped in mid-sweep, by what stopped them: exit code, what they printed, log."""
    folder = tmp_path_factory.mktemp("stopped")
    stops = {
        "SIGKILL": lambda process: process.send_signal(signal.SIGKILL),
        "SIGINT": lambda process: process.send_signal(signal.SIGINT),
        "SIGTERM": lambda process: process.send_signal(signal.SIGTERM),
        # What `| head -1` does.
        "closed pipe": lambda process: process.stdout.close(),
    }

    def run(name):
        log = folder / f"{name}.jsonl"
        # Standard input is closed, as under some schedulers.
        process = start(*LONG, "--log", log, launcher=("sh", "-c", 'exec "$@" <&-', "sh"))
        first_line = process.stdout.readline()
        assert SENTENCE.match(first_line), process.communicate()
        stops[name](process)
        err = process.stderr.read()
        process.stdout.close()
        process.stderr.close()
        return SimpleNamespace(code=process.wait(timeout=60), err=err, log=log)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(stops, pool.map(run, stops), strict=True))


@pytest.mark.parametrize(
    ("name", "code"), [("SIGKILL", -signal.SIGKILL), ("SIGINT", 130), ("SIGTERM", 143), ("closed pipe", 141)]
)
def test_stopped_run_leaves_a_log_that_the_same_command_finishes(stopped, drive, name, code):
    answer = stopped[name]
    assert answer.code == code
    assert "Traceback" not in answer.err
    assert "Exception ignored" not in answer.err
    kept = sizes_of_whole_lines(answer.log)
    assert 1 <= len(kept) < 6, "the run was to be stopped in mid-sweep"
    if name != "SIGKILL":
        assert f"what was measured is in {answer.log}" in answer.err
        with pytest.warns(IncompleteLogWarning, match="incomplete"):
            assert len(read(answer.log)) == len(kept)
    again = drive(*LONG, "--log", answer.log)
    assert again.code == 0
    assert f"skipping {len(kept)} settings it holds (p=1 o=1" in again.err
    assert sizes(answer.log) == [(1, o) for o in (1, 60, 61, 62, 63, 64)]
    assert len(read_whole(answer.log)) == 6


def sizes_of_whole_lines(path):
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    parsed = [json.loads(line) for line in lines]
    return [record["num_output_tokens"] for record in parsed if record["record"] == "setting"]


def test_copy_runs_without_git_and_writes_only_sentences_to_standard_output(tmp_path):
    root = tmp_path / "copy"
    for name in ("megatron_lm", "idealized_runtime"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copy(ROOT / "generate_text.py", root)
    (tmp_path / "empty").mkdir()
    log = tmp_path / "tiny.jsonl"
    # No PYTHONPATH and another folder: the copy finds its own parts.
    process = start(*TINY, *SWEEP, "--log", log, root=root, cwd=tmp_path, stdin=subprocess.DEVNULL,
                    env={"PATH": str(tmp_path / "empty"), "HOME": str(tmp_path)})  # fmt: skip
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert len(out.splitlines()) == 6
    assert all(map(SENTENCE.fullmatch, out.splitlines()))
    found = records(log)[0]["environment"]
    assert (found["git_commit"], found["git_is_clean"]) == (None, None)
    assert "Warning" not in err, err
