"""Execute every notebook run that notebooks/runs.yml lists and that is not up to date: same notebook, parameters,
package, data and outputs as at its last execution. Or those named, with other parameters where asked to.

Executed notebooks go to .executed/<run>.ipynb, one that fails included; a run without parameters stores its outputs in
the committed notebook, too. Runs whose data are missing are skipped and say so. With -p, a notebook and what it writes
go to a folder of their own under .executed/own/: committed figures and parameter files stay as they are. Paths in a
notebook count from the repository root, wherever it is run.
"""

import sys
from pathlib import Path

from idealized_runtime.cli.main import DONE, NOTHING_DONE
from idealized_runtime.cli.output import say

EXAMPLES = """\
examples: idealized-runtime notebooks --list
          idealized-runtime notebooks 'a100/*' model_table
          idealized-runtime notebooks cpu/fit_runtimes -p hardware mybox -p models "[gpt2-small]"
"""


def add_arguments(parser):
    """Flags of the command."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="runs of these names; * stands for any part")
    parser.add_argument("--force", action="store_true", help="execute also what is up to date")
    parser.add_argument("--list", action="store_true", help="print the runs and stop")
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                        help="another value of a parameter, as YAML writes it")  # fmt: skip
    parser.add_argument("--runs", type=Path, metavar="FILE", help="list of runs (default: notebooks/runs.yml)")


def run(arguments) -> int:
    """Execute the runs that were asked for, or list them; 1 where one failed, after the others were executed."""
    import yaml

    from idealized_runtime.measurements.published import ROOT
    from idealized_runtime.notebooks.execution import check_parameters
    from idealized_runtime.notebooks.places import RUNS_FILE
    from idealized_runtime.notebooks.runs import execute_run, execute_with, read_runs

    runs_file = arguments.runs or ROOT / RUNS_FILE
    runs = read_runs(runs_file)
    for name in arguments.names:
        if not any(Path(run.name).match(name) for run in runs):
            raise ValueError(f"no run is named {name}; there are: {', '.join(run.name for run in runs)}")
    runs = [run for run in runs if not arguments.names or any(Path(run.name).match(name) for name in arguments.names)]
    if arguments.list:
        print(*(f"{run.name}: {run.notebook} {run.parameters or ''}".rstrip() for run in runs), sep="\n")
        return DONE
    root = runs_file.resolve().parent.parent
    if not arguments.parameters:
        return _execute(runs, lambda run: execute_run(run, root, force=arguments.force))
    if not arguments.names:
        raise ValueError("-p changes the runs that are named: name one, such as cpu/fit_runtimes")
    try:
        given = {name: yaml.safe_load(value) for name, value in arguments.parameters}
    except yaml.YAMLError as error:
        raise ValueError(f'-p takes a name and a value as YAML writes it, such as "[1, 2]": {error}') from error
    for run in runs:
        # A mistake is told before the first of them runs.
        check_parameters(root / run.notebook, given)
    return _execute(runs, lambda run: execute_with(run, root, given))


def _execute(runs, execute) -> int:
    """Execute runs one after the other, and say beside a bar what became of each; the exit code."""
    from tqdm import tqdm

    from idealized_runtime.notebooks.execution import NotebookError
    from idealized_runtime.notebooks.runs import RunSkippedError

    failed, reasons = [], set()
    bar_format = "{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed} elapsed, {remaining} left"
    with tqdm(runs, bar_format=bar_format, desc="notebooks", disable=None) as progress:
        for run in progress:
            progress.set_description(run.name)
            try:
                outcome = execute(run)
            except RunSkippedError as error:
                outcome = "skipped, as above" if str(error) in reasons else f"skipped: {error}"
                reasons.add(str(error))
            except (NotebookError, OSError, ValueError) as error:
                failed.append(run.name)
                outcome = f"FAILED: {error}"
            progress.write(f"{run.name}: {outcome}", file=sys.stderr)
    if failed:
        say(f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}")
        return NOTHING_DONE
    return DONE
