"""The driver, but for one rank that fails in the midst of a setting; tests/test_parallel.py launches it."""

import os
import signal
import sys

import generate_text
from megatron_lm import sweep

FAILING_RANK, NUM_GENERATIONS_BEFORE = 1, 6


def failing(generate, how):
    num_generations = 0

    def call(*arguments, **options):
        nonlocal num_generations
        num_generations += 1
        if num_generations > NUM_GENERATIONS_BEFORE:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory" if how == "memory" else "a fault")
        return generate(*arguments, **options)

    return call


if __name__ == "__main__":
    how = sys.argv.pop(1)
    if os.environ["RANK"] == str(FAILING_RANK):
        sweep.generate = failing(sweep.generate, how)
    sys.exit(generate_text.main())
