"""Many models x parallelisms x batches x engines, each a job: one driver run into one log; here or on Slurm."""
