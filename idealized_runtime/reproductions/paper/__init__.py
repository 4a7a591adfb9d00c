"""Reproduction of arXiv:2305.02440: each number and claim of the paper beside its recomputation from published data.

``models``, ``tradeoffs`` and ``figure9`` are the ten models and the points of the trade-off figures, ``other_fits``
what another fit moves in them; ``api_runtimes`` and ``api_tables`` are what was measured of APIs, ``savings`` what
estimating saves; ``data`` reads the published measurements for the claims. ``shapes``, ``timings``, ``apis``,
``hardware``, ``frontiers`` and ``ranks`` hold the claims, each printed value typed once with its place above the
function that recomputes it; ``report`` makes the table.
"""

from idealized_runtime.reproductions.paper.report import all_claims, count_verdicts, reproduce, to_html, to_text

__all__ = ["all_claims", "count_verdicts", "reproduce", "to_html", "to_text"]
