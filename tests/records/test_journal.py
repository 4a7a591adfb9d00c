import errno
import fcntl
import json
import os
import re
from datetime import datetime
from pathlib import Path

import psutil
import pytest
from makers import HEADER, SETTINGS, make_failed, make_setting, write_log

from idealized_runtime.records import (
    BATCH_COLUMNS,
    Journal,
    LogFormatError,
    LogMismatchError,
    load_log,
    read_log,
    setting_key,
)
from idealized_runtime.records.common import Keys


@pytest.fixture
def log_path(tmp_path):
    return tmp_path / "gpt2-small.jsonl"


@pytest.fixture
def no_fsync(monkeypatch):
    """Files cut at thousands of places: the disk need not see each."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def key(num_prompt_tokens, num_output_tokens):
    """Key of a setting that was written before there were micro-batches and slices."""
    return (num_prompt_tokens, num_output_tokens, 1, 1, 1, 12)


def measured(path):
    """Settings of a log as written, in order."""
    names = make_setting(1, 1)
    return [{name: setting[name] for name in names} for setting in load_log(path).records]


@pytest.mark.usefixtures("no_fsync")
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_run_killed_at_any_byte_resumes_to_the_same_settings(log_path, line_end):
    contents = write_log(log_path).read_bytes().replace(b"\n", line_end)
    header_end = contents.index(b"\n")
    # A cut header is dropped wherever the cut is: some of its bytes stand for all.
    for cut in (*range(0, header_end, 16), *range(header_end, len(contents) + 1)):
        log_path.write_bytes(contents[:cut])
        with Journal(log_path, HEADER) as journal:
            for setting in SETTINGS:
                if key(setting["num_prompt_tokens"], setting["num_output_tokens"]) not in journal.log.completed:
                    journal.append("setting", setting)
            journal.finish()
        assert load_log(log_path).is_complete
        assert measured(log_path) == SETTINGS


def test_complete_log_with_nothing_to_add_keeps_its_bytes(log_path):
    before = write_log(log_path).read_bytes()
    with Journal(log_path, HEADER) as journal:
        assert journal.log.completed == {key(1, 1), key(1, 2), key(16, 1)}
        journal.finish()
    assert log_path.read_bytes() == before


def test_complete_log_with_more_settings_gets_a_resume_record_and_a_new_footer(log_path):
    write_log(log_path)
    sweep = {"all_num_prompt_tokens": [32]}
    write_log(log_path, [make_setting(32, 1, [0.8])], {**HEADER, "sweep": sweep})
    records = [json.loads(line) for line in log_path.read_text().splitlines()]
    assert [record["record"] for record in records] == ["header", *3 * ["setting"], "resume", "setting", "footer"]
    assert records[4]["sweep"] == sweep
    assert records[-1]["num_settings"] == 4
    assert len(read_log(log_path)) == 4


@pytest.mark.parametrize("finish", [True, False])
def test_long_cut_line_is_dropped_whole(log_path, finish):
    write_log(log_path, finish=finish)
    with log_path.open("a") as file:
        file.write('{"record": "setting", "runtimes_s": [' + 2000 * "0.1, ")
    write_log(log_path, [])
    assert load_log(log_path).is_complete
    assert measured(log_path) == SETTINGS


def test_footer_is_all_that_a_run_killed_before_it_adds(log_path):
    write_log(log_path, finish=False)
    write_log(log_path, [])
    assert [json.loads(line)["record"] for line in log_path.read_text().splitlines()[-2:]] == ["resume", "footer"]


def test_interrupt_leaves_a_valid_incomplete_log(log_path):
    with pytest.raises(KeyboardInterrupt), Journal(log_path, HEADER) as journal:  # noqa: PT012
        journal.append("setting", SETTINGS[0])
        raise KeyboardInterrupt
    loaded = load_log(log_path)
    assert not loaded.is_complete
    assert loaded.completed == {key(1, 1)}


def test_each_setting_is_on_disk_as_soon_as_it_is_written(log_path):
    with Journal(log_path, HEADER) as journal:
        for number, setting in enumerate(SETTINGS, start=1):
            journal.append("setting", setting)
            assert len(load_log(log_path).records) == number


def test_failed_setting_counts_as_completed(log_path):
    write_log(log_path, [SETTINGS[0], make_failed(2048, 1)], finish=False)
    with Journal(log_path, HEADER) as journal:
        assert key(2048, 1) in journal.log.completed
        assert len(journal.log.failed) == 1


def test_batched_setting_is_another_than_that_of_one_sequence(log_path):
    write_log(log_path, SETTINGS[:1], finish=False)
    batches = [
        make_setting(1, 1, batch_size=4, micro_batch_size=m, token_micro_batch_size=k)
        for m, k in [(4, 4), (4, 2), (1, 4)]
    ]
    write_log(log_path, batches)
    frame = read_log(log_path)
    assert frame[BATCH_COLUMNS].to_numpy().tolist() == [[1, 1, 1], [4, 4, 4], [4, 4, 2], [4, 1, 4]]


def test_run_killed_between_slices_resumes_with_the_slice_it_lacks(log_path):
    header = {**HEADER, "num_layers_profiled": [2, 4]}
    slices = [make_setting(1, 1, num_layers_profiled=size) for size in (2, 4)]
    write_log(log_path, slices[:1], header, finish=False)
    whole = [{"micro_batch_size": 1, "token_micro_batch_size": 1, **setting} for setting in slices]
    with Journal(log_path, header) as journal:
        assert [setting_key(setting) in journal.log.completed for setting in whole] == [True, False]


def with_architecture(**change):
    return {**HEADER, "architecture": {**HEADER["architecture"], **change}}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (with_architecture(hidden_size=1536), "architecture.hidden_size: 768 in the log, 1536 now$"),
        ({**HEADER, "engine": "eager"}, "engine: 'sdpa' in the log, 'eager' now$"),
        ({**HEADER, "hardware": "Other CPU"}, "hardware: 'Some CPU, 2 cores' in the log, 'Other CPU' now$"),
        ({**HEADER, "dtype": "bfloat16"}, "dtype: 'float32' in the log, 'bfloat16' now$"),
        ({**HEADER, "num_layers_profiled": [6, 12]}, r"num_layers_profiled: 12 in the log, \[6, 12\] now$"),
        ({**HEADER, "seed": 1}, "seed: None in the log, 1 now$"),
        ({**HEADER, "software": {"megatron-core": "0.17", "torch": "2.13.0"}}, "software.megatron-core: '0.16.1' in"),
        ({**HEADER, "environment": {"cpu_model": "Other CPU"}}, "environment.cpu_model: 'Some CPU' in the log"),
        ({**HEADER, "engine": "eager", "dtype": "bfloat16"}, "dtype: .*; engine: .*"),
    ],
)
def test_log_of_another_measurement_is_refused_and_left_as_it_is(log_path, header, message):
    before = write_log(log_path).read_bytes()
    with pytest.raises(LogMismatchError, match=message):
        Journal(log_path, header)
    assert log_path.read_bytes() == before


@pytest.mark.parametrize(
    "header",
    [
        with_architecture(source="elsewhere", published_params=1e9),
        {**HEADER, "environment": {"cpu_model": "Some CPU", "load_average": [4.0]}},
        {**HEADER, "sweep": {}},
    ],
)
def test_what_does_not_change_timings_may_differ_on_resuming(log_path, header):
    write_log(log_path, SETTINGS[:1], finish=False)
    write_log(log_path, SETTINGS[1:], header)
    assert measured(log_path) == SETTINGS


@pytest.mark.parametrize("contents", [b"my only copy", b"my only copy\n", b'{"key": 1}', b"\xff\xfe\n"])
def test_file_that_is_no_log_is_refused_and_left_as_it_is(log_path, contents):
    log_path.write_bytes(contents)
    with pytest.raises(LogFormatError, match=r"gpt2-small.jsonl:1: "):
        Journal(log_path, HEADER)
    assert log_path.read_bytes() == contents


def test_journal_refuses_what_a_reader_would_refuse(log_path):
    with pytest.raises(ValueError, match="engine must be a name"):
        Journal(log_path, {**HEADER, "engine": None})
    with Journal(log_path, HEADER) as journal:
        journal.append("setting", SETTINGS[0])
        with pytest.raises(LogFormatError, match="p=1 o=1 on 12 layers stands here a second time"):
            journal.append("setting", SETTINGS[0])
        with pytest.raises(LogFormatError, match="runtimes_s must be a list of positive seconds"):
            journal.append("setting", make_setting(1, 2, [float("nan")]))
        journal.finish()
        journal.finish()
        with pytest.raises(ValueError, match="is finished: open it again"):
            journal.append("setting", SETTINGS[1])
    assert load_log(log_path).is_complete


@pytest.mark.parametrize("num_earlier", [0, 1])
def test_second_run_at_the_same_log_is_refused_until_the_first_has_ended(log_path, num_earlier):
    if num_earlier:
        write_log(log_path, SETTINGS[:1], finish=False)
    with Journal(log_path, HEADER) as first:
        for setting in SETTINGS[1:]:
            with pytest.raises(LogMismatchError, match=r"gpt2-small\.jsonl: another run writes to it"):
                Journal(log_path, HEADER)
            first.append("setting", setting)
        first.finish()
    assert len(read_log(log_path)) == num_earlier + 2
    write_log(log_path, [])


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="this system does not tell who holds a lock")
def test_run_that_holds_a_log_is_named(log_path):
    with Journal(log_path, HEADER), pytest.raises(LogMismatchError) as refusal:
        Journal(log_path, HEADER)
    (pid, began) = re.search(r", process (\d+), since (\S+ \S+); let it end, or stop it$", str(refusal.value)).groups()
    assert int(pid) == os.getpid()
    assert abs(datetime.fromisoformat(began).timestamp() - psutil.Process().create_time()) < 5


def append_line(path):
    with path.open("ab") as file:
        file.write(b"x\n")


@pytest.mark.parametrize("change", [append_line, lambda path: os.truncate(path, 10), os.unlink])
@pytest.mark.parametrize("num_written", [0, 1])
def test_log_that_something_else_has_changed_is_not_written_to(log_path, change, num_written):
    write_log(log_path, SETTINGS[:1], finish=False)
    with Journal(log_path, HEADER) as journal:
        for setting in SETTINGS[1 : 1 + num_written]:
            journal.append("setting", setting)
        change(log_path)
        held = log_path.read_bytes() if log_path.exists() else None
        with pytest.raises(LogMismatchError, match="changed since this run began: another run writes to it"):
            journal.append("setting", SETTINGS[2])
        assert (log_path.read_bytes() if log_path.exists() else None) == held


def test_file_system_without_locks_still_tells_a_second_writer(log_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with Journal(log_path, HEADER) as first, Journal(log_path, HEADER) as second:
        first.append("setting", SETTINGS[0])
        with pytest.raises(LogMismatchError, match="another run writes to it"):
            second.append("setting", SETTINGS[1])
    assert measured(log_path) == SETTINGS[:1]


def test_run_that_writes_nothing_leaves_no_file(log_path):
    Journal(log_path, HEADER).close()
    assert not log_path.exists()
    log_path.touch()
    Journal(log_path, HEADER).close()
    assert log_path.exists()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_log_that_is_no_file_is_refused(log_path, make):
    make(log_path)
    with pytest.raises(LogFormatError, match="not a file that can be gone on with; give another --log"):
        Journal(log_path, HEADER)


def test_journal_without_a_path_keeps_nothing():
    with Journal(None, HEADER) as journal:
        journal.append("setting", SETTINGS[0])
        journal.finish()
        assert journal.log.completed == {key(1, 1)}


def test_disk_without_room_is_noticed_before_anything_is_timed(log_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=re.escape(str(log_path))):
        Journal(log_path, HEADER)
    assert not log_path.exists()


def test_opening_a_log_leaves_its_bytes(log_path):
    before = write_log(log_path).read_bytes()
    Journal(log_path, HEADER).close()
    assert log_path.read_bytes() == before


def test_keys_are_a_set_whatever_their_entry_at_the_place_that_differs():
    keys = Keys(1, [(1, 2, "a"), (1, 3, "a"), (2, 2, "b"), (1, 2, "a")])
    assert keys == {(1, 2, "a"), (1, 3, "a"), (2, 2, "b")}
    assert (1, 3, "b") not in keys
    assert {(1, 3, "a")} <= keys
