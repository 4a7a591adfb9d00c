"""Multi-latent attention (arXiv:2405.04434, section 2.1) as Megatron builds it."""

from megatron.core.extensions import transformer_engine
from megatron.core.transformer import multi_latent_attention
from megatron.core.transformer.dot_product_attention import DotProductAttention

from idealized_runtime.architectures import Architecture
from megatron_lm.layer_functions import LATENT_NORM_EPSILON

# Where there is no Transformer Engine, this module takes what stands in for its classes, and is none, for them.
multi_latent_attention.HAVE_TE = multi_latent_attention.HAVE_TE and transformer_engine.HAVE_TE


class _CoreAttention(DotProductAttention):
    """Megatron's unfused attention, which takes values of another width than keys, but no word about it."""

    def __init__(self, *args, k_channels=None, v_channels=None, **options):
        super().__init__(*args, **options)


def latent_options(architecture: Architecture, yarn: dict | None) -> dict:
    """Options of Megatron's ``MLATransformerConfig`` beyond those of others; rotary positions may be scaled by YaRN."""
    names = ("q_lora_rank", "kv_lora_rank", "qk_head_dim", "qk_pos_emb_head_dim", "v_head_dim", "rotary_base")
    return {
        **{name: getattr(architecture, name) for name in names},
        "rope_type": "rope" if yarn is None else "yarn",
        **(yarn or {}),
        # What its unfused attention gives back is as wide as this.
        "kv_channels": architecture.v_head_dim,
        # Of the latents, here.
        "qk_layernorm": True,
    }


def use_unfused_attention(block_spec):
    """Let all layers have an unfused attention that can be built: the one in Megatron's specification cannot."""
    for layer in block_spec.layer_specs:
        layer.submodules.self_attention.submodules.core_attention = _CoreAttention


def set_norms_of_latents(model):
    """Give the norms of latents their epsilon, for which Megatron has no option of its own."""
    for layer in model.decoder.layers:
        for name in ("q_layernorm", "kv_layernorm"):
            if hasattr(layer.self_attention, name):
                getattr(layer.self_attention, name).eps = LATENT_NORM_EPSILON
