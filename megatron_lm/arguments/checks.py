"""What the flags must agree on, and what follows from them: sizes, sampling, log, processes and engine."""

import os
from dataclasses import replace

from idealized_runtime.cli.flags import goal_of
from megatron_lm.arguments.flags import flag_of
from megatron_lm.arguments.sampling import Sampling
from megatron_lm.batching import all_batchings
from megatron_lm.engines import ENGINES, PORTABLE_ENGINES
from megatron_lm.prompts import DEFAULT_PROMPTS_FILES, TOKENIZER_TYPES


def complete(arguments):
    """Fill in what follows from the flags: each size once, the batchings, the sampling, the file of the prompts.

    Raises
    ------
    ValueError
        A value is none, or contradicts another; the message names the flag.
    """
    _choose_goal(arguments)
    if arguments.all_num_input_tokens is None:
        raise ValueError("the following arguments are required: --all-num-input-tokens")
    if arguments.all_num_output_tokens is None:
        if arguments.out_seq_length is None:
            raise ValueError("give --all-num-output-tokens, or --out-seq-length for a single number of output tokens")
        arguments.all_num_output_tokens = [arguments.out_seq_length]
    for name in ("all_num_input_tokens", "all_num_output_tokens"):
        # A size given twice is the same setting.
        setattr(arguments, name, list(dict.fromkeys(getattr(arguments, name))))
    if arguments.fp16 and arguments.bf16:
        raise ValueError("--fp16 and --bf16 exclude each other; give one, or none for float32")
    arguments.batchings = all_batchings(
        arguments.global_batch_size,
        arguments.micro_batch_size,
        arguments.token_micro_batch_size,
        num_stages=arguments.pipeline_model_parallel_size,
    )
    if not 0 <= arguments.seed < 2**63:
        raise ValueError(f"--seed must lie in [0, 2**63); got {arguments.seed}")
    arguments.sampling = Sampling(arguments.temperature, arguments.top_k, arguments.top_p)
    _choose_tokenizer(arguments)
    arguments.prompts_file = arguments.prompts_file or DEFAULT_PROMPTS_FILES[arguments.tokenizer_type]
    if arguments.log is not None:
        _check_log(arguments.log)


def _choose_goal(arguments):
    """How often what is timed: as said, or until it is known well enough; then sizes may follow from the queries."""
    arguments.goal = goal_of(arguments, "num_trials", "num_blocks")
    defaults = {"num_warmup": 10, "num_trials": 50, "num_blocks": 5}
    if arguments.goal is not None:
        defaults = {"num_warmup": 1}
        if arguments.queries is not None:
            prompt_sizes, output_sizes = arguments.goal.sizes()
            defaults |= {"all_num_input_tokens": prompt_sizes}
            defaults |= {} if arguments.out_seq_length else {"all_num_output_tokens": output_sizes}
    for name, default in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)


def check_goal(arguments):
    """Refuse, with a ValueError, what a sweep that chooses its own settings cannot time."""
    goal = arguments.goal
    if goal is None:
        return
    if (number := len(arguments.num_layers_profiled)) > 1:
        raise ValueError(f"--target-error chooses among settings of one slice of the layers; got {number} slices")
    if arguments.logs is not None and all(batch_size > 1 for batch_size, *_ in arguments.batchings):
        raise ValueError(
            f"--logs {arguments.logs} tells what is expected of one sequence at a time, not of a batch: leave it out"
        )
    if len(outputs := arguments.all_num_output_tokens) < 2:
        raise ValueError(
            "--target-error needs two numbers of output tokens or more, such as --all-num-output-tokens 1 8, to tell "
            f"prompts from tokens; got {outputs}"
        )
    context = arguments.architecture.max_position_embeddings
    if (least := min(arguments.all_num_input_tokens) + max(outputs) - 1) > context:
        raise ValueError(
            f"--target-error: the shortest prompt with the most output tokens needs {least} positions; "
            f"{arguments.architecture.name} has {context}: give smaller sizes"
        )
    try:
        arguments.goal = goal = goal.within(context)
        if arguments.logs is not None:
            arguments.goal = goal = _with_prior(goal, arguments)
        goal.design(arguments.all_num_input_tokens, arguments.all_num_output_tokens, seed=0, num_warmups=0)
    except ValueError as error:
        raise ValueError(f"--target-error: {error}") from error


def _with_prior(goal, arguments):
    """The goal, with what logs of other models on the machine tell of this one."""
    from idealized_runtime.design.priors import prior_of_architecture
    from idealized_runtime.measurements.shipped import read_stack

    prior = prior_of_architecture(arguments.architecture, read_stack(arguments.logs))
    return replace(goal, prior=prior, prior_source=str(arguments.logs))


def _choose_tokenizer(arguments):
    """GPT-2's where its files are given, as in 2023; they are not given in vain."""
    files = [flag_of(name) for name in ("vocab_file", "merge_file") if getattr(arguments, name) is not None]
    if arguments.tokenizer_type is None:
        arguments.tokenizer_type = "GPT2BPETokenizer" if files else TOKENIZER_TYPES[0]
    elif files and arguments.tokenizer_type != "GPT2BPETokenizer":
        given = f"--tokenizer-type {arguments.tokenizer_type}"
        raise ValueError(f"{', '.join(files)}: {given} reads no such file; leave out the one or the other")


def _check_log(path):
    """Refuse a log that could not be written when the first setting has been timed."""
    if path.exists() and not path.is_file():
        raise ValueError(f"--log {path} is no regular file: it could not be resumed; give a file")
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    if existing != path and not existing.is_dir():
        raise ValueError(f"--log {path}: {existing} is not a folder")
    if not os.access(existing, os.W_OK):
        raise ValueError(f"--log {path}: no permission to write {existing}")


def check_parallelism(arguments, num_ranks: int):
    """Refuse, with a ValueError, what cannot be shared out among so many processes."""
    tensor_size, num_stages = arguments.tensor_model_parallel_size, arguments.pipeline_model_parallel_size
    if tensor_size * num_stages != num_ranks:
        raise ValueError(
            f"--tensor-model-parallel-size {tensor_size} x --pipeline-model-parallel-size {num_stages} needs "
            f"{tensor_size * num_stages} processes; there are {num_ranks}: start them with torchrun --nproc-per-node "
            f"{tensor_size * num_stages} -- generate_text.py ... (installed: -m -- idealized_runtime time ...), on "
            "more machines with --nnodes"
        )
    # It takes numpy with it, which help needs not wait for.
    from idealized_runtime.architectures.devices import check_tensor_parallel_size

    architecture = arguments.architecture
    check_tensor_parallel_size(architecture, tensor_size, name="--tensor-model-parallel-size")
    for size in arguments.num_layers_profiled:
        if size % num_stages:
            raise ValueError(
                f"--pipeline-model-parallel-size {num_stages} must divide the number of layers; got {size} of the "
                f"{architecture.num_layers} layers of {architecture.name}"
            )


def check_engine(arguments):
    """Refuse, with a ValueError, what the software stack cannot do."""
    name = arguments.inference_engine
    flag, engine, portable = f"--inference-engine {name}", ENGINES[name], " or ".join(PORTABLE_ENGINES)
    if engine.needs_cuda and arguments.device == "cpu":
        raise ValueError(f"{flag} needs CUDA; with --device cpu use {portable}")
    if engine.needs_cuda and arguments.tensor_model_parallel_size * arguments.pipeline_model_parallel_size > 1:
        raise ValueError(f"{flag} runs on one process; over several use {portable}")
    if engine.needs_warmup and arguments.num_warmup == 0:
        raise ValueError(f"{flag} captures its graphs in warm-up runs: --num-warmup at least 1")
    if engine.cuts_batches:
        return
    if cut := sorted({sizes for sizes in arguments.batchings if len(set(sizes)) > 1}):
        raise ValueError(
            f"{flag} generates a batch as a whole: without --micro-batch-size and --token-micro-batch-size, or with "
            f"those of the batch; got (batch, prompts, tokens) {cut}"
        )
    sampling, vocab_size = arguments.sampling, arguments.architecture.vocab_size
    if sampling.top_k and sampling.top_p:
        raise ValueError(f"{flag} takes --top-k or --top-p, not both")
    if sampling.top_k > 1 and sampling.top_k >= vocab_size:
        raise ValueError(
            f"{flag}: --top-k must be below the vocabulary, {vocab_size}; got {sampling.top_k} (0 keeps all tokens)"
        )
