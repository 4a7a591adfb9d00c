"""Inference engines: how one model turns tokens into logits. Each is a software stack that a log names.

The list imports no torch: what can only be refused, is refused at once.
"""

from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class EngineEntry:
    """One engine of the list.

    Parameters
    ----------
    name : str
        Value of ``--inference-engine``.
    description : str
    home : str
        Module of this package and class in it; made of a model and its architecture. The class obeys
        :class:`megatron_lm.engines.protocol.Engine`, or has a ``generate`` of its own.
    launch_s : float
        Roughly, seconds to launch the kernels of a layer: below this no pass through it ends.
    needs_cuda : bool
        It runs on one CUDA device only, and in one process.
    """

    name: str
    description: str
    home: str
    launch_s: float
    needs_cuda: bool = False


# What sdpa leaves out is overhead of a single forward pass at inference: the autograd function around each linear
# layer (a 3-D matmul and an add instead of one fused multiply-add), the dropout-add wrapper, and a pass through every
# expert of a layer, one after the other, for the few that a token visits. Multi-latent attention caches latents,
# where eager caches the keys and values made of them. Two blocks stand side by side where a family has them so,
# which Megatron does not.
ENGINES = {
    entry.name: entry
    for entry in (
        EngineEntry("sdpa", "Megatron's parameters, plain torch calls, fused attention", "sdpa:SdpaEngine", 1.5e-4),
        EngineEntry("eager", "Megatron's layers as they come", "eager:EagerEngine", 4e-4),
        EngineEntry("sdpa+graph", "sdpa, each generated token a CUDA graph", "graph:GraphEngine", 1e-5, True),
        EngineEntry(
            "megatron", "Megatron's own static inference engine", "megatron:MegatronEngine", 4e-4, needs_cuda=True
        ),
    )
}
PORTABLE_ENGINES = tuple(name for name, entry in ENGINES.items() if not entry.needs_cuda)


def load_engine(name: str) -> type:
    """Class of an engine; imports torch and, with it, seconds."""
    module, _, class_name = ENGINES[name].home.partition(":")
    return getattr(import_module(f"{__name__}.{module}"), class_name)
