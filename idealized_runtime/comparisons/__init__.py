"""Who is better and how surely: stacks, Pareto frontiers, ranks, capability scores."""
