import json

import numpy as np
import pandas as pd
import pytest

from idealized_runtime.cli.flags import out_file
from idealized_runtime.cli.main import main
from idealized_runtime.cli.output import bounded, print_json, print_rows, print_table, say, write_table
from idealized_runtime.measurements.published import ROOT

WIDE = pd.DataFrame(
    {"model": ["a", "a"], "kind": ["x", "y"], **{f"a_column_of_number_{i}": [i + 1.23456, np.nan] for i in range(12)}}
)


def lines_of(capsys):
    return capsys.readouterr().out.splitlines()


def test_table_has_four_significant_digits_and_leaves_out_what_holds_nothing(capsys):
    print_table(pd.DataFrame({"name": ["a", "bc"], "value": [1234.567, np.nan], "nothing": [None, None]}))
    assert lines_of(capsys) == ["name  value", "a      1235", "bc        -"]


def test_wide_table_is_turned_on_its_side(capsys):
    print_table(WIDE)
    lines = lines_of(capsys)
    assert max(map(len, lines)) <= 120
    assert lines[0].split() == ["model", "a", "a"]
    assert lines[-1].split() == ["a_column_of_number_11", "12.23", "-"]


def test_wide_and_long_table_is_cut_with_what_tells_its_rows_apart(capsys):
    print_table(pd.concat([WIDE.assign(kind=[f"x{number}", f"y{number}"]) for number in range(10)]))
    lines = lines_of(capsys)
    assert max(map(len, lines)) <= 120
    assert lines[0] == "model a"
    heads = [line.split() for line in lines if line.startswith("kind")]
    assert sum(line.startswith("x3 ") for line in lines) == len(heads) > 1
    assert {name for head in heads for name in head[1:]} == set(WIDE.columns[2:])


def test_rows_stand_in_two_columns_and_sentences_as_they_are(capsys):
    print_rows([("label", 1), "A sentence.", ("longer label", bounded(2.0, {"lower": 1, "upper": 3}, ".1f"))])
    assert lines_of(capsys) == ["label:        1", "A sentence.", "longer label: 2.0   [1.0, 3.0]"]


def test_json_holds_tables_as_rows_and_what_is_missing_as_null(capsys):
    table = pd.DataFrame({"t": [pd.Timestamp("2026-01-01"), pd.NaT], "n": pd.array([1, None], dtype="Int64")})
    print_json({"table": table, "array": np.arange(2), "number": np.float64(0.1), "missing": float("nan")})
    assert json.loads(capsys.readouterr().out) == {
        "table": [{"t": "2026-01-01 00:00:00", "n": 1}, {"t": None, "n": None}],
        "array": [0, 1],
        "number": 0.1,
        "missing": None,
    }


def test_json_refuses_infinity():
    with pytest.raises(OverflowError):
        print_json({"a": [np.inf]})


@pytest.mark.parametrize("ending", [".csv", ".json", ".parquet", ".tex"])
def test_file_has_the_format_of_its_ending(tmp_path, ending):
    path = out_file(str(tmp_path / "new" / f"table{ending}"))
    frame = pd.DataFrame({"a": [1, 2], "b": [0.1234567890123, 2.0]})
    write_table(frame, path)
    if ending == ".tex":
        assert "0.1235" in path.read_text()
    else:
        read = getattr(pd, f"read_{ending[1:]}")(path)
        pd.testing.assert_frame_equal(read, frame, check_exact=True, check_dtype=False)


def test_table_is_written_as_markdown(tmp_path):
    write_table(pd.DataFrame({"model": ["a|b", "c"], "runtime_s": [1.23456, np.nan]}), tmp_path / "a.md")
    lines = (tmp_path / "a.md").read_text().splitlines()
    assert lines[:3] == ["| model | runtime_s |", "| --- | --- |", r"| a\|b | 1.235 |"]
    assert "nan" not in lines[3]


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"written are \.csv, \.json, \.parquet, \.tex, \.md, by the ending; got '\.xls'"
    ):
        write_table(pd.DataFrame(), tmp_path / "a.xls")


def test_answers_of_api_commands_are_objects(capsys, tmp_path):
    data = str(ROOT / "tests/records/importers/data/vllm_closed.json")
    log = tmp_path / "log.jsonl"
    assert main(["api", "import", data, "--log", str(log), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["throughput"][0]["num_requests"] == 6
    assert {row["quantity"] for row in answer["percentiles"]} >= {"runtime_s", "time_to_first_token_s"}
    assert answer["findings"][0]["check"] == "few_requests"


def test_file_of_a_table_holds_every_digit(tmp_path):
    write_table(pd.DataFrame({"runtime_s": [1.2345678901234567e-9, np.nan]}), tmp_path / "table.json")
    rows = json.loads((tmp_path / "table.json").read_text())
    assert rows == [{"runtime_s": 1.2345678901234567e-9}, {"runtime_s": None}]


def test_names_with_underscores_compile_in_latex(tmp_path):
    write_table(pd.DataFrame({"runtime_s": ["a_b"]}), tmp_path / "table.tex")
    text = (tmp_path / "table.tex").read_text()
    assert r"runtime\_s" in text
    assert r"a\_b" in text


def test_parts_of_a_table_that_was_cut_are_apart(capsys):
    print_table(pd.concat([WIDE.assign(kind=[f"x{number}", f"y{number}"]) for number in range(10)]))
    lines = lines_of(capsys)
    second = [place for place, line in enumerate(lines) if line.startswith("kind")][1]
    assert lines[second - 1] == ""


@pytest.mark.parametrize("obeyed", ["\x1b[2J", "\x9b31m", "\r", "\u202e", "\u2066", "\u200b", "\U000e0041"])
def test_what_a_terminal_would_obey_is_shown_escaped(capsys, obeyed):
    name = f"a{obeyed}b\nc"
    print_table(pd.DataFrame({name: [name]}))
    print_rows([(name, name)])
    say(name)
    out, err = capsys.readouterr()
    assert obeyed not in out + err
    assert len(out.splitlines()[:2]) == 2, "a name in a table stays on its line"
    assert "b" in err
