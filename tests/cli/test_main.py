"""What is the same for all subcommands: the table, help, completion, and how the program ends."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import tomllib
import warnings

import pandas as pd
import pytest
from makers import parser_of

import idealized_runtime.architectures
import idealized_runtime.lifetime
from idealized_runtime.cli import main as cli
from idealized_runtime.cli.flags import SHARED_FLAGS, add_shared
from idealized_runtime.cli.main import COMMANDS, GROUPS, Parser, main
from idealized_runtime.cli.output import print_rows, print_table, say
from idealized_runtime.measurements.published import ROOT

# Importing any of these takes longer than help may.
SLOW = {"numpy", "pandas", "scipy", "torch", "matplotlib", "httpx", "statsmodels", "nbformat"}


def start(*words, **options):
    command = [sys.executable, "-m", "idealized_runtime", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, text=True, stderr=subprocess.PIPE, env=environment, **options)


def test_table_has_every_subcommand(capsys):
    assert main(["-h"]) == 0
    out = capsys.readouterr().out
    for name in COMMANDS:
        head, _, rest = name.partition(" ")
        (line,) = (line for line in out.splitlines() if line.startswith(f"  {head} "))
        assert rest in line


@pytest.mark.parametrize("group", GROUPS)
def test_group_has_a_table_of_its_own(capsys, group):
    assert main([group, "-h"]) == 0
    out = capsys.readouterr().out
    for name, (_, what) in COMMANDS.items():
        assert (what in out) == name.startswith(f"{group} ")


@pytest.mark.parametrize("name", ["", *GROUPS, *COMMANDS])
def test_help_explains_and_imports_nothing_slow(name, record_property):
    code = f"import sys; from idealized_runtime.cli.main import main; code = main({[*name.split(), '-h']!r}); "
    code += f"sys.exit(code or ' '.join({SLOW!r} & set(sys.modules)) or 0)"
    start_s = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    record_property("seconds", time.perf_counter() - start_s)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")
    assert len(done.stdout) > 400


@pytest.mark.parametrize("name", COMMANDS)
def test_lines_of_help_fit_a_terminal(name):
    parser = parser_of(name)
    module = sys.modules[f"idealized_runtime.cli.{COMMANDS[name][0]}"]
    texts = (module.__doc__, getattr(module, "EXAMPLES", ""))
    assert [line for text in texts for line in text.splitlines() if len(line) > 120] == []
    assert parser.format_help()


def test_shared_flags_mean_the_same_everywhere():
    """A subcommand may say more about a shared flag, but not take other values for it."""
    # A number, as the scripts of arXiv:2401.00448 spell it.
    own_meaning = {("lifetime model", "--model"), ("lifetime cost", "--model")}
    several = {("lifetime cost-optimal", "--num-accelerators")}  # also by model
    for name in COMMANDS:
        if name in ("time", "campaign"):
            continue
        for action in parser_of(name)._actions:
            for flag in set(action.option_strings) & set(SHARED_FLAGS):
                if (name, flag) not in own_meaning | several:
                    assert action.type == SHARED_FLAGS[flag].get("type"), (name, flag)


def test_version_is_that_of_the_project(capsys):
    assert main(["--version"]) == 0
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"idealized-runtime {project['version']}\n"


def completions(line):
    """What the shell is offered at the end of a line, by the protocol of argcomplete."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n",
                   "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}  # fmt: skip
    code = "import os, sys; os.dup2(1, 8); from idealized_runtime.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    return set(done.stdout.split())


def test_shell_completes_subcommands_flags_and_choices():
    assert {"api", "fit", "lifetime", "notebooks", "predict"} <= completions("idealized-runtime ")
    assert completions("idealized-runtime api ") >= {"profile", "fit", "load", "summary", "changes", "import"}
    assert completions("idealized-runtime predict --num-p") == {"--num-prompt-tokens"}
    assert completions("idealized-runtime api fit log.jsonl --estimator f") == {"frontier"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "idealized-runtime: error: no subcommand is named; there are: "),
        ("fti", "idealized-runtime: error: no subcommand 'fti' (did you mean fit?); there are: "),
        ("api", "idealized-runtime api: error: no subcommand is named; there are: profile, fit, load,"),
        ("api profil", "idealized-runtime api: error: no subcommand 'profil' (did you mean profile?)"),
        ("predict", "idealized-runtime predict: error: the following arguments are required: --model"),
        ("fit cpu --bach-size 3", "fit: error: unrecognized arguments: --bach-size 3 (did you mean --batch-size?)"),
        ("fit cpu --batch-size 0", "argument --batch-size: must be an integer of at least 1; got '0'"),
        ("fit cpu --level 1", "argument --level: must be between 0 and 1; got '1'"),
        ("fit cpu --out .", "argument --out: . is a folder; name a file"),
        ("fit cpu --model nobody", "fit: error: no cpu log of nobody"),
        ("api fit absent.jsonl", "api fit: error: absent.jsonl: No such file or directory"),
        (
            "price q.csv --logs a100 --model gpt-j --price-usd-per-hour 1e300",
            "argument --price-usd-per-hour: must be a positive number of at most 100,000; got '1e300'",
        ),
        (
            "plan --power-watts 100001",
            "argument --power-watts: must be a positive number of at most 100,000; got '100001'",
        ),
        (
            "lifetime cost-optimal --loss 2 --train-gpu-cost 1e9",
            "argument --train-gpu-cost: must be a positive number of ",
        ),
        ("lifetime model --model 1e9 --data -1e9", "argument --data: must be a positive number; got '-1e9'"),
    ],
)
def test_what_a_user_can_cause_is_said_in_one_line(capsys, line, message):
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


@pytest.fixture
def command(monkeypatch):
    """Makes a function the subcommand ``fit``, and runs it."""

    def run_command(run, *words, flags=()):
        module = type(sys)("made")
        module.add_arguments, module.run = lambda parser: add_shared(parser, *flags), run
        monkeypatch.setitem(COMMANDS, "made", ("made", "of a test"))
        monkeypatch.setitem(sys.modules, "idealized_runtime.cli.made", module)
        return main(["made", *words])

    return run_command


def test_errors_of_the_library_name_flags(command, capsys):
    def run(_):
        raise ValueError("num_prompt_tokens must lie in [1, 2]. Profile it, or pass extrapolate=True")

    assert command(run, flags=("--num-prompt-tokens", "--extrapolate")) == 2
    assert "--num-prompt-tokens must lie in [1, 2]. Profile it, or give --extrapolate" in capsys.readouterr().err
    assert command(run, flags=("--level",)) == 2
    assert capsys.readouterr().err.endswith("error: num_prompt_tokens must lie in [1, 2]. Profile it\n")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("a model of 3e9: give num_accelerators for it", "give --num-accelerators for it"),
        ("x/num_accelerators.json: no such file", "x/num_accelerators.json: no such file"),
        ("no column num_accelerators; needed: num_accelerators", "no column num_accelerators; needed: num_acc"),
    ],
)
def test_errors_name_flags_wherever_they_stand_but_no_column(command, capsys, message, said):
    def run(_):
        raise ValueError(message)

    assert command(run, flags=("--num-accelerators",)) == 2
    assert said in capsys.readouterr().err


def test_file_to_write_is_not_one_that_is_read(command, capsys, tmp_path):
    (tmp_path / "q.csv").write_text("kept")
    words = ("--queries", str(tmp_path / "q.csv"), "--out", str(tmp_path / "." / "q.csv"))
    assert command(lambda _: 0, *words, flags=("--queries", "--out")) == 2
    assert "is read, too, and would be lost: name another file" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["\x1b[2J", "\u202e", "\x9b1m", "\udcff", "\x07"])
def test_nothing_on_a_terminal_moves_its_cursor_or_its_direction(command, capsys, text):
    def run(_):
        print_table(pd.DataFrame({"model": [f"a{text}"], "other": [f"b\n{text}"]}, dtype=object))
        print_rows([(f"model{text}", text), text])
        warnings.warn(text, UserWarning, stacklevel=1)
        say(text)
        raise ValueError(text)

    assert command(run) == 2
    shown = "".join(capsys.readouterr())
    assert len(shown.splitlines()) == 7
    assert all(line.isprintable() for line in shown.splitlines())


def test_public_names_are_offered_to_those_who_complete_them():
    for module in (idealized_runtime, idealized_runtime.lifetime, idealized_runtime.architectures):
        assert set(module.__all__) <= set(dir(module))


def test_warnings_are_lines_without_a_place(command, capsys):
    def run(_):
        warnings.warn("something\nis odd", UserWarning, stacklevel=1)
        return 0

    assert command(run) == 0
    assert capsys.readouterr().err == "idealized-runtime made: warning: something is odd\n"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "\nidealized-runtime made: interrupted\n"),
        (KeyboardInterrupt("a log is kept"), 130, "\nidealized-runtime made: interrupted; a log is kept\n"),
        (RecursionError(), 2, "idealized-runtime made: error: an input is nested too deeply to be read"),
        (MemoryError(), 1, "idealized-runtime made: error: memory is full: "),
        (OverflowError("inf"), 2, "idealized-runtime made: error: what was asked for leads to numbers beyond 1e308: "),
        (FileNotFoundError(2, "No such file", "x.csv"), 2, "idealized-runtime made: error: x.csv: No such file\n"),
    ],
)
def test_codes_say_how_it_ended(command, capsys, error, code, message):
    def run(_):
        raise error

    assert command(run) == code
    assert capsys.readouterr().err.startswith(message)


def test_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "idealized_runtime.cli.api.fit", None)
    monkeypatch.setattr(cli, "import_module", lambda _: __import__("httpx_is_not_here"))
    assert main(["api", "fit", "x"]) == 1
    remedy = "httpx_is_not_here is not installed; it comes with the extra api: pip install 'idealized-runtime[api]'"
    assert remedy in capsys.readouterr().err


@pytest.mark.parametrize("line", ["-h", "api profile -h", "lifetime model --model 70e9 --data 1e12", "predict"])
def test_closed_pipes_and_full_disks_leave_no_traceback(line):
    reader, writer = os.pipe()
    os.close(reader)
    with start(*line.split(), stdout=writer) as process:
        os.close(writer)
        assert "Traceback" not in process.communicate()[1]
    assert process.returncode == (2 if line == "predict" else 141)
    with open("/dev/full", "w") as full, start(*line.split(), stdout=full) as process:
        errors = process.communicate()[1]
    assert process.returncode == 2
    assert line == "predict" or "error: standard output: No space left on device" in errors
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors


def test_closed_standard_error_leaves_no_traceback():
    done = subprocess.run(
        f"{shlex.quote(sys.executable)} -m idealized_runtime predict 2>/dev/full; echo $?", shell=True,
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_interrupt_is_said_in_a_line(tmp_path):
    os.mkfifo(tmp_path / "runs.yml")
    runs = tmp_path / "runs.yml"
    # The file opens once the command opens it, which then waits for what is written.
    with start("notebooks", "--runs", str(runs), stdout=subprocess.PIPE) as process, runs.open("w"):
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.strip() == "idealized-runtime notebooks: interrupted"


@pytest.mark.parametrize(("number", "said"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_signals_end_a_command_with_their_number(command, capsys, number, said):
    before = signal.getsignal(number)
    assert command(lambda _: signal.raise_signal(number)) == 128 + number
    assert capsys.readouterr().err == f"\nidealized-runtime made: {said}\n"
    assert signal.getsignal(number) is before


def test_closed_standard_output_is_none_of_ours(command, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert command(lambda _: print("nobody reads this") or 0) == 0


def test_interrupt_that_an_import_turns_into_an_error_is_one(command, capsys):
    def run(_):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise ImportError("cannot load module") from error

    before = signal.getsignal(signal.SIGINT)
    assert command(run) == 130
    assert capsys.readouterr().err == "\nidealized-runtime made: interrupted\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_json_is_one_object_of_plain_numbers(capsys):
    assert main(["lifetime", "model", "--chinchilla", "--compute", "1e24", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["num_params"] == pytest.approx(5.368e10, rel=1e-3)


def test_parser_takes_no_abbreviations():
    parser = Parser(prog="x")
    add_shared(parser, "--level")
    with pytest.raises(ValueError, match="unrecognized arguments: --lev"):
        parser.parse_args(["--lev", "0.5"])
