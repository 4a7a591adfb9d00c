from functools import partial

import numpy as np
import pandas as pd
import pytest
from makers import PROMPT_TIMES_S, make_runtimes, make_trials

from idealized_runtime import RuntimeModel, read_parameters, write_parameters
from idealized_runtime.fits import FormulaModel, NoIntervalError, fit_by_name
from idealized_runtime.fits.formula import heteroscedasticity_test, influence_table

FORMULA = "runtime_s ~ C(num_prompt_tokens) + I(num_output_tokens - 1)"


@pytest.fixture
def noisy():
    return make_trials(np.random.default_rng(0), output_sizes=(1, 2, 4, 8, 16, 32))


def test_formula_of_the_runtime_model_gives_its_parameters_back():
    model = FormulaModel(FORMULA, make_runtimes())
    assert model.prompt_encoding_time_s(list(PROMPT_TIMES_S)) == pytest.approx(list(PROMPT_TIMES_S.values()))
    assert model.time_per_output_token_at([1, 512]) == pytest.approx([0.02, 0.02])
    assert model.r_squared == pytest.approx(1)
    assert model.residuals["relative_error"].abs().max() < 1e-9


def test_category_of_prompt_sizes_is_interpolated_and_goes_on_as_the_runtime_model_does():
    formula, ours = FormulaModel(FORMULA, make_runtimes()), RuntimeModel.fit(make_runtimes())
    p = np.array([1, 30, 64, 100, 320.5, 512])
    assert formula.predict(p, 9) == pytest.approx(ours.predict(p, 9))
    beyond = [513, 2000]
    assert formula.predict(beyond, 9, extrapolate=True) == pytest.approx(ours.predict(beyond, 9, extrapolate=True))
    with pytest.raises(ValueError, match=r"\[1, 512\], the profiled range; 1 of 1 lie outside"):
        formula.predict(513, 9)


def test_numeric_prompt_sizes_go_on_along_their_formula():
    model = FormulaModel("runtime_s ~ num_prompt_tokens * num_output_tokens", make_runtimes({1: 0.02, 512: 0.09}))
    assert model.predict(1024, 1, extrapolate=True) == pytest.approx(0.02 + 0.07 * 1023 / 511)


def test_category_of_one_prompt_size_predicts_no_other():
    model = FormulaModel("runtime_s ~ I(num_output_tokens - 1) + C(num_prompt_tokens) - 1", make_runtimes({64: 0.02}))
    assert model.predict(64, 3) == pytest.approx(0.06)
    with pytest.raises(ValueError, match="one prompt size was profiled, 64, so there is no line to go on along"):
        model.predict(65, 3, extrapolate=True)


@pytest.mark.parametrize("cov_type", ["nonrobust", "HC3"])
def test_interval_is_that_of_statsmodels(noisy, cov_type):
    model = FormulaModel(FORMULA, noisy, cov_type=cov_type)
    query = pd.DataFrame({"num_prompt_tokens": [64, 512], "num_output_tokens": [3, 9]})
    peer = model.results.get_prediction(query).summary_frame(alpha=0.1)
    p, o = query.to_numpy().T
    assert model.predict(p, o) == pytest.approx(peer["mean"].to_numpy())
    lower_s, upper_s = model.predict_interval(p, o, level=0.9)
    assert lower_s == pytest.approx(peer["mean_ci_lower"].to_numpy())
    assert upper_s == pytest.approx(peer["mean_ci_upper"].to_numpy())


def test_settings_that_leave_nothing_to_judge_by_have_no_interval():
    model = FormulaModel(FORMULA, make_runtimes({1: 0.02, 64: 0.03}, (1, 2)).iloc[[0, 2, 3]])
    assert np.isnan(model.standard_error(1, 1))
    with pytest.raises(NoIntervalError, match="as many coefficients as there are settings"):
        model.predict_interval(1, 1)


def test_weights_are_an_expression_of_the_settings(noisy):
    by_noise = FormulaModel(FORMULA, noisy, weights="num_trials / runtime_std_s ** 2")
    assert by_noise.results.model.weights == pytest.approx(10 / by_noise.settings["runtime_std_s"] ** 2)
    assert FormulaModel(FORMULA, noisy, weights="1").results.model.weights == pytest.approx(np.ones(24))


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("runtime ~ num_prompt_tokens", "must be of the form 'runtime_s ~ terms'; got 'runtime ~ num_prompt_tokens'"),
        ("num_prompt_tokens + num_output_tokens", "must be of the form"),
        ("runtime_s ~ ContextTokens", "may not say 'ContextTokens'; it may say C, .*num_prompt_tokens"),
        ("runtime_s ~ C(num_prompt_tokens", "cannot be read"),
        ("runtime_s ~ num_prompt_tokens +", "cannot be fitted: expected a noun"),
        ("runtime_s ~ C(num_prompt_tokens) * C(num_output_tokens) + num_output_tokens", "settings tell only .* apart"),
        ("runtime_s ~ C(num_prompt_tokens) + C(num_output_tokens)", "predicts no queries of such sizes: .*1.5"),
        ("runtime_s ~ __import__('os').system('true')", "may not say '__import__'"),
        ("runtime_s ~ num_prompt_tokens.__class__", "may not say '__class__'"),
        ("runtime_s ~ np.load(num_prompt_tokens)", "may not say 'load'"),
        ("runtime_s ~ Q('num_prompt_tokens')", "may not say 'Q'"),
    ],
)
def test_formula_that_cannot_be_fitted_or_says_other_words_is_refused(formula, message):
    with pytest.raises(ValueError, match=message):
        FormulaModel(formula, make_runtimes())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("1 / runtime", "weights may not say 'runtime'"),
        ("runtime_s - 1", "weights must be a positive finite number; got -0.98"),
        ("1 / runtime_std_s", "weights must be a positive finite number; got nan"),
        ("1 /", "cannot be fitted: invalid syntax"),
    ],
)
def test_weights_that_are_none_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        FormulaModel(FORMULA, make_runtimes(), weights=weights)


def test_formula_is_a_fit_and_restored_from_a_parameter_file(tmp_path, noisy):
    for fit in (partial(FormulaModel, FORMULA), fit_by_name(FORMULA)):
        write_parameters(tmp_path / "1.json", {"a": fit(noisy.assign(batch_size=8))})
        restored = read_parameters(tmp_path / "1.json")["a"]
        assert restored.formula == FORMULA
        assert restored.batch_size == 8
        assert restored.predict(100, 3) == fit(noisy).predict(100, 3)


def test_diagnostics_find_the_setting_that_is_off(noisy):
    noisy.loc[noisy.query("num_prompt_tokens == 128 and num_output_tokens == 8").index, "runtime_s"] *= 1.2
    table = influence_table(FormulaModel(FORMULA, noisy))
    assert len(table) == 24
    assert table["leverage"].sum() == pytest.approx(5)
    worst = table.loc[table["studentized_residual"].abs().idxmax()]
    assert (worst["num_prompt_tokens"], worst["num_output_tokens"]) == (128, 8)
    assert worst["cooks_distance"] == table["cooks_distance"].max()


def test_scatter_that_grows_with_runtime_is_found_where_weights_leave_it_out():
    rng = np.random.default_rng(1)
    noisy = make_trials(rng, noise=0.05, num_trials=2, output_sizes=tuple(range(1, 60, 3)))
    p_values = [
        heteroscedasticity_test(FormulaModel(FORMULA, noisy, weights=weights))["lm_p_value"]
        for weights in ("1", "1 / runtime_s ** 2")
    ]
    assert p_values[0] < 0.01 < p_values[1]
