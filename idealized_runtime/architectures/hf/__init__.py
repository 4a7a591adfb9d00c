"""Hugging Face ``config.json`` files, by family, as fields of an Architecture.

What changes a count has a field; what only changes the values computed goes to ``uncounted_options``; what
would be counted wrongly is refused by name. Where a file is silent, it means what ``transformers`` takes.
"""

import difflib
import warnings

from idealized_runtime.architectures.hf import experts, gpt, llama

# Readers list what each layer is: more layers than memory has room for would end them.
_MOST_LAYERS = 100_000
# Beyond no size and no base of rotary angles lies, and counts leave a float's range.
_LARGEST = 2**40
HF_FAMILIES = {**gpt.FAMILIES, **llama.FAMILIES, **experts.FAMILIES}
# Sizes that a configuration of its own states, and a nested one leaves out where they are as in the class.
_STATED = {"num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size", "intermediate_size", "ffn_dim",
           "n_layer", "n_embd", "n_head", "num_local_experts", "num_experts", "n_routed_experts", "num_experts_per_tok",
           "moe_intermediate_size", "kv_lora_rank"}  # fmt: skip
# Language models of what reads images or sound too, where their configuration does not say.
_TEXT_FAMILIES = {
    **dict.fromkeys(("llava", "llava_next", "llava_next_video", "vipllava", "video_llava", "idefics3", "smolvlm"),
                    "llama"),
    **dict.fromkeys(("llava_onevision", "internvl", "got_ocr2", "qwen2_audio"), "qwen2"),
    "mistral3": "mistral", "paligemma": "gemma",
}  # fmt: skip
# Types of options that have no usual value, or one of another type; whole numbers where neither says.
_KINDS = {
    **dict.fromkeys(("layer_types", "no_rope_layers", "moe_layers", "mlp_only_layers"), list),
    **dict.fromkeys(("rope_scaling", "rope_parameters", "quantization_config"), dict),
    **dict.fromkeys(("hidden_act", "hidden_activation"), str),
    **dict.fromkeys(("partial_rotary_factor", "query_pre_attn_scalar", "attn_logit_softcapping",
                     "final_logit_softcapping"), float),
    "sliding_window_pattern": int,
}  # fmt: skip
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list",
          dict: "an object"}  # fmt: skip
_DEEPEST = 50
# Likeness of two names of options from which on one is taken for a misspelling of the other.
_MISSPELT = 0.93


class SilentConfigurationWarning(UserWarning):
    """A configuration leaves out sizes, or misspells an option: they are then those of its family's class."""


def fields_of_hf_config(config: dict) -> dict:
    """Fields of the Architecture that a parsed ``config.json`` describes, all but its name.

    Raises
    ------
    ValueError
        The family is unknown, an option is missing, or it would not be counted exactly; the message names it.

    Warns
    -----
    SilentConfigurationWarning
        It leaves out sizes; not of a nested configuration, which lists what differs from the class.
    """
    is_nested, config = config.get("text_config") is not None, _language_model(config)
    family = config.get("model_type")
    if not isinstance(family, str) or family not in HF_FAMILIES:
        raise ValueError(
            f"model_type {family!r:.80} cannot be counted here; families that can: {', '.join(HF_FAMILIES)}"
        )
    reader = HF_FAMILIES[family]
    renamed = {ours: config[theirs] for theirs, ours in reader.aliases.items() if theirs in config}
    spelled = {**renamed, **config}
    for name in {**_KINDS, **reader.defaults}:
        if refusal := _refusal(name, spelled.get(name), reader.defaults.get(name)):
            raise ValueError(f"{family} with {name} = {_shown(spelled[name])}: {refusal}")
        if spelled.get(name, False) is None and isinstance(reader.defaults.get(name), bool):
            spelled[name] = False
    silent = {name: usual for name, usual in reader.defaults.items() if name in _STATED and name not in spelled}
    if silent and not is_nested:
        named = ", ".join(f"{name} ({usual})" for name, usual in silent.items())
        message = f"Hugging Face configuration of family {family!r} leaves out {named}: taken as transformers has them"
        warnings.warn(message, SilentConfigurationWarning, stacklevel=4)
    for name in reader.defaults.keys() - spelled.keys():
        if near := difflib.get_close_matches(
            name, spelled.keys() - reader.defaults.keys() - _KINDS.keys(), 1, _MISSPELT
        ):
            message = f"Hugging Face configuration of family {family!r} has no {name}, but {near[0]!r:.80}: not read; "
            message += f"{name} is taken as {reader.defaults[name]}, as transformers has it"
            warnings.warn(message, SilentConfigurationWarning, stacklevel=4)
    try:
        fields = reader.read({**reader.defaults, **spelled})
    except KeyError as error:
        raise ValueError(f"Hugging Face configuration of family {family!r} lacks {error}") from error
    except (AttributeError, TypeError, ArithmeticError) as error:
        raise ValueError(f"Hugging Face configuration of family {family!r} has a malformed value: {error}") from error
    if spelled.get("quantization_config"):
        fields["uncounted_options"]["quantization_config"] = spelled["quantization_config"]
    return fields


def _language_model(config):
    """The language model of one that reads images or sound too; the configuration itself where it has no other."""
    text, family = config.get("text_config"), config.get("model_type")
    is_wrapper = isinstance(family, str) and family in _TEXT_FAMILIES
    if text is None and not is_wrapper:
        return config
    text = {} if text is None else text
    if not isinstance(text, dict):
        raise ValueError(f"text_config must be a JSON object; got {text!r:.60}")
    shared = {name: config[name] for name in ("tie_word_embeddings", "quantization_config") if name in config}
    return {"model_type": _TEXT_FAMILIES[family] if is_wrapper else family, **shared, **text}


def _refusal(name, value, usual) -> str | None:
    """What is wrong with an option: another type ("false" would pass for true), or a number that none can be."""
    kind = _KINDS.get(name) or (int if usual is None else type(usual))
    if value is None:
        return None
    if kind in (int, float):
        if isinstance(value, bool) or not isinstance(value, int | kind):
            return f"must be {_WORDS[kind]}" + ", without quotes" * isinstance(value, str)
        most = _MOST_LAYERS if name in ("num_hidden_layers", "n_layer") else _LARGEST
        return None if 0 <= value <= most else f"must be at most {most if most < _LARGEST else '2**40'}, not negative"
    if not isinstance(value, kind):
        return f"must be {_WORDS[kind]}" + ", without quotes" * isinstance(value, str)
    values = [value]
    for _ in range(_DEEPEST):
        if odd := [it for it in values if isinstance(it, int | float) and not -_LARGEST <= it <= _LARGEST]:
            return f"must hold numbers of at most 2**40; got {_shown(odd[0])}"
        values = [it for outer in values if isinstance(outer, list | dict)
                  for it in (outer.values() if isinstance(outer, dict) else outer)]  # fmt: skip
    return f"must not be nested more than {_DEEPEST} deep" if values else None


def _shown(value) -> str:
    """A value for a message: huge numbers by their size."""
    is_huge = isinstance(value, int) and abs(value) > _LARGEST
    return f"a number of {value.bit_length()} bits" if is_huge else f"{value!r:.80}"
