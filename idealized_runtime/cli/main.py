"""``idealized-runtime SUBCOMMAND``: the table of subcommands, and what is the same for all of them.

A subcommand is a module with ``add_arguments(parser)`` and ``run(arguments)``, which prints the answer and returns the
exit code. Its docstring is what ``-h`` says first, its ``EXAMPLES`` what it says last. Only the module asked for
is imported, and it imports what takes time, such as pandas, inside of ``run``: once the arguments are known to be good.
"""

import argparse
import contextlib
import os
import signal
import sys
import warnings
from importlib import import_module

PROGRAM = "idealized-runtime"
# A line a subcommand, on the way from a measurement to an answer: its module, and what it does.
COMMANDS = {
    "time": ("time", "as generate_text.py"),
    "campaign": ("campaign", "many models, parallelisms, batches, engines: here, within a budget, or on Slurm"),
    "fit": ("fit", "parameter file of timing logs"),
    "price": ("price", "every query of a table: seconds, dollars, joules, with intervals and totals"),
    "predict": ("predict", "a model that nobody timed"),
    "compare": ("compare", "two stacks or machines on the same queries"),
    "api": ("api.parser", "servers"),
    "lifetime": ("lifetime.parser", "what to train"),
    "notebooks": ("notebooks", "every papermill run of runs.yml that is not up to date"),
}
DONE, NOTHING_DONE, BAD_INPUT, INTERRUPTED, CLOSED_PIPE = 0, 1, 2, 130, 128 + signal.SIGPIPE
_EPILOG = """\
SUBCOMMAND -h explains one. Exit codes: 0 done; 1 nothing could be done, or an objective cannot be met; 2 bad input;
130, 141 stopped. A shell completes subcommands and flags after: eval "$(register-python-argcomplete idealized-runtime)"
"""


def main(argv=None) -> int:
    """Run a subcommand; its exit code."""
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    name, words = _split_command(sys.argv[1:] if argv is None else list(argv))
    module = import_module(f"idealized_runtime.cli.{COMMANDS[name][0]}")
    if hasattr(module, "main"):
        # The driver of Megatron has a way of its own to end, with what was measured kept.
        return module.main(words)
    parser = make_parser(name, module)
    arguments, passed_on = parser.parse_known_args(_with_dashes(words))
    if hasattr(module, "PASSES_FLAGS_ON"):
        # Those that this subcommand does not know are another program's, which refuses them itself.
        arguments.passed_on = passed_on
    elif passed_on:
        parser.error(f"unrecognized arguments: {' '.join(passed_on)}")
    try:
        with warnings_as_lines(parser.prog):
            code = module.run(arguments)
        # What is left to print fails here, where it is caught.
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as error:
        print(f"\n{parser.prog}: interrupted" + (f": {_one_line(error)}" if str(error) else ""), file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more as it exits, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except (ValueError, TypeError, OSError, OverflowError) as error:
        print(f"{parser.prog}: error: {_one_line(error)}", file=sys.stderr)
        return BAD_INPUT


class Parser(argparse.ArgumentParser):
    """Refuses in one line, and takes no abbreviations: what a script says today is not ambiguous tomorrow."""

    def __init__(self, **options):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message):
        self.exit(BAD_INPUT, f"{self.prog}: error: {message} ({self.prog} -h explains)\n")


def make_parser(name: str, module) -> argparse.ArgumentParser:
    """Parser of one subcommand, by its module."""
    parser = Parser(prog=f"{PROGRAM} {name}", description=module.__doc__, epilog=getattr(module, "EXAMPLES", None))
    module.add_arguments(parser)
    return parser


@contextlib.contextmanager
def warnings_as_lines(program: str):
    """Warnings become lines like those of errors, without the place in our code that found them."""

    def show(message, *_, **__):
        print(f"{program}: warning: {_one_line(message)}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _split_command(argv) -> tuple[str, list[str]]:
    """Name of the subcommand and the words behind it; help, version and errors end the program."""
    for num_words in (2, 1):
        name = " ".join(argv[:num_words])
        if name in COMMANDS:
            return name, argv[num_words:]
    group = argv[0] if argv and any(name.startswith(f"{argv[0]} ") for name in COMMANDS) else ""
    named = {name.removeprefix(group).strip(): row for name, row in COMMANDS.items() if name.startswith(group)}
    program = f"{PROGRAM} {group}".strip()
    table = "\n".join(f"  {name:<26}{what}" for name, (_, what) in named.items())
    parser = Parser(
        prog=program, usage=f"{program} SUBCOMMAND ...", epilog=_EPILOG,
        description=f"What a Transformer costs to run, in seconds, dollars and joules.\n\n{table}",
    )  # fmt: skip
    parser.add_argument("subcommand", metavar="SUBCOMMAND", help=argparse.SUPPRESS)
    if not group:
        parser.add_argument("--version", action="version", version=f"{PROGRAM} {_version()}", help="print it and exit")
    given = parser.parse_known_args(argv[1:] if group else argv)[0].subcommand
    return parser.error(f"no subcommand {given!r}; there are: {', '.join(named)}")


def _version() -> str:
    from importlib.metadata import version

    return version(PROGRAM)


def _with_dashes(words):
    """Flags in their dashed spelling, for seed scripts' underscores; negative numbers joined to their flag.

    Argparse would take ``-1e9`` for a flag, and then could not say what is wrong with it.
    """
    spelled = []
    for word in words:
        flag, equals, value = word.partition("=")
        if word.startswith("--"):
            spelled.append(flag.replace("_", "-") + equals + value)
        elif spelled and spelled[-1].startswith("--") and "=" not in spelled[-1] and _is_negative_number(word):
            spelled[-1] += f"={word}"
        else:
            spelled.append(word)
    return spelled


def _is_negative_number(word) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return word.startswith("-")


def _complete():
    """Answer a shell that completes a line; ends the program."""
    import argcomplete

    parser = Parser(prog=PROGRAM)
    groups = {"": parser.add_subparsers(parser_class=Parser)}
    for name, (module_name, _) in COMMANDS.items():
        group, _, word = name.rpartition(" ")
        if group not in groups:
            groups[group] = groups[""].add_parser(group).add_subparsers(parser_class=Parser)
        import_module(f"idealized_runtime.cli.{module_name}").add_arguments(groups[group].add_parser(word))
    argcomplete.autocomplete(parser)


def _one_line(message) -> str:
    return " ".join(str(message).split())
