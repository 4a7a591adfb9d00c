import json
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from makers import HEADER, SETTINGS, make_failed, make_setting, write_log

from idealized_runtime.architectures import get_architecture
from idealized_runtime.records import (
    BATCH_COLUMNS,
    SETTING_COLUMNS,
    IncompleteLogWarning,
    LogFormatError,
    load_log,
    parse_log,
    read_failures,
    read_log,
    read_trials,
    runtime_sentence,
)


@pytest.fixture
def log_path(tmp_path):
    return tmp_path / "gpt2-small.jsonl"


def outcome(path, read=read_log):
    """The frame that a log yields, or the error that refuses it; warnings left aside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read(path)
        except LogFormatError as error:
            return error


# The frame


def test_json_log_yields_a_row_a_setting(log_path):
    frame = read_log(write_log(log_path))
    assert frame[["num_prompt_tokens", "num_output_tokens"]].to_numpy().tolist() == [[1, 1], [1, 2], [16, 1]]
    assert frame["runtime_s"].tolist() == pytest.approx([0.7 / 3, 0.25, 0.625])
    stds_s = [np.std([0.1, 0.2, 0.4], ddof=1), np.nan, np.std([0.5, 0.75], ddof=1)]
    assert frame["runtime_std_s"].tolist() == pytest.approx(stds_s, nan_ok=True)
    assert frame["runtime_min_s"].tolist() == [0.1, 0.25, 0.5]
    assert frame["num_trials"].tolist() == [3, 1, 2]
    assert frame["software"].unique().tolist() == ["megatron-core 0.16.1 sdpa, torch 2.13.0, float32"]
    assert (frame["runtime_resolution_s"] == 0).all()


def test_trials_are_kept_apart_and_warm_ups_left_out(log_path):
    frame = read_trials(write_log(log_path))
    assert frame["runtime_s"].tolist() == [0.1, 0.2, 0.4, 0.25, 0.5, 0.75]
    assert frame["trial"].tolist() == [0, 1, 2, 0, 0, 1]


def test_trials_that_were_held_up_are_flagged_and_left_out_of_the_mean(log_path):
    held_up = [0.10, 0.11, 0.10, 0.40, 0.10, 0.12]
    write_log(log_path, [make_setting(1, 1, held_up), make_setting(1, 2, held_up[:4])])
    assert read_trials(log_path)["is_disturbed"].tolist() == [False, False, False, True, False, False] + 4 * [False]
    frame = read_log(log_path)
    # Four trials are too few to tell a held-up one from the others.
    assert frame["runtime_s"].tolist() == pytest.approx([0.106, 0.1775])
    assert frame["num_trials"].tolist() == [5, 4]
    assert frame["num_disturbed"].tolist() == [1, 0]


def test_ordinary_noise_is_not_taken_for_a_held_up_trial(log_path):
    rng = np.random.default_rng(7)
    settings = [make_setting(p, 1, rng.gamma(25, 0.004, size=20).tolist()) for p in range(1, 51)]
    assert read_trials(write_log(log_path, settings))["is_disturbed"].mean() < 0.002


def test_setting_without_micro_batches_is_one_batch_of_the_whole_model(log_path):
    frame = read_log(write_log(log_path, [make_setting(1, 1, batch_size=4)]))
    assert frame[BATCH_COLUMNS].to_numpy().tolist() == [[4, 4, 4]]
    assert frame["num_layers_profiled"].tolist() == [12]
    assert frame["is_extrapolated"].tolist() == [False]
    assert frame[["prompt_encoding_time_s", "generation_time_s"]].isna().all(axis=None)


def test_parts_of_a_runtime_are_means_over_the_trials_that_were_not_held_up(log_path):
    parts = {"prompt_encoding_times_s": 5 * [0.04] + [0.34], "generation_times_s": 4 * [0.05] + [0.07, 0.06]}
    runtimes_s = [sum(pair) for pair in zip(*parts.values(), strict=True)]
    write_log(log_path, [make_setting(1, 2, runtimes_s, **parts)])
    assert read_trials(log_path)["prompt_encoding_time_s"].tolist() == parts["prompt_encoding_times_s"]
    row = read_log(log_path).iloc[0]
    assert row["prompt_encoding_time_s"] == pytest.approx(0.04)
    assert row["generation_time_s"] == pytest.approx(0.054)
    assert row["runtime_s"] == pytest.approx(0.094)


def test_query_of_one_token_may_generate_for_no_time(log_path):
    write_log(log_path, [make_setting(1, 1, [0.5], prompt_encoding_times_s=[0.5], generation_times_s=[0.0])])
    assert read_log(log_path)["generation_time_s"].tolist() == [0.0]


def test_part_of_the_layers_is_scaled_to_the_whole_model(log_path):
    frame = read_log(write_log(log_path, header={**HEADER, "num_layers_profiled": 4}))
    assert frame["runtime_s"].tolist() == pytest.approx([0.7, 0.75, 1.875])
    assert frame["runtime_min_s"].tolist() == pytest.approx([0.3, 0.75, 1.5])
    assert frame["is_extrapolated"].all()
    assert frame["num_layers_profiled"].tolist() == [4, 4, 4]


def test_json_log_carries_its_architecture(log_path):
    assert parse_log(write_log(log_path)).architecture() == get_architecture("gpt2-small")


def test_json_log_is_recognised_by_its_content(tmp_path):
    assert len(read_log(write_log(tmp_path / "gpt2-small.log"))) == 3


def test_sentence_of_2023_has_three_decimals():
    assert runtime_sentence(make_setting(512, 2, [0.26, 0.262])) == (
        "Runtime for {'num_input_tokens': 512, 'num_output_tokens': 2}: 0.261 seconds +- 0.001"
    )
    assert runtime_sentence(make_setting(1, 1, [0.5])).endswith(": 0.500 seconds +- 0.000")


def test_frames_of_both_kinds_have_the_same_types(log_path, tmp_path):
    text = tmp_path / "toy.log"
    text.write_text("Runtime for {'num_input_tokens': 1, 'num_output_tokens': 1}: 0.090 seconds +- 0.009\n")
    ours, theirs = read_log(write_log(log_path)), read_log(text)
    pd.testing.assert_series_equal(ours.dtypes, theirs.dtypes)
    scalars = ours.drop(columns=["trial_runtimes_s", "trial_starts_s"])
    assert not any(pd.api.types.is_object_dtype(dtype) for dtype in scalars.dtypes)
    assert ours["batch_size"].dtype == ours["num_trials"].dtype == "Int64"
    assert ours["num_prompt_tokens"].dtype == "int64"
    assert theirs["num_trials"].isna().all()


# Damage


def test_json_log_cut_at_any_byte_yields_the_lines_before_or_an_error(log_path):
    contents = write_log(log_path).read_bytes()
    whole = read_log(log_path)
    header_end = contents.index(b"\n") + 1
    num_frames = 0
    for cut in range(len(contents)):
        log_path.write_bytes(contents[:cut])
        result = outcome(log_path)
        if isinstance(result, LogFormatError):
            assert re.search(rf"{re.escape(str(log_path))}(:\d+|: holds no timing)", str(result))
        else:
            num_frames += 1
            assert cut > header_end
            pd.testing.assert_frame_equal(result, whole.iloc[: contents[:cut].count(b"\n") - 1])
    # Only at the ends of the three settings: everything else is refused.
    assert num_frames == 3


def test_log_without_footer_is_read_with_a_warning_at_the_caller(log_path):
    write_log(log_path, finish=False)
    with pytest.warns(IncompleteLogWarning, match="incomplete: no footer after 3 settings") as caught:
        assert len(read_log(log_path)) == 3
    with pytest.warns(IncompleteLogWarning) as caught_of_trials:
        read_trials(log_path)
    assert caught[0].filename == caught_of_trials[0].filename == __file__


def test_failed_settings_are_left_out_with_a_warning(log_path):
    write_log(log_path, [*SETTINGS, make_failed(2048, 1)])
    with pytest.warns(IncompleteLogWarning, match=r"1 settings failed and are left out: p=2048 o=1 \(OutOfMemoryError"):
        frame = read_log(log_path)
    assert frame["num_prompt_tokens"].tolist() == [1, 1, 16]


def test_failed_settings_have_a_frame_of_their_own(log_path):
    write_log(log_path, [*SETTINGS, {**make_failed(512, 32), "batch_size": 24, "token_micro_batch_size": 12}])
    failures = read_failures(log_path)
    assert failures[SETTING_COLUMNS].to_numpy().tolist() == [[512, 32, 24, 24, 12]]
    assert failures[["error_type", "error_message"]].to_numpy().tolist() == [["OutOfMemoryError", "full"]]
    with pytest.warns(IncompleteLogWarning, match=r"p=512 o=32 B=24 m=24 k=12 \(OutOfMemoryError"):
        read_log(log_path)


def test_log_without_failures_has_an_empty_frame_of_them(log_path):
    assert read_failures(write_log(log_path)).empty


def test_log_whose_settings_all_failed_holds_no_timing(log_path):
    write_log(log_path, [make_failed(1, 1)])
    with (
        pytest.warns(IncompleteLogWarning),
        pytest.raises(LogFormatError, match="holds no timing: 1 settings, all of which failed"),
    ):
        read_log(log_path)


@pytest.mark.parametrize(
    ("line_number", "line", "message"),
    [
        (1, "", ":1: not JSON"),
        (1, {"record": "footer", "num_settings": 0}, ":1: a log begins with its header; got a 'footer'"),
        (1, {"record": "header", **HEADER}, ":1: schema version None; this release reads version 1"),
        (2, {"record": "header", **HEADER}, ":2: a second header"),
        (2, "[1]", ":2: not a header, setting, block, guard, sent, trial, stop, resume or footer record"),
        (2, '{"record": []}', ":2: not a header, setting, block, guard, sent, trial, stop, resume or footer record"),
        (2, '{"record": "setting", "num_prompt_tokens": ' + 5000 * "1" + "}", ":2: not JSON"),
        (3, {"record": "setting", **make_setting(1, 1)}, ":3: setting p=1 o=1 on 12 layers stands here a second"),
        (3, {"record": "setting", **make_setting(0, 1)}, ":3: num_prompt_tokens must be an integer.*got 0"),
        (3, {"record": "setting", **make_setting(1, 1.5)}, ":3: num_output_tokens must be an integer.*got 1.5"),
        (3, {"record": "setting", **make_setting(1, 2, batch_size=True)}, ":3: batch_size must be an integer"),
        (
            3,
            {"record": "setting", **make_setting(1, 2, micro_batch_size=2)},
            ":3: micro_batch_size must divide.*1; got 2",
        ),
        (
            3,
            {"record": "setting", **make_setting(1, 2, token_micro_batch_size=0)},
            ":3: token_micro_batch_size must be",
        ),
        (
            3,
            {"record": "setting", **make_setting(1, 2, num_layers_profiled=6)},
            r":3: num_layers_profiled.*\[12\]; got 6",
        ),
        (
            3,
            {"record": "setting", **make_setting(1, 2, generation_times_s=[-1.0])},
            ":3: generation_times_s must be a list",
        ),
        (
            3,
            {"record": "setting", **make_setting(1, 2, generation_times_s=[0.1])},
            ":3: generation_times_s has 1 trials, runtimes_s 3",
        ),
        (3, {"record": "setting", **make_setting(1, 2, [])}, r":3: runtimes_s must be a list.*got \[\]"),
        (3, {"record": "setting", **make_setting(1, 2, [0.0])}, ":3: runtimes_s must be a list of positive"),
        (3, {"record": "setting", **make_setting(1, 2, ["1"])}, ":3: runtimes_s must be a list of positive"),
        (3, {"record": "setting", **make_setting(1, 2, [float("nan")])}, ":3: runtimes_s must be a list of positive"),
        (3, {"record": "setting", **make_setting(1, 2, [float("inf")])}, ":3: runtimes_s must be a list of positive"),
        (3, {"record": "setting", **make_setting(1, 2, [10**400])}, ":3: runtimes_s must be a list of positive"),
        (3, {"record": "setting", **make_setting(1, 2, error="full")}, ":3: error must be an object"),
        (4, {"record": "footer", "num_settings": 3}, ":4: the footer counts 3 settings; the log holds 2"),
        (4, {"record": "footer", "num_settings": 2}, ":5: a 'footer' record after the footer"),
    ],
)
def test_line_that_is_not_what_it_claims_is_an_error_with_file_and_line(log_path, line_number, line, message):
    lines = write_log(log_path).read_text().splitlines()
    lines[line_number - 1] = line if isinstance(line, str) else json.dumps(line)
    log_path.write_text("\n".join(lines) + "\n")
    with pytest.raises(LogFormatError, match=re.escape(str(log_path)) + message):
        load_log(log_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema version 2"),
        ({"hardware": None}, "hardware must be a name; got None"),
        ({"num_layers_profiled": 0}, "num_layers_profiled must be an integer of at least 1"),
        ({"num_layers_profiled": []}, "num_layers_profiled must be an integer of at least 1, or a list of them; got"),
        ({"num_layers_profiled": [4, 4]}, "num_layers_profiled has a slice twice"),
        ({"num_layers_profiled": [4, 13]}, "13 layers profiled; the architecture has 12"),
        ({"num_layers_profiled": 13}, "13 layers profiled; the architecture has 12"),
        ({"tensor_parallel_size": "1"}, "tensor_parallel_size must be an integer"),
        ({"software": {}}, "software must be an object with megatron-core"),
        ({"architecture": {"name": "toy"}}, "an architecture needs hidden_size"),
        ({"architecture": None}, "architecture must be an object"),
    ],
)
def test_damaged_header_is_an_error_with_file_and_line(log_path, change, message):
    first, rest = write_log(log_path).read_text().split("\n", 1)
    log_path.write_text(json.dumps({**json.loads(first), **change}) + "\n" + rest)
    with pytest.raises(LogFormatError, match=f"{re.escape(str(log_path))}:1: .*{message}"):
        read_log(log_path)


def test_setting_that_does_not_tell_its_slice_is_an_error(log_path):
    with pytest.raises(LogFormatError, match="num_layers_profiled must be an integer of at least 1; got None"):
        write_log(log_path, header={**HEADER, "num_layers_profiled": [4, 6]})


def test_bytes_that_are_not_utf8_are_an_error_with_file_and_line(log_path):
    log_path.write_bytes(write_log(log_path).read_bytes().replace(b"warmups_s", b"warmups\xff", 1))
    with pytest.raises(LogFormatError, match=r"gpt2-small.jsonl:2: not JSON in UTF-8"):
        read_log(log_path)


@pytest.mark.parametrize(("name", "message"), [("x.jsonl", "x.jsonl:1: empty"), ("x.log", "x.log: holds no timing")])
def test_empty_file_is_an_error(tmp_path, name, message):
    (tmp_path / name).touch()
    with pytest.raises(LogFormatError, match=message):
        read_log(tmp_path / name)


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.jsonl"):
        read_log(tmp_path / "nowhere.jsonl")
    with pytest.raises(IsADirectoryError, match=re.escape(str(tmp_path))):
        read_log(tmp_path)
