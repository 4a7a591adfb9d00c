"""How the next token is drawn, as the command line says it. Imports no torch, which drawing it needs."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Parameters
    ----------
    temperature : float
        Divides the logits; above 0.
    top_k : int
        Keep the k most likely tokens; 0 keeps all, 1 is greedy.
    top_p : float
        Keep the smallest set of most likely tokens whose probabilities sum to at least p; 0 keeps all.

    Raises
    ------
    ValueError
        A value is out of its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 0.0

    def __post_init__(self):
        if not 0 < self.temperature < math.inf:
            raise ValueError(
                f"--temperature must be above 0 and finite; got {self.temperature} (greedy decoding: --top-k 1)"
            )
        if self.top_k < 0:
            raise ValueError(f"--top-k must be at least 0 (0 keeps all tokens); got {self.top_k}")
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"--top-p must lie in [0, 1] (0 keeps all tokens); got {self.top_p}")
