"""Price every query of a table: seconds, dollars and joules with intervals, a row a query and in total.

A query takes what the model's fit says, and costs and draws that times the accelerators that serve it; of a model that
was timed in batches, it has its share of the batch. The interval of a total is what the errors of the fits leave open:
the queries of one model share its error, different models do not.
"""

import warnings
from dataclasses import replace

from idealized_runtime.cli.flags import SHARED_FLAGS, add_shared
from idealized_runtime.cli.main import DONE, NOTHING_DONE
from idealized_runtime.cli.output import check_format, findings_in_a_line, print_json, print_table, write_table

EXAMPLES = """\
Examples:
  idealized-runtime price queries.csv --parameters processed_jsons/a100.json --model openai/davinci
  idealized-runtime price queries.csv --logs a100 --model config.json --out priced.parquet
  idealized-runtime price queries.csv --hardware H100 --software vllm --model config.json --concurrency 32
  idealized-runtime price trace.csv --columns num_prompt_tokens=Input,num_output_tokens=Output --logs cpu --json
"""


def add_arguments(parser):
    """Add the flags of this subcommand."""
    parser.add_argument("queries", metavar="QUERIES", help=SHARED_FLAGS["--queries"]["help"])
    source = parser.add_mutually_exclusive_group()
    add_shared(source, "--parameters", "--logs")
    add_shared(
        parser, "--model", action="append",
        help="the model that answers: a name there, or, predicted from --logs or of a server (--hardware, --software), "
        "one of the registry or a config.json; several times for several (default: each query's own, by the column "
        "model, or else every model there)",
    )  # fmt: skip
    add_shared(parser, "--software", help="of logs of several stacks, the one to go by; without logs, the engine: vllm")
    add_shared(parser, "--concurrency", "--dtype", "--accept")
    add_shared(parser, "--columns", "--hardware", "--num-accelerators", "--price-usd-per-hour", "--power-watts")
    add_shared(parser, "--extrapolate", "--level", "--out", "--json")


def run(arguments) -> int:
    """Print the totals; the exit code is 1 where no query has a price."""
    import pandas as pd

    from idealized_runtime.checks import MissingValueWarning
    from idealized_runtime.queries.tables import WEIGHT_COLUMN, read_queries
    from idealized_runtime.queries.terms import price_models

    if arguments.out is not None:
        check_format(arguments.out)
    queries = read_queries(arguments.queries, columns=arguments.columns)
    if queries.empty or (WEIGHT_COLUMN in queries and not queries[WEIGHT_COLUMN].any()):
        why = "it holds no query" if queries.empty else f"every {WEIGHT_COLUMN} is 0"
        warnings.warn(f"{arguments.queries}: nothing to price: {why}", MissingValueWarning, stacklevel=2)
    groups = _groups(arguments, queries)
    answers, frames, missing = [], [], {}
    for asked, models in groups:
        priced = price_models(asked, models, level=arguments.level, extrapolate=arguments.extrapolate)
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
    from idealized_runtime.queries.terms import on_terms

    models = _read_models(arguments, queries)
    if arguments.model is None and "model" in queries and not queries.empty:
        groups = [(queries, _by_name_of_queries(queries, models))]
    else:
        _warn_of_other_models(arguments, queries)
        queries = queries.rename(columns={"model": "model_of_query"})
        groups = [(queries.assign(model=name), {name: model}) for name, model in models.items()]
    names = ("hardware", "num_accelerators", "price_usd_per_hour", "power_watts")
    given = {name: getattr(arguments, name) for name in names}
    return [(asked, {name: on_terms(model, **given) for name, model in models.items()}) for asked, models in groups]


def _warn_of_other_models(arguments, queries):
    """A column that names models is not read where --model names those that answer."""
    from idealized_runtime.architectures import registry_name
    from idealized_runtime.checks import MissingValueWarning

    asked = {registry_name(name) for name in arguments.model or ()}
    names = [str(name) for name in queries["model"].dropna().unique()] if "model" in queries else []
    if others := [name for name in names if registry_name(name) not in asked]:
        said = f"{arguments.queries}: column model ({', '.join(others[:5])}{' ...' * (len(others) > 5)}) is not read:"
        warnings.warn(f"{said} every query is asked of --model", MissingValueWarning, stacklevel=2)


def _read_models(arguments, queries) -> dict:
    """Models that may answer, by name; those that nobody timed are predicted from the logs."""
    from idealized_runtime.architectures import registry_name
    from idealized_runtime.cli.served import is_served
    from idealized_runtime.measurements.shipped import read_stack
    from idealized_runtime.queries.terms import priced_by_parameters, priced_by_timed

    asked = arguments.model
    if arguments.parameters is not None:
        for name in ("software", "concurrency", "dtype"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"--{name} is of logs and of servers: give it without --parameters")
        if configs := [name for name in asked or () if name.endswith(".json")]:
            raise ValueError(f"{configs[0]}: a model that nobody timed is predicted from logs; give --logs")
        models = priced_by_parameters(arguments.parameters, asked)
        if asked is None:
            return models
        # Of HELM's names for one model that is asked for by another of its names, the first.
        first = {id(model.runtimes): name for name, model in reversed(models.items())}
        return {name: it for name, it in models.items() if name in asked or first[id(it.runtimes)] == name}
    if is_served(arguments, others="--parameters, --logs"):
        return _serve(arguments, queries)
    if asked is not None:
        # One model under two names is one.
        asked = list({registry_name(name): name for name in reversed(asked)}.values())[::-1]
    own_names = asked and [registry_name(name) for name in asked]
    try:
        timed = read_stack(arguments.logs, own_names, software=arguments.software, accept=arguments.accept)
    except ValueError:
        if asked is None:
            raise
        # One was not timed: what is known of it comes from all the others.
        with findings_in_a_line(arguments.logs):
            timed = read_stack(arguments.logs, software=arguments.software, accept=arguments.accept)
            models = priced_by_timed(timed)
    else:
        models = priced_by_timed(timed)
    if asked is None:
        return models
    missing = [name for name, own in zip(asked, own_names, strict=True) if own not in models]
    predicted = _predict(missing, timed, arguments, queries) if missing else {}
    found = ((name, models.get(own) or predicted[name]) for name, own in zip(asked, own_names, strict=True))
    return {model.name if name in predicted else name: model for name, model in found}


def _predict(names, timed, arguments, queries) -> dict:
    """Models that nobody timed, by a name of the registry or the path of a config.json."""
    from idealized_runtime.architectures import read_architecture
    from idealized_runtime.prediction import fit_predictor, predict_priced

    architectures = {name: read_architecture(name, suggested=timed) for name in names}
    predictor = fit_predictor(timed.values())
    longest = (queries["num_prompt_tokens"] + queries["num_output_tokens"]).max()
    return {
        name: predict_priced(
            architecture, predictor, num_context_tokens=int(min(architecture.max_position_embeddings, longest)),
            num_accelerators=arguments.num_accelerators, hardware=arguments.hardware,
        )
        for name, architecture in architectures.items()
    }  # fmt: skip


def _serve(arguments, queries) -> dict:
    """Models on servers, predicted from what others served: those of --model, or those that the queries name."""
    from idealized_runtime.architectures import read_architecture
    from idealized_runtime.cli.served import mean_sizes, where_served
    from idealized_runtime.serving.served import predict_served_priced

    names = arguments.model
    if names is None:
        names = queries["model"].dropna().unique() if "model" in queries else []
    if not len(names):
        raise ValueError("no model is named: give --model, a name of the registry or the path of a config.json")
    sizes, models = mean_sizes(queries), {}
    for name in names:
        architecture, concurrency = read_architecture(name), arguments.concurrency or 1
        # Queries that are longer than the model's context have no price.
        longest = min(sizes["num_context_tokens"], architecture.max_position_embeddings)
        model = predict_served_priced(
            architecture, concurrency=concurrency, **sizes | {"num_context_tokens": longest}, **where_served(arguments)
        )
        p, o = sizes["num_prompt_tokens"], sizes["num_output_tokens"]
        beyond = model.runtimes.served.extrapolations(
            concurrency=concurrency, num_prompt_tokens=p, num_context_tokens=p + o / 2
        )
        models[name if arguments.model is None else model.name] = replace(model, caveats=(*beyond, *model.caveats))
    return models


def _by_name_of_queries(queries, models) -> dict:
    """Models that the queries name, by the names they have there: the file's, the registry's or HELM's."""
    from idealized_runtime.architectures import registry_name

    own_names = {registry_name(name): model for name, model in models.items()}
    names = [str(name) for name in queries["model"].dropna().unique()]
    found = {name: models.get(name) or own_names.get(registry_name(name)) for name in names}
    found = {name: model for name, model in found.items() if model is not None}
    if not found:
        raise ValueError(
            f"no model that the queries name is known: {', '.join(map(_name, names[:5])) or '(none)'}; there are: "
            f"{', '.join(models)}. Give --model for one that answers them all"
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

    from idealized_runtime.queries.terms import shared_conditions

    described = [model.conditions(name) for name, model, _ in answers]
    if len(answers) > 1:
        to = "the model that each names" if workload else f"each of {len(answers)} models"
        shared = ", ".join(it for it in shared_conditions(model for _, model, _ in answers).values() if it)
        described = [f"{to}, {shared}:", *described]
    print(f"{num_queries:,} quer{'y' if num_queries == 1 else 'ies'} to", "\n".join(described))
    rows = []
    for name, totals in [*((name, totals) for name, _, totals in answers), *(("all", it) for it in workload.values())]:
        for metric, label in (("runtime_s", "runtime, s"), ("cost_usd", "cost, USD"), ("energy_joules", "energy, J")):
            if totals[metric] is not None:
                priced = totals["num_queries"] - totals["num_missing"]
                millions = totals["per_million_tokens"].get(metric) or {}
                per_million = {"1M output tokens": millions.get("output"), "1M tokens": millions.get("all")}
                rows.append({"model": name, "queries": priced, "": label, **totals[metric], **per_million})
    if rows:
        print()
        frame = pd.DataFrame(rows)
        print_table(frame if len(answers) > 1 else frame.drop(columns="model"))
        if frame["total_lower"].notna().any():
            print(f"\ntotal_lower and total_upper: the {100 * level:g} % interval of the total")
    for sentence in dict.fromkeys(model.errors for _, model, _ in answers if model.errors):
        print(sentence)
    for name, model, _ in answers:
        for caveat in model.caveats:
            print(f"Not in the interval of {name}: {caveat}.")
