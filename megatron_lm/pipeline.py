"""Tensors that pass between the stages of a pipeline while a batch is generated."""

from collections import deque
from collections.abc import Iterable

import torch
from torch import distributed

from megatron_lm.parallel import ProcessGrid

# While one micro-batch is worked on, the next may already arrive and the one before may still leave.
_NUM_RECEIVES_AHEAD = 2
_NUM_SENDS_BEHIND = 2


class Inbox:
    """Tensors of known shapes from one rank, in order; the next ones are received while the last is worked on.

    Parameters
    ----------
    group, source
        As :meth:`ProcessGrid.previous_stage` gives them.
    shapes : iterable of tuple
        Of every tensor that will come.
    """

    def __init__(self, group, source: int, shapes: Iterable[tuple], *, dtype: torch.dtype, device: torch.device):
        self._group, self._source = group, source
        self._shapes = iter(shapes)
        self._dtype, self._device = dtype, device
        self._coming = deque()
        for _ in range(_NUM_RECEIVES_AHEAD):
            self._expect_next()

    def _expect_next(self):
        shape = next(self._shapes, None)
        if shape is not None:
            buffer = torch.empty(shape, dtype=self._dtype, device=self._device)
            self._coming.append((buffer, distributed.irecv(buffer, self._source, self._group)))

    def take(self) -> torch.Tensor:
        """The next tensor, once it is here."""
        self._expect_next()
        buffer, work = self._coming.popleft()
        work.wait()
        return buffer


class Outbox:
    """Tensors to one rank, in order, sent while this one goes on working.

    Parameters
    ----------
    group, destination
        As :meth:`ProcessGrid.next_stage` gives them.
    num_behind : int, optional
        Wait for older sends once this many are under way; never by default.
    """

    def __init__(self, group, destination: int, *, num_behind: int | None = None):
        self._group, self._destination = group, destination
        self._num_behind = num_behind
        self._leaving = deque()

    def put(self, tensor: torch.Tensor):
        """Begin to send; the tensor must not change until it has left."""
        tensor = tensor.contiguous()
        self._leaving.append((tensor, distributed.isend(tensor, self._destination, self._group)))
        while self._num_behind is not None and len(self._leaving) > self._num_behind:
            self._wait_for_oldest()

    def flush(self):
        """Wait until everything has left."""
        while self._leaving:
            self._wait_for_oldest()

    def _wait_for_oldest(self):
        _, work = self._leaving.popleft()
        work.wait()


class StageLinks:
    """What one of two stages or more takes from the others and gives to them during one generation.

    Hidden states of ``dtype`` go from stage to stage, new tokens, of shape (sequences, 1), from the last stage back to
    the first; the shapes are those of every tensor of the generation, in the order of its passes.
    """

    def __init__(
        self, grid: ProcessGrid, hidden_shapes: Iterable[tuple], token_shapes: Iterable[tuple], dtype: torch.dtype
    ):
        self.hidden_in = self.hidden_out = self.tokens_in = self.tokens_out = None
        if grid.is_first_stage:
            self.tokens_in = Inbox(*grid.opposite_stage(), token_shapes, dtype=torch.int64, device=grid.device)
        else:
            self.hidden_in = Inbox(*grid.previous_stage(), hidden_shapes, dtype=dtype, device=grid.device)
        if grid.is_last_stage:
            # The first stage takes the prompts' tokens only when all prompts are on their way: to wait for it
            # here would stop the pipeline for good.
            self.tokens_out = Outbox(*grid.opposite_stage())
        else:
            self.hidden_out = Outbox(*grid.next_stage(), num_behind=_NUM_SENDS_BEHIND)

    def flush(self):
        """Wait until everything has left this stage."""
        for box in (self.hidden_out, self.tokens_out):
            if box is not None:
                box.flush()
