"""The answer for queries that come at a rate: what serves them within objectives, cheapest first."""

import contextlib
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd

from idealized_runtime.comparisons.capability import served_frontier
from idealized_runtime.comparisons.capability_scores import CAPABILITY_SCORES
from idealized_runtime.page.machines import SERVING_MACHINES, ServingMachine, read_machine, read_model
from idealized_runtime.page.queries import LEVEL, queries_on_stdin, read_table
from idealized_runtime.page.state import OWN_SIZES, State
from idealized_runtime.page.words import Estimate, chance, count, number, plain
from idealized_runtime.records import TOKEN_COLUMNS
from idealized_runtime.serving.candidates import predicted_candidates, served_candidates
from idealized_runtime.serving.decisions import tighter_objective
from idealized_runtime.serving.demand import Demand
from idealized_runtime.serving.objectives import WORKLOADS, Objective
from idealized_runtime.serving.planning import Answer, Candidate, Plan, Rejection, Simulations, plan
from idealized_runtime.serving.requests import read_request_table
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.simulation import METRICS
from idealized_runtime.statistics.ratios import ratio_interval

_NUM_DRAWS = 4000
# Of the days that the frontier is simulated by.
_FEW_PER_S, _NUM_REQUESTS = 0.1, 500
# Limits of the binding objective that are priced beside it, the strictest first.
_TIGHTER = (0.6, 0.8, 1.0, 1.25, 1.6)


@dataclass(frozen=True, eq=False)
class ServedAnswer:
    """What serves the demand of a state, as far as it is known by now.

    Parameters
    ----------
    state : State
    plan : Plan
    tighter : DataFrame or None
        As from :func:`~idealized_runtime.serving.decisions.tighter_objective`, of the cheapest candidate and the
        objective that is missed first.
    is_bounded : bool
        Errors of step times and days were drawn; without, there are no intervals and no probabilities yet.
    num_pending : int
        Candidates of which nothing is known yet.
    """

    state: State
    plan: Plan
    tighter: pd.DataFrame | None = None
    is_bounded: bool = False
    num_pending: int = 0

    @property
    def best(self) -> Answer | None:
        """The cheapest candidate that serves the demand."""
        return next(iter(self.plan.answers), None)

    @property
    def sentence(self) -> str:
        """The answer in words."""
        if self.best is None and self.num_pending:
            return f"Nothing that is simulated so far serves this demand; {self.num_pending} more may."
        if self.best is None:
            reasons = dict.fromkeys(
                f"{it.candidate.model} on {it.candidate.devices}: {it.reason}" for it in self.plan.rejections
            )
            return f"Nothing chosen serves this demand within these objectives. {'; '.join(reasons)}."
        if self.is_bounded:
            said = f"{self.best.candidate.model}: {self.best.sentence}"
            surely = self.probability_to_be_cheapest
            them = len(self.plan.answers)
            return (
                said
                if surely is None
                else f"{said} It is the cheapest of {them} with a probability of {chance(surely)}."
            )
        candidate, n, usd = self.best.candidate, self.best.num_replicas, self.best.usd_per_hour
        said = f"{candidate.model}: {count(n, 'replica')} of {candidate.devices} serve{'s' * (n == 1)} "
        said += f"{self.plan.demand.rate_per_s:.3g} requests/s of {self.plan.demand.name}"
        said += "" if usd is None else f" for {usd:.2f} $/h"
        said += f", the cheapest so far ({count(self.num_pending, 'candidate')} to come)" if self.num_pending else ""
        return f"{said}, by the step times as they are; how surely, days drawn with their errors are about to say."

    @property
    def probability_to_be_cheapest(self) -> float | None:
        """Of the best candidate, by the rates that each bears as the errors of its step times let them be.

        None where there is no other, or a price is not known.
        """
        answers = self.plan.answers
        if len(answers) < 2 or any(answer.usd_per_hour is None for answer in answers):
            return None
        usd = [
            answer.usd_per_hour / answer.num_replicas
            * np.ceil(self.plan.demand.rate_per_s / answer.draw_max_requests_per_s(_NUM_DRAWS, seed))
            for seed, answer in enumerate(answers)
        ]  # fmt: skip
        return float(np.mean(usd[0] <= np.min(usd[1:], axis=0)))

    @property
    def limits(self) -> str:
        """What a replica runs out of first, and which objective is missed first, in words."""
        best = self.best
        said = f"What limits it: {best.limited_by}. The first objective to be missed is {best.binding.label}. "
        said += f"One replica bears {number(best.max_requests_per_s)} requests/s"
        if best.max_requests_per_s_lower is not None:
            said += f" [{number(best.max_requests_per_s_lower)}, {number(best.max_requests_per_s_upper)}]"
        return f"{said}; they are busy {best.utilization:.0%} of what they could answer without a pause."

    @property
    def cost_of_tighter(self) -> str:
        """What a tighter limit of the binding objective costs, in words; empty as long as it is not known."""
        if self.tighter is None:
            return ""
        objective, usd = self.best.binding, self.best.usd_per_hour
        if usd is None:
            return "No price is known, so a tighter objective has none."
        name = f"{METRICS[objective.metric]} {objective.statistic}"
        strict = self.tighter[self.tighter["seconds"] < objective.seconds]
        if strict.empty:
            return f"A tighter objective, {name} <= {_TIGHTER[1] * objective.seconds:g} s, cannot be met."
        dearer = strict[strict["usd_per_hour"] > usd]
        if dearer.empty:
            return f"A tighter objective costs nothing more down to {name} <= {strict['seconds'].min():g} s."
        row = dearer.loc[dearer["seconds"].idxmax()]
        return (
            f"A tighter objective, {name} <= {row['seconds']:g} s, costs {row['usd_per_hour'] - usd:.2f} $/h more: "
            f"{count(int(row['num_replicas']), 'replica')} [{row['num_replicas_lower']:g}, "
            f"{row['num_replicas_upper']:g}]."
        )

    def ratios(self, first: Answer, second: Answer) -> dict[str, Estimate]:
        """What the first costs and takes of the second, by what is compared."""
        found = {}
        usd = [_usd_per_hour(answer) for answer in (first, second)]
        if all(one is not None for one in usd):
            found["dollars an hour"] = Estimate(*map(float, ratio_interval(*usd)))
        for metric, name in METRICS.items():
            times = [answer.times[metric]["p95"] for answer in (first, second)]
            if all(time["lower"] is not None and np.isfinite(time["value"]) for time in times):
                pair = (np.array([time[side] for side in ("value", "lower", "upper")]) for time in times)
                found[f"{name} p95"] = Estimate(*map(float, ratio_interval(*pair)))
        return found

    def table(self) -> pd.DataFrame:
        """A row a candidate, the cheapest first."""
        return self.plan.table()


def demand_of(state: State) -> Demand:
    """What is asked for.

    Raises
    ------
    ValueError
        The file is none of queries or requests.
    """
    if state.queries:
        name = Path(state.queries).name
        if _is_trace(state.queries):
            requests = read_request_table(state.queries, is_demand=True)
            return Demand.of_trace(requests, name=name)
        return Demand.of_queries(read_table(state.queries), rate_per_s=state.rate_per_s, name=name)
    sizes = pd.DataFrame({name: [getattr(state, name)] for name in TOKEN_COLUMNS})
    p, o = sizes.iloc[0]
    name = f"{p} + {o} tokens" if state.workload == OWN_SIZES else state.workload
    return Demand.of_queries(sizes, rate_per_s=state.rate_per_s, name=name)


def candidates_of(state: State, demand: Demand) -> list[Candidate | Rejection]:
    """Each model on each machine."""
    found = []
    for machine_name in state.machines:
        machine = read_machine(machine_name)
        rates = {rate: getattr(state, rate).get(machine_name) for rate in ("price_usd_per_hour", "power_watts")}
        limits = {"all_num_accelerators": [state.num_accelerators], "all_max_num_seqs": [Scheduler().max_num_seqs]}
        for name in state.models:
            if isinstance(machine, ServingMachine):
                found += served_candidates(
                    read_model(name),
                    hardware=machine.hardware,
                    software=machine.engine,
                    demand=demand,
                    **limits,
                    **rates,
                )
            else:
                found += predicted_candidates(
                    read_model(name), machine.predictor, longest=demand.longest + 1, **limits, **rates
                )
    return found


def served_capability(state: State, is_stopped: Callable[[], bool]) -> pd.DataFrame:
    """Models with a published score on the first machine of a state, each in full replicas within its objectives.

    Returns
    -------
    DataFrame, by model
        As from :func:`~idealized_runtime.comparisons.capability.served_frontier`.

    Raises
    ------
    InterruptedError
        It was stopped.
    ValueError
        Nothing is chosen that could serve, nothing serves within the objectives, or no price is known.
    """
    if not state.machines:
        raise ValueError("choose a machine")
    # A replica is full whatever comes; at few queries a second one is enough, and simulated soonest.
    demand = replace(demand_of(replace(state, rate_per_s=_FEW_PER_S)), num_requests=_NUM_REQUESTS)
    demand = demand if demand.is_random else demand.at_rate(_FEW_PER_S)
    state, found = replace(state, machines=state.machines[:1], other=""), []
    for name in CAPABILITY_SCORES:
        # Some need more than this machine was timed for.
        with contextlib.suppress(ValueError):
            found += candidates_of(replace(state, model=name), demand)
    candidates = [it for it in found if isinstance(it, Candidate)]
    objectives = [Objective.parse(text) for text in state.objectives]
    if not (candidates and objectives):
        raise ValueError("no model with a score fits it" if objectives else "choose an objective")
    return served_frontier(
        plan(candidates, demand, objectives, num_draws=1, is_stopped=is_stopped).answers, level=LEVEL
    )


def plan_served(state: State, simulations: Simulations, is_stopped: Callable[[], bool]) -> Iterator[ServedAnswer]:
    """What serves the demand of a state: soon without intervals, then with them, then what tighter objectives cost.

    Raises
    ------
    InterruptedError
        It was stopped.
    ValueError
        A file cannot be read, or no objective or machine is chosen.
    """
    demand, objectives = demand_of(state), [Objective.parse(text) for text in state.objectives]
    found = candidates_of(state, demand)
    candidates = [it for it in found if isinstance(it, Candidate)]
    rejections = tuple(it for it in found if isinstance(it, Rejection))
    options = {"level": LEVEL, "simulations": simulations, "is_stopped": is_stopped}

    def solve(these, **more):
        answer = Plan(demand, tuple(objectives), (), (), LEVEL)
        if these:
            answer = plan(these, demand, objectives, **options, **more)
        return replace(answer, rejections=answer.rejections + rejections)

    if not objectives:
        raise ValueError("a plan needs at least one objective, such as ttft:p95=0.5")
    if not found:
        raise ValueError("choose a machine")
    exact = [replace(it, steps=replace(it.steps, covariance=None)) for it in candidates]
    # A candidate that needs many replicas takes minutes: the others do not wait for it.
    for last in range(1, max(1, len(exact)) + 1):
        yield ServedAnswer(state, solve(exact[:last], num_draws=1), num_pending=len(exact) - last)
    answer = ServedAnswer(state, solve(candidates), is_bounded=True)
    yield answer
    if answer.best is not None:
        binding = answer.best.binding
        others = [objective for objective in objectives if objective != binding]
        seconds = [round(share * binding.seconds, 6) for share in _TIGHTER]
        tighter = tighter_objective([answer.best.candidate], demand, binding, seconds, others=others, **options)
        yield replace(answer, tighter=tighter)


def plan_commands(state: State) -> list[str]:
    """The command lines that give the plan of a state: one, or one for each kind of machines with rates of its own."""
    rates = {
        name: tuple(getattr(state, rate).get(name) for rate in ("price_usd_per_hour", "power_watts"))
        for name in state.machines
    }
    lines = []
    if not state.objectives:
        return lines
    # Machines of one kind and of the same rates stand together; a server stands alone.
    kinds = {name: (rates[name], name if name in SERVING_MACHINES else "") for name in state.machines}
    for (own, _), names in groupby(sorted(state.machines, key=lambda name: str(kinds[name])), key=kinds.get):
        first, *more = map(read_machine, names)
        words = [*first.flags, *(one.name for one in more), "--model", *state.models]
        words = [shlex.quote(word) for word in words]
        for flag, value in zip(("--price-usd-per-hour", "--power-watts"), own, strict=True):
            words += [] if value is None else [flag, plain(value)]
        if state.num_accelerators is not None:
            words += ["--num-accelerators", str(state.num_accelerators)]
        lines.append(_command(state, words))
    return lines


def _usd_per_hour(answer) -> np.ndarray | None:
    """Of all replicas, with the bounds that their number has."""
    if answer.usd_per_hour is None or answer.num_replicas_upper is None:
        return None
    one = answer.usd_per_hour / answer.num_replicas
    return one * np.array([answer.num_replicas, answer.num_replicas_lower, answer.num_replicas_upper], dtype=float)


def _is_trace(path) -> bool:
    return "arrival_s" in read_table(path)


def _command(state, words) -> str:
    before = ""
    if state.queries:
        flag = "--requests" if _is_trace(state.queries) else "--queries"
        words += [flag, shlex.quote(state.queries)]
    elif state.workload == OWN_SIZES:
        before, words = f"{queries_on_stdin(state)} | ", [*words, "--queries", "-"]
    else:
        words += ["--workload", state.workload]
    if not (state.queries and _is_trace(state.queries)):
        words += ["--rate", plain(state.rate_per_s)]
    named = WORKLOADS.get(state.workload)
    if state.queries or named is None or tuple(map(str, named.objectives)) != state.objectives:
        words += ["--objective", *map(shlex.quote, state.objectives)]
    return f"{before}idealized-runtime plan {' '.join(words)}"
