"""Processes of Megatron's tensor and pipeline parallelism under torchrun: groups, agreement, failure."""

import json
from datetime import timedelta

import torch
from megatron.core import parallel_state

from megatron_lm import ranks
from megatron_lm.ranks import OtherRankError

# A rank that waits for rank 0's word waits for no more than reading a log or building a model.
_STORE_TIMEOUT = timedelta(hours=1)


class ProcessGrid:
    """Tensor x pipeline parallel processes, and this one's place among them.

    Entering it sets up Megatron's process groups; ``gloo`` on CPUs, ``nccl`` on CUDA. Left by an
    exception it first tells the other ranks, which stop with :class:`megatron_lm.ranks.OtherRankError`.

    Attributes
    ----------
    rank, size : int
        Number of this process, and of all that torchrun started. Ranks of one stage are neighbours, as in Megatron.
    stage, num_stages : int
        Position in the pipeline, and its length.
    """

    def __init__(self, device: torch.device, tensor_parallel_size: int = 1, pipeline_parallel_size: int = 1):
        self.device = device
        self.rank, self.size = ranks.rank(), tensor_parallel_size * pipeline_parallel_size
        self.tensor_parallel_size, self.num_stages = tensor_parallel_size, pipeline_parallel_size
        self.stage = self.rank // tensor_parallel_size
        self._store = None
        self._num_shared = 0
        self._forward_groups, self._token_group = [], None

    @property
    def is_first_stage(self) -> bool:
        """Whether this process takes tokens in."""
        return self.stage == 0

    @property
    def is_last_stage(self) -> bool:
        """Whether this process gives logits out."""
        return self.stage == self.num_stages - 1

    def __enter__(self):
        if torch.distributed.is_initialized():
            return self
        if self.size == 1:
            self._store, rank = torch.distributed.HashStore(), 0
        else:
            store, rank, _ = next(torch.distributed.rendezvous("env://", timeout=_STORE_TIMEOUT))
            # torchrun keeps the store when it starts ranks again: what the earlier ones left there is not for these.
            self._store = torch.distributed.PrefixStore(f"attempt {ranks.attempt()}", store)
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, store=self._store, rank=rank, world_size=self.size)
        parallel_state.initialize_model_parallel(self.tensor_parallel_size, self.num_stages)
        self._connect_stages()
        return self

    def _connect_stages(self):
        """A group for each pair of processes that pass tensors on.

        NCCL carries out the transfers of one group in order: of two ranks that both begin by sending, each
        would wait for the other. A group for each direction cannot lock up.
        """
        if self.num_stages == 1:
            return
        new_group = torch.distributed.new_group
        for lane in range(self.tensor_parallel_size):
            members = range(lane, self.size, self.tensor_parallel_size)
            forward = [new_group([members[i], members[i + 1]]) for i in range(self.num_stages - 1)]
            back = new_group([members[0], members[-1]])
            if self.rank in members:
                self._forward_groups, self._token_group = forward, back

    def next_stage(self) -> tuple:
        """Group and rank to which hidden states go."""
        return self._forward_groups[self.stage], self.rank + self.tensor_parallel_size

    def previous_stage(self) -> tuple:
        """Group and rank from which hidden states come."""
        return self._forward_groups[self.stage - 1], self.rank - self.tensor_parallel_size

    def opposite_stage(self) -> tuple:
        """Group and rank at the other end of the pipeline: new tokens go from the last stage to the first."""
        distance = self.size - self.tensor_parallel_size
        return self._token_group, self.rank + (distance if self.is_first_stage else -distance)

    def barrier(self):
        """Wait until every process is here."""
        if self.size > 1:
            torch.distributed.barrier()

    def all_agree(self, claim: bool) -> bool:
        """Whether the claim holds on every process."""
        if self.size == 1:
            return claim
        answer = torch.tensor(int(claim), device=self.device)
        torch.distributed.all_reduce(answer, torch.distributed.ReduceOp.MIN)
        return bool(answer)

    def share(self, value=None):
        """Rank 0's value on every process; it must be fit for JSON."""
        if self.size == 1:
            return value
        self._num_shared += 1
        key = f"shared {self._num_shared}"
        if self.rank == 0:
            self._store.set(key, json.dumps(value))
        return json.loads(self._store.get(key))

    def gather(self, value) -> list:
        """Every process's value, in the order of ranks, on every process; it must be fit for JSON."""
        if self.size == 1:
            return [value]
        self._num_shared += 1
        keys = [f"shared {self._num_shared} by {rank}" for rank in range(self.size)]
        self._store.set(keys[self.rank], json.dumps(value))
        return [json.loads(self._store.get(key)) for key in keys]

    def __exit__(self, _, error, __):
        if error is not None and self.size > 1:
            # The groups stay: closing them would let the others speak before this one has.
            self.explain(error)
            return
        if torch.distributed.is_initialized():
            parallel_state.destroy_model_parallel()
            torch.distributed.destroy_process_group()

    def explain(self, error: BaseException):
        """Tell the other ranks that this one fails with ``error``; an OtherRankError where one of them failed first."""
        if self.size == 1 or isinstance(error, OtherRankError):
            return
        failure = self._first_failure()
        if failure is not None and failure["rank"] != self.rank:
            raise OtherRankError(failure) from error
        if isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error).replace("\\", "/"):
            # The connection to it was lost.
            raise OtherRankError(None) from error
        if failure is None and not isinstance(error, KeyboardInterrupt):
            lines = str(error).strip().splitlines() or [repr(error)]
            self._store.set("failure", json.dumps(
                {"rank": self.rank, "type": type(error).__name__, "message": lines[0]}
            ))  # fmt: skip

    def _first_failure(self) -> dict | None:
        try:
            return json.loads(self._store.get("failure")) if self._store.check(["failure"]) else None
        except RuntimeError:
            # The machine that kept the store is gone as well.
            return None
