"""Reproduction of arXiv:2305.02440: each number and claim of the paper beside its recomputation from published data.

``verdicts`` compares what is printed with what is recomputed; ``data`` reads the published measurements;
``shapes``, ``timings``, ``apis``, ``hardware``, ``frontiers`` and ``ranks`` list the claims, each printed value
typed once with its place, and recompute them; ``report`` makes the table.
"""

from idealized_runtime.reproductions.paper.report import all_claims, reproduce, summarize, to_html, to_text
from idealized_runtime.reproductions.verdicts import VERDICTS, Claim, Evidence, agrees, judge

__all__ = [
    "VERDICTS",
    "Claim",
    "Evidence",
    "agrees",
    "all_claims",
    "judge",
    "reproduce",
    "summarize",
    "to_html",
    "to_text",
]
