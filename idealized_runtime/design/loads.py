"""Which loads to measure a server at, so that the largest rate that it bears within objectives is known best."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from idealized_runtime.checks import check_columns, check_positive
from idealized_runtime.design.points import POINT_ERROR
from idealized_runtime.serving.fitting import PublishedPoints
from idealized_runtime.serving.planning import Answer, slopes_per_second
from idealized_runtime.statistics.intervals import normal_half_width

LOAD_COLUMNS = ["num_prompt_tokens", "num_output_tokens", "concurrency"]
# Requests that each client of a load sends, one after the other: the first are not counted, as all begin at once.
_ROUNDS = 4
# A load that takes less than this share of the variance away is not worth its time.
_LEAST_GAIN = 0.005


@dataclass(frozen=True, eq=False)
class RateDesign:
    """Loads that may be measured, and what each tells of the largest rate of a plan.

    The logarithm of the rate is to first order a line in the step times, whose slopes c the plan knows as
    elasticities; its variance is c' C c, C being the covariance of the step times. A load yields a time per output
    token and, where no request waits for a place, a time to the first token; both are lines in the step times, known
    to 5 %. The load that takes most of the variance away per second comes first (c-optimal; Pukelsheim, Optimal Design
    of Experiments, 2006, Chapter 2). What the step model itself is off by is not in these errors, nor what days differ
    by.

    Parameters
    ----------
    answer : Answer
        Of a candidate whose step times have a covariance.
    loads : DataFrame
        ``num_prompt_tokens, num_output_tokens, concurrency``: so many clients, each of whom sends its next request when
        one is answered.
    level : float
        Of the interval whose relative half-width is the error.

    Raises
    ------
    ValueError
        No error of the step times is known, or a size is not positive.
    """

    answer: Answer
    loads: pd.DataFrame
    level: float = 0.95

    def __post_init__(self):
        steps = self.answer.candidate.steps
        if steps.covariance is None or not self._variance(steps.covariance) > 0:
            raise ValueError(
                f"{self.answer.candidate.label}: no error of its step times is known, so no load narrows it; "
                "`serving fit` of what was measured writes them"
            )
        check_columns(self.loads, LOAD_COLUMNS, name="loads")
        for name in LOAD_COLUMNS:
            check_positive(**{name: self.loads[name].min()})

    @property
    def error(self) -> float:
        """Relative half-width of the interval of the largest rate, before any of the loads is measured."""
        return self._half_width(self.answer.candidate.steps.covariance)

    @cached_property
    def seconds(self) -> np.ndarray:
        """What each load takes, with the step times as they are known."""
        steps, (rows, load) = self.answer.candidate.steps, self._rows
        rules, clients = steps.scheduler, self.loads["concurrency"].to_numpy(float)
        running = np.minimum(clients / rules.num_engines, rules.max_num_seqs)
        # Rows of tokens come first, one a load; a first token that waits for a place does so while others are served.
        token_s = rows[: len(clients)] @ steps.coefficients
        first_s = np.zeros(len(clients))
        first_s[load[len(clients) :]] = rows[len(clients) :] @ steps.coefficients
        request_s = first_s + token_s * self.loads["num_output_tokens"].to_numpy(float)
        return _ROUNDS * request_s * np.maximum(clients / rules.num_engines / running, 1)

    def choose(self, *, target_error: float, max_seconds: float | None = None) -> pd.DataFrame:
        """Loads to measure, the most useful per second first, until the target is met or none that fits is worth it.

        Returns
        -------
        DataFrame, one row a load
            ``num_prompt_tokens, num_output_tokens, concurrency``; ``num_trials``, requests of all clients; ``seconds``;
            ``error_after``, with those before it measured, too.
        """
        covariance, left_s, chosen, errors = self.answer.candidate.steps.covariance, max_seconds or np.inf, [], []
        error = self.error
        while error > target_error:
            variance = self._variance(covariance)
            after = [self._measured(covariance, place) for place in range(len(self.loads))]
            gains = variance - np.array([self._variance(it) for it in after])
            is_allowed = (gains > _LEAST_GAIN * variance) & (self.seconds <= left_s)
            is_allowed[chosen] = False
            if not is_allowed.any():
                break
            best = int(np.argmax(np.where(is_allowed, gains / self.seconds, -1.0)))
            covariance, left_s = after[best], left_s - self.seconds[best]
            error = self._half_width(covariance)
            chosen.append(best)
            errors.append(error)
        return self._table(chosen, errors)

    def worth_of_each(self) -> pd.DataFrame:
        """What each load alone would narrow, as :meth:`choose` has it and ``narrows_percent``; the best first."""
        steps, places = self.answer.candidate.steps, range(len(self.loads))
        errors = [self._half_width(self._measured(steps.covariance, place)) for place in places]
        table = self._table(places, errors)
        table["narrows_percent"] = 100 * (1 - table["error_after"] / self.error)
        return table.iloc[np.argsort(-(self.error**2 - np.square(errors)) / self.seconds, kind="stable")].reset_index(
            drop=True
        )

    @cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        """What steps behind each time hold together, and the load that it is of."""
        steps = self.answer.candidate.steps
        # That there are such times is asked for here, not what they are.
        loads = self.loads.assign(time_per_output_token_s=1.0, time_to_first_token_s=1.0)
        rows = PublishedPoints(loads, steps.scheduler).rows(steps)
        return rows.features, rows.blocks

    def _measured(self, covariance, place) -> np.ndarray:
        """Covariance of the step times when a load was measured as well."""
        rows, load = self._rows
        for row in rows[load == place]:
            known = covariance @ row
            noise = (POINT_ERROR * (row @ self.answer.candidate.steps.coefficients)) ** 2
            covariance = covariance - np.outer(known, known) / (row @ known + noise)
        return covariance

    def _variance(self, covariance) -> float:
        slopes = slopes_per_second(self.answer.candidate.steps, self.answer.elasticities)
        return float(slopes @ covariance @ slopes)

    def _half_width(self, covariance) -> float:
        return float(normal_half_width(self.level) * np.sqrt(max(self._variance(covariance), 0.0)))

    def _table(self, places, errors) -> pd.DataFrame:
        chosen = self.loads[LOAD_COLUMNS].iloc[list(places)].reset_index(drop=True)
        return chosen.assign(
            num_trials=_ROUNDS * chosen["concurrency"], seconds=self.seconds[list(places)], error_after=errors
        )


def loads_of(queries: pd.DataFrame, max_num_seqs: int) -> pd.DataFrame:
    """Loads that tell of a mix: quartiles of its prompts and outputs, each at powers of two of clients.

    Examples
    --------
    >>> loads_of(pd.DataFrame({"num_prompt_tokens": [512], "num_output_tokens": [64]}), 4)["concurrency"].tolist()
    [1, 2, 4]
    """
    sizes = [
        np.unique(np.maximum(np.quantile(queries[name], [0.25, 0.5, 0.75], method="nearest").round(), 1).astype(int))
        for name in LOAD_COLUMNS[:2]
    ]
    clients = [2**power for power in range(max_num_seqs.bit_length())]
    return pd.MultiIndex.from_product([*sizes, clients], names=LOAD_COLUMNS).to_frame(index=False)
