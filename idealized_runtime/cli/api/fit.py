"""Denoised parameters of a log: what a query takes there when nothing disturbs it, and the figure of it."""

from pathlib import Path

from idealized_runtime.cli.flags import add_shared
from idealized_runtime.cli.main import DONE
from idealized_runtime.cli.output import print_json

EXAMPLES = """\
example: idealized-runtime api fit logs/api/NAME.jsonl --out processed_jsons/api.json --figure figures/api/NAME
`idealized-runtime fit` makes one parameter file of many logs.
"""
ESTIMATORS = ("minimum", "second_smallest", "quantile", "frontier")


def add_arguments(parser):
    """Flags of the command."""
    parser.add_argument("log", type=Path)
    parser.add_argument("--estimator", choices=ESTIMATORS, default="minimum", help="(minimum, the paper's)")
    add_shared(parser, "--out", help="parameter file to write, with HELM's keys")
    parser.add_argument("--figure", type=Path, help="figure to write, as .pdf and .png")
    add_shared(parser, "--level", "--json")


def run(arguments) -> int:
    """Print the denoised parameters of a log; write them and their figure where asked to."""
    from idealized_runtime.api.fit import fit_log, parameter_lines, save_fit_figure
    from idealized_runtime.fits import write_parameters

    trials, model = fit_log(arguments.log, estimator=arguments.estimator)
    name = str(trials["model"].iloc[0])
    if arguments.json:
        print_json({"model": name, "estimator": arguments.estimator, "num_trials": len(trials), **model.to_json()})
    else:
        print("\n".join(parameter_lines(model, trials, estimator=arguments.estimator, level=arguments.level)))
    if arguments.out is not None:
        write_parameters(arguments.out, {name: model}, sources={name: arguments.log})
    if arguments.figure is not None:
        save_fit_figure(trials, model, arguments.figure)
    return DONE
