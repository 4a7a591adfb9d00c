"""Configurations of today's models as layers of parts: one mapping from what their options say.

A class of ``transformers`` has a row in ``classes``: what its code does and no option says. All else is read from the
options, each under the names that any family has for it.
"""

from idealized_runtime.architectures.hf import mixers, networks
from idealized_runtime.architectures.hf.classes import STYLES
from idealized_runtime.architectures.hf.options import Options
from idealized_runtime.architectures.parts import Matrix, Part

_KINDS = ("full_attention", *mixers.WINDOWED)
_NUM_DENSE = ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")
_LAYER_NAMES = {
    "attention": "full_attention", "mamba": "linear_attention", "global": "full_attention", "hybrid": "hybrid",
    "indexed_attention": "full_attention", "deepseek_sparse_attention": "full_attention", "E": "moe", "M":
    "linear_attention", "*": "full_attention", "-": "mlp", "L": "sliding_attention", "G": "full_attention",
}  # fmt: skip


def read(config: dict, family: str) -> tuple[dict, Options]:
    """Fields of an Architecture, layers among them, and the options as they were read."""
    style = STYLES[family]
    c = Options(config, family, style.aliases)
    kinds = _kinds(c, style)
    num_layers = len(kinds)
    sparse = _sparse_layers(c, style, kinds)
    layers = tuple(_layer(c, style, kind, i, num_layers, i in sparse) for i, kind in enumerate(kinds))
    return {**_sizes(c, style, layers), "layers": layers, "outer_parts": _outer_parts(c, num_layers)}, c


def _sizes(c, style, layers):
    """Fields beside the layers: embeddings, and the sizes of most layers."""
    hidden_size = c.size("hidden_size", "d_model", "n_embd")
    heads = c.maybe(*mixers.HEADS) or 1
    head_dim = c.maybe("head_dim", least=1)
    # What no option says because it differs by layer is that of the first layer that has it.
    groups = (_num_rows(layers, "self_attn.k_proj") or 0) // (head_dim or hidden_size // heads) or heads
    width = _num_rows(layers, "mlp.gate_proj") or 1
    fields = {
        "num_layers": len(layers),
        "hidden_size": hidden_size,
        "num_attention_heads": heads,
        "num_query_groups": c.maybe("num_key_value_heads", "num_attention_groups") or groups,
        "ffn_hidden_size": c.maybe("intermediate_size", "moe_intermediate_size", "ffn_hidden_size") or width,
        "kv_channels": head_dim,
        "vocab_size": c.size("vocab_size"),
        "swiglu": style.is_gated,
        "normalization": "LayerNorm" if style.norm_vectors == 2 else "RMSNorm",
        "final_layernorm": style.norm_vectors > 0,
        "position_embedding_type": "rope",
        "add_bias_linear": False,
        "add_qkv_bias": False,
        "add_output_layer_bias": mixers.says(c, style.head_bias),
        "untie_embeddings_and_output_weights": not (style.ties and c.flag("tie_embedding", "tie_word_embeddings")),
        "uncounted_options": {},
    }
    longest = c.maybe("max_position_embeddings", "model_max_length", "max_sequence_length", least=1)
    if longest:
        fields["max_position_embeddings"] = longest
    with_experts = [part for layer in layers for part in layer if part.num_experts]
    if with_experts:
        expert_size = c.maybe("moe_intermediate_size", "expert_ffn_hidden_size") or fields["ffn_hidden_size"]
        fields |= {
            "num_experts": with_experts[0].num_experts,
            "moe_router_topk": with_experts[0].topk,
            "moe_ffn_hidden_size": expert_size,
        }
    if any("latent" in part.kind for layer in layers for part in layer):
        fields |= {
            "q_lora_rank": c.maybe("q_lora_rank", least=1),
            "kv_lora_rank": c.size("kv_lora_rank"),
            "qk_head_dim": c.size("qk_nope_head_dim"),
            "qk_pos_emb_head_dim": c.size("qk_rope_head_dim"),
            "v_head_dim": c.size("v_head_dim"),
            "kv_channels": None,
        }
    return fields


def _num_rows(layers, name):
    """Rows of the first matrix of this name; None where there is none."""
    named = (matrix for layer in layers for part in layer for matrix in part.matrices if matrix.name == name)
    return next((matrix.num_rows for matrix in named), None)


def _kinds(c, style):
    """The kind of each layer."""
    if blocks := c.listed("block_configs"):
        return ["searched"] * len(blocks)
    pattern = c.find("hybrid_override_pattern")
    given = c.listed("layer_types", "layers_block_type") if style.is_single else None
    given = list(pattern) if given is None and isinstance(pattern, str) else given
    if given is None:
        num_layers = c.size("num_hidden_layers", "n_layer", "num_layers")
        given = c.listed("layer_types", num=num_layers)
        if given is None:
            given = [style.usual(c, i, num_layers) for i in range(num_layers)]
    for kind in given:
        if not isinstance(kind, str):
            c.refuse(("layer_types",), kind, "must be text")
    return [_LAYER_NAMES.get(kind, kind) for kind in given]


def _sparse_layers(c, style, kinds):
    """Numbers of the layers whose feed-forward network has experts."""
    layers = range(len(kinds))
    if style.is_single:
        return {i for i in layers if kinds[i] == "moe"}
    if not c.maybe(*networks.EXPERTS):
        return set()
    if (listed := c.listed("mlp_layer_types", num=len(kinds))) is not None:
        return {i for i in layers if listed[i] != "dense"}
    # A number is the period of families that are not read here; a list says it for each layer.
    if isinstance(c.config.get("moe_layer_freq"), list):
        return {i for i in layers if c.listed("moe_layer_freq", num=len(kinds), always=True)[i]}
    if (enumerated := c.find("moe_layers_enum")) is not None:
        numbers = enumerated.split(",") if isinstance(enumerated, str) else enumerated
        return {int(number) for number in numbers}
    if (period := c.maybe("expert_layer_period")) is not None:
        return {i for i in layers if i % period == c.maybe("expert_layer_offset")}
    dense = set(c.listed("mlp_only_layers") or ())
    step = c.maybe("decoder_sparse_step", least=1) or 1
    num_dense = c.maybe(*_NUM_DENSE)
    num_dense = style.num_dense if num_dense is None else num_dense
    return {i for i in layers if i >= num_dense and i not in dense and (i + 1) % step == 0}


def _layer(c, style, kind, i, num_layers, has_experts):
    """Parts of one layer."""
    hidden_size = c.size("hidden_size", "d_model", "n_embd")
    norms = Part("norms", vectors=style.num_norms * style.norm_vectors * hidden_size)
    if style.is_single and kind in ("moe", "mlp"):
        return (networks.experts(c, style) if kind == "moe" else networks.dense(c, style, i), norms)
    mixer = style.mixers.get(kind) or (style.mixers.get("full_attention", mixers.grouped) if kind in _KINDS else None)
    if mixer is None:
        known = ", ".join(dict.fromkeys([*_KINDS, *style.mixers]))
        c.refuse(("layer_types", "layers_block_type"), kind, f"must be one of {known}")
    mixed = mixer(c, style, kind, i, num_layers)
    mixed = mixed if isinstance(mixed, tuple) else (mixed,)
    if style.is_single:
        return (*mixed, norms)
    if style.network is not None:
        return (*mixed, *style.network(c, i, num_layers), norms)
    return (*mixed, networks.experts(c, style) if has_experts else networks.dense(c, style, i), norms)


def _outer_parts(c, num_layers):
    """What there is beside the layers, embeddings and output projection."""
    hidden_size = c.size("hidden_size", "d_model", "n_embd")
    if dim := c.maybe("hidden_size_per_layer_input"):
        width = num_layers * dim
        table = Matrix("embed_tokens_per_layer", c.size("vocab_size_per_layer_input"), width, is_table=True)
        projection = Matrix("per_layer_model_projection", width, hidden_size)
        return (Part("inputs of layers", (table, projection), dim),)
    if streams := c.maybe("hc_mult"):
        return (Part("residual streams", (Matrix("hc_head.hc_fn", streams, streams * hidden_size),), streams + 1),)
    return ()
