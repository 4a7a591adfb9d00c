"""What one step of a server asks of its busiest device: layers, bytes, sequences and messages."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from idealized_runtime.architectures import (
    Architecture,
    kv_cache_bytes,
    output_token_flops,
    prompt_encoding_flops,
    state_bytes,
    weight_bytes_read,
)
from idealized_runtime.architectures.devices import num_cache_shares
from idealized_runtime.architectures.formats import shares_by_bits, stored_bytes
from idealized_runtime.architectures.memory import STORED
from idealized_runtime.architectures.parts import outer_part
from idealized_runtime.checks import check_columns
from idealized_runtime.measurements.served_models import architecture_name, served_architecture
from idealized_runtime.serving.evidence import expert_share
from idealized_runtime.serving.steps import share_visited

# Bytes of a number of 4 bits with a scale of 8 bits for each 32 of them.
_FOUR_BITS = 4.25 / 8
# Weights of 8 bits meet activations of 8 bits, unless a format is of weights alone.
_OF_WEIGHTS_ALONE = ("gptq", "awq", "bitsandbytes")
_ALL_REDUCES_PER_LAYER = 2
_ACTIVATION_BYTES = 2


@dataclass(frozen=True)
class WeightFormat:
    """Bytes of a weight: of attention, of feed-forward networks, of routed experts. Embeddings have two.

    ``is_quantised`` where activations, too, are quantised to 8 bits on their way through each layer.
    """

    attention: float = 2.0
    feed_forward: float = 2.0
    experts: float = 2.0
    is_quantised: bool = False


_FORMATS = {
    "bfloat16": WeightFormat(),
    "float16": WeightFormat(),
    "float8": WeightFormat(1.0, 1.0, 1.0, is_quantised=True),
    "mxfp4": WeightFormat(experts=_FOUR_BITS),
}
# What Meta's checkpoints quantise, as their config.json lists it: feed-forward networks; of Llama 4 the experts only.
_FORMATS_OF_MODELS = {
    "meta-llama/Llama-3.1-405B-Instruct-FP8": WeightFormat(2.0, 1.0, 1.0, is_quantised=True),
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8": WeightFormat(2.0, 2.0, 1.0, is_quantised=True),
}
# Counts of one step, of the busiest device. Widths are hidden sizes in thousands, summed over layers.
WORK = (
    "layers", "expert_layers", "weight_bytes", "expert_bytes", "cache_bytes", "sequences", "message_widths",
    "message_bytes", "expert_widths", "quantised_layers", "begun_layers", "begun_state_layers", "begun_expert_bytes",
    "prompt_flops", "prompt_expert_flops", "prompt_widths", "mean_expert_bytes", "flops",
)  # fmt: skip


def weight_format(model: str, dtype: str) -> WeightFormat:
    """Bytes of the weights of a published model.

    Raises
    ------
    ValueError
        Nothing is known of the format; the message lists those that are.
    """
    found = _FORMATS_OF_MODELS.get(model) if dtype == "float8" else None
    if found is None and dtype not in _FORMATS:
        raise ValueError(f"bytes of weights are known of {', '.join(_FORMATS)}; got {dtype!r}")
    return found or _FORMATS[dtype]


def stored_format(architecture: Architecture) -> WeightFormat:
    """Bytes of the weights as a configuration stores them, scales included; of all that are no experts in the mean.

    Raises
    ------
    ValueError
        The format is not known; the message names it.
    """
    a, outer = architecture, outer_part(architecture).num_params()
    # The head has two, and the norms beside the layers.
    plain_bytes = stored_bytes(a, num_experts=0)
    plain = (plain_bytes - 2 * outer) / (a.count_params(0) - outer)
    experts = plain
    if a.num_experts:
        experts = (stored_bytes(a) - plain_bytes) / (a.num_params - a.count_params(0))
    method = (a.uncounted_options.get("quantization_config") or {}).get("quant_method")
    shares = shares_by_bits(a, of_experts=bool(a.num_experts))
    is_quantised = shares.get(8, 0.0) > 0.5 and method not in _OF_WEIGHTS_ALONE
    return WeightFormat(plain, plain, experts, is_quantised)


def served_work(
    architecture: Architecture,
    weights: WeightFormat,
    *,
    num_sequences,
    num_context_tokens,
    tensor_parallel_size: int = 1,
    expert_parallel_size: int = 1,
    requests_per_step=0.0,
    num_prompt_tokens=0.0,
) -> dict[str, np.ndarray]:
    """Counts of one step that gives a token to each of so many sequences, and of the prompts that begin in it.

    Parameters
    ----------
    architecture : Architecture
    weights : WeightFormat
    num_sequences, num_context_tokens : float or array
        Sequences, and mean tokens in the cache of each; all arrays broadcast.
    tensor_parallel_size, expert_parallel_size : int
        Devices that attention, and the experts, are split over. With expert parallelism each device holds whole
        experts, and the step waits for the one whose experts most tokens visit.
    requests_per_step, num_prompt_tokens : float or array
        Requests that begin in a step in the mean, and the tokens of the prompt of each.

    Returns
    -------
    dict of str to array
        By the names of ``WORK``. ``weight_bytes`` are without routed experts, ``cache_bytes`` with states;
        ``expert_bytes`` are those of the busiest device, ``mean_expert_bytes`` in the mean over devices; ``flops`` are
        a device's matrix products, with those of the prompts that begin. Of these prompts: ``begun_layers``, and those
        of them that keep a state; ``begun_expert_bytes``, of the experts that are visited for them alone;
        ``prompt_expert_flops`` and all other ``prompt_flops`` of a device, half of each where activations have 8 bits;
        ``prompt_widths``, times their tokens.
    """
    a, devices, begun = architecture, tensor_parallel_size, requests_per_step
    n, context, begun, p = np.broadcast_arrays(
        *(np.asarray(values, float) for values in (num_sequences, num_context_tokens, begun, num_prompt_tokens))
    )
    per_expert = a.count_params(1) - a.count_params(0) if a.num_experts else 0
    head = a.vocab_size * (a.embedding_size or a.hidden_size)
    always_read = weight_bytes_read(a, dtype="int8") - per_expert * (a.moe_router_topk or 0)
    attention = 2 * a.num_layers * a.hidden_size * a.head_dim * (a.num_attention_heads + a.num_query_groups)
    attention = 0 if weights.attention == weights.feed_forward else attention
    body = (always_read - head - attention) * weights.feed_forward + attention * weights.attention
    num_visited, num_visited_begun = (
        _experts_of_busiest(a, num_tokens, devices, expert_parallel_size) for num_tokens in (n, n + p)
    )
    expert_bytes = per_expert * weights.experts
    # States are written again in each step; of a cache that grows only one entry is.
    cached = kv_cache_bytes(a, np.maximum(context, 1), dtype=STORED) + state_bytes(a, dtype=STORED)
    is_split = float(devices > 1)
    flops_of_8_bits = 0.5 if weights.is_quantised else 1.0
    prompt_flops = prompt_encoding_flops(a, np.maximum(p, 1), attention="causal", logits="none") * (p > 0)
    expert_flops = 2 * per_expert * (a.moe_router_topk or 0) * p
    ones = np.ones_like(n)
    return {
        "layers": a.num_layers * ones,
        "expert_layers": (a.num_moe_layers if a.num_experts else 0) * ones,
        "weight_bytes": (body + 2 * head) / devices * ones,
        "expert_bytes": num_visited * expert_bytes,
        "cache_bytes": n * cached / num_cache_shares(a, devices),
        "sequences": n,
        "message_widths": is_split * _ALL_REDUCES_PER_LAYER * a.num_layers * a.hidden_size / 1e3 * ones,
        "message_bytes": is_split * _ALL_REDUCES_PER_LAYER * a.num_layers * a.hidden_size * _ACTIVATION_BYTES * n,
        "expert_widths": (a.num_moe_layers if a.num_experts else 0) * a.hidden_size / 1e3 * ones,
        "quantised_layers": a.num_layers * weights.is_quantised * ones,
        "begun_layers": begun * a.num_layers,
        "begun_state_layers": begun * sum(number for part, number in a.blocks if part.state),
        "begun_expert_bytes": begun * (num_visited_begun - num_visited) * expert_bytes,
        "prompt_flops": begun * (prompt_flops - expert_flops) / devices * flops_of_8_bits,
        "prompt_expert_flops": begun * expert_flops / devices * flops_of_8_bits,
        "prompt_widths": begun * p * a.num_layers * a.hidden_size / 1e3,
        "mean_expert_bytes": _experts_of_busiest(a, n, devices, 1) * expert_bytes,
        "flops": (n + begun * p) * output_token_flops(a, 1, logits="none") / devices,
    }


def _experts_of_busiest(architecture, num_tokens, devices, expert_parallel_size):
    """Experts of all layers that so many tokens visit, on the device where most are; of a layer's, times layers."""
    if not architecture.num_experts:
        return np.zeros_like(num_tokens)
    visited, experts = share_visited(num_tokens, expert_share(architecture)), architecture.num_experts / devices
    busiest = experts * visited
    if expert_parallel_size > 1:
        busiest = busiest + _largest_of(expert_parallel_size) * np.sqrt(experts * visited * (1 - visited))
    return np.minimum(busiest, experts)


def work_of_points(points: pd.DataFrame, *, num_prompt_tokens: dict | None = None) -> pd.DataFrame:
    """Counts of a step of each point, by ``WORK``, with ``architecture``; missing where it is not counted.

    Parameters
    ----------
    points : DataFrame
        As from ``read_ml_energy``.
    num_prompt_tokens : dict, optional
        Of prompts, by task, where points do not say it.
    """
    needed = ["model", "dtype", "concurrency", "num_context_tokens", "tensor_parallel_size", "expert_parallel_size"]
    check_columns(points, [*needed, "requests_per_step"], name="points")
    architectures = {model: served_architecture(model) for model in points["model"].unique()}
    prompts = points["num_prompt_tokens"].fillna(
        points["task"].map(num_prompt_tokens or {}) if "task" in points else np.nan
    )
    rows = []
    for row, prompt in zip(points.itertuples(), prompts.fillna(0.0), strict=True):
        architecture = architectures[row.model]
        if architecture is None:
            rows.append(dict.fromkeys(WORK, np.nan))
            continue
        counts = served_work(
            architecture, weight_format(row.model, row.dtype), num_sequences=row.concurrency,
            num_context_tokens=row.num_context_tokens, tensor_parallel_size=int(row.tensor_parallel_size),
            expert_parallel_size=int(row.expert_parallel_size), requests_per_step=row.requests_per_step,
            num_prompt_tokens=prompt,
        )  # fmt: skip
        rows.append({name: float(count) for name, count in counts.items()})
    work = pd.DataFrame(rows, index=points.index, columns=list(WORK))
    return work.assign(architecture=points["model"].map(architecture_name))


def _largest_of(number: int) -> float:
    """Mean of the largest of so many independent standard normal values."""
    from scipy.special import ndtr

    x = np.linspace(-8, 8, 1601)
    below = ndtr(x) ** number
    return float(np.sum((x[1:] + x[:-1]) / 2 * np.diff(below)))
