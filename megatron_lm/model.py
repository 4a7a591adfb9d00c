"""A Megatron GPTModel of a given architecture, with random weights."""

import hashlib
import math
from dataclasses import replace

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer import MLATransformerConfig, TransformerConfig
from megatron.core.transformer.moe import moe_utils

from idealized_runtime.architectures import Architecture, require_buildable
from megatron_lm.latent_attention import latent_options, set_norms_of_latents, use_unfused_attention
from megatron_lm.layer_functions import activation_function, clamped_gate, rotary_frequencies
from megatron_lm.parallel import ProcessGrid
from megatron_lm.parallel_blocks import put_blocks_side_by_side, share_norms

# Dimension of each weight that tensor parallelism shares out among the ranks; what is not here each rank has whole.
_SHARDED_DIMENSIONS = {
    "word_embeddings": 0, "output_layer": 0, "linear_qkv": 0, "linear_fc1": 0, "linear_proj": 1, "linear_fc2": 1,
}  # fmt: skip
_INIT_STD = 0.02
# Uncounted options that Megatron has under the same name.
_ROUTER_OPTIONS = {
    "moe_router_pre_softmax", "moe_router_score_function", "moe_router_enable_expert_bias", "moe_router_num_groups",
    "moe_router_group_topk", "moe_router_topk_scaling_factor",
}  # fmt: skip
# Its router asks whether this is None, and without Transformer Engine does not know the name.
moe_utils.te_general_gemm = getattr(moe_utils, "te_general_gemm", None)


def build_model(
    architecture: Architecture,
    *,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    grid: ProcessGrid | None = None,
    num_layers: int | None = None,
) -> GPTModel:
    """This rank's part of Megatron's GPTModel, with random weights: runtime does not depend on their values.

    Needs the process groups of :class:`megatron_lm.parallel.ProcessGrid`. The same seed gives the same
    model on the same kind of device, however it is shared out among ranks.

    Parameters
    ----------
    grid : ProcessGrid, optional
        By default the whole model is on one rank.
    num_layers : int, optional
        Only this many of the architecture's layers.

    Raises
    ------
    ValueError
        The architecture has features that are not built here; the message names them.
    """
    num_shards = 1 if grid is None else grid.tensor_parallel_size
    require_buildable(architecture, tensor_parallel_size=num_shards)
    architecture = replace(architecture, num_layers=num_layers or architecture.num_layers, num_layers_profiled=None)
    groups = ProcessGroupCollection.use_mpu_process_groups()
    # Without it Megatron copies tied embeddings to the last stage, on CUDA only; here the same seed makes them equal.
    groups.embd = None
    config = transformer_config(architecture, device=device, dtype=dtype, grid=grid)
    spec = get_gpt_decoder_block_spec(config, False, architecture.normalization)
    if architecture.multi_latent_attention:
        use_unfused_attention(spec)
    if architecture.parallel_blocks:
        put_blocks_side_by_side(spec)
    model = GPTModel(
        config=config,
        transformer_layer_spec=spec,
        # Every rank holds an equal range of the vocabulary; engines drop the padding from the logits.
        vocab_size=-(-architecture.vocab_size // num_shards) * num_shards,
        max_sequence_length=architecture.max_position_embeddings + architecture.num_extra_positions,
        pre_process=grid is None or grid.is_first_stage,
        post_process=grid is None or grid.is_last_stage,
        parallel_output=False,
        share_embeddings_and_output_weights=not architecture.untie_embeddings_and_output_weights,
        position_embedding_type=_position_embedding_type(architecture),
        rotary_percent=architecture.uncounted_options.get("rotary_percent", 1.0),
        rotary_base=architecture.rotary_base,
        pg_collection=groups,
    )
    _add_what_megatron_has_no_option_for(model, architecture, device)
    model = model.to(device=device, dtype=dtype).eval().requires_grad_(False)
    _initialize(model, architecture, seed)
    return model


def _add_what_megatron_has_no_option_for(model, architecture, device):
    options = architecture.uncounted_options
    if "rope_scaling" in options and not _uses_yarn(architecture):
        # Megatron's own option is Llama 3.1's, for one length of pre-training only.
        model.rotary_pos_emb.inv_freq = rotary_frequencies(architecture, device)
    if architecture.multi_latent_attention:
        set_norms_of_latents(model)
    if architecture.norms_per_layer == 1:
        share_norms(model)
    _set_biases(model, architecture)
    if "embedding_multiplier" in options and model.pre_process:
        model.embedding.word_embeddings.register_forward_hook(
            lambda _, __, embeddings: embeddings * options["embedding_multiplier"]
        )


def _set_biases(model, architecture):
    """Give attention and output layer biases of their own, where Megatron has but one option for all layers."""
    if architecture.add_attention_bias is not None:
        for layer in model.decoder.layers:
            attention = layer.self_attention
            attention.linear_proj.bias = _bias(architecture.hidden_size) if architecture.add_attention_bias else None
            if not (architecture.add_attention_bias or architecture.add_qkv_bias):
                attention.linear_qkv.bias = None
    if architecture.add_output_layer_bias and model.post_process:
        model.output_layer.bias = _bias(model.output_layer.output_size_per_partition)


def _bias(size):
    return torch.nn.Parameter(torch.zeros(size))


def _position_embedding_type(architecture):
    # Latent attention has its own, in its configuration.
    uses_yarn = _uses_yarn(architecture) and not architecture.multi_latent_attention
    return "yarn" if uses_yarn else architecture.position_embedding_type


def _uses_yarn(architecture):
    return architecture.uncounted_options.get("rope_scaling", {}).get("rope_type") == "yarn"


def _initialize(model, architecture, seed):
    """Fill each weight from a generator of its own: what a rank holds does not depend on what else it holds."""
    group = parallel_state.get_tensor_model_parallel_group()
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "softmax_offset")):
            parameter.zero_()
        elif parameter.ndim > 1:
            whole = _random_weight(_whole_name(name, model), parameter, architecture, seed, group.size())
            parameter.copy_(_shard(name, whole, architecture, group))


def _whole_name(name, model) -> str:
    """The name that the parameter has in an undivided model."""
    if name.startswith("decoder.layers."):
        _, _, index, rest = name.split(".", 3)
        # Megatron counts the layers of all stages from 1.
        return f"decoder.layers.{model.decoder.layers[int(index)].layer_number - 1}.{rest}"
    if name == "output_layer.weight" and model.share_embeddings_and_output_weights:
        return "embedding.word_embeddings.weight"
    return name


def _random_weight(name, parameter, architecture, seed, num_shards):
    shape = list(parameter.shape)
    if (dimension := _sharded_dimension(name)) is not None:
        shape[dimension] *= num_shards
    if "word_embeddings" in name or "output_layer" in name:
        # Padding is appended, so that the vocabulary's own rows are the same however much of it there is.
        shape[0] = architecture.vocab_size
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator(parameter.device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    is_residual = "linear_proj" in name or "linear_fc2" in name
    std = _INIT_STD / math.sqrt(2 * architecture.num_layers) if is_residual else _INIT_STD
    return torch.empty(shape, dtype=parameter.dtype, device=parameter.device).normal_(0.0, std, generator=generator)


def _shard(name, whole, architecture, group):
    dimension = _sharded_dimension(name)
    if dimension is None or group.size() == 1:
        return whole
    padding = -len(whole) % group.size() if dimension == 0 else 0
    whole = torch.nn.functional.pad(whole, (0, 0, 0, padding))
    # A gated layer keeps gates and values one after the other, on each rank its share of both.
    num_parts = 2 if "linear_fc1" in name and architecture.swiglu else 1
    parts = [part.chunk(group.size(), dimension)[group.rank()] for part in whole.chunk(num_parts, dimension)]
    return torch.cat(parts, dimension)


def _sharded_dimension(name) -> int | None:
    return next((dimension for part, dimension in _SHARDED_DIMENSIONS.items() if part in name), None)


def transformer_config(
    architecture: Architecture, *, device: torch.device, dtype: torch.dtype, grid: ProcessGrid | None = None
) -> TransformerConfig:
    """Megatron's configuration of an architecture, for inference on one rank of a grid."""
    config_class = MLATransformerConfig if architecture.multi_latent_attention else TransformerConfig
    config = config_class(
        num_layers=architecture.num_layers,
        hidden_size=architecture.hidden_size,
        normalization=architecture.normalization,
        layernorm_epsilon=architecture.layernorm_epsilon,
        add_bias_linear=architecture.add_bias_linear,
        **_attention_options(architecture),
        **_feed_forward_options(architecture),
        hidden_dropout=0.0,
        attention_dropout=0.0,
        tensor_model_parallel_size=1 if grid is None else grid.tensor_parallel_size,
        pipeline_model_parallel_size=1 if grid is None else grid.num_stages,
        pipeline_dtype=dtype,
        params_dtype=dtype,
        fp16=dtype == torch.float16,
        bf16=dtype == torch.bfloat16,
        use_cpu_initialization=device.type == "cpu",
        perform_initialization=False,
        # Megatron's default keeps float16 softmax in float16 only where a fused kernel does it.
        attention_softmax_in_fp32=dtype != torch.float32,
    )
    if _position_embedding_type(architecture) == "yarn":
        # Megatron reads them from its configuration, which does not declare them.
        for name, value in _yarn_options(architecture).items():
            setattr(config, f"yarn_{name}", value)
        config.yarn_correction_range_round_to_int = architecture.uncounted_options["rope_scaling"].get("truncate", True)
    return config


def _yarn_options(architecture):
    scaling = architecture.uncounted_options["rope_scaling"]
    return {
        "rotary_scaling_factor": scaling["factor"],
        "original_max_position_embeddings": scaling["original_max_position_embeddings"],
        "beta_fast": scaling.get("beta_fast", 32.0),
        "beta_slow": scaling.get("beta_slow", 1.0),
        "mscale": scaling.get("mscale") or 1.0,
        "mscale_all_dim": scaling.get("mscale_all_dim") or 0.0,
    }


def _attention_options(architecture):
    window, pattern = architecture.window_size, architecture.window_attn_skip_freq
    options = {
        "num_attention_heads": architecture.num_attention_heads,
        "num_query_groups": architecture.num_query_groups,
        "kv_channels": architecture.head_dim,
        "add_qkv_bias": bool(architecture.add_qkv_bias or architecture.add_attention_bias),
        "qk_layernorm": architecture.qk_layernorm is not None,
        "softmax_type": architecture.softmax_type,
        # Latent attention has it so without being told, and refuses to be.
        "rotary_interleaved": not architecture.multi_latent_attention
        and architecture.uncounted_options.get("rotary_interleaved", False),
        # Megatron counts the tokens before and behind the newest one.
        "window_size": None if window is None else (window - 1, 0),
        "window_attn_skip_freq": list(pattern) if isinstance(pattern, tuple) else pattern,
    }
    if not architecture.multi_latent_attention:
        return options
    yarn = _yarn_options(architecture) if _uses_yarn(architecture) else None
    return {**options, **latent_options(architecture, yarn)}


def _feed_forward_options(architecture):
    limit, offset = clamped_gate(architecture) or (None, 0.0)
    dense = {
        "ffn_hidden_size": architecture.ffn_hidden_size,
        "activation_func_clamp_value": limit,
        "glu_linear_offset": offset,
        "gated_linear_unit": architecture.swiglu,
        "activation_func": activation_function(architecture),
    }
    if architecture.num_experts is None:
        return dense
    pattern = architecture.moe_layer_freq
    return {
        **dense,
        "num_moe_experts": architecture.num_experts,
        "moe_router_topk": architecture.moe_router_topk,
        **{name: value for name, value in architecture.uncounted_options.items() if name in _ROUTER_OPTIONS},
        "moe_router_load_balancing_type": "none",
        "moe_ffn_hidden_size": architecture.moe_ffn_hidden_size,
        "moe_layer_freq": list(pattern) if isinstance(pattern, tuple) else pattern,
        "moe_shared_expert_intermediate_size": architecture.moe_shared_expert_intermediate_size,
        "moe_shared_expert_gate": architecture.moe_shared_expert_gate,
    }
