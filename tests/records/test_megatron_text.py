import re
import warnings

import pandas as pd
import pytest

from idealized_runtime.architectures import get_architecture
from idealized_runtime.records import (
    BATCH_COLUMNS,
    PARALLELISM_COLUMNS,
    LogFormatError,
    RepeatedSettingWarning,
    parse_log,
    read_log,
)
from idealized_runtime.records.validity import SuspiciousLogWarning

LINE_END = b"\n"
TIMES = {(1, 1): "0.090", (1, 2): "0.208", (16, 1): "1.345"}


def sentence(num_prompt_tokens, num_output_tokens, runtime="0.500", std="0.009"):
    tokens = {"num_input_tokens": num_prompt_tokens, "num_output_tokens": num_output_tokens}
    return f"Runtime for {tokens}: {runtime} seconds +- {std}\n"


def arguments(**change):
    """The block of arguments that Megatron prints, cut down to what is read."""
    printed = {
        "ffn_hidden_size": 4096,
        "hidden_size": 1024,
        "max_position_embeddings": 2048,
        "micro_batch_size": 1,
        "num_attention_heads": 16,
        "num_layers": 24,
        "pipeline_model_parallel_size": 1,
        "tensor_model_parallel_size": 2,
        **change,
    }
    lines = "".join(f"  {name} {'.' * (48 - len(name))} {value}\n" for name, value in printed.items())
    return (
        f"using world size: 2\n------------------------ arguments ------------------------\n{lines}"
        "-------------------- end of arguments ---------------------\n"
        " > padded vocab (size: 50257) with 47 dummy tokens (new size: 50304)\n"
    )


LOG = arguments() + "".join(sentence(p, o, runtime) for (p, o), runtime in TIMES.items())


def write(tmp_path, contents, name="toy.log"):
    folder = tmp_path / "a100"
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    return path


def read_quietly(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_log(path)


def test_text_log_yields_a_row_a_setting(tmp_path):
    frame = read_log(write(tmp_path, LOG))
    assert frame[["num_prompt_tokens", "num_output_tokens"]].to_numpy().tolist() == [[1, 1], [1, 2], [16, 1]]
    assert frame["runtime_s"].tolist() == [0.09, 0.208, 1.345]
    assert frame["runtime_std_s"].tolist() == 3 * [0.009]
    assert frame["runtime_resolution_s"].tolist() == 3 * [1e-3]
    assert frame["model"].unique().tolist() == ["toy"]
    assert frame["hardware"].unique().tolist() == ["a100"]
    parallelism = frame[[*BATCH_COLUMNS, *PARALLELISM_COLUMNS]].drop_duplicates()
    assert parallelism.to_numpy().tolist() == [[1, 1, 1, 2, 1]]


def test_text_log_without_arguments_lacks_parallelism_and_architecture(tmp_path):
    path = write(tmp_path, sentence(1, 1))
    frame = read_log(path)
    assert frame["runtime_s"].tolist() == [0.5]
    assert frame[[*BATCH_COLUMNS, *PARALLELISM_COLUMNS, "num_layers_profiled"]].isna().all(axis=None)
    with pytest.raises(LogFormatError, match=r"toy.log: the printed arguments lack 'num_layers'"):
        parse_log(path).architecture()


def test_architecture_is_the_printed_one(tmp_path):
    architecture = parse_log(write(tmp_path, LOG)).architecture()
    assert (architecture.name, architecture.num_layers, architecture.vocab_size) == ("toy", 24, 50304)


def test_log_without_its_vocabulary_has_no_architecture(tmp_path):
    with pytest.raises(LogFormatError, match="lacks the line 'padded vocab"):
        parse_log(write(tmp_path, LOG.replace("new size", "size"))).architecture()


def test_argument_that_is_no_integer_is_named(tmp_path):
    with pytest.raises(LogFormatError, match=r"argument micro_batch_size must be an integer; got .*'None'"):
        read_log(write(tmp_path, arguments(micro_batch_size=None) + sentence(1, 1)))


def test_last_of_a_repeated_setting_counts_and_is_warned_about_once(tmp_path):
    path = write(tmp_path, LOG + sentence(1, 1, "0.100") + sentence(1, 1, "0.110"))
    with pytest.warns(RepeatedSettingWarning, match="1 settings stand there more than once.*: p=1 o=1$") as caught:
        frame = read_log(path)
    assert caught[0].filename == __file__
    assert frame["runtime_s"].tolist() == [0.208, 1.345, 0.11]


def test_failed_run_at_the_head_is_passed_over(tmp_path):
    failed = arguments(tensor_model_parallel_size=8) + "RuntimeError: CUDA out of memory\n"
    assert read_log(write(tmp_path, failed + LOG))["tensor_parallel_size"].unique().tolist() == [2]


def test_timings_of_two_parallelisms_in_one_file_are_refused(tmp_path):
    other = arguments(tensor_model_parallel_size=8) + sentence(32, 1)
    with pytest.raises(LogFormatError, match="timings of different models or parallelisms"):
        read_log(write(tmp_path, LOG + other))


def test_log_of_part_of_the_layers_is_scaled_only_if_it_printed_so(tmp_path):
    sizes = {"hidden_size": 20480, "num_attention_heads": 128, "ffn_hidden_size": 81920}
    part = arguments(num_layers=35, **sizes) + sentence(1, 1, "0.500", "0.010")
    frame = read_log(write(tmp_path, part, "mt_nlg.log"))
    scaled = frame.loc[0, ["runtime_s", "runtime_std_s", "runtime_resolution_s"]].tolist()
    assert scaled == pytest.approx([1.5, 0.03, 0.003])
    assert frame[["num_layers_profiled", "is_extrapolated"]].to_numpy().tolist() == [[35, True]]
    whole = arguments(num_layers=105, **sizes) + sentence(1, 1, "0.500")
    frame = read_log(write(tmp_path, whole, "mt_nlg.log"))
    assert frame["runtime_s"].tolist() == [0.5]
    assert frame[["num_layers_profiled", "is_extrapolated"]].to_numpy().tolist() == [[105, False]]
    with pytest.raises(LogFormatError, match=r"does not print num_layers.*35 or all 105 layers of tnlg-v2"):
        read_log(write(tmp_path, sentence(1, 1), "mt_nlg.log"))


@pytest.mark.parametrize(
    "line",
    [
        "Runtime for {'num_input_tokens': 1, 'num_output_tokens': 1}: 0.09 seconds +- 0.009",
        "Runtime for {'num_input_tokens': 1, 'num_output_tokens': 1}: 0.090 seconds +- 0.00",
        "Runtime for {'num_input_tokens': 1, 'num_output_tokens': 1}: 0.090 seconds +- nan",
        "Runtime for {'num_input_tokens': 0, 'num_output_tokens': 1}: 0.090 seconds +- 0.009",
        "Runtime for {'num_input_tokens': 1, 'num_output_tokens': 1}: -0.090 seconds +- 0.009",
        "Runtime for {'num_input_tokens': 1, 'num_output_tokens': 1}: 0.090 seconds +- 0.009Runtime for",
        "me for {'num_input_tokens': 1, 'num_output_tokens': 1}: 0.090 seconds +- 0.009",
        "Runtime for {'num_input_tokens': 1\N{ARABIC-INDIC DIGIT ONE}, 'num_output_tokens': 1}: 0.090 seconds +- 0.009",
    ],
)
def test_malformed_line_is_an_error_with_file_and_line(tmp_path, line):
    path = write(tmp_path, LOG + line + "\nother output\n")
    with pytest.raises(LogFormatError, match=rf"{re.escape(str(path))}:{LOG.count(chr(10)) + 1}: cut or malformed"):
        read_log(path)


def read_cut(path, contents):
    """Frame of a cut file, or None where the line that the cut went through is refused."""
    path.write_bytes(contents)
    try:
        return read_quietly(path)
    except LogFormatError as error:
        message = str(error)
    is_refused_there = f"{path}:{contents.count(LINE_END) + 1}: cut or malformed" in message
    assert is_refused_there or (b": 0.090 seconds" not in contents and "holds no timing" in message)
    return None


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_text_log_cut_at_any_byte_yields_the_lines_before_or_an_error(tmp_path, line_end):
    contents = LOG.encode().replace(b"\n", line_end)
    path = write(tmp_path, contents)
    whole = read_log(path)
    for cut in range(len(contents) + 1):
        num_settings = len(re.findall(rb"\+- \d\.\d{3}(?!\d)", contents[:cut]))
        is_at_line_end = re.search(rb"\+- \d\.\d{3}\s*$", contents[:cut]) is not None
        frame = read_cut(path, contents[:cut])
        assert (frame is not None) == is_at_line_end
        if frame is not None:
            pd.testing.assert_frame_equal(frame, whole.iloc[:num_settings])


def test_progress_bar_and_foreign_bytes_around_timings_are_passed_over(tmp_path):
    contents = b"\xff\xfe noise\n" + LOG.encode() + b" 50%|##\r 60%|###\r" + sentence(32, 1).encode() + b"\x80\n"
    assert len(read_log(write(tmp_path, contents))) == 4


def test_windows_line_ends_change_nothing(tmp_path):
    expected = read_log(write(tmp_path, LOG))
    pd.testing.assert_frame_equal(read_log(write(tmp_path, LOG.replace("\n", "\r\n"))), expected)


# The published logs

PUBLISHED = {
    "a100": "ai21_j1_grande ai21_j1_jumbo ai21_j1_large anthropic bloom gpt2 gpt_neox_20b gptj_6b mt_nlg openai_ada "
    "openai_davinci opt_66b yalm",
    "v100": "ai21_j1_grande ai21_j1_jumbo ai21_j1_large anthropic bloom gpt_neox_20b gptj_6b mt_nlg openai_ada "
    "openai_davinci yalm",
}
LOGS = [(hardware, stem) for hardware, stems in PUBLISHED.items() for stem in stems.split()]
NUM_RANKS = {
    "a100": {"ai21_j1_jumbo": 8, "anthropic": 4, "bloom": 8, "mt_nlg": 8, "openai_davinci": 8, "opt_66b": 4, "yalm": 4},
    "v100": {"ai21_j1_grande": 2, "ai21_j1_jumbo": 16, "anthropic": 4, "bloom": 16, "gpt_neox_20b": 2, "mt_nlg": 16,
             "openai_davinci": 16, "yalm": 8},
}  # fmt: skip


def published_log(published, hardware, stem):
    return published / "helm-efficiency" / "logs" / hardware / f"{stem}.log"


def num_params_of_a_rank(architecture, tensor_parallel_size, num_layers):
    """Parameters that one tensor-parallel rank of Megatron's GPT holds: what is split, and what each has whole."""
    h, f = architecture.hidden_size, architecture.ffn_hidden_size
    split = architecture.vocab_size * h + num_layers * (4 * h * h + 3 * h + 2 * h * f + f)
    whole = architecture.max_position_embeddings * h + num_layers * 6 * h + 2 * h
    return split / tensor_parallel_size + whole


@pytest.mark.parametrize(("hardware", "stem"), LOGS)
def test_published_log_is_read_whole(published, hardware, stem):
    path = published_log(published, hardware, stem)
    frame = read_quietly(path)
    assert len(frame) == {"a100": 270, "v100": 120 if stem == "openai_ada" else 110}[hardware]
    assert not frame.duplicated(["num_prompt_tokens", "num_output_tokens"]).any()
    assert frame["hardware"].unique().tolist() == [hardware]
    assert frame["tensor_parallel_size"].unique().tolist() == [NUM_RANKS[hardware].get(stem, 1)]
    assert (frame[["batch_size", "pipeline_parallel_size"]] == 1).all(axis=None)
    assert get_architecture(frame["model"].unique().item()).published_log == stem


@pytest.mark.parametrize(("hardware", "stem"), LOGS)
def test_printed_parameter_count_is_that_of_the_architecture(published, hardware, stem):
    path = published_log(published, hardware, stem)
    architecture = parse_log(path).architecture()
    num_ranks = NUM_RANKS[hardware].get(stem, 1)
    printed = {int(count) for count in re.findall(r"number of parameters on .*?\): (\d+)", path.read_text())}
    num_layers = architecture.num_layers_profiled or architecture.num_layers
    assert printed == {num_params_of_a_rank(architecture, num_ranks, num_layers)}
    if num_ranks == 1:
        assert printed == {architecture.num_params}


@pytest.mark.parametrize("stem", PUBLISHED["a100"].split())
def test_a100_log_printed_the_architecture_of_its_registry_row(published, stem):
    architecture = parse_log(published_log(published, "a100", stem)).architecture()
    row = get_architecture(architecture.name)
    assert {**architecture.to_dict(), "source": row.source} == row.to_dict()


def test_repeated_settings_of_yalm_are_resolved_as_the_authors_did(published):
    with pytest.warns(RepeatedSettingWarning, match="9 settings stand there more than once; the last of each counts"):
        frame = read_log(published_log(published, "v100", "yalm"))
    lines = published_log(published, "v100", "yalm").read_text().splitlines()
    last = [line for line in lines if "'num_input_tokens': 1, 'num_output_tokens': 2}" in line][-1]
    runtime_s = frame.query("num_prompt_tokens == 1 and num_output_tokens == 2")["runtime_s"].item()
    assert f" {runtime_s:.3f} seconds" in last


@pytest.mark.parametrize("hardware", PUBLISHED)
def test_mt_nlg_is_scaled_to_all_its_layers(published, hardware):
    path = published_log(published, hardware, "mt_nlg")
    printed = float(re.search(r"'num_input_tokens': 512, 'num_output_tokens': 64}: (\S+) seconds", path.read_text())[1])
    frame = read_log(path).query("num_prompt_tokens == 512 and num_output_tokens == 64")
    assert frame["runtime_s"].item() == pytest.approx(3 * printed)
    assert parse_log(path).architecture().num_layers == 105


def test_published_log_cut_in_its_last_lines_yields_the_lines_before_or_an_error(published, tmp_path):
    contents = published_log(published, "v100", "openai_ada").read_bytes()
    path = write(tmp_path, contents, "openai_ada.log")
    whole = read_log(path)
    num_frames = 0
    for cut in range(len(contents) - 250, len(contents)):
        frame = read_cut(path, contents[:cut])
        if frame is not None:
            num_frames += 1
            pd.testing.assert_frame_equal(frame, whole.iloc[: len(frame)])
    # Each whole line counts with and without its line end; the whole file is not among the cuts.
    assert num_frames == 2 * contents[-250:].count(b"\n") - 1


def test_size_that_stands_in_one_setting_alone_is_named(tmp_path):
    sizes = [(p, o) for p in (1, 16, 64) for o in (1, 2, 8)]
    lines = [sentence(p, o, f"{0.1 + o / 50:.3f}") for p, o in sizes]
    lines[4] = lines[4].replace("16", "17")
    with pytest.warns(SuspiciousLogWarning, match="3 of the 12 pairs .* not there; p=17 stand in one setting"):
        read_log(write(tmp_path, "".join(lines)))
