import numpy as np
import pytest

from idealized_runtime.serving.objectives import STATISTICS, WORKLOADS, Objective, exceedance, get_workload


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ttft:p95=0.5", ("ttft_s", "p95", 0.5)),
        (" E2E : mean = 10 ", ("e2e_s", "mean", 10.0)),
        ("tpot:p99.9=5e-2", ("tpot_s", "p99.9", 0.05)),
    ],
)
def test_objective_is_read_from_its_text(text, expected):
    objective = Objective.parse(text)
    assert (objective.metric, objective.statistic, objective.seconds) == expected
    assert Objective.parse(str(objective)) == objective


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ttft=0.5", r"METRIC:STATISTIC=SECONDS, such as ttft:p95=0\.5"),
        ("ttft:p95=fast", "METRIC:STATISTIC=SECONDS"),
        ("ttfb:p95=0.5", r"one of ttft, tpot, e2e \(did you mean ttft\?\); got 'ttfb'"),
        ("ttft:p100=0.5", r"mean or a percentile, p1 to p99, p99\.5 or p99\.9; got 'p100'"),
        ("ttft:median=0.5", "mean or a percentile"),
        ("ttft:p95=0", "seconds must be a positive finite number"),
        ("ttft:p95=-1", "seconds must be a positive finite number"),
        ("ttft:p95=nan", "seconds must be a positive finite number"),
        ("ttft:p95=inf", "seconds must be a positive finite number"),
    ],
)
def test_text_that_is_no_objective_is_refused_in_words(text, message):
    with pytest.raises(ValueError, match=message):
        Objective.parse(text)


def test_exceedance_is_that_of_the_objective_that_is_missed_most():
    times = np.ones((3, len(STATISTICS)))
    met, missed = Objective.parse("ttft:p95=2"), Objective.parse("e2e:mean=0.5")
    assert exceedance([met], times) == pytest.approx(-np.log(2))
    assert exceedance([met, missed], times) == pytest.approx(np.log(2))


def test_workloads_name_their_sources_and_have_objectives():
    assert {"chat", "code-completion", "retrieval", "long-summary"} <= set(WORKLOADS)
    for workload in WORKLOADS.values():
        assert workload.source
        assert workload.objectives
    with pytest.raises(ValueError, match=r"no workload 'chatt' \(did you mean chat\?\); there are: chat"):
        get_workload("chatt")
