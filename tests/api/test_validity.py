import re

import numpy as np
import pandas as pd
import pytest
from makers import make_requests

from idealized_runtime.api.validity import check_load, check_sweep, required_requests
from idealized_runtime.statistics.unimodality import _SCALED_CRITICAL_DIPS, _SIZES, critical_dip, dip_statistic

# Ages of a statistics faculty; R's package diptest gives their dip as 0.05952381.
FACULTY = [
    30, 33, 35, 36, 37, 37, 39, 39, 39, 39, 39, 40, 40, 40, 40, 41, 42, 43, 43, 43, 44, 44, 45, 45, 46, 47, 47, 47, 48,
    48, 48, 49, 50, 50, 51, 52, 52, 53, 53, 53, 53, 53, 54, 54, 57, 57, 59, 60, 60, 60, 61, 61, 61, 61, 62, 62, 62, 62,
    63, 66, 70, 72, 72,
]  # fmt: skip


def checks(requests, **options):
    return set(check_load(requests, **options)["check"])


def noisy(num_requests=400, *, seed=0, scale=0.1):
    return np.exp(np.random.default_rng(seed).normal(0, scale, num_requests))


def test_sound_measurement_has_no_finding():
    assert check_load(make_requests(noisy())).empty


@pytest.mark.parametrize("seed", range(5))
def test_skewed_times_of_one_population_have_no_finding(seed):
    assert checks(make_requests(1 + np.random.default_rng(seed).exponential(size=400))) <= {"drift"}


def test_few_requests_for_the_99th_percentile_are_named():
    table = check_load(make_requests(noisy(100)))
    assert table["message"].tolist() == ["p99 of 100 requests has no upper bound: it takes 368"]
    assert checks(make_requests(noisy(368))) == set()


def test_required_requests_follow_from_the_percentile():
    assert [required_requests(percentile) for percentile in (50, 90, 99)] == [6, 36, 368]


def test_rising_runtimes_are_a_drift():
    table = check_load(make_requests(noisy() * np.linspace(1, 1.5, 400)))
    assert table["check"].tolist() == ["drift", "drift"]
    assert "TTFT rises by" in table["message"][0]
    # By 44 % between the middles of the first and the last tenth.
    assert re.match(r"runtime rises by (3[5-9]|4\d|50)% ", table["message"][1])


def test_drift_is_seen_from_the_sending_time_and_not_from_the_order_of_rows():
    requests = make_requests(noisy() * np.linspace(1, 1.5, 400))
    assert "drift" in checks(requests.sample(frac=1, random_state=0))


def test_difference_between_repetitions_is_no_drift():
    later = make_requests(2 * noisy(seed=1), repetition=1)
    later["sent_at"] += pd.Timedelta(hours=1)
    assert "drift" not in checks(pd.concat([make_requests(noisy(), repetition=0), later]))


def test_drift_of_constant_runtimes_is_found_about_as_rarely_as_its_level_says():
    found = sum("drift" in checks(make_requests(noisy(100, seed=seed))) for seed in range(80))
    # 0.8 are expected at 1 % of each of two times, which here are the same; 5 are beyond 99.5 %.
    assert found < 5


def test_two_populations_are_described():
    runtimes_s = noisy() * np.where(np.arange(400) % 4 == 0, 5.0, 1.0)
    (message,) = check_load(make_requests(runtimes_s, time_to_first_token_s=np.nan))["message"]
    assert "runtime has two peaks: 75% of requests take about 0.995 s, 25% about 4.96 s" in message


def test_requests_of_two_sizes_are_not_two_populations():
    sizes = np.where(np.arange(400) % 2, 8, 64)
    requests = make_requests(noisy() * sizes, num_output_tokens=sizes)
    assert checks(requests, by=["model"]) == set()


def test_failures_are_counted():
    requests = make_requests(noisy(), is_fit=[False] * 3 + [True] * 397)
    assert "3 of 400 requests failed or deviate" in check_load(requests)["message"][0]


def test_deviations_are_counted_by_setting_with_the_commonest():
    odd = ["7 output tokens reported"] * 2 + ["9 output tokens reported"] + [""] * 397
    requests = make_requests(noisy(), deviations=odd, is_fit=[not text for text in odd])
    message = check_load(requests)["message"][0]
    assert message.startswith("3 of 400 requests failed or deviate")
    assert "p=8 o=4 (3 of 400: 7 output tokens reported)" in message


def test_streams_that_were_held_back_are_a_finding():
    is_held = np.arange(400) < 30
    requests = make_requests(noisy(), is_held_back=is_held, notes=np.where(is_held, "held back on the way: x", ""))
    (message,) = check_load(requests)["message"]
    assert message.startswith("30 of 400 answers were held back on their way")
    assert "(held back on the way: x)" in message


@pytest.mark.parametrize(("change", "is_found"), [(1.0, False), (1.5, True)])
def test_drift_of_a_sweep_is_seen_over_its_settings_together(change, is_found):
    sizes = np.tile([8, 64, 512], 20)
    runtimes_s = noisy(60, scale=0.02) * np.linspace(1, change, 60) * sizes
    found = check_sweep(make_requests(runtimes_s, num_output_tokens=sizes, time_to_first_token_s=np.nan))
    assert any(sentence.startswith("drift: runtime rises by") for sentence in found) == is_found
    assert len(found) == is_found


def test_group_of_failures_only_has_one_finding():
    assert checks(make_requests([1.0, 1.0], is_fit=False)) == {"failures"}


def test_requests_sent_late_are_a_fault_of_the_client():
    requests = make_requests(noisy())
    on_time = requests.assign(scheduled_at=requests["sent_at"] - pd.Timedelta(milliseconds=2))
    assert checks(on_time) == set()
    late = requests.assign(scheduled_at=requests["sent_at"] - pd.Timedelta(milliseconds=200))
    assert "0.2 s or more after its time, 20% of the median" in check_load(late)["message"][0]


def test_dip_is_that_of_the_reference_implementation():
    jittered = np.array(FACULTY) + np.linspace(0, 1e-9, len(FACULTY))
    assert dip_statistic(jittered) == pytest.approx(0.05952381, abs=1e-6)


def test_dip_of_two_far_groups_is_a_quarter():
    assert dip_statistic(np.concatenate([np.linspace(0, 1e-3, 500), np.linspace(1, 1.001, 500)])) == pytest.approx(
        0.25, abs=2e-3
    )


def test_dip_of_evenly_spaced_values_is_the_least_possible():
    assert dip_statistic(np.arange(100)) == pytest.approx(1 / 200)


def test_dip_does_not_change_with_scale_or_sign():
    values = np.random.default_rng(0).normal(size=80)
    assert dip_statistic(3 - 7 * values) == pytest.approx(dip_statistic(values))


def test_critical_dips_are_exceeded_by_one_percent_of_uniform_samples():
    rng = np.random.default_rng(3)
    exceeded = sum(dip_statistic(rng.random(60)) > critical_dip(60) for _ in range(1500))
    # 15 expected.
    assert 4 <= exceeded <= 30
    assert len(_SIZES) == len(_SCALED_CRITICAL_DIPS)
