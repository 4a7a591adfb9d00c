"""Who is better and how surely: ratios, Pareto frontiers, ranks, capability scores."""
