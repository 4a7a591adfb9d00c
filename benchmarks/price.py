"""Pricing a million queries, all different: our functions and our command against a loop over HELM's function.

HELM's function prices one query a call; it is taken out of the installed source of crfm-helm, without the imports
around it, and runs on HELM's own parameters. Each round times every contestant once, in turn; a ratio is taken within
its round, so what slows the machine for a while slows both sides. Printed: median [quartiles] over rounds. One core.
The command reads a CSV, prices it with intervals and totals it, in a fresh process whose peak memory is printed.

Run:  python benchmarks/price.py [--rounds 7] [--queries 1000000] [--helm .helm]
"""

import __future__

import argparse
import ast
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace

import numpy as np
import pandas as pd

from idealized_runtime.fits import PublishedRuntimeModel, read_parameters
from idealized_runtime.queries.price import price
from idealized_runtime.queries.tables import read_queries

ROOT = Path(__file__).resolve().parent.parent
PARAMETERS = ROOT / "processed_jsons/a100.json"
TERMS = {"num_accelerators": 8, "price_usd_per_hour": 4.096, "power_watts": 400.0}
DEPLOYMENT = "openai/davinci"
HELM_FUNCTION = "_compute_estimated_time_from_prompt_size_and_num_output_tokens"
NUM_HELM_QUERIES = 20_000


def load_helm_function(helm: Path):
    """HELM's estimate function, compiled from its definition alone: the module around it imports most of HELM."""
    path = helm / "helm/benchmark/metrics/efficiency_metrics.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == HELM_FUNCTION]
    if not tree.body:
        raise ValueError(f"{path} defines no function {HELM_FUNCTION}; this benchmark knows crfm-helm 0.5.16")
    # Its annotations name classes of HELM: kept as text, they need not exist.
    code = compile(tree, str(path), "exec", flags=__future__.annotations.compiler_flag)
    namespace = {}
    exec(code, namespace)
    return namespace[HELM_FUNCTION]


def load_helm_parameters(helm: Path) -> dict:
    path = helm / "helm/benchmark/efficiency_data/inference_idealized_runtimes.json"
    return json.loads(path.read_text(encoding="utf-8"))


def price_with_helm(function, parameters, num_prompt_tokens, num_output_tokens) -> np.ndarray:
    state = SimpleNamespace(request=SimpleNamespace(model_deployment=DEPLOYMENT))
    queries = zip(num_prompt_tokens.tolist(), num_output_tokens.tolist(), strict=True)
    return np.array([function(state, parameters, p, o) for p, o in queries])


def make_queries(num_queries: int, most_prompt_tokens: int) -> pd.DataFrame:
    """Queries of integer sizes in random order, no two of one size while there are enough sizes."""
    numbers = np.random.default_rng(0).permutation(num_queries)
    sizes = {
        "num_prompt_tokens": 1 + numbers % most_prompt_tokens,
        "num_output_tokens": 1 + numbers // most_prompt_tokens,
    }
    return pd.DataFrame(sizes)


def price_file(path, model) -> dict:
    """Totals of a CSV of queries."""
    return price(read_queries(path), model, **TERMS).totals()


def run_command(path):
    """The same by the command, in a process of its own."""
    command = [sys.executable, "-m", "idealized_runtime", "price", str(path), "--parameters", str(PARAMETERS)]
    subprocess.run([*command, "--model", DEPLOYMENT, "--json"], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def time_round(contestants: dict) -> dict[str, float]:
    """Queries per second of each contestant, each run once."""
    rates = {}
    for name, (num_queries, run) in contestants.items():
        start = perf_counter()
        run()
        rates[name] = num_queries / (perf_counter() - start)
    return rates


def describe(values) -> str:
    low, median, high = np.percentile(values, [25, 50, 75])
    return f"{median:.3g} [{low:.3g}, {high:.3g}]"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--queries", type=int, default=1_000_000)
    parser.add_argument("--helm", type=Path, default=ROOT / ".helm")
    arguments = parser.parse_args()
    function, parameters = load_helm_function(arguments.helm), load_helm_parameters(arguments.helm)
    published, weighted = (
        PublishedRuntimeModel.from_json(parameters[DEPLOYMENT]),
        read_parameters(PARAMETERS)[DEPLOYMENT],
    )
    queries = make_queries(arguments.queries, published.num_prompt_tokens[-1])
    p, o = (queries[name].to_numpy() for name in queries)
    first = slice(NUM_HELM_QUERIES)
    helm_s, ours_s = price_with_helm(function, parameters, p[first], o[first]), published.predict(p[first], o[first])
    assert np.array_equal(helm_s, ours_s), "the published model and HELM's function disagree"

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "queries.csv"
        queries.to_csv(path, index=False)
        contestants = {
            "HELM's function": (len(helm_s), lambda: price_with_helm(function, parameters, p[first], o[first])),
            "predict, published": (p.size, lambda: published.predict(p, o)),
            "predict, weighted": (p.size, lambda: weighted.predict(p, o)),
            "price, weighted": (p.size, lambda: price(queries, weighted, **TERMS)),
            "read, price, total": (p.size, lambda: price_file(path, weighted)),
            "the command": (p.size, lambda: run_command(path)),
        }
        rounds = [time_round(contestants) for _ in range(arguments.rounds)]
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}")
    print(f"{DEPLOYMENT}, {p.size:,} queries ({NUM_HELM_QUERIES:,} for HELM's function), {len(rounds)} rounds;")
    print(f"all {len(helm_s):,} estimates of the published model equal HELM's to the last bit\n")
    print(f"{'':<20}{'seconds':<26}{'queries/s':<30}times HELM's")
    for name, (num_queries, _) in contestants.items():
        rates = np.array([rates[name] for rates in rounds])
        ratios = [rates[name] / rates["HELM's function"] for rates in rounds]
        print(f"{name:<20}{describe(num_queries / rates):<26}{describe(rates):<30}{describe(ratios)}")
    print(f"\npeak memory of the command: {peak_mb:.0f} MB")


if __name__ == "__main__":
    main()
