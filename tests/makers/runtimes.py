"""Runtimes of a known model."""

import numpy as np
import pandas as pd

PROMPT_TIMES_S = {1: 0.02, 64: 0.025, 128: 0.03, 512: 0.09}

OUTPUT_SIZES = (1, 2, 8, 32)


def make_runtimes(prompt_times_s=PROMPT_TIMES_S, output_sizes=OUTPUT_SIZES, *, g=0.02, slope=0.0) -> pd.DataFrame:
    """Noiseless runtimes with a known answer."""
    rows = [(p, o, time_s + (o - 1) * (g + slope * p)) for p, time_s in prompt_times_s.items() for o in output_sizes]
    return pd.DataFrame(rows, columns=["num_prompt_tokens", "num_output_tokens", "runtime_s"])


def make_trials(rng, *, num_trials=10, noise=0.01, **kwargs) -> pd.DataFrame:
    """Runtimes with proportional noise, one row a trial."""
    runtimes = make_runtimes(**kwargs)
    trials = runtimes.loc[runtimes.index.repeat(num_trials)].reset_index(drop=True)
    scatter = 1 + noise * rng.standard_normal(len(trials))
    return trials.assign(trial=np.arange(len(trials)) % num_trials, runtime_s=trials["runtime_s"] * scatter)
