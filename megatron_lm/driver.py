"""The driver: arguments -> model -> timed generation -> log. What ``generate_text.py`` and jobs of campaigns run."""

import os
import signal
import sys

from megatron_lm import ranks
from megatron_lm.arguments import resolve
from megatron_lm.prompts import encode_file, take_prompt


def run(arguments) -> int:
    """Time what the driver's arguments ask for.

    Returns
    -------
    int
        0; 1 where no setting could be timed, and on all ranks but 0 where another rank failed.

    Raises
    ------
    ValueError, OSError
        What a user can cause; on one of several ranks the message begins with its number.
    KeyboardInterrupt, BrokenPipeError
        It was stopped; the log has what was measured, and the message or a line before says so.
    """
    try:
        resolve(arguments)
        token_ids = _read_prompts(arguments)
    except (ValueError, OSError):
        ranks.let_rank_0_speak()
        raise
    if ranks.rank() > 0:
        # Ranks that write no log end at once, even while they wait for others: Python's handler would wait with them.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
    try:
        return _time(arguments, token_ids)
    except ranks.OtherRankError as error:
        if ranks.rank() > 0:
            return 1
        raise ValueError(f"{error}{_what_was_kept(arguments.log)}") from error
    except KeyboardInterrupt:
        # torchrun sends the same signal to the ranks that are left when one of them has ended.
        why = "" if ranks.num_ranks() == 1 else "or another rank ended (torchrun says which)"
        raise KeyboardInterrupt(f"{why}{_what_was_kept(arguments.log)}".removeprefix("; ")) from None
    except BrokenPipeError:
        print(f"\nstandard output was closed{_what_was_kept(arguments.log)}", file=sys.stderr)
        raise
    except OSError as error:
        said = f"{error.strerror or error}{_what_was_kept(arguments.log)}"
        raise OSError(error.errno, said, str(error.filename or arguments.log or "")) from error
    except ValueError as error:
        if ranks.num_ranks() == 1:
            raise
        raise ValueError(f"rank {ranks.rank()}: {error}") from error


def _what_was_kept(log) -> str:
    if log is None or not log.exists():
        return "; nothing was kept"
    return f"; what was measured is in {log}: give the same command to go on"


def _time(arguments, token_ids) -> int:
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
    path, architecture = arguments.prompts_file, arguments.architecture
    token_ids = encode_file(
        path,
        tokenizer_type=arguments.tokenizer_type,
        vocab_file=arguments.vocab_file,
        merge_file=arguments.merge_file,
    )
    context = architecture.max_position_embeddings
    if sizes := [size for size in arguments.all_num_input_tokens if size <= context]:
        take_prompt(token_ids, max(sizes), path=path, vocab_size=architecture.vocab_size)
    return token_ids
