"""Timings of batches on a pipeline of known pass times."""

import numpy as np
import pandas as pd

from idealized_runtime.fits.batched.pipeline import num_passes
from idealized_runtime.records.common import SETTING_COLUMNS

SIZES = (1, 2, 4, 8, 16, 32)


def prompt_pass_s(tokens):
    return 0.01 + 2e-4 * tokens


def token_pass_s(k, context=144.0, *, per_context_token_s=0.0):
    return np.maximum(0.02, 0.012 + 0.002 * k) + per_context_token_s * k * (context - 144.0)


def make_timings(
    *, num_stages=2, token_share=0.6, prompt_share=0.5, prompt_sizes=(128,), output_sizes=(32,), rng=None, **kwargs
):
    """Timings of a pipeline with a known answer: every B, k and m, with noise of 2 % where there is an ``rng``."""
    rows = [
        (p, o, batch, m, k)
        for p in prompt_sizes
        for o in output_sizes
        for batch in SIZES
        for k in SIZES
        for m in sorted({1, batch})
        if k <= batch
    ]
    timings = pd.DataFrame(rows, columns=SETTING_COLUMNS).assign(pipeline_parallel_size=num_stages)
    p, o, batch, m, k = (timings[name].to_numpy(float) for name in SETTING_COLUMNS)
    noise = [1 + (0 if rng is None else 0.02 * rng.standard_normal(len(timings))) for _ in range(2)]
    prompt_s = prompt_pass_s(m * p) * num_passes(1, batch / m, prompt_share)
    generation_s = token_pass_s(k, p + o / 2, **kwargs) * num_passes(o - 1, batch / k, token_share)
    timings = timings.assign(prompt_encoding_time_s=prompt_s * noise[0], generation_time_s=generation_s * noise[1])
    return timings.assign(runtime_s=timings["prompt_encoding_time_s"] + timings["generation_time_s"])
