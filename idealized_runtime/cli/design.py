"""What to time next of a model: the settings that make the interval of what is asked for narrow, in the least device
time; before anything was timed, from logs of other models on the machine, or after what a log holds.

Sizes are chosen from those given. What is asked for is every pair of them, or the queries of a table; of those each
runtime (each), the runtime of all, and so dollars and joules at a given price (total), prompt encoding times (prompts)
or times per output token (tokens).

Of a server it is the largest rate that it bears within objectives (--target rate): which loads to measure next, from
the step times in a parameter file and their errors.
"""

import shlex
from pathlib import Path

from idealized_runtime.checks import positive_int
from idealized_runtime.cli.flags import SHARED_FLAGS, add_shared
from idealized_runtime.cli.main import DONE
from idealized_runtime.cli.output import check_format, findings_in_a_line, print_json, print_table, show, write_table
from idealized_runtime.cli.rate import run_rate
from idealized_runtime.cli.serving.flags import add_objectives

EXAMPLES = """\
Examples:
  idealized-runtime design --model gpt2-small --logs cpu --target-error 0.02
  idealized-runtime design --log logs/cpu/gpt2-small.jsonl --target-error 0.02 --queries queries.csv --target total
  idealized-runtime design --target rate --parameters steps.json --queries queries.csv --objective ttft:p95=0.5
"""
_OF = SHARED_FLAGS["--target"]["choices"]
_WASTED_PERCENT = 0.1
# Where neither a target nor seconds are given; and where seconds alone are, as narrow as they allow.
_TARGET_ERROR, _LEAST_ERROR = 0.01, 1e-6
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
    add_shared(
        parser, "--target", default="each", choices=(*_OF, "rate"),
        help="what of the queries is to be known: the runtime of each, the total, prompt encoding times, times per "
        "output token; or the largest rate of a server (default: each)",
    )  # fmt: skip
    add_shared(parser, "--seed", default=0)
    add_shared(parser, "--out", "--json")
    rate = parser.add_argument_group("--target rate", "of a server whose step times are known with their errors")
    add_shared(rate, "--parameters", help="file with the step times that `serving fit` wrote; --model names one of it")
    add_objectives(rate)
    rate.add_argument("--all-num-parallel", type=positive_int, nargs="+", metavar="N",
                      help="clients at once (default: powers of two up to the sequences at once)")  # fmt: skip


def run(arguments) -> int:
    """Print the settings, what they take and narrow, and the command that times them."""
    import pandas as pd

    from idealized_runtime.design.goal import Goal

    if arguments.out is not None:
        check_format(arguments.out)
    if arguments.target_error is None and arguments.max_seconds is None:
        arguments.target_error = _TARGET_ERROR
    if arguments.of == "rate":
        run_rate(arguments)
        return DONE
    if unused := [name for name in ("parameters", "objectives", "workload", "all_num_parallel")
                  if getattr(arguments, name)]:  # fmt: skip
        flag = {"objectives": "objective"}.get(unused[0], unused[0].replace("_", "-"))
        raise ValueError(f"--{flag}: of --target rate; got --target {arguments.of}")
    if arguments.log is None and (arguments.model is None or arguments.logs is None):
        raise ValueError("give --model and --logs of other models on its machine, or --log of what was timed of it")
    if (arguments.model is None) != (arguments.logs is None):
        raise ValueError("--model and --logs go together: what is expected of the one comes from the other")
    if arguments.columns is not None and arguments.queries is None:
        raise ValueError("--columns: of --queries, which is missing")
    goal = Goal.read(
        arguments.queries, arguments.columns, target_error=arguments.target_error or _LEAST_ERROR,
        max_seconds=arguments.max_seconds, level=arguments.level, of=arguments.of,
    )  # fmt: skip
    timings = {(1,): pd.DataFrame()} if arguments.log is None else _read_timings(arguments)
    sizes = _sizes(arguments, goal, timings)
    if arguments.model is not None:
        goal, sizes = _with_prior(arguments, goal, sizes, timings)
    answer = _answer(arguments, goal, timings, sizes)
    if arguments.out is not None:
        write_table(answer["settings"], arguments.out)
    if arguments.json:
        print_json(answer)
    else:
        _show(arguments, answer)
    return DONE


def _answer(arguments, goal, timings, sizes) -> dict:
    """What each batch should be timed at, one below the other; the error is of the one that is known worst."""
    from dataclasses import replace

    import pandas as pd

    from idealized_runtime.records import BATCH_COLUMNS

    tables, errors, errors_now, seconds = {"settings": [], "next": [], "timed": []}, [], [], 0.0
    for number, (batching, timed) in enumerate(timings.items()):
        if goal.max_seconds is not None:
            # What one batch leaves of its part is there for the others.
            part_s = (arguments.max_seconds - seconds) / (len(timings) - number)
            goal = replace(goal, max_seconds=part_s)
        design = goal.design(*sizes, seed=arguments.seed, num_warmups=1, batch_size=batching[0])
        settings, taken_s, error = design.plan(timed)
        seconds, errors = seconds + taken_s, [*errors, error]
        found = {
            "settings": pd.DataFrame(settings, columns=["num_prompt_tokens", "num_output_tokens", "num_trials"]),
            "next": design.worth_of_next(timed),
        }
        if not timed.empty:
            errors_now.append(design.error(design.belief(timed)))
            found["timed"] = design.worth_of_each(timed)
        for name, table in found.items():
            named = dict(zip(BATCH_COLUMNS, batching, strict=False)) if len(timings) > 1 else {}
            tables[name].append(table.assign(**named))
    # Shuffled, so that a drift of the machine is not taken for an effect of the size.
    settings = pd.concat(tables["settings"]).sample(frac=1, random_state=arguments.seed, ignore_index=True)
    return {
        "settings": settings,
        "expected_error": max(errors),
        "expected_device_s": seconds,
        "level": arguments.level,
        "target_error": arguments.target_error,
        "is_reached": None if arguments.target_error is None else bool(max(errors) <= arguments.target_error),
        "error": max(errors_now, default=None),
        "next": pd.concat(tables["next"], ignore_index=True),
        "timed": pd.concat(tables["timed"], ignore_index=True) if tables["timed"] else None,
        "command": None if settings.empty else _command(arguments, goal, timings, sizes),
    }


def _read_timings(arguments) -> dict:
    """Settings of each batch of the log, by its sizes; where it names none, they are of one sequence."""
    from idealized_runtime.fits.settings import settings_of_batch
    from idealized_runtime.records import BATCH_COLUMNS, read_log

    timings = read_log(arguments.log, accept=arguments.accept)
    if not set(BATCH_COLUMNS) <= set(timings) or timings["batch_size"].isna().all():
        return {(1,): timings}
    return {
        tuple(map(int, batching)): settings_of_batch(settings, batching[0])
        for batching, settings in timings.groupby(BATCH_COLUMNS)
    }


def _sizes(arguments, goal, timings):
    """Sizes to choose from: those given; else those of the log, of the queries, or a grid."""
    if goal.queries is not None:
        others = goal.sizes()
    elif arguments.log is not None:
        others = [
            sorted({int(size) for timed in timings.values() for size in timed[name]})
            for name in ("num_prompt_tokens", "num_output_tokens")
        ]
    else:
        others = [list(_PROMPT_SIZES), list(_OUTPUT_SIZES)]
    given = [arguments.all_num_prompt_tokens, arguments.all_num_output_tokens]
    sizes = [sorted(set(own)) if own else other for own, other in zip(given, others, strict=True)]
    if len(sizes[1]) < 2:
        raise ValueError(
            "--all-num-output-tokens must be at least two, such as 1 8, to tell output tokens from prompts; got "
            f"{sizes[1][0]}"
        )
    return sizes


def _with_prior(arguments, goal, sizes, timings):
    """The goal with what logs of other models tell of this one, and the sizes that fit it."""
    from dataclasses import replace

    from idealized_runtime.architectures import read_architecture
    from idealized_runtime.design.priors import prior_of_architecture
    from idealized_runtime.measurements.shipped import read_stack

    with findings_in_a_line(arguments.logs):
        timed = read_stack(arguments.logs, software=arguments.software, accept=arguments.accept)
        architecture = read_architecture(arguments.model, suggested=timed)
        if timed_models := {name for its in timings.values() if not its.empty for name in its["model"]} - {
            architecture.name
        }:
            raise ValueError(
                f"--log {arguments.log} is of {', '.join(timed_models)}, not of --model {architecture.name}"
            )
        context = architecture.max_position_embeddings
        goal = goal.within(context)
        if goal.queries is not None:
            sizes = _sizes(arguments, goal, timings)
        prompt_sizes = [p for p in sizes[0] if p + max(sizes[1]) - 1 <= context]
        if not prompt_sizes or (arguments.all_num_prompt_tokens and prompt_sizes != sizes[0]):
            raise ValueError(
                f"{architecture.name} takes {context} tokens of context, prompt and output together but for the last; "
                f"the longest query asked for has {max(sizes[0])} + {max(sizes[1])}: give smaller "
                "--all-num-input-tokens or --all-num-output-tokens"
            )
        prior = prior_of_architecture(architecture, timed)
    return replace(goal, prior=prior, prior_source=str(arguments.logs)), [prompt_sizes, sizes[1]]


def _command(arguments, goal, timings, sizes) -> str | None:
    """What times the settings, going on until the target is met; None where the model, the queries or a batch have no
    name of their own.
    """
    batch_sizes = [batch_size for batch_size, *_ in timings]
    if arguments.model is None or arguments.queries == "-" or len(set(batch_sizes)) < len(batch_sizes):
        return None
    named = str(arguments.model)
    words = ["idealized-runtime", "time", "--hf-config" if named.endswith(".json") else "--architecture", named]
    words += ["--all-num-input-tokens", *map(str, sizes[0]), "--all-num-output-tokens", *map(str, sizes[1])]
    if batch_sizes != [1]:
        words += ["--global-batch-size", *map(str, batch_sizes)]
    columns = arguments.columns and ",".join(f"{ours}={theirs}" for ours, theirs in arguments.columns.items())
    for flag, value, default in (
        ("--target-error", f"{goal.target_error:g}", None), ("--max-seconds", arguments.max_seconds, None),
        ("--logs", arguments.logs if 1 in batch_sizes else None, None), ("--queries", arguments.queries, None),
        ("--columns", columns, None), ("--target", arguments.of, "each"), ("--level", arguments.level, 0.95),
    ):  # fmt: skip
        words += [] if value in (None, default) else [flag, str(value)]
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
        print_table(worth.sort_values("narrows_percent").tail(5)[::-1])
        show("\nOne more trial, the most useful for its seconds:")
        batches = [name for name in worth if name.endswith("batch_size")]
        print_table(answer["next"].groupby(batches).head(1) if batches else answer["next"].head(5))
        show()
    target = f"the target of {100 * (arguments.target_error or 0):.3g} %"
    fits = "" if arguments.max_seconds is None else f" that fits into {arguments.max_seconds:g} s"
    if table.empty:
        why = f"{target} is met" if answer["is_reached"] else f"no further trial{fits} would narrow it"
        show(f"Nothing more to time: {why}.")
        return
    print_table(table)
    show(
        f"\n{answer['expected_device_s']:.3g} s of runs, one warm-up of each setting included; then {percent} is "
        f"expected to be known to {100 * answer['expected_error']:.3g} %."
    )
    if answer["is_reached"] is False:
        more = "sizes" if arguments.max_seconds is None else "seconds or sizes"
        show(f"That is not {target}, and no further trial{fits} would narrow it: give more {more}.")
    if answer["command"]:
        show(f"\n{answer['command']}")
