"""ML.ENERGY's leaderboard: vLLM 0.11.1 on H100 and B200 at full batches, with inter-token times, watts and joules."""

import json

import numpy as np
import pandas as pd

from idealized_runtime.measurements.points import POINT_COLUMNS, flag
from idealized_runtime.measurements.published import published_data

FOLDER = "ml-energy-leaderboard/public/data"
TASKS = ("gpqa", "lm-arena-chat", "sourcegraph-fim")
# Prompts are not published. Rows whose batch the cache memory limits imply these sizes; times err by less than 1 %
# more where they are half or one and a half of that.
ASSUMED_PROMPT_TOKENS = {"gpqa": 300, "lm-arena-chat": 300, "sourcegraph-fim": 1100}
_DTYPES = {"fp8": "float8"}
# At fewer new requests a step, fewer than one step in ten encodes a prompt: the 90th percentile is none of theirs.
_FEW_PROMPTS = 0.1
_SPREAD = 1.2
# At more, more than half of the steps encode a prompt: 1 - exp(-0.69) = 0.5.
_MANY_PROMPTS = 0.69
_SERVER = ["model", "hardware", "num_accelerators"]


def read_ml_energy() -> pd.DataFrame:
    """Every text row of the leaderboard, traps flagged.

    Requests are all sent at once and a full batch of them runs. Times between tokens are pooled over the whole run, its
    ramps and the steps that encode others' prompts included; throughput and watts are those of its steady part.

    Returns
    -------
    DataFrame, one row a run
        The columns of a point table: ``concurrency`` is the mean number of running requests,
        ``time_per_output_token_s`` the median time between tokens, ``num_prompt_tokens`` is not published (NaN),
        ``power_watts`` is of all devices. ``tensor_parallel_size`` is that of attention. Further ones: ``task,
        expert_parallel_size, data_parallel_size, max_num_seqs, num_requests``; ``num_context_tokens``, the mean over
        running requests with the assumed prompt; ``inter_token_p90_s, inter_token_p95_s``; ``requests_per_step``, how
        many begin in one.

    Raises
    ------
    PublishedDataMissingError
        The leaderboard is not among the published data.
    """
    folder = published_data(FOLDER)
    rows = pd.DataFrame(
        [
            {"task": task, **row}
            for task in TASKS
            for row in json.loads((folder / "tasks" / f"{task}.json").read_text(encoding="utf-8"))["configurations"]
        ]
    )
    batch, mean_output = rows["avg_batch_size"], rows["avg_output_len"]
    output_context, num_requests = _output_lengths(folder, rows)
    points = pd.DataFrame(
        {
            "model": rows["model_id"],
            "hardware": rows["gpu_model"],
            "software": "vllm 0.11.1",
            "num_accelerators": rows["num_gpus"],
            # With expert parallelism the rows say 1, though attention is split over all devices of a copy.
            "tensor_parallel_size": rows["num_gpus"] // rows["data_parallel"],
            "dtype": rows["weight_precision"].replace(_DTYPES),
            "concurrency": batch,
            "num_prompt_tokens": np.nan,
            "num_output_tokens": mean_output,
            "time_to_first_token_s": np.nan,
            "time_per_output_token_s": rows["median_itl_ms"] / 1e3,
            "output_tokens_per_s": rows["output_throughput_tokens_per_sec"],
            "power_watts": rows["avg_power_watts"],
            "energy_per_output_token_joules": rows["energy_per_token_joules"],
            "task": rows["task"],
            "expert_parallel_size": rows["expert_parallel"],
            "data_parallel_size": rows["data_parallel"],
            "max_num_seqs": rows["max_num_seqs"],
            "num_requests": num_requests,
            "num_context_tokens": rows["task"].map(ASSUMED_PROMPT_TOKENS) + output_context,
            "inter_token_p90_s": rows["p90_itl_ms"] / 1e3,
            "inter_token_p95_s": rows["p95_itl_ms"] / 1e3,
            "requests_per_step": batch / mean_output,
            "source": [f"{FOLDER}/tasks/{task}.json" for task in rows["task"]],
        }
    )
    points["flags"] = flag(_rules(points))
    return points[[*POINT_COLUMNS, *points.columns.difference(POINT_COLUMNS, sort=False)]]


def _output_lengths(folder, rows) -> tuple[np.ndarray, np.ndarray]:
    """Mean output tokens that a running request has so far, E[L^2] / 2 E[L], and the number of requests, by row."""
    key = ["gpu_model", "num_gpus", "max_num_seqs", "median_itl_ms"]
    found = {}
    for path in sorted((folder / "models").glob("*.json")):
        model = json.loads(path.read_text(encoding="utf-8"))
        for row in model["configurations"]:
            bins, counts = (np.array(row["output_length_distribution"][name]) for name in ("bins", "counts"))
            middle, width = (bins[1:] + bins[:-1]) / 2, np.diff(bins)
            # Within a bin lengths are spread evenly.
            context = counts @ (middle**2 + width**2 / 12) / (2 * counts @ middle)
            found[(model["model_id"], model["task"], *(row[name] for name in key))] = context, counts.sum()
    values = [found[of_row] for of_row in rows[["model_id", "task", *key]].itertuples(index=False, name=None)]
    return tuple(np.array(values, dtype=float).T)


def _rules(points) -> dict:
    few_prompts = points["requests_per_step"] < _FEW_PROMPTS
    shows_host = few_prompts & (points["inter_token_p90_s"] > _SPREAD * points["time_per_output_token_s"])
    # Where prompts are frequent the percentile does not tell, but a server has one host.
    of_server = shows_host.groupby([points[name] for name in _SERVER])
    share = of_server.transform("sum") / few_prompts.groupby([points[name] for name in _SERVER]).transform("sum")
    key = [*_SERVER, "task", "expert_parallel_size", "data_parallel_size", "max_num_seqs"]
    return {
        "host-bound": shows_host | (share >= 0.5),
        "prompts-in-most-steps": points["requests_per_step"] > _MANY_PROMPTS,
        "data-parallel": points["data_parallel_size"] > 1,
        "few-rounds": points["num_requests"] < 2 * points["max_num_seqs"],
        "batch-not-filled": points["concurrency"] < 0.95 * points["max_num_seqs"],
        "measured-twice": points.duplicated(key, keep=False),
    }
