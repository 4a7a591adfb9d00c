"""Efficiency against capability: who is on the Pareto frontier, how models rank, and how sure that is.

``frontier`` compares any costs and qualities; ``points`` makes those of the figures of arXiv:2305.02440.
"""

from idealized_runtime.tradeoffs.frontier import (
    draw_costs,
    frontier_probability,
    objective_values,
    pareto_frontier,
    rank,
    rank_probabilities,
)

__all__ = [
    "draw_costs",
    "frontier_probability",
    "objective_values",
    "pareto_frontier",
    "rank",
    "rank_probabilities",
]
