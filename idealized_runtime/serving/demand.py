"""What is asked of a server: a trace as it came, or queries that come at random at a rate, of any number of days."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256

import numpy as np
import pandas as pd

from idealized_runtime.checks import check_positive
from idealized_runtime.records import TOKEN_COLUMNS
from idealized_runtime.serving.requests import check_requests, random_requests
from idealized_runtime.serving.simulation import arrival_rate_per_s, seconds_from_first

# Of a random day at most: what a day of more replicas differs by is less than what their step times are known to.
_MOST_REQUESTS = 60_000
# Between requests that are to meet no other.
_SELDOM_S = 1e5


@dataclass(frozen=True, eq=False)
class Demand:
    """Requests that come, at the rate that they come at or at any other.

    Rates are compared on the same demand. At another one random requests come in the same order, with the times
    between them stretched. Of a trace, a smaller rate keeps so many of the requests, at random, as a replica gets that
    shares them with others, so that its bursts are shared, too; a larger rate brings all of them quicker. Make one by
    :meth:`of_trace` or :meth:`of_queries`.

    Parameters
    ----------
    name : str
        In words.
    rate_per_s : float
        Mean arrivals a second.
    trace : DataFrame or None
        Requests as they came.
    queries : DataFrame or None
        Sizes that are drawn from, with optional ``weight``.
    num_requests : int
        Of a random day, for each replica; a trace has its own.
    burstiness : float
        Coefficient of variation of the times between random arrivals.
    seed : int
        Of random days.

    Examples
    --------
    >>> chat = pd.DataFrame({"num_prompt_tokens": [512], "num_output_tokens": [256]})
    >>> Demand.of_queries(chat, rate_per_s=9, name="chat").mean_output_tokens
    256.0
    """

    name: str
    rate_per_s: float
    trace: pd.DataFrame | None = field(default=None, repr=False)
    queries: pd.DataFrame | None = field(default=None, repr=False)
    num_requests: int = 4000
    burstiness: float = 1.0
    seed: int = 0
    _days: dict = field(default_factory=dict, repr=False, init=False)

    @classmethod
    def of_trace(cls, requests: pd.DataFrame, *, name: str = "the trace") -> "Demand":
        """Requests as they came: ``arrival_s``, sizes.

        Raises
        ------
        ValueError
            As :func:`~idealized_runtime.serving.requests.check_requests`; or they have no rate: there is one alone,
            or all come at once.
        """
        requests = check_requests(requests, name=name)
        rate = arrival_rate_per_s(requests)
        if not 0 < rate < np.inf:
            raise ValueError(
                f"{name}: {len(requests)} requests within 0 s have no rate to plan for; give sizes and a rate instead"
            )
        return cls(name, rate, trace=requests, num_requests=len(requests))

    @classmethod
    def of_queries(cls, queries: pd.DataFrame, *, rate_per_s: float, name: str = "the queries", **options) -> "Demand":
        """Queries of these sizes that come at random, a Poisson process unless ``burstiness`` says otherwise."""
        check_positive(rate_per_s=rate_per_s)
        return cls(name, float(rate_per_s), queries=queries, **options)

    @property
    def is_random(self) -> bool:
        """Whether its days differ."""
        return self.trace is None

    def at_rate(self, rate_per_s: float) -> "Demand":
        """The same at another rate."""
        check_positive(rate_per_s=rate_per_s)
        other = replace(self, rate_per_s=float(rate_per_s))
        # At every rate they are the same days.
        other._days.update(self._days)
        return other

    def day(self, number: int, *, num_replicas: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Arrivals in seconds, prompt and output tokens of the requests of a day; more of them for more replicas."""
        arrival_s, p, o = self._requests(number)
        if self.is_random:
            arrival_s, p, o = (values[: self.num_requests * num_replicas] for values in (arrival_s, p, o))
            return arrival_s / self.rate_per_s, p, o
        share = self.rate_per_s / arrival_rate_per_s(self.trace)
        places = np.random.default_rng(self.seed).random(len(p))
        # The last to go stays: of no request there is nothing to say.
        is_kept = places < max(share, np.nextafter(places.min(), 1))
        return arrival_s[is_kept] / max(share, 1.0), p[is_kept], o[is_kept]

    def _requests(self, number):
        """All requests of a day: at one a second where they are random, of a trace as they came."""
        number = number if self.is_random else 0
        if number not in self._days:
            if self.is_random:
                requests = random_requests(
                    self.queries, rate_per_s=1.0, num_requests=max(_MOST_REQUESTS, self.num_requests),
                    rng=[self.seed, number], burstiness=self.burstiness,
                )  # fmt: skip
            else:
                requests = self.trace
            self._days[number] = (
                seconds_from_first(requests), *(requests[name].to_numpy(np.int64) for name in TOKEN_COLUMNS)
            )  # fmt: skip
        return self._days[number]

    def alone(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same of requests that come so seldom that none meets another."""
        _, p, o = (values[: self.num_requests] for values in self._requests(0))
        return _SELDOM_S * np.arange(len(p)), p, o

    @property
    def mean_prompt_tokens(self) -> float:
        """Of a request."""
        return self._mean("num_prompt_tokens")

    @property
    def mean_output_tokens(self) -> float:
        """Of a request, the first one included."""
        return self._mean("num_output_tokens")

    @property
    def longest(self) -> int:
        """Tokens that the longest request leaves in the cache."""
        rows = self.trace if self.queries is None else self.queries.dropna(subset=TOKEN_COLUMNS)
        return int(rows[TOKEN_COLUMNS].sum(axis=1).max()) - 1

    def to_json(self) -> Mapping:
        """What it is, in numbers."""
        return {
            "name": self.name,
            "requests_per_s": self.rate_per_s,
            "is_random": self.is_random,
            "num_requests": self.num_requests,
            "mean_prompt_tokens": self.mean_prompt_tokens,
            "mean_output_tokens": self.mean_output_tokens,
        }

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the days at any rate, equal for demands of the same requests."""
        rows = self.trace if self.queries is None else self.queries
        columns = [name for name in ("arrival_s", *TOKEN_COLUMNS, "weight") if name in rows]
        text = rows[columns].to_numpy(float).tobytes() + repr((self.burstiness, self.seed, self.is_random)).encode()
        return sha256(text).hexdigest()

    def _mean(self, column):
        if not self.is_random:
            return float(self.trace[column].mean())
        known = self.queries.dropna(subset=TOKEN_COLUMNS)
        return float(np.average(known[column], weights=known.get("weight")))
