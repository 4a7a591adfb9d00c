"""What the readers of several families share: options checked and compared, rotary positions, windows, sizes."""

from collections.abc import Callable
from dataclasses import dataclass, field

_LAYER_TYPES = ("full_attention", "sliding_attention", "chunked_attention")
_GELU_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
# What transformers takes where the configuration of a follower of Llama is silent.
LLAMA_DEFAULTS = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "head_dim": None,
    "num_key_value_heads": None,
    "sliding_window": None,
}


def sizes(num_hidden_layers, hidden_size, num_attention_heads, vocab_size, intermediate_size=None) -> dict:
    """Sizes of a family's class, spelled as most families do."""
    return {name: size for name, size in locals().items() if size is not None}


@dataclass(frozen=True)
class HfFamily:
    """How the configurations of one ``model_type`` are read.

    Parameters
    ----------
    read : callable
        From the configuration, defaults filled in, to fields of an Architecture.
    defaults : dict
        What ``transformers`` takes where a configuration is silent, of the options read here that may be.
    aliases : dict
        Other spellings of an option: theirs to ours.
    """

    read: Callable[[dict], dict]
    defaults: dict = field(default_factory=dict)
    aliases: dict = field(default_factory=dict)


def require_options(config, **allowed):
    """Refuse an option that would change a count; an absent one has its family's usual value."""
    for option, values in allowed.items():
        if option in config and config[option] not in values:
            raise ValueError(
                f"{config['model_type']} with {option} = {config[option]!r} cannot be counted here; allowed: "
                + ", ".join(repr(value) for value in values)
            )


def unusual_options(config, **usual) -> dict:
    """Options that are not as usual, by name."""
    return {name: config[name] for name, value in usual.items() if name in config and config[name] != value}


def activation_option(name, *, gated) -> dict:
    """The activation as an uncounted option; none where it is SiLU of a gate or GELU by tanh without one."""
    name = "gelu_tanh" if name in _GELU_TANH else name
    return {} if name == ("silu" if gated else "gelu_tanh") else {"activation_func": name}


def rotary_fields(config) -> dict:
    """Fields of rotary positions: the base of their angles, and what else shapes them as uncounted options."""
    parameters = {"rope_theta": config["rope_theta"]}
    # transformers 5 gathers in rope_parameters what stood in rope_theta, rope_scaling and others.
    for spelling in ("rope_scaling", "rope_parameters"):
        parameters |= {name: value for name, value in (config.get(spelling) or {}).items() if value is not None}
    if any(isinstance(value, dict) for value in parameters.values()):
        # One set of parameters a kind of layer: only Gemma 3 is known to mean that.
        require_options(config, rope_parameters=(None,), rope_scaling=(None,))
    for name, value in parameters.items():
        if name in ("rope_type", "type"):
            is_allowed, what = isinstance(value, str), "text"
        else:
            is_allowed, what = type(value) in (int, float) and value > 0, "a positive number"
        if not is_allowed and name in ("rope_type", "type", "rope_theta", "partial_rotary_factor", "factor"):
            raise ValueError(f"{config['model_type']} with {name} = {value!r:.60}: must be {what}")
    base = parameters.pop("rope_theta")
    fraction = parameters.pop("partial_rotary_factor", config.get("partial_rotary_factor"))
    kind = parameters.pop("rope_type", parameters.pop("type", "default"))
    options = {} if fraction in (None, 1.0) else {"rotary_percent": fraction}
    if kind != "default":
        options["rope_scaling"] = {"rope_type": kind, **parameters}
    return {"position_embedding_type": "rope", "rotary_base": float(base), "uncounted_options": options}


def window_fields(config, usual: Callable[[int], bool]) -> dict:
    """Fields of a model some layers of which attend to ``sliding_window`` tokens only.

    Those are the layers that the configuration lists, else they follow the rule of the family.
    """
    window, is_windowed = config.get("sliding_window"), [usual(layer) for layer in range(config["num_hidden_layers"])]
    if config.get("layer_types") is not None:
        require_one_a_layer(config, "layer_types")
        for kind in config["layer_types"]:
            require_options({**config, "layer_types": kind}, layer_types=_LAYER_TYPES)
        is_windowed = [kind != "full_attention" for kind in config["layer_types"]]
    # A window no shorter than the context hides nothing.
    if window is None or window >= config["max_position_embeddings"] or not any(is_windowed):
        return {}
    return {"window_size": window, "window_attn_skip_freq": _skip_freq(is_windowed)}


def _skip_freq(is_windowed):
    if all(is_windowed):
        return None
    every = is_windowed.index(False) + 1
    if every > 1 and is_windowed == [(layer + 1) % every != 0 for layer in range(len(is_windowed))]:
        return every
    return tuple(int(windowed) for windowed in is_windowed)


def require_one_a_layer(config, option):
    """Refuse a list that has not one entry for each layer."""
    if len(config[option]) != config["num_hidden_layers"]:
        raise ValueError(
            f"{config['model_type']} with {len(config[option])} {option} and num_hidden_layers = "
            f"{config['num_hidden_layers']}: must be as many"
        )


def required_size(config, name):
    """A size for which an Architecture would take another where it is null."""
    if config[name] is None:
        raise KeyError(name)
    return config[name]


def read_sizes(config) -> dict:
    """Sizes as most families spell them."""
    return {
        "num_layers": config["num_hidden_layers"],
        "hidden_size": config["hidden_size"],
        "num_attention_heads": config["num_attention_heads"],
        "vocab_size": config["vocab_size"],
        "max_position_embeddings": config["max_position_embeddings"],
        "ffn_hidden_size": required_size(config, "intermediate_size"),
    }


def family_fields(config, sizes, activation, *, gated=False, rotary=None, options=None, **fields) -> dict:
    """Fields of an Architecture: sizes and rotary positions as read here, what every family has, what this one has.

    ``options`` are uncounted ones.
    """
    rotary = rotary or {"uncounted_options": {}}
    activation = activation_option(activation, gated=gated)
    return {
        **sizes,
        **rotary,
        "untie_embeddings_and_output_weights": not config["tie_word_embeddings"],
        **fields,
        "uncounted_options": {**activation, **rotary["uncounted_options"], **(options or {})},
    }


def read_llama_like(config, *, options=None, **fields) -> dict:
    """Fields common to the followers of Llama, with those of one family, ``options`` being uncounted ones."""
    usual = {
        "num_query_groups": config["num_key_value_heads"],
        "kv_channels": config["head_dim"],
        "swiglu": True,
        "normalization": "RMSNorm",
        "layernorm_epsilon": config["rms_norm_eps"],
        "add_bias_linear": False,
        "add_qkv_bias": False,
        "add_attention_bias": config["attention_bias"],
    }
    rotary = rotary_fields(config)
    return family_fields(
        config, read_sizes(config), config["hidden_act"], gated=True, rotary=rotary, options=options, **usual | fields
    )
