import numpy as np
import pandas as pd

from idealized_runtime.reproductions.paper.api_runtimes import load_requests


def test_each_load_is_a_run_of_as_many_requests_at_once_of_which_one_is_timed():
    load = {"provider": "a", "num_prompt_tokens": 512, "num_output_tokens": 4, "slowdown": 1.0}
    runtimes = pd.DataFrame([{**load, "num_parallel_queries": number, "runtime_s": number / 10} for number in (1, 4)])
    requests = load_requests(runtimes)
    assert requests["run"].tolist() == [0, 1, 1, 1, 1]
    assert (requests["arrival_s"] == 0).all()
    np.testing.assert_array_equal(requests["runtime_s"], [0.1, 0.4, np.nan, np.nan, np.nan])
    assert requests["time_to_first_token_s"].isna().all()
