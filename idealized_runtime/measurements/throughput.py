"""Rates of a timed batch: tokens, operations, share of the peak, dollars. All take numbers, arrays or columns.

What would give no rate, such as a time or a number of devices of zero, is refused by a ValueError that names it; NaN
in arrays and columns stands for missing, and stays.

Token throughput counts generated tokens. A batch of B prompts yields B tokens while it encodes them and B more in
each of the o - 1 rounds that follow; two rates are in use, and differ by what the prompts cost:

- overall: all B o tokens over the whole runtime;
- generation: the B (o - 1) tokens of the rounds over the generation time alone, or B over the time of one round.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from idealized_runtime.architectures import Architecture, kv_cache_bytes_per_token, query_flops, weight_bytes
from idealized_runtime.architectures.closed_forms import closed_form_query_flops
from idealized_runtime.checks import check_columns, check_positive, check_positive_or_missing, numeric_columns
from idealized_runtime.hardware.accelerators import Accelerator
from idealized_runtime.hardware.prices import device_price, dollar_cost_usd

# By the beginning of their columns in a table: the closed form has no output projection, the exact count the logits
# of the last position.
COUNTS = {"closed_form": closed_form_query_flops, "exact": query_flops}
_SIZES = ("num_prompt_tokens", "num_output_tokens", "batch_size")


def overall_tokens_per_s(batch_size, num_output_tokens, runtime_s):
    """Generated tokens over the whole runtime, prompt encoding included: B o / t."""
    check_positive_or_missing(batch_size=batch_size, num_output_tokens=num_output_tokens, runtime_s=runtime_s)
    return batch_size * num_output_tokens / runtime_s


def generation_tokens_per_s(batch_size, time_per_round_s):
    """Generated tokens over the generation time alone: B / the time in which each sequence grows by one token."""
    check_positive_or_missing(batch_size=batch_size, time_per_round_s=time_per_round_s)
    return batch_size / time_per_round_s


def batch_flops(
    architecture: Architecture,
    num_prompt_tokens,
    num_output_tokens,
    batch_size,
    *,
    count: Callable = query_flops,
    prompt: bool = True,
):
    """Operations of a batch: its prompts, and o - 1 further output tokens of each sequence.

    Parameters
    ----------
    num_prompt_tokens, num_output_tokens, batch_size : int or array
        p, o and B; they broadcast.
    count : callable
        Operations of one query, from architecture, p and o: exact, or in closed form
        (:func:`~idealized_runtime.architectures.closed_forms.closed_form_query_flops`).
    prompt : bool
        Whether the prompts count; without them only the o - 1 rounds of generation.

    Returns
    -------
    float or ndarray

    Raises
    ------
    ValueError
        A size that is not positive.
    """
    check_positive_or_missing(batch_size=batch_size)
    p, o = (np.asarray(tokens, dtype=float) for tokens in (num_prompt_tokens, num_output_tokens))
    flops = count(architecture, p, o)
    if not prompt:
        flops = flops - count(architecture, p, np.ones_like(o))
    return (np.asarray(batch_size) * flops)[()]


def usd_per_million_tokens(tokens_per_s, price_usd_per_hour, *, num_accelerators=1):
    """Dollars that a million generated tokens cost at this rate.

    Parameters
    ----------
    price_usd_per_hour : float
        Of one device; or of a whole machine, with ``num_accelerators`` the number of machines.
    """
    check_positive_or_missing(tokens_per_s=tokens_per_s, num_accelerators=num_accelerators)
    return dollar_cost_usd(1e6 / tokens_per_s, num_accelerators=num_accelerators, price_usd_per_hour=price_usd_per_hour)


def cluster_efficiency(flops_per_s, num_accelerators, peak_flops_per_s):
    """Share of the peak rate of all devices: between 0 and 1."""
    check_positive_or_missing(
        flops_per_s=flops_per_s, num_accelerators=num_accelerators, peak_flops_per_s=peak_flops_per_s
    )
    return flops_per_s / (num_accelerators * peak_flops_per_s)


def num_sequences_that_fit(architecture: Architecture, num_tokens, memory_bytes, *, dtype: str = "float16") -> float:
    """Largest batch by memory: what the weights leave, over the keys and values of one sequence.

    Parameters
    ----------
    num_tokens : int
        Of a sequence, prompt and output together.
    memory_bytes : float
        Of all devices that share the model.

    Returns
    -------
    float
        An upper bound: activations and the program itself take memory, too. Below 1 where not one fits. Layers
        with a window count whole, as programs hold them whose cache is made once.
    """
    check_positive(num_tokens=num_tokens, memory_bytes=memory_bytes)
    cache_bytes = num_tokens * kv_cache_bytes_per_token(architecture, dtype=dtype)
    return (memory_bytes - weight_bytes(architecture, dtype=dtype)) / cache_bytes


def throughput_table(
    timings: pd.DataFrame,
    architecture: Architecture,
    *,
    num_accelerators: int = 1,
    accelerator: Accelerator | None = None,
    dtype: str = "float16",
    price_usd_per_hour: float | None = None,
) -> pd.DataFrame:
    """Rates of every timed setting.

    Parameters
    ----------
    timings : DataFrame, one row a setting
        ``num_prompt_tokens, num_output_tokens, batch_size, runtime_s`` and, for the rate of generation,
        ``generation_time_s``.
    architecture : Architecture
        That was timed.
    num_accelerators : int
        That worked on each batch together.
    accelerator : Accelerator, optional
        One of them: for the share of its peak with operands of ``dtype``.
    price_usd_per_hour : float, optional
        Of one device; the accelerator's where it has one and this is not given.

    Returns
    -------
    DataFrame
        With the index of ``timings``: ``tokens_per_s`` (overall), ``generation_tokens_per_s``,
        ``closed_form_flops_per_s`` and ``exact_flops_per_s`` (of all devices, over the whole runtime), the two
        ``..._per_device``; with an accelerator ``cluster_efficiency`` (exact count), with a price
        ``usd_per_million_tokens`` (overall).

    Raises
    ------
    ValueError
        A column is absent, a number is not positive, or the accelerator's peak for ``dtype`` is not known; the
        message lists those that are.
    """
    p, o, batch, runtime_s = numeric_columns(timings, [*_SIZES, "runtime_s"])
    check_positive(num_accelerators=num_accelerators)
    table = pd.DataFrame({"tokens_per_s": overall_tokens_per_s(batch, o, runtime_s)}, index=timings.index)
    if "generation_time_s" in timings:
        # A query of one output token generates none after its prompt.
        (generation_s,) = numeric_columns(timings, ["generation_time_s"])
        time_per_round_s = np.divide(generation_s, o - 1, out=np.full(len(o), np.nan), where=o > 1)
        table["generation_tokens_per_s"] = generation_tokens_per_s(batch, time_per_round_s)
    for name, count in COUNTS.items():
        table[f"{name}_flops_per_s"] = batch_flops(architecture, p, o, batch, count=count) / runtime_s
        table[f"{name}_flops_per_s_per_device"] = table[f"{name}_flops_per_s"] / num_accelerators
    if accelerator is not None:
        peak = accelerator.peak_flops(dtype)
        table["cluster_efficiency"] = cluster_efficiency(table["exact_flops_per_s"], num_accelerators, peak)
    price = device_price(price_usd_per_hour, accelerator)
    if price is not None:
        table["usd_per_million_tokens"] = usd_per_million_tokens(
            table["tokens_per_s"], price.value, num_accelerators=num_accelerators
        )
    return table


def generation_table(
    timings: pd.DataFrame, architecture: Architecture, *, failures: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Token generation of one model by batch size, prompts left out.

    Parameters
    ----------
    timings : DataFrame, one row a batch size
        ``num_prompt_tokens, num_output_tokens`` (2 or more), ``batch_size, generation_time_s``.
    architecture : Architecture
    failures : DataFrame, optional
        Settings that failed, as ``read_failures`` gives them.

    Returns
    -------
    DataFrame, by batch size
        ``time_per_round_s`` (each sequence grows by a token), ``tokens_per_s``, ``closed_form_flops_per_s``,
        ``exact_flops_per_s``, ``error_type`` (empty where it ran; a failed batch size has no rates).

    Raises
    ------
    ValueError
        A column is absent, a time is not positive, or a row has one output token, which the prompt yields:
        nothing was generated after it.
    """
    p, o, batch, generation_s = numeric_columns(timings, [*_SIZES, "generation_time_s"])
    if (num_single := int((timings["num_output_tokens"] < 2).sum())) > 0:
        raise ValueError(
            f"num_output_tokens must be at least 2 for a rate of generation; {num_single} of {len(timings)} rows have "
            "1: drop them"
        )
    check_positive(generation_time_s=generation_s)
    rates = {"time_per_round_s": generation_s / (o - 1)}
    rates["tokens_per_s"] = generation_tokens_per_s(batch, rates["time_per_round_s"])
    for name, count in COUNTS.items():
        rates[f"{name}_flops_per_s"] = batch_flops(architecture, p, o, batch, count=count, prompt=False) / generation_s
    table = pd.DataFrame({"batch_size": batch.astype(int), **rates, "error_type": ""})
    if failures is not None:
        check_columns(failures, ["batch_size", "error_type"], name="failures")
        table = pd.concat([table, failures[["batch_size", "error_type"]].astype({"batch_size": int})])
    return table.set_index("batch_size").sort_index()
