import json
import re

import numpy as np
import pandas as pd
import pytest

from idealized_runtime.architectures import get_architecture
from idealized_runtime.cli.main import main
from idealized_runtime.fits import read_parameters
from idealized_runtime.measurements.published import ROOT
from idealized_runtime.serving.served import predict_served

A100, CPU = (str(ROOT / "processed_jsons" / f"{name}.json") for name in ("a100", "cpu"))
ADA = ("--parameters", A100, "--model", "openai/ada")
TOTALS = {"total", "total_lower", "total_upper", "mean", "p50", "p95", "p99"}


@pytest.fixture
def queries(tmp_path):
    path = tmp_path / "queries.csv"
    path.write_text("num_prompt_tokens,num_output_tokens\n100,20\n500,64\n")
    return path


def price(*arguments):
    return main(["price", *map(str, arguments)])


def answer(capsys, *arguments):
    assert price(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_totals_of_one_model_are_those_of_its_fit(capsys, queries):
    found = answer(capsys, queries, *ADA, "--power-watts", 300)
    fit, sizes = read_parameters(A100)["openai/ada"], ([100, 500], [20, 64])
    assert set(found) == {"model", "hardware", "num_queries", "num_missing", "runtime_s", "cost_usd", "energy_joules",
                          "per_million_tokens"}  # fmt: skip
    assert (found["model"], found["hardware"]) == ("openai/ada", "A100-80GB")
    assert (found["num_queries"], found["num_missing"]) == (2, 0)
    assert all(set(found[name]) == TOTALS for name in ("runtime_s", "cost_usd", "energy_joules"))
    assert found["runtime_s"]["total"] == pytest.approx(fit.predict(*map(np.array, sizes)).sum())
    lower_s, upper_s = fit.predict_interval(*sizes)
    bounds = found["runtime_s"]["total_lower"], found["runtime_s"]["total_upper"]
    assert bounds == pytest.approx((lower_s.sum(), upper_s.sum()))
    assert found["cost_usd"]["total"] == pytest.approx(found["runtime_s"]["total"] * 4.096 / 3600)
    assert found["energy_joules"]["mean"] == pytest.approx(found["runtime_s"]["mean"] * 300)
    rates = found["per_million_tokens"]["cost_usd"]
    assert rates["output"] == pytest.approx(found["cost_usd"]["total"] / (20 + 64) * 1e6)
    assert rates["all"] == pytest.approx(found["cost_usd"]["total"] / (100 + 20 + 500 + 64) * 1e6)


def test_price_and_power_that_nobody_knows_are_null(capsys, queries):
    found = answer(capsys, queries, "--parameters", CPU, "--model", "gpt2-small")
    assert found["cost_usd"] is found["energy_joules"] is None


def test_text_begins_with_the_conditions_and_the_date_of_the_price(capsys, queries):
    assert price(queries, *ADA) == 0
    first, *others = capsys.readouterr().out.splitlines()
    for condition in ("2 queries to openai/ada", "one at a time", "1 x A100-80GB", "Megatron-LM 2022", "float16",
                      "4.096 USD an hour each (list price of 2023-05)", "400 W each (maximum"):  # fmt: skip
        assert condition in first
    assert any("cost, USD" in line for line in others)


def test_several_models_price_every_query_each(capsys, queries):
    models = answer(capsys, queries, *ADA, "--model", "bloom")["models"]
    assert [(row["model"], row["num_queries"]) for row in models] == [("openai/ada", 2), ("together/bloom", 2)]


def test_queries_go_to_the_model_they_name_by_either_name(capsys, tmp_path):
    path = tmp_path / "named.csv"
    path.write_text("model,num_prompt_tokens,num_output_tokens\nada,100,20\nopenai/davinci,1,1\nmystery,1,1\n")
    found = answer(capsys, path, "--parameters", A100)
    assert [(row["model"], row["num_queries"]) for row in found["models"]] == [("ada", 1), ("openai/davinci", 1)]
    assert (found["workload"]["num_queries"], found["workload"]["num_missing"]) == (3, 1)
    total_s = sum(row["runtime_s"]["total"] for row in found["models"])
    assert found["workload"]["runtime_s"]["total"] == pytest.approx(total_s)


def test_queries_of_unknown_models_are_missing_where_one_is_known(capsys, tmp_path):
    path = tmp_path / "named.csv"
    path.write_text("model,num_prompt_tokens,num_output_tokens\nada,100,20\nmystery,1,1\n")
    found = answer(capsys, path, "--parameters", A100)
    assert (found["model"], found["num_queries"], found["num_missing"]) == ("ada", 2, 1)


def test_queries_that_have_no_price_are_counted_by_cause(capsys, tmp_path):
    path = tmp_path / "queries.csv"
    path.write_text("model,num_prompt_tokens,num_output_tokens\nada,100,20\nada,5000,1\nada,,1\nmystery,1,1\n")
    assert price(path, "--parameters", A100) == 0
    error = capsys.readouterr().err
    assert "1 of 4 queries have no price: beyond the profiled prompt sizes (--extrapolate prices them)" in error
    assert "1 of 4 queries have no price: no token counts" in error
    assert "1 of 4 queries have no price: no model of runtimes: mystery" in error


def test_queries_of_which_none_has_a_price_are_no_success(capsys, tmp_path):
    path = tmp_path / "long.csv"
    path.write_text("num_prompt_tokens,num_output_tokens\n5000,1\n")
    assert price(path, *ADA, "--json") == 1
    assert json.loads(capsys.readouterr().out)["runtime_s"] is None


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_every_query_has_a_row_in_the_file_that_is_written(capsys, queries, tmp_path, suffix):
    out = tmp_path / f"priced{suffix}"
    assert price(queries, *ADA, "--out", out) == 0
    read = {".csv": pd.read_csv, ".json": pd.read_json, ".parquet": pd.read_parquet}[suffix]
    table = read(out)
    assert table["num_prompt_tokens"].tolist() == [100, 500]
    assert table["model"].tolist() == ["openai/ada"] * 2
    assert (table["cost_usd_lower"] < table["cost_usd"]).all()


def test_measured_runtimes_that_come_with_the_queries_are_kept(capsys, tmp_path):
    path, out = tmp_path / "queries.csv", tmp_path / "priced.csv"
    path.write_text("num_prompt_tokens,num_output_tokens,runtime_s,model\n100,20,9.5,mystery\n")
    assert price(path, *ADA, "--out", out) == 0
    row = pd.read_csv(out).iloc[0]
    assert (row["runtime_s_given"], row["model_of_query"], row["model"]) == (9.5, "mystery", "openai/ada")


def test_column_that_names_other_models_than_those_asked_is_said_not_to_be_read(capsys, tmp_path):
    path = tmp_path / "queries.csv"
    for names, warned in ((("openai/ada", "mystery"), True), (("openai/ada", "openai/ada"), False)):
        path.write_text("num_prompt_tokens,num_output_tokens,model\n" + "".join(f"100,20,{name}\n" for name in names))
        assert price(path, *ADA) == 0
        said = "column model (mystery) is not read: every query is asked of --model"
        assert (said in capsys.readouterr().err) == warned


def test_model_that_nobody_timed_is_predicted_from_the_logs(capsys, queries, tmp_path):
    config = tmp_path / "between" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"model_type": "gpt2", "n_layer": 18, "n_embd": 896, "n_head": 14,
                                  "vocab_size": 50257, "n_positions": 1024}))  # fmt: skip
    options = ("--logs", "cpu", "--price-usd-per-hour", 3.6)
    smaller, new, larger = answer(
        capsys, queries, *options, "--model", "gpt2-small", "--model", config, "--model", "gpt2-medium"
    )["models"]
    assert new["model"] == "between"
    assert price(queries, *options, "--model", config) == 0
    assert "between, predicted from the logs of other models, one at a time" in capsys.readouterr().out
    assert smaller["runtime_s"]["total"] < new["runtime_s"]["total"] < larger["runtime_s"]["total"]
    assert new["cost_usd"]["total_upper"] == pytest.approx(1e-3 * new["runtime_s"]["total_upper"])


def test_number_of_accelerators_that_is_given_counts(capsys, queries):
    one, two = (answer(capsys, queries, *ADA, "--num-accelerators", number) for number in (1, 2))
    assert two["cost_usd"]["total"] == pytest.approx(2 * one["cost_usd"]["total"])


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("prompt,num_output_tokens\n1,1\n", ADA, "queries.csv: .*no column num_prompt_tokens"),
        ('num_prompt_tokens,num_output_tokens\n"1,02",1\n', ADA, "queries.csv: .*row 1 of 1: '1,02'"),
        ("num_prompt_tokens,num_output_tokens\n1,1\n", ("--parameters", A100, "--model", "curie"), "no model curie"),
        ("num_prompt_tokens,num_output_tokens\n1,1\n", (*ADA, "--columns", "x"), "must be OURS=THEIRS"),
        ("num_prompt_tokens,num_output_tokens\n1,1\n", (*ADA, "--columns", "a=x,a=y"), "names a twice; got"),
        ("num_prompt_tokens,num_output_tokens\n1,1\n", (*ADA, "--out", "priced.xlsx"), "priced.xlsx"),
        ("num_prompt_tokens,num_output_tokens\n1,1\n", (*ADA, "--hardware", "abacus"), "no accelerator named 'abacus'"),
        ("num_prompt_tokens,num_output_tokens\n1,1\n", ("--parameters", A100, "--model", "config.json"), "give --logs"),
        ("num_prompt_tokens,num_output_tokens\n1,1\n", (), "give --parameters, --logs, or --hardware and --software"),
    ],
)
def test_what_cannot_be_priced_is_refused_in_one_line(capsys, tmp_path, text, arguments, message):
    path = tmp_path / "queries.csv"
    path.write_text(text)
    try:
        code = price(path, *arguments)
    except SystemExit as error:
        code = error.code
    error = capsys.readouterr().err
    assert code == 2
    assert len(error.splitlines()) == 1
    assert re.search(message, error), error


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("num_prompt_tokens,num_output_tokens,model\n", "it holds no query"),
        ("num_prompt_tokens,num_output_tokens,weight\n1,1,0\n", "every weight is 0"),
    ],
)
def test_nothing_to_price_is_said_in_one_line(capsys, tmp_path, text, why):
    path = tmp_path / "queries.csv"
    path.write_text(text)
    assert price(path, "--parameters", A100, "--json") == 1
    out, error = capsys.readouterr()
    assert all(row["runtime_s"] is None for row in json.loads(out)["models"])
    assert error.endswith(f"queries.csv: nothing to price: {why}\n")
    assert error.count("\n") == 1


def test_interval_is_explained_only_where_there_is_one(capsys, tmp_path):
    path, parameters = tmp_path / "queries.csv", tmp_path / "helm.json"
    path.write_text("num_prompt_tokens,num_output_tokens\n5,1\n")
    entry = {"runtime_per_output_token": 0.02, "runtime_for_prompt_tokens": {"1": 0.1, "512": 0.2}}
    parameters.write_text(json.dumps({"openai/davinci": entry}))
    assert price(path, "--parameters", parameters) == 0
    out = capsys.readouterr().out
    assert out.startswith("1 query to openai/davinci")
    assert "interval of the total" not in out
    assert price(path, *ADA) == 0
    assert "the 95 % interval of the total" in capsys.readouterr().out


def test_runtimes_under_another_accelerators_terms_say_so(capsys, queries):
    assert price(queries, *ADA, "--hardware", "H100") == 0
    out, error = capsys.readouterr()
    assert "timed on 1 x A100-80GB, priced as 1 x H100" in out
    assert "runtimes were timed on 1 x A100-80GB; priced as 1 x H100" in error


def test_query_without_a_model_is_counted_as_none(capsys, tmp_path):
    path = tmp_path / "named.csv"
    path.write_text("model,num_prompt_tokens,num_output_tokens\nada,100,20\n,1,1\n")
    assert price(path, "--parameters", A100) == 0
    assert "no model of runtimes: (none)" in capsys.readouterr().err


def test_model_under_two_of_its_names_is_priced_once(capsys, queries, published):
    assert answer(capsys, queries, "--logs", "a100", "--model", "openai/ada", "--model", "ada")["model"] == "openai/ada"


def test_software_is_of_logs_alone(capsys, queries):
    assert price(queries, *ADA, "--software", "vllm") == 2
    assert "--software is of logs and of servers" in capsys.readouterr().err


SERVER = ("--hardware", "H100", "--software", "vllm")


def test_queries_to_models_on_servers_are_priced_without_logs(capsys, tmp_path):
    path = tmp_path / "queries.csv"
    path.write_text("num_prompt_tokens,num_output_tokens,model\n512,128,llama-3.1-8b\n300,90,qwen2.5-7b\n")
    assert main(["price", str(path), *SERVER, "--concurrency", "16", "--json"]) == 0
    models = {it["model"]: it for it in json.loads(capsys.readouterr().out)["models"]}
    assert set(models) == {"llama-3.1-8b", "qwen2.5-7b"}
    for name, sizes in (("llama-3.1-8b", (512, 128)), ("qwen2.5-7b", (300, 90))):
        runtimes = predict_served(get_architecture(name), hardware="H100", software="vllm").runtimes(16)
        priced = models[name]
        assert priced["runtime_s"]["total"] == pytest.approx(runtimes.predict(*sizes))
        # A sixteenth of a device each.
        assert priced["cost_usd"]["total"] == pytest.approx(6.88 / 3600 / 16 * runtimes.predict(*sizes))
        # Watts that were predicted, not those of the data sheet.
        joules = priced["energy_joules"]["total"]
        assert joules < 0.99 * 700 / 16 * runtimes.predict(*sizes)
        assert priced["energy_joules"]["total_lower"] < joules < priced["energy_joules"]["total_upper"]


def test_servers_need_a_model(capsys, tmp_path):
    path = tmp_path / "queries.csv"
    path.write_text("num_prompt_tokens,num_output_tokens\n512,128\n")
    assert main(["price", str(path), *SERVER]) == 2
    assert "no model is named: give --model" in capsys.readouterr().err
