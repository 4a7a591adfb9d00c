"""A plan over 50 candidates for one trace hour: seconds, and of the same plan with other objectives.

The hour is Azure's of 2023-11-16 (19,366 requests of a conversation service). Candidates are step models around those
of an 8 B model on a data-centre GPU, with errors of 5 %. The peer is brute force: the simulations that the plan asks
for, each by the plain step-by-step loop that the tests hold ours against, from one of them that is timed. A plan can
take no less than its simulations on all cores, whose share of its time is printed.

Run:  python benchmarks/plan.py [--candidates 50]
"""

import argparse
import os
import sys
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from idealized_runtime.hardware.prices import DeviceRate
from idealized_runtime.measurements.published import published_data
from idealized_runtime.serving.demand import Demand
from idealized_runtime.serving.engine import serve
from idealized_runtime.serving.objectives import Objective
from idealized_runtime.serving.planning import Candidate, Simulations, plan
from idealized_runtime.serving.requests import read_request_table
from idealized_runtime.serving.steps import STEP_TERMS, TERMS, StepModel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from step_by_step import step_by_step

AZURE = "AzurePublicDataset/data/AzureLLMInferenceTrace_conv.csv"
COLUMNS = {"arrival_s": "TIMESTAMP", "num_prompt_tokens": "ContextTokens", "num_output_tokens": "GeneratedTokens"}
OBJECTIVES = ("ttft:p95=1", "ttft:p95=0.7", "e2e:p99=30")


def candidates(number) -> list[Candidate]:
    rng, made = np.random.default_rng(0), []
    for place in range(number):
        times = np.exp(rng.normal(np.log([0.013, 8e-5, 4e-5, 7e-8]), 0.5))
        errors = np.zeros(len(TERMS))
        errors[: len(times)] = 0.05 * times
        known = dict(zip(STEP_TERMS, times.tolist(), strict=False))
        steps = StepModel(**known, covariance=np.diag(errors**2), hardware="H100", num_accelerators=1)
        made.append(Candidate(f"model {place}", steps, price_usd_per_hour=DeviceRate.exactly(3.0)))
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=50)
    arguments = parser.parse_args()
    requests = read_request_table(published_data(AZURE), columns=COLUMNS)
    demand, compared = Demand.of_trace(requests, name="the hour"), candidates(arguments.candidates)
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {len(requests)} requests, {len(compared)} candidates"
    )
    first = compared[0].steps
    start_s = perf_counter()
    serve(*demand.day(0), first, first.scheduler)
    print(f"first call, compiled or read from where it was left: {perf_counter() - start_s:.1f} s")
    start_s = perf_counter()
    serve(*demand.day(0), first, first.scheduler)
    ours_s = perf_counter() - start_s
    start_s = perf_counter()
    step_by_step(requests.iloc[:2000], first, first.scheduler)
    loop_s = (perf_counter() - start_s) * len(requests) / 2000
    simulations = Simulations()
    for text in OBJECTIVES:
        before, start_s, start_cpu_s = len(simulations), perf_counter(), process_time()
        found = plan(compared, demand, [Objective.parse(text)], simulations=simulations)
        seconds, number = perf_counter() - start_s, len(simulations) - before
        print(
            f"{text}: {seconds:.1f} s ({process_time() - start_cpu_s:.1f} s of processors), {number} new simulations, "
            f"of one replica's time {number * ours_s / os.cpu_count() / seconds:.0%}; "
            f"by the loop {number * loop_s / 60:.0f} min, {number * loop_s / seconds:.0f} times as long; "
            f"{len(found.answers)} candidates serve, cheapest {found.answers[0].usd_per_hour:.2f} $/h"
        )
    print(f"one simulation: {1e3 * ours_s:.1f} ms; the loop {loop_s:.1f} s, {loop_s / ours_s:.0f} times as long")


if __name__ == "__main__":
    main()
