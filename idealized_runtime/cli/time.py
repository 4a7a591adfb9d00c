"""Time text generation with Megatron: every (prompt size, output size) of a sweep, many trials each, into a log; or
those that matter, as often as it takes until what is asked for is known well enough (--target-error).

Trials of a setting are spread over the sweep in blocks, so that what drifts meets every setting alike. The same command
goes on with a log that was cut off. With a target every block is looked at: what cannot be averaged with the others
(a cold start, throttling, drift, trials held up, clocks that disagree) is set aside, timed again, and noted in the log.
"""

EXAMPLES = """\
examples
  idealized-runtime time --architecture gpt2-small --all-num-input-tokens 1 128 512 --all-num-output-tokens 1 2 8 16 \\
      --num-warmup 3 --num-trials 10 --log logs/local/gpt2-small.jsonl
until the runtimes of your queries are known to 2 %, for a minute of runs at most, from what other models here tell:
  idealized-runtime time --architecture gpt2-small --target-error 0.02 --queries queries.csv --max-seconds 60 \\
      --logs local --log logs/local/gpt2-small-known.jsonl
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
