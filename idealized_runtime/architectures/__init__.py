"""Transformer architectures: described, counted, and a registry of those that people ask about.

=================  ================================================================================
``architecture``   ``Architecture``: what must be known of a model to count and to time it
``checks``         what an architecture must satisfy
``parts``          what a layer is made of: matrices, what a token attends to, what a sequence leaves behind
``operations``     exact operations of a prompt, an output token, a query
``closed_forms``   the same in closed form, for plain layers
``memory``         bytes of weights, of the cache, and of what one output token reads
``windows``        what a token attends to
``counting``       counts of one or many numbers of tokens, exact and never wrapped around
``devices``        devices that a model needs
``hf``             a Hugging Face ``config.json`` as an ``Architecture``
``features``       what of it the engines of :mod:`megatron_lm` cannot build
``open_models``    rows of the registry: models with a public ``config.json``
``registry``       rows of the registry: models timed by 2023 and small ones; ``read_architecture``
=================  ================================================================================
"""

import idealized_runtime
from idealized_runtime.architectures.architecture import Architecture
from idealized_runtime.architectures.features import BUILT_FEATURES, require_buildable, unsupported_features
from idealized_runtime.architectures.hf import HF_FAMILIES
from idealized_runtime.architectures.registry import (
    ARCHITECTURES,
    find_architecture,
    get_architecture,
    name_of_hf_config,
    published_architecture,
    read_architecture,
    registry_name,
)

# Resolved on first use: they count with numpy, which a command line need not wait for.
_COUNTS = {
    "kept_bytes": "memory",
    "kv_cache_bytes": "memory",
    "kv_cache_bytes_per_token": "memory",
    "output_token_bytes": "memory",
    "output_token_flops": "operations",
    "prompt_encoding_flops": "operations",
    "query_flops": "operations",
    "state_bytes": "memory",
    "weight_bytes": "memory",
    "weight_bytes_read": "memory",
}
__all__ = [
    *_COUNTS,
    "ARCHITECTURES",
    "BUILT_FEATURES",
    "HF_FAMILIES",
    "Architecture",
    "find_architecture",
    "get_architecture",
    "name_of_hf_config",
    "published_architecture",
    "read_architecture",
    "registry_name",
    "require_buildable",
    "unsupported_features",
]

__getattr__, __dir__ = idealized_runtime.resolve_late(__name__, _COUNTS)
