"""The ten models of arXiv:2305.02440 as it prints them: names, devices, colours; shapes are in the registry."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from idealized_runtime.architectures import Architecture, get_architecture
from idealized_runtime.architectures.devices import num_accelerators_needed


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
    num_a100, num_v100 : int or None
        80-GB A100 and 32-GB V100 devices that serve one query at a time (Table 1; Figure 8). None: not drawn.
    color : str
        Of its points in Figures 8 and 9.
    """

    name: str
    architecture_name: str
    helm_name: str
    provider: str
    num_params_printed: float
    num_params_drawn: float
    num_a100: int
    num_v100: int | None
    color: str

    @property
    def architecture(self) -> Architecture:
        """Its shape, as it was timed."""
        return get_architecture(self.architecture_name)


_ANTHROPIC = "anthropic-v4-s3"
# Figures 8 to 10 use one colour a model; these are the printed ones, darkened where they were too pale to read.
_ROWS = (
    PaperModel("OpenAI/davinci", "davinci", "openai/davinci", "OpenAI", 175e9, 175e9, 8, 16, "blue"),
    PaperModel("AI21/J1-Large v1", "j1-large", "ai21/j1-large", "AI21 Labs", 6.7e9, 7.5e9, 1, 1, "hotpink"),
    PaperModel("AI21/J1-Grande v1", "j1-grande", "ai21/j1-grande", "AI21 Labs", 17e9, 17e9, 1, 2, "purple"),
    PaperModel("AI21/J1-Jumbo v1", "j1-jumbo", "ai21/j1-jumbo", "AI21 Labs", 178e9, 178e9, 8, 16, "grey"),
    # Never timed: the paper takes Anthropic's, of the same shape.
    PaperModel("Cohere/XL v20220609", _ANTHROPIC, "cohere/xlarge-20220609", "Cohere", 52e9, 52e9, 4, 4, "green"),
    PaperModel(
        "Anthropic/v4-s3", _ANTHROPIC, "anthropic/stanford-online-all-v4-s3", "Anthropic", 52e9, 52e9, 4, 4, "magenta"
    ),
    PaperModel(
        "Microsoft+NV/TNLG v2", "tnlg-v2", "microsoft/TNLGv2_530B", "Microsoft", 530e9, 530e9, 24, None, "black"
    ),
    PaperModel("EleutherAI/GPT-J", "gpt-j", "together/gpt-j-6b", "Together", 6e9, 6e9, 1, 1, "darkorange"),
    PaperModel("Yandex/YaLM", "yalm", "together/yalm", "Together", 100e9, 100e9, 4, 8, "deepskyblue"),
    PaperModel("BigScience/BLOOM", "bloom", "together/bloom", "Together", 176e9, 176e9, 8, 16, "red"),
)

PAPER_MODELS = {row.name: row for row in _ROWS}


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


def model_table(memory_bytes: Mapping[str, float]) -> pd.DataFrame:
    """Table 1 recomputed from the registry: parameters counted, devices needed, beside what is printed.

    Parameters
    ----------
    memory_bytes : mapping of ``a100`` or ``v100``, or both
        Memory of one device.

    Returns
    -------
    DataFrame, by printed name
        ``provider, hidden_size, num_layers, num_attention_heads``; ``params_billion`` counted,
        ``params_printed_billion``; and for each hardware ``num_<hardware>`` and ``num_<hardware>_printed``.
    """
    rows = {}
    for row in PAPER_MODELS.values():
        shape = row.architecture
        counts = {
            "provider": row.provider,
            "hidden_size": shape.hidden_size,
            "num_layers": shape.num_layers,
            "num_attention_heads": shape.num_attention_heads,
            "params_billion": shape.num_params / 1e9,
            "params_printed_billion": row.num_params_printed / 1e9,
        }
        for hardware, num_bytes in memory_bytes.items():
            printed = getattr(row, f"num_{hardware}")
            counts[f"num_{hardware}"] = num_accelerators_needed(shape, num_bytes, even_stages=True)
            counts[f"num_{hardware}_printed"] = np.nan if printed is None else printed
        rows[row.name] = counts
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    return table.astype({f"num_{hardware}_printed": "Int64" for hardware in memory_bytes})


def short_name(name: str) -> str:
    """A printed name without its version: ``"AI21/J1-Large v1"`` is ``"AI21/J1-Large"``."""
    return name.split(" ")[0]
