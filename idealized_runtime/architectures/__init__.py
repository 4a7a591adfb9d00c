"""Transformer architectures: described, counted, and a registry of those that people ask about.

=================  ================================================================================
``architecture``   ``Architecture``: what must be known of a model to count and to time it
``checks``         what an architecture must satisfy
``params``         its parameters, part by part
``hf``             a Hugging Face ``config.json`` as an ``Architecture``, by family
``flags``          the architecture that a command line names
``features``       what of it the engines of :mod:`megatron_lm` cannot build
``open_models``    rows of the registry: models with a public ``config.json``
``registry``       rows of the registry: what arXiv:2305.02440 timed; ``get_architecture``
=================  ================================================================================
"""

from idealized_runtime.architectures.architecture import Architecture
from idealized_runtime.architectures.features import BUILT_FEATURES, require_buildable, unsupported_features
from idealized_runtime.architectures.flags import architecture_of_flags, name_of_hf_config
from idealized_runtime.architectures.hf import HF_FAMILIES
from idealized_runtime.architectures.registry import ARCHITECTURES, get_architecture, published_architecture

__all__ = [
    "ARCHITECTURES",
    "BUILT_FEATURES",
    "HF_FAMILIES",
    "Architecture",
    "architecture_of_flags",
    "get_architecture",
    "name_of_hf_config",
    "published_architecture",
    "require_buildable",
    "unsupported_features",
]
