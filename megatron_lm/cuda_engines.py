"""Inference engines that need CUDA, beside those of :mod:`megatron_lm.engines`, which run anywhere.

``sdpa+graph``  ``sdpa`` with each decode step captured as a CUDA graph.
``megatron``    Megatron's own static inference engine: its loop, its sampling, its bookkeeping.
"""

from megatron_lm.megatron_engine import MegatronEngine
from megatron_lm.static_decoding import GraphEngine

CUDA_ENGINES = {"sdpa+graph": GraphEngine, "megatron": MegatronEngine}
# In the place of :func:`megatron_lm.generation.generate`, whose loop runs every engine that has none.
OWN_GENERATION = {"megatron": MegatronEngine.generate}
