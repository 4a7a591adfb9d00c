"""read_runs against a plain json loop over the same HELM run folders.

Writes a tree of synthetic runs in HELM's own format into a temporary folder (seeded), then reads it with
both in turn (A B A B ...), on one core, from the page cache, and checks that they give the same numbers. A
ratio is taken within its round, so what slows the machine for a while slows both sides. Peak memory is that
of a fresh process, over what it had after its imports, for a suite and for the whole tree. A second tree has
as many bytes as one suite in runs of 0.1 MB, where opening files counts.

Run:  python benchmarks/helm_runs.py [--megabytes 200] [--suites 4] [--rounds 7]
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np
import pandas as pd

from idealized_runtime.records.helm import read_runs
from idealized_runtime.records.helm.runs import EFFICIENCY_METRICS

SCENARIOS = ("boolq", "imdb", "raft:subset=terms_of_service", "civil_comments:demographic=all")
MODELS = ("openai/davinci", "ai21/j1-jumbo", "together/bloom", "microsoft/TNLGv2_530B")
METRIC = "quasi_exact_match"
BYTES_PER_INSTANCE = 8e3
SMALL_RUN_BYTES = 1e5
TYPOS = {"name": "typos", "robustness": True, "fairness": False, "computed_on": "perturbed"}
OTHER_METRICS = (
    "num_references", "num_train_trials", "num_completion_tokens", "batch_size", "finish_reason_length",
    "finish_reason_stop", "finish_reason_endoftext", "finish_reason_unknown", "num_train_instances",
    "prompt_truncated", "max_prob", "exact_match", "prefix_exact_match", "quasi_prefix_exact_match", "logprob",
    "num_perplexity_tokens", "num_bytes",
)  # fmt: skip


def write_tree(folder: Path, *, num_suites, num_bytes, rng):
    """Suites of equal size, a run for each scenario and model; every fourth instance also perturbed."""
    num_runs = num_suites * len(SCENARIOS) * len(MODELS)
    num_instances = max(4, int(num_bytes / num_runs / BYTES_PER_INSTANCE))
    for suite in range(num_suites):
        for scenario in SCENARIOS:
            for model in MODELS:
                separator = "," if ":" in scenario else ":"
                name = f"{scenario}{separator}model={model.replace('/', '_')},shard={suite}"
                write_run(folder / f"v{suite:03}", name, model, num_instances, rng)


def write_run(suite, name, model, num_instances, rng):
    run = suite / name
    run.mkdir(parents=True)
    spec = {"name": name, "adapter_spec": {"method": "generation", "model_deployment": model, "model": model},
            "metric_specs": [], "groups": [name.partition(":")[0]]}  # fmt: skip
    (run / "run_spec.json").write_text(json.dumps(spec, indent=2))
    instances = []
    for i in range(num_instances):
        perturbation = TYPOS if i % 5 == 4 else None
        instances.append(make_instance(f"id{i - i % 5 if perturbation else i}", perturbation, rng))
    (run / "per_instance_stats.json").write_text(json.dumps(instances, indent=2))


def make_instance(instance_id, perturbation, rng):
    """What HELM's basic metrics write of one instance: 25 statistics."""
    values = {"training_co2_cost": None, "training_energy_cost": None}
    values |= dict(zip(OTHER_METRICS, rng.integers(0, 2, len(OTHER_METRICS)).tolist(), strict=True))
    values |= {"num_prompt_tokens": int(rng.integers(1, 2000)), "num_output_tokens": int(rng.integers(1, 64))}
    values |= dict(zip(list(EFFICIENCY_METRICS.values())[2:], rng.lognormal(0, 1, 3).tolist(), strict=True))
    values |= {METRIC: int(rng.integers(0, 2))}
    context = {"split": "test"} | ({"perturbation": perturbation} if perturbation else {})
    stats = [make_stat({"name": name} | context, value) for name, value in values.items()]
    head = {"instance_id": instance_id} | ({"perturbation": perturbation} if perturbation else {})
    return head | {"train_trial_index": 0, "stats": stats}


def make_stat(name, value):
    if value is None:
        return {"name": name, "count": 0, "sum": 0, "sum_squared": 0}
    return {"name": name, "count": 1, "sum": value, "sum_squared": value * value, "min": value, "max": value,
            "mean": float(value), "variance": 0.0, "stddev": 0.0}  # fmt: skip


def read_with_json(folder) -> pd.DataFrame:
    """The plain way: parse every file whole, walk it, collect a dictionary a row."""
    rows = []
    for path in sorted(Path(folder).rglob("per_instance_stats.json")):
        spec = json.loads((path.parent / "run_spec.json").read_text())
        for instance in json.loads(path.read_text()):
            if "perturbation" in instance:
                continue
            stats = {stat["name"]["name"]: stat for stat in instance["stats"] if stat["name"]["split"] != "train"}
            row = {"run": spec["name"], "model": spec["adapter_spec"]["model"], "instance_id": instance["instance_id"],
                   "train_trial": instance["train_trial_index"]}  # fmt: skip
            for column, metric in (EFFICIENCY_METRICS | {"accuracy": METRIC}).items():
                row[column] = stats[metric].get("mean") if metric in stats else None
            rows.append(row)
    return pd.DataFrame(rows)


READERS = {"read_runs": read_runs, "json loop": read_with_json}


def check_equal(folder):
    ours, theirs = read_runs(folder), read_with_json(folder)
    numbers = ["train_trial", *EFFICIENCY_METRICS, "accuracy"]
    np.testing.assert_array_equal(ours[numbers].to_numpy(float), theirs[numbers].to_numpy(float))
    for column in ("model", "instance_id"):
        assert ours[column].astype(str).tolist() == theirs[column].tolist()
    return len(ours)


def time_in_turn(folder, rounds) -> dict[str, np.ndarray]:
    """Seconds of each reader, shape (rounds,)."""
    times_s = {name: np.empty(rounds) for name in READERS}
    for index in range(rounds):
        for name, read in READERS.items():
            gc.collect()
            start_s = perf_counter()
            read(folder)
            times_s[name][index] = perf_counter() - start_s
    return times_s


def peak_memory_bytes(name, folder) -> int:
    """Growth of the peak resident size of a fresh process while it reads."""
    command = [sys.executable, __file__, "--peak", name, str(folder)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(name, folder):
    before = peak_resident_bytes()
    frame = READERS[name](folder)
    assert len(frame)
    print(peak_resident_bytes() - before)


def peak_resident_bytes() -> int:
    """Of this process alone: getrusage would count what the parent had before it started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def spread(values, digits) -> str:
    low, median, high = np.percentile(values, (25, 50, 75))
    return f"{median:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--suites", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peak", nargs=2, metavar=("READER", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print_peak(*arguments.peak)
        return
    rng = np.random.default_rng(0)
    num_bytes = arguments.megabytes * 1e6
    suite_bytes = num_bytes / arguments.suites
    with tempfile.TemporaryDirectory() as folder:
        tree, small = Path(folder, "tree"), Path(folder, "small")
        write_tree(tree, num_suites=arguments.suites, num_bytes=num_bytes, rng=rng)
        num_small_runs = suite_bytes / SMALL_RUN_BYTES
        write_tree(small, num_suites=max(1, round(num_small_runs / len(SCENARIOS) / len(MODELS))),
                   num_bytes=suite_bytes, rng=rng)  # fmt: skip
        compare([min(tree.iterdir()), tree, small], arguments.rounds)


def compare(folders, rounds):
    print(f"Python {sys.version.split()[0]}, msgspec {msgspec.__version__}, pandas {pd.__version__}; {rounds} rounds, "
          "median [quartiles]")  # fmt: skip
    print("| read | instances | read_runs, MB/s | json loop, MB/s | ratio | read_runs, peak MB | json loop, peak MB |")
    print("|---|---|---|---|---|---|---|")
    for folder in folders:
        paths = list(folder.rglob("*.json"))
        megabytes = sum(path.stat().st_size for path in paths) / 1e6
        num_rows = check_equal(folder)
        times_s = time_in_turn(folder, rounds)
        ours_s, theirs_s = times_s["read_runs"], times_s["json loop"]
        peaks = [f"{peak_memory_bytes(name, folder) / 1e6:.0f}" for name in READERS]
        cells = [f"{len(paths) // 2} runs, {megabytes:.0f} MB", f"{num_rows}", spread(megabytes / ours_s, 0),
                 spread(megabytes / theirs_s, 0), spread(theirs_s / ours_s, 1), *peaks]  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
