"""The ten models of arXiv:2305.02440 as it prints them: names and devices; shapes are in the registry."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from idealized_runtime.architectures import Architecture, get_architecture
from idealized_runtime.architectures.devices import num_accelerators_needed
from idealized_runtime.hardware.accelerators import get_accelerator


@dataclass(frozen=True)
class PaperModel:
    """One row of the paper's Table 1, and what its figures know of the model.

    Parameters
    ----------
    name : str
        As printed; the ``model`` of the published points.
    architecture_name : str
        Row of the registry whose timings stand for it; models that share one share its errors.
    helm_name : str
        Key in HELM's and the authors' parameter files.
    provider : str
    num_params_printed : float
        Table 1; ``num_params_drawn`` is what Figure 9 draws.
    num_params_drawn : float
    num_accelerators : mapping by hardware (``"a100"``, ``"v100"``)
        80-GB A100 and 32-GB V100 devices that serve one query at a time (Table 1; Figure 8), where it is drawn.
    """

    name: str
    architecture_name: str
    helm_name: str
    provider: str
    num_params_printed: float
    num_params_drawn: float
    num_accelerators: Mapping[str, int]

    @property
    def architecture(self) -> Architecture:
        """Its shape, as it was timed."""
        return get_architecture(self.architecture_name)


_ANTHROPIC = "anthropic-v4-s3"
# Last are the devices of the A100 and of the V100.
_ROWS = (
    ("OpenAI/davinci", "davinci", "openai/davinci", "OpenAI", 175e9, 175e9, 8, 16),
    ("AI21/J1-Large v1", "j1-large", "ai21/j1-large", "AI21 Labs", 6.7e9, 7.5e9, 1, 1),
    ("AI21/J1-Grande v1", "j1-grande", "ai21/j1-grande", "AI21 Labs", 17e9, 17e9, 1, 2),
    ("AI21/J1-Jumbo v1", "j1-jumbo", "ai21/j1-jumbo", "AI21 Labs", 178e9, 178e9, 8, 16),
    # Never timed: the paper takes Anthropic's, of the same shape.
    ("Cohere/XL v20220609", _ANTHROPIC, "cohere/xlarge-20220609", "Cohere", 52e9, 52e9, 4, 4),
    ("Anthropic/v4-s3", _ANTHROPIC, "anthropic/stanford-online-all-v4-s3", "Anthropic", 52e9, 52e9, 4, 4),
    ("Microsoft+NV/TNLG v2", "tnlg-v2", "microsoft/TNLGv2_530B", "Microsoft", 530e9, 530e9, 24),
    ("EleutherAI/GPT-J", "gpt-j", "together/gpt-j-6b", "Together", 6e9, 6e9, 1, 1),
    ("Yandex/YaLM", "yalm", "together/yalm", "Together", 100e9, 100e9, 4, 8),
    ("BigScience/BLOOM", "bloom", "together/bloom", "Together", 176e9, 176e9, 8, 16),
)

PAPER_MODELS = {
    name: PaperModel(name, *known, dict(zip(("a100", "v100"), numbers, strict=False)))
    for name, *known, numbers in ((*row[:6], row[6:]) for row in _ROWS)
}


def by_printed_name(models: Mapping) -> dict:
    """What is known by registry or HELM names, such as fits or parameters, by the names the paper prints.

    Parameters
    ----------
    models : mapping by registry name (of timing logs) or by HELM's name (of parameter files)

    Returns
    -------
    dict
        In the order of Table 1; without the models the mapping does not hold.
    """
    found = {}
    for row in PAPER_MODELS.values():
        for key in (row.helm_name, row.architecture_name):
            if key in models:
                found[row.name] = models[key]
                break
    return found


def model_table() -> pd.DataFrame:
    """Table 1 recomputed from the registry: parameters counted, beside what is printed.

    Returns
    -------
    DataFrame, by printed name
        ``provider, hidden_size, num_layers, num_attention_heads``; ``params_billion`` counted,
        ``params_printed_billion``.
    """
    rows = {
        row.name: {
            "provider": row.provider,
            **{name: getattr(row.architecture, name) for name in ("hidden_size", "num_layers", "num_attention_heads")},
            "params_billion": row.architecture.num_params / 1e9,
            "params_printed_billion": row.num_params_printed / 1e9,
        }
        for row in PAPER_MODELS.values()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def device_table(hardware: Mapping[str, str]) -> pd.DataFrame:
    """Devices that one copy of each model needs, beside what is printed.

    Parameters
    ----------
    hardware : mapping by the paper's name of it (``"a100"``, ``"v100"``) of rows of the registry of accelerators

    Returns
    -------
    DataFrame, a row a model and hardware
        ``model, hardware, accelerator, num_accelerators``; ``num_accelerators_printed``, missing where none is printed.
    """
    rows = [
        (row.name, name, accelerator.name, num_accelerators_needed(row.architecture, accelerator.memory_bytes,
         even_stages=True), row.num_accelerators.get(name))
        for name, accelerator in ((name, get_accelerator(device)) for name, device in hardware.items())
        for row in PAPER_MODELS.values()
    ]  # fmt: skip
    columns = ["model", "hardware", "accelerator", "num_accelerators", "num_accelerators_printed"]
    return pd.DataFrame(rows, columns=columns).astype({"num_accelerators_printed": "Int64"})


def short_name(name: str) -> str:
    """A printed name without its version: ``"AI21/J1-Large v1"`` is ``"AI21/J1-Large"``."""
    return name.split(" ")[0]
