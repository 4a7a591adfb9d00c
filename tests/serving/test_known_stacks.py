import json

import numpy as np
import pytest

from idealized_runtime.hardware.accelerators import get_accelerator
from idealized_runtime.measurements.ml_energy import read_ml_energy
from idealized_runtime.measurements.points import usable_points
from idealized_runtime.serving.known_stacks import (
    QUANTITIES,
    KnownStack,
    fit_known_stack,
    get_known_stack,
    known_stacks,
)


def test_shipped_stack_is_what_the_published_points_give():
    (shipped,) = known_stacks()
    again = json.loads(json.dumps(fit_known_stack(usable_points(read_ml_energy()), shipped.hardware).to_json()))
    entry = json.loads(json.dumps(shipped.to_json()))
    assert again.keys() == entry.keys()
    for name in ("times", "prompt_times", "watts", "watts_standard_errors"):
        assert again[name] == pytest.approx(entry[name], rel=1e-6, abs=1e-18)
    assert (again["seen"], again["served"]) == (entry["seen"], entry["served"])
    for of_one, of_other in [(again, entry), *zip(again["moved_errors"], entry["moved_errors"], strict=True)]:
        for quantity in QUANTITIES:
            values = of_one["errors"][quantity]
            assert values.keys() == of_other["errors"][quantity].keys()
            for architecture, errors in values.items():
                assert errors == pytest.approx(of_other["errors"][quantity][architecture], abs=2e-3)


def test_intervals_hold_what_other_architectures_do_not_know():
    """Of each architecture, within a half width that its own errors do not tell; on H100, and taken to B200."""
    known = get_known_stack("vllm")
    for name in ("H100", "B200"):
        machine = get_accelerator(name)
        for quantity in QUANTITIES:
            errors = known.errors if name == "H100" else known.moved_errors["H100", name]
            held = [
                np.abs(values) <= known.half_width(machine, quantity, without=architecture)
                for architecture, values in errors[quantity].items()
            ]
            # With the wider errors of the move back, too.
            most = 0.98 if name == "H100" else 1.0
            assert 0.9 <= np.concatenate(held).mean() <= most, (name, quantity)


def test_other_machines_have_the_errors_of_both_moves():
    known = get_known_stack("vllm")
    widths = [known.half_width(get_accelerator(name), "steps") for name in ("H100", "B200", "L40S")]
    assert 2 * widths[0] < widths[1] == widths[2]
    assert set(known.moved_errors) == {("H100", "B200"), ("B200", "H100")}


def test_engine_is_known_by_the_beginning_of_its_name():
    assert get_known_stack("vLLM") is get_known_stack("vllm 0.11.1") is known_stacks()[0]
    with pytest.raises(ValueError, match=r"no engine 'vlm' .*there are: vllm 0\.11\.1 on H100"):
        get_known_stack("vlm")
    with pytest.raises(ValueError, match="no engine ''"):
        get_known_stack("")


def test_stack_comes_back_from_its_file():
    known = get_known_stack("vllm")
    assert KnownStack.from_json(json.loads(json.dumps(known.to_json()))).to_json() == known.to_json()


def test_level_beyond_what_the_left_out_points_tell_is_refused():
    known, machine = get_known_stack("vllm"), get_accelerator("H100")
    errors = np.abs(np.concatenate([*known.errors["prompts"].values()]))
    most = len(errors) / (len(errors) + 1)
    assert known.half_width(machine, "prompts", most - 1e-6) == errors.max()
    with pytest.raises(ValueError, match=rf"level must be at most 0\.9\d*, since {len(errors)} left-out points"):
        known.half_width(machine, "prompts", most + 1e-6)
