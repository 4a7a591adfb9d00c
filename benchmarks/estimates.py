"""Pricing queries: our predictions against HELM's own function, on HELM's own parameters.

HELM's function prices one query a call; it is taken out of the installed source of crfm-helm, without the
imports around it. Each round times every contestant once, in turn; a ratio is taken within its round, so what
slows the machine for a while slows both sides. Printed: median [quartiles] over rounds. One core.

Run:  python benchmarks/estimates.py [--rounds 7] [--queries 10000000] [--helm .helm]
"""

import __future__

import argparse
import ast
import json
import os
import platform
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace

import numpy as np

from idealized_runtime.fits import PublishedRuntimeModel, RuntimeModel

DEPLOYMENT = "openai/davinci"
HELM_FUNCTION = "_compute_estimated_time_from_prompt_size_and_num_output_tokens"
NUM_HELM_QUERIES = 20_000
MAX_OUTPUT_TOKENS = 300


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


def make_weighted_model(published: PublishedRuntimeModel) -> RuntimeModel:
    """A weighted model of the same sizes, g linear in p and tiles included: the longest way through predict."""
    sizes = {name: getattr(published, name) for name in ("num_prompt_tokens", "profiled_prompt_times_s")}
    return RuntimeModel(
        **sizes,
        time_per_output_token_s=published.time_per_output_token_s,
        reference_num_prompt_tokens=published.reference_num_prompt_tokens,
        time_per_output_token_slope_s=1e-7,
        tile_share=0.6,
    )


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
    parser.add_argument("--queries", type=int, default=10_000_000)
    parser.add_argument("--helm", type=Path, default=Path(__file__).resolve().parent.parent / ".helm")
    arguments = parser.parse_args()
    function, parameters = load_helm_function(arguments.helm), load_helm_parameters(arguments.helm)
    published = PublishedRuntimeModel.from_json(parameters[DEPLOYMENT])
    weighted = make_weighted_model(published)
    rng = np.random.default_rng(0)
    p = rng.integers(1, published.num_prompt_tokens[-1], size=arguments.queries, endpoint=True)
    o = rng.integers(1, MAX_OUTPUT_TOKENS, size=arguments.queries, endpoint=True)
    first = slice(NUM_HELM_QUERIES)

    helm_s, ours_s = price_with_helm(function, parameters, p[first], o[first]), published.predict(p[first], o[first])
    assert np.array_equal(helm_s, ours_s), "method 'published' and HELM's function disagree"
    weighted.predict(p[first], o[first])  # builds its table

    contestants = {
        "HELM's function": (len(helm_s), lambda: price_with_helm(function, parameters, p[first], o[first])),
        "method published": (p.size, lambda: published.predict(p, o)),
        "method weighted": (p.size, lambda: weighted.predict(p, o)),
    }
    rounds = [time_round(contestants) for _ in range(arguments.rounds)]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}")
    print(f"{DEPLOYMENT}, {p.size:,} queries ({NUM_HELM_QUERIES:,} for HELM's function), {len(rounds)} rounds;")
    print(f"all {len(helm_s):,} estimates of method published equal HELM's to the last bit\n")
    print(f"{'':<20}{'queries/s':<30}times HELM's")
    for name in contestants:
        rates = [rates[name] for rates in rounds]
        ratios = [rates[name] / rates["HELM's function"] for rates in rounds]
        print(f"{name:<20}{describe(rates):<30}{describe(ratios)}")


if __name__ == "__main__":
    main()
