"""The ten models of arXiv:2305.02440 as it prints them: names, devices, colours; shapes are in the registry."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from idealized_runtime.architectures import Architecture, get_architecture
from idealized_runtime.checks import check_positive
from idealized_runtime.flops import kv_cache_bytes_per_token, weight_bytes

# Tensor parallelism stays within one server (arXiv:2305.02440, section 3.2).
MAX_TENSOR_PARALLEL_SIZE = 8


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


def num_accelerators_needed(
    architecture: Architecture,
    memory_bytes: float,
    *,
    num_context_tokens: int | None = None,
    dtype: str = "float16",
    even_stages: bool = False,
) -> int:
    """Fewest devices whose memory holds the weights and the key-value cache of one sequence.

    Parameters, source and errors are those of :func:`parallelism_needed`, whose two sizes it multiplies.
    """
    width, depth = parallelism_needed(
        architecture, memory_bytes, num_context_tokens=num_context_tokens, dtype=dtype, even_stages=even_stages
    )
    return width * depth


def parallelism_needed(
    architecture: Architecture,
    memory_bytes: float,
    *,
    num_context_tokens: int | None = None,
    dtype: str = "float16",
    even_stages: bool = False,
) -> tuple[int, int]:
    """Tensor and pipeline parallel size of the fewest devices that hold weights and cache of one sequence.

    Tensor parallelism splits every layer over 1, 2, 4 or 8 devices of a server, where that divides the
    attention heads; beyond one server the layers are shared out among pipeline stages, and the stage with the
    most of them must fit.

    Parameters
    ----------
    architecture : Architecture
    memory_bytes : float
        Of one device. All of it counts: activations and the software's own needs come on top.
    num_context_tokens : int, optional
        Length of the sequence; the longest the model takes where it is not given.
    dtype : str
        Of weights and cache.
    even_stages : bool
        All stages have as many layers, as in Megatron of 2023 and in Table 1: their number divides the layers.

    Raises
    ------
    ValueError
        One layer does not fit one server, or a number is not positive.
    """
    if num_context_tokens is None:
        num_context_tokens = architecture.max_position_embeddings
    check_positive(memory_bytes=memory_bytes, num_context_tokens=num_context_tokens)
    total_bytes = sequence_bytes(architecture, num_context_tokens=num_context_tokens, dtype=dtype)
    num_layers, widths = architecture.num_layers, _tensor_parallel_sizes(architecture)
    depths = [depth for depth in range(2, num_layers + 1) if not (even_stages and num_layers % depth)]
    for width, depth in [*((width, 1) for width in widths), *((widths[-1], depth) for depth in depths)]:
        # Embeddings count as spread over all layers.
        if -(-num_layers // depth) * total_bytes <= num_layers * width * memory_bytes:
            return width, depth
    raise ValueError(
        f"{architecture.name}: {total_bytes / num_layers:.3g} bytes a layer do not fit "
        f"{widths[-1]} devices of {memory_bytes:.3g} bytes"
    )


def _tensor_parallel_sizes(architecture: Architecture) -> list[int]:
    """Numbers of devices of one server that can share a layer."""
    return [size for size in (1, 2, 4, MAX_TENSOR_PARALLEL_SIZE) if architecture.num_attention_heads % size == 0]


def sequence_bytes(architecture: Architecture, *, num_context_tokens: int, dtype: str = "float16") -> int:
    """Bytes of the weights and of the cache of one sequence."""
    cache_bytes = kv_cache_bytes_per_token(architecture, dtype=dtype) * num_context_tokens
    return weight_bytes(architecture, dtype=dtype) + cache_bytes


def model_table(memory_bytes: Mapping[str, float]) -> pd.DataFrame:
    """Table 1 recomputed from the registry: parameters counted, devices needed, beside what is printed.

    Parameters
    ----------
    memory_bytes : mapping with keys ``a100`` and ``v100``
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
        for hardware, printed in (("a100", row.num_a100), ("v100", row.num_v100)):
            counts[f"num_{hardware}"] = num_accelerators_needed(shape, memory_bytes[hardware], even_stages=True)
            counts[f"num_{hardware}_printed"] = np.nan if printed is None else printed
        rows[row.name] = counts
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    return table.astype({f"num_{hardware}_printed": "Int64" for hardware in memory_bytes})
