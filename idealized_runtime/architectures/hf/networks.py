"""Feed-forward networks and experts as parts, from options."""

from idealized_runtime.architectures import parts
from idealized_runtime.architectures.hf.mixers import says
from idealized_runtime.architectures.parts import Matrix, Part

EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
TOPK = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_top_k", "moe_k", "experts_per_token",
         "moe_topk")  # fmt: skip
_SHARED_SIZE = ("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size", "share_expert_dim",
                "share_expert_dims", "shared_intermediate_size")  # fmt: skip
_NUM_SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")


def dense(c, style, i) -> Part:
    size = c.find("dense_intermediate_size", "intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner")
    size = size[i] if isinstance(size, list) and len(size) > i else c.size("dense_intermediate_size",
                                                                           "intermediate_size")  # fmt: skip
    if c.flag("block_auto_adjust_ff_dim"):
        # Lfm2: two thirds, rounded up to a multiple.
        size, multiple = int(2 * size / 3), c.size("block_multiple_of")
        size = int((c.find("block_ffn_dim_multiplier") or 1.0) * size)
        size = multiple * -(-size // multiple)
    bias = says(c, style.mlp_bias)
    return parts.feed_forward(c.size("hidden_size"), size, is_gated=style.is_gated, bias=bias)


def experts(c, style) -> Part:
    expert_size = c.size("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size")
    shared_size = c.maybe(*_SHARED_SIZE)
    if shared_size is None:
        shared_size = (style.num_shared or c.maybe(*_NUM_SHARED) or 0) * expert_size
    num_experts = c.size(*EXPERTS)
    return parts.experts(
        c.size("hidden_size"),
        expert_size,
        num_experts=num_experts,
        topk=c.size(*TOPK),
        shared_size=shared_size,
        shared_gate=style.shared_gate,
        latent_size=c.maybe("moe_latent_size"),
        is_gated=style.is_gated,
        shared_bias=says(c, style.mlp_bias),
        vectors=style.router_vectors * num_experts,
    )


def gemma4_network(c, i, num_layers) -> tuple[Part, ...]:
    """A dense network, wider in layers that share keys and values if so asked, and experts beside it if there are."""
    hidden_size, size = c.size("hidden_size"), c.size("intermediate_size")
    is_sharing = i >= num_layers - (c.maybe("num_kv_shared_layers") or 0)
    size *= 2 if c.flag("use_double_wide_mlp") and is_sharing else 1
    network = [parts.feed_forward(hidden_size, size)]
    if c.flag("enable_moe_block"):
        # Router scales and three more norms.
        num_experts = c.size(*EXPERTS)
        network += [
            parts.experts(
                hidden_size, c.size("moe_intermediate_size"), num_experts=num_experts, topk=c.size(*TOPK),
                vectors=num_experts + 4 * hidden_size,
                # Beside the dense network, not in its place.
                name="moe",
            )
        ]  # fmt: skip
    if dim := c.maybe("hidden_size_per_layer_input"):
        matrices = (Matrix("per_layer_input_gate", dim, hidden_size), Matrix("per_layer_projection", hidden_size, dim))
        network += [Part("inputs of a layer", matrices, hidden_size)]
    return tuple(network)


def halved_network(c, i, num_layers) -> tuple[Part, ...]:
    """The first Qwen states the size of gate and projection together."""
    return (parts.feed_forward(c.size("hidden_size"), c.size("intermediate_size") // 2),)
