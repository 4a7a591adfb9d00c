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
    description : str
    home : str
        Module of this package and class in it; made of a model and its architecture. The class obeys
        :class:`megatron_lm.engines.protocol.Engine`, or has a ``generate`` of its own.
    launch_s : float
        Roughly, seconds to launch the kernels of a layer: below this no pass through it ends.
    needs_cuda : bool
        It runs on one CUDA device only, and in one process.
    needs_warmup : bool
        Its first run of a setting takes what later ones do not.
    cuts_batches : bool
        It runs a batch in micro-batches.
    """

    description: str
    home: str
    launch_s: float
    needs_cuda: bool = False
    needs_warmup: bool = False
    cuts_batches: bool = True


# What sdpa leaves out is overhead of a single forward pass at inference: the autograd function around each linear
# layer (a 3-D matmul and an add instead of one fused multiply-add), the dropout-add wrapper, and a pass through every
# expert of a layer, one after the other, for the few that a token visits. Multi-latent attention caches latents,
# where eager caches the keys and values made of them. Two blocks stand side by side where a family has them so,
# which Megatron does not.
ENGINES = {
    "sdpa": EngineEntry("Megatron's parameters, plain torch calls, fused attention", "sdpa:SdpaEngine", 1.5e-4),
    "eager": EngineEntry("Megatron's layers as they come", "eager:EagerEngine", 4e-4),
    "sdpa+graph": EngineEntry(
        "sdpa, each generated token a CUDA graph", "graph:GraphEngine", 1e-5, needs_cuda=True, needs_warmup=True
    ),
    "megatron": EngineEntry(
        "Megatron's own static inference engine", "megatron:MegatronEngine", 4e-4, needs_cuda=True, cuts_batches=False
    ),
}
DEFAULT_ENGINE = next(iter(ENGINES))
PORTABLE_ENGINES = tuple(name for name, entry in ENGINES.items() if not entry.needs_cuda)
# What a campaign of a GPU compares where nothing else is said: all that give every batch, the quickest first.
GPU_ENGINES = tuple(sorted((name for name in ENGINES if ENGINES[name].cuts_batches), key=lambda n: ENGINES[n].launch_s))


def load_engine(name: str) -> type:
    """Class of an engine; imports torch and, with it, seconds."""
    module, _, class_name = ENGINES[name].home.partition(":")
    return getattr(import_module(f"{__name__}.{module}"), class_name)
