"""What a layer is made of: its matrices, what its tokens attend to, and what a sequence leaves behind.

A layer is a tuple of parts (attention or another mixer of tokens, a feed-forward network or experts, norms); a model
is a sequence of layers between embeddings and output projection. Everything counted here derives from the parts:
parameters, bytes, operations.
"""

import dataclasses
from dataclasses import dataclass

# The table of learned positions.
POSITIONS = "embed_positions"


@dataclass(frozen=True)
class Matrix:
    """A weight that meets every token in one multiplication and one addition, or a table of which it reads a row.

    Parameters
    ----------
    name : str
        As ``transformers`` calls it within a layer; quantised formats are told by it.
    num_rows, num_columns : int
        Outputs and inputs.
    is_expert : bool
        There is one for each expert, of which a token visits some.
    is_table : bool
        A token reads one row; nothing is multiplied.
    """

    name: str
    num_rows: int
    num_columns: int
    is_expert: bool = False
    is_table: bool = False

    @property
    def size(self) -> int:
        """Its weights; those of one expert."""
        return self.num_rows * self.num_columns


@dataclass(frozen=True)
class Context:
    """What a token attends to, and what of it is cached.

    Parameters
    ----------
    numbers : int
        In one entry of the cache, which every later token that attends to it reads.
    prompt_flops, token_flops : int
        Operations of one pair of query and entry, in a prompt and of a further output token.
    window : int, optional
        Most entries that a token attends to: the newest, or those an indexer selects.
    is_chunk : bool
        The context is cut into chunks of ``window``, and a token attends to its own chunk only.
    stride : int
        Tokens that one entry stands for.
    kept : {"attended", "all", "elsewhere"}
        Entries that stay in the cache: those within the window, or all; or they are another layer's.
    """

    numbers: int
    prompt_flops: int
    token_flops: int
    window: int | None = None
    is_chunk: bool = False
    stride: int = 1
    kept: str = "attended"


@dataclass(frozen=True)
class Part:
    """One part of a layer.

    Parameters
    ----------
    kind : str
        "attention", "latent attention", "linear attention", "state space", "convolution", "feed-forward", "experts",
        "norms", ...
    matrices : tuple of Matrix
    vectors : int
        Parameters that are in no matrix: biases, norms, attention sinks, kernels of short convolutions.
    contexts : tuple of Context
    num_experts, topk : int
        Routed experts, and how many of them a token visits.
    expert_vectors : int
        As ``vectors``, of one expert.
    state : int
        Numbers that a sequence keeps however long it is, all of them read for each output token.
    state_dtype : str, optional
        Of these; as the cache where it is not given.
    token_flops : int
        Operations of a token beyond two for each weight of a matrix: updates of a state, short convolutions.
    """

    kind: str
    matrices: tuple[Matrix, ...] = ()
    vectors: int = 0
    contexts: tuple[Context, ...] = ()
    num_experts: int = 0
    topk: int = 0
    expert_vectors: int = 0
    state: int = 0
    state_dtype: str | None = None
    token_flops: int = 0

    def num_params(self, num_experts: int | None = None) -> int:
        """Parameters with this many of its experts; with all where it is not given."""
        return self.num_matrix_params(num_experts, tables=True) + self.num_vector_params(num_experts)

    def num_matrix_params(self, num_experts: int | None = None, *, tables: bool = False) -> int:
        """Weights of its matrices, with so many experts; and of its tables, if asked."""
        met = self._num_met(num_experts)
        return sum(m.size * (met if m.is_expert else 1) for m in self.matrices if tables or not m.is_table)

    def num_vector_params(self, num_experts: int | None = None) -> int:
        """Parameters in no matrix, with so many experts."""
        return self.vectors + self.expert_vectors * self._num_met(num_experts)

    def _num_met(self, num_experts):
        return self.num_experts if num_experts is None else min(num_experts, self.num_experts)

    def flops_per_token(self) -> int:
        """Operations of a token, pairs of tokens left out."""
        return 2 * self.num_matrix_params(self.topk) + self.token_flops

    @classmethod
    def from_dict(cls, fields: dict) -> "Part":
        """Inverse of ``dataclasses.asdict``."""
        nested = {"matrices": Matrix, "contexts": Context}
        return cls(**{
            name: tuple(nested[name](**entry) for entry in value) if name in nested else value
            for name, value in fields.items()
        })  # fmt: skip


Layer = tuple[Part, ...]


def layers_to_json(layers: tuple[Layer, ...]) -> dict:
    """Layers in JSON's types: the distinct ones, and which of them each layer is. What is as usual is left out."""
    kinds = list(dict.fromkeys(layers))
    return {
        "kinds": [[_unusual(part) for part in kind] for kind in kinds],
        "pattern": [kinds.index(layer) for layer in layers],
    }


def layers_from_json(written: dict) -> tuple[Layer, ...]:
    """Inverse of :func:`layers_to_json`."""
    kinds = [tuple(Part.from_dict(part) for part in kind) for kind in written["kinds"]]
    return tuple(kinds[number] for number in written["pattern"])


def _unusual(entry) -> dict:
    values = {f.name: getattr(entry, f.name) for f in dataclasses.fields(entry)}
    usual = {f.name: f.default for f in dataclasses.fields(entry)}
    return {
        name: [_unusual(inner) for inner in value] if isinstance(value, tuple) else value
        for name, value in values.items()
        if value != usual[name]
    }


def attention(hidden_size, num_heads, num_groups, head_dim, *, value_dim=None, window=None, is_chunk=False,
              query_copies=1, own_keys=True, own_values=True, extra=(), vectors=0) -> Part:  # fmt: skip
    """Attention with heads in groups that share keys and values.

    Parameters
    ----------
    hidden_size, num_heads, num_groups, head_dim : int
    value_dim : int, optional
        Width of a head's values, where it is not that of its keys.
    window, is_chunk
        As of :class:`Context`.
    query_copies : int
        2 where queries come with a gate of their width.
    own_keys, own_values : bool
        False where keys and values are another layer's, or values are the keys.
    extra : tuple of Matrix
        Gates and other matrices beside these.
    vectors : int
        Biases, norms of heads, sinks.
    """
    value_dim = value_dim or head_dim
    matrices = [Matrix("self_attn.q_proj", query_copies * num_heads * head_dim, hidden_size)]
    matrices += [Matrix("self_attn.k_proj", num_groups * head_dim, hidden_size)] if own_keys else []
    matrices += [Matrix("self_attn.v_proj", num_groups * value_dim, hidden_size)] if own_values else []
    matrices += [Matrix("self_attn.o_proj", hidden_size, num_heads * value_dim), *extra]
    per_pair = 2 * num_heads * (head_dim + value_dim)
    context = Context(
        num_groups * (head_dim + value_dim), per_pair, per_pair, window, is_chunk,
        kept="attended" if own_keys else "elsewhere",
    )  # fmt: skip
    return Part("attention", tuple(matrices), vectors, (context,))


def latent_attention(hidden_size, num_heads, *, query_rank, latent_rank, plain_dim, rotary_dim, value_dim,
                     indexer=None, extra=(), vectors=0) -> Part:  # fmt: skip
    """Multi-latent attention (arXiv:2405.04434): keys and values are projected from a latent, which is cached.

    Parameters
    ----------
    hidden_size, num_heads : int
    query_rank : int or None
        Rank of the queries; none: full.
    latent_rank, plain_dim, rotary_dim, value_dim : int
        Of the latent; widths of a query's part without and with rotary position, and of a value.
    indexer : tuple of int, optional
        Sparse attention: heads and width of an indexer that selects tokens, and how many it selects. Zero heads: the
        selection is the one of a layer before.
    extra, vectors
        Further matrices; biases. The norms of the latents are counted here.
    """
    query_size, key_value_size = num_heads * (plain_dim + rotary_dim), num_heads * (plain_dim + value_dim)
    if query_rank:
        matrices = [Matrix("self_attn.q_a_proj", query_rank, hidden_size)]
        matrices += [Matrix("self_attn.q_b_proj", query_size, query_rank)]
    else:
        matrices = [Matrix("self_attn.q_proj", query_size, hidden_size)]
    matrices += [
        Matrix("self_attn.kv_a_proj_with_mqa", latent_rank + rotary_dim, hidden_size),
        Matrix("self_attn.kv_b_proj", key_value_size, latent_rank),
        Matrix("self_attn.o_proj", hidden_size, num_heads * value_dim),
        *extra,
    ]
    vectors += (query_rank or 0) + latent_rank
    context = Context(
        latent_rank + rotary_dim,
        2 * num_heads * (plain_dim + rotary_dim + value_dim),
        # The query is brought to the latents; nothing of the context is projected again.
        2 * num_heads * (2 * latent_rank + rotary_dim),
    )
    if indexer is None:
        return Part("latent attention", tuple(matrices), vectors, (context,))
    num_index_heads, index_dim, num_selected = indexer
    contexts = [dataclasses.replace(context, window=num_selected, kept="all")]
    if num_index_heads:
        matrices += [
            Matrix("self_attn.indexer.wq_b", num_index_heads * index_dim, query_rank or hidden_size),
            Matrix("self_attn.indexer.wk", index_dim, hidden_size),
            Matrix("self_attn.indexer.weights_proj", num_index_heads, hidden_size),
        ]
        vectors += 2 * index_dim
        per_pair = 2 * num_index_heads * index_dim
        contexts += [Context(index_dim, per_pair, per_pair)]
    return Part("sparse latent attention", tuple(matrices), vectors, tuple(contexts))


def delta_rule(*, num_key_heads, num_value_heads, key_dim, value_dim, kernel, projections, vectors,
               state_dtype=None) -> Part:  # fmt: skip
    """Linear attention that corrects a state of keys and values (gated delta rule, arXiv:2412.06464).

    ``projections`` are its matrices, of which implementations cut differently many; ``vectors`` those beside the
    kernels of the convolutions over queries, keys and values.
    """
    num_channels = 2 * num_key_heads * key_dim + num_value_heads * value_dim
    memory = num_value_heads * key_dim * value_dim
    return Part(
        "linear attention",
        tuple(projections),
        vectors + kernel * num_channels,
        # The kernel reads the newest token and those kept before it.
        state=memory + (kernel - 1) * num_channels if state_dtype is None else memory,
        state_dtype=state_dtype,
        # Read for the key, corrected by an outer product, read for the query: two operations a number each.
        token_flops=6 * memory + 2 * kernel * num_channels,
    )  # fmt: skip


def state_space(hidden_size, *, inner_size, num_heads, state_size, num_groups, kernel, conv_bias=True, bias=False,
                out_bias=False, norm=True, state_dtype=None, vectors=0) -> Part:  # fmt: skip
    """A Mamba-2 mixer (arXiv:2405.21060): a state of ``inner_size`` times ``state_size`` numbers."""
    num_channels = inner_size + 2 * num_groups * state_size
    matrices = (
        Matrix("mamba.in_proj", inner_size + num_channels + num_heads, hidden_size),
        Matrix("mamba.out_proj", hidden_size, inner_size),
    )
    vectors += (kernel + conv_bias) * num_channels + 3 * num_heads + norm * inner_size
    vectors += (inner_size + num_channels + num_heads) * bias + hidden_size * out_bias
    memory = inner_size * state_size
    return Part(
        "state space", matrices, vectors,
        state=memory + (kernel - 1) * num_channels if state_dtype is None else memory,
        state_dtype=state_dtype,
        token_flops=4 * memory + 2 * kernel * num_channels,
    )  # fmt: skip


def feed_forward(hidden_size, ffn_size, *, is_gated=True, bias=False, name="mlp", kind="feed-forward") -> Part:
    """A feed-forward network of three matrices, or of two where it has no gate."""
    matrices = (Matrix(f"{name}.gate_proj", ffn_size, hidden_size),) if is_gated else ()
    matrices += (Matrix(f"{name}.up_proj", ffn_size, hidden_size), Matrix(f"{name}.down_proj", hidden_size, ffn_size))
    return Part(kind, matrices, (ffn_size * (1 + is_gated) + hidden_size) * bias)


def experts(hidden_size, expert_size, *, num_experts, topk, shared_size=0, shared_gate=False, latent_size=None,
            is_gated=True, bias=False, shared_bias=False, vectors=0, name="mlp") -> Part:  # fmt: skip
    """Routed experts, and one that every token visits where ``shared_size`` is positive.

    ``latent_size`` is the width that routed experts work in where it is not ``hidden_size``: a matrix leads there, and
    one back. ``bias`` is that of routed experts; ``vectors`` are the router's.
    """
    routed = feed_forward(latent_size or hidden_size, expert_size, is_gated=is_gated, bias=bias, name=f"{name}.experts")
    shared = feed_forward(hidden_size, shared_size, is_gated=is_gated, bias=shared_bias, name=f"{name}.shared_experts")
    matrices = [Matrix(f"{name}.gate", num_experts, hidden_size)]
    matrices += [dataclasses.replace(matrix, is_expert=True) for matrix in routed.matrices]
    matrices += shared.matrices if shared_size else ()
    matrices += [Matrix(f"{name}.shared_expert_gate", 1, hidden_size)] if shared_gate else []
    if latent_size:
        matrices += [Matrix(f"{name}.fc1_latent_proj", latent_size, hidden_size)]
        matrices += [Matrix(f"{name}.fc2_latent_proj", hidden_size, latent_size)]
    return Part(
        "experts", tuple(matrices), vectors + (shared.vectors if shared_size else 0),
        num_experts=num_experts, topk=topk, expert_vectors=routed.vectors,
    )  # fmt: skip


def plain_layers(architecture) -> tuple[Layer, ...]:
    """Layers of an architecture that is described by its fields alone, one by one."""
    a = architecture
    mixers, networks, norms = _plain_parts(a)
    return tuple(
        (mixers[_is_windowed(a, number)], networks[_has_experts(a, number)], norms) for number in range(a.num_layers)
    )


def plain_blocks(architecture) -> tuple[tuple[Part, int], ...]:
    """Their parts, and how many there are of each: by arithmetic, however many layers there are."""
    a = architecture
    mixers, networks, norms = _plain_parts(a)
    num_windowed = _num_so(a, a.window_attn_skip_freq, a.window_size is not None, lambda n, every: n - n // every)
    num_sparse = _num_so(a, a.moe_layer_freq, a.num_experts is not None, lambda n, every: -(-n // every))
    counted = [
        (mixers[False], a.num_layers - num_windowed),
        (mixers[True], num_windowed),
        (networks[False], a.num_layers - num_sparse),
        *([(networks[True], num_sparse)] if num_sparse else []),
        (norms, a.num_layers),
    ]
    return tuple((part, number) for part, number in counted if number)


def _num_so(a, pattern, is_any, of_every):
    """Layers of which something is so: none, all, those listed, or as many as a period makes."""
    if not is_any or pattern is None:
        return a.num_layers * is_any
    return sum(pattern) if isinstance(pattern, tuple) else of_every(a.num_layers, pattern)


def _plain_parts(a):
    """Attention without and with a window, networks without and with experts, and the norms of a layer."""
    mixers = {False: _plain_attention(a, None), True: _plain_attention(a, a.window_size)}
    networks = {False: feed_forward(a.hidden_size, a.ffn_hidden_size, is_gated=a.swiglu, bias=a.add_bias_linear)}
    if a.num_experts is not None:
        networks[True] = experts(
            a.hidden_size,
            a.moe_ffn_hidden_size,
            num_experts=a.num_experts,
            topk=a.moe_router_topk,
            shared_size=a.moe_shared_expert_intermediate_size or 0,
            shared_gate=a.moe_shared_expert_gate,
            is_gated=a.swiglu,
            bias=a.add_bias_linear,
            shared_bias=a.add_bias_linear,
            vectors=a.num_experts * a.add_bias_linear,
        )
    return mixers, networks, Part("norms", vectors=a.norms_per_layer * norm_size(a))


def _is_windowed(a, number):
    """Of layers with a window all, all but every so many-th, or those listed; as Megatron places them."""
    if a.window_size is None or a.window_attn_skip_freq is None:
        return a.window_size is not None
    if isinstance(a.window_attn_skip_freq, tuple):
        return bool(a.window_attn_skip_freq[number])
    return (number + 1) % a.window_attn_skip_freq != 0


def _has_experts(a, number):
    """Of every so many layers the first has experts, or those listed."""
    if a.num_experts is None:
        return False
    if isinstance(a.moe_layer_freq, tuple):
        return bool(a.moe_layer_freq[number])
    return number % a.moe_layer_freq == 0


def _plain_attention(a, window):
    if a.multi_latent_attention:
        return latent_attention(
            a.hidden_size,
            a.num_attention_heads,
            query_rank=a.q_lora_rank,
            latent_rank=a.kv_lora_rank,
            plain_dim=a.qk_head_dim,
            rotary_dim=a.qk_pos_emb_head_dim,
            value_dim=a.v_head_dim,
        )
    query_size, key_size = a.num_attention_heads * a.head_dim, a.num_query_groups * a.head_dim
    has_bias = a.add_bias_linear if a.add_attention_bias is None else a.add_attention_bias
    qkv_bias = query_size + 2 * key_size if has_bias or a.add_qkv_bias else 0
    norms = {None: 0, "per_head": 2 * a.head_dim, "all_heads": query_size + key_size}[a.qk_layernorm]
    sinks = a.num_attention_heads if a.softmax_type == "learnable" else 0
    return attention(
        a.hidden_size, a.num_attention_heads, a.num_query_groups, a.head_dim,
        window=window, is_chunk=a.window_is_chunk and window is not None,
        vectors=qkv_bias + (a.hidden_size if has_bias else 0) + norms + sinks,
    )  # fmt: skip


def outer_part(architecture) -> Part:
    """Embeddings, output projection and the norms beside the layers."""
    a = architecture
    width = a.embedding_size or a.hidden_size
    is_untied = a.untie_embeddings_and_output_weights
    matrices = [Matrix("lm_head", a.vocab_size, width)]
    matrices += [Matrix("embed_tokens", a.vocab_size, width, is_table=True)] if is_untied else []
    if a.embedding_size:
        matrices += [Matrix("project_in", a.hidden_size, width), Matrix("project_out", width, a.hidden_size)]
    if a.position_embedding_type == "learned_absolute":
        num_positions = a.max_position_embeddings + a.num_extra_positions
        matrices += [Matrix(POSITIONS, num_positions, a.hidden_size, is_table=True)]
    output_bias = a.vocab_size if a.add_output_layer_bias else 0
    norms = norm_size(a) * (a.embedding_layernorm + a.final_layernorm)
    return Part("embeddings", tuple(matrices), output_bias + norms)


def norm_size(architecture) -> int:
    """Parameters of one norm of a hidden state."""
    return architecture.hidden_size * (2 if architecture.normalization == "LayerNorm" else 1)
