import numpy as np
import pytest

from idealized_runtime.hardware.accelerators import get_accelerator
from idealized_runtime.measurements.ml_energy import ASSUMED_PROMPT_TOKENS, read_ml_energy
from idealized_runtime.measurements.points import usable_points
from idealized_runtime.serving.power import (
    WATTS,
    fit_power,
    joules_per_query,
    leave_out_joules,
    mean_step_s,
    nameplate_table,
)
from idealized_runtime.serving.served_work import work_of_points

TRUE_WATTS = np.array([250.0, 60.0, 120.0, 90.0, 150.0, 500.0])


@pytest.fixture(scope="module")
def published():
    points = usable_points(read_ml_energy())
    points = points[points["hardware"] == "H100"]
    return points, work_of_points(points, num_prompt_tokens=ASSUMED_PROMPT_TOKENS)


@pytest.fixture(scope="module")
def generated(published):
    """The published steps, at watts that are a line in their shares."""
    points, work = published
    h100, step_s = get_accelerator("H100"), mean_step_s(points)
    rates = [
        work[name] / step_s / h100.memory_bandwidth_bytes_per_s
        for name in ("weight_bytes", "mean_expert_bytes", "cache_bytes")
    ]
    shares = [1 + 0 * step_s, 1 / points["num_accelerators"], *rates, work["flops"] / step_s / 989e12]
    watts = points["num_accelerators"] * sum(true * share for true, share in zip(TRUE_WATTS, shares, strict=True))
    return points.assign(power_watts=watts), work


def test_watts_are_recovered(generated):
    power = fit_power(*generated)
    assert [power.watts[name] for name in WATTS] == pytest.approx(TRUE_WATTS, rel=1e-3)
    assert np.all(np.array(list(power.standard_errors.values())) < 1)
    points, work = generated
    is_counted = work["layers"].notna()
    predicted = power.predict(
        work[is_counted], mean_step_s(points)[is_counted], points.loc[is_counted, "num_accelerators"]
    )
    assert predicted == pytest.approx((points["power_watts"] / points["num_accelerators"])[is_counted], rel=1e-3)


def test_interval_of_a_coefficient_ends_at_zero(published):
    table = fit_power(*published).table()
    assert (table["lower"] >= 0).all()
    assert (table["lower"] <= table["value"]).all()
    assert (table["value"] <= table["upper"]).all()


def test_joules_of_left_out_architectures(published):
    table = leave_out_joules(*published).table()
    assert table["median_percent"].item() <= 11
    assert 90 <= table["covered_percent"].item() <= 98


def test_joules_of_an_architecture_never_tell_of_itself(published):
    points, work = published
    is_own = work["architecture"] == "llama-3.1-70b"
    changed = points.assign(power_watts=points["power_watts"].where(~is_own, points["power_watts"] / 2))
    before, after = (leave_out_joules(table, work).rows["predicted_joules"] for table in (points, changed))
    assert (before == after)[is_own[before.index]].all()
    assert (before != after)[~is_own[before.index]].any()


def test_joules_of_a_query_are_those_of_its_tokens(published):
    left_out = leave_out_joules(*published)
    joules = joules_per_query(left_out, 500)
    assert joules["joules"].to_numpy() == pytest.approx(500 * left_out.rows["predicted_joules"].to_numpy())
    assert (joules["joules_lower"] < joules["joules"]).all()
    assert (joules["joules_upper"] > joules["joules"]).all()


def test_nameplate_overstates_joules_most_at_small_batches():
    table = nameplate_table(usable_points(read_ml_energy()))
    assert table["median"].round(2).to_dict() == {
        "(0.0, 8.0]": 1.57, "(8.0, 16.0]": 1.48, "(16.0, 32.0]": 1.39, "(32.0, 64.0]": 1.3, "(64.0, 128.0]": 1.26,
        "(128.0, 256.0]": 1.18, "(256.0, inf]": 1.24, "all": 1.35,
    }  # fmt: skip
    assert table["num_points"].iloc[:-1].sum() == table.loc["all", "num_points"]


def test_points_of_two_machines_are_refused():
    points = usable_points(read_ml_energy())
    with pytest.raises(ValueError, match=r"watts are of one machine; points are of (B200, H100|H100, B200)"):
        fit_power(points, work_of_points(points))


def test_watts_of_another_machine_go_by_the_maxima_of_the_data_sheets(published):
    power = fit_power(*published)
    b200 = power.moved_to(get_accelerator("B200"))
    assert b200.accelerator.name == "B200"
    assert b200.watts["base_watts"] == pytest.approx(power.watts["base_watts"] * 1000 / 700)
    with pytest.raises(ValueError, match="maximum power of H100 or GB300 is not known"):
        power.moved_to(get_accelerator("GB300"))


def test_joules_of_another_machine_are_told_by_the_data_sheets(published):
    """Without the architecture at the origin; by more than on the machine itself, yet not by a multiple."""
    points = usable_points(read_ml_energy())
    points = points[points["hardware"] == "B200"]
    there = points, work_of_points(points, num_prompt_tokens=ASSUMED_PROMPT_TOKENS)
    moved = leave_out_joules(*published, moved=there)
    assert moved.rows.index.isin(points.index).all()
    assert moved.table()["median_percent"].item() <= 30
    watts = (moved.rows["predicted_watts"] / moved.rows["watts"] - 1).abs()
    assert watts.median() <= 0.2
