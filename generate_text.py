#!/usr/bin/env python
"""Time Megatron text generation: arguments -> model -> timed generation -> log."""

import hashlib
import signal
import sys
import warnings

from megatron_lm.arguments import parse_arguments
from megatron_lm.prompts import DEFAULT_PROMPTS_FILES, encode_file, take_prompt


def main(argv=None) -> int:
    arguments = parse_arguments(argv)
    # A scheduler's stop signal leaves a valid, incomplete log, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(arguments)
    except ValueError as error:
        print(f"generate_text.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = f"; what was measured is in {arguments.log}: give the same command to go on" if arguments.log else ""
        print(f"\ngenerate_text.py: interrupted{kept}", file=sys.stderr)
        return 130


def run(arguments) -> int:
    prompts_file, token_ids = read_prompts(arguments)
    # torch and Megatron take seconds to import: only once the arguments are known to be good.
    warnings.filterwarnings("ignore", module=r"megatron\.")
    from megatron_lm import device as devices
    from megatron_lm import parallel, sweep

    parallel.check_parallelism(arguments.tensor_model_parallel_size, arguments.pipeline_model_parallel_size)
    device = devices.select_device(arguments.device)
    dtype = devices.select_dtype(device, fp16=arguments.fp16, bf16=arguments.bf16)
    prompts_sha256 = hashlib.sha256(prompts_file.read_bytes()).hexdigest()
    measurement = sweep.Measurement.from_arguments(arguments, device, dtype, prompts_sha256)
    parallel.start_process_groups(device)
    try:
        return sweep.run_sweep(measurement, token_ids, log_path=arguments.log)
    finally:
        parallel.stop_process_groups()


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
