"""Denoised parameters of a log: what a query takes there when nothing disturbs it, and the figure of it."""

from pathlib import Path

from idealized_runtime.cli.flags import add_shared
from idealized_runtime.cli.main import DONE
from idealized_runtime.cli.output import bounded, check_format, print_answer

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
    add_shared(parser, "--accept", "--level", "--json")


def run(arguments) -> int:
    """Print the denoised parameters of a log; write them and their figure where asked to."""
    from idealized_runtime.fits import RuntimeModel, write_parameters
    from idealized_runtime.fits.denoised import fit_denoised
    from idealized_runtime.records import read_trials

    if arguments.out is not None:
        check_format(arguments.out, (".json",))
    trials = read_trials(arguments.log, accept=arguments.accept)
    model = fit_denoised(trials, estimator=arguments.estimator, fit=RuntimeModel.fit)
    name = str(trials["model"].iloc[0])
    answer = {"model": name, "estimator": arguments.estimator, "num_trials": len(trials), **model.to_json()}
    if arguments.out is not None:
        write_parameters(arguments.out, {name: model}, sources={name: arguments.log})
    if arguments.figure is not None:
        _save_figure(trials, model, arguments.figure)
    print_answer(answer, _rows(answer, model, arguments.level), as_json=arguments.json)
    return DONE


def _rows(answer, model, level):
    import numpy as np

    sizes = model.num_prompt_tokens.tolist()
    times_ms = 1e3 * np.array([model.time_per_output_token_s, *map(model.prompt_encoding_time_s, sizes)])
    bounds, ends = [None] * len(times_ms), []
    if model.intervals is not None:
        token_s, prompts_s = (
            model.time_per_output_token_interval_s(level),
            model.prompt_encoding_interval_s(sizes, level),
        )
        bounds_ms = 1e3 * np.column_stack([token_s, prompts_s])
        bounds = [{"lower": lower, "upper": upper} for lower, upper in bounds_ms.T]
        ends = np.array(sizes)[np.isclose(times_ms, bounds_ms).any(axis=0)[1:]]
    yield f"{answer['model']}: {answer['num_trials']} trials, estimator {answer['estimator']!r}"
    labels = ["time per output token, ms", *(f"prompt of {size} tokens, ms" for size in sizes)]
    yield from ((label, bounded(ms, both, ".5g")) for label, ms, both in zip(labels, times_ms, bounds, strict=True))
    yield "overhead, ms", f"{1e3 * model.overhead_s:.5g}"
    # Neither scatter shows where the noise is not what the estimator takes it for.
    bias = "frontier where disturbances only add" if answer["estimator"] == "frontier" else "floor"
    intervals = f"{100 * level:g} % intervals, those of prompts with the overhead taken as known"
    yield "[lower, upper]", f"{intervals}, none with the bias of a {bias}"
    if len(ends):
        yield (
            f"an interval ends at its estimate for prompts of {', '.join(map(str, ends))}: the trials hint at more "
            "than the fit holds for significant; time more of them, or more sizes"
        )
    yield from (("note", note) for note in model.notes)


def _save_figure(trials, model, path):
    """Write trials as points and the denoised model as lines, as ``path.pdf`` and ``path.png``."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from idealized_runtime.plots import plot_runtime_vs_output_tokens, save_figure, use_style

    use_style()
    figure, ax = plt.subplots()
    plot_runtime_vs_output_tokens(trials, model, ax=ax)
    save_figure(figure, path)
    plt.close(figure)
