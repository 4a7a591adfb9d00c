"""The driver: arguments -> model -> timed generation -> log. What ``generate_text.py`` and jobs of campaigns run."""

import os
import signal
import sys
import time

from megatron_lm import ranks
from megatron_lm.arguments import PROGRAM, parse_arguments
from megatron_lm.prompts import encode_file, take_prompt

_OTHER_RANKS_WAIT_S = 2.0


def main(argv=None, *, program: str = PROGRAM) -> int:
    """Time what the arguments ask for.

    Returns
    -------
    int
        0; 1 where no setting could be timed, another rank failed or torch is missing; 2 for what a user can cause;
        130, 141 where it was stopped: the log then has what was measured.
    """
    for name in ("stdout", "stderr"):
        # Python has no stream where it was started with that descriptor closed, and tqdm needs one.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    try:
        arguments = parse_arguments(argv, program=program)
    except ValueError as error:
        # Every rank sees the same fault: rank 0 is given the time to be the one that says so.
        time.sleep(_OTHER_RANKS_WAIT_S if ranks.rank() > 0 else 0)
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    # A scheduler's stop signal leaves a valid, incomplete log, as Ctrl-C does, which shells keep from background jobs.
    # Ranks that write none end at once, even while they wait for others: Python's handler would wait with them.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if ranks.rank() == 0 else signal.SIG_DFL)
    try:
        return _run(arguments)
    except ranks.OtherRankError as error:
        if ranks.rank() == 0:
            print(f"{program}: error: {error}{_what_was_kept(arguments.log)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # torchrun sends the same signal to the ranks that are left when one of them has ended.
        why = "interrupted" if ranks.num_ranks() == 1 else "interrupted, or another rank ended (torchrun says which)"
        print(f"\n{program}: {why}{_what_was_kept(arguments.log)}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Python flushes standard output once more as it exits, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"\n{program}: standard output was closed{_what_was_kept(arguments.log)}", file=sys.stderr)
        return 128 + signal.SIGPIPE
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] not in ("torch", "megatron", "psutil", "tokenizers", "tqdm"):
            raise
        remedy = "pip install 'idealized-runtime[megatron]'"
        print(f"{program}: error: {error.name} is not installed; {remedy}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        rank = f"rank {ranks.rank()}: " if ranks.num_ranks() > 1 else ""
        print(f"{program}: {rank}error: {error}", file=sys.stderr, flush=True)
        return 2


def _what_was_kept(log) -> str:
    if log is None or not log.exists():
        return "; nothing was kept"
    return f"; what was measured is in {log}: give the same command to go on"


def _run(arguments) -> int:
    token_ids = _read_prompts(arguments)
    let_threads_sleep()
    # torch and Megatron take seconds to import: only once the arguments are known to be good.
    from megatron_lm import device as devices
    from megatron_lm.measurement import Measurement
    from megatron_lm.parallel import ProcessGrid
    from megatron_lm.sweep import run_sweep

    device = devices.select_device(arguments.device)
    devices.require_device_of(arguments.inference_engine, device)
    measurement = Measurement.from_arguments(arguments)
    with ProcessGrid(device, measurement.tensor_parallel_size, measurement.pipeline_parallel_size) as grid:
        devices.limit_host_memory(device)
        return run_sweep(measurement, token_ids, log_path=arguments.log, grid=grid)


def let_threads_sleep():
    """Before torch is imported: a thread that waits for its neighbour spins for some 10 us, then sleeps.

    GNU OpenMP's default is 30 times longer: next to one busy process it makes decoding 4 to 7 times slower instead of
    2, at random.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _read_prompts(arguments) -> list[int]:
    """Token ids of the prompts; every size of the sweep that fits the model can be cut from them."""
    token_ids = encode_file(
        arguments.prompts_file,
        tokenizer_type=arguments.tokenizer_type,
        vocab_file=arguments.vocab_file,
        merge_file=arguments.merge_file,
    )
    context = arguments.architecture.max_position_embeddings
    if sizes := [size for size in arguments.all_num_input_tokens if size <= context]:
        vocab_size = arguments.architecture.vocab_size
        take_prompt(token_ids, max(sizes), path=arguments.prompts_file, vocab_size=vocab_size)
    return token_ids


if __name__ == "__main__":
    sys.exit(main())
