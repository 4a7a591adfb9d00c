"""Readers of logs and of other tools' files: seconds for 100,000 requests, and whether their time grows with the file.

Each reads a file of so many requests and one of four times as many, in turn (A B A B ...), on one core; the ratio of
their seconds a request is taken within a round, and is 1 where a reader is linear. Peak memory is that of a fresh
process above its imports. The files are one request of a tool, repeated; of our own log settings of three trials, too.

Run:  python benchmarks/readers.py [--requests 25000] [--rounds 5]; of a million lines: --requests 250000 --rounds 1
"""

import argparse
import gc
import json
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from time import process_time

import numpy as np

from idealized_runtime.records import read_log, read_requests
from idealized_runtime.records.importers import import_file

DATA = Path(__file__).resolve().parent.parent / "tests" / "records" / "importers" / "data"
LOGS = DATA.parents[3] / "logs" / "cpu"
DETAILS = ("input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "errors")


def write_vllm(path, num_requests):
    result = json.loads((DATA / "vllm_closed.json").read_text())
    result |= {name: (result[name] * num_requests)[:num_requests] for name in DETAILS}
    result |= {"num_prompts": num_requests, "completed": num_requests, "duration": 0.23 * num_requests}
    path.write_text(json.dumps(result))


def write_guidellm(path, num_requests):
    report = json.loads((DATA / "guidellm_concurrent.json").read_text())
    (benchmark,) = report["benchmarks"]
    benchmark["requests"]["successful"] = (benchmark["requests"]["successful"] * num_requests)[:num_requests]
    path.write_text(json.dumps(report))


def write_aiperf(path, num_requests):
    lines = (DATA / "aiperf_closed" / "profile_export.jsonl").read_text().splitlines(keepends=True)
    path.write_text("".join((lines * num_requests)[:num_requests]))
    totals = (DATA / "aiperf_closed" / "profile_export_aiperf.json").read_text()
    path.with_name(f"{path.stem}.json").write_text(totals)


def write_log(path, num_requests):
    header, (trial, *_) = import_file(DATA / "vllm_closed.json").log()
    records = [{"record": "header", "schema_version": 1, **header}]
    # Trials that are equal to the last digit are refused as copies.
    records += [
        {"record": "trial", **trial, "trial": number, "runtime_s": trial["runtime_s"] + 1e-9 * number}
        for number in range(num_requests)
    ]
    records += [{"record": "footer", "num_trials": num_requests}]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_settings(path, num_settings):
    header = json.loads((LOGS / "distilgpt2.jsonl").read_text().splitlines()[0])
    side = round(num_settings**0.5)
    sizes = [(p, o) for p in range(1, side + 1) for o in range(1, num_settings // side + 1)]
    prompts, outputs = (list(dict.fromkeys(column)) for column in zip(*sizes, strict=True))
    header |= {"num_trials": 3, "sweep": {"all_num_prompt_tokens": prompts, "all_num_output_tokens": outputs}}
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        print(json.dumps(header), file=file)
        for number, (p, o) in enumerate(sizes):
            prompt_s = (0.02 + p / 4000) * (1 + 0.01 * rng.random(3))
            runtimes_s = prompt_s + 0.02 * (o - 1) * (1 + 0.01 * rng.random(3))
            setting = {
                "record": "setting", "num_prompt_tokens": p, "num_output_tokens": o, "batch_size": 1,
                "runtimes_s": runtimes_s.tolist(), "prompt_encoding_times_s": prompt_s.tolist(),
                "generation_times_s": (runtimes_s - prompt_s).tolist(),
                "trial_starts_s": [number + 1e7 * trial for trial in range(3)],
            }  # fmt: skip
            print(json.dumps(setting), file=file)
        print(json.dumps({"record": "footer", "num_settings": len(sizes)}), file=file)


# By name: what writes a file, its ending, what reads it.
READERS = {
    "vllm bench serve": (write_vllm, ".json", import_file),
    "GuideLLM": (write_guidellm, ".json", import_file),
    "AIPerf": (write_aiperf, ".jsonl", import_file),
    "log of an API": (write_log, ".jsonl", read_requests),
    "log of settings": (write_settings, ".jsonl", read_log),
}


def seconds_to_read(read, path) -> float:
    gc.collect()
    start_s = process_time()
    read(path)
    return process_time() - start_s


def print_peak(name, path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    READERS[name][2](path)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=25_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.peak:
        print_peak(*arguments.peak)
        return
    print("| reader | file, MB | seconds for 100,000 | time a request, file / a quarter of it | peak MB |")
    print("|---|---|---|---|---|")
    for name, (write, ending, read) in READERS.items():
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{size}{ending}" for size in ("small", "large")]
            for path, number in zip(paths, (arguments.requests, 4 * arguments.requests), strict=True):
                write(path, number)
            times_s = np.array([[seconds_to_read(read, path) for path in paths] for _ in range(arguments.rounds)])
            command = [sys.executable, __file__, "--peak", name, str(paths[1])]
            peak_kb = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for_100k = np.median(times_s[:, 1]) * 1e5 / (4 * arguments.requests)
            ratio = np.median(times_s[:, 1] / times_s[:, 0]) / 4
            size = paths[1].stat().st_size / 1e6
            print(f"| {name} | {size:.0f} | {for_100k:.1f} | {ratio:.2f} | {peak_kb / 1e3:.0f} |", flush=True)


if __name__ == "__main__":
    main()
