"""Every parameter of every notebook takes other values; what chooses nothing is refused in a sentence.

Cells run in this process, one after the other, without a kernel. Continuous integration runs those that take seconds;
``EVERY_PARAMETER=1`` runs all.
"""

import os
import warnings

import matplotlib as mpl
import nbformat
import pytest

from idealized_runtime.measurements.published import ROOT
from idealized_runtime.notebooks.execution import declared_parameters
from idealized_runtime.notebooks.places import OUTPUTS_SETTING

mpl.use("Agg")

FORMULA = "runtime_s ~ num_prompt_tokens * I(num_output_tokens - 1)"
MIXED = "runtime_s ~ C(num_prompt_tokens) + I(num_output_tokens - 1)"
MACHINES = {
    "hardware": ["cpu_eager", "v100"],
    "models": [["gpt2-small"], ["gpt2-small", "distilgpt2"]],
    "accept": [["below_floor"], ["warmups", "parts"]],
    "method": ["published", FORMULA],
}
IN_PROCESS, SERVER = "llama-4m-mlx-lm-in-process", "llama-4m-mlx-lm-server"
SUMS = {"api_baseline_usd": 4000, "device_baseline_usd": 30000, "device_estimate_usd": 500}
# Two others of each; fewer where there are no two.
OTHER_VALUES = {
    "api_denoised": {
        "server_log": [IN_PROCESS, SERVER],
        "in_process_log": [SERVER, IN_PROCESS],
        "load_log": [],  # one such log is committed
        "prompt_size": [1, 128],
        "estimator": ["minimum", "quantile"],
        "objectives": [{"tpot": 0.1}, {"ttft": 0.1, "e2e": 2.0}],
        "level": [0.8, 0.99],
    },
    "cheap_profiling": {
        "published": [["v100"], ["v100", "a100"]],
        "hand_made_trials": [2, 5],
        "live": [],  # one such folder is committed
        "shares": [[5000, 2000], [3000, 1000]],
        "seeds": [[1], [2]],
        "level": [0.8, 0.99],
    },
    "denoised_runtimes": {
        "table_2_dates": [{"2023-11": ["OpenAI/davinci"]}, {"2022-09-06": ["AI21"]}],
        "table_3": [["openai/davinci"], ["ai21/j1-jumbo", "ai21/j1-grande"]],
        "simulated": ["ai21/j1-grande", "openai/davinci"],
        "trial_counts": [[3, 10], [5, 10]],
        "num_simulations": [3, 5],
        "seed": [2, 3],
    },
    "efficiency_vs_capability": {
        "vintage": ["2022-10", "2023-05"],
        "method": ["published", FORMULA],
        "formula": [FORMULA, MIXED],
        "num_draws": [10, 100],
    },
    "efficiency_vs_capability_ranks": {
        "vintage": ["2023-05", "2022-10"],
        "method": ["published", FORMULA],
        "formula": [FORMULA, MIXED],
        "objectives": [["ratio_log"], ["ratio_log1p", "ratio"]],
        "level": [0.5, 0.8],
    },
    "fit_runtimes": {**MACHINES, "prompt_sizes": [[1, 64], [128]], "formula": [FORMULA, MIXED]},
    "hardware_comparison": {
        "prices_usd": [{"a100": 2.0, "v100": 1.0}, {"a100": 1.5, "v100": 0.5}],
        "method": ["published", FORMULA],
    },
    "idealized_metrics_cost_analysis": {
        "num_api_trials": [5, 20],
        "num_device_trials": [10, 100],
        "device_price_usd_per_hour": [20.0, 10.0],
        "prompt_price_usd": [0.01, 0.06],
        "output_price_usd": [0.03, 0.06],
        "printed_usd": [SUMS, {**SUMS, "api_baseline_usd": 5000}],
        "load_time_s": [0, 10],
    },
    "lifetime_optimal": {
        "examples": [
            {"a100": {"loss": 2.4, "num_requests": 1e8, "dtype": "fp16", "price_usd_per_hour": 2.0}},
            {"v100": {"loss": 2.5, "num_requests": 1e8, "dtype": "fp16", "price_usd_per_hour": 1.0}},
        ],
        "objectives": [["tpot:p95=0.4"], ["ttft:p95=3", "e2e:p95=30"]],
        "query": [
            {"mean_prompt_tokens": 64, "mean_output_tokens": 32, "prompt_sigma": 0.3, "output_sigma": 0.3},
            {"mean_prompt_tokens": 32, "mean_output_tokens": 16, "prompt_sigma": 0.5, "output_sigma": 0.2},
        ],
        "training": [
            {"name": "A100_40", "dtype": "bf16", "price_usd_per_hour": 1.0},
            {"name": "H100", "dtype": "bf16", "price_usd_per_hour": 3.0},
        ],
        "mfus": [
            {"training_mfu": 0.4, "prompt_mfu": 0.4, "output_mfu": 0.02},
            {"training_mfu": 0.3, "prompt_mfu": 0.3, "output_mfu": 0.03},
        ],
        "published": [
            {"machine": "H100", "task": "lm-arena-chat", "limit_s": 0.1, "loss": 2.0, "price_usd_per_hour": 3.0},
            {"machine": "H100", "task": "lm-arena-chat", "limit_s": 0.03, "loss": 1.9, "price_usd_per_hour": 6.88},
        ],
        "served_requests": [[1e9], [1e8, 1e11]],
        "num_draws": [20, 30],
    },
    "load_vs_latency": {"provider": ["OpenAI", "AI21"], "output_sizes": [[1, 64], [4]], "most_fitted": [8]},
    "model_table": {"hardware": [{"a100": "A100-40GB"}, {"h100": "H100"}]},
    "modern_frontier": {
        "hardware": ["v100", "a100"],
        "software": ["Megatron", "2022"],
        "num_prompt_tokens": [64, 1],
        "num_output_tokens": [128, 1],
        "price_usd_per_hour": [1.0, 2.0],
        "power_watts": [200.0, 300.0],
        "parallelisms": [{"llama-2-70b": [8, 1]}, {"opt-66b": [8, 1]}],
        "workload": ["chat", "mlperf-llama3.1-8b"],
        "objectives": [["ttft:p95=0.5", "tpot:p95=0.05"], ["e2e:mean=60"]],
        "task": ["gpqa"],  # code completion was measured of one model with a score
        "limit_s": [0.04, 0.1],
    },
    "per_instance_runtime_variance": {
        "num_prompt_tokens": [1, 1536],
        "figure_5": [["openai/davinci"], ["ai21/j1-large"]],
        "others": [["ai21/j1-large"], ["openai/davinci"]],
    },
    "plan": {
        "stacks": [["a100"], ["v100"]],
        "models": [["opt-6.7b"], ["gpt-j", "llama-2-7b"]],
        "workload": ["code-completion", "retrieval"],
        "rate_per_s": [1.0, 20.0],
    },
    "prediction": {
        "hardware": ["v100", "a100"],
        "software": ["torch", "Megatron"],
        "new_models": [["gpt2-xl"], ["opt-1.3b", "gpt2-large"]],
        "num_prompt_tokens": [1, 100],
        "num_output_tokens": [1, 128],
    },
    "reproduction": {"sections": [["Table 1"], ["3.1.1", "2.1"]], "num_digits": [2, 8]},
    "runtime_vs_estimated_runtime": {"num_without_denoised": [0, 100]},
    "runtime_vs_output_tokens": {**MACHINES, "prompt_sizes": [[1, 512], [128]]},
    "runtime_vs_prompt_tokens": {**MACHINES, "prompt_sizes": [[1, 16, 64, 512], [1, 64, 128, 256, 512]]},
    "runtimes_over_time": {"num_prompt_tokens": [1, 1024], "method": ["published"]},
    "serving_today": {
        "machine": ["B200"],  # watts are published of two
        "architectures": [["gemma-3-27b"], ["llama-3.1-70b", "qwen3-235b-a22b"]],
        "task": ["gpqa", "sourcegraph-fim"],
        "served_on": [["H100"], ["H200", "B300"]],
        "num_output_tokens": [100, 2000],
        "asked": [["qwen3-4b"], ["llama-3.1-70b", "gpt-oss-20b"]],
        "machines": [["H100"], ["L4", "MI300X"]],
        "level": [0.8, 0.9],
    },
    "serving_under_load": {
        "share_seen": [0.4, 0.6],
        "num_requests": [100, 200],
        "own_log": [],  # one log of a server that batches is committed
        "fitted_rates": [[1, 2.5], [2, 2.5]],
        "predicted_stack": ["v100"],
        "predicted_models": [["llama-2-13b"], ["llama-3-8b"]],
    },
    "software_stacks": {
        "name": ["mine", "yours"],
        "stacks": [{"eager": "cpu_eager", "core": "cpu_sdpa"}, {"sdpa": "cpu_sdpa", "eager": "cpu_eager"}],
        "baseline": ["sdpa", "eager"],
        "with_floor": [True, False],
        "queries_file": ["paper_figures/figure9_query_sizes.csv", None],
        "prompt_sizes": [[1, 64], [512]],
        "output_sizes": [[1, 8], [64]],
    },
    "throughput": {"pipeline_logs": [], "batch_logs": [], "level": [0.5, 0.8]},  # one folder of each is committed
    "transformer_inference": {
        "model": ["openai/davinci", "ai21/j1-jumbo"],
        "num_prompt_tokens": [1024, 1],
        "num_output_tokens": [64, 2],
    },
}
CASES = [
    (notebook, name, value)
    for notebook, parameters in OTHER_VALUES.items()
    for name, values in parameters.items()
    for value in values
]
# Those that take seconds and need what is committed only, or little of what is published.
QUICK = {
    ("load_vs_latency", "provider"),
    ("load_vs_latency", "output_sizes"),
    ("model_table", "hardware"),
    ("per_instance_runtime_variance", "others"),
    ("runtime_vs_output_tokens", "models"),
    ("runtimes_over_time", "method"),
    ("software_stacks", "baseline"),
    ("transformer_inference", "model"),
}


@pytest.fixture
def run_cells(tmp_path, monkeypatch):
    """Execute a notebook's cells with other values of its parameters; what it writes goes to ``tmp_path``."""
    monkeypatch.setenv(OUTPUTS_SETTING, str(tmp_path))
    monkeypatch.chdir(ROOT)

    def run(notebook, **parameters):
        space = {"display": lambda *_: None}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for cell in nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4).cells:
                if cell.cell_type == "code":
                    exec(compile(cell.source, f"{notebook}.ipynb", "exec"), space)
                    if "parameters" in cell.metadata.get("tags", []):
                        space |= parameters

    return run


def test_other_values_are_of_every_parameter_of_every_notebook():
    declared = {path.stem: declared_parameters(path) for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {name: set(values) for name, values in OTHER_VALUES.items()} == {
        name: set(defaults) for name, defaults in declared.items()
    }
    assert all(len(values) <= 2 for parameters in OTHER_VALUES.values() for values in parameters.values())


@pytest.mark.parametrize(("notebook", "name", "value"), CASES)
def test_parameter_takes_another_value(notebook, name, value, run_cells, tmp_path):
    if (notebook, name) not in QUICK and not os.environ.get("EVERY_PARAMETER"):
        pytest.skip("takes long: EVERY_PARAMETER=1 runs it")
    run_cells(notebook, **COMPANIONS.get((notebook, name, str(value)), {}), **{name: value})
    assert notebook in ("model_table", "reproduction") or list(tmp_path.rglob("*.png"))


# What else another value asks for.
COMPANIONS = {
    ("fit_runtimes", "hardware", "v100"): {"prompt_sizes": [1]},
    ("modern_frontier", "num_output_tokens", "1"): {"objectives": ["ttft:p99=2"]},
    ("prediction", "hardware", "v100"): {"new_models": ["opt-6.7b"]},
    ("prediction", "hardware", "a100"): {"new_models": ["opt-6.7b"]},
    ("serving_today", "machine", "B200"): {"architectures": ["qwen3-235b-a22b"]},
    ("serving_today", "task", "gpqa"): {"architectures": ["qwen3-32b", "gpt-oss-20b"]},
    ("serving_today", "task", "sourcegraph-fim"): {"architectures": ["qwen3-30b-a3b"]},
    ("prediction", "software", "Megatron"): {"hardware": "a100", "new_models": ["opt-6.7b"]},
}


@pytest.mark.parametrize(
    ("notebook", "parameters", "message"),
    [
        ("load_vs_latency", {"provider": "Nobody"}, "provider must be of AI21, Anthropic, OpenAI; got 'Nobody'"),
        ("load_vs_latency", {"output_sizes": [3]}, r"num_output_tokens must be of 1, 4, 16, 64; got \[3\]"),
        ("load_vs_latency", {"output_sizes": []}, "num_output_tokens must be of"),
        ("runtimes_over_time", {"num_prompt_tokens": 3}, "num_prompt_tokens must be of 1, 256, 512, 1024, 1536; got 3"),
        ("per_instance_runtime_variance", {"figure_5": ["nobody"]}, "model must be of .*; got 'nobody'"),
        ("per_instance_runtime_variance", {"others": []}, "nothing to draw"),
        ("transformer_inference", {"model": "nobody"}, "model must be of .*; got 'nobody'"),
        ("transformer_inference", {"num_output_tokens": 3}, "num_output_tokens must be of 1, 2, 4, 8, .*; got 3"),
        ("runtime_vs_output_tokens", {"models": []}, "no model of the cpu logs is named"),
        ("runtime_vs_output_tokens", {"prompt_sizes": [3]}, r"none of the prompt sizes \[3\] was profiled"),
        ("model_table", {"hardware": {"x": "nope"}}, "no accelerator named 'nope'"),
        ("efficiency_vs_capability", {"vintage": "2021"}, "vintage must be of 2022-10, 2023-05; got '2021'"),
        ("efficiency_vs_capability_ranks", {"vintage": "2021"}, "vintage must be of 2022-10, 2023-05; got '2021'"),
        ("api_denoised", {"prompt_size": 3}, "num_prompt_tokens must be of 1, 32, 128; got 3"),
        ("prediction", {"hardware": "cpu_eager"}, "too few models were timed for one of them to be left out"),
    ],
)  # fmt: skip
def test_value_that_chooses_nothing_is_refused_with_those_there_are(notebook, parameters, message, run_cells):
    with pytest.raises(ValueError, match=message):
        run_cells(notebook, **parameters)
