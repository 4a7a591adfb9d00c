import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from idealized_runtime.checks import MissingValueWarning
from idealized_runtime.cli.output import write_table
from idealized_runtime.queries.tables import grid_queries, read_queries


def write(tmp_path, text, name="queries.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def sizes(queries):
    return queries[["num_prompt_tokens", "num_output_tokens"]].to_numpy().tolist()


def test_grid_holds_every_pair_of_sizes():
    assert grid_queries([1, 2], [3, 4]).to_numpy().tolist() == [[1, 3], [1, 4], [2, 3], [2, 4]]


def test_queries_of_a_file_keep_their_order_and_other_columns(tmp_path):
    queries = read_queries(write(tmp_path, "task,num_prompt_tokens,num_output_tokens\nqa,512,1\nmt,7,64\n"))
    assert sizes(queries) == [[512, 1], [7, 64]]
    assert queries["task"].tolist() == ["qa", "mt"]


def test_spaces_around_names_and_numbers_do_not_count(tmp_path):
    queries = read_queries(write(tmp_path, "num_prompt_tokens , num_output_tokens\n 512 , 1\n"))
    assert sizes(queries) == [[512, 1]]


def test_published_file_is_read_by_its_name_there(published):
    assert len(read_queries("paper_figures/figure9_query_sizes.csv")) > 10


def test_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.csv: no such file"):
        read_queries(tmp_path / "absent.csv")


def test_other_names_of_columns_are_renamed_and_times_of_day_counted_from_the_first(tmp_path):
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:04.9799600,8,2\n2023-11-16 18:17:03.4799599,9,1\n"
    columns = {"num_prompt_tokens": "ContextTokens", "num_output_tokens": "GeneratedTokens", "arrival_s": "TIMESTAMP"}
    queries = read_queries(write(tmp_path, text), columns=columns)
    assert sizes(queries) == [[8, 2], [9, 1]]
    assert queries["arrival_s"].tolist() == pytest.approx([1.5000001, 0], abs=1e-9)


def test_column_that_is_renamed_takes_the_place_of_ours(tmp_path):
    path = write(tmp_path, "num_prompt_tokens,num_output_tokens,cached\n512,1,12\n")
    assert sizes(read_queries(path, columns={"num_prompt_tokens": "cached"})) == [[12, 1]]


def test_published_trace_is_read(published):
    columns = {"num_prompt_tokens": "ContextTokens", "num_output_tokens": "GeneratedTokens", "arrival_s": "TIMESTAMP"}
    queries = read_queries("AzurePublicDataset/data/AzureLLMInferenceTrace_code.csv", columns=columns)
    assert len(queries) == 8819
    assert queries["arrival_s"].is_monotonic_increasing
    assert queries["arrival_s"].iloc[1] == pytest.approx(0.052)


@pytest.mark.parametrize("suffix", [".parquet", ".json", ".jsonl"])
def test_other_formats_hold_the_same_queries(tmp_path, suffix):
    queries = pd.DataFrame({"num_prompt_tokens": [512, 7], "num_output_tokens": [1, 64], "model": ["a", "b"]})
    path = tmp_path / f"queries{suffix}"
    if suffix == ".parquet":
        queries.to_parquet(path)
    else:
        queries.to_json(path, orient="records", lines=suffix == ".jsonl")
    pd.testing.assert_frame_equal(read_queries(path), read_queries(write(tmp_path, queries.to_csv(index=False))))


def test_queries_come_from_standard_input(monkeypatch):
    text = io.BytesIO(b"num_prompt_tokens,num_output_tokens\n512,1\n")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=text))
    assert sizes(read_queries("-")) == [[512, 1]]


def test_folder_of_helm_runs_is_read(tmp_path):
    run = tmp_path / "boolq:model=openai_davinci"
    run.mkdir()
    spec = {"name": run.name, "scenario_spec": {"class_name": "helm.Scenario", "args": {}}, "metric_specs": [],
            "groups": ["boolq"], "adapter_spec": {"method": "generation", "model_deployment": "openai/davinci",
                                                  "model": "openai/davinci", "num_train_trials": 1}}  # fmt: skip
    values = {"num_references": 1, "num_prompt_tokens": 100, "num_output_tokens": 5, "inference_runtime": 1.0}
    stats = [{"name": {"name": name, "split": "test"}, "count": 1, "sum": value, "sum_squared": value**2,
              "mean": value} for name, value in values.items()]  # fmt: skip
    (run / "run_spec.json").write_text(json.dumps(spec))
    (run / "per_instance_stats.json").write_text(json.dumps([{"instance_id": "id1", "train_trial_index": 0,
                                                              "stats": stats}]))  # fmt: skip
    queries = read_queries(tmp_path)
    assert sizes(queries) == [[100, 5]]
    assert queries["model"].tolist() == ["openai/davinci"]


def test_missing_numbers_stay_missing(tmp_path):
    queries = read_queries(write(tmp_path, "num_prompt_tokens,num_output_tokens,weight\n512,1,2\n,64,\n"))
    assert np.isnan(queries.loc[1, ["num_prompt_tokens", "weight"]].astype(float)).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt,num_output_tokens\n1,1\n", "no column num_prompt_tokens; .*there are: prompt, num_output_tokens"),
        ('num_prompt_tokens,num_output_tokens\n5,1\n"1,02",1\n', "column num_prompt_tokens .*row 2 of 2: '1,02'"),
        ("num_prompt_tokens,num_output_tokens\n5,1\n6,many\n", "column num_output_tokens .*row 2 of 2: 'many'"),
        ("num_prompt_tokens,num_output_tokens,weight\n5,1,x\n", "column weight .*row 1 of 1: 'x'"),
        ("num_prompt_tokens,num_output_tokens\n5,1,6\n", "Expected 2 columns, got 3"),
        ("num_prompt_tokens,num_output_tokens\n5\n", "Expected 2 columns, got 1"),
        ("num_prompt_tokens, num_prompt_tokens,num_output_tokens\n5,1,6\n", "two columns of one name"),
        ("", "Empty CSV file"),
    ],
)
def test_file_of_no_queries_is_refused_by_its_path_with_row_and_value(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"queries\.csv: .*{message}"):
        read_queries(write(tmp_path, text))


def test_name_of_a_column_that_is_not_there_is_refused(tmp_path):
    path = write(tmp_path, "num_prompt_tokens,num_output_tokens\n5,1\n")
    with pytest.raises(ValueError, match=r"no column ContextTokens; .*there are: num_prompt_tokens, num_output_tokens"):
        read_queries(path, columns={"num_prompt_tokens": "ContextTokens"})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("queries.json", b"5"),
        ("queries.json", b"[1, 2]"),
        ("queries.json", b'[{"num_prompt_tokens": 1, '),
        ("queries.jsonl", b'{"num_prompt_tokens": 1, "num_output_'),
        ("queries.parquet", b"PAR1\x15\x04"),
        ("queries.csv", b"\x80\x81\x00\xff,\x03\n\x00\x00,\xfe\n"),
    ],
)
def test_file_that_is_no_table_is_said_to_be_none(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: not a table of queries \("):
        read_queries(path)


def test_negative_weight_is_refused_with_its_row(tmp_path):
    path = write(tmp_path, "num_prompt_tokens,num_output_tokens,weight\n1,1,2\n1,1,-3\n")
    with pytest.raises(ValueError, match=r"queries\.csv: .*row 2 of 2: -3"):
        read_queries(path)


def test_absent_columns_say_how_to_name_them(tmp_path):
    with pytest.raises(ValueError, match="--columns num_prompt_tokens=THEIRS,num_output_tokens=THEIRS"):
        read_queries(write(tmp_path, "p,o\n1,1\n"))


@pytest.mark.parametrize("weight", [" weight", "weight ", "Weight", "WEIGHT"])
def test_header_with_spaces_or_capitals_keeps_its_weights(tmp_path, weight):
    path = tmp_path / "queries.csv"
    path.write_text(f" num_prompt_tokens,Num Output Tokens,{weight}\n100,20,3\n")
    assert read_queries(path).iloc[0].to_dict() == {"num_prompt_tokens": 100, "num_output_tokens": 20, "weight": 3}


def test_column_that_is_nearly_one_of_ours_is_said_not_to_be_read(tmp_path):
    path = tmp_path / "queries.csv"
    path.write_text("num_prompt_tokens,num_output_tokens,weights\n100,20,3\n")
    with pytest.warns(MissingValueWarning, match="column 'weights' is not read; .*--columns weight=weights"):
        read_queries(path)


def test_two_columns_of_one_name_are_refused(tmp_path):
    path = tmp_path / "queries.csv"
    path.write_text("num_prompt_tokens,num_output_tokens, num_output_tokens\n100,20,3\n")
    with pytest.raises(ValueError, match="two columns of one name"):
        read_queries(path)


def test_thousands_may_be_separated(tmp_path):
    path = tmp_path / "queries.csv"
    path.write_text('num_prompt_tokens,num_output_tokens,weight\n"1,024",20,"1,234,567.5"\n,12,100\n')
    queries = read_queries(path)
    assert queries["num_prompt_tokens"].iloc[0] == 1024
    assert queries["weight"].tolist() == [1234567.5, 100]
    path.write_text('num_prompt_tokens,num_output_tokens\n"1,02",20\n')
    with pytest.raises(ValueError, match="row 1 of 1: '1,02'"):
        read_queries(path)


def test_query_without_a_weight_is_counted(tmp_path):
    with pytest.warns(MissingValueWarning, match="1 of 3 rows of .* have no weight, and count for nothing"):
        read_queries(write(tmp_path, "num_prompt_tokens,num_output_tokens,weight\n5,1,2\n5,1,\n,1,\n"))


def test_size_that_no_query_has_is_refused_with_its_row(tmp_path):
    path = write(tmp_path, "num_prompt_tokens,num_output_tokens\n1,1\n1,1e300\n")
    with pytest.raises(ValueError, match=r"num_output_tokens must be 1e\+07 or less; .* in row 2 of 2: 1e\+300"):
        read_queries(path)


def test_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "queries.json"
    path.write_text('[{"num_prompt_tokens": 1, "num_output_tokens": 2, "num_output_tokens": 3}]')
    with pytest.raises(ValueError, match="the key 'num_output_tokens' stands twice"):
        read_queries(path)


def test_damaged_page_of_our_parquet_is_told(tmp_path):
    path = tmp_path / "queries.parquet"
    write_table(pd.DataFrame({"num_prompt_tokens": [12345] * 4, "num_output_tokens": [7, 8, 9, 10]}), path)
    data = bytearray(path.read_bytes())
    data[data.index((12345).to_bytes(8, "little"))] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"not a table of queries .*CRC checksum"):
        read_queries(path)


def test_column_without_a_name_is_told_unless_it_is_an_index(tmp_path):
    with pytest.warns(MissingValueWarning, match="a column without a name is not read"):
        read_queries(write(tmp_path, "num_prompt_tokens,num_output_tokens,\n1,2,3\n"))
    assert len(read_queries(write(tmp_path, ",num_prompt_tokens,num_output_tokens\n0,1,2\n"))) == 1


def test_field_that_a_row_in_many_has_is_named(tmp_path):
    rows = [{"num_prompt_tokens": 8, "num_output_tokens": 2, "weight": 2.0, "id": number} for number in range(9)]
    path = tmp_path / "queries.json"
    path.write_text(json.dumps([*rows, {"num_prompt_tokens": 8, "num_output_tokens": 2, "wei": 2.0}]))
    with pytest.warns(MissingValueWarning, match="queries: 'wei' stands in 1 of 10 rows, and is not read"):
        read_queries(path)
