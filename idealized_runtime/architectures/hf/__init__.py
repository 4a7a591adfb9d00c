"""Hugging Face ``config.json`` files, by family, as fields of an Architecture.

What changes a count has a field; what only changes the values computed goes to ``uncounted_options``; what
would be counted wrongly is refused by name. Where a file is silent, it means what ``transformers`` takes.
"""

from idealized_runtime.architectures.hf import experts, gpt, llama

# Readers list what each layer is: more layers than memory has room for would end them.
_MOST_LAYERS = 100_000
HF_FAMILIES = {**gpt.FAMILIES, **llama.FAMILIES, **experts.FAMILIES}


def fields_of_hf_config(config: dict) -> dict:
    """Fields of the Architecture that a parsed ``config.json`` describes, all but its name.

    Raises
    ------
    ValueError
        The family is unknown, an option is missing, or it would not be counted exactly; the message names it.
    """
    config = _language_model(config)
    family = config.get("model_type")
    if not isinstance(family, str) or family not in HF_FAMILIES:
        raise ValueError(f"model_type {family!r} cannot be counted here; families that can: {', '.join(HF_FAMILIES)}")
    reader = HF_FAMILIES[family]
    renamed = {ours: config[theirs] for theirs, ours in reader.aliases.items() if theirs in config}
    spelled = {**renamed, **config}
    _check_values(family, spelled, reader)
    try:
        fields = reader.read({**reader.defaults, **spelled})
    except KeyError as error:
        raise ValueError(f"Hugging Face configuration of family {family!r} lacks {error}") from error
    except (AttributeError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"Hugging Face configuration of family {family!r} has a malformed value: {error}") from error
    if spelled.get("quantization_config"):
        fields["uncounted_options"]["quantization_config"] = spelled["quantization_config"]
    return fields


def _language_model(config):
    """The language model of one that reads images or sound too; the configuration itself where it has no other."""
    text = config.get("text_config")
    if text is None:
        return config
    if not isinstance(text, dict):
        raise ValueError(f"text_config must be a JSON object; got {text!r:.60}")
    shared = {name: config[name] for name in ("tie_word_embeddings", "quantization_config") if name in config}
    return {"model_type": config.get("model_type"), **shared, **text}


def _check_values(family, options, reader):
    """Refuse text where a number or a truth value belongs ("false" would pass for true), and endless layers."""
    for name, usual in reader.defaults.items():
        if isinstance(usual, bool | int | float) and isinstance(options.get(name), str):
            kind = "true or false" if isinstance(usual, bool) else "a number"
            raise ValueError(f"{family} with {name} = {options[name]!r}: must be {kind}, without quotes")
    num_layers = options.get("num_hidden_layers")
    if isinstance(num_layers, int) and num_layers > _MOST_LAYERS:
        raise ValueError(f"{family} with num_hidden_layers = {num_layers}: must be at most {_MOST_LAYERS}")
