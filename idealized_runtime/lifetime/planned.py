"""What serving a query costs as it is done: at the largest rate that a replica bears within objectives.

Requests share a server's steps, as many as the objectives allow; a replica that is always as full as that answers a
query in accelerators / largest rate accelerator-seconds. Regressed on model size, beside one query at a time.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from idealized_runtime.architectures import Architecture
from idealized_runtime.architectures.devices import num_accelerators_needed
from idealized_runtime.hardware.accelerators import get_accelerator
from idealized_runtime.lifetime.measured import QueryCost
from idealized_runtime.lifetime.profiles import check_dense
from idealized_runtime.lifetime.size_curve import MIN_MODELS, SizeCurve
from idealized_runtime.prediction.predictor import RuntimePredictor
from idealized_runtime.queries.mix import QueryMix
from idealized_runtime.serving.candidates import predicted_candidates
from idealized_runtime.serving.demand import Demand
from idealized_runtime.serving.engine import serve
from idealized_runtime.serving.objectives import Objective
from idealized_runtime.serving.planning import Answer, Candidate, Rejection, Simulations, plan
from idealized_runtime.serving.steps import TERMS

# So few that one replica of any model serves them: the largest rate that it bears does not depend on it.
_RATE_PER_S = 1e-6


@dataclass(frozen=True, eq=False)
class PlannedQueryCosts:
    """Accelerator-seconds of the mean query, served within objectives and one at a time. Made by :meth:`plan`.

    Errors of step times that were fitted are each model's own, and so in the scatter about a curve; those of predicted
    ones are common to all models, and are added to it.

    Parameters
    ----------
    planned, one_at_a_time : QueryCost
        By the candidate of each model that is cheapest so.
    num_params : mapping of model name to int
        By size, of all models.
    answers : mapping of model name to Answer
        Of those that serve within the objectives.
    left_out : tuple of Rejection
        Candidates of the others, and why they do not.
    """

    planned: QueryCost
    one_at_a_time: QueryCost
    num_params: Mapping[str, int]
    answers: Mapping[str, Answer]
    left_out: tuple[Rejection, ...]

    @classmethod
    def plan(
        cls,
        candidates: Sequence[Candidate | Rejection],
        architectures: Mapping[str, Architecture],
        mix: QueryMix,
        objectives: Sequence[Objective],
        *,
        simulations: Simulations | None = None,
        report: Callable[[Candidate], None] = lambda candidate: None,
    ) -> "PlannedQueryCosts":
        """Find the largest rate that each candidate bears, and regress what a query costs at it on model size.

        Parameters
        ----------
        candidates : sequence of Candidate and Rejection
            Models of several sizes on one hardware, as :func:`predicted_servers` or
            :func:`~idealized_runtime.serving.candidates.candidates_of_parameters` give them.
        architectures : mapping of Architecture, by the candidates' ``model``
        mix : QueryMix
            What is asked; queries come as a Poisson process.
        objectives : sequence of Objective
        simulations, report
            As of :func:`~idealized_runtime.serving.planning.plan`.

        Raises
        ------
        ValueError
            A model's size is not known or a token visits a part of it, the candidates are of two kinds of hardware, or
            fewer than four models serve within the objectives: the message says why others do not.
        """
        left_out = [it for it in candidates if isinstance(it, Rejection)]
        candidates = [it for it in candidates if isinstance(it, Candidate)]
        for candidate in candidates:
            try:
                check_dense(architectures.get(candidate.model))
            except ValueError as error:
                raise ValueError(f"{candidate.model}: {error}") from error
        if len(hardware := {candidate.steps.hardware for candidate in candidates}) > 1:
            raise ValueError(f"models must be served on one hardware; got {', '.join(sorted(hardware))}")
        found = ()
        if candidates:
            demand = Demand.of_queries(mix.queries, rate_per_s=_RATE_PER_S)
            planned = plan(candidates, demand, objectives, num_draws=1, simulations=simulations, report=report)
            found, left_out = planned.answers, [*left_out, *planned.rejections]
        sizes = {candidate.model: architectures[candidate.model].num_params for candidate in candidates}
        num_params = dict(sorted(sizes.items(), key=lambda it: it[::-1]))
        # The cheapest of each model comes last, and stays.
        answers = {answer.candidate.model: answer for answer in sorted(found, key=_planned_s, reverse=True)}
        left_out = tuple(it for it in left_out if it.candidate.model not in answers)
        if len(answers) < MIN_MODELS:
            reasons = "".join(f"; {it.candidate.model} on {it.candidate.devices}: {it.reason}" for it in left_out)
            raise ValueError(
                f"at least {MIN_MODELS} models must serve within the objectives to tell what a size costs; "
                f"{len(answers)} do{reasons}"
            )
        alone = sorted((_one_at_a_time(it, mix) for it in candidates), key=lambda it: it.seconds, reverse=True)
        ways = (
            [_Cost(it.candidate, _planned_s(it), it.elasticities) for it in answers.values()],
            {cost.candidate.model: cost for cost in alone}.values(),
        )
        curves = (QueryCost(mix, _curve(costs, num_params)) for costs in ways)
        return cls(*curves, num_params, {name: answers[name] for name in num_params if name in answers}, left_out)

    @property
    def has_errors(self) -> bool:
        """Whether the errors of all step times are known."""
        return all(answer.candidate.steps.covariance is not None for answer in self.answers.values())

    def table(self) -> pd.DataFrame:
        """What a query costs of each model.

        Returns
        -------
        DataFrame, by model
            ``num_params``; accelerator-seconds of the mean query, ``one_at_a_time_s``; and, missing where it does not
            serve within the objectives, ``num_accelerators, max_num_seqs, max_requests_per_s, planned_s, limited_by,
            origin``; ``planned_fitted_s`` on the curve.
        """
        rows = {
            name: {
                "num_accelerators": answer.candidate.num_accelerators,
                "max_num_seqs": answer.candidate.steps.scheduler.max_num_seqs,
                "max_requests_per_s": answer.max_requests_per_s,
                "planned_s": _planned_s(answer),
                "limited_by": answer.limited_by,
                "origin": answer.candidate.steps.origin,
            }
            for name, answer in self.answers.items()
        }
        served = pd.DataFrame.from_dict(rows, orient="index")
        served = served.astype(dict.fromkeys(("num_accelerators", "max_num_seqs"), "Int64"))
        alone = dict(zip(self.num_params, self.one_at_a_time.per_query.costs, strict=True))
        table = pd.DataFrame({"num_params": self.num_params, "one_at_a_time_s": alone}).join(served)
        return table.assign(planned_fitted_s=self.planned.per_query(table["num_params"])).rename_axis("model")


def predicted_servers(
    architectures: Iterable[Architecture],
    predictor: RuntimePredictor,
    mix: QueryMix,
    *,
    num_accelerators: Mapping[str | None, int] | None = None,
    hardware: str | None = None,
    **terms,
) -> list[Candidate | Rejection]:
    """Models on a stack that was timed with others: on as few devices as hold them, and on twice as many.

    With twice as many there is room for the cache of more requests, and tokens come faster: a query may cost less.

    Parameters
    ----------
    architectures : iterable of Architecture
    predictor : RuntimePredictor
    mix : QueryMix
        Its longest query is to fit.
    num_accelerators : mapping of model name to int, optional
        In place of both; under None that of all others.
    hardware, **terms
        ``price_usd_per_hour, power_watts``: as of :func:`~idealized_runtime.serving.candidates.predicted_candidates`.
    """
    accelerator = predictor.accelerator if hardware is None else get_accelerator(hardware)
    memory_bytes, dtype = getattr(accelerator, "memory_bytes", None), predictor.models[0].dtype
    longest = int((mix.num_prompt_tokens.round() + mix.num_output_tokens.round()).max())
    given, found = num_accelerators or {}, []
    for architecture in architectures:
        numbers = [given.get(architecture.name, given.get(None))]
        if numbers == [None]:
            fewest = num_accelerators_needed(architecture, memory_bytes, num_context_tokens=longest, dtype=dtype)
            numbers = [fewest, 2 * fewest]
        found += predicted_candidates(
            architecture, predictor, longest=longest, all_num_accelerators=numbers, hardware=hardware, **terms
        )
    return found


class _Cost(NamedTuple):
    """Accelerator-seconds of a query, and how they answer to each of the candidate's step times (elasticities)."""

    candidate: Candidate
    seconds: float
    elasticities: pd.Series


def _planned_s(answer) -> float:
    return answer.candidate.num_accelerators / answer.max_requests_per_s


def _one_at_a_time(candidate, mix) -> _Cost:
    """Of the mean query when each waits for the last one's answer."""
    steps = candidate.steps
    p, o = (tokens.round().astype(np.int64) for tokens in (mix.num_prompt_tokens, mix.num_output_tokens))

    def mean_s(steps):
        served = serve(np.zeros(len(p)), p, o, steps, replace(steps.scheduler, num_engines=1), num_parallel=1)
        return mix.weights @ (served.finish_s - served.arrival_s) + steps.request_s

    seconds = mean_s(steps)
    # Linear in each of the times: twice one of them adds its share.
    doubled = {term: replace(steps, **{term: 2 * getattr(steps, term)}, covariance=None) for term in TERMS}
    shares = pd.Series({term: mean_s(model) / seconds - 1 for term, model in doubled.items()})
    # A replica of several engines answers a query on each.
    return _Cost(candidate, candidate.num_accelerators / steps.scheduler.num_engines * float(seconds), shares)


def _curve(costs, num_params) -> SizeCurve:
    """The regression on size, with the root mean square of the errors that predictions share."""
    costs = sorted(costs, key=lambda cost: list(num_params).index(cost.candidate.model))
    variances = []
    for cost in costs:
        steps = cost.candidate.steps
        if steps.origin == "predicted" and steps.covariance is not None:
            slopes = np.divide(
                cost.elasticities, steps.coefficients, out=np.zeros(len(TERMS)), where=steps.coefficients > 0
            )
            variances.append(slopes @ steps.covariance @ slopes)
    sizes = [num_params[cost.candidate.model] for cost in costs]
    log_error = np.sqrt(np.mean(variances)) if variances else 0.0
    return SizeCurve.fit(sizes, [cost.seconds for cost in costs], log_error=log_error)
