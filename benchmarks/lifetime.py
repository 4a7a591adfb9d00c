"""Scaling-law fit and lifetime optimum against the algorithms of arXiv:2401.00448's code, in one process.

Fit: the original goes start by start (L-BFGS with finite differences) and, for each evaluation, run by run; it is
timed on a random sample of the 4500 starts, and the whole is estimated from their mean. Beside it the usual next
step, L-BFGS with our exact gradient over all runs at once, still start by start. We time all 4500 starts.

Solver: the original finds the training tokens by the secant method from 1e8. Both get random losses between 1e18
and 1e30 Chinchilla FLOPs, with demands of 1e-6 to 1e6 times the Chinchilla tokens; a miss is an error, or tokens
more than 1e-6 away from ours, which neighbours and grids confirm in the tests. Misses are also counted for models of
1e10 to 1e16 FLOPs, as one trains to fit a law, some of them on fewer tokens than the secant method starts from.

    python benchmarks/lifetime.py [--rounds 5] [--sample 4] [--problems 500] [--grid 100000]
"""

import argparse
import os
import platform
import warnings
from time import perf_counter

import numpy as np
import scipy
from scipy.optimize import minimize, newton
from scipy.special import huber, logsumexp

from idealized_runtime.lifetime import (
    chinchilla_size,
    fit_scaling_law,
    flop_costs,
    get_scaling_law,
    minimize_lifetime_cost,
    read_training_runs,
)
from idealized_runtime.lifetime.fitting import HUBER_DELTA, default_starts
from idealized_runtime.lifetime.log_huber import LogHuber
from idealized_runtime.measurements.published import published_data


def run_by_run_objective(coefficients, rows):
    log_a, log_b, log_e, alpha, beta = coefficients
    total = 0.0
    for row in rows:
        terms = [log_a - alpha * np.log(row["num_params"]), log_b - beta * np.log(row["num_training_tokens"]), log_e]
        total += huber(HUBER_DELTA, logsumexp(terms) - np.log(row["loss"]))
    return total


def fit_run_by_run(runs, starts):
    """The original's algorithm."""
    rows = runs.to_dict("records")
    return min(minimize(run_by_run_objective, start, (rows,), method="L-BFGS-B").fun for start in starts)


def fit_start_by_start(runs, starts):
    """L-BFGS with the exact gradient, one start after the other."""
    objective = LogHuber(runs, HUBER_DELTA)

    def value_and_gradient(coefficients):
        value, gradient = objective.value_and_gradient(coefficients[None])
        return value[0], gradient[0]

    return min(minimize(value_and_gradient, start, jac=True, method="L-BFGS-B").fun for start in starts)


def fit_all_at_once(runs, starts):
    return fit_scaling_law(runs, starts=starts).objective


def make_problems(law, num, rng, *, least_flops=1e18, most_flops=1e30):
    training_flops = np.exp(rng.uniform(np.log(least_flops), np.log(most_flops), num))
    size = chinchilla_size(law, training_flops=training_flops)
    loss = law.loss(size.num_params, size.num_training_tokens)
    return loss, size.num_training_tokens * 10 ** rng.uniform(-6, 6, num)


def solve_by_secant(law, losses, demands):
    """The original's algorithm: training tokens of each problem, NaN where it fails."""
    scale = law.B * (1 + law.beta / law.alpha)

    def condition(tokens, loss, demand):
        inference = law.beta * law.B * demand / (3 * law.alpha)
        return scale * tokens**-law.beta + inference * tokens ** (-law.beta - 1) + law.E - loss

    def solve(loss, demand):
        try:
            return newton(condition, 1e8, args=(loss, demand), tol=1e-5, rtol=1e-8, maxiter=100)
        except (RuntimeError, ArithmeticError):
            return np.nan

    return np.array([solve(*problem) for problem in zip(losses.tolist(), demands.tolist(), strict=True)])


def solve_all_at_once(law, losses, demands):
    return minimize_lifetime_cost(law, losses, flop_costs(demands)).optimal.num_training_tokens


def seconds(function, *arguments):
    start = perf_counter()
    result = function(*arguments)
    return perf_counter() - start, result


def describe(values) -> str:
    low, median, high = np.percentile(values, [25, 50, 75])
    return f"{median:.3g} [{low:.3g}, {high:.3g}]"


def print_table(title, unit, times, reference, notes):
    print(f"\n{title:<36}{unit:<30}{'times ours':<30}")
    for name, values in times.items():
        ratios = describe(np.divide(values, times[reference])) if name != reference else "1"
        print(f"{name:<36}{describe(values):<30}{ratios:<30}{notes[name]}")


def compare_fits(rounds, sample, rng):
    runs = read_training_runs(published_data("beyond-chinchilla/trainingresults.csv"))
    starts = default_starts()
    fits = {
        "L-BFGS, run by run (original)": (fit_run_by_run, sample),
        "L-BFGS, exact gradient": (fit_start_by_start, 25 * sample),
        "all starts at once (ours)": (fit_all_at_once, len(starts)),
    }
    times, best = {name: [] for name in fits}, dict.fromkeys(fits, np.inf)
    for _ in range(rounds):
        for name, (fit, num_starts) in fits.items():
            some = starts if num_starts >= len(starts) else starts[rng.choice(len(starts), num_starts, replace=False)]
            elapsed_s, objective = seconds(fit, runs, some)
            times[name].append(elapsed_s * len(starts) / len(some))
            best[name] = min(best[name], objective)
    notes = {name: f"{best[name]:.9f} from {min(num, len(starts))} starts a round" for name, (_, num) in fits.items()}
    print_table(f"fit, {len(runs)} runs, {len(starts)} starts", "seconds", times, "all starts at once (ours)", notes)


def share_missed(law, losses, demands, secant_tokens) -> float:
    return 1 - np.mean(np.isclose(secant_tokens, solve_all_at_once(law, losses, demands), rtol=1e-6))


def compare_solvers(rounds, num_problems, num_grid, rng):
    law = get_scaling_law("chinchilla")
    secant, ours = "secant from 1e8 (original)", "bracketing (ours)"
    times, missed, missed_small, grid_s = {secant: [], ours: []}, [], [], []
    for _ in range(rounds):
        few, many = make_problems(law, num_problems, rng), make_problems(law, num_grid, rng)
        secant_s, secant_tokens = seconds(solve_by_secant, law, *few)
        grid_s.append(seconds(solve_all_at_once, law, *many)[0])
        times[secant].append(1e6 * secant_s / num_problems)
        times[ours].append(1e6 * grid_s[-1] / num_grid)
        missed.append(share_missed(law, *few, secant_tokens))
        small = make_problems(law, num_problems, rng, least_flops=1e10, most_flops=1e16)
        missed_small.append(share_missed(law, *small, solve_by_secant(law, *small)))
    notes = {
        secant: f"misses {100 * np.mean(missed):.1f} %; {100 * np.mean(missed_small):.1f} % of 1e10 to 1e16 FLOPs",
        ours: f"{num_grid:,} points in {describe(grid_s)} s",
    }
    print_table("lifetime optimum", "microseconds a problem", times, ours, notes)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sample", type=int, default=4, help="starts a round for the original's algorithm")
    parser.add_argument("--problems", type=int, default=500, help="problems a round for the original's solver")
    parser.add_argument("--grid", type=int, default=100_000, help="problems a round for ours")
    arguments = parser.parse_args()
    # The original's solvers run into overflows and complex powers; what becomes of them is counted.
    warnings.simplefilter("ignore", RuntimeWarning)
    rng = np.random.default_rng(0)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}, ",
        end="",
    )
    print(f"scipy {scipy.__version__}; {arguments.rounds} rounds, medians and quartiles")
    compare_fits(arguments.rounds, arguments.sample, rng)
    compare_solvers(arguments.rounds, arguments.problems, arguments.grid, rng)


if __name__ == "__main__":
    main()
