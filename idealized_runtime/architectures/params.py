"""Parameters of an architecture, counted part by part.

Matrices and vectors (biases, norms, attention sinks) are counted apart: a token meets every weight of a
matrix in one multiplication and one addition, so the matrices give the operations as well.
Every function takes an :class:`~idealized_runtime.architectures.Architecture`, whose fields say what is there.
"""


def count_params(architecture, num_experts: int | None) -> int:
    """Parameters when ``num_experts`` experts of each layer that has any count, beside all that is not an expert."""
    a = architecture
    layers = count_layer_matrices(a, num_experts) + a.num_layers * (
        _attention_vectors(a) + a.norms_per_layer * _norm(a)
    )
    dense = (a.num_layers - a.num_moe_layers) * _ffn_vectors(a, a.ffn_hidden_size)
    experts = a.num_moe_layers * _moe_vectors(a, num_experts) if a.num_moe_layers else 0
    final = _norm(a) if a.final_layernorm else 0
    return layers + dense + experts + _embeddings(a) + final


def count_layer_matrices(architecture, num_experts: int | None) -> int:
    """Weights of the matrices of all layers, ``num_experts`` experts of each layer that has any."""
    a = architecture
    dense = (a.num_layers - a.num_moe_layers) * _ffn_matrices(a, a.ffn_hidden_size)
    experts = a.num_moe_layers * _moe_matrices(a, num_experts) if a.num_moe_layers else 0
    return a.num_layers * _attention_matrices(a) + dense + experts


def count_embedding_projection(architecture) -> int:
    """Weights of the matrix between embeddings and hidden states, of which there is one at either end; mostly none."""
    return (architecture.embedding_size or 0) * architecture.hidden_size


def _attention_matrices(a):
    h, num_heads = a.hidden_size, a.num_attention_heads
    if a.multi_latent_attention:
        query_size = num_heads * (a.qk_head_dim + a.qk_pos_emb_head_dim)
        query = (h + query_size) * a.q_lora_rank if a.q_lora_rank else h * query_size
        key_value_size = num_heads * (a.qk_head_dim + a.v_head_dim)
        latent = h * (a.kv_lora_rank + a.qk_pos_emb_head_dim) + a.kv_lora_rank * key_value_size
        return query + latent + num_heads * a.v_head_dim * h
    return 2 * h * a.head_dim * (num_heads + a.num_query_groups)


def _attention_vectors(a):
    if a.multi_latent_attention:
        return (a.q_lora_rank or 0) + a.kv_lora_rank
    query_size, key_size = a.num_attention_heads * a.head_dim, a.num_query_groups * a.head_dim
    has_bias = a.add_bias_linear if a.add_attention_bias is None else a.add_attention_bias
    qkv_bias = query_size + 2 * key_size if has_bias or a.add_qkv_bias else 0
    norms = {None: 0, "per_head": 2 * a.head_dim, "all_heads": query_size + key_size}[a.qk_layernorm]
    sinks = a.num_attention_heads if a.softmax_type == "learnable" else 0
    return qkv_bias + (a.hidden_size if has_bias else 0) + norms + sinks


def _ffn_matrices(a, ffn_size):
    return (3 if a.swiglu else 2) * a.hidden_size * ffn_size


def _ffn_vectors(a, ffn_size):
    return (2 if a.swiglu else 1) * ffn_size + a.hidden_size if a.add_bias_linear else 0


def _moe_matrices(a, num_experts):
    router = a.hidden_size * a.num_experts
    shared = _ffn_matrices(a, a.moe_shared_expert_intermediate_size or 0)
    gate = a.hidden_size if a.moe_shared_expert_gate else 0
    return num_experts * _ffn_matrices(a, a.moe_ffn_hidden_size) + router + shared + gate


def _moe_vectors(a, num_experts):
    router = a.num_experts if a.add_bias_linear else 0
    shared_size = a.moe_shared_expert_intermediate_size
    shared = _ffn_vectors(a, shared_size) if shared_size else 0
    return num_experts * _ffn_vectors(a, a.moe_ffn_hidden_size) + router + shared


def _embeddings(a):
    num_tables = 2 if a.untie_embeddings_and_output_weights else 1
    words = num_tables * a.vocab_size * (a.embedding_size or a.hidden_size) + 2 * count_embedding_projection(a)
    has_positions = a.position_embedding_type == "learned_absolute"
    positions = (a.max_position_embeddings + a.num_extra_positions) * a.hidden_size if has_positions else 0
    output_bias = a.vocab_size if a.add_output_layer_bias else 0
    return words + positions + output_bias + (_norm(a) if a.embedding_layernorm else 0)


def _norm(a):
    return 2 * a.hidden_size if a.normalization == "LayerNorm" else a.hidden_size
