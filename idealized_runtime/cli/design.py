"""What to time next of a model: the settings that make the interval of what is asked for narrow, in the least device
time; before anything was timed, from logs of other models on the machine, or after what a log holds.

Sizes are chosen from those given. What is asked for is every pair of them, or the queries of a table; of those each
runtime (each), the runtime of all, and so dollars and joules at a given price (total), prompt encoding times (prompts)
or times per output token (tokens). The largest rate of a plan is not covered.
"""

import shlex
from pathlib import Path

from idealized_runtime.cli.flags import add_shared
from idealized_runtime.cli.main import DONE
from idealized_runtime.cli.output import check_format, findings_in_a_line, print_json, print_table, show, write_table

EXAMPLES = """\
Examples:
  idealized-runtime design --model gpt2-small --logs cpu --target-error 0.02
  idealized-runtime design --log logs/cpu/gpt2-small.jsonl --target-error 0.02 --queries queries.csv --target total
"""
_WASTED_PERCENT = 0.1
_PROMPT_SIZES = (1, 16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 1920)
_OUTPUT_SIZES = (1, 2, 4, 8, 16, 32, 64)


def add_arguments(parser):
    """Add the flags of this subcommand."""
    add_shared(parser, "--model", help="what to time: a name of the registry, or the path of a config.json")
    add_shared(parser, "--logs", help="logs of other models on the machine: a folder, or a name such as a100 or cpu")
    add_shared(parser, "--software", "--accept")
    parser.add_argument("--log", type=Path, metavar="FILE", help="log of the model as far as it was timed")
    add_shared(parser, "--all-num-input-tokens", "--all-num-output-tokens")
    add_shared(parser, "--queries", "--columns")
    add_shared(
        parser, "--target-error", help="share to which it shall be known, such as 0.02 (default: 0.01, or by time)"
    )
    add_shared(parser, "--max-seconds", help="of runs, warm-ups included, that the settings may take (default: none)")
    add_shared(parser, "--level")
    add_shared(parser, "--target", default="each")
    add_shared(parser, "--seed", default=0)
    add_shared(parser, "--out", "--json")


def run(arguments) -> int:
    """Print the settings, what they take and narrow, and the command that times them."""
    import pandas as pd

    from idealized_runtime.design.sequential import SequentialDesign
    from idealized_runtime.queries.tables import read_queries

    if arguments.out is not None:
        check_format(arguments.out)
    if arguments.log is None and (arguments.model is None or arguments.logs is None):
        raise ValueError("give --model and --logs of other models on its machine, or --log of what was timed of it")
    if (arguments.model is None) != (arguments.logs is None):
        raise ValueError("--model and --logs go together: what is expected of the one comes from the other")
    if arguments.columns is not None and arguments.queries is None:
        raise ValueError("--columns: of --queries, which is missing")
    queries = None if arguments.queries is None else read_queries(arguments.queries, columns=arguments.columns)
    timings = pd.DataFrame() if arguments.log is None else _read_timings(arguments)
    sizes, prior = _sizes(arguments, queries, timings), None
    if arguments.model is not None:
        prior = _prior(arguments, sizes)
    design = SequentialDesign(
        **dict(zip(("prompt_sizes", "output_sizes"), sizes, strict=True)),
        target_error=arguments.target_error or _least_error(arguments), queries=queries, of=arguments.of,
        max_seconds=arguments.max_seconds, level=arguments.level, seed=arguments.seed, prior=prior,
    )  # fmt: skip
    settings, seconds, error = design.plan(timings)
    # Shuffled, so that a drift of the machine is not taken for an effect of the size.
    table = pd.DataFrame(settings, columns=["num_prompt_tokens", "num_output_tokens", "num_trials"])
    table = table.sample(frac=1, random_state=arguments.seed, ignore_index=True)
    is_timed = not timings.empty
    if arguments.out is not None:
        write_table(table, arguments.out)
    answer = {
        "settings": table,
        "expected_error": error,
        "expected_device_s": seconds,
        "level": arguments.level,
        "target_error": arguments.target_error,
        "is_reached": None if arguments.target_error is None else error <= arguments.target_error,
        "error": design.error(design.belief(timings)) if is_timed else None,
        "next": design.worth_of_next(timings),
        "timed": design.worth_of_each(timings) if is_timed else None,
        "command": _command(arguments, table),
    }
    if arguments.json:
        print_json(answer)
    else:
        _show(arguments, answer)
    return DONE


def _least_error(arguments) -> float:
    """As narrow as the seconds allow, or a hundredth."""
    return 0.01 if arguments.max_seconds is None else 1e-6


def _read_timings(arguments):
    from idealized_runtime.fits.settings import settings_of_batch
    from idealized_runtime.records import read_log

    timings = read_log(arguments.log, accept=arguments.accept)
    sizes = timings["batch_size"].dropna().unique()
    return settings_of_batch(timings, 1) if len(sizes) > 1 else timings


def _sizes(arguments, queries, timings):
    """Sizes to choose from: those given; else those of the log, of the queries, or a grid."""
    from idealized_runtime.design.goal import Goal

    given = [arguments.all_num_prompt_tokens, arguments.all_num_output_tokens]
    if queries is not None:
        others = Goal(0.01, queries=queries).sizes()
    elif not timings.empty:
        others = [sorted(set(timings[name])) for name in ("num_prompt_tokens", "num_output_tokens")]
    else:
        others = [list(_PROMPT_SIZES), list(_OUTPUT_SIZES)]
    return [own or other for own, other in zip(given, others, strict=True)]


def _prior(arguments, sizes):
    from idealized_runtime.architectures import read_architecture
    from idealized_runtime.design.priors import prior_of_architecture
    from idealized_runtime.measurements.shipped import read_stack

    with findings_in_a_line(arguments.logs):
        timed = read_stack(arguments.logs, software=arguments.software, accept=arguments.accept)
        architecture = read_architecture(arguments.model, suggested=timed)
        longest = max(sizes[0]) + max(sizes[1])
        if longest > architecture.max_position_embeddings:
            sizes[0] = [p for p in sizes[0] if p + max(sizes[1]) <= architecture.max_position_embeddings]
            if arguments.all_num_prompt_tokens is not None or not sizes[0]:
                raise ValueError(
                    f"{architecture.name} takes {architecture.max_position_embeddings} tokens of context, prompt and "
                    f"output together; the longest query asked for has {longest}: give smaller --all-num-input-tokens"
                )
        return prior_of_architecture(architecture, timed)


def _command(arguments, table) -> str | None:
    """What times the settings, or goes on until the target is met; None where the model has no name."""
    if arguments.model is None or table.empty:
        return None
    named = str(arguments.model)
    words = ["idealized-runtime", "time", "--hf-config" if named.endswith(".json") else "--architecture", named]
    for flag, name in (
        ("--all-num-input-tokens", "num_prompt_tokens"),
        ("--all-num-output-tokens", "num_output_tokens"),
    ):
        words += [flag, *map(str, sorted(set(table[name])))]
    if arguments.target_error is not None:
        words += ["--target-error", str(arguments.target_error)]
        of = None if arguments.of == "each" else arguments.of
        for flag, value in (
            ("--logs", arguments.logs), ("--queries", arguments.queries), ("--target", of),
            ("--max-seconds", arguments.max_seconds),
        ):  # fmt: skip
            words += [] if value is None else [flag, str(value)]
    else:
        words += ["--num-trials", str(int(table["num_trials"].max()))]
    return shlex.join(words)


def _show(arguments, answer):
    percent, table, worth = f"{100 * arguments.level:g} %", answer["settings"], answer["timed"]
    if worth is not None:
        wasted = worth[worth["narrows_percent"] < _WASTED_PERCENT]
        show(f"Of what was asked for {percent} is known to {100 * answer['error']:.3g} %, by {arguments.log}.")
        show(
            f"{len(wasted)} of its {len(worth)} settings narrow that by less than {_WASTED_PERCENT} % each; their "
            f"trials took {wasted['seconds'].sum():.3g} of {worth['seconds'].sum():.3g} s. The most useful:"
        )
        print_table(worth.tail(5)[::-1])
        show("\nOne more trial, the most useful for its seconds:")
        print_table(answer["next"].head(5))
        show()
    if table.empty:
        show("Nothing more to time: the target is met, no setting fits into the seconds, or none would narrow it.")
        return
    print_table(table)
    show(
        f"\n{answer['expected_device_s']:.3g} s of runs, one warm-up of each setting included; then {percent} is "
        f"expected to be known to {100 * answer['expected_error']:.3g} %."
    )
    if answer["is_reached"] is False:
        show("That is not the target: give more --max-seconds, or more sizes.")
    if answer["command"]:
        show(f"\n{answer['command']}")
