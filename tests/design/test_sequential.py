"""Sequential designs: they stop where they should, and what they say is known holds the truth."""

import numpy as np
import pandas as pd
import pytest

from idealized_runtime.design.sequential import SequentialDesign, Stopped

COLUMNS = ["num_prompt_tokens", "num_output_tokens", "trial", "runtime_s"]
SIZES = {"prompt_sizes": [1, 16, 64, 128, 256, 384, 512, 768, 1024], "output_sizes": [1, 2, 8, 32, 64]}


def true_runtime_s(p, o):
    return np.maximum(0.02, 0.01 + 1e-4 * p) + (o - 1) * 0.02


def run(design, *, noise=0.01, seed=0, most_blocks=200):
    """What a design stops with, its timings and the device time spent."""
    rng, rows, elapsed_s = np.random.default_rng(seed), [], 0.0
    for _ in range(most_blocks):
        block = design.next_block(pd.DataFrame(rows, columns=COLUMNS), elapsed_s=elapsed_s)
        if isinstance(block, Stopped):
            return block, pd.DataFrame(rows, columns=COLUMNS), elapsed_s
        for p, o, num_trials in block.settings:
            runtimes_s = true_runtime_s(p, o) * (1 + noise * rng.standard_normal(num_trials))
            elapsed_s += runtimes_s.sum() + true_runtime_s(p, o)
            rows += [(p, o, len(rows) + number, runtime_s) for number, runtime_s in enumerate(runtimes_s)]
    raise AssertionError("it does not stop")


def test_design_stops_at_its_target_and_is_as_good_as_it_says():
    design = SequentialDesign(**SIZES, target_error=0.02)
    stopped, timings, _ = run(design)
    assert (stopped.rule, stopped.error <= 0.02) == ("target", True)
    p, o = design.target.mix.num_prompt_tokens.astype(int), design.target.mix.num_output_tokens
    errors = design.belief(timings).predict(p, o) / true_runtime_s(p, o) - 1
    assert np.quantile(np.abs(errors), 0.95) < 0.02


def test_budget_is_kept():
    stopped, _, elapsed_s = run(SequentialDesign(**SIZES, target_error=0.004, max_seconds=2.0))
    assert stopped.rule == "budget"
    assert elapsed_s < 2.2


def test_one_output_size_is_refused():
    with pytest.raises(ValueError, match="output_sizes must be at least two"):
        SequentialDesign(prompt_sizes=[1, 2], output_sizes=[4], target_error=0.1)
