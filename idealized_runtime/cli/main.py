"""``idealized-runtime SUBCOMMAND``: the table of subcommands, and what is the same for all of them.

A subcommand is a module with ``add_arguments(parser)`` and ``run(arguments)``, which prints the answer and returns the
exit code. Its docstring is what ``-h`` says first, its ``EXAMPLES`` what it says last. Only the module asked for is
imported, and it imports what takes time, such as numpy, inside of ``run``: once the arguments are known to be good.
"""

import argparse
import contextlib
import os
import re
import signal
import sys
import warnings
from importlib import import_module
from threading import current_thread, main_thread
from traceback import extract_tb

from idealized_runtime.checks import did_you_mean, printable
from idealized_runtime.cli.flags import refuse_own_input
from idealized_runtime.cli.output import say

PROGRAM = "idealized-runtime"
# A line a subcommand, on the way from a measurement to an answer: its module, and what it does.
COMMANDS = {
    "time": ("time", "as generate_text.py"),
    "campaign": ("campaign", "many models, parallelisms, batches, engines: here, within a budget, or on Slurm"),
    "fit": ("fit", "parameter file of logs, also denoised, batched"),
    "price": ("price", "every query of a table: seconds, dollars, joules, with intervals and totals"),
    "predict": ("predict", "a model that nobody timed"),
    "compare": ("compare", "two stacks or machines on the same queries"),
    "design": ("design", "what to time next, and what each setting of a log was worth"),
    "serving fit": ("serving.fit", "step times of a server, from what it did under load"),
    "serving simulate": (
        "serving.simulate",
        "what a server does with requests: times, throughput, whether it keeps up",
    ),
    "plan": ("plan", "what serves this demand within these objectives, cheapest first"),
    "api profile": ("api.profile", "time synthetic prompts of known size; a run that was cut off goes on"),
    "api fit": ("api.fit", "denoised parameters of a log, and their figure"),
    "api load": ("api.load", "time requests at so many in parallel, or at a rate"),
    "api summary": ("api.summary", "percentiles, throughput and goodput of a log or of another tool's file"),
    "api changes": ("api.changes", "what has changed between the same sweeps at different times"),
    "api import": ("api.imports", "results of vllm bench serve, GuideLLM, AIPerf and HELM as a log"),
    "lifetime model": ("lifetime.model", "a model's missing properties: size, training tokens, compute, loss"),
    "lifetime cost": ("lifetime.cost", "what training a model costs, and what serving it costs"),
    "lifetime compute-optimal": ("lifetime.compute_optimal", "the size that reaches a loss with the fewest FLOPs"),
    "lifetime cost-optimal": ("lifetime.cost_optimal", "the size that reaches a loss for the least money"),
    "lifetime fit": ("lifetime.fit", "the scaling law of your own training runs"),
    "notebooks": ("notebooks", "every papermill run of runs.yml that is not up to date, or those named"),
    "page": ("page", "the planner in a browser"),
}
GROUPS = {"serving": "many queries at once", "api": "servers", "lifetime": "what to train"}
# What of the package a subcommand needs beyond its own dependencies, by its first word.
_EXTRAS = {"time": "megatron", "campaign": "megatron", "api": "api", "notebooks": "notebooks", "page": "page"}
_OUR_PACKAGES = ("idealized_runtime", "megatron_lm")
DONE, NOTHING_DONE, BAD_INPUT, CLOSED_PIPE = 0, 1, 2, 128 + signal.SIGPIPE
_DESCRIPTION = "What a Transformer costs to run, in seconds, dollars and joules."
_EPILOG = """\
SUBCOMMAND -h explains one; --version is that of the program. Exit codes: 0 done; 1 nothing could be done, or an
objective cannot be met; 2 bad input; 130, 141, 143 stopped. A shell completes subcommands and flags after
eval "$(register-python-argcomplete idealized-runtime)".
"""


def main(argv=None, *, program: str | None = None) -> int:
    """Run a subcommand; its exit code. ``program`` is what a script that is one of them calls itself."""
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    # Closed by the caller, as cron and daemons do.
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    name, words = _split_command(sys.argv[1:] if argv is None else list(argv))
    parser = Parser(prog=program or f"{PROGRAM} {name}".strip())
    with _stopped_by_signals() as signals:
        try:
            try:
                code = _run(name, words, parser)
            except SystemExit as stop:
                # Help ends so.
                code = stop.code
            # What is left to print fails here, where it is caught.
            sys.stdout.flush()
            return code
        except (Exception, KeyboardInterrupt) as error:
            code, sentence = _ending(error, name, parser, signals)
            if code is None:
                raise
            return _stop(code, sentence)


@contextlib.contextmanager
def _stopped_by_signals():
    """Signals that end the program raise KeyboardInterrupt, a second one ends it at once; yields their numbers."""
    numbers = []

    def stop(number, _):
        numbers.append(number)
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    # Not where a shell has a background job ignore one, nor in a thread, which may not.
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    ours = [number for number, handler in usual.items() if signal.getsignal(number) == handler]
    ours = ours if current_thread() is main_thread() else []
    for number in ours:
        signal.signal(number, stop)
    try:
        yield numbers
    finally:
        for number in ours:
            signal.signal(number, usual[number])


def _ending(error, name, parser, signals) -> tuple[int | None, str]:
    """Exit code and last words where a user can cause the error; no code for a fault of ours."""
    # What numpy makes of an interrupt while it is imported is an ImportError.
    if isinstance(error, KeyboardInterrupt) or (signals and isinstance(error, ImportError)):
        (number, *_) = signals or [signal.SIGINT]
        kept = f"; {_one_line(error)}" if isinstance(error, KeyboardInterrupt) and str(error) else ""
        return 128 + number, f"\n{parser.prog}: {'interrupted' if number == signal.SIGINT else 'terminated'}{kept}"
    if isinstance(error, BrokenPipeError):
        return CLOSED_PIPE, ""
    code, extra, message = BAD_INPUT, _EXTRAS.get(name.split(" ")[0]), None
    if isinstance(error, ModuleNotFoundError) and extra and error.name.partition(".")[0] not in _OUR_PACKAGES:
        code, message = NOTHING_DONE, f"{error.name} is not installed; it comes with the extra {extra}: "
        message += f"pip install '{PROGRAM}[{extra}]', or, in a clone, pip install -c requirements.txt '.[{extra}]'"
    elif isinstance(error, MemoryError):
        code, message = NOTHING_DONE, "memory is full: ask for less at a time"
    elif isinstance(error, OverflowError):
        message = "what was asked for leads to numbers beyond 1e308: check it"
    elif isinstance(error, RecursionError):
        message = "an input is nested too deeply to be read"
    elif isinstance(error, (ValueError, TypeError, OSError)):
        message = _with_flags(error, parser)
    return (None, "") if message is None else (code, f"{parser.prog}: error: {_one_line(message)}")


class Parser(argparse.ArgumentParser):
    """Refuses in one line, and takes no abbreviations: what a script says today is not ambiguous tomorrow."""

    def __init__(self, **options):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message):
        """Raise a ValueError of one line, with the nearest flag where one is not known."""
        _, is_unknown, given = message.partition("unrecognized arguments: ")
        hint = did_you_mean(given.split("=")[0].split()[0], self._option_string_actions) if is_unknown else ""
        raise ValueError(f"{message}{hint} ({self.prog} -h explains)")

    def _print_message(self, message, file=None):
        # Argparse's own is silent where nothing could be written.
        (file or sys.stdout).write(message)


def _split_command(words) -> tuple[str, list[str]]:
    """Name of the subcommand, or of the group of them, that a command line begins with, and the words behind it."""
    for num_words in (2, 1):
        name = " ".join(words[:num_words]).replace("_", "-")
        if name in COMMANDS or name in GROUPS:
            return name, words[num_words:]
    return "", words


def _run(name, words, parser) -> int:
    if name not in COMMANDS:
        return _choose(name, words, parser)
    module = import_module(f"idealized_runtime.cli.{COMMANDS[name][0]}")
    _describe(parser, module)
    words = _with_dashes(words)
    if hasattr(module, "PASSES_FLAGS_ON"):
        # Those that this subcommand does not know are another program's, which refuses them itself.
        arguments, passed_on = parser.parse_known_args(words)
        arguments.passed_on = passed_on
    else:
        arguments = parser.parse_args(words)
    refuse_own_input(arguments)
    with warnings.catch_warnings():
        # As lines like those of errors, without the place in our code that found them.
        warnings.showwarning = lambda message, *_, **__: say(f"{parser.prog}: warning: {_one_line(message)}")
        return module.run(arguments)


def _describe(parser, module):
    """Make the parser that of a subcommand's module."""
    parser.description, parser.epilog = module.__doc__, getattr(module, "EXAMPLES", None)
    module.add_arguments(parser)


def _choose(group, words, parser) -> int:
    """Help and version of all subcommands, or of a group of them; anything else is an error."""
    table = {}
    for name, (_, what) in COMMANDS.items():
        head, _, rest = name.partition(" ")
        if head == group:
            table[rest] = what
        elif not group and rest:
            table[head] = f"{table[head]}, {rest}" if head in table else f"{GROUPS[head]}: {rest}"
        elif not group:
            table[name] = what
    first = words[0] if words else ""
    if first in ("-h", "--help"):
        description = import_module(f"idealized_runtime.cli.{group}").__doc__ if group else _DESCRIPTION
        rows = "\n".join(f"  {name:<18}{what}" for name, what in table.items())
        print(f"usage: {parser.prog} SUBCOMMAND ...\n\n{description.strip()}\n\n{rows}\n\n{_EPILOG}", end="")
        return DONE
    if first == "--version" and not group:
        from importlib.metadata import version

        print(f"{PROGRAM} {version(PROGRAM)}")
        return DONE
    given = f"no subcommand {first!r}{did_you_mean(first, table)}" if words else "no subcommand is named"
    raise ValueError(f"{given}; there are: {', '.join(table)}")


def _with_dashes(words):
    """Flags in their dashed spelling, for seed scripts' underscores; negative numbers joined to their flag.

    Argparse would take ``-1e9`` for a flag, and then could not say what is wrong with it.
    """
    spelled = []
    for word in words:
        flag, equals, value = word.partition("=")
        if word.startswith("--"):
            spelled.append(flag.replace("_", "-") + equals + value)
        elif spelled and re.fullmatch(r"--[^=]+", spelled[-1]) and re.match(r"-(\d|\.\d|inf|nan)", word):
            spelled[-1] += f"={word}"
        else:
            spelled.append(word)
    return spelled


def _with_flags(error, parser) -> str:
    """The message of an error, its parameters named as the flags that stand for them on the command line.

    A flag stands for the parameter of its ``dest``. What ``pass NAME=True`` would remedy is not offered without one.
    """
    if isinstance(error, OSError) and error.strerror:
        if error.filename is not None:
            return f"{error.filename}: {error.strerror}"
        # Modules of the command line print; files are written by those below them.
        if extract_tb(error.__traceback__)[-1].filename.startswith(os.path.dirname(__file__)):
            return f"standard output: {error.strerror}"
    flags = {action.dest: action.option_strings[0] for action in parser._actions if action.option_strings}
    message = re.sub(
        r"(,? or )?\bpass (\w+)=True",
        lambda found: f"{found[1] or ''}give {flags[found[2]]}" if found[2] in flags else "",
        str(error),
    )
    # A word that is no name of ours alone speaks of a flag where it must be something; of a file's columns none does.
    named = r"((?<=: )|^)\w+(?= must\b)"
    named += "" if re.search(r"\bcolumns?\b", message) else r"|(?<![\w./'\"-])\w+_\w+(?![\w./'\"=-])"
    return re.sub(named, lambda found: flags.get(found[0], found[0]), message)


def _stop(code, sentence="") -> int:
    """Write what is left to print, and why the program ends; the code."""
    for stream, text in ((sys.stdout, ""), (sys.stderr, sentence and f"{sentence}\n")):
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            # Python flushes its streams once more as it exits, which must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code


def _complete():
    """Answer a shell that completes a line; ends the program."""
    import argcomplete

    parser = Parser(prog=PROGRAM)
    groups = {"": parser.add_subparsers(parser_class=Parser)}
    for name, (module_name, _) in COMMANDS.items():
        group, _, word = name.rpartition(" ")
        if group not in groups:
            groups[group] = groups[""].add_parser(group).add_subparsers(parser_class=Parser)
        _describe(groups[group].add_parser(word), import_module(f"idealized_runtime.cli.{module_name}"))
    argcomplete.autocomplete(parser)


def _one_line(message) -> str:
    return " ".join(printable(message).split())
