"""Transformer architectures: described, counted, and a registry of those that people ask about.

=================  ================================================================================
``architecture``   ``Architecture``: what must be known of a model to count and to time it
``checks``         what an architecture must satisfy
``params``         its parameters, part by part
``operations``     exact operations of a prompt, an output token, a query
``closed_forms``   the same in closed form, for plain layers
``memory``         bytes of weights, of the cache, and of what one output token reads
``windows``        which tokens a layer attends to
``counting``       counts of one or many numbers of tokens, exact and never wrapped around
``devices``        devices that a model needs
``hf``             a Hugging Face ``config.json`` as an ``Architecture``, by family
``flags``          the architecture that a command line names
``features``       what of it the engines of :mod:`megatron_lm` cannot build
``open_models``    rows of the registry: models with a public ``config.json``
``registry``       rows of the registry: models timed by 2023 and small ones; ``get_architecture``
=================  ================================================================================
"""

from idealized_runtime.architectures.architecture import Architecture
from idealized_runtime.architectures.features import BUILT_FEATURES, require_buildable, unsupported_features
from idealized_runtime.architectures.flags import architecture_of_flags, name_of_hf_config
from idealized_runtime.architectures.hf import HF_FAMILIES
from idealized_runtime.architectures.memory import (
    kv_cache_bytes,
    kv_cache_bytes_per_token,
    output_token_bytes,
    weight_bytes,
    weight_bytes_read,
)
from idealized_runtime.architectures.operations import output_token_flops, prompt_encoding_flops, query_flops
from idealized_runtime.architectures.registry import (
    ARCHITECTURES,
    find_architecture,
    get_architecture,
    published_architecture,
)

__all__ = [
    "ARCHITECTURES",
    "BUILT_FEATURES",
    "HF_FAMILIES",
    "Architecture",
    "architecture_of_flags",
    "find_architecture",
    "get_architecture",
    "kv_cache_bytes",
    "kv_cache_bytes_per_token",
    "name_of_hf_config",
    "output_token_bytes",
    "output_token_flops",
    "prompt_encoding_flops",
    "published_architecture",
    "query_flops",
    "require_buildable",
    "unsupported_features",
    "weight_bytes",
    "weight_bytes_read",
]
