"""What the printed tables imply beside what they print: stage times, more nodes, bytes, memory, dollars."""

import pandas as pd

from idealized_runtime.architectures import get_architecture, kv_cache_bytes_per_token, output_token_bytes, weight_bytes
from idealized_runtime.checks import check_positive, check_positive_or_missing
from idealized_runtime.fits.batched.pipeline import num_passes
from idealized_runtime.hardware.accelerators import get_accelerator
from idealized_runtime.measurements.throughput import (
    generation_tokens_per_s,
    num_sequences_that_fit,
    throughput_table,
    usd_per_million_tokens,
)
from idealized_runtime.reproductions.throughput_test.printed import CPU_TABLES, GPT_175B, PIPELINE_TABLES

# P3 machines hold V100 GPUs, P4d machines A100 GPUs of 40 GB.
PIPELINE_ACCELERATORS = {"gpt-j": "V100-32GB", "opt-66b": "A100-40GB", "davinci": "A100-40GB"}


def stage_time_table(tables=PIPELINE_TABLES) -> pd.DataFrame:
    """Time of one stage for k sequences, from the generation times of each pipeline, stages taken to be alike.

    Returns
    -------
    DataFrame, one row a setting
        ``table, token_micro_batch_size``, ``num_micro_batches``, ``num_stages``, ``num_passes`` (of
        :func:`~idealized_runtime.fits.batched.pipeline.num_passes`), ``stage_time_ms``, and ``is_monotone``: no
        larger k of its table took less. More sequences are never less work: where it is False, something other
        than the pipeline took the time.
    """
    frames = []
    for table in tables:
        timings = table.timings()
        num_micro_batches = timings["batch_size"] // timings["token_micro_batch_size"]
        passes = num_passes(timings["num_output_tokens"] - 1, num_micro_batches, 1 / table.num_stages)
        stage_time_ms = 1e3 * timings["generation_time_s"] / passes / table.num_stages
        columns = {
            "table": table.name,
            "token_micro_batch_size": timings["token_micro_batch_size"],
            "num_micro_batches": num_micro_batches,
            "num_stages": table.num_stages,
            "num_passes": passes,
            "stage_time_ms": stage_time_ms,
            # Rows go from the largest k to the smallest. 10 % are left for noise: every row is a single run.
            "is_monotone": stage_time_ms <= 1.1 * stage_time_ms.cummin(),
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def time_on_more_nodes(time_s, num_nodes, *, num_rounds, num_micro_batches, num_stages):
    """Time of a model ``num_nodes`` times as deep on as many times the stages, from the part that was timed.

    The way through all stages is ``num_nodes`` times as long, and each stage as long as before: what a single
    micro-batch takes grows with ``num_nodes``; a pipeline that is full stays as fast, but for its filling.

    Parameters
    ----------
    time_s : float or array
        Seconds of the part, on ``num_stages`` stages.
    num_nodes : int
    num_rounds, num_micro_batches : int or array
        As in :func:`~idealized_runtime.fits.batched.pipeline.num_passes`.
    num_stages : int
        Of the part, taken to be alike.

    Returns
    -------
    float or ndarray
        Seconds.

    Raises
    ------
    ValueError
        A number is not positive.
    """
    check_positive_or_missing(time_s=time_s)
    check_positive(num_nodes=num_nodes, num_rounds=num_rounds, num_stages=num_stages)
    part = num_passes(num_rounds, num_micro_batches, 1 / num_stages)
    whole = num_nodes * num_passes(num_rounds, num_micro_batches, 1 / (num_nodes * num_stages))
    return time_s * whole / part


def node_estimate_table() -> pd.DataFrame:
    """What three nodes in a row would take, as a multiple of the one that was timed.

    Returns
    -------
    DataFrame
        ``part``, ``num_micro_batches``, ``printed_factor`` (3), ``pipeline_factor`` (of
        :func:`time_on_more_nodes`).
    """
    table = GPT_175B
    timings, num_nodes = table.timings(), int(table.facts["num_nodes"])
    batch_size = int(table.facts["batch_size"])
    parts = {f"prompts, m = {batch_size}": (1, 1), "prompts, m = 1": (1, batch_size)}
    for k in timings["token_micro_batch_size"]:
        parts[f"output tokens, k = {k}"] = (table.num_output_tokens - 1, batch_size // k)
    rows = [
        {
            "part": part,
            "num_micro_batches": n,
            "printed_factor": num_nodes,
            "pipeline_factor": time_on_more_nodes(
                1.0, num_nodes, num_rounds=rounds, num_micro_batches=n, num_stages=table.num_stages
            ),
        }
        for part, (rounds, n) in parts.items()
    ]
    return pd.DataFrame(rows)


def cpu_round_table() -> pd.DataFrame:
    """Bytes that a round of the CPU tables must read, and the rate at which that was done.

    Returns
    -------
    DataFrame, one row a setting
        ``table, batch_size, time_per_round_s, tokens_per_s``; ``gigabytes`` (bfloat16 weights once, keys and values of
        every sequence at the mean context) and ``gigabytes_per_s``; ``usd_per_million_tokens`` of generation.
    """
    rows = []
    for table in CPU_TABLES:
        architecture, price = get_architecture(table.architecture), float(table.facts["price_usd_per_hour"])
        context = table.num_prompt_tokens + table.num_output_tokens / 2
        for batch_size, time_s in table.frame()[["batch_size", "time_per_round_s"]].astype(float).to_numpy().tolist():
            num_bytes = output_token_bytes(architecture, context, batch_size=int(batch_size), dtype="bfloat16")
            tokens_per_s = generation_tokens_per_s(batch_size, time_s)
            rows.append(
                {
                    "table": table.name,
                    "batch_size": int(batch_size),
                    "time_per_round_s": time_s,
                    "tokens_per_s": tokens_per_s,
                    "gigabytes": num_bytes / 1e9,
                    "gigabytes_per_s": num_bytes / 1e9 / time_s,
                    "usd_per_million_tokens": usd_per_million_tokens(tokens_per_s, price),
                }
            )
    return pd.DataFrame(rows)


def memory_table() -> pd.DataFrame:
    """Whether weights and caches explain the batch sizes at which the CPU tables ran out of memory.

    Returns
    -------
    DataFrame, one row a table
        ``weights_gb`` and ``cache_gb_per_sequence`` (bfloat16, prompt and output), ``memory_gb``,
        ``num_sequences_that_fit``, ``largest_batch_size`` that ran and ``out_of_memory_batch_size``.
    """
    rows = []
    for table in CPU_TABLES:
        architecture = get_architecture(table.architecture)
        weights_gb = weight_bytes(architecture, dtype="bfloat16") / 1e9
        tokens = table.num_prompt_tokens + table.num_output_tokens
        cache_gb = tokens * kv_cache_bytes_per_token(architecture, dtype="bfloat16") / 1e9
        memory_gb = float(table.facts["memory_gb"])
        fitting = num_sequences_that_fit(architecture, tokens, 1e9 * memory_gb, dtype="bfloat16")
        rows.append(
            {
                "table": table.name,
                "weights_gb": weights_gb,
                "cache_gb_per_sequence": cache_gb,
                "memory_gb": memory_gb,
                "num_sequences_that_fit": fitting,
                "largest_batch_size": int(table.rows[-1][0]),
                "out_of_memory_batch_size": int(table.facts["out_of_memory_batch_size"]),
            }
        )
    return pd.DataFrame(rows)


def rate_table() -> pd.DataFrame:
    """Rates of every setting of the pipelines' tables, the 175 B model on the three machines of its estimate.

    Returns
    -------
    DataFrame, one row a setting
        ``table, token_micro_batch_size, runtime_s`` and the columns of
        :func:`~idealized_runtime.measurements.throughput.throughput_table`. Prices are those of the registry.
    """
    frames = []
    for table in PIPELINE_TABLES:
        num_nodes = int(table.facts.get("num_nodes", "1"))
        timings = table.timings()
        timings[["runtime_s", "generation_time_s"]] *= num_nodes
        rates = throughput_table(
            timings,
            get_architecture(table.architecture),
            num_accelerators=num_nodes * table.num_accelerators,
            accelerator=get_accelerator(PIPELINE_ACCELERATORS[table.architecture]),
        )
        frames.append(timings[["token_micro_batch_size", "runtime_s"]].join(rates).assign(table=table.name))
    return pd.concat(frames, ignore_index=True)
