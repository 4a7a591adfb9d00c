"""Classes of ``transformers``: what their code does that no option of a configuration says, a row each."""

from collections.abc import Callable
from dataclasses import dataclass, field

from idealized_runtime.architectures.hf import mixers
from idealized_runtime.architectures.hf.networks import gemma4_network, halved_network


@dataclass(frozen=True)
class Style:
    """What the code of a class does, where no option of its configuration says it.

    Parameters
    ----------
    mixers : dict
        What mixes the tokens of layers of a kind, where it is not attention with heads in groups.
    usual : callable
        Kind of a layer from options, its number and their number, where the configuration does not list them.
    qkv_bias, output_bias, mlp_bias : bool or str
        Biases, or the option that says so.
    qk_norm : {None, "per_head", "all_heads", "hidden"}
        Of queries and keys, the last as wide as heads usually are together; ``qk_norm_option`` is the option that
        switches it, where there is one.
    gate : {None, "queries", "heads", "hidden"}
        The attention's output is gated by numbers as many as queries and projected with them, one a head, or as many
        as queries by a matrix of its own.
    num_norms : int
        Norms of the width of the hidden state in a layer.
    norm_vectors : {1, 2, 0}
        Parameters of a norm by its width: 2 with a bias.
    is_gated : bool
        Of the feed-forward network.
    router_vectors : int
        Parameters of a router for each expert, beside its matrix.
    is_single : bool
        A layer either mixes tokens or is a feed-forward network, under one norm.
    shared_gate : bool
        The expert that every token visits is weighed by a projection onto one number.
    num_dense, num_shared : int
        First layers without experts, where no option says; experts that every token visits, whatever options say.
    ties : bool
        The output projection can be the embedding matrix, if options say so.
    head_bias : bool or str
        Bias of the output projection.
    aliases : dict
        Other names of options, where ``transformers`` has no class that says so.
    network : callable, optional
        Makes what follows attention, where it is not a feed-forward network or experts.
    """

    mixers: dict[str, Callable] = field(default_factory=dict)
    usual: Callable = lambda c, i, num_layers: "full_attention"
    qkv_bias: bool | str = "attention_bias"
    output_bias: bool | str = "attention_bias"
    mlp_bias: bool | str = "mlp_bias"
    qk_norm: str | None = None
    qk_norm_option: str | None = None
    gate: str | None = None
    num_norms: int = 2
    norm_vectors: int = 1
    is_gated: bool = True
    router_vectors: int = 0
    is_single: bool = False
    shared_gate: bool = False
    num_dense: int = 0
    ties: bool = True
    head_bias: bool | str = "lm_head_bias"
    num_shared: int | None = None
    network: Callable | None = None
    aliases: dict[str, str] = field(default_factory=dict)


_RATIOS = {0: "sliding_attention", 4: "compressed_sparse_attention", 128: "heavily_compressed_attention"}


def _compressed_kind(c, i, num_layers):
    ratios = c.listed("compress_ratios", num=num_layers)
    if ratios is None:
        return _RATIOS[128] if i < 2 or i % 2 == 0 else _RATIOS[4]
    if ratios[i] not in _RATIOS:
        c.refuse(("compress_ratios",), ratios[i], f"must be one of {', '.join(map(str, _RATIOS))}")
    return _RATIOS[ratios[i]]


def _every(option, default, usual="sliding_attention", other="full_attention"):
    """One layer of so many is another."""

    def kind(c, i, num_layers):
        every = c.maybe(option)
        every = default if every is None else every
        return other if every and (i + 1) % every == 0 else usual

    return kind


def _qwen_window(c, i, num_layers):
    if not c.flag("use_sliding_window") or c.maybe("sliding_window") is None:
        return "full_attention"
    return "sliding_attention" if i >= (c.maybe("max_window_layers") or 0) else "full_attention"


def _gemma4_kind(c, i, num_layers):
    return "sliding_attention" if (i + 1) % 6 and i + 1 < num_layers else "full_attention"


def _mimo_kind(c, i, num_layers):
    pattern = c.listed("hybrid_layer_pattern", num=num_layers, always=True)
    is_windowed = pattern[i] if pattern is not None else i > 0 and (i + 1) % 6
    return "sliding_attention" if is_windowed else "full_attention"


def _kimi_kind(c, i, num_layers):
    for option in ("routed_expert_hidden_size", "mla_use_output_gate", "attn_res_block_size"):
        if c.config.get(option):
            c.refuse((option,), c.config[option], "what it adds is known neither here nor to transformers 5.23")
    nested = c.find("linear_attn_config") or {}
    full = nested.get("full_attn_layers")
    # They are numbered from 1.
    is_full = i + 1 in full if full is not None else i > 0 and i % 4 == 0
    return "full_attention" if is_full else "linear_attention"


def _bailing_kind(c, i, num_layers):
    return "full_attention" if (i + 1) % c.size("layer_group_size") == 0 else "linear_attention"


def _minimax_kind(c, i, num_layers):
    listed = c.listed("attn_type_list", num=num_layers, always=True)
    is_full = listed[i] == 1 if listed is not None else i % 2 == 0
    return "full_attention" if is_full else "linear_attention"


def _m3_kind(c, i, num_layers):
    sparse = (c.find("sparse_attention_config") or {}).get("sparse_attention_freq")
    return "minimax_m3_sparse" if sparse and sparse[i] else "full_attention"


def _jamba_kind(c, i, num_layers):
    every = c.size("attn_layer_period")
    return "full_attention" if i % every == c.maybe("attn_layer_offset") else "linear_attention"


def _bamba_kind(c, i, num_layers):
    return "full_attention" if i in (c.listed("attn_layer_indices") or ()) else "linear_attention"


def _convolution_kind(c, i, num_layers):
    full = c.listed("full_attn_idxs")
    return "full_attention" if full is None or i in full else "conv"


def _always(kind):
    return lambda c, i, num_layers: kind


def _exaone_kind(c, i, num_layers):
    pattern = c.find("sliding_window_pattern")
    if c.maybe("sliding_window") is None or not pattern:
        return "full_attention"
    if isinstance(pattern, str):
        return "sliding_attention" if pattern[i % len(pattern)] == "L" and i + 1 < num_layers else "full_attention"
    return "sliding_attention" if (i + 1) % pattern else "full_attention"


_LATENT = {"full_attention": mixers.latent}
_COMPRESSED = dict.fromkeys(_RATIOS.values(), mixers.compressed)
_QWEN_DELTA = {
    "mixers": {"linear_attention": mixers.gated_delta}, "qk_norm": "per_head", "gate": "queries",
    "usual": _every("full_attention_interval", 4, "linear_attention"),
}  # fmt: skip
_KIMI = {"linear_attention": mixers.kimi_delta, **_LATENT}
_MAMBA_1 = {"linear_attention": mixers.mamba1}
_STATE_SPACE = {"linear_attention": mixers.mamba2}
_PLAIN = Style()
# Classes that are in their owners' repositories only.
OWN_CODE = {
    "baichuan": Style(qkv_bias=False, output_bias=False),
    "bailing_moe": Style(qkv_bias="use_qkv_bias", output_bias="use_bias", mlp_bias="use_bias"),
    "chatglm": Style(qkv_bias="add_qkv_bias", output_bias="add_bias_linear", mlp_bias="add_bias_linear", aliases={
        "num_layers": "num_hidden_layers", "padded_vocab_size": "vocab_size", "ffn_hidden_size": "intermediate_size",
        "kv_channels": "head_dim", "multi_query_group_num": "num_key_value_heads",
        "seq_length": "max_position_embeddings"}),
    "deepseek": Style(),
    "exaone": Style(aliases={"num_layers": "num_hidden_layers"}),
    "internlm2": Style(qkv_bias="bias", output_bias="bias"),
    "mimo": Style(qkv_bias=True, output_bias=False),
    "nemotron-nas": Style({"searched": mixers.searched}, is_single=True, num_norms=0),
    "qwen": Style(qkv_bias=True, output_bias=False, network=halved_network,
                  aliases={"seq_length": "max_position_embeddings", "kv_channels": "head_dim"}),
}  # fmt: skip
# Families that are read as flat fields, which engines build, stand in the readers beside this module.
STYLES = {
    **OWN_CODE,
    "arcee": Style(is_gated=False),
    "bailing_hybrid": Style(_KIMI, _bailing_kind, gate="heads", ties=False),
    "bamba": Style(_STATE_SPACE, _bamba_kind),
    "cohere": Style(num_norms=1, qk_norm="all_heads", qk_norm_option="use_qk_norm"),
    "cohere2": Style(usual=_every("sliding_window_pattern", 4), num_norms=1),
    "deepseek_v32": Style(_LATENT, mlp_bias=False),
    "deepseek_v4": Style(_COMPRESSED, _compressed_kind, num_shared=1),
    "dots1": Style(qk_norm="per_head"),
    "ernie4_5": Style(qkv_bias="use_bias", output_bias="use_bias", mlp_bias="use_bias"),
    "ernie4_5_moe": Style(qkv_bias="use_bias", output_bias="use_bias", mlp_bias="use_bias", head_bias="use_bias",
                          router_vectors=1),
    "exaone4": Style(usual=_exaone_kind, qk_norm="per_head", qkv_bias=False, output_bias=False),
    "exaone_moe": Style(usual=_exaone_kind, qk_norm="per_head", qkv_bias=False, output_bias=False),
    "falcon_h1": Style({"full_attention": mixers.both}),
    "falcon_mamba": Style(_MAMBA_1, _always("linear_attention"), num_norms=1, is_single=True),
    "gemma4_text": Style({"full_attention": mixers.gemma4_full, "sliding_attention": mixers.grouped}, _gemma4_kind,
                         qk_norm="per_head", num_norms=4, network=gemma4_network),
    "glm": Style(output_bias=False),
    "glm4": Style(output_bias=False, num_norms=4),
    "glm4_moe": Style(output_bias=False, qk_norm="per_head", qk_norm_option="use_qk_norm"),
    "glm4_moe_lite": Style(_LATENT, num_dense=1),
    "glm_moe_dsa": Style(_LATENT, mlp_bias=False),
    "granite": _PLAIN,
    "granitemoe": _PLAIN,
    "granitemoehybrid": Style(_STATE_SPACE, _always("linear_attention")),
    "hy_v3": Style(qk_norm="per_head", num_dense=1),
    "jamba": Style(_MAMBA_1, _jamba_kind),
    "kimi_linear": Style(_KIMI, _kimi_kind, num_dense=1, ties=False),
    "lfm2": Style({"conv": mixers.short_convolution}, _convolution_kind, qk_norm="per_head", qkv_bias=False,
                  output_bias=False),
    "mamba": Style(_MAMBA_1, _always("linear_attention"), num_norms=1, is_single=True),
    "mamba2": Style(_STATE_SPACE, _always("linear_attention"), num_norms=1, is_single=True),
    "mimo_v2_flash": Style({"sliding_attention": mixers.mimo_windowed}, _mimo_kind, output_bias=False, num_dense=1),
    "minimax": Style({"linear_attention": mixers.lightning}, _minimax_kind),
    "minimax_m2": Style(qk_norm="all_heads"),
    "minimax_m3_vl_text": Style({"minimax_m3_sparse": mixers.block_sparse}, _m3_kind, qk_norm="per_head"),
    "ministral3": _PLAIN,
    "nemotron": Style(norm_vectors=2, is_gated=False),
    "nemotron_h": Style(_STATE_SPACE, qkv_bias=False, output_bias=False, num_norms=1, is_single=True, is_gated=False,
                        ties=False),
    "olmo": Style(norm_vectors=0),
    "olmo3": Style(usual=_every("sliding_window_pattern", 4), qk_norm="all_heads"),
    "olmoe": Style(qk_norm="hidden"),
    "phimoe": Style(norm_vectors=2),
    "qwen2_5_vl_text": Style(qkv_bias=True, output_bias=False, usual=_qwen_window),
    "qwen2_vl_text": Style(qkv_bias=True, output_bias=False, usual=_qwen_window),
    "qwen3_5_moe_text": Style(shared_gate=True, **_QWEN_DELTA),
    "qwen3_5_text": Style(**_QWEN_DELTA),
    "qwen3_next": Style(shared_gate=True, **_QWEN_DELTA),
    "qwen3_vl_moe_text": Style(qk_norm="per_head"),
    "qwen3_vl_text": Style(qk_norm="per_head"),
    "seed_oss": Style(output_bias="attention_out_bias"),
    "smollm3": Style(usual=_qwen_window),
    "solar_open": Style(output_bias=False),
    "starcoder2": Style(qkv_bias="use_bias", output_bias="use_bias", mlp_bias="use_bias", norm_vectors=2,
                        is_gated=False),
    "step3p5": Style(gate="heads", qk_norm="per_head", num_dense=3),
}  # fmt: skip
