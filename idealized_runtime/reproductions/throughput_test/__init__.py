"""The tables of an earlier pipeline throughput test, recomputed number by number."""
