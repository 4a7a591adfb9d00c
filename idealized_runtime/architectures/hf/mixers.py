"""What mixes the tokens of a layer, as parts: attention of every kind, linear attention, state spaces, convolutions.

Every function takes the options of a configuration, the style of its class, the kind of the layer, its number and the
number of layers.
"""

from dataclasses import replace

from idealized_runtime.architectures import parts
from idealized_runtime.architectures.parts import Context, Matrix, Part

HEADS = ("num_attention_heads", "n_head", "num_heads")
WINDOWED = ("sliding_attention", "chunked_attention")
_CONV_KERNEL = ("mamba_d_conv", "conv_kernel", "linear_conv_kernel_dim", "conv_L_cache")


def says(c, option) -> bool:
    """Whether something is so, always, never, or as an option of this name has it."""
    return option if isinstance(option, bool) else c.flag(option)


def grouped(c, style, kind, i, num_layers):
    """Attention with heads in groups; of windowed layers some families have other sizes."""
    for number, own in (c.config.get("per_layer_config") or {}).items():
        c = c.replaced(**own) if int(number) == i else c
    hidden_size, is_windowed = c.size("hidden_size"), kind in WINDOWED
    heads, groups, head_dim, value_dim = _head_sizes(c, is_windowed, i)
    gate = {
        "heads": (Matrix("self_attn.g_proj", heads, hidden_size),),
        "hidden": (Matrix("self_attn.gate_proj", heads * head_dim, hidden_size),),
    }.get(style.gate, ())
    query_size, key_size, value_size = heads * head_dim, groups * head_dim, groups * value_dim
    num_sharing = c.maybe("num_kv_shared_layers") or 0
    own_keys = i < num_layers - num_sharing
    own_values = own_keys and not (c.flag("attention_k_eq_v") and not is_windowed)
    copies = 2 if style.gate == "queries" else 1
    vectors = (copies * query_size + key_size * own_keys + value_size * own_values) * says(c, style.qkv_bias)
    vectors += hidden_size * says(c, style.output_bias)
    if style.qk_norm and (style.qk_norm_option is None or c.flag(style.qk_norm_option)):
        sizes = {
            "per_head": (head_dim, head_dim),
            "all_heads": (query_size, key_size),
            "hidden": (hidden_size, hidden_size // heads * groups),
        }[style.qk_norm]
        vectors += sizes[0] + sizes[1] * own_keys
    if c.flag("add_swa_attention_sink_bias" if is_windowed else "add_full_attention_sink_bias"):
        vectors += heads
    return parts.attention(
        hidden_size, heads, groups, head_dim, value_dim=value_dim,
        window=_window(c) if is_windowed else None, is_chunk=kind == "chunked_attention",
        query_copies=copies,
        own_keys=own_keys, own_values=own_values, extra=gate, vectors=vectors,
    )  # fmt: skip


def gemma4_full(c, style, kind, i, num_layers):
    """Layers without a window have wider heads."""
    usual = {} if c.config.get("per_layer_config") else {"global_head_dim": 512}
    return grouped(c.replaced(**given_or(c, usual)), style, kind, i, num_layers)


def given_or(c, usual):
    """Options that are read whether or not the class knows them."""
    return {name: c.config.get(name, value) for name, value in usual.items()}


def mimo_windowed(c, style, kind, i, num_layers):
    """Windowed layers have twice the groups, and sinks, where nothing else is said."""
    usual = {"swa_num_key_value_heads": 2 * c.size("num_key_value_heads"), "add_swa_attention_sink_bias": True}
    return grouped(c.replaced(**given_or(c, usual)), style, kind, i, num_layers)


def _window(c):
    # MiMo counts the tokens before the newest.
    before = c.maybe("sliding_window_size", least=1)
    return before + 1 if before else c.maybe("sliding_window", "attention_chunk_size", least=1)


def _head_sizes(c, is_windowed, i):
    """Heads, their groups, the width of a key and of a value."""
    prefix = ("swa_",) if is_windowed else ("global_", "full_")

    def maybe(*names, particular=()):
        # One of its own comes before the one of all layers, whoever says it.
        own = (*particular, *(f"{start}{name}" for start in prefix for name in names))
        return next((c.maybe(name, least=1) for name in (*own, *names) if c.find(name) is not None), None)

    particular = ("num_sliding_attention_heads",) if is_windowed else ()
    heads = maybe(*HEADS, particular=particular)
    if (per_layer := c.listed("num_attention_heads_per_layer")) is not None:
        heads = per_layer[i]
    if heads is None:
        c.size(*HEADS)
    global_groups = () if is_windowed or not c.flag("attention_k_eq_v") else ("num_global_key_value_heads",)
    groups = maybe("num_key_value_heads", "num_attention_groups", particular=global_groups) or heads
    head_dim = maybe("head_dim") or c.size("hidden_size") // heads
    if heads % groups:
        raise ValueError(
            f"{c.family}: num_attention_heads ({heads}) must be a multiple of num_key_value_heads ({groups})"
        )
    return heads, groups, head_dim, maybe("v_head_dim") or head_dim


def latent(c, style, kind, i, num_layers):
    """Multi-latent attention, with an indexer that selects tokens where options name one."""
    indexer = None
    if (num_selected := c.maybe("index_topk", least=1)) is not None:
        index = (c.size("index_n_heads"), c.size("index_head_dim"))
        indexer = (*(index if _has_own_indexer(c, i, num_layers) else (0, 0)), num_selected)
    heads, hidden_size = c.size("num_attention_heads"), c.size("hidden_size")
    gate = {"heads": heads, "hidden": heads * c.size("v_head_dim")}.get(style.gate)
    query_rank, rotary_dim = c.maybe("q_lora_rank", least=1), c.size("qk_rope_head_dim")
    has_bias = says(c, style.qkv_bias)
    biases = ((query_rank or 0) + c.size("kv_lora_rank") + rotary_dim + hidden_size) * has_bias
    return parts.latent_attention(
        hidden_size, heads, query_rank=query_rank, latent_rank=c.size("kv_lora_rank"),
        plain_dim=c.size("qk_nope_head_dim"), rotary_dim=rotary_dim, value_dim=c.size("v_head_dim"), indexer=indexer,
        extra=(Matrix("self_attn.g_proj", gate, hidden_size),) if gate else (), vectors=biases,
    )  # fmt: skip


def _has_own_indexer(c, i, num_layers):
    if (kinds := c.listed("indexer_types", num=num_layers)) is not None:
        return kinds[i] == "full"
    pattern = c.find("index_topk_pattern")
    if pattern is not None:
        return pattern[i] in ("F", "full")
    every, offset = max(c.maybe("index_topk_freq") or 1, 1), c.maybe("index_skip_topk_offset")
    return max(i - (2 if offset is None else offset) + 1, 0) % every == 0


def gated_delta(c, style, kind, i, num_layers):
    """Qwen's linear attention."""
    hidden_size = c.size("hidden_size")
    key_heads, value_heads = c.size("linear_num_key_heads"), c.size("linear_num_value_heads")
    key_dim, value_dim = c.size("linear_key_head_dim"), c.size("linear_value_head_dim")
    values = value_heads * value_dim
    matrices = (
        Matrix("linear_attn.in_proj_qkv", 2 * key_heads * key_dim + values, hidden_size),
        Matrix("linear_attn.in_proj_z", values, hidden_size),
        Matrix("linear_attn.in_proj_b", value_heads, hidden_size),
        Matrix("linear_attn.in_proj_a", value_heads, hidden_size),
        Matrix("linear_attn.out_proj", hidden_size, values),
    )
    return parts.delta_rule(
        num_key_heads=key_heads, num_value_heads=value_heads, key_dim=key_dim, value_dim=value_dim,
        kernel=c.size(*_CONV_KERNEL), projections=matrices, vectors=2 * value_heads + value_dim,
        state_dtype=_state_dtype(c),
    )  # fmt: skip


def _state_dtype(c):
    """Of states, where it is not that of the cache; Qwen's has no place in its class."""
    dtype = c.config.get("mamba_ssm_dtype") or c.find("mamba_ssm_cache_dtype")
    return dtype if dtype in ("float32", "bfloat16", "float16") else None


def kimi_delta(c, style, kind, i, num_layers):
    """Kimi's linear attention, which forgets each channel of a key at its own rate."""
    hidden_size, nested = c.size("hidden_size"), c.find("linear_attn_config") or {}
    inner = c.replaced(**nested)
    if c.family == "bailing_hybrid":
        dim, heads = (
            c.config.get("linear_head_dim") or c.maybe("head_dim") or hidden_size // c.size("num_attention_heads"),
            c.size("num_attention_heads"),
        )
    else:
        dim = inner.size("head_dim" if "head_dim" in nested else "linear_head_dim")
        heads = inner.size("num_heads" if "num_heads" in nested else "linear_num_heads")
    size = heads * dim
    kernel = inner.size("short_conv_kernel_size", "linear_conv_kernel_dim")
    low_rank = (("f_a_proj", dim, hidden_size), ("f_b_proj", size, dim), ("g_a_proj", dim, hidden_size),
                ("g_b_proj", size, dim))  # fmt: skip
    full_rank = (("f_proj", size, hidden_size), ("g_proj", size, hidden_size))
    named = low_rank if c.family == "kimi_linear" else full_rank
    matrices = (
        *(Matrix(f"self_attn.{name}_proj", size, hidden_size) for name in "qkv"),
        *(Matrix(f"self_attn.{name}", rows, columns) for name, rows, columns in named),
        Matrix("self_attn.b_proj", heads, hidden_size),
        Matrix("self_attn.o_proj", hidden_size, size),
    )
    return parts.delta_rule(
        num_key_heads=heads, num_value_heads=heads, key_dim=dim, value_dim=dim, kernel=kernel, projections=matrices,
        vectors=size + heads + dim,
    )  # fmt: skip


def lightning(c, style, kind, i, num_layers):
    """MiniMax's linear attention, whose state decays at fixed rates."""
    hidden_size, heads = c.size("hidden_size"), c.size(*HEADS)
    dim = c.maybe("head_dim", least=1) or hidden_size // heads
    size, memory = heads * dim, heads * dim * dim
    matrices = (
        Matrix("self_attn.qkv_proj", 3 * size, hidden_size),
        Matrix("self_attn.output_gate", size, hidden_size),
        Matrix("self_attn.out_proj", hidden_size, size),
    )
    return Part("linear attention", matrices, size, state=memory, token_flops=4 * memory)


def mamba2(c, style, kind, i, num_layers):
    hidden_size = c.size("hidden_size")
    heads = c.size("mamba_num_heads", "mamba_n_heads", "num_heads")
    head_dim = c.find("mamba_head_dim", "mamba_d_head", "head_dim")
    inner_size = c.maybe("mamba_d_ssm", least=1) or (
        heads * head_dim if isinstance(head_dim, int) else c.size("mamba_expand", "expand") * hidden_size
    )
    return parts.state_space(
        hidden_size,
        inner_size=inner_size,
        num_heads=heads,
        state_size=c.size("ssm_state_size", "mamba_d_state", "state_size"),
        num_groups=c.size("mamba_n_groups", "n_groups"),
        kernel=c.size(*_CONV_KERNEL),
        conv_bias=c.flag("use_conv_bias", "mamba_conv_bias"),
        bias=c.flag("use_bias", "mamba_proj_bias"),
        out_bias=c.flag("projectors_bias", "use_bias", "mamba_proj_bias"),
        norm=c.flag("mamba_rms_norm") if c.family == "falcon_h1" else True,
        state_dtype=_state_dtype(c),
    )


def mamba1(c, style, kind, i, num_layers):
    hidden_size = c.size("hidden_size")
    expand = c.find("expand", "mamba_expand") or 2
    inner_size, state_size = int(expand * hidden_size), c.size("state_size", "mamba_d_state")
    # Where it is all there is, a feed-forward network can have no size.
    inner_size = (c.config.get("intermediate_size") if style.is_single else None) or inner_size
    rank = c.find("time_step_rank", "mamba_dt_rank")
    rank = rank if isinstance(rank, int) else -(-hidden_size // 16)
    kernel, bias = c.size(*_CONV_KERNEL), c.flag("use_bias", "mamba_proj_bias")
    matrices = (
        Matrix("mamba.in_proj", 2 * inner_size, hidden_size),
        Matrix("mamba.x_proj", rank + 2 * state_size, inner_size),
        Matrix("mamba.dt_proj", inner_size, rank),
        Matrix("mamba.out_proj", hidden_size, inner_size),
    )
    memory = inner_size * state_size
    vectors = memory + 2 * inner_size + (kernel + c.flag("use_conv_bias", "mamba_conv_bias")) * inner_size
    vectors += (2 * inner_size + hidden_size) * bias
    vectors += rank + 2 * state_size if c.family == "jamba" else 0
    return Part(
        "state space", matrices, vectors, state=memory + (kernel - 1) * inner_size,
        token_flops=4 * memory + 2 * kernel * inner_size,
    )  # fmt: skip


def searched(c, style, kind, i, num_layers):
    """A layer of Nemotron-NAS, of which a search left out parts or replaced them: with its own norms."""
    block, hidden_size = c.listed("block_configs")[i], c.size("hidden_size")
    found = []
    mixer, network = block["attention"], block["ffn"]
    if mixer.get("replace_with_linear"):
        found.append(Part("linear layer", (Matrix("self_attn.linear_attn", hidden_size, hidden_size),)))
    elif not mixer.get("no_op"):
        heads = c.size("num_attention_heads")
        c = c.replaced(num_key_value_heads=heads // mixer["n_heads_in_group"])
        found.append(grouped(c, style, kind, i, num_layers))
    if network.get("replace_with_linear"):
        found.append(Part("linear layer", (Matrix("mlp.linear_mlp", hidden_size, hidden_size),)))
    elif not network.get("no_op"):
        # Two thirds of a multiple of the width, rounded up to 256.
        size = 256 * -(-int(2 * network["ffn_mult"] * hidden_size / 3) // 256)
        found.append(parts.feed_forward(hidden_size, size, bias=c.flag("mlp_bias")))
    return (*found, Part("norms", vectors=len(found) * hidden_size))


def both(c, style, kind, i, num_layers):
    """Attention and a state space side by side."""
    return grouped(c, style, "full_attention", i, num_layers), mamba2(c, style, kind, i, num_layers)


def short_convolution(c, style, kind, i, num_layers):
    hidden_size, kernel, bias = c.size("hidden_size"), c.size(*_CONV_KERNEL), c.flag("conv_bias")
    matrices = (
        Matrix("conv.in_proj", 3 * hidden_size, hidden_size),
        Matrix("conv.out_proj", hidden_size, hidden_size),
    )
    return Part(
        "convolution", matrices, (kernel + 5 * bias) * hidden_size, state=(kernel - 1) * hidden_size,
        token_flops=2 * kernel * hidden_size,
    )  # fmt: skip


def block_sparse(c, style, kind, i, num_layers):
    """MiniMax M3: an indexer selects blocks of tokens for each group of heads."""
    dense = grouped(c, style, "full_attention", i, num_layers)
    hidden_size, heads, dim = c.size("hidden_size"), c.size("index_n_heads"), c.size("index_head_dim")
    selected = c.size("index_topk_blocks") * c.size("index_block_size")
    index = (Matrix("self_attn.index_q_proj", heads * dim, hidden_size),
             Matrix("self_attn.index_k_proj", dim, hidden_size))  # fmt: skip
    contexts = (
        replace(dense.contexts[0], window=selected, kept="all"),
        Context(dim, 2 * heads * dim, 2 * heads * dim),
    )
    return replace(
        dense, kind="sparse attention", matrices=dense.matrices + index, vectors=dense.vectors + 2 * dim,
        contexts=contexts,
    )  # fmt: skip


def compressed(c, style, kind, i, num_layers):
    """DeepSeek-V4: one key-value head over a window, and over entries that stand for several tokens each."""
    hidden_size, heads, dim = c.size("hidden_size"), c.size("num_attention_heads"), c.size("head_dim")
    query_rank, groups, output_rank = c.size("q_lora_rank"), c.size("o_groups"), c.size("o_lora_rank")
    matrices = [
        Matrix("self_attn.q_a_proj", query_rank, hidden_size),
        Matrix("self_attn.q_b_proj", heads * dim, query_rank),
        Matrix("self_attn.kv_proj", dim, hidden_size),
        Matrix("self_attn.o_a_proj", groups * output_rank, heads * dim // groups),
        Matrix("self_attn.o_b_proj", hidden_size, groups * output_rank),
    ]
    vectors, per_pair = heads + query_rank + dim, 4 * heads * dim
    contexts = [Context(dim, per_pair, per_pair, window=_window(c))]
    stride = _compress_rate(c, kind)
    if stride:
        # Entries overlap where several of them are selected from: each has two halves.
        is_selected = kind == "compressed_sparse_attention"
        width = (2 if is_selected else 1) * dim
        matrices += [Matrix(f"self_attn.compressor.{name}_proj", width, hidden_size) for name in ("kv", "gate")]
        vectors += stride * width + dim
        chosen = c.size("index_topk") if is_selected else None
        contexts += [Context(dim, per_pair, per_pair, window=chosen, stride=stride, kept="all")]
        if is_selected:
            index_heads, index_dim = c.size("index_n_heads"), c.size("index_head_dim")
            matrices += [
                *(Matrix(f"self_attn.indexer.{name}_proj", 2 * index_dim, hidden_size) for name in ("kv", "gate")),
                Matrix("self_attn.indexer.q_b_proj", index_heads * index_dim, query_rank),
                Matrix("self_attn.indexer.weights_proj", index_heads, hidden_size),
            ]
            vectors += stride * 2 * index_dim + index_dim
            per_index = 2 * index_heads * index_dim
            contexts += [Context(index_dim, per_index, per_index, stride=stride)]
    streams = c.size("hc_mult")
    # Around attention and around the experts, residual streams are mixed.
    mixed = (2 + streams) * streams
    matrices += [Matrix(f"{name}_hc.fn", mixed, streams * hidden_size) for name in ("attn", "ffn")]
    return Part("compressed attention", tuple(matrices), vectors + 2 * (mixed + 3), tuple(contexts))


def _compress_rate(c, kind):
    if kind == "sliding_attention":
        return 0
    rates = c.find("compress_rates")
    legacy = {"compressed_sparse_attention": "compress_rate_csa", "heavily_compressed_attention": "compress_rate_hca"}
    given = c.maybe(legacy[kind], least=1)
    return given or (rates or {}).get(kind) or {"compressed_sparse_attention": 4}.get(kind, 128)
