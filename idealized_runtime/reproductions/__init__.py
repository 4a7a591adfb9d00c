"""Everything that knows a publication by name: printed numbers and claims, recomputed and judged."""
