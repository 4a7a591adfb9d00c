"""The engine ``sdpa+graph``: decode steps of static shapes, each captured once as a CUDA graph and replayed.

A step launches hundreds of kernels. At a few microseconds each the host, not the device, sets the
time of one token of a small batch; a graph hands all of them to the device at once. Only what
generates a token is captured: the pass over the prompts is that of ``sdpa``, and sampling stays
outside, with the engines all alike.
"""

from collections.abc import Callable
from functools import partial

import torch

from megatron_lm.engines.sdpa import SdpaEngine

# A captured step reads the KV cache up to a fixed length. In buckets of this many tokens it reads at most 127
# tokens that are masked, however long the context: 64 MB beside the 14 GB of a 7 B model's weights. Powers of two
# would need fewer captures, but read up to twice the cache.
BUCKET_TOKENS = 128
# Major compute capabilities: Hopper, and Blackwell of data centers.
_GROUPED_PRODUCTS = (9, 10)
# cuBLAS and the allocator settle in the first passes; what they allocate then must not be a part of the graph.
_NUM_WARMUP_STEPS = 2


class GraphEngine(SdpaEngine):
    """``sdpa`` whose decode steps are captured as CUDA graphs, one for each micro-batch and length of the cache.

    A step is captured when it is first needed, in a warm-up run. Without CUDA its steps run uncaptured, on
    the same fixed buffers: the CPU twin of its tests. One process: collective operations are not captured.

    Raises
    ------
    ValueError
        The experts of this model cannot be captured on this device.
    """

    def __init__(self, model, architecture):
        super().__init__(model, architecture)
        self._captures = self._like.is_cuda
        if self._captures and architecture.num_experts is not None:
            require_capturable_experts(architecture, self.dtype, torch.cuda.get_device_capability(self._like.device))
        self._steps: dict[tuple[int, int, int], _Step] = {}
        self._pool = None
        self._slots: torch.Tensor | None = None

    def reset(self, batch_size, max_sequence_length):
        num_slots = _bucket(max_sequence_length)
        if self._cache_size != (batch_size, num_slots):
            # Graphs hold the addresses of the old cache, and memory of their own.
            self._steps, self._pool = {}, None
            self._slots = torch.arange(num_slots, device=self._like.device)
            super().reset(batch_size, num_slots)
            for cache in self._caches:
                # Slots that are masked are read nevertheless, and no mask hides a NaN.
                cache.zero_()

    def decode(self, inputs, num_cached_tokens, first_sequence=0):
        key = first_sequence, len(inputs), _bucket(num_cached_tokens + 1)
        if key not in self._steps:
            self._steps[key] = self._new_step(inputs, num_cached_tokens, *key)
        return self._steps[key](inputs, num_cached_tokens)

    def _new_step(self, inputs, position, first_sequence, num_sequences, num_slots):
        sequences = slice(first_sequence, first_sequence + num_sequences)
        step = _Step(partial(self._decode_static, sequences=sequences, num_slots=num_slots), inputs)
        if self._captures:
            # Graphs that share memory must not run side by side, which they never do. What each keeps from replay
            # to replay, its logits, no other is given.
            self._pool = step.capture(inputs, position, self._pool)
        return step

    def _decode_static(self, inputs, position, sequences, num_slots):
        """Pass of a token a sequence; ``position``, of shape (1,), is on the device, so that no shape depends on it."""
        slots, seen = self._slots[:num_slots], {}
        for window in {layer.window for layer in self._layers}:
            hidden = slots > position if window is None else (slots > position) | (slots <= position - window)
            # What is added to the scores of a bucket's slots.
            mask = torch.zeros(1, num_slots, dtype=self.dtype, device=slots.device)
            seen[window] = slice(num_slots), mask.masked_fill_(hidden, -torch.inf)
        return self._decode_token(inputs, position, sequences, seen)


def require_capturable_experts(architecture, dtype: torch.dtype, capability: tuple[int, int]):
    """Refuse, by a ValueError, experts whose products wait for the device to say which are visited.

    Where torch has no kernel of ``grouped_mm`` for the data type and device, it loops over the experts instead.
    """
    if dtype != torch.bfloat16 or capability[0] not in _GROUPED_PRODUCTS:
        raise ValueError(
            f"{architecture.name}: --inference-engine sdpa+graph captures experts in torch.bfloat16 on devices of "
            f"compute capability 9 or 10; got {dtype} on {'.'.join(map(str, capability))}: use sdpa"
        )


class _Step:
    """One decode step on fixed buffers, like ``inputs``.

    ``forward`` takes tokens and their position, an int64 tensor of shape (1,), and waits for nothing on the host.
    """

    def __init__(self, forward: Callable, inputs: torch.Tensor):
        self._forward = forward
        self._inputs = torch.empty_like(inputs, memory_format=torch.contiguous_format)
        self._position = torch.zeros(1, dtype=torch.int64, device=inputs.device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outputs: torch.Tensor | None = None

    def __call__(self, inputs: torch.Tensor, position: int) -> torch.Tensor:
        """Logits; of a captured step they stand in a buffer that its next call overwrites."""
        self._fill(inputs, position)
        if self._graph is None:
            return self._forward(self._inputs, self._position)
        self._graph.replay()
        return self._outputs

    def capture(self, inputs: torch.Tensor, position: int, pool=None):
        """Record the step, with memory from the pool of other graphs if given; returns the pool.

        The step runs on the way, which does no harm: it writes what the call after it writes again.
        """
        self._fill(inputs, position)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_NUM_WARMUP_STEPS):
                self._forward(self._inputs, self._position)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads, such as the one that watches over NCCL, may call CUDA meanwhile.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._outputs = self._forward(self._inputs, self._position)
        return self._graph.pool()

    def _fill(self, inputs, position):
        self._inputs.copy_(inputs)
        self._position.fill_(position)


def _bucket(num_tokens: int) -> int:
    return -(-num_tokens // BUCKET_TOKENS) * BUCKET_TOKENS
