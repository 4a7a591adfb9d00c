"""The flags that subcommands share: one spelling, one meaning. Imports nothing that takes time."""

import argparse
import os
from dataclasses import fields
from pathlib import Path

from idealized_runtime.checks import (
    device_rate,
    open_share,
    positive_int,
    positive_number,
    renamed_columns,
    whole_number,
)


def out_file(text: str) -> Path:
    """Type of a flag: a file that can be written, which is known before the work that it would lose."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; name a file")
    # Its folder is made where it is missing.
    if not (there := next(folder for folder in path.absolute().parents if folder.exists())).is_dir():
        raise argparse.ArgumentTypeError(f"{path} cannot be written: {there} is a file, not a folder")
    return path


def refuse_own_input(arguments):
    """Refuse a file to write that is one of those to read: what it holds would be lost."""
    out = getattr(arguments, "out", None)
    if out is None or not out.is_file():
        return
    for given in vars(arguments).values():
        for source in given if isinstance(given, list) else [given]:
            if (
                source is not out
                and isinstance(source, (str, Path))
                and os.path.exists(source)
                and out.samefile(source)
            ):
                raise ValueError(f"--out {out} is read, too, and would be lost: name another file")


# A flag is stored under the name of the library's parameter that it stands for: errors then speak of the flag.
SHARED_FLAGS = {
    "--model": {
        "metavar": "MODEL",
        "help": "a name in the parameter file or the registry, or the path of a Hugging Face config.json",
    },
    "--logs": {
        "metavar": "NAME|FOLDER",
        "help": "folder of timing logs: a path, or a name under logs/ or among the published (cpu, local, a100, v100)",
    },
    "--software": {"metavar": "NAME", "help": "of logs of several stacks, the one to go by: its name, or a part of it"},
    "--accept": {
        "nargs": "+", "default": (), "metavar": "NAME",
        "help": "findings on a log that is otherwise refused, by the names in the refusal: warn of them and read it",
    },
    "--log": {"type": Path, "metavar": "FILE", "help": "log to write; a run that was cut off goes on with it"},
    "--parameters": {"type": Path, "metavar": "FILE", "help": "parameter file to read"},
    "--out": {
        "type": out_file, "metavar": "FILE",
        "help": "file to write, by its ending: .csv, .json, .parquet, .tex, .md",
    },
    "--queries": {
        "metavar": "FILE",
        "help": "queries, one a row: a CSV with num_prompt_tokens and num_output_tokens, a HELM run folder, or - for "
        "standard input",
    },
    "--columns": {
        "type": renamed_columns,
        "metavar": "OURS=THEIRS,...",
        "help": "other names of columns, such as num_prompt_tokens=ContextTokens,num_output_tokens=GeneratedTokens",
    },
    "--hardware": {"metavar": "NAME", "help": "a row of the accelerators, such as A100-80GB, H100, V100-32GB"},
    "--num-accelerators": {"type": positive_int, "metavar": "N", "help": "accelerators that serve one query at a time"},
    "--price-usd-per-hour": {
        "type": device_rate,
        "metavar": "USD",
        "help": "of one accelerator (default: its dated list price)",
    },
    "--power-watts": {
        "type": device_rate,
        "metavar": "W",
        "help": "draw of one accelerator (default: as logs measured it, else its maximum, an upper bound)",
    },
    "--num-prompt-tokens": {"type": positive_int, "metavar": "P", "help": "size of the prompt"},
    "--num-output-tokens": {"type": positive_int, "metavar": "O", "help": "output tokens, the first included"},
    "--all-num-input-tokens": {
        "dest": "all_num_prompt_tokens", "type": positive_int, "nargs": "+", "metavar": "P", "help": "prompt sizes",
    },
    "--all-num-output-tokens": {"type": positive_int, "nargs": "+", "metavar": "O", "help": "output sizes"},
    "--dtype": {
        "metavar": "NAME",
        "help": "of a server's weights: bfloat16, float8 or mxfp4 (default: as the configuration stores them, or as it "
        "was served)",
    },
    "--concurrency": {
        "type": positive_int, "metavar": "N",
        "help": "queries that a server has at a time, this one included (default: 1)",
    },
    "--extrapolate": {"action": "store_true", "help": "allow prompts beyond the sizes that were timed"},
    "--level": {"type": open_share, "default": 0.95, "metavar": "X", "help": "of the intervals (default: 0.95)"},
    "--target-error": {
        "type": open_share, "metavar": "X",
        "help": "choose the settings and their trials as it goes, and stop when what is asked for is known to this "
        "share, such as 0.02: every pair of the sizes, or the runtimes of --queries",
    },
    "--max-seconds": {
        "type": positive_number, "metavar": "S",
        "help": "of runs, warm-ups and runs that were timed again included, after which --target-error stops all the "
        "same (default: none)",
    },
    "--target": {
        "dest": "of", "choices": ("each", "total", "prompts", "tokens"),
        "help": "what of the queries is to be known: the runtime of each, the total, prompt encoding times, or times "
        "per output token (default: each)",
    },
    "--seed": {"type": whole_number, "metavar": "N", "help": "of what is drawn at random"},
    "--json": {"action": "store_true", "help": "print one JSON object, unrounded"},
}  # fmt: skip


def add_shared(parser, *names, **changes):
    """Add shared flags to a parser; ``changes`` (``required``, ``nargs``, ``default``) hold for all that are named.

    Parameters
    ----------
    parser : ArgumentParser or a group of it
    names : str
        Keys of ``SHARED_FLAGS``.
    """
    for name in names:
        parser.add_argument(name, **{**SHARED_FLAGS[name], **changes})


def made_of(made, arguments, **others):
    """An object of a dataclass, its fields taken from the flags of their names; ``others`` come first."""
    given = {name: getattr(arguments, name) for name in (field.name for field in fields(made)) if name in arguments}
    return made(**{name: tuple(it) if isinstance(it, list) else it for name, it in {**given, **others}.items()})


def goal_of(arguments, *chosen):
    """What ``--target-error`` and the flags beside it ask for; None without it.

    Parameters
    ----------
    arguments : Namespace
    chosen : str
        Names of arguments that a target chooses itself.

    Raises
    ------
    ValueError
        Flags that would go unused, or contradict it.
    """
    refused = {
        "--target-error, which is not there": (
            "queries",
            "columns",
            "level",
            "max_seconds",
            "of",
            "logs",
        ),
        "--queries, which is not there": ("columns",),
    }
    if arguments.target_error is not None:
        del refused["--target-error, which is not there"]
        if given := _given(arguments, chosen):
            raise ValueError(f"{given}: --target-error chooses as it goes; leave it out")
    for of, names in refused.items():
        if (given := _given(arguments, names)) and (arguments.target_error is None or arguments.queries is None):
            raise ValueError(f"{given}: of {of}")
    if arguments.target_error is None:
        return None
    # It takes pandas with it, which help and other sweeps need not wait for.
    from idealized_runtime.design.goal import Goal

    return Goal.read(
        arguments.queries, arguments.columns, target_error=arguments.target_error, max_seconds=arguments.max_seconds,
        level=arguments.level or SHARED_FLAGS["--level"]["default"], of=arguments.of or "each",
    )  # fmt: skip


def _given(arguments, names) -> str:
    given = ("target" if name == "of" else name for name in names if getattr(arguments, name, None) is not None)
    return ", ".join("--" + name.replace("_", "-") for name in given)
