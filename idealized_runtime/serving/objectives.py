"""Objectives on what requests wait for, and the workloads that others plan for, with theirs."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from idealized_runtime.checks import check_positive, did_you_mean
from idealized_runtime.records import TOKEN_COLUMNS
from idealized_runtime.serving.simulation import METRICS

# What simulated days keep of each metric, the mean first.
PERCENTILES = (*map(float, range(1, 100)), 99.5, 99.9)
STATISTICS = ("mean", *(f"p{percentile:g}" for percentile in PERCENTILES))
_PATTERN = re.compile(r"\s*(?P<metric>[^:=]*?)\s*:\s*(?P<statistic>[^:=]*?)\s*=\s*(?P<seconds>[^:=]*?)\s*")


@dataclass(frozen=True)
class Objective:
    """A time that a statistic over all requests may take.

    Parameters
    ----------
    metric : {"ttft_s", "tpot_s", "e2e_s"}
    statistic : str
        Of ``STATISTICS``: ``mean``, ``p1`` to ``p99``, ``p99.5``, ``p99.9``.
    seconds : float

    Raises
    ------
    ValueError
        One is not what it should be; the message says what is.
    """

    metric: str
    statistic: str
    seconds: float

    def __post_init__(self):
        if self.metric not in METRICS:
            names = [name.removesuffix("_s") for name in METRICS]
            given = self.metric.removesuffix("_s")
            raise ValueError(f"an objective is on one of {', '.join(names)}{did_you_mean(given, names)}; got {given!r}")
        if self.statistic not in STATISTICS:
            raise ValueError(
                f"an objective holds for the mean or a percentile, p1 to p99, p99.5 or p99.9; got {self.statistic!r}"
            )
        check_positive(seconds=self.seconds)

    @classmethod
    def parse(cls, text: str) -> "Objective":
        """The objective of a text such as ``ttft:p95=0.5``.

        Raises
        ------
        ValueError
            It does not have this form, or one of its parts is none.
        """
        parts = _PATTERN.fullmatch(text)
        try:
            metric, statistic, seconds = parts["metric"].lower(), parts["statistic"].lower(), float(parts["seconds"])
        except (TypeError, ValueError):
            raise ValueError(
                f"an objective is METRIC:STATISTIC=SECONDS, such as ttft:p95=0.5 or e2e:mean=10; got {text!r}"
            ) from None
        return cls(f"{metric}_s", statistic, seconds)

    @property
    def label(self) -> str:
        """The objective in words, such as ``TTFT p95 <= 0.5 s``."""
        return f"{METRICS[self.metric]} {self.statistic} <= {self.seconds:g} s"

    def __str__(self):
        # As short as says these very seconds.
        short = f"{self.seconds:g}"
        seconds = short if float(short) == self.seconds else repr(self.seconds)
        return f"{self.metric.removesuffix('_s')}:{self.statistic}={seconds}"

    def value_s(self, statistics: np.ndarray) -> float:
        """What is to stay within it: seconds, of ``statistics`` of shape (metrics, statistics)."""
        return float(statistics[list(METRICS).index(self.metric), STATISTICS.index(self.statistic)])


def exceedance(objectives: Iterable[Objective], statistics: np.ndarray) -> float:
    """Logarithm of the time over what is allowed, of the objective that is missed most or met least.

    Not above 0 where all are met. NaN where a metric has no value: answers of one token have no TPOT.
    """
    return max(float(np.log(objective.value_s(statistics) / objective.seconds)) for objective in objectives)


@dataclass(frozen=True)
class Workload:
    """What somebody plans for: objectives and, where the source states them, sizes.

    Parameters
    ----------
    name : str
    objectives : tuple of Objective
    source : str
    num_prompt_tokens, num_output_tokens : int, optional
    """

    name: str
    objectives: tuple[Objective, ...]
    source: str
    num_prompt_tokens: int | None = None
    num_output_tokens: int | None = None

    @property
    def queries(self) -> pd.DataFrame:
        """A query of its sizes.

        Raises
        ------
        ValueError
            Its source states none.
        """
        sizes = {name: getattr(self, name) for name in TOKEN_COLUMNS}
        if None in sizes.values():
            raise ValueError(
                f"workload {self.name} has objectives alone, its source states no sizes: give --queries, or --requests"
            )
        return pd.DataFrame([sizes])


_LLM_D = (
    "llm-d Planner, usecase_slo_workload.json, commit ed2142fb: sizes as there, the longest of the times it accepts, "
    "its percentile"
)
_MLPERF = "MLPerf Inference 5.1 (2025-09), datacenter server rules: 99 % of the queries"


def _workload(name, source, *objectives, sizes=(None, None)):
    return Workload(name, tuple(map(Objective.parse, objectives)), source, *sizes)


WORKLOADS = {
    workload.name: workload
    for workload in (
        _workload("chat", _LLM_D, "ttft:p95=0.5", "tpot:p95=0.05", "e2e:p95=13.3", sizes=(512, 256)),
        _workload("code-completion", _LLM_D, "ttft:p95=0.2", "tpot:p95=0.035", "e2e:p95=9.16", sizes=(512, 256)),
        _workload("retrieval", _LLM_D, "ttft:p95=1.2", "tpot:p95=0.06", "e2e:p95=40", sizes=(4096, 512)),
        _workload("long-summary", _LLM_D, "ttft:p95=3", "tpot:p95=0.07", "e2e:p95=110.52", sizes=(10240, 1536)),
        _workload("mlperf-llama2-70b", _MLPERF, "ttft:p99=2", "tpot:p99=0.2"),
        _workload("mlperf-llama2-70b-interactive", _MLPERF, "ttft:p99=0.45", "tpot:p99=0.04"),
        _workload("mlperf-llama3.1-8b", _MLPERF, "ttft:p99=2", "tpot:p99=0.1"),
        _workload("mlperf-llama3.1-8b-interactive", _MLPERF, "ttft:p99=0.5", "tpot:p99=0.03"),
        _workload("mlperf-llama3.1-405b", _MLPERF, "ttft:p99=6", "tpot:p99=0.175"),
    )
}


def get_workload(name: str) -> Workload:
    """A workload by its name.

    Raises
    ------
    ValueError
        There is none of this name; the message has the nearest, and lists all.
    """
    if name not in WORKLOADS:
        raise ValueError(f"no workload {name!r}{did_you_mean(name, WORKLOADS)}; there are: {', '.join(WORKLOADS)}")
    return WORKLOADS[name]
