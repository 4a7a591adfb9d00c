import pandas as pd
import pytest

from idealized_runtime.plots.style import style_models
from idealized_runtime.plots.tables import in_words, named_in_words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("runtime_s", "runtime (s)"),
        ("runtime_s_lower", "runtime (s), lower"),
        ("num_prompt_tokens", "prompt tokens"),
        ("tokens_per_s", "tokens a second"),
        ("cost_usd_per_1000_queries", "cost ($ per 1000 queries)"),
        ("mmlu_percent", "MMLU (%)"),
        ("num_accelerators_printed", "accelerators, printed"),
        ("Trials a setting", "Trials a setting"),
        (16, 16),
        (None, None),
    ],
)
def test_names_of_columns_are_words_with_units(name, words):
    assert in_words(name) == words


def test_tables_of_several_levels_are_named_too():
    index = pd.MultiIndex.from_tuples([("a", 1)], names=["model", "num_trials"])
    table = pd.DataFrame({"runtime_s": [1.0]}, index=index)
    named = named_in_words(table)
    assert list(named.columns) == ["runtime (s)"]
    assert list(named.index.names) == ["model", "trials"]


def test_twenty_models_have_a_look_of_their_own():
    looks = {tuple(style.values()) for style in style_models(map(str, range(20))).values()}
    assert len(looks) == 20
