"""Requests through a simulated server: ours against a step-by-step loop and a discrete-event library, same scheduler.

The loop is the plain twin that the tests hold ours against; the library is simpy, with the same steps as a process and
the arrivals as another. All three give the same times, which is checked. Each round runs every contestant once, in
turn; a ratio is taken within its round. Printed: median [quartiles] over rounds. One core. Ours is compiled at its
first call, or read from where an earlier process has left it: that call is before the rounds, and its time said apart.

The mixed load is 5000 requests of 16 to 2000 prompt and 16 to 500 output tokens, 8 a second; the hour is Azure's of
2023-11-16 (19,366 requests of a conversation service), where it is among the published data.

Run:  python benchmarks/serving.py [--rounds 5]
"""

import argparse
import os
import platform
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import simpy

from idealized_runtime.measurements.published import PublishedDataMissingError, published_data
from idealized_runtime.serving.requests import random_requests, read_request_table
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.simulation import simulate
from idealized_runtime.serving.steps import StepModel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from step_by_step import PlainServer, step_by_step

STEPS, SCHEDULER = StepModel(0.008, 4e-5, 6e-5, 2e-8), Scheduler()
NUM_REQUESTS = 5000
AZURE = "AzurePublicDataset/data/AzureLLMInferenceTrace_conv.csv"
COLUMNS = {"arrival_s": "TIMESTAMP", "num_prompt_tokens": "ContextTokens", "num_output_tokens": "GeneratedTokens"}


def mixed_load() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    sizes = {
        "num_prompt_tokens": rng.integers(16, 2000, NUM_REQUESTS),
        "num_output_tokens": rng.integers(16, 500, NUM_REQUESTS),
    }
    return random_requests(pd.DataFrame(sizes), rate_per_s=8, num_requests=NUM_REQUESTS, rng=rng)


def simulate_with_simpy(requests, steps, scheduler) -> np.ndarray:
    """Runtime of each request."""
    arrival_s, end_s = requests["arrival_s"].to_numpy(float), np.zeros(len(requests))
    environment, server = simpy.Environment(), PlainServer(requests, steps, scheduler)
    woken = environment.event()

    def clients():
        nonlocal woken
        for request in np.argsort(arrival_s, kind="stable").tolist():
            yield environment.timeout(arrival_s[request] - environment.now)
            server.waiting.append(request)
            if not woken.triggered:
                woken.succeed()

    def engine():
        nonlocal woken
        while True:
            if not server.running and not server.waiting:
                woken = environment.event()
                yield woken
            seconds, _, done = server.step()
            yield environment.timeout(seconds)
            end_s[done] = environment.now

    environment.process(clients())
    environment.process(engine())
    environment.run()
    return end_s - arrival_s


def describe(values) -> str:
    low, median, high = np.percentile(values, [25, 50, 75])
    return f"{median:.3g} [{low:.3g}, {high:.3g}]"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    load = mixed_load()
    contestants = {
        "ours": lambda: simulate(load, STEPS, SCHEDULER)["runtime_s"].to_numpy(),
        "step by step": lambda: step_by_step(load, STEPS, SCHEDULER)[1],
        "simpy": lambda: simulate_with_simpy(load, STEPS, SCHEDULER),
    }
    try:
        hour = read_request_table(published_data(AZURE), columns=COLUMNS)
        contestants["ours, Azure's hour"] = lambda: simulate(hour, STEPS, SCHEDULER)["runtime_s"].to_numpy()
    except PublishedDataMissingError as error:
        print(f"without Azure's hour: {error}")
    start = perf_counter()
    simulate(load[:10], STEPS, SCHEDULER)
    first_s = perf_counter() - start
    seconds, answers = {name: [] for name in contestants}, {}
    for _ in range(arguments.rounds):
        for name, run in contestants.items():
            start = perf_counter()
            answers[name] = run()
            seconds[name].append(perf_counter() - start)
    for name in ("step by step", "simpy"):
        np.testing.assert_allclose(answers[name], answers["ours"], rtol=0, atol=1e-6)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, simpy {simpy.__version__}"
    )
    print(f"{NUM_REQUESTS} requests, {arguments.rounds} rounds; all three give the same times")
    print(f"compiling, or reading what was compiled: {first_s:.2g} s, once a process\n")
    print(f"{'':<22}{'seconds':<30}times ours")
    for name, values in seconds.items():
        ratio = describe(np.array(values) / seconds["ours"]) if len(answers[name]) == NUM_REQUESTS else "-"
        print(f"{name:<22}{describe(values):<30}{ratio}")


if __name__ == "__main__":
    main()
