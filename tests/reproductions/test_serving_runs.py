import numpy as np
import pytest

from idealized_runtime.reproductions import serving_runs
from idealized_runtime.serving.accuracy import accuracy_table, forget_later
from idealized_runtime.serving.fitting import PublishedPoints, ServedRequests, fit_steps
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.serving.simulation import simulate

# Largest errors (%) of the means of the later half: to the first token, a token, to the end.
TARGETS = {"Llama-3.1-8B": (5, 2, 2.5), "Qwen3-30B-A3B-Instruct-2507": (15, 4, 5)}


@pytest.mark.parametrize("name", serving_runs.RUNS)
@pytest.mark.filterwarnings("ignore:run 0 was overloaded")
def test_later_half_of_a_published_run_is_predicted_from_the_earlier(name):
    requests, scheduler = serving_runs.read_serving_run(name)
    known, is_later = forget_later(requests)
    share = 8 / 128 if name.startswith("Qwen") else 0.0
    steps = fit_steps([ServedRequests(known, scheduler)], expert_share=share)
    errors = accuracy_table(requests[is_later], simulate(requests, steps)[is_later])
    assert np.all(np.abs(errors["mean_error_percent"]) <= TARGETS[name])
    assert errors.loc["E2E", "median_percent"] <= 5


@pytest.mark.filterwarnings("ignore:the fitted steps miss the times to the first token")
def test_published_points_tell_the_time_between_tokens():
    points = serving_runs.read_points("meta-llama/Llama-3.1-70B", hardware="h100_sxm", tensor_parallel_size=2)
    evidence = PublishedPoints(points, Scheduler())
    steps = fit_steps([evidence])
    rows = evidence.rows(steps)
    errors = rows.features[rows.kinds == 1] @ steps.coefficients / rows.seconds[rows.kinds == 1] - 1
    assert np.median(np.abs(errors)) < 0.065


def test_points_of_another_machine_list_those_there_are():
    serving_runs.read_points("meta-llama/Llama-3.1-70B", hardware="h100_sxm", tensor_parallel_size=2)
    with pytest.raises(
        ValueError, match=r"no point of meta-llama/Llama-3.1-70B on v100 with 2 devices; there are: .*H100 x 2"
    ):
        serving_runs.read_points("meta-llama/Llama-3.1-70B", hardware="v100", tensor_parallel_size=2)
