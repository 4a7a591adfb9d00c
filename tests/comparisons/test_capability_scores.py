import pytest

from idealized_runtime.architectures import ARCHITECTURES
from idealized_runtime.comparisons.capability_scores import CAPABILITY_SCORES, SCORES, capability_table


def test_every_score_is_of_a_model_of_the_registry_and_typed_once():
    assert set(CAPABILITY_SCORES) <= set(ARCHITECTURES)
    assert len(CAPABILITY_SCORES) == len(SCORES)


@pytest.mark.parametrize("row", SCORES, ids=lambda row: row.architecture_name)
def test_score_lies_between_guessing_and_certainty_and_has_a_source(row):
    assert 25 < row.mmlu_percent < 100
    assert row.source


@pytest.mark.parametrize("row", [row for row in SCORES if row.mmlu_pro_percent], ids=lambda row: row.architecture_name)
def test_harder_test_is_answered_worse_and_better_than_by_guessing(row):
    assert 10 < row.mmlu_pro_percent < row.mmlu_percent - 10


@pytest.mark.parametrize(
    "series", ["llama-2-", "llama-3.1-", "llama-3.2-", "qwen2.5-", "qwen3-", "gemma-3-", "olmo-2-", "deepseek-v"]
)
def test_larger_model_of_a_series_scores_higher(series):
    table = capability_table()
    # What a token visits is not what a mixture of experts knows: dense models and mixtures apart.
    dense = table[table.index.str.startswith(series) & (table["active_params_billion"] > 0.9 * table["params_billion"])]
    mixtures = table[table.index.str.startswith(series)].drop(dense.index)
    for models in (dense, mixtures):
        for score in ("mmlu_percent", "mmlu_pro_percent"):
            assert models.sort_values("params_billion")[score].dropna().is_monotonic_increasing


def test_table_has_the_sizes_that_are_counted():
    row = capability_table().loc["mixtral-8x7b"]
    assert row["params_billion"] == pytest.approx(46.7, abs=0.05)
    assert row["active_params_billion"] == pytest.approx(12.9, abs=0.05)
