"""Stopping early is a selection: intervals at the stop hold the truth as often as they say."""

import numpy as np
import pandas as pd
import pytest

from idealized_runtime.design.sequential import SequentialDesign, Stopped
from tests.design.test_sequential import SIZES

COLUMNS = ["num_prompt_tokens", "num_output_tokens", "trial", "trial_start_s", "runtime_s"]


class Machine:
    """A model whose curve and noise are drawn: a floor, a line, bends and settings that lie off it.

    Trials that follow each other have ``visit_share`` of the variance of their noise in common.
    """

    def __init__(self, seed, visit_share):
        self.visit_share = visit_share
        rng = self.rng = np.random.default_rng(seed)
        self.floor_s, self.line_s, self.token_s = 0.02, 10 ** rng.uniform(-4.5, -3.5), 0.02
        self.bends = dict(
            zip(SIZES["prompt_sizes"], 0.02 * rng.standard_normal(len(SIZES["prompt_sizes"])), strict=True)
        )
        self.noise = 10 ** rng.uniform(-2.5, -1.5)
        self.offsets, self.elapsed_s, self.trials = {}, 0.0, []

    def true_s(self, p, o):
        offset = self.offsets.setdefault((p, o), 0.3 * self.noise * self.rng.standard_normal())
        prompt_s = np.maximum(self.floor_s, self.line_s * p) * (1 + self.bends[p])
        return (prompt_s + (o - 1) * self.token_s) * (1 + offset)

    def time(self, settings):
        for p, o, num_trials in settings:
            noise = self.visit_share**0.5 * self.rng.standard_normal()
            noise = noise + (1 - self.visit_share) ** 0.5 * self.rng.standard_normal(num_trials + 1)
            for number, run_s in enumerate(self.true_s(p, o) * (1 + self.noise * noise)):
                if number:
                    self.trials.append((p, o, len(self.trials), self.elapsed_s, run_s))
                self.elapsed_s += run_s

    @property
    def timings(self):
        return pd.DataFrame(self.trials, columns=COLUMNS)


def covered(seed, target_error, visit_share, *, most_blocks=60):
    """Rule that stopped a design, the share of queries that its intervals hold, and whether the target's error held."""
    machine, design = Machine(seed, visit_share), SequentialDesign(**SIZES, target_error=target_error, seed=seed)
    for _ in range(most_blocks):
        block = design.next_block(machine.timings, elapsed_s=machine.elapsed_s)
        if isinstance(block, Stopped):
            break
        machine.time(block.settings)
    belief = design.belief(machine.timings)
    p, o = design.target.mix.num_prompt_tokens.astype(int), design.target.mix.num_output_tokens
    true_s = np.array([machine.true_s(*query) for query in zip(p, o, strict=True)])
    lower_s, upper_s = belief.predict_interval(p, o)
    errors = belief.predict(p, o) / true_s - 1
    rule = block.rule if isinstance(block, Stopped) else "blocks"
    return rule, np.mean((lower_s <= true_s) & (true_s <= upper_s)), np.mean(np.abs(errors) <= target_error)


@pytest.mark.parametrize(("target_error", "visit_share"), [(0.05, 0.5), (0.1, 0.0)])
def test_intervals_hold_the_truth_where_the_target_stopped_the_design(target_error, visit_share):
    results = [covered(seed, target_error, visit_share) for seed in range(12)]
    held = [share for rule, share, _ in results if rule == "target"]
    within = [share for rule, _, share in results if rule == "target"]
    assert len(held) >= 8
    assert np.mean(held) > 0.93
    assert np.mean(within) > 0.93
