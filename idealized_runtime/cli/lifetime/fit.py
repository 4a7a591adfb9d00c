"""The scaling law of your own training runs: least Huber loss between predicted and observed log losses, from 4500
starts (arXiv:2203.15556, section D.2), then refits to resampled runs."""

from idealized_runtime.checks import positive_number, whole_number
from idealized_runtime.cli.flags import add_shared
from idealized_runtime.cli.main import DONE
from idealized_runtime.cli.output import check_format, print_answer

EXAMPLES = (
    "example: idealized-runtime lifetime fit --data published/beyond-chinchilla/trainingresults.csv --out law.json\n"
    "         (after `make published`)\n"
)


def add_arguments(parser):
    """Flags of the command."""
    parser.add_argument("--data", required=True, metavar="CSV", help="training runs, one a row, with a header")
    for what, default in (("params", "Parameters"), ("tokens", "Tokens"), ("loss", "Smoothed Loss")):
        parser.add_argument(f"--{what}-column", default=default, metavar="NAME", help="default: %(default)r")
    parser.add_argument("--cutoff", type=positive_number, metavar="R",
                        help="leave out runs of more than R tokens a parameter")  # fmt: skip
    parser.add_argument("--delta", type=positive_number, default=1e-3, help="of the Huber loss (default: %(default)g)")
    parser.add_argument("--draws", type=whole_number, default=1000, metavar="K",
                        help="bootstrap refits (default: %(default)s; 0: no intervals)")  # fmt: skip
    add_shared(parser, "--seed", default=0, help="of the bootstrap (default: 0)")
    add_shared(parser, "--level", "--json")
    add_shared(parser, "--out", help="write law and draws here, for --coefficients of other commands")


def run(arguments) -> int:
    """Fit the law, print it, and write it where asked to."""
    from idealized_runtime.cli.lifetime.report import describe_law, fit_rows
    from idealized_runtime.lifetime.bootstrap import bootstrap_scaling_law, coefficient_intervals
    from idealized_runtime.lifetime.fitting import fit_scaling_law
    from idealized_runtime.lifetime.law_files import FittedLaw, write_law
    from idealized_runtime.lifetime.training_runs import read_training_runs

    if arguments.out is not None:
        check_format(arguments.out, (".json",))
    columns = {"num_params": arguments.params_column, "num_training_tokens": arguments.tokens_column,
               "loss": arguments.loss_column}  # fmt: skip
    runs = read_training_runs(arguments.data, columns=columns, max_training_tokens_per_param=arguments.cutoff)
    fitted = fit_scaling_law(runs, delta=arguments.delta)
    draws, intervals = None, None
    if arguments.draws:
        options = {"num_draws": arguments.draws, "delta": arguments.delta, "rng": arguments.seed}
        draws = bootstrap_scaling_law(runs, fitted, **options)
        bounds = coefficient_intervals(draws, level=arguments.level).to_dict("index")
        intervals = {"level": arguments.level, "num_draws": len(draws.A), **bounds}
    if arguments.out:
        write_law(arguments.out, FittedLaw(fitted.law, draws))
    data = {
        "law": describe_law(fitted.law),
        "num_runs": len(runs),
        "objective": fitted.objective,
        "num_starts": fitted.num_starts,
        "num_starts_at_optimum": fitted.num_at_optimum,
        "intervals": intervals,
    }
    print_answer(data, fit_rows(data), as_json=arguments.json)
    return DONE
