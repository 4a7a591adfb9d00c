"""Runtime of a batch on a pipeline, t(p, o, B, k), fitted to timed batches."""
