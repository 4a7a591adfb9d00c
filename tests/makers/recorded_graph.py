"""A CUDA graph's twin on a CPU: records the operations of a step, with their tensors, and runs just those again."""

from contextlib import contextmanager, nullcontext

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class RecordedGraph(TorchDispatchMode):
    """Operations in order. As in a CUDA graph, nothing that Python decided on the way is decided anew."""

    captured = 0

    def __init__(self):
        super().__init__()
        self._calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        self._calls.append((function, args, kwargs or {}, outputs))
        return outputs

    def replay(self):
        for function, args, kwargs, outputs in self._calls:
            again = tree_leaves(function(*args, **kwargs))
            for old, new in zip(tree_leaves(outputs), again, strict=True):
                # Views and results in place are where they were; the rest goes to the place it had in the recording.
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)

    def pool(self):
        return "pool"


class Stream:
    """Nothing runs beside anything here. A class: annotations elsewhere name it as a type."""

    def wait_stream(self, other):
        pass


@contextmanager
def recording(graph, *, pool=None, capture_error_mode):
    RecordedGraph.captured += 1
    with graph:
        yield


def stand_in_for_cuda_graphs(monkeypatch):
    """Let what captures CUDA graphs record on a CPU instead."""
    monkeypatch.setattr(RecordedGraph, "captured", 0)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", RecordedGraph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
