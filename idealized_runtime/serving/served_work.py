"""What one step of a server asks of its busiest device: layers, bytes, sequences and messages."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from idealized_runtime.architectures import Architecture, kv_cache_bytes, output_token_flops, weight_bytes_read
from idealized_runtime.architectures.devices import num_cache_shares
from idealized_runtime.architectures.memory import state_bytes
from idealized_runtime.checks import check_columns
from idealized_runtime.measurements.served_models import architecture_name, served_architecture
from idealized_runtime.serving.evidence import expert_share
from idealized_runtime.serving.steps import share_visited

# Bytes of a number of 4 bits with a scale of 8 bits for each 32 of them.
_FOUR_BITS = 4.25 / 8
_ALL_REDUCES_PER_LAYER = 2
_ACTIVATION_BYTES = 2


@dataclass(frozen=True)
class WeightFormat:
    """Bytes of a weight: of attention, of feed-forward networks, of routed experts. Embeddings have two."""

    attention: float = 2.0
    feed_forward: float = 2.0
    experts: float = 2.0

    @property
    def is_quantised(self) -> bool:
        """Whether activations are quantised on their way through each layer: weights of 8 bits are met by such."""
        return self.experts == 1


_FORMATS = {
    "bfloat16": WeightFormat(),
    "float16": WeightFormat(),
    "float8": WeightFormat(1.0, 1.0, 1.0),
    "mxfp4": WeightFormat(experts=_FOUR_BITS),
}
# What Meta's checkpoints quantise, as their config.json lists it: feed-forward networks; of Llama 4 the experts only.
_FORMATS_OF_MODELS = {
    "meta-llama/Llama-3.1-405B-Instruct-FP8": WeightFormat(2.0, 1.0, 1.0),
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8": WeightFormat(2.0, 2.0, 1.0),
}
# Counts of one step, of the busiest device. Widths are hidden sizes in thousands, summed over layers.
WORK = (
    "layers", "expert_layers", "weight_bytes", "expert_bytes", "cache_bytes", "sequences", "message_widths",
    "message_bytes", "expert_widths", "quantised_layers", "begun_layers", "mean_expert_bytes", "flops",
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


def served_work(
    architecture: Architecture,
    weights: WeightFormat,
    *,
    num_sequences: float,
    num_context_tokens: float,
    tensor_parallel_size: int = 1,
    expert_parallel_size: int = 1,
    requests_per_step: float = 0.0,
    num_prompt_tokens: float = 0.0,
) -> dict[str, float]:
    """Counts of one step that gives a token to each of so many sequences.

    Parameters
    ----------
    architecture : Architecture
    weights : WeightFormat
    num_sequences, num_context_tokens : float
        Sequences, and mean tokens in the cache of each.
    tensor_parallel_size, expert_parallel_size : int
        Devices that attention, and the experts, are split over. With expert parallelism each device holds whole
        experts, and the step waits for the one whose experts most tokens visit.
    requests_per_step, num_prompt_tokens : float
        Requests that begin in a step in the mean, and the tokens of their prompts.

    Returns
    -------
    dict of str to float
        By the names of ``WORK``. ``weight_bytes`` are without routed experts, ``cache_bytes`` with states;
        ``expert_bytes`` are those of the busiest device, ``mean_expert_bytes`` in the mean over devices; ``flops`` are
        a device's matrix products, with those of the prompts that begin.
    """
    a, devices = architecture, tensor_parallel_size
    per_expert = a.count_params(1) - a.count_params(0) if a.num_experts else 0
    head = a.vocab_size * (a.embedding_size or a.hidden_size)
    always_read = weight_bytes_read(a, dtype="int8") - per_expert * (a.moe_router_topk or 0)
    attention = 2 * a.num_layers * a.hidden_size * a.head_dim * (a.num_attention_heads + a.num_query_groups)
    attention = 0 if weights.attention == weights.feed_forward else attention
    body = (always_read - head - attention) * weights.feed_forward + attention * weights.attention
    weight_bytes = (body + 2 * head) / devices
    visited = share_visited(num_sequences, expert_share(a)) if a.num_experts else 0.0
    experts = (a.num_experts or 0) / devices
    busiest = experts * visited
    if expert_parallel_size > 1:
        busiest += _largest_of(expert_parallel_size) * np.sqrt(experts * visited * (1 - visited))
    expert_bytes = per_expert * weights.experts
    # States are written again in each step; of a cache that grows only one entry is.
    cache = kv_cache_bytes(a, num_context_tokens, dtype="bfloat16") + state_bytes(a, dtype="bfloat16")
    cache = num_sequences * float(cache)
    cache /= num_cache_shares(a, devices)
    is_split = float(devices > 1)
    num_tokens = num_sequences + requests_per_step * num_prompt_tokens
    return {
        "layers": float(a.num_layers),
        "expert_layers": float(a.num_moe_layers if a.num_experts else 0),
        "weight_bytes": weight_bytes,
        "expert_bytes": min(busiest, experts) * expert_bytes,
        "cache_bytes": cache,
        "sequences": float(num_sequences),
        "message_widths": is_split * _ALL_REDUCES_PER_LAYER * a.num_layers * a.hidden_size / 1e3,
        "message_bytes": is_split * _ALL_REDUCES_PER_LAYER * a.num_layers * a.hidden_size * _ACTIVATION_BYTES
        * num_sequences,
        "expert_widths": (a.num_moe_layers if a.num_experts else 0) * a.hidden_size / 1e3,
        "quantised_layers": float(a.num_layers * weights.is_quantised),
        "begun_layers": requests_per_step * a.num_layers,
        "mean_expert_bytes": experts * visited * expert_bytes,
        "flops": num_tokens * output_token_flops(a, 1, logits="none") / devices,
    }  # fmt: skip


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
        rows.append(
            served_work(
                architecture, weight_format(row.model, row.dtype), num_sequences=row.concurrency,
                num_context_tokens=row.num_context_tokens, tensor_parallel_size=int(row.tensor_parallel_size),
                expert_parallel_size=int(row.expert_parallel_size), requests_per_step=row.requests_per_step,
                num_prompt_tokens=prompt,
            )
        )  # fmt: skip
    work = pd.DataFrame(rows, index=points.index, columns=list(WORK))
    return work.assign(architecture=points["model"].map(architecture_name))


def _largest_of(number: int) -> float:
    """Mean of the largest of so many independent standard normal values."""
    from scipy.special import ndtr

    x = np.linspace(-8, 8, 1601)
    below = ndtr(x) ** number
    return float(np.sum((x[1:] + x[:-1]) / 2 * np.diff(below)))
