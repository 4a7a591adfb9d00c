"""Every kind of file that the project reads, a good one each, and the command whose numbers it decides.

A mutation that changes a number by more than 1 % must be told: by an error or a warning. Not where what came of it is
simply another good file: the size of a query may be 70 instead of 64, and nothing in the file says otherwise. A kind
names these *free* places, where a file says a thing once and no reader can know better, with the values that are
plausible there; whatever else changes a number without a word is counted as silent.
"""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from idealized_runtime.cli.main import main
from idealized_runtime.measurements.published import ROOT
from tests.makers import make_trial, write_api_log, write_toy_log

DATA = ROOT / "tests" / "records" / "importers" / "data"


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Parameters
    ----------
    name : str
    write : callable
        Writes a good one to a path.
    words : tuple of str
        The command; ``{}`` is the path, ``{fixtures}`` the folder of the good files that stand beside it.
    suffix : str
        Of the file; none for a folder.
    keys : tuple of str
        Numbers of the answer under these keys, at any depth, are compared; all others too where none is named.
    free : dict
        By the last key of a place, or the name of a column: least and most of what is plausible there. ``"rows"``:
        lines or elements may be more, fewer or in another order.
    call : callable, optional
        In place of the command: a function of the path that gives the answer.
    """

    name: str
    write: Callable
    words: tuple = ()
    suffix: str = ".json"
    keys: tuple = ()
    free: dict = field(default_factory=dict)
    call: Callable | None = None


def write_json(value):
    return lambda path: path.write_text(json.dumps(value, indent=2))


def copy(name):
    source = DATA / name
    return lambda path: (shutil.copytree if source.is_dir() else shutil.copy)(source, path)


QUERIES = pd.DataFrame({"num_prompt_tokens": [1, 2, 3, 4] * 3, "num_output_tokens": [1, 2, 8, 16, 20, 64] * 2,
                        "weight": [1.0, 2.0, 1.0] * 4})  # fmt: skip
HELM_PARAMETERS = {
    "toy": {"runtime_per_output_token": 0.02, "runtime_for_prompt_tokens": {"1": 0.03, "16": 0.05, "64": 0.1}}
}
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
          "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000,
          "max_position_embeddings": 512, "hidden_act": "silu", "tie_word_embeddings": False, "rope_theta": 10000.0,
          "torch_dtype": "float16"}  # fmt: skip
# Any number of tokens that a model of today takes.
TOKENS = (1, 1e7)
SIZES = {"hidden_size": (8, 1e5), "intermediate_size": (8, 1e6), "num_hidden_layers": (1, 1000), "vocab_size": (1, 1e7),
         "num_attention_heads": (1, 1000), "num_key_value_heads": (1, 1000), "max_position_embeddings": (1, 1e8),
         "tie_word_embeddings": (0, 1)}  # fmt: skip


def write_training_runs(path):
    sizes, tokens = np.meshgrid([1e8, 3e8, 1e9, 3e9], [2e9, 1e10, 1e11])
    runs = pd.DataFrame({"Parameters": sizes.ravel(), "Tokens": tokens.ravel()})
    runs.assign(**{"Smoothed Loss": 1.7 + 400 / runs["Parameters"] ** 0.34 + 410 / runs["Tokens"] ** 0.28}).to_csv(
        path, index=False
    )


def fit_law(path):
    from idealized_runtime.lifetime.fitting import fit_scaling_law
    from idealized_runtime.lifetime.training_runs import read_training_runs

    law = fit_scaling_law(read_training_runs(path), starts=[[6, 6, 0.5, 0.34, 0.28], [5, 5, 0.5, 0.5, 0.5]]).law
    # The coefficients depend on each other: a loss is what they are for.
    return {"loss": float(law.loss(1e9, 2e10))}


def count_config(path):
    from idealized_runtime.architectures import output_token_flops, read_architecture

    architecture = read_architecture(str(path))
    return {"num_params": architecture.num_params, "flops": float(output_token_flops(architecture, 64))}


def write_law(path):
    rng = np.random.default_rng(0)
    law = {"A": 406.4, "B": 410.7, "E": 1.69, "alpha": 0.34, "beta": 0.28}
    draws = {name: (value * (1 + 0.01 * rng.standard_normal(8))).tolist() for name, value in law.items()}
    fitted_range = {"num_params": [1e8, 1e10], "num_training_tokens": [1e9, 1e12]}
    path.write_text(json.dumps({**law, "source": "a fit", "draws": draws, "fitted_range": fitted_range}))


TEXT_ARGUMENTS = {"hidden_size": 64, "num_layers": 4, "num_attention_heads": 4, "tensor_model_parallel_size": 1,
                  "pipeline_model_parallel_size": 1, "params_dtype": "torch.float16"}  # fmt: skip


def write_text_log(path):
    lines = ["using world size: 1", f"{' arguments ':-^58}"]
    lines += [f"  {name} {'.' * (48 - len(name))} {value}" for name, value in TEXT_ARGUMENTS.items()]
    lines += [f"{' end of arguments ':-^58}"]
    lines += [
        f"Runtime for {{'num_input_tokens': {p}, 'num_output_tokens': {o}}}: "
        f"{0.04 + p / 4000 + 0.02 * (o - 1):.3f} seconds +- 0.001"
        for p in (1, 64, 128, 512)
        for o in (1, 2, 8, 32)
    ]
    path.write_text("\n".join([*lines, ""]))


def write_sweep_log(path, *, token_s=0.02):
    rng = np.random.default_rng(0)
    settings = [
        {"num_prompt_tokens": p, "num_output_tokens": o, "batch_size": 1, "warmups_s": [0.1],
         "runtimes_s": ((0.04 + p / 4000 + token_s * (o - 1)) * (1 + 0.005 * rng.random(5))).tolist(),
         "output_token_ids": list(range(1, o + 1))}
        for p in (1, 64, 128) for o in (1, 2, 8)
    ]  # fmt: skip
    sweep = {"all_num_prompt_tokens": [1, 64, 128], "all_num_output_tokens": [1, 2, 8], "batch_size": 1}
    write_toy_log(path, settings=settings, sweep=sweep, num_warmup=1, num_trials=5)


def write_sent_log(path):
    trials = [
        make_trial(number, p=p, o=o, start_s=0.05 + p / 4000 + 0.001 * number)
        for p in (1, 64, 128) for o in (1, 4, 8) for number in range(3)
    ]  # fmt: skip
    write_api_log(path, trials)


def without_checksum(write):
    def write_older(path):
        write(path)
        *lines, footer = path.read_text().splitlines()
        footer = json.loads(footer)
        del footer["sha256"]
        path.write_text("\n".join([*lines, json.dumps(footer), ""]))

    return write_older


def write_helm_run(path):
    def stat(name, value):
        values = dict.fromkeys(("sum", "min", "max", "mean"), value)
        spread = {"sum_squared": value**2, "variance": 0.0, "stddev": 0.0}
        return {"name": {"name": name, "split": "test"}, "count": 1, **values, **spread}

    run = path / "boolq:model=toy"
    run.mkdir(parents=True)
    adapter = {"method": "generation", "model_deployment": "toy", "model": "toy", "num_train_trials": 1}
    spec = {"name": run.name, "scenario_spec": {"class_name": "helm.Scenario", "args": {}}, "adapter_spec": adapter,
            "metric_specs": [], "groups": ["boolq"]}  # fmt: skip
    (run / "run_spec.json").write_text(json.dumps(spec, indent=2))
    entries = [
        {"instance_id": f"id{number}", "train_trial_index": 0, "stats": [
            stat("num_references", 1), stat("num_prompt_tokens", 8 + number), stat("num_output_tokens", 2 + number),
            stat("inference_runtime", 1.0 + number), stat("exact_match", 1.0)]}
        for number in range(6)
    ]  # fmt: skip
    (run / "per_instance_stats.json").write_text(json.dumps(entries, indent=2))


def write_runs_yml(path):
    entry = "- name: cpu/model_table\n  notebook: notebooks/model_table.ipynb\n"
    entry += "  inputs: [logs/cpu/*.jsonl]\n  outputs: [x.png]\n"
    path.mkdir()
    (path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "model_table.ipynb", path / "notebooks")
    (path / "notebooks" / "runs.yml").write_text(entry + entry.replace("cpu/", "b/") + "  needs: published\n")


# Of what they were: a trial may take so much longer, and its neighbours do not tell of less.
TRIALS = dict.fromkeys(("runtimes_s", "runtime_s"), (0.5, 2.0))
PRICE = ("price", "{}", "--parameters", "{fixtures}/helm.json", "--json")
FITTED = ("runtime_per_output_token", "runtime_for_prompt_tokens", "overhead")
TOTALS = ("total", "mean", "p50")
PRICE_QUERIES = ("price", "{fixtures}/queries.csv", "--parameters", "{}", "--json")
PROMPT_TIME_S = (1e-4, 100)
QUERY_COLUMNS = {"num_prompt_tokens": TOKENS, "num_output_tokens": TOKENS, "weight": (0, 1e9), "rows": None}
SUMMARY = ("api", "summary", "{}", "--json")
POINTS = ("mean", "p50", "median", "requests_per_s", "output_tokens_per_s")

KINDS = [
    Kind("log", write_sweep_log, ("fit", "{}", "--json"), ".jsonl", FITTED),
    # As logs were before their footer told of their bytes.
    Kind("log, no checksum", without_checksum(write_sweep_log), ("fit", "{}", "--json"), ".jsonl", FITTED, TRIALS),
    Kind("api log, no checksum", without_checksum(write_sent_log), ("fit", "{}", "--json"), ".jsonl", FITTED, TRIALS),
    # No checksum either, and a trial may take up to twice as long: the neighbours tell only of more.
    Kind("old log", lambda path: shutil.copy(ROOT / "logs/cpu/gpt2-medium.jsonl", path), ("fit", "{}", "--json"),
         ".jsonl", FITTED, TRIALS),
    Kind("text log", write_text_log, ("fit", "{}", "--json"), ".log", FITTED, {"seconds": (0.5, 2.0)}),
    Kind("api log", write_sent_log, ("fit", "{}", "--json"), ".jsonl", FITTED),
    Kind("api log summary", write_sent_log, SUMMARY, ".jsonl", POINTS),
    # Fitted among the fixtures.
    Kind("parameters", None, PRICE_QUERIES, keys=TOTALS),
    Kind("helm parameters", write_json(HELM_PARAMETERS), PRICE_QUERIES,
         keys=TOTALS, free={"runtime_per_output_token": (1e-4, 10), "prompt size": PROMPT_TIME_S}),
    Kind("queries csv", lambda path: QUERIES.to_csv(path, index=False), PRICE, ".csv", TOTALS, QUERY_COLUMNS),
    Kind("queries json", lambda path: QUERIES.to_json(path, orient="records"), PRICE, ".json", TOTALS, QUERY_COLUMNS),
    Kind("queries jsonl", lambda path: QUERIES.to_json(path, orient="records", lines=True), PRICE, ".jsonl",
         TOTALS, QUERY_COLUMNS),
    Kind("queries parquet", lambda path: QUERIES.to_parquet(path, write_page_checksum=True), PRICE, ".parquet", TOTALS),
    Kind("helm run", write_helm_run, PRICE, "", TOTALS, {"rows": None}),
    Kind("compare", lambda path: QUERIES.to_csv(path, index=False),
         ("compare", "{fixtures}/own.json", "{fixtures}/faster.json", "--queries", "{}", "--json"), ".csv",
         ("num_queries", "runtime_ratio"), QUERY_COLUMNS),
    Kind("config", write_json(CONFIG), free=SIZES, call=count_config),
    Kind("runs.yml", write_runs_yml, ("notebooks", "--list", "--runs", "{}/notebooks/runs.yml"), ""),
    Kind("vllm", copy("vllm_closed.json"), SUMMARY, keys=POINTS),
    Kind("guidellm", copy("guidellm_concurrent.json"), SUMMARY, keys=POINTS),
    Kind("aiperf", copy("aiperf_closed"), SUMMARY, "", POINTS),
    Kind("training runs", write_training_runs, suffix=".csv", call=fit_law,
         free={"Parameters": (1e5, 1e14), "Tokens": (1e6, 1e16), "Smoothed Loss": (0.3, 20), "rows": None}),
    Kind("law", write_law, ("lifetime", "compute-optimal", "--loss", "2.2", "--coefficients", "{}", "--json"),
         keys=("num_params", "num_training_tokens")),
]  # fmt: skip


def write_fixtures(folder: Path):
    """Good files that stand beside the mutated one: queries, and parameter files of two kinds."""
    folder.mkdir()
    QUERIES.to_csv(folder / "queries.csv", index=False)
    write_json(HELM_PARAMETERS)(folder / "helm.json")
    for name, token_s in (("own", 0.02), ("faster", 0.01)):
        write_sweep_log(folder / name / "toy.jsonl", token_s=token_s)
        with contextlib.redirect_stdout(io.StringIO()):
            code = main(["fit", str(folder / name), "--out", str(folder / f"{name}.json"), "--json"])
        if code:
            raise RuntimeError(f"fit ends with {code}")
