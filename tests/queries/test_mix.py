import numpy as np
import pandas as pd
import pytest

from idealized_runtime.checks import MissingValueWarning
from idealized_runtime.queries.mix import QueryMix


def test_weights_become_shares():
    np.testing.assert_allclose(QueryMix([10, 20], [1, 2], [3, 1]).weights, [0.75, 0.25])


def test_sizes_without_weights_count_alike():
    mix = QueryMix([10, 20, 60], [1, 2, 3])
    assert (mix.mean_prompt_tokens, mix.mean_output_tokens) == pytest.approx((30, 2))


@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.0, 2.0])
def test_lognormal_mix_has_exactly_the_means_given(sigma):
    mix = QueryMix.lognormal(512, 64.5, prompt_sigma=sigma, output_sigma=sigma)
    assert (mix.mean_prompt_tokens, mix.mean_output_tokens) == pytest.approx((512, 64.5), rel=1e-12)
    assert mix.num_prompt_tokens.min() >= 1


def test_lognormal_mix_has_the_spread_of_a_sample():
    sigma = 0.6
    mix = QueryMix.lognormal(101, 1, prompt_sigma=sigma, output_sigma=0)
    sample = 1 + np.random.default_rng(0).lognormal(np.log(100) - sigma**2 / 2, sigma, 200_000)
    expected = np.quantile(sample, [0.1, 0.5, 0.9])
    np.testing.assert_allclose(np.quantile(mix.num_prompt_tokens, [0.1, 0.5, 0.9], method="hazen"), expected, rtol=0.03)
    assert mix.num_prompt_tokens.std() == pytest.approx(sample.std(), rel=0.08)


def test_equal_queries_become_one_size():
    queries = pd.DataFrame({"num_prompt_tokens": [5, 5, 9], "num_output_tokens": [2, 2, 1], "weight": [1.0, 2.0, 1.0]})
    mix = QueryMix.from_queries(queries)
    np.testing.assert_allclose(
        [mix.num_prompt_tokens, mix.num_output_tokens, mix.weights], [[5, 9], [2, 1], [0.75, 0.25]]
    )


def test_queries_without_token_counts_are_left_out_and_counted():
    queries = pd.DataFrame({"num_prompt_tokens": [5, np.nan, 7], "num_output_tokens": [2, 2, 0]})
    with pytest.warns(MissingValueWarning, match="2 of 3 rows lack token counts"):
        assert QueryMix.from_queries(queries).mean_prompt_tokens == 5


def test_csv_is_read_with_its_weights(tmp_path):
    path = tmp_path / "demand.csv"
    path.write_text("num_prompt_tokens,num_output_tokens,weight\n100,10,3\n200,20,1\n")
    assert QueryMix.read(path).mean_prompt_tokens == 125


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p,o\n1,2\n", "no column num_prompt_tokens, num_output_tokens; needed: .*; there are: p, o"),
        ("num_prompt_tokens,num_output_tokens\nmany,2\n", "column num_prompt_tokens must hold numbers"),
        ("num_prompt_tokens,num_output_tokens,weight\n5,2,-1\n5,3,2\n", "weights must be finite, not negative"),
        ("num_prompt_tokens,num_output_tokens,weight\n5,2,\n5,3,2\n", "weights must be finite"),
    ],
)
def test_fault_of_a_csv_is_named_with_its_path(tmp_path, text, message):
    path = tmp_path / "demand.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"demand.csv: .*{message}"):
        QueryMix.read(path)


@pytest.mark.filterwarnings("ignore::idealized_runtime.checks.MissingValueWarning")
def test_frame_without_a_usable_query_is_refused():
    with pytest.raises(ValueError, match="no query with at least one prompt and one output token among 1 rows"):
        QueryMix.from_queries(pd.DataFrame({"num_prompt_tokens": [0], "num_output_tokens": [1]}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5], [1]), r"num_prompt_tokens must be .* at least 1; got \[0.5\]"),
        (([5], [np.nan]), r"num_output_tokens must be .* at least 1; got \[nan\]"),
        (([5, 6], [1]), r"got arrays of \[\(2,\), \(1,\), \(2,\)\]"),
        (([5, 6], [1, 1], [0, 0]), "not all zero; got 0, 0"),
    ],
)
def test_impossible_mix_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        QueryMix(*arguments)


@pytest.mark.parametrize(
    ("mean", "sigma", "message"), [(0.5, 1, "mean_prompt_tokens .* got 0.5"), (9, -1, "sigma .* got -1")]
)
def test_impossible_lognormal_is_refused(mean, sigma, message):
    with pytest.raises(ValueError, match=message):
        QueryMix.lognormal(mean, 10, prompt_sigma=sigma)
