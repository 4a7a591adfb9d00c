"""Parameters of Megatron's Transformer layers, as plain tensors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from idealized_runtime.architectures import Architecture
from megatron_lm.engines.experts import Experts
from megatron_lm.engines.latents import LatentAttention
from megatron_lm.engines.products import Products


@dataclass
class Layer:
    """Parameters of one Transformer layer, as Megatron stores them: (weight, bias or None), norms without None.

    A layer has ``latents`` or, all others, ``qkv``; ``experts`` or, all others, ``up`` and ``down``. ``window``
    is the number of tokens that it attends to, None where it attends to all; ``sinks`` has a logit for each
    head, None where there are no sinks.
    """

    norm_1: tuple
    qkv: tuple | None
    latents: LatentAttention | None
    query_norm: tuple | None
    key_norm: tuple | None
    sinks: torch.Tensor | None
    projection: tuple
    norm_2: tuple
    up: tuple | None
    down: tuple | None
    experts: Experts | None
    window: int | None

    @property
    def linears(self) -> dict[str, tuple]:
        """What nothing but a product reads, by the name of its field."""
        fields = {name: getattr(self, name) for name in ("qkv", "projection", "up", "down")}
        return {name: linear for name, linear in fields.items() if linear is not None}

    def pack(self, products: Products):
        """Put weights into the layout that their products read."""
        for name, (weight, bias) in self.linears.items():
            setattr(self, name, (products.packed(weight), bias))


def layer_parameters(layer, architecture: Architecture, activate: Callable, products: Products) -> Layer:
    """Parameters of one of Megatron's layers; ``activate`` is the activation of its experts."""
    attention, mlp = layer.self_attention, layer.mlp
    has_experts = hasattr(mlp, "experts")
    normalizes_heads, has_latents = architecture.qk_layernorm is not None, architecture.multi_latent_attention
    return Layer(
        norm_1=norm_parameters(layer.input_layernorm),
        qkv=None if has_latents else linear_parameters(attention.linear_qkv),
        latents=LatentAttention(attention, architecture, products.linear) if has_latents else None,
        query_norm=norm_parameters(attention.q_layernorm) if normalizes_heads else None,
        key_norm=norm_parameters(attention.k_layernorm) if normalizes_heads else None,
        sinks=attention.core_attention.softmax_offset,
        projection=linear_parameters(attention.linear_proj),
        norm_2=norm_parameters(layer.pre_mlp_layernorm),
        up=None if has_experts else linear_parameters(mlp.linear_fc1),
        down=None if has_experts else linear_parameters(mlp.linear_fc2),
        experts=Experts(mlp, architecture, activate, products) if has_experts else None,
        # Megatron, which has read the pattern of windowed layers, keeps the tokens before the newest one.
        window=None if attention.core_attention.scale_mask_softmax.window_size is None else architecture.window_size,
    )


def linear_parameters(module) -> tuple:
    """Weight and bias of a linear layer, None for a bias that is not there."""
    return module.weight, getattr(module, "bias", None)


def norm_parameters(module) -> tuple:
    """Weight of a norm, and its bias if it has one."""
    bias = getattr(module, "bias", None)
    return (module.weight,) if bias is None else (module.weight, bias)
