"""Operations and bytes of prompt encoding and of output tokens.

Two kinds of count, both of matrix products only, a multiplication and an addition being two operations:

- The closed forms of arXiv:2305.02440 (sections 3.1 and A), for an ungated feed-forward network four
  times as wide as the model, one key-value head per attention head, and no output projection.
- Exact counts for an :class:`~idealized_runtime.architectures.Architecture`: its own feed-forward width,
  gating, experts, key-value heads, latents, windows and vocabulary. They equal PyTorch's ``FlopCounterMode``.

Counts are integers for integer token counts (of any size for a scalar, int64 for an array) and real
numbers for real ones, such as means over queries.
"""

from idealized_runtime.flops.closed_forms import (
    paper_flops_without_attention,
    paper_output_token_flops,
    paper_prompt_encoding_flops,
)
from idealized_runtime.flops.memory import (
    BYTES_PER_ELEMENT,
    kv_cache_bytes,
    kv_cache_bytes_per_token,
    output_token_bytes,
    weight_bytes,
)
from idealized_runtime.flops.operations import (
    ATTENTION,
    LOGITS,
    least_output_token_flops,
    output_token_flops,
    prompt_encoding_flops,
    query_flops,
)

__all__ = [
    "ATTENTION",
    "BYTES_PER_ELEMENT",
    "LOGITS",
    "kv_cache_bytes",
    "kv_cache_bytes_per_token",
    "least_output_token_flops",
    "output_token_bytes",
    "output_token_flops",
    "paper_flops_without_attention",
    "paper_output_token_flops",
    "paper_prompt_encoding_flops",
    "prompt_encoding_flops",
    "query_flops",
    "weight_bytes",
]
