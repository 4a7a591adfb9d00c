"""The answer for queries that come one at a time: seconds, dollars and joules of each candidate."""

import shlex
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from idealized_runtime.comparisons.capability import capability_points, frontier_table
from idealized_runtime.page.machines import ServingMachine, measured_runtimes, read_machine, read_model
from idealized_runtime.page.state import State
from idealized_runtime.page.words import Estimate, bounded, chance, count, plain
from idealized_runtime.prediction import predict_priced, priced_on_stack
from idealized_runtime.queries.price import BEYOND, NO_COUNTS, TOO_LONG, TOO_SHORT
from idealized_runtime.queries.tables import WEIGHT_COLUMN, read_queries
from idealized_runtime.queries.terms import PricedModel, price_models
from idealized_runtime.records import TOKEN_COLUMNS
from idealized_runtime.serving.served import predict_served_priced
from idealized_runtime.statistics.ratios import probabilities_to_be_least, ratio_interval

LEVEL = 0.95
# Places of a curve.
_NUM_PLACES = 48
_SIDES = ("", "_lower", "_upper")
METRICS = ("runtime_s", "cost_usd", "energy_joules")


@dataclass(frozen=True, eq=False)
class Option:
    """A model on a machine, and what the queries take there.

    Parameters
    ----------
    key : str
        Tells it from the others, whatever the queries are.
    label : str
        Model and devices.
    machine : str
    priced : PricedModel or None
    estimates : mapping by metric to Estimate
        Of all queries together; a metric without a rate is absent.
    prompt_s : Estimate or None
        Of their prompts alone.
    reason : str
        Why there is no answer; else empty.
    """

    key: str
    label: str
    machine: str
    model: str
    priced: PricedModel | None = None
    estimates: dict | None = None
    prompt_s: Estimate | None = None
    reason: str = ""

    @property
    def is_timed(self) -> bool:
        """Whether its runtimes are those of its own log."""
        return self.priced is not None and not self.priced.origin.startswith("predicted")

    @property
    def origin(self) -> str:
        """Where its runtimes come from, in a word."""
        return "fitted to its own log" if self.is_timed else "predicted from other models"


@dataclass(frozen=True, eq=False)
class QueryAnswer:
    """What queries take, cost and draw, one at a time, on each candidate.

    Parameters
    ----------
    state : State
    queries : DataFrame
        ``num_prompt_tokens, num_output_tokens``, optional ``weight``.
    options : tuple of Option
        The quickest first, then those without an answer.
    """

    state: State
    queries: pd.DataFrame
    options: tuple[Option, ...]

    @property
    def answered(self) -> tuple[Option, ...]:
        """Options that have an answer."""
        return tuple(option for option in self.options if not option.reason)

    @property
    def sizes(self) -> tuple[int, int]:
        """Prompt and output tokens of a query; of several, their means."""
        weights = self.queries.get(WEIGHT_COLUMN)
        return tuple(max(1, round(float(np.average(self.queries[name], weights=weights)))) for name in TOKEN_COLUMNS)

    @property
    def asked(self) -> str:
        """The queries in words."""
        p, o = self.sizes
        if self.state.queries:
            number = count(len(self.queries), "query", "queries")
            return f"{number} of {Path(self.state.queries).name}, one after the other"
        return f"a query of {count(p, 'prompt token')} and {count(o, 'output token')}"

    @property
    def sentence(self) -> str:
        """The answer in one or two sentences."""
        if not self.answered:
            reasons = dict.fromkeys(option.reason for option in self.options)
            lacking = "a machine" if self.state.models else "a model"
            return f"No answer: {'; '.join(reasons) or f'choose {lacking}'}."
        quickest = self.answered[0]
        said = f"{quickest.label} answers {self.asked} in {bounded(quickest.estimates['runtime_s'], 's')}"
        said += _spent(quickest, self) + "."
        if len(self.answered) > 1:
            costs = [option for option in self.answered if "cost_usd" in option.estimates]
            cheapest = min(costs, key=lambda option: option.estimates["cost_usd"].value, default=quickest)
            quick = f" It is the quickest of {len(self.answered)} with a probability of "
            said += f"{quick}{chance(self.probability_to_be_least(quickest, 'runtime_s'))}"
            surely = chance(self.probability_to_be_least(cheapest, "cost_usd")) if costs else ""
            if cheapest is not quickest:
                seconds = bounded(cheapest.estimates["runtime_s"], "s")
                said += f". {cheapest.label} is the cheapest with one of {surely}: {seconds}{_spent(cheapest, self)}"
            elif costs:
                said += f", and the cheapest with one of {surely}"
            said += "."
        return said

    def probability_to_be_least(self, option: Option, metric: str) -> float:
        """That no other candidate takes less, as far as the intervals tell."""
        known = [one for one in self.answered if metric in one.estimates]
        found = probabilities_to_be_least([one.estimates[metric] for one in known], level=LEVEL)
        return float(found[known.index(option)])

    def dollars(self, option: Option) -> Estimate | None:
        """Of all queries of a file, or of a thousand of one size."""
        cost = option.estimates.get("cost_usd")
        return cost if cost is None or self.state.queries else cost.times(1000)

    @property
    def dollars_of(self) -> str:
        """What :meth:`dollars` are for."""
        return "in all" if self.state.queries else "a thousand queries"

    def table(self) -> pd.DataFrame:
        """A row a candidate: seconds of prompts and in all, dollars, joules, each with its bounds, and the origin."""
        rows = []
        for option in self.answered:
            row = {"model": option.priced.name, "devices": option.priced.devices, "software": option.priced.stack}
            for name, estimate in (("prompt_encoding_time_s", option.prompt_s), *option.estimates.items()):
                row |= {f"{name}{side}": value for side, value in zip(_SIDES, estimate, strict=True)}
            rows.append({**row, "origin": option.origin})
        return pd.DataFrame(rows)

    def ratios(self, first: Option, second: Option) -> dict[str, Estimate]:
        """What the first takes of the second, by metric that both have."""
        found = {}
        for metric in METRICS:
            if metric in first.estimates and metric in second.estimates:
                pair = (np.array(one.estimates[metric]) for one in (first, second))
                found[metric] = Estimate(*map(float, ratio_interval(*pair)))
        return found

    def curves(self, varied: str) -> dict[str, pd.DataFrame]:
        """Runtime of a query of each candidate against one of the two sizes, by label.

        Parameters
        ----------
        varied : {"num_prompt_tokens", "num_output_tokens"}
            The other stays as it is asked for.
        """
        sizes = dict(zip(TOKEN_COLUMNS, self.sizes, strict=True))
        found = {}
        for option in self.answered:
            low, high = 1, max(2 * sizes[varied], 64)
            if varied == "num_prompt_tokens" and not self.state.extrapolate:
                low, high = _timed_range(option.priced.runtimes, low, high)
            context = getattr(option.priced.architecture, "max_position_embeddings", np.inf)
            (other,) = (size for name, size in sizes.items() if name != varied)
            places = np.unique(np.linspace(low, max(low, min(high, context - other)), _NUM_PLACES).round().astype(int))
            grid = pd.DataFrame({**sizes, varied: places, "model": ""})
            priced = price_models(grid, {"": option.priced}, level=LEVEL, extrapolate=True).table
            found[option.label] = pd.concat([grid.drop(columns="model"), priced], axis=1)
        return found

    def measured(self, varied: str) -> dict[str, pd.DataFrame]:
        """Measured runtimes of candidates with a log at hand, at the timed size next to the one that stays, by label.

        Where that is another size than is asked for, ``fitted_s`` has what the fit says of it.
        """
        fixed = next(name for name in TOKEN_COLUMNS if name != varied)
        size = dict(zip(TOKEN_COLUMNS, self.sizes, strict=True))
        found = {}
        for option in self.answered:
            if option.is_timed and (runtimes := measured_runtimes(option.machine, option.model)) is not None:
                nearest = min(runtimes[fixed].unique(), key=lambda one: abs(np.log(one / size[fixed])))
                points = runtimes[(runtimes[fixed] == nearest) & (runtimes[varied] <= max(2 * size[varied], 64))]
                points = points[[*TOKEN_COLUMNS, "runtime_s"]].sort_values(varied).reset_index(drop=True)
                if nearest != size[fixed]:
                    sizes = (points[name].to_numpy() for name in TOKEN_COLUMNS)
                    points = points.assign(fitted_s=option.priced.runtimes.predict(*sizes))
                if len(points):
                    found[option.label] = points
        return found

    def commands(self) -> list[str]:
        """The command lines that give the same numbers, one a candidate."""
        return [_command(self.state, option) for option in self.answered]


def answer_queries(state: State) -> QueryAnswer:
    """What the queries of a state take, one at a time, on each of its machines.

    Raises
    ------
    ValueError
        A model or a file cannot be read.
    """
    queries = _queries(state)
    architectures = {name: read_model(name) for name in state.models}
    options = [
        _option(state, name, machine, architectures[name], queries)
        for name in state.models
        for machine in state.machines
    ]
    labels = [option.label for option in options]
    options = [
        option if labels.count(option.label) == 1 else _renamed(option, f"{option.label} ({option.machine})")
        for option in options
    ]
    options.sort(key=lambda option: option.estimates["runtime_s"].value if not option.reason else np.inf)
    return QueryAnswer(state, queries, tuple(options))


def capability_frontier(state: State, machine: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Models with a published score on a machine: what a query costs on each, and which are on the Pareto frontier.

    Returns
    -------
    points, frontier : DataFrame, by model
        As from :func:`~idealized_runtime.comparisons.capability.capability_points` and ``frontier_table`` of
        ``cost_usd_per_1000_queries``.

    Raises
    ------
    ValueError
        No price is known, or the query is longer than what was timed there.
    """
    if isinstance(read_machine(machine), ServingMachine):
        raise ValueError("scores are held against machines with logs of models one query at a time")
    p, o = QueryAnswer(state, _queries(state), ()).sizes
    return _capability_frontier(machine, p, o, state.price_usd_per_hour.get(machine), state.power_watts.get(machine))


@lru_cache(maxsize=32)
def _capability_frontier(machine, p, o, price, watts):
    points = capability_points(
        read_machine(machine).predictor, num_prompt_tokens=p, num_output_tokens=o, price_usd_per_hour=price,
        power_watts=watts, level=LEVEL,
    )  # fmt: skip
    return points, frontier_table(points, "cost_usd_per_1000_queries", level=LEVEL)


def _queries(state) -> pd.DataFrame:
    if not state.queries:
        return pd.DataFrame({name: [getattr(state, name)] for name in TOKEN_COLUMNS})
    return read_table(state.queries)


def read_table(path: str) -> pd.DataFrame:
    """Queries of a file that say how many tokens they have; of the others :func:`unread_of` tells.

    Raises
    ------
    ValueError
        It is no table of queries, or holds none; the message begins with its name.
    """
    return _read_table(path)[0]


def unread_of(path: str) -> list[str]:
    """What of a file has no part in an answer, in sentences."""
    return _read_table(path)[1]


@lru_cache(maxsize=4)
def _read_table(path) -> tuple[pd.DataFrame, list[str]]:
    queries, said = read_queries(path), []
    # As `price` counts them; of what is here, no machine answers them.
    is_unknown = queries[TOKEN_COLUMNS].isna().any(axis=1)
    for cause, is_out in (
        (NO_COUNTS, is_unknown), (TOO_SHORT, ~is_unknown & (queries[TOKEN_COLUMNS] < 1).any(axis=1)),
    ):  # fmt: skip
        if is_out.any():
            rows = np.flatnonzero(is_out) + 1
            which = f"row{'s' * (len(rows) > 1)} {', '.join(f'{row:,}' for row in rows[:5])}"
            more = f" and {len(rows) - 5:,} more" if len(rows) > 5 else ""
            said.append(f"{which}{more} of {len(queries):,} left out: {cause}")
    if "model" in queries and (names := [name for name in map(str, queries["model"].dropna().unique()) if name]):
        some = f"{', '.join(names[:3])}{' …' * (len(names) > 3)}"
        said.append(f"its column model ({some}) is not read: all are asked of each model that is chosen")
    queries = queries[(queries[TOKEN_COLUMNS] >= 1).all(axis=1)].reset_index(drop=True)
    if queries.empty:
        raise ValueError("; ".join([f"{path}: it holds no query", *said]))
    return queries, said


def _option(state, name, machine_name, architecture, queries) -> Option:
    key = f"{name} @ {machine_name}"
    try:
        machine = read_machine(machine_name)
    except ValueError as error:
        return Option(key, f"{architecture.name} on {machine_name}", machine_name, name, reason=str(error))
    label = f"{architecture.name} on {machine.title}"
    rates = {rate: getattr(state, rate).get(machine_name) for rate in ("price_usd_per_hour", "power_watts")}
    longest = int((queries["num_prompt_tokens"] + queries["num_output_tokens"]).max())
    context = min(longest, architecture.max_position_embeddings)
    try:
        if isinstance(machine, ServingMachine):
            p, o = (float(np.average(queries[size], weights=queries.get(WEIGHT_COLUMN))) for size in TOKEN_COLUMNS)
            priced = predict_served_priced(
                architecture, num_prompt_tokens=p, num_output_tokens=o, num_context_tokens=context,
                hardware=machine.hardware, software=machine.engine, tensor_parallel_size=state.num_accelerators,
                **rates,
            )  # fmt: skip
        else:
            make = predict_priced if name.endswith(".json") else priced_on_stack
            priced = make(
                architecture, machine.predictor, num_context_tokens=context, num_accelerators=state.num_accelerators,
                **rates,
            )  # fmt: skip
    except ValueError as error:
        return Option(key, label, machine_name, name, reason=f"{label}: {error}")
    label = f"{architecture.name} on {priced.devices}"
    asked = pd.concat([queries.assign(model=""), queries.assign(model="", num_output_tokens=1)], ignore_index=True)
    found = price_models(asked, {"": priced}, level=LEVEL, extrapolate=state.extrapolate)
    is_whole = np.arange(len(asked)) < len(queries)
    totals, prompts = found.totals(is_whole), found.totals(~is_whole)
    if totals["num_missing"]:
        low, high = _timed_range(priced.runtimes, 1, np.inf)
        more = {
            BEYOND: f", {low:,} to {high:,} tokens: allow it under Demand",
            TOO_LONG: f", {architecture.max_position_embeddings:,} tokens",
        }
        causes = "; ".join(f"{cause}{more.get(cause, '')}" for cause in found.missing)
        whose = "" if len(queries) == 1 else f"{totals['num_missing']} of {len(queries)} queries are "
        return Option(key, label, machine_name, name, priced, reason=f"{label}: {whose}{causes}")
    estimates = {
        metric: Estimate(*(totals[metric][f"total{side}"] for side in _SIDES)) for metric in METRICS if totals[metric]
    }
    prompt_s = Estimate(*(prompts["runtime_s"][f"total{side}"] for side in _SIDES))
    return Option(key, label, machine_name, name, priced, estimates, prompt_s)


def _renamed(option, label) -> Option:
    return Option(**{**vars(option), "label": label})


def _timed_range(runtimes, low, high) -> tuple[int, int]:
    """Of prompt sizes, what lies within those that were timed."""
    timed = getattr(runtimes, "prompt_range", None)
    if timed is None and (sizes := getattr(runtimes, "num_prompt_tokens", None)) is not None:
        timed = int(np.min(sizes)), int(np.max(sizes))
    return (low, high) if timed is None else (max(low, timed[0]), min(high, timed[1]))


def _spent(option, answer) -> str:
    """Dollars and joules behind a sentence, as far as they are known."""
    parts = []
    if (dollars := answer.dollars(option)) is not None:
        parts.append(f"for ${bounded(dollars)} {answer.dollars_of}")
    if (joules := option.estimates.get("energy_joules")) is not None:
        most = "at most " if "upper bound" in option.priced.power_watts.source else ""
        parts.append(f"{most}{bounded(joules, 'J')}")
    return ", " * bool(parts) + " and ".join(parts)


def _command(state, option) -> str:
    given = [shlex.join([*read_machine(option.machine).flags, "--model", option.model])]
    if state.num_accelerators is not None:
        given.append(f"--num-accelerators {state.num_accelerators}")
    for name in ("price_usd_per_hour", "power_watts"):
        if (value := getattr(state, name).get(option.machine)) is not None:
            given.append(f"--{name.replace('_', '-')} {plain(value)}")
    if state.extrapolate:
        given.append("--extrapolate")
    if state.queries:
        return f"idealized-runtime price {shlex.quote(state.queries)} {' '.join(given)}"
    if option.is_timed:
        return f"{queries_on_stdin(state)} | idealized-runtime price - {' '.join(given)}"
    sizes = [f"--{name.replace('_', '-')} {getattr(state, name)}" for name in TOKEN_COLUMNS]
    return f"idealized-runtime predict {' '.join([*given, *sizes])}"


def queries_on_stdin(state: State) -> str:
    """The part of a command that writes a table of the one query."""
    sizes = ",".join(str(getattr(state, name)) for name in TOKEN_COLUMNS)
    return f"printf '{','.join(TOKEN_COLUMNS)}\\n{sizes}\\n'"
