"""The rules of a server's scheduler: which step encodes and generates what."""

from dataclasses import dataclass
from numbers import Integral

from idealized_runtime.checks import is_integer

POLICIES = ("continuous", "prompts-first", "static")


@dataclass(frozen=True)
class Scheduler:
    """Rules by which a server puts requests into steps.

    Parameters
    ----------
    policy : {"continuous", "prompts-first", "static"}
        ``continuous``, as vLLM since 2025: a step first generates a token of each running sequence, and encodes as
        much of the next prompts as its budget leaves, a prompt in several chunks where need be. ``prompts-first``:
        whole prompts that wait come first, in a step of their own, generation pauses. ``static``: a batch of what
        waits is encoded in one step and generates until all are done; only then the next one starts.
    max_num_seqs : int
        Sequences that run at once; 1 serves one request at a time.
    max_num_batched_tokens : int
        Tokens of a step, generated and encoded; of ``static`` batches and of a single longer prompt in
        ``prompts-first`` they are no limit.
    cache_tokens : int, optional
        Tokens that the cache holds. Where the next step does not fit, the sequence that was admitted last gives its
        cache up and waits in front, to be encoded again with what it has generated. Without it no request is held up.
    num_engines : int
        Data-parallel copies of the model. A request goes to the one with the fewest that run or wait there.

    Raises
    ------
    ValueError
        A number is not a positive integer, or a step cannot hold a token of each sequence.
    """

    policy: str = "continuous"
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    cache_tokens: int | None = None
    num_engines: int = 1

    def __post_init__(self):
        if self.policy not in POLICIES:
            raise ValueError(f"policy must be one of {', '.join(POLICIES)}; got {self.policy!r}")
        for name in ("max_num_seqs", "max_num_batched_tokens", "cache_tokens", "num_engines"):
            value = getattr(self, name)
            if isinstance(value, Integral) and not isinstance(value, bool):
                # One of numpy, too.
                value = int(value)
                object.__setattr__(self, name, value)
            if not is_integer(value, 1) and not (name == "cache_tokens" and value is None):
                raise ValueError(f"{name} must be an integer of at least 1; got {value!r}")
        if self.policy == "continuous" and self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens must be at least max_num_seqs, {self.max_num_seqs}, a token for each "
                f"sequence; got {self.max_num_batched_tokens}"
            )
