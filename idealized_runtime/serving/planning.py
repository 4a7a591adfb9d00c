"""What serves a demand within objectives: the largest rate of a replica, replicas, their cost, and how surely."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from idealized_runtime.hardware.prices import SECONDS_PER_HOUR, DeviceRate
from idealized_runtime.records.files import replacing
from idealized_runtime.serving.demand import Demand
from idealized_runtime.serving.engine import serve
from idealized_runtime.serving.objectives import PERCENTILES, STATISTICS, Objective, exceedance
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.simulation import METRICS, interval_of_draws, saturated_rate_per_s
from idealized_runtime.serving.steps import STEP_TERMS, TERMS, StepModel

# Random days whose statistics, averaged, are those of a demand; where they do not tell whether an objective is met, by
# so many standard errors of what they differ by, more of them, up to the last number.
NUM_DAYS, _CLEAR_FROM, _MOST_DAYS = 4, 2.5, 24
# Relative change of a rate at which the search for the largest one ends; by so much a time is moved for its elasticity.
_RATE_TOLERANCE, _MOVED = 0.003, 0.02
# An exceedance beyond this, and where the queue grows without end, says only that a rate is too large.
_FAR_BEYOND = 3.0
# A rate as far below that of a server that never idles is none.
_LEAST_SHARE = 1e-4
# More replicas than these are as many as the rate of one says: sharing a queue among them gains nothing more.
_MOST_REPLICAS = 128
# Batches that are as full as this are limited by their number of sequences.
_FULL_SHARE = 0.9
_MILLION = 1e6
# Statistics that are answered, beside those of the objectives.
_SHOWN = ("mean", "p50", "p95", "p99")
# What a share of a replica's time goes to, in words.
_SPENT_ON = dict(
    zip(STEP_TERMS, ("weights and fixed work", "prompts", "sequences", "cache reads", "experts"), strict=True)
)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model on devices that may serve a demand, and what they cost.

    Parameters
    ----------
    model : str
    steps : StepModel
        Of one replica, with its scheduler, its hardware and where it comes from.
    num_accelerators : int or None
        Of one replica; of the step model where it is not given.
    price_usd_per_hour, power_watts : DeviceRate or None
        Of one accelerator.
    caveats : tuple of str
        What the intervals do not hold.
    """

    model: str
    steps: StepModel
    num_accelerators: int | None = None
    price_usd_per_hour: DeviceRate | None = None
    power_watts: DeviceRate | None = None
    caveats: tuple[str, ...] = ()

    def __post_init__(self):
        if self.num_accelerators is None:
            object.__setattr__(self, "num_accelerators", self.steps.num_accelerators)

    @property
    def devices(self) -> str:
        """Of one replica, in words."""
        return f"{self.num_accelerators or '?'} x {self.steps.hardware or 'unknown hardware'}"

    @property
    def label(self) -> str:
        """Model, devices and batch limit."""
        return f"{self.model} on {self.devices}, up to {self.steps.scheduler.max_num_seqs} sequences"


class Simulations:
    """Statistics of simulated days, kept by what was asked; threads may share them.

    Parameters
    ----------
    path : path-like, optional
        File that holds those of earlier plans, and is to hold these: another objective then takes no new simulation of
        what was simulated already.

    Raises
    ------
    ValueError
        The file is none of these.
    """

    # Of a day: times by metric and statistic; what its steps held; preempted requests.
    _WIDTH = len(METRICS) * len(STATISTICS) + len(STEP_TERMS) + 1

    def __init__(self, path=None):
        self._path, self._known, self._lock = path and Path(path), {}, threading.Lock()
        if self._path is not None and self._path.exists():
            try:
                with np.load(self._path, allow_pickle=False) as file:
                    keys, values = file["keys"], file["values"]
            except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
                raise ValueError(f"{path}: not simulations that a plan has kept; name another file") from error
            if values.ndim != 2 or values.shape[1] != self._WIDTH or len(keys) != len(values):
                raise ValueError(f"{path}: simulations of another version; name another file")
            self._known = dict(zip(map(bytes, keys), values, strict=True))

    def __len__(self):
        return len(self._known)

    def day(self, steps: StepModel, scheduler: Scheduler, demand: Demand, number: int) -> "Day":
        """A day of a demand, simulated unless it is known."""
        number = number if demand.is_random else 0
        asked = (demand.rate_per_s, number, demand.num_requests)
        requests = partial(demand.day, number, num_replicas=scheduler.num_engines)
        return self._day(steps, scheduler, demand, asked, requests)

    def alone(self, steps: StepModel, scheduler: Scheduler, demand: Demand) -> "Day":
        """Requests of a demand that meet no other, simulated unless it is known."""
        return self._day(steps, scheduler, demand, ("alone", demand.num_requests), demand.alone)

    def _day(self, steps, scheduler, demand, asked, requests) -> "Day":
        text = repr(
            (steps.coefficients.tolist(), steps.expert_share, scheduler, demand.fingerprint, asked, PERCENTILES)
        )
        key = sha256(text.encode()).digest()
        if (known := self._known.get(key)) is None:
            known = self._simulate(*requests(), steps, scheduler)
            with self._lock:
                self._known[key] = known
        times, rest = np.split(known, [len(METRICS) * len(STATISTICS)])
        return Day(times.reshape(len(METRICS), -1), rest[:-1], int(rest[-1]))

    def _simulate(self, arrival_s, p, o, steps, scheduler) -> np.ndarray:
        served = serve(arrival_s, p, o, steps, scheduler)
        first_s, end_s = (times - arrival_s + steps.request_s for times in (served.first_token_s, served.finish_s))
        has_further = o > 1
        tpot_s = (end_s - first_s)[has_further] / (o - 1)[has_further]
        times = [
            [values.mean(), *np.percentile(values, PERCENTILES)] if values.size else np.full(len(STATISTICS), np.nan)
            for values in (first_s, tpot_s, end_s)
        ]
        return np.concatenate(
            [*times, served.totals.sum(axis=0)[: len(STEP_TERMS)], [(served.num_preemptions > 0).sum()]]
        )

    def save(self) -> None:
        """Write what is known to the file, if there is one."""
        if self._path is not None and self._known:
            keys = np.frombuffer(b"".join(self._known), dtype=np.uint8).reshape(len(self._known), -1)
            with replacing(self._path) as part, part.open("wb") as file:
                np.savez(file, keys=keys, values=np.array(list(self._known.values())))


@dataclass(frozen=True, eq=False)
class Day:
    """What was waited for on a simulated day, and what its steps held.

    ``times``, shape (metrics, statistics), seconds; ``held``: steps, prompt tokens, sequences, cached tokens, shares of
    experts, of all engines; ``num_preempted`` requests.
    """

    times: np.ndarray
    held: np.ndarray
    num_preempted: int


@dataclass(frozen=True, eq=False)
class Answer:
    """How a candidate serves a demand within objectives.

    Bounds are those of the interval by the errors of the step times and, of a random demand, what its days differ by.

    Attributes
    ----------
    max_requests_per_s, max_requests_per_s_lower, max_requests_per_s_upper : float
        Largest rate that one replica bears within the objectives; bounds None where no error is known.
    num_replicas, num_replicas_lower, num_replicas_upper : int
        Fewest that do; the upper bound is None where, as far as is known, no number may.
    probabilities_met : tuple of float
        That the objectives are met with one replica fewer, with ``num_replicas``, one and two more.
    times : mapping of metric to mapping of statistic to ``value, lower, upper``
        Seconds, with ``num_replicas``.
    binding : Objective
        The one that is the first to be missed.
    utilization : float
        Rate of the demand over the rate that the replicas could answer if they never idled.
    shares : Series, by term
        Of the time in which they work.
    limited_by : str
        In words, what a replica runs out of first.
    elasticities : Series, by term
        Per cent of the largest rate that a per cent more of a step's time takes away, negative.
    saturated_requests_per_s, saturated_elasticities
        The same of the rate that a replica answers when it never idles, which bounds the largest one.
    decisive : Series, by term
        Share of the variance of the largest rate that goes once this term is known; empty where no error is.
    """

    candidate: Candidate
    demand: Demand
    max_requests_per_s: float
    max_requests_per_s_lower: float | None
    max_requests_per_s_upper: float | None
    num_replicas: int
    num_replicas_lower: int
    num_replicas_upper: int | None
    probabilities_met: tuple[float, ...]
    times: Mapping
    binding: Objective
    utilization: float
    shares: pd.Series
    limited_by: str
    elasticities: pd.Series
    saturated_requests_per_s: float
    saturated_elasticities: pd.Series
    decisive: pd.Series

    @property
    def probability_met(self) -> float:
        """That the objectives are met with ``num_replicas``."""
        return self.probabilities_met[1]

    @property
    def usd_per_hour(self) -> float | None:
        """Of all replicas."""
        return self._per_hour(self.candidate.price_usd_per_hour)

    @property
    def usd_per_query(self) -> float | None:
        """Dollars of a query at the rate of the demand, idle time included."""
        usd = self.usd_per_hour
        return None if usd is None else usd / SECONDS_PER_HOUR / self.demand.rate_per_s

    def draw_max_requests_per_s(self, num_draws: int, rng: int | np.random.Generator) -> np.ndarray:
        """Largest rates of one replica as the errors of the step times let them be, shape (num_draws,).

        To first order in the logarithm, and not above what a replica answers that never idles. All equal where no error
        is known.
        """
        steps = self.candidate.steps
        return _drawn_rates(
            steps, steps.draws(num_draws, rng), (self.max_requests_per_s, self.elasticities),
            (self.saturated_requests_per_s, self.saturated_elasticities),
        )  # fmt: skip

    def usd_per_million(self, tokens: str = "output") -> float | None:
        """Dollars over a million ``"prompt"``, ``"output"`` or ``"all"`` tokens: each time all that is paid."""
        usd, p, o = self.usd_per_query, self.demand.mean_prompt_tokens, self.demand.mean_output_tokens
        return None if usd is None else _MILLION * usd / {"prompt": p, "output": o, "all": p + o}[tokens]

    @property
    def phases(self) -> pd.DataFrame:
        """What prompts and generation take, cost and draw, each its share of the time in which replicas work.

        Returns
        -------
        DataFrame, by ``prompts``, ``generation``
            ``share``; ``usd_per_million_tokens`` and ``joules_per_token``, of prompt tokens and of output tokens (NaN
            where no price or no watts are known).
        """
        prompts = float(self.shares["prompt_token_s"])
        frame = pd.DataFrame({"share": [prompts, 1 - prompts]}, index=pd.Index(["prompts", "generation"], name="phase"))
        tokens = np.array([self.demand.mean_prompt_tokens, self.demand.mean_output_tokens])
        usd, joules = (np.nan if it is None else it for it in (self.usd_per_query, self.joules_per_query))
        return frame.assign(
            usd_per_million_tokens=_MILLION * usd * frame["share"] / tokens,
            joules_per_token=joules * frame["share"] / tokens,
        )

    @property
    def joules_per_query(self) -> float | None:
        """Of a query, every device drawing its watts all the time."""
        watts = self._per_hour(self.candidate.power_watts)
        return None if watts is None else watts / self.demand.rate_per_s

    def _per_hour(self, rate) -> float | None:
        number = self.candidate.num_accelerators
        return None if rate is None or number is None else self.num_replicas * number * rate.value

    def to_json(self) -> dict:
        """The answer in numbers, None where something is not known."""
        candidate, steps = self.candidate, self.candidate.steps
        return {
            "model": candidate.model,
            "hardware": steps.hardware or None,
            "software": steps.software or None,
            "num_accelerators": candidate.num_accelerators,
            "max_num_seqs": steps.scheduler.max_num_seqs,
            **{name: getattr(self, name) for name in (
                "max_requests_per_s", "max_requests_per_s_lower", "max_requests_per_s_upper", "num_replicas",
                "num_replicas_lower", "num_replicas_upper", "probability_met", "usd_per_hour", "usd_per_query",
            )},
            **{f"probability_met_plus_{more}": self.probabilities_met[1 + more] for more in (1, 2)},
            "usd_per_million_output_tokens": self.usd_per_million("output"),
            "usd_per_million_prompt_tokens": self.usd_per_million("prompt"),
            "usd_per_million_tokens": self.usd_per_million("all"),
            "joules_per_query": self.joules_per_query,
            "phases": self.phases.reset_index().to_dict("records"),
            "utilization": self.utilization,
            "limited_by": self.limited_by,
            "binding_objective": str(self.binding),
            **self.times,
            "decisive": {term: float(share) for term, share in self.decisive.items()},
            "price_source": candidate.price_usd_per_hour and candidate.price_usd_per_hour.source,
            "power_source": candidate.power_watts and candidate.power_watts.source,
            "origin": steps.origin,
            "caveats": list(candidate.caveats),
        }  # fmt: skip

    @property
    def sentence(self) -> str:
        """The answer in a sentence."""
        n, objective = self.num_replicas, self.binding
        replicas = f"{n} replica{'s' * (n > 1)} of {self.candidate.devices} serve{'s' * (n == 1)}"
        known = self.times[objective.metric][objective.statistic]
        bounds = "" if known["lower"] is None else f" [{known['lower']:.3g}, {known['upper']:.3g}]"
        said = (
            f"{replicas} {self.demand.rate_per_s:.3g} requests/s of {self.demand.name} with "
            f"{METRICS[objective.metric]} {objective.statistic} {known['value']:.3g} s{bounds}"
        )
        if self.usd_per_hour is not None:
            said += f"; {self.usd_per_hour:.2f} $/h, {1000 * self.usd_per_query:.3g} $ a thousand queries"
        if n > 1:
            fewer, less = f"with {n - 1} replica{'s' * (n > 2)}", self.probabilities_met[0]
            said += f"; {fewer} the objective is " + (
                "missed for certain" if less == 0 else f"met with probability {less:.2g}"
            )
        if self.probability_met < 1:
            said += f"; with {n} it is met with probability {self.probability_met:.2g}"
        return said + "."


@dataclass(frozen=True)
class Rejection:
    """A candidate that cannot serve a demand, and why."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True, eq=False)
class Plan:
    """Candidates that serve a demand within objectives, cheapest first, and those that cannot.

    Parameters
    ----------
    demand : Demand
    objectives : tuple of Objective
    answers : tuple of Answer
    rejections : tuple of Rejection
    level : float
        Of the intervals.
    """

    demand: Demand
    objectives: tuple[Objective, ...]
    answers: tuple[Answer, ...]
    rejections: tuple[Rejection, ...]
    level: float

    def table(self) -> pd.DataFrame:
        """A row a candidate: devices, rates, replicas, dollars, joules, times of the objectives, origin."""
        rows = []
        for answer in self.answers:
            steps = answer.candidate.steps
            row = {
                "model": answer.candidate.model,
                "devices of a replica": answer.candidate.devices,
                "software": steps.software or None,
                "sequences": steps.scheduler.max_num_seqs,
                "largest requests/s": answer.max_requests_per_s,
                "replicas": answer.num_replicas,
                "replicas_lower": answer.num_replicas_lower,
                "replicas_upper": answer.num_replicas_upper,
                "P(met)": answer.probability_met,
                "P(met), 1 more": answer.probabilities_met[2],
                "P(met), 2 more": answer.probabilities_met[3],
                "$/h": answer.usd_per_hour,
                "$/1000 queries": None if answer.usd_per_query is None else 1000 * answer.usd_per_query,
                "$/1M output tokens": answer.usd_per_million("output"),
                "J/query": answer.joules_per_query,
                "utilization": answer.utilization,
                "limited by": answer.limited_by,
            }
            for objective in self.objectives:
                name = f"{METRICS[objective.metric]} {objective.statistic}, s"
                row[name] = answer.times[objective.metric][objective.statistic]["value"]
            rows.append({**row, "origin": steps.origin})
        return pd.DataFrame(rows)

    def to_json(self) -> dict:
        """Demand, objectives, every candidate and what was left out, in numbers."""
        return {
            "demand": self.demand.to_json(),
            "objectives": [str(objective) for objective in self.objectives],
            "level": self.level,
            "candidates": [answer.to_json() for answer in self.answers],
            "left_out": [
                {"model": it.candidate.model, "hardware": it.candidate.steps.hardware or None,
                 "num_accelerators": it.candidate.num_accelerators, "reason": it.reason}
                for it in self.rejections
            ],
        }  # fmt: skip


def plan(
    candidates: Sequence[Candidate],
    demand: Demand,
    objectives: Sequence[Objective],
    *,
    level: float = 0.95,
    num_draws: int = 20,
    rng: int | np.random.Generator = 0,
    simulations: Simulations | None = None,
    report: Callable[[Candidate], None] = lambda candidate: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Plan:
    """What serves a demand within objectives, cheapest first.

    A replica is one copy of the candidate's server; a request goes to the one with the fewest requests. Replicas are
    as few as meet all objectives in simulated days with the step times as they are; how surely, days with step times
    as far from them as their errors allow say.

    Parameters
    ----------
    candidates : sequence of Candidate
    demand : Demand
    objectives : sequence of Objective
        All of them are to be met.
    level : float
    num_draws : int
        Step models drawn for intervals and probabilities, of which each serves a day of its own.
    rng : Generator or seed
        Every candidate's errors are drawn with the same.
    simulations : Simulations, optional
        What is known from before.
    report
        Called with each candidate that is done.
    is_stopped
        Asked before each simulated day; True ends the plan.

    Raises
    ------
    InterruptedError
        It was stopped.
    ValueError
        There is no candidate or no objective, or an objective is on the time per output token of answers of one token.

    Examples
    --------
    >>> steps = StepModel(0.013, 4e-5, 4e-5, 7e-8, hardware="H100", num_accelerators=1)
    >>> chat = pd.DataFrame({"num_prompt_tokens": [512], "num_output_tokens": [256]})
    >>> found = plan([Candidate("llama-3.1-8b", steps)], Demand.of_queries(chat, rate_per_s=20),
    ...              [Objective.parse("ttft:p95=0.5")])
    >>> found.answers[0].num_replicas
    2
    """
    if not candidates or not objectives:
        missing = "objective" if candidates else "candidate"
        raise ValueError(f"a plan needs at least one {missing}")
    _, _, o = demand.day(0)
    if any(objective.metric == "tpot_s" for objective in objectives) and not (o > 1).any():
        raise ValueError("an objective on TPOT needs answers of more than one token; all of this demand have one")
    simulations = Simulations() if simulations is None else simulations
    for number in range(max(NUM_DAYS, num_draws) if demand.is_random else 1):
        demand.day(number)
    seed = int(np.random.default_rng(rng).integers(2**63))

    ended = threading.Event()

    def solve(candidate):
        search = _Search(candidate, demand, tuple(objectives), simulations, lambda: ended.is_set() or is_stopped())
        found = search.answer(num_draws, seed, level)
        report(candidate)
        return found

    # Simulations run without the interpreter's lock. One that is interrupted keeps what it has, and ends soon.
    pool = ThreadPoolExecutor()
    try:
        found = list(pool.map(solve, candidates))
    finally:
        ended.set()
        pool.shutdown(cancel_futures=True)
        simulations.save()
    answers = sorted((it for it in found if isinstance(it, Answer)), key=_cheapest_first)
    rejections = tuple(it for it in found if isinstance(it, Rejection))
    return Plan(demand, tuple(objectives), tuple(answers), rejections, level)


def _cheapest_first(answer):
    usd, number = answer.usd_per_hour, answer.candidate.num_accelerators
    return (usd is None, usd or 0.0, answer.num_replicas * (number or 1), -answer.max_requests_per_s)


@dataclass(frozen=True, eq=False)
class _Search:
    """The search for the largest rate and the fewest replicas of one candidate."""

    candidate: Candidate
    demand: Demand
    objectives: tuple[Objective, ...]
    simulations: Simulations
    is_stopped: Callable[[], bool]
    _limits: dict = field(default_factory=dict)

    def answer(self, num_draws, seed, level) -> Answer | Rejection:
        candidate, demand, steps = self.candidate, self.demand, self.candidate.steps
        capacity = steps.scheduler.cache_tokens
        if capacity is not None and demand.longest > capacity:
            return Rejection(
                candidate, f"its cache of {capacity} tokens does not hold the longest request, of {demand.longest}"
            )
        numbers = range(NUM_DAYS if demand.is_random else 1)
        if missed := self._missed_idle(steps):
            return Rejection(candidate, "; ".join(missed))
        # The rate of one and the number of replicas are then told by the same days.
        numbers = self._telling_days(steps, 1, numbers)
        largest, slope = self._largest_rate(steps, numbers)
        n = self._fewest_replicas(steps, numbers, max(1, int(np.ceil(demand.rate_per_s / largest))))
        if n == np.inf:
            return Rejection(
                candidate, "no number of replicas meets the objectives on every day, however few share one"
            )
        # The days that told that so many are enough: on fewer of them they may seem not to be.
        days = self._days(steps, n, self._telling_days(steps, n, numbers))
        elasticities, saturated = self._elasticities(steps, numbers, largest, slope)
        slopes = slopes_per_second(steps, elasticities)
        drawn, bounds = [steps] * (num_draws if demand.is_random else 0), (None, None)
        largest_of = [largest] * len(drawn)
        if steps.covariance is not None:
            drawn = steps.draws(num_draws, seed)
            largest_of = _drawn_rates(steps, drawn, (largest, elasticities), (self._limit(steps), saturated))
            bounds = interval_of_draws(largest, largest_of, level)
        # Where the rate of one says that they are needed, and from there as days say.
        fewest = [
            self._fewest_replicas(model, [number], max(1, round(n * largest / rate)))
            for number, (model, rate) in enumerate(zip(drawn, largest_of, strict=True))
        ]
        served = [self._days(model, n, [number])[0] for number, model in enumerate(drawn)]
        fewest = np.array(fewest or [n])
        lowest, highest = interval_of_draws(n, fewest, level)
        mean = np.mean([day.times for day in days], axis=0)
        held = np.sum([day.held for day in days], axis=0)
        spent_s = held * steps.coefficients[: len(STEP_TERMS)]
        shares = pd.Series(spent_s / spent_s.sum(), index=list(STEP_TERMS))
        return Answer(
            candidate, demand, largest, *bounds, n, int(np.floor(lowest)),
            int(np.ceil(highest)) if np.isfinite(highest) else None,
            tuple(float(np.mean(fewest <= n + more)) for more in (-1, 0, 1, 2)),
            _bounded_times(mean, [day.times for day in served], self.objectives, level),
            max(self.objectives, key=lambda objective: exceedance([objective], mean)),
            demand.rate_per_s / (n * self._limit(steps)), shares, self._limited_by(shares, held, days), elasticities,
            self._limit(steps), saturated,
            _decisive(steps, slopes),
        )  # fmt: skip

    def _scheduler(self, num_replicas) -> Scheduler:
        scheduler = self.candidate.steps.scheduler
        return replace(scheduler, num_engines=num_replicas * scheduler.num_engines)

    def _days(self, steps, num_replicas, numbers, demand=None) -> list[Day]:
        """Days of so many replicas; of more than are simulated, those of that many with their share of the requests."""
        demand, most = demand or self.demand, min(num_replicas, _MOST_REPLICAS)
        if most < num_replicas:
            demand = demand.at_rate(demand.rate_per_s * most / num_replicas)
        scheduler, days = self._scheduler(most), []
        for number in numbers:
            if self.is_stopped():
                raise InterruptedError("the plan was stopped")
            days.append(self.simulations.day(steps, scheduler, demand, number))
        return days

    def _limit(self, steps) -> float:
        """Requests a second that a replica answers when it never idles."""
        key = steps.coefficients.tobytes()
        if key not in self._limits:
            _, p, o = self.demand.day(0)
            sizes = pd.DataFrame({"num_prompt_tokens": p, "num_output_tokens": o})
            self._limits[key] = saturated_rate_per_s(sizes, steps, self.candidate.steps.scheduler)
        return self._limits[key]

    def _exceedance(self, steps, num_replicas, numbers, demand=None) -> float:
        """Logarithm of the worst time over what is allowed; infinite where the queue would grow without end."""
        demand = demand or self.demand
        if demand.rate_per_s >= num_replicas * self._limit(steps):
            return np.inf
        days = self._days(steps, num_replicas, numbers, demand)
        return exceedance(self.objectives, np.mean([day.times for day in days], axis=0))

    def _telling_days(self, steps, num_replicas, numbers) -> Sequence[int]:
        """Days that tell whether so many replicas meet the objectives: more, where these do not."""
        while 1 < len(numbers) < _MOST_DAYS:
            beyond = self._exceedance(steps, num_replicas, numbers)
            each = [self._exceedance(steps, num_replicas, [number]) for number in numbers]
            if beyond == np.inf or abs(beyond) > _CLEAR_FROM * np.std(each, ddof=1) / np.sqrt(len(each)):
                break
            numbers = range(len(numbers) + NUM_DAYS)
        return numbers

    def _is_met(self, steps, num_replicas, numbers) -> bool:
        """Whether so many replicas meet the objectives, on all days that it takes to tell."""
        return self._exceedance(steps, num_replicas, self._telling_days(steps, num_replicas, numbers)) <= 0

    def _missed_idle(self, steps) -> list[str]:
        """Objectives that are missed even where every request is alone, in words."""
        day = self.simulations.alone(steps, self.candidate.steps.scheduler, self.demand)
        return [
            f"{objective.label} is below what an idle replica takes, {objective.value_s(day.times):.3g} s"
            for objective in self.objectives
            if exceedance([objective], day.times) > 0
        ]

    def _largest_rate(self, steps, numbers) -> tuple[float, float]:
        """Largest rate that one replica bears, and how the exceedance grows there with the logarithm of the rate.

        Infinitely fast where the objectives hold up to where the queue grows without end.
        """
        from scipy.optimize import brentq

        limit, seen = self._limit(steps), {}

        def beyond(log_rate):
            demand = self.demand.at_rate(np.exp(log_rate))
            seen[log_rate] = min(self._exceedance(steps, 1, numbers, demand), _FAR_BEYOND)
            return seen[log_rate]

        low, top = np.log(0.5 * limit), np.log(limit * (1 - _RATE_TOLERANCE))
        if beyond(top) <= 0:
            return np.exp(top), np.inf
        while beyond(low) > 0:
            top, low = low, low - np.log(2)
            if low < np.log(_LEAST_SHARE * limit):
                return np.exp(low), np.inf
        root = brentq(beyond, low, top, xtol=_RATE_TOLERANCE)
        below = max(rate for rate, value in seen.items() if value <= 0)
        above = min(rate for rate, value in seen.items() if value > 0)
        return float(np.exp(root)), (seen[above] - seen[below]) / (above - below)

    def _fewest_replicas(self, steps, numbers, start) -> float:
        """Fewest that meet the objectives, infinite where no number does; the search begins at ``start``."""
        if start > _MOST_REPLICAS:
            return start
        if self._is_met(steps, start, numbers):
            missed, met = start - 1, start
            if missed and self._is_met(steps, missed, numbers):
                missed, met = 0, missed
        elif self._missed_idle(steps):
            return np.inf
        else:
            missed, met = start, start + 1
            if not self._is_met(steps, met, numbers):
                missed, met = met, 2 * start + _MOST_REPLICAS // 16
                if not self._is_met(steps, met, numbers):
                    return np.inf
        while met - missed > 1:
            middle = (missed + met) // 2
            missed, met = (missed, middle) if self._is_met(steps, middle, numbers) else (middle, met)
        return met

    def _elasticities(self, steps, numbers, largest, slope) -> tuple[pd.Series, pd.Series]:
        """How the largest rate of a replica answers to each of the step times, and how the one that never idles does.

        The first by the implicit function theorem.
        """
        demand = self.demand.at_rate(largest)
        found, saturated = dict.fromkeys(TERMS, 0.0), dict.fromkeys(TERMS, 0.0)
        nominal = self._exceedance(steps, 1, numbers, demand)
        for term in TERMS:
            if (seconds := getattr(steps, term)) > 0:
                moved = replace(steps, **{term: seconds * (1 + _MOVED)}, covariance=None)
                change = np.log(self._limit(moved) / self._limit(steps))
                saturated[term] = float(change / np.log(1 + _MOVED))
                beyond = self._exceedance(moved, 1, numbers, demand)
                if np.isfinite(slope) and np.isfinite(beyond):
                    change = -(beyond - nominal) / slope
                found[term] = float(change / np.log(1 + _MOVED))
        return pd.Series(found), pd.Series(saturated)

    def _limited_by(self, shares, held, days) -> str:
        scheduler = self.candidate.steps.scheduler
        if sum(day.num_preempted for day in days):
            return "cache capacity"
        if held[2] / held[0] > _FULL_SHARE * scheduler.max_num_seqs:
            return "sequences at once"
        return _SPENT_ON[shares.idxmax()]


def _bounded_times(mean, of_draws, objectives, level) -> dict:
    times = {}
    for place, metric in enumerate(METRICS):
        asked = [objective.statistic for objective in objectives if objective.metric == metric]
        times[metric] = {}
        for statistic in dict.fromkeys((*_SHOWN, *asked)):
            column = STATISTICS.index(statistic)
            value, bounds = float(mean[place, column]), (None, None)
            if of_draws:
                bounds = interval_of_draws(value, [draw[place, column] for draw in of_draws], level)
            times[metric][statistic] = dict(zip(("value", "lower", "upper"), (value, *bounds), strict=True))
    return times


def _drawn_rates(steps, drawn, largest, saturated) -> np.ndarray:
    """Largest rates of drawn step times, none above that of a replica that never idles; rates with elasticities."""
    moved = np.array([model.coefficients for model in drawn]) - steps.coefficients
    rates = [
        rate * np.exp(moved @ slopes_per_second(steps, elasticities)) for rate, elasticities in (largest, saturated)
    ]
    return np.minimum(*rates)


def slopes_per_second(steps: StepModel, elasticities: ArrayLike) -> np.ndarray:
    """Elasticities as slopes of the logarithm of the rate against each time."""
    return np.divide(
        elasticities.to_numpy(), steps.coefficients, out=np.zeros(len(TERMS)), where=steps.coefficients > 0
    )


def _decisive(steps, slopes) -> pd.Series:
    """Share of the variance of the largest rate's logarithm that goes once a term is known, and with it what it tells
    of the others."""
    if steps.covariance is None:
        return pd.Series(dtype=float)
    variances, total = np.diag(steps.covariance), slopes @ steps.covariance @ slopes
    explained = (steps.covariance @ slopes) ** 2
    is_known = (variances > 0) & (total > 0)
    return pd.Series(
        np.divide(explained, variances * total, out=np.zeros(len(TERMS)), where=is_known), index=list(TERMS)
    )
