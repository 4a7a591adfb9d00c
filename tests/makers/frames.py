"""Frames of requests with known times, for tests."""

import numpy as np
import pandas as pd

START = pd.Timestamp("2026-01-05T10:00:00Z")


def make_requests(runtime_s, **columns) -> pd.DataFrame:
    """One row a request in the columns of ``read_requests``: successes, sent one after the other unless said."""
    runtime_s = np.asarray(runtime_s, dtype=float)
    frame = pd.DataFrame(
        {
            "model": "tiny",
            "hardware": "test",
            "software": "test",
            "num_prompt_tokens": 8,
            "num_output_tokens": 4,
            "trial": np.arange(len(runtime_s)),
            "is_warmup": False,
            "block": pd.array([pd.NA] * len(runtime_s), dtype="Int64"),
            "load": None,
            "num_parallel": pd.array([pd.NA] * len(runtime_s), dtype="Int64"),
            "rate_per_s": np.nan,
            "repetition": pd.array([pd.NA] * len(runtime_s), dtype="Int64"),
            "scheduled_at": pd.DatetimeIndex([pd.NaT] * len(runtime_s), tz="UTC"),
            "sent_at": START + pd.to_timedelta(np.cumsum(runtime_s) - runtime_s, unit="s"),
            "time_to_first_token_s": runtime_s / 2,
            "runtime_s": runtime_s,
            "time_per_output_token_s": runtime_s / 6,
            "inter_chunk_times_s": [np.full(3, one_s / 6) for one_s in runtime_s],
            "error_type": None,
            "is_fit": True,
        }
    )
    return frame.assign(**columns)
