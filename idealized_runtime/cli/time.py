"""Time text generation with Megatron: every (prompt size, output size) of a sweep, many trials each, into a log.

Trials of a setting are spread over the sweep in blocks, so that what drifts meets every setting alike. The same command
goes on with a log that was cut off.
"""

EXAMPLES = """\
example
  idealized-runtime time --architecture gpt2-small --all-num-input-tokens 1 128 512 --all-num-output-tokens 1 2 8 16 \\
      --num-warmup 3 --num-trials 10 --log logs/local/gpt2-small.jsonl
"""


def add_arguments(parser):
    """Add the driver's flags."""
    from megatron_lm import ranks
    from megatron_lm.arguments.flags import add_flags

    add_flags(parser)
    refuse = parser.error
    parser.error = lambda message: (ranks.let_rank_0_speak(), refuse(message))


def run(arguments) -> int:
    """Time what is asked for."""
    from megatron_lm import driver

    return driver.run(arguments)
