"""What torchrun tells each of its processes, and how a failure is told once. Imports neither torch nor Megatron."""

import os
import time

_OTHER_RANKS_WAIT_S = 2.0


class OtherRankError(ValueError):
    """This process stopped because another one did.

    Parameters
    ----------
    failure : dict or None
        ``rank``, ``type`` and ``message`` that the other one left; None where it ended without a word.
    """

    def __init__(self, failure: dict | None):
        self.failure = failure
        if failure is None:
            message = "another rank ended without a word: killed, for lack of memory perhaps (torchrun names it below)"
        else:
            message = f"rank {failure['rank']} failed: {failure['message']}"
        super().__init__(message)

    @property
    def is_out_of_memory(self) -> bool:
        """Whether the other one ran out of memory."""
        return self.failure is not None and self.failure["type"] == RankOutOfMemoryError.__name__


class RankOutOfMemoryError(ValueError):
    """This process ran out of memory in a setting that others had begun with it."""


def rank() -> int:
    """Number of this process among all, from 0; rank 0 prints and writes the log."""
    return _from_torchrun("RANK", 0)


def let_rank_0_speak():
    """Wait, on any other: every rank sees the fault of a command line, and rank 0 is given the time to say so."""
    time.sleep(_OTHER_RANKS_WAIT_S if rank() > 0 else 0)


def local_rank() -> int:
    """Number of this process among those on its machine: the number of its device."""
    return _from_torchrun("LOCAL_RANK", 0)


def num_ranks() -> int:
    """How many processes run together."""
    return _from_torchrun("WORLD_SIZE", 1)


def num_local_ranks() -> int:
    """How many of them run on this machine."""
    return _from_torchrun("LOCAL_WORLD_SIZE", 1)


def attempt() -> int:
    """How often torchrun has started the processes again after a failure (``--max-restarts``)."""
    return _from_torchrun("TORCHELASTIC_RESTART_COUNT", 0)


def _from_torchrun(name, default) -> int:
    return int(os.environ.get(name, default))
