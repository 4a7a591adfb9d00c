"""How far beyond its training runs a scaling law is asked."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest

from idealized_runtime.cli.main import main
from idealized_runtime.lifetime import SCALING_LAWS, ModelSize, chinchilla_size, fit_scaling_law, get_scaling_law
from idealized_runtime.lifetime.fitted_range import FittedRange, LawRangeWarning
from idealized_runtime.lifetime.law_files import FittedLaw, read_law, write_law
from idealized_runtime.lifetime.scaling_law import COEFFICIENTS, ScalingLaw
from idealized_runtime.measurements.published import ROOT

RANGE = FittedRange((1e8, 1e10), (1e9, 1e12))


def test_size_within_the_runs_is_no_extrapolation():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not RANGE.check(optimal_size=ModelSize(1e8, 1e12))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (ModelSize(2e7, 1e10), r"the optimal size has 2e\+07 parameters; the law was fitted to 1e\+08 to 1e\+10"),
        (ModelSize(1e9, 1e13), r"the optimal size has 1e\+13 training tokens; the law was fitted to 1e\+09 to 1e\+12"),
    ],
)
def test_size_a_little_beyond_the_runs_is_warned_of(size, message):
    with pytest.warns(LawRangeWarning, match=message):
        assert RANGE.check(optimal_size=size)


@pytest.mark.parametrize("size", [ModelSize(0.9e6, 1e10), ModelSize(1.1e15, 1e10), ModelSize(1e9, 0.9e7)])
def test_size_far_beyond_the_runs_is_refused_with_the_range_allowed(size):
    with pytest.raises(ValueError, match=r"and is not asked beyond 1e\+0[67] to 1e\+1[57]: ask for a size nearer"):
        RANGE.check(optimal_size=size)


@pytest.mark.parametrize("name", SCALING_LAWS)
def test_published_laws_state_what_they_were_fitted_to_and_reach_the_compute_of_1e30(name):
    law = get_scaling_law(name)
    assert law.fitted_range.num_params == (7e7, 1.6e10)
    with pytest.warns(LawRangeWarning):
        law.fitted_range.check(chinchilla_size=chinchilla_size(law, training_flops=1e30))


def test_fitted_law_knows_its_runs_and_keeps_them_in_its_file(tmp_path):
    sizes = [(n, d) for n in (1e8, 1e9, 1e10) for d in (1e9, 1e10, 1e11)]
    runs = pd.DataFrame(sizes, columns=["num_params", "num_training_tokens"])
    law = get_scaling_law()
    fitted = fit_scaling_law(runs.assign(loss=law.loss(runs["num_params"], runs["num_training_tokens"]))).law
    assert fitted.fitted_range == FittedRange((1e8, 1e10), (1e9, 1e11))
    write_law(tmp_path / "law.json", FittedLaw(fitted))
    assert read_law(tmp_path / "law.json").law == fitted


def test_file_of_a_law_may_lack_its_runs(tmp_path):
    path = tmp_path / "law.json"
    path.write_text(json.dumps({"A": 400, "B": 400, "E": 1.7, "alpha": 0.34, "beta": 0.28}))
    assert read_law(path).law.fitted_range is None
    assert main(["lifetime", "compute-optimal", "--loss", "2", "--coefficients", str(path)]) == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("compute-optimal --loss 500", "the Chinchilla size has 5.6 parameters"),
        ("compute-optimal --loss 1.6901", "parameters; the law was fitted to 7e+07 to 1.6e+10"),
        ("compute-optimal --loss 2 --inference-tokens 1e40", "the optimal size has"),
        ("model --model 10 --data 1e10", "the model has 10 parameters"),
        ("cost --model 1e9 --data 1e20", "the model has 1e+20 training tokens"),
        (f"cost-optimal --loss 500 --parameters {ROOT}/processed_jsons/a100.json", "the guessed size has"),
    ],
)
def test_command_refuses_what_lies_far_beyond_the_runs(capsys, line, message):
    assert main(["lifetime", *line.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert "and is not asked beyond" in captured.err


def test_command_warns_of_what_lies_a_little_beyond_and_marks_it(capsys):
    assert main(["lifetime", "compute-optimal", "--loss", "1.947", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["is_extrapolated"] is True
    assert "compute-optimal: warning: the optimal size has 2.42e+10 parameters; the law was fitted to" in captured.err
    assert main(["lifetime", "compute-optimal", "--loss", "2.6", "--inference-tokens", "1e10", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["is_extrapolated"] is False
    assert captured.err == ""


def test_optimum_far_beyond_the_measured_models_is_refused(capsys):
    # 82 to 356 million parameters were timed; the optimum has some 250 times as many.
    cpu = f"--parameters {ROOT}/processed_jsons/cpu.json --inference-gpu-cost 0.1"
    assert main(f"lifetime cost-optimal --loss 1.85 --inference-reqs 1 {cpu}".split()) == 2
    assert (
        "the models whose cost is known have 8.19e+07 to 3.55e+08, and is not asked beyond" in capsys.readouterr().err
    )


def test_coefficient_beyond_all_of_its_draws_is_refused(tmp_path):
    law = get_scaling_law()
    draws = {name: getattr(law, name) * np.linspace(0.9, 1.1, 40) for name in COEFFICIENTS}
    write_law(tmp_path / "law.json", FittedLaw(law, ScalingLaw(**draws, source="draws")))
    data = json.loads((tmp_path / "law.json").read_text())
    (tmp_path / "law.json").write_text(json.dumps({**data, "alpha": 2 * data["alpha"]}))
    with pytest.raises(ValueError, match=r"alpha = .* lies beyond all of its draws"):
        read_law(tmp_path / "law.json")
