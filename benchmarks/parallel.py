"""Pipeline and tensor parallelism on two cores against one process, and our micro-batch loop against a plain one.

Every contestant runs in processes of its own with one thread each, that wait while another one is timed. A
round times each in turn; ratios are taken round by round.

    python benchmarks/parallel.py [--rounds N] [--batch-sizes 8 16 32]
"""

import argparse
import json
import os
import socket
import subprocess
import sys
from time import perf_counter

import numpy as np
import torch

from idealized_runtime.architectures import get_architecture
from megatron_lm.device import select_device
from megatron_lm.engines import load_engine
from megatron_lm.environment import describe_hardware, describe_software
from megatron_lm.generation import generate
from megatron_lm.model import build_model
from megatron_lm.parallel import ProcessGrid
from megatron_lm.sampling import Sampling, sample

ARCHITECTURE = "gpt2-small"
# 16 prompt tokens for each output token, as in the published throughput test of GPT-J (512 and 32).
NUM_PROMPT_TOKENS, NUM_OUTPUT_TOKENS = 256, 16
BATCH_SIZES = (8, 16, 32)
# Micro-batches that a pipeline generates tokens in.
CUTS = (1, 2, 4)
GREEDY = Sampling(top_k=1)
GRIDS = {"one process": (1, 1), "pipeline of 2": (1, 2), "tensor parallel 2": (2, 1)}


class Contestant:
    """Processes of one grid, which generate a batch when told to."""

    def __init__(self, tensor_parallel_size: int, pipeline_parallel_size: int):
        size = tensor_parallel_size * pipeline_parallel_size
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        sizes = [str(tensor_parallel_size), str(pipeline_parallel_size)]
        self._processes = [
            subprocess.Popen(
                [sys.executable, __file__, "--worker", *sizes],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={
                    **os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "RANK": str(rank),
                    "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size),
                    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                },
            )
            for rank in range(size)
        ]  # fmt: skip

    def run(self, **command) -> tuple[list, list]:
        """Seconds to encode the prompts of a batch and to generate its tokens; and the tokens."""
        print(json.dumps(command), file=self._processes[0].stdin, flush=True)
        answer = json.loads(self._processes[0].stdout.readline())
        return answer["seconds"], answer["tokens"]

    def stop(self):
        for process in self._processes:
            process.stdin.close()
        for process in self._processes:
            process.wait()


@torch.inference_mode()
def work(tensor_parallel_size, pipeline_parallel_size):
    """Rank 0 takes commands from standard input and answers on standard output."""
    architecture = get_architecture(ARCHITECTURE)
    device = select_device("cpu")
    with ProcessGrid(device, tensor_parallel_size, pipeline_parallel_size) as grid:
        model = build_model(architecture, device=device, dtype=torch.float32, seed=0, grid=grid)
        engine = load_engine("sdpa")(model, architecture)
        engine.tune({NUM_PROMPT_TOKENS, *(size // cut for size in BATCH_SIZES for cut in CUTS)})
        while True:
            line = sys.stdin.readline() if grid.rank == 0 else None
            command = grid.share(json.loads(line) if line else None)
            if command is None:
                return
            seconds, tokens = run_command(engine, grid, architecture, **command)
            if grid.rank == 0:
                print(json.dumps({"seconds": seconds, "tokens": tokens.tolist()}), flush=True)


def run_command(engine, grid, architecture, *, batch_size, micro_batch_size, token_micro_batch_size, is_plain=False):
    generator = torch.Generator().manual_seed(batch_size)
    prompts = torch.randint(architecture.vocab_size, (batch_size, NUM_PROMPT_TOKENS), generator=generator)
    engine.reset(batch_size, NUM_PROMPT_TOKENS + NUM_OUTPUT_TOKENS - 1)
    split_s = []
    grid.barrier()
    start_s = perf_counter()
    if is_plain:
        tokens = plain_loop(engine, prompts, split_s)
    else:
        tokens = generate(
            engine, prompts, NUM_OUTPUT_TOKENS, GREEDY, generator=generator, grid=grid,
            micro_batch_size=micro_batch_size, token_micro_batch_size=token_micro_batch_size,
            on_prompts_encoded=lambda: split_s.append(perf_counter()),
        )  # fmt: skip
    return [split_s[0] - start_s, perf_counter() - split_s[0]], tokens


def plain_loop(engine, prompts, split_s):
    """The batch as a whole, without micro-batches, stages or a buffer of tokens."""
    tokens = sample(engine.encode(prompts), GREEDY, None)
    split_s.append(perf_counter())
    outputs = [tokens]
    for i in range(NUM_OUTPUT_TOKENS - 1):
        tokens = sample(engine.decode(tokens, NUM_PROMPT_TOKENS + i), GREEDY, None)
        outputs.append(tokens)
    return torch.cat(outputs, dim=1)


def compare(contestants, batch_size, rounds):
    """By (contestant, m, k), prompt encoding and generation seconds, shape (rounds, 2); tokens must be the same."""
    one, pipeline, tensor = contestants.values()
    whole = (batch_size, batch_size)
    runs = {
        ("plain", *whole): (one, {"is_plain": True}),
        ("one", *whole): (one, {}),
        ("tensor", *whole): (tensor, {}),
        **{("pipeline", 1, batch_size // cut): (pipeline, {}) for cut in CUTS},
    }
    times_s = {name: [] for name in runs}
    for i in range(rounds + 1):
        answers = set()
        for name, (contestant, options) in runs.items():
            seconds, tokens = contestant.run(
                batch_size=batch_size, micro_batch_size=name[1], token_micro_batch_size=name[2], **options
            )
            answers.add(json.dumps(tokens))
            # The first round warms up.
            if i:
                times_s[name].append(seconds)
        assert len(answers) == 1, "the contestants generated different tokens"
    return {name: np.array(seconds) for name, seconds in times_s.items()}


def ratio(numerator, denominator) -> str:
    """Median of the ratios round by round, with quartiles."""
    low, median, high = np.percentile(np.divide(numerator, denominator), [25, 50, 75])
    return f"{median:.3f} [{low:.3f}, {high:.3f}]"


def report(batch_size, times_s):
    """A row a contestant, its ratios to one process in speed: more than 1 is faster."""
    one_s = next(seconds for name, seconds in times_s.items() if name[0] == "one")
    for (name, micro_batch_size, token_micro_batch_size), seconds in times_s.items():
        tokens_per_s = batch_size * NUM_OUTPUT_TOKENS / np.median(seconds.sum(axis=1))
        ratios = [ratio(one_s.sum(axis=1), seconds.sum(axis=1)), *(ratio(one_s[:, i], seconds[:, i]) for i in (0, 1))]
        print(f"| {batch_size} | {name} | {micro_batch_size}, {token_micro_batch_size} | {tokens_per_s:.1f} | "
              f"{' | '.join(ratios)} |", flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=BATCH_SIZES)
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(*arguments.worker)
        return
    device = select_device("cpu")
    software = ", ".join(f"{name} {version}" for name, version in describe_software(device).items())
    print(f"{describe_hardware(device)}; 1 thread a process; {software}; {ARCHITECTURE}, p = {NUM_PROMPT_TOKENS}, "
          f"o = {NUM_OUTPUT_TOKENS}; {arguments.rounds} rounds")  # fmt: skip
    print("| batch | contestant | m, k | output tokens/s | throughput / one process | prompt encoding, speed / one "
          "process | generation, speed / one process |\n|---|---|---|---|---|---|---|", flush=True)  # fmt: skip
    contestants = {name: Contestant(*sizes) for name, sizes in GRIDS.items()}
    try:
        for batch_size in arguments.batch_sizes:
            report(batch_size, compare(contestants, batch_size, arguments.rounds))
    finally:
        for contestant in contestants.values():
            contestant.stop()
    print("All contestants generated the same tokens in every round.")


if __name__ == "__main__":
    main()
