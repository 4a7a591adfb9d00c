#!/usr/bin/env python
"""Time Megatron text generation: arguments -> model -> timed generation -> log."""

import hashlib
import os
import signal
import sys
import warnings

from megatron_lm import ranks
from megatron_lm.arguments import parse_arguments
from megatron_lm.prompts import DEFAULT_PROMPTS_FILES, encode_file, take_prompt


def main(argv=None) -> int:
    _provide_streams()
    arguments = parse_arguments(argv)
    _take_stop_signals()
    try:
        return run(arguments)
    except ranks.OtherRankError as error:
        if ranks.rank() == 0:
            print(f"generate_text.py: error: {error}{_what_was_kept(arguments.log)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # torchrun sends the same signal to the ranks that are left when one of them has ended.
        why = "interrupted" if ranks.num_ranks() == 1 else "interrupted, or another rank ended (torchrun says which)"
        print(f"\ngenerate_text.py: {why}{_what_was_kept(arguments.log)}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Python flushes standard output once more as it exits, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"\ngenerate_text.py: standard output was closed{_what_was_kept(arguments.log)}", file=sys.stderr)
        return 128 + signal.SIGPIPE
    except (ValueError, OSError) as error:
        rank = f"rank {ranks.rank()}: " if ranks.num_ranks() > 1 else ""
        print(f"generate_text.py: {rank}error: {error}", file=sys.stderr, flush=True)
        return 2


def _provide_streams():
    for name in ("stdout", "stderr"):
        # Python has no stream where it was started with that descriptor closed, and tqdm needs one.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def _take_stop_signals():
    # A scheduler's stop signal leaves a valid, incomplete log, as Ctrl-C does, which shells keep from background jobs.
    # Ranks that write none end at once, even while they wait for others: Python's handler would wait with them.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if ranks.rank() == 0 else signal.SIG_DFL)


def _what_was_kept(log) -> str:
    if log is None or not log.exists():
        return "; nothing was kept"
    return f"; what was measured is in {log}: give the same command to go on"


def run(arguments) -> int:
    prompts_file, token_ids = read_prompts(arguments)
    if "OMP_WAIT_POLICY" not in os.environ:
        # A thread that waits for its neighbour spins for some 10 us, then sleeps. GNU OpenMP's default is 30 times
        # longer: next to one busy process it makes decoding 4 to 7 times slower instead of 2, at random.
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # torch and Megatron take seconds to import: only once the arguments are known to be good.
    warnings.filterwarnings("ignore", module=r"megatron\.")
    from megatron_lm import device as devices
    from megatron_lm.measurement import Measurement
    from megatron_lm.parallel import ProcessGrid
    from megatron_lm.sweep import run_sweep

    device = devices.select_device(arguments.device)
    devices.require_device_of(arguments.inference_engine, device)
    dtype = devices.select_dtype(device, fp16=arguments.fp16, bf16=arguments.bf16)
    prompts_sha256 = hashlib.sha256(prompts_file.read_bytes()).hexdigest()
    measurement = Measurement.from_arguments(arguments, device, dtype, prompts_sha256)
    with ProcessGrid(device, measurement.tensor_parallel_size, measurement.pipeline_parallel_size) as grid:
        devices.limit_host_memory(device)
        return run_sweep(measurement, token_ids, log_path=arguments.log, grid=grid)


def read_prompts(arguments):
    """File and token ids of the prompts; every size of the sweep that fits the model can be cut from them."""
    path = arguments.prompts_file or DEFAULT_PROMPTS_FILES[arguments.tokenizer_type]
    token_ids = encode_file(
        path,
        tokenizer_type=arguments.tokenizer_type,
        vocab_file=arguments.vocab_file,
        merge_file=arguments.merge_file,
    )
    largest = max(
        (p for p in arguments.all_num_input_tokens if p <= arguments.architecture.max_position_embeddings), default=0
    )
    if largest:
        take_prompt(token_ids, largest, path=path, vocab_size=arguments.architecture.vocab_size)
    return path, token_ids


if __name__ == "__main__":
    sys.exit(main())
