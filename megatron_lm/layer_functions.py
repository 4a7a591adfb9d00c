"""Functions inside a layer that an Architecture names: activations and rotary frequencies, for every engine alike."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812

from idealized_runtime.architectures import Architecture

_ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}
# gpt-oss: the gate's activation is the approximation of GELU by a sigmoid, and is clamped, as is what it gates.
_CLAMPED_SWIGLU = "clamped swiglu"
_CLAMPED_ALPHA, _CLAMPED_LIMIT, _CLAMPED_OFFSET = 1.702, 7.0, 1.0
# DeepSeek normalises latents with this, whatever the epsilon of its other norms.
LATENT_NORM_EPSILON = 1e-6


def activation_function(architecture: Architecture) -> Callable[[torch.Tensor], torch.Tensor]:
    """Activation of the feed-forward network, of its gate where it has one."""
    usual = "silu" if architecture.swiglu else "gelu_tanh"
    options = architecture.uncounted_options
    name = options.get("activation_func", usual)
    if name == _CLAMPED_SWIGLU:
        return partial(_gelu_by_sigmoid, alpha=options.get("swiglu_alpha", _CLAMPED_ALPHA))
    return _ACTIVATIONS[name]


def _gelu_by_sigmoid(hidden, alpha):
    return hidden * torch.sigmoid(alpha * hidden)


def clamped_gate(architecture: Architecture) -> tuple[float, float] | None:
    """Limit of the gate (above) and of what it gates (both ways), and what is added to the latter; None: no limit."""
    options = architecture.uncounted_options
    if options.get("activation_func") != _CLAMPED_SWIGLU:
        return None
    return options.get("swiglu_limit", _CLAMPED_LIMIT), _CLAMPED_OFFSET


def rotary_width(architecture: Architecture) -> int:
    """Dimensions of each head that have a position: all of them, unless latents leave it to a part of their own."""
    return architecture.qk_pos_emb_head_dim or architecture.head_dim


def rotary_frequencies(architecture: Architecture, device: torch.device) -> torch.Tensor:
    """Angle, in radians, by which each pair of a head's dimensions turns from one position to the next.

    Returns
    -------
    float32 tensor of shape (rotated dimensions / 2,)
        Fewer than ``rotary_width / 2`` where only a part of that is rotated.
    """
    options = architecture.uncounted_options
    num_rotated = int(rotary_width(architecture) * options.get("rotary_percent", 1.0))
    exponents = torch.arange(0, num_rotated, 2, dtype=torch.float32, device=device) / num_rotated
    frequencies = 1.0 / architecture.rotary_base**exponents
    scaling = options.get("rope_scaling")
    return frequencies if scaling is None else _SCALINGS[scaling["rope_type"]](frequencies, scaling, architecture)


def rotary_factor(architecture: Architecture) -> float:
    """Factor of rotated queries and keys: above 1 where YaRN stretches the context (arXiv:2309.00071, section 3.4)."""
    scaling = architecture.uncounted_options.get("rope_scaling", {})
    if scaling.get("rope_type") != "yarn":
        return 1.0
    multiplier = scaling.get("mscale") or 1.0
    return yarn_scale(scaling, multiplier) / yarn_scale(scaling, scaling.get("mscale_all_dim") or 0.0)


def yarn_scale(scaling: dict, multiplier: float) -> float:
    """What YaRN scales queries and keys by, as DeepSeek writes it: with a multiplier of its logarithm."""
    return 0.1 * multiplier * math.log(scaling["factor"]) + 1.0 if scaling["factor"] > 1 else 1.0


def _scale_linearly(frequencies, scaling, architecture):
    return frequencies / scaling["factor"]


def _scale_as_llama_3(frequencies, scaling, architecture):
    """Turns that take longer than the context of pre-training are slowed down, quick ones are not (Llama 3.1)."""
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return frequencies * (kept + (1 - kept) / scaling["factor"])


def _scale_as_yarn(frequencies, scaling, architecture):
    """Pairs that turn often within the context of pre-training are kept, those that turn seldom slowed down."""
    num_pairs = len(frequencies)

    def pair_that_turns(num_turns):
        length = scaling["original_max_position_embeddings"] / (2 * math.pi * num_turns)
        return num_pairs * math.log(length) / math.log(architecture.rotary_base)

    first, last = (
        pair_that_turns(scaling.get(name, usual)) for name, usual in (("beta_fast", 32.0), ("beta_slow", 1.0))
    )
    if scaling.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * num_pairs - 1)
    pairs = torch.arange(num_pairs, dtype=torch.float32, device=frequencies.device)
    slowed = ((pairs - first) / max(last - first, 0.001)).clamp(0, 1)
    return frequencies * (1 - slowed + slowed / scaling["factor"])


_SCALINGS = {"linear": _scale_linearly, "llama3": _scale_as_llama_3, "yarn": _scale_as_yarn}
