"""Hugging Face ``config.json`` files, by family, as fields of an Architecture.

What changes a count has a field; what only changes the values computed goes to ``uncounted_options``; what
would be counted wrongly is refused by name. Where a file is silent, it means what ``transformers`` takes.
"""

import difflib
import warnings

from idealized_runtime.architectures.hf import built, experts, gpt, layers, llama
from idealized_runtime.architectures.hf.classes import STYLES

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
# Where a wrapper keeps its language model.
_NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
_SENSES = ("vision_config", "audio_config", "speech_config")
# Families that are another under a name of their own.
_SAME = {"kimi_k2": "deepseek_v3", "step3p7": "step3p5", "minimax_text_01": "minimax", "minimax_m1": "minimax",
         "qwen2_5_omni_text": "qwen2_5_vl_text"}  # fmt: skip
# What a file that only says how weights are stored has.
_QUANTIZATION = {"quantization", "quant_method", "quant_algo"}
_SOURCE = "Hugging Face config.json"
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


class LanguageModelWarning(UserWarning):
    """A model reads images or sound too, and its language model alone is counted."""


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
    LanguageModelWarning
        It reads images or sound too.
    BuiltByTransformersWarning
        Its family is not known here, and it was counted by building it.
    """
    if not config.get("model_type") and not config.get("architectures") and _QUANTIZATION & config.keys():
        raise ValueError("it says how weights are stored, not what the model is: give the config.json beside it")
    text = _language_model(config)
    is_nested, family = text is not config, _family(text)
    if beside := [name for name in _SENSES if config.get(name)]:
        message = (
            f"model_type {config.get('model_type')!r:.80} has {', '.join(beside)}: its language model alone is counted"
        )
        warnings.warn(message, LanguageModelWarning, stacklevel=3)
    quantization = text.get("quantization_config")
    if refusal := _refusal("quantization_config", quantization, None):
        raise ValueError(f"{family} with quantization_config = {_shown(quantization)}: {refusal}")
    if family in HF_FAMILIES:
        fields = _read_listed(text, family, is_nested)
    elif family in STYLES:
        try:
            fields, options = layers.read(text, family)
        except (AttributeError, TypeError, LookupError, ArithmeticError) as error:
            message = f"Hugging Face configuration of family {family!r} has a malformed value: {error!r}"
            raise ValueError(message) from error
        silent = {name: value for name, value in options.as_in_class.items() if name in _STATED}
        known = options.defaults or {}
        _warn_of_silence(family, {} if is_nested else silent, options.config, known, {*known, *options.aliases})
        if options.unread:
            message = f"Hugging Face configuration of family {family!r} has {', '.join(sorted(options.unread))}: not "
            message += "read, as its class in transformers does not"
            warnings.warn(message, SilentConfigurationWarning, stacklevel=3)
    else:
        fields = built.read(text)
    if quantization:
        # Of experts in another format, DeepSeek-V4 says so beside it.
        more = {"expert_dtype": text["expert_dtype"]} if text.get("expert_dtype") else {}
        fields["uncounted_options"]["quantization_config"] = {**quantization, **more}
    if is_nested:
        fields["source"] = fields.get("source", _SOURCE) + "; language model only"
    return {"source": _SOURCE, **fields}


def _read_listed(config, family, is_nested):
    reader = HF_FAMILIES[family]
    renamed = {ours: config[theirs] for theirs, ours in reader.aliases.items() if theirs in config}
    spelled = {**renamed, **config, "model_type": family}
    for name in {**_KINDS, **reader.defaults}:
        if refusal := _refusal(name, spelled.get(name), reader.defaults.get(name)):
            raise ValueError(f"{family} with {name} = {_shown(spelled[name])}: {refusal}")
        if spelled.get(name, False) is None and isinstance(reader.defaults.get(name), bool):
            spelled[name] = False
    silent = {name: usual for name, usual in reader.defaults.items() if name in _STATED and name not in spelled}
    _warn_of_silence(
        family, {} if is_nested else silent, spelled, reader.defaults, reader.defaults.keys() | _KINDS.keys()
    )
    try:
        return reader.read({**reader.defaults, **spelled})
    except KeyError as error:
        raise ValueError(f"Hugging Face configuration of family {family!r} lacks {error}") from error
    except (AttributeError, TypeError, ArithmeticError) as error:
        raise ValueError(f"Hugging Face configuration of family {family!r} has a malformed value: {error}") from error


def _warn_of_silence(family, silent, given, defaults, read):
    """Say which sizes a configuration leaves out, and which options it may have misspelt."""
    if silent:
        named = ", ".join(f"{name} ({usual})" for name, usual in silent.items())
        message = f"Hugging Face configuration of family {family!r} leaves out {named}: taken as transformers has them"
        warnings.warn(message, SilentConfigurationWarning, stacklevel=5)
    for name in defaults.keys() - given.keys():
        if near := difflib.get_close_matches(name, given.keys() - read, 1, _MISSPELT):
            message = f"Hugging Face configuration of family {family!r} has no {name}, but {near[0]!r:.80}: not read; "
            message += f"{name} is taken as {defaults[name]}, as transformers has it"
            warnings.warn(message, SilentConfigurationWarning, stacklevel=5)


def _family(config) -> str:
    """The family that a configuration names, or that of the class which it says it is for."""
    family = config.get("model_type")
    if isinstance(family, str):
        for name in (family, _SAME.get(family), f"{family}_text"):
            if name in HF_FAMILIES or name in STYLES:
                return name
    by_class = {name.removesuffix("_text").replace("_", ""): name for name in (*HF_FAMILIES, *STYLES)}
    classes = config.get("architectures")
    for written in classes if isinstance(classes, list) else ():
        if isinstance(written, str) and (name := by_class.get(written.removesuffix("ForCausalLM").lower())):
            return name
    if not isinstance(family, str):
        known = ", ".join((*HF_FAMILIES, *STYLES))
        raise ValueError(f"model_type {family!r:.80} cannot be counted here; families that can: {known}")
    return family


def _language_model(config):
    """The language model of one that reads images or sound too; the configuration itself where it has no other."""
    nested = next((name for name in _NESTED if config.get(name) is not None), None)
    family = config.get("model_type")
    is_wrapper = isinstance(family, str) and family in _TEXT_FAMILIES
    if nested is None and not is_wrapper:
        return config
    text = {} if nested is None else config[nested]
    if not isinstance(text, dict):
        raise ValueError(f"{nested} must be a JSON object; got {text!r:.60}")
    if nested == "thinker_config":
        return _language_model({"model_type": family, **text})
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
