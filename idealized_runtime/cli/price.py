"""Price every query of a table: seconds, dollars and joules with intervals, a row a query and in total.

A query takes what the model's fit says, and costs and draws that times the accelerators that serve it; of a model that
was timed in batches, it has its share of the batch. The interval of a total is what the errors of the fits leave open:
the queries of one model share its error, different models do not.
"""

import warnings

from idealized_runtime.cli.flags import SHARED_FLAGS, add_shared
from idealized_runtime.cli.main import DONE, NOTHING_DONE
from idealized_runtime.cli.output import check_format, print_json, print_table, write_table

EXAMPLES = """\
Examples:
  idealized-runtime price queries.csv --parameters processed_jsons/a100.json --model openai/davinci
  idealized-runtime price queries.csv --logs a100 --model config.json --out priced.parquet
  idealized-runtime price trace.csv --columns num_prompt_tokens=Input,num_output_tokens=Output --logs cpu --json
"""


def add_arguments(parser):
    """Add the flags of this subcommand."""
    parser.add_argument("queries", metavar="QUERIES", help=SHARED_FLAGS["--queries"]["help"])
    source = parser.add_mutually_exclusive_group(required=True)
    add_shared(source, "--parameters", "--logs")
    add_shared(
        parser, "--model", action="append",
        help="the model that answers: a name there, or, predicted from --logs, one of the registry or a config.json; "
        "several times for several (default: each query's own, by the column model, or else every model there)",
    )  # fmt: skip
    add_shared(parser, "--software")
    add_shared(parser, "--columns", "--hardware", "--num-accelerators", "--price-usd-per-hour", "--power-watts")
    add_shared(parser, "--extrapolate", "--level", "--out", "--json")


def run(arguments) -> int:
    """Print the totals; the exit code is 1 where no query has a price."""
    import pandas as pd

    from idealized_runtime.checks import MissingValueWarning
    from idealized_runtime.queries.served import price_served
    from idealized_runtime.queries.tables import WEIGHT_COLUMN, read_queries

    if arguments.out is not None:
        check_format(arguments.out)
    queries = read_queries(arguments.queries, columns=arguments.columns)
    if queries.empty or (WEIGHT_COLUMN in queries and not queries[WEIGHT_COLUMN].any()):
        why = "it holds no query" if queries.empty else f"every {WEIGHT_COLUMN} is 0"
        warnings.warn(f"{arguments.queries}: nothing to price: {why}", MissingValueWarning, stacklevel=2)
    groups = _groups(arguments, queries)
    answers, frames, missing = [], [], {}
    for asked, models in groups:
        priced = price_served(asked, models, level=arguments.level, extrapolate=arguments.extrapolate)
        for cause, number in _causes(priced.missing, asked, models).items():
            missing.setdefault(f"{number} of {len(asked)} queries have no price: {cause}", []).extend(models)
        for name, model in models.items():
            # What names no known model counts as missing, of the only one there is or of the whole workload.
            rows = (asked["model"] == name).to_numpy() if len(models) > 1 else None
            answers.append((name, model, priced.totals(rows)))
        if arguments.out is not None:
            given_too = {name: f"{name}_given" for name in priced.table if name in asked}
            frames.append(asked.rename(columns=given_too).join(priced.table))
    for message, models in missing.items():
        whose = "" if len(models) == len(answers) else f", of {', '.join(models)}"
        warnings.warn(message + whose, MissingValueWarning, stacklevel=2)
    if arguments.out is not None:
        write_table(pd.concat(frames, ignore_index=True), arguments.out)
    workload = {"workload": priced.totals()} if len(groups) < len(answers) else {}
    if arguments.json:
        objects = [{"model": name, "hardware": model.hardware or None, **totals} for name, model, totals in answers]
        print_json(objects[0] if len(objects) == 1 else {"models": objects} | workload)
    else:
        _print_text(len(queries), answers, workload, arguments.level)
    return DONE if any(totals["runtime_s"] for *_, totals in answers) else NOTHING_DONE


def _groups(arguments, queries) -> list[tuple]:
    """Tables of queries, each with the models that answer it: all by the column model, or a copy for each model."""
    from idealized_runtime.queries.served import on_terms

    served = _read_served(arguments, queries)
    if arguments.model is None and "model" in queries and not queries.empty:
        groups = [(queries, _by_name_of_queries(queries, served))]
    else:
        queries = queries.rename(columns={"model": "model_of_query"})
        groups = [(queries.assign(model=name), {name: model}) for name, model in served.items()]
    names = ("hardware", "num_accelerators", "price_usd_per_hour", "power_watts")
    given = {name: getattr(arguments, name) for name in names}
    return [(asked, {name: on_terms(model, **given) for name, model in models.items()}) for asked, models in groups]


def _read_served(arguments, queries) -> dict:
    """Models that may answer, by name; those that nobody timed are predicted from the logs."""
    from idealized_runtime.architectures import registry_name
    from idealized_runtime.measurements.folders import find_logs
    from idealized_runtime.measurements.timed_models import read_timed_models
    from idealized_runtime.queries.served import served_by_parameters, served_by_timed

    asked = arguments.model
    if arguments.parameters is not None:
        if arguments.software is not None:
            raise ValueError("--software chooses among the logs of a folder: give it with --logs, not --parameters")
        if configs := [name for name in asked or () if name.endswith(".json")]:
            raise ValueError(f"{configs[0]}: a model that nobody timed is predicted from logs; give --logs")
        return served_by_parameters(arguments.parameters, asked)
    if asked is not None:
        # One model under two names is one.
        asked = list({registry_name(name): name for name in reversed(asked)}.values())[::-1]
    own_names = asked and [registry_name(name) for name in asked]
    read = own_names
    try:
        find_logs(arguments.logs, own_names)
    except ValueError:
        # One was not timed: what is known of it comes from all the others.
        read = None
    timed = read_timed_models(arguments.logs, read, software=arguments.software)
    served = served_by_timed(timed)
    if asked is None:
        return served
    missing = [name for name, own in zip(asked, own_names, strict=True) if own not in served]
    predicted = _predict(missing, timed, arguments, queries) if missing else {}
    found = ((name, served.get(own) or predicted[name]) for name, own in zip(asked, own_names, strict=True))
    return {model.name if name in predicted else name: model for name, model in found}


def _predict(names, timed, arguments, queries) -> dict:
    """Models that nobody timed, by a name of the registry or the path of a config.json."""
    from idealized_runtime.architectures import read_architecture
    from idealized_runtime.architectures.devices import tensor_parallel_sizes
    from idealized_runtime.hardware.accelerators import get_accelerator
    from idealized_runtime.prediction import fit_predictor, predict_model
    from idealized_runtime.queries.served import ServedModel

    predictor, number = fit_predictor(timed.values()), arguments.num_accelerators
    stack = predictor.models[0]
    accelerator = predictor.accelerator if arguments.hardware is None else get_accelerator(arguments.hardware)
    longest = (queries["num_prompt_tokens"] + queries["num_output_tokens"]).max()
    watts = tuple(watts for model in predictor.models if (watts := model.mean_power_watts) is not None)
    predicted = {}
    for name in names:
        architecture = read_architecture(name, suggested=timed)
        width = number and max(size for size in tensor_parallel_sizes(architecture) if number % size == 0)
        runtimes = predict_model(
            architecture, predictor, num_context_tokens=int(min(architecture.max_position_embeddings, longest)),
            tensor_parallel_size=width, pipeline_parallel_size=width and number // width, accelerator=accelerator,
        )  # fmt: skip
        predicted[name] = ServedModel(
            architecture.name, runtimes, runtimes.placement.num_accelerators, architecture.num_params,
            # A prediction is for the accelerator that is given.
            stack.hardware if arguments.hardware is None else accelerator.name,
            stack.software, stack.dtype, architecture=architecture, measured_watts=watts,
        )  # fmt: skip
    return predicted


def _by_name_of_queries(queries, served) -> dict:
    """Models that the queries name, by the names they have there: the file's, the registry's or HELM's."""
    from idealized_runtime.architectures import registry_name

    own_names = {registry_name(name): model for name, model in served.items()}
    names = [str(name) for name in queries["model"].dropna().unique()]
    found = {name: served.get(name) or own_names.get(registry_name(name)) for name in names}
    found = {name: model for name, model in found.items() if model is not None}
    if not found:
        raise ValueError(
            f"no model that the queries name is known: {', '.join(map(_name, names[:5])) or '(none)'}; there are: "
            f"{', '.join(served)}. Give --model for one that answers them all"
        )
    return found


def _causes(missing, queries, models) -> dict[str, int]:
    """Numbers of queries without a price by cause, with what would help."""
    from idealized_runtime.queries.price import BEYOND, NO_MODEL

    others = queries.loc[~queries["model"].isin(list(models)), "model"].unique()
    named = f"{NO_MODEL}: {', '.join(map(_name, others[:5]))}{' ...' if len(others) > 5 else ''}"
    texts = {NO_MODEL: named, BEYOND: f"{BEYOND} (--extrapolate prices them)"}
    return {texts.get(cause, cause): number for cause, number in missing.items()}


def _name(name) -> str:
    return "(none)" if name is None or name != name or not str(name).strip() else str(name)


def _print_text(num_queries, answers, workload, level):
    import pandas as pd

    described = [_describe(name, model) for name, model, _ in answers]
    to = {True: "the model that each names", False: f"each of {len(answers)} models"}[bool(workload)]
    print(
        f"{num_queries:,} quer{'y' if num_queries == 1 else 'ies'} to "
        + (described[0] if len(answers) == 1 else "\n".join([f"{to}:", *described]))
    )
    rows = []
    for name, totals in [*((name, totals) for name, _, totals in answers), *(("all", it) for it in workload.values())]:
        for metric, label in (("runtime_s", "runtime, s"), ("cost_usd", "cost, USD"), ("energy_joules", "energy, J")):
            if totals[metric] is not None:
                priced = totals["num_queries"] - totals["num_missing"]
                rows.append({"model": name, "queries": priced, "": label, **totals[metric]})
    if rows:
        print()
        frame = pd.DataFrame(rows)
        print_table(frame if len(answers) > 1 else frame.drop(columns="model"))
        if frame["total_lower"].notna().any():
            print(f"\ntotal_lower and total_upper: the {100 * level:g} % interval of the total")
    for name, model, _ in answers:
        for caveat in getattr(model.runtimes, "caveats", ()):
            print(f"Not in the interval of {name}: {caveat}.")


def _describe(name, model) -> str:
    """The conditions of a model's prices in one line."""
    queries = "one at a time" if model.batch_size == 1 else f"in batches of {model.batch_size}"
    stack = [model.software, *([] if model.dtype in model.software else [model.dtype])]
    rates = ["no number of accelerators: give --num-accelerators"]
    if model.num_accelerators is not None:
        rates = [
            f"no {what} is known: give --{flag}" if rate is None else f"{rate.value:.4g} {unit} each ({rate.source})"
            for rate, unit, what, flag in (
                (model.price_usd_per_hour, "USD an hour", "price", "price-usd-per-hour"),
                (model.power_watts, "W", "power", "power-watts"),
            )
        ]
    # Only what was not timed has caveats.
    origin = "predicted from the logs of other models" if hasattr(model.runtimes, "caveats") else ""
    return "; ".join([", ".join(part for part in (name, origin, queries, model.devices, *stack) if part), *rates])
