"""Time synthetic prompts of exactly so many tokens, all answers as long as asked for; every request is kept.

Settings are shuffled within blocks. The same command goes on where a run was cut off, and tries again what failed.
"""

import warnings

from idealized_runtime.checks import positive_int, whole_number
from idealized_runtime.cli.api.sending import add_sending_arguments, run_sweep
from idealized_runtime.cli.flags import add_shared, goal_of
from idealized_runtime.cli.main import DONE, NOTHING_DONE
from idealized_runtime.cli.output import print_json, say

EXAMPLES = """\
example: idealized-runtime api profile --base-url http://127.0.0.1:8000/v1 --model NAME \\
    --all-num-input-tokens 1 128 512 1024 --all-num-output-tokens 1 8 32 --log logs/api/NAME.jsonl
until every pair of these sizes is known to 5 %, for two minutes and 0.5 USD at most:
  idealized-runtime api profile --base-url http://127.0.0.1:8000/v1 --model NAME --target-error 0.05 \\
    --max-seconds 120 --max-cost 0.5 --usd-per-million-prompt-tokens 0.15 --usd-per-million-output-tokens 0.6 \\
    --all-num-input-tokens 1 128 512 1024 --all-num-output-tokens 1 8 32 --log logs/api/NAME.jsonl
"""


def add_arguments(parser):
    """Flags of the command."""
    add_sending_arguments(parser, max_retries=5)
    parser.add_argument("--num-trials", type=positive_int, help="timed requests a setting (10)")
    parser.add_argument("--num-warmup", type=whole_number, default=1, help="untimed requests a setting (1)")
    known = parser.add_argument_group("until it is known well enough, instead of --num-trials")
    add_shared(known, "--target-error", "--queries", "--columns", "--target")
    add_shared(known, "--level", default=None)
    add_shared(known, "--max-seconds")
    add_shared(parser, "--json")


def run(arguments) -> int:
    """Time what the log lacks, and print the sentence of every setting."""
    from idealized_runtime.api.profile import Profiler, Sweep, TargetProfiler, TargetSweep
    from idealized_runtime.api.validity import check_sweep
    from idealized_runtime.records import LogFormatError, read_requests, read_trials, runtime_sentence

    arguments.goal = goal_of(arguments, "num_trials")
    classes = (Sweep, Profiler) if arguments.goal is None else (TargetSweep, TargetProfiler)
    arguments.num_trials = arguments.num_trials or 10
    if code := run_sweep(arguments, *classes):
        return code
    try:
        trials = read_trials(arguments.log)
    except LogFormatError as error:
        say(str(error))
        return NOTHING_DONE
    with warnings.catch_warnings(action="ignore"):
        # Told when the trials were read.
        for sentence in check_sweep(read_requests(arguments.log)):
            say(sentence)
    settings = [
        {"num_prompt_tokens": int(p), "num_output_tokens": int(o), "runtimes_s": group["runtime_s"].tolist()}
        for (p, o), group in trials.groupby(["num_prompt_tokens", "num_output_tokens"])
    ]
    if arguments.json:
        print_json({"model": arguments.model, "log": str(arguments.log), "settings": settings})
    else:
        print("\n".join(map(runtime_sentence, settings)))
    return DONE
