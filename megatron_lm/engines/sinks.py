"""Attention sinks: each head has one logit more in its softmax, which takes weight from the tokens and adds nothing.

No fused attention of torch has them. The sink of a prompt is made a token before the others, so that a
fused kernel does; one new token has few scores, and goes without.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812

# Fused kernels take widths that are a multiple of this.
_WIDTH_MULTIPLE = 8


def attend_prompt_with_sinks(query, keys, values, sinks, mask=None):
    """Attention of whole prompts; ``mask`` says which tokens (columns) each (row) attends to, by default all before it.

    Parameters
    ----------
    query : tensor of shape (sequences, heads, tokens, head_dim)
    keys, values : tensors of shape (sequences, query groups, tokens, head_dim)
    sinks : tensor of shape (heads,)
    mask : bool tensor of shape (tokens, tokens), optional

    Returns
    -------
    tensor of the shape of ``query``
    """
    head_dim = query.shape[-1]
    # The first row is there for the causal mask, which starts at the first row and column.
    query, keys, values = (F.pad(heads, (0, _WIDTH_MULTIPLE, 1, 0)) for heads in (query, keys, values))
    # In a dimension where the keys of all tokens are zero: the sink's score is its logit, whatever the query.
    query[..., head_dim] = sinks[:, None] * math.sqrt(head_dim)
    keys[:, :, 0, head_dim] = 1.0
    attended = F.scaled_dot_product_attention(
        query,
        keys,
        values,
        attn_mask=None if mask is None else F.pad(mask, (1, 0, 1, 0), value=True),
        is_causal=mask is None,
        scale=1 / math.sqrt(head_dim),
        enable_gqa=query.shape[1] > keys.shape[1],
    )
    return attended[:, :, 1:, :head_dim]


def attend_token_with_sinks(query, keys, values, sinks, mask=None):
    """Attention of one token a sequence, the heads that share a key being rows of one query.

    Parameters
    ----------
    query : tensor of shape (sequences * query groups, 1, heads of a group, head_dim)
    keys, values : tensors of shape (sequences * query groups, 1, tokens, head_dim)
    sinks : tensor of shape (heads,)
    mask : tensor of shape (1, tokens), optional
        Added to the scores.

    Returns
    -------
    tensor of the shape of ``query``
    """
    scores = query / math.sqrt(query.shape[-1]) @ keys.mT
    if mask is not None:
        scores = scores + mask
    sinks = sinks.view(-1, 1, query.shape[2], 1)
    sinks = sinks.repeat(len(query) // len(sinks), 1, 1, 1)
    weights = torch.cat((scores, sinks), dim=-1).softmax(dim=-1)
    return weights[..., :-1] @ values
