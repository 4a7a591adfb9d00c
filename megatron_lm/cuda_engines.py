"""Inference engines that need CUDA, beside those of :mod:`megatron_lm.engines`, which run anywhere.

``sdpa+graph``   ``sdpa`` with each decode step captured as a CUDA graph.
``fused+graph``  ``sdpa+graph`` whose decode steps are fewer kernels, written in Triton.
``megatron``     Megatron's own static inference engine: its loop, its sampling, its bookkeeping.
"""

from megatron_lm.fused_decoding import FusedEngine
from megatron_lm.megatron_engine import MegatronEngine
from megatron_lm.static_decoding import GraphEngine

CUDA_ENGINES = {"sdpa+graph": GraphEngine, "fused+graph": FusedEngine, "megatron": MegatronEngine}
