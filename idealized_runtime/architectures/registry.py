"""The registry: every architecture that can be named, one row a model, each with its source."""

import difflib
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

from idealized_runtime.architectures.architecture import Architecture
from idealized_runtime.architectures.hf import SilentConfigurationWarning
from idealized_runtime.architectures.open_models import open_architectures
from idealized_runtime.checks import parse_json

# What names of checkpoints say of their weights.
_NAMED_FORMAT = re.compile(
    r"(?<![a-z0-9])(?:(?:nv|mx)?fp[48]|int[48]|awq|gptq|w[48]a(?:4|8|16))(?![a-z0-9])", re.IGNORECASE
)
_PAPER = "arXiv:2305.02440, Table 1"
_LOG = "arguments printed by the published log"
_TIMED = (
    # The shapes that arXiv:2305.02440 timed; vocab_size as padded in its A100 logs.
    Architecture("davinci", 96, 12288, 96, 51200, published_params=175e9, published_log="openai_davinci",
                 helm_names=("openai/davinci", "together/opt-175b"), source=_PAPER),
    Architecture("j1-large", 32, 4096, 32, 50304, published_params=6.7e9, published_log="ai21_j1_large",
                 helm_names=("ai21/j1-large", "openai/curie", "microsoft/TNLGv2_7B"), source=_PAPER),
    Architecture("j1-grande", 50, 5120, 40, 262144, published_params=17e9, published_log="ai21_j1_grande",
                 helm_names=("ai21/j1-grande",), source=_PAPER),
    Architecture("j1-jumbo", 76, 13824, 96, 51200, published_params=178e9, published_log="ai21_j1_jumbo",
                 helm_names=("ai21/j1-jumbo",), source=_PAPER),
    Architecture("anthropic-v4-s3", 64, 8192, 64, 50688, published_params=52e9, published_log="anthropic",
                 helm_names=("anthropic/stanford-online-all-v4-s3", "cohere/xlarge-20220609"), source=_PAPER),
    Architecture("tnlg-v2", 105, 20480, 128, 51200, num_layers_profiled=35, published_params=530e9,
                 published_log="mt_nlg", helm_names=("microsoft/TNLGv2_530B",), source=_PAPER),
    Architecture("gpt-j", 28, 4096, 16, 50304, published_params=6e9, published_log="gptj_6b",
                 helm_names=("huggingface/gptj_6b", "gooseai/gpt-j-6b", "together/gpt-j-6b"), source=_PAPER),
    # Profiled with an ungated feed-forward network: 78.9 B of the 100 B parameters its owners state.
    Architecture("yalm", 80, 10240, 128, 50688, ffn_hidden_size=27308, published_params=100e9,
                 published_log="yalm", helm_names=("together/yalm",), source=_PAPER),
    Architecture("bloom", 70, 14336, 112, 250680, published_params=176e9, published_log="bloom",
                 helm_names=("together/bloom",), source=_PAPER),
    Architecture("gpt-neox-20b", 44, 6144, 64, 50304, published_params=20e9, published_log="gpt_neox_20b",
                 helm_names=("gooseai/gpt-neo-20b", "together/gpt-neox-20b"), source="arXiv:2204.06745; " + _LOG),
    Architecture("opt-66b", 64, 9216, 72, 50688, published_params=66e9, published_log="opt_66b",
                 helm_names=("together/opt-66b",), source="arXiv:2205.01068; " + _LOG),
    Architecture("ada", 24, 1024, 16, 50304, published_params=350e6, published_log="openai_ada",
                 helm_names=("openai/ada",), source=_LOG),
    Architecture("gpt2-9.9b", 48, 4096, 32, 50304, published_log="gpt2", source=_LOG),
    # Open models that fit a laptop; vocab_size as published.
    Architecture("gpt2-small", 12, 768, 12, max_position_embeddings=1024, published_params=124e6,
                 source="Radford et al. 2019; Hugging Face gpt2"),
    Architecture("gpt2-medium", 24, 1024, 16, max_position_embeddings=1024, published_params=355e6,
                 source="Radford et al. 2019; Hugging Face gpt2-medium"),
    Architecture("gpt2-large", 36, 1280, 20, max_position_embeddings=1024, published_params=774e6,
                 source="Radford et al. 2019; Hugging Face gpt2-large"),
    Architecture("distilgpt2", 6, 768, 12, max_position_embeddings=1024, published_params=82e6,
                 source="Hugging Face distilbert/distilgpt2"),
    Architecture("smollm2-135m", 30, 576, 9, 49152, max_position_embeddings=8192, ffn_hidden_size=1536,
                 num_query_groups=3, swiglu=True, normalization="RMSNorm", position_embedding_type="rope",
                 rotary_base=100000.0, add_bias_linear=False, add_qkv_bias=False, published_params=135e6,
                 source="arXiv:2502.02737; Hugging Face HuggingFaceTB/SmolLM2-135M"),
)  # fmt: skip

ARCHITECTURES = {row.name: row for row in (*_TIMED, *open_architectures())}


def get_architecture(name: str, *, suggested: Iterable[str] | None = None) -> Architecture:
    """Row of the registry.

    Parameters
    ----------
    name : str
    suggested : iterable of str, optional
        What the message lists where no name is near; the whole registry where it is not given.

    Raises
    ------
    ValueError
        No row has this name; the message lists the nearest names and how to describe a new model.

    Examples
    --------
    >>> get_architecture("llama-3.1-8b").num_params
    8030261248
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    near = difflib.get_close_matches(name, ARCHITECTURES, n=3)
    hint = (
        f"did you mean {', '.join(near)}?"
        if near
        else f"there are: {', '.join(ARCHITECTURES if suggested is None else suggested)}."
    )
    raise ValueError(
        f"no architecture named {name!r:.80}; {hint} "
        "Describe a new one by a Hugging Face config.json, or to time it by its sizes, too (--num-layers, ...)"
    )


def read_architecture(name_or_path: str | Path, *, suggested: Iterable[str] | None = None) -> Architecture:
    """Row of the registry by its name, or the model of a Hugging Face ``config.json`` by its path.

    Text is a path if it ends in ``.json`` or there is such a file; a ``Path`` always is one. A configuration that does
    not say what it is called takes the name of :func:`name_of_hf_config`. ``suggested`` is as in
    :func:`get_architecture`.

    Raises
    ------
    ValueError
        There is no such row, or the file cannot be read or describes no model that is counted here; the message begins
        with the path.
    """
    path = Path(name_or_path)
    # Unlike Path's, these answer for names that are too long for a file, too.
    is_path = isinstance(name_or_path, Path) or path.suffix == ".json" or os.path.exists(path)
    if name_or_path in ARCHITECTURES or not is_path:
        return get_architecture(name_or_path, suggested=suggested)
    if os.path.isdir(path):
        raise ValueError(f"{path} is a folder: give the path of the config.json in it")
    try:
        config = parse_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is not a JSON object")
    config = _with_quantization_beside(path, config)
    _warn_of_format_in_name(path, config)
    try:
        return Architecture.from_hf_config(
            config, name=None if config.get("_name_or_path") else name_of_hf_config(path)
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _with_quantization_beside(path, config):
    """A configuration with what ``hf_quant_config.json`` beside it says of the storage of weights, if there is one."""
    beside = path.with_name(path.name.replace("config.json", "hf_quant_config.json"))
    if (
        config.get("quantization_config")
        or beside == path
        or not path.name.endswith("config.json")
        or not beside.is_file()
    ):
        return config
    try:
        written = parse_json(beside.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{beside}, beside it: {error}") from error
    return {**config, "quantization_config": written} if isinstance(written, dict) and written else config


def _warn_of_format_in_name(path, config):
    """Say that a checkpoint of fewer bits, by its name, counts with 16."""
    parts = [part for part in (config, config.get("text_config")) if isinstance(part, dict)]
    named = _NAMED_FORMAT.search(name_of_hf_config(path))
    if named and not any(part.get("quantization_config") for part in parts):
        warnings.warn(
            f"{path}: its name says {named[0]}, its configuration nothing of such weights: they count with 16 bits; "
            "hf_quant_config.json belongs beside it",
            SilentConfigurationWarning, stacklevel=3,
        )  # fmt: skip


def name_of_hf_config(path: Path) -> str:
    """What to call the model of ``NAME/config.json`` or ``NAME.json``: NAME."""
    return path.resolve().parent.name if path.stem == "config" else path.stem


def by_helm_name(values: Mapping) -> dict:
    """The values of models, under the names that a parameter file lists models by.

    These are HELM's, of which a model may have several; one that HELM does not know keeps its own.

    Raises
    ------
    ValueError
        Two models would have one name.
    """
    named = {}
    for name, value in values.items():
        row = ARCHITECTURES.get(name)
        for helm_name in (row and row.helm_names) or (name,):
            if helm_name in named:
                raise ValueError(f"two models for the HELM name {helm_name!r}; {name!r} is the second")
            named[helm_name] = value
    return named


def published_architecture(log_stem: str) -> Architecture | None:
    """Row whose published log has this file stem; None where no row has."""
    return next((row for row in ARCHITECTURES.values() if row.published_log == log_stem), None)


def find_architecture(name: str) -> Architecture | None:
    """Row of the registry, by its name or one of HELM's for it; None where there is none."""
    return next((row for row in ARCHITECTURES.values() if name in (row.name, *row.helm_names)), None)


def registry_name(name: str) -> str:
    """Name that the registry has for a model, given by it or by one of HELM's; as given where the registry has none."""
    return getattr(find_architecture(name), "name", name)
