"""Every request of two runs of vLLM 0.19 under load, published with LLMServingSim, and its simulator's errors."""

import json

import pandas as pd

from idealized_runtime.hardware.accelerators import find_accelerator
from idealized_runtime.measurements.inferencex import read_inferencex
from idealized_runtime.measurements.points import usable_points
from idealized_runtime.measurements.published import published_data
from idealized_runtime.serving.requests import check_requests
from idealized_runtime.serving.scheduler import Scheduler

FOLDER = "LLMServingSim/bench/examples/RTXPRO6000"
RUNS = ("Llama-3.1-8B", "Qwen3-30B-A3B-Instruct-2507")
# Errors of the means (%) by the simulator of that repository, which profiles kernels; of all requests.
SIMULATOR_ERRORS_PERCENT = {
    "Llama-3.1-8B": {"TTFT": -4.0, "TPOT": -1.0, "E2E": -1.8},
    "Qwen3-30B-A3B-Instruct-2507": {"TTFT": -13.6, "TPOT": -1.7, "E2E": -2.2},
}


def read_serving_run(name: str) -> tuple[pd.DataFrame, Scheduler]:
    """Requests of one run, and the rules its server was started with.

    Arrivals are the times at which the engine queued them: those of the client are by another clock.

    Raises
    ------
    PublishedDataMissingError
        The run is not among the published data.
    """
    folder = published_data(f"{FOLDER}/{name}/vllm")
    options = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["engine_kwargs"]
    records = pd.read_json(folder / "requests.jsonl", lines=True)
    requests = pd.DataFrame(
        {
            "arrival_s": records["queued_ts"] - records["queued_ts"].min(),
            "num_prompt_tokens": records["input_toks"],
            "num_output_tokens": records["output_toks"],
            "time_to_first_token_s": records["first_token_ts"] - records["queued_ts"],
            "runtime_s": records["last_token_ts"] - records["queued_ts"],
        }
    )
    scheduler = Scheduler(
        max_num_seqs=options["max_num_seqs"],
        max_num_batched_tokens=options["max_num_batched_tokens"],
        num_engines=options["data_parallel_size"],
    )
    return check_requests(requests, name=name), scheduler


def read_points(model: str, *, hardware: str, tensor_parallel_size: int, backend: str = "vllm") -> pd.DataFrame:
    """Published latencies of one model on one machine at several concurrencies: aiconfigurator's sample of InferenceX.

    Returns
    -------
    DataFrame, one row a point
        As from :func:`~idealized_runtime.measurements.inferencex.read_inferencex`, without rows that a rule excludes.

    Raises
    ------
    ValueError
        There is no such point; the message lists what there is of the model.
    """
    points = usable_points(read_inferencex())
    points = points[(points["model"] == model) & (points["software"].str.split().str[0] == backend)]
    accelerator = find_accelerator(hardware)
    is_there = (points["hardware"] == getattr(accelerator, "name", None)) & (
        points["tensor_parallel_size"] == tensor_parallel_size
    )
    if not is_there.any():
        there = points[["hardware", "tensor_parallel_size"]].drop_duplicates().itertuples(index=False, name=None)
        raise ValueError(
            f"no point of {model} on {hardware} with {tensor_parallel_size} devices; there are: "
            f"{', '.join(f'{name} x {size:g}' for name, size in there) or 'none'}"
        )
    return points[is_there].reset_index(drop=True)
