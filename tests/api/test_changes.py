import numpy as np
import pandas as pd
import pytest

from idealized_runtime.api.changes import compare_parameters, compare_sweeps, compare_with_history, power_of_sweeps
from idealized_runtime.reproductions.paper.api_runtimes import read_runtimes_over_time

SIZES = [(p, o) for p in (1, 128, 512) for o in (1, 16, 64)]


def make_sweep(seed, *, factor=1.0, g_s=0.01, prompt_s=0.1, num_blocks=10, block_scale=0.0, delay_s=0.0):
    """Trials of nine settings, ten blocks: 2 % jitter a trial, ``block_scale`` shared by a block, some delayed."""
    rng = np.random.default_rng(seed)
    rows = []
    for block in range(num_blocks):
        disturbance = np.exp(rng.normal(0, block_scale)) if block_scale else 1.0
        for p, o in SIZES:
            runtime_s = (prompt_s + p * 1e-4 + (o - 1) * g_s) * np.exp(rng.normal(0, 0.02)) * disturbance * factor
            runtime_s += delay_s * rng.exponential() * (rng.random() < 0.3)
            rows.append((p, o, block, block, runtime_s))
    columns = ["num_prompt_tokens", "num_output_tokens", "block", "trial", "runtime_s"]
    return pd.DataFrame(rows, columns=columns).assign(model="tiny", is_fit=True)


def overall(table):
    return table[table["num_prompt_tokens"].isna()].squeeze()


def test_change_of_all_settings_is_found_with_its_size():
    row = overall(compare_sweeps(make_sweep(0), make_sweep(1, factor=1.05)))
    assert row["is_changed"]
    assert row["change_percent"] == pytest.approx(5, abs=1)
    assert row["change_percent_lower"] < 5 < row["change_percent_upper"]
    assert (row["num_earlier"], row["num_later"]) == (10, 10)


def test_unchanged_sweeps_are_called_changed_as_rarely_as_the_level_says():
    tables = [compare_sweeps(make_sweep(2 * seed), make_sweep(2 * seed + 1)) for seed in range(40)]
    # 2 of 40 are expected, and more than 6 with a probability of less than 1 %.
    assert sum(overall(table)["is_changed"] for table in tables) <= 6
    # Holm holds the probability of any false change among the settings.
    assert sum(table["is_changed"][1:].any() for table in tables) <= 6


def test_disturbance_that_a_block_shares_is_no_change():
    # 90 trials a sweep hang on 10 blocks: a test that counted trials would call most of these changed.
    pairs = [(make_sweep(2 * seed, block_scale=0.1), make_sweep(2 * seed + 1, block_scale=0.1)) for seed in range(25)]
    assert sum(overall(compare_sweeps(*pair))["is_changed"] for pair in pairs) <= 5


def test_change_of_one_setting_is_found_in_its_row_only():
    later = make_sweep(1)
    later.loc[(later["num_prompt_tokens"] == 512) & (later["num_output_tokens"] == 64), "runtime_s"] *= 1.3
    table = compare_sweeps(make_sweep(0), later)[1:]
    assert table.loc[table["is_changed"], ["num_prompt_tokens", "num_output_tokens"]].to_numpy().tolist() == [[512, 64]]


def test_adjusted_p_values_are_those_of_holm():
    table = compare_sweeps(make_sweep(0), make_sweep(1))[1:].sort_values("p_value")
    expected = np.maximum.accumulate(table["p_value"].to_numpy() * np.arange(9, 0, -1)).clip(max=1)
    assert table["p_value_adjusted"].tolist() == pytest.approx(expected.tolist())


def test_only_settings_of_both_sweeps_are_compared():
    earlier = make_sweep(0).query("num_output_tokens != 16")
    assert len(compare_sweeps(earlier, make_sweep(1))) == 1 + 6


def test_trials_left_out_of_a_fit_are_left_out_here():
    later = make_sweep(1)
    later.loc[::2, ["runtime_s", "is_fit"]] = [100.0, False]
    assert not overall(compare_sweeps(make_sweep(0), later))["is_changed"]


def test_few_trials_have_no_interval_and_no_significance():
    row = overall(compare_sweeps(make_sweep(0, num_blocks=2), make_sweep(1, factor=2, num_blocks=2)))
    assert np.isnan(row["change_percent_lower"])
    assert not row["is_changed"]


def test_sweeps_without_a_common_setting_are_refused():
    with pytest.raises(ValueError, match=r"no setting in common: .*; repeat one with the same"):
        compare_sweeps(make_sweep(0).query("num_output_tokens == 1"), make_sweep(1).query("num_output_tokens == 64"))


def test_sweeps_of_two_models_are_refused():
    with pytest.raises(ValueError, match="sweeps of one model are compared; got other, tiny"):
        compare_sweeps(make_sweep(0), make_sweep(1).assign(model="other"))


def test_history_knows_good_and_bad_days():
    days = [make_sweep(seed, factor=factor) for seed, factor in enumerate((1.0, 1.1, 0.95, 1.05, 1.12))]
    # 12 % slower than the first day, by trials beyond doubt, but such days occur.
    assert overall(compare_sweeps(days[0], days[-1]))["is_changed"]
    row = compare_with_history(days)
    assert not row["is_changed"]
    assert row["unchanged_percent_lower"] < row["change_percent"] < row["unchanged_percent_upper"]


def test_change_beyond_the_history_is_found():
    days = [make_sweep(seed, factor=factor) for seed, factor in enumerate((1.0, 1.02, 0.99, 1.01, 1.3))]
    row = compare_with_history(days)
    assert row["is_changed"]
    assert row["change_percent"] == pytest.approx(29, abs=2)


def test_short_history_is_refused():
    with pytest.raises(ValueError, match="takes 3 earlier sweeps at least; got 2"):
        compare_with_history([make_sweep(seed) for seed in range(3)])


def test_slower_decoding_changes_the_time_per_output_token_only():
    table = compare_parameters(make_sweep(0, delay_s=0.2), make_sweep(1, g_s=0.011, delay_s=0.2))
    assert table["is_changed"].to_dict() == {"time_per_output_token_s": True, "prompt_and_overhead_s": False}
    assert table.loc["time_per_output_token_s", "change_percent"] == pytest.approx(10, abs=2)


@pytest.mark.parametrize("block_scale", [0.0, 0.3])
def test_disturbance_that_a_block_shares_is_no_change_of_a_parameter(block_scale):
    """Two sweeps of one machine, whole blocks of which are disturbed by 30 %: at a level of 5 %."""
    pairs = [[make_sweep(2 * seed + k, block_scale=block_scale, num_blocks=8) for k in (0, 1)] for seed in range(24)]
    tables = [compare_parameters(*pair) for pair in pairs]
    # 1.2 of 24 are expected of either parameter, and with a probability of less than 1 % there are more than 5.
    for name in ("time_per_output_token_s", "prompt_and_overhead_s"):
        assert sum(table.loc[name, "p_value"] < 0.05 for table in tables) <= 5
        covered = [table.loc[name, "change_percent_lower"] <= 0 <= table.loc[name, "change_percent_upper"]
                   for table in tables]  # fmt: skip
        assert sum(covered) >= 19
    assert all((table["change_percent_lower"] > -100).all() for table in tables)


def test_interval_of_a_parameter_holds_its_change():
    tables = [compare_parameters(make_sweep(2 * seed), make_sweep(2 * seed + 1, g_s=0.02)) for seed in range(10)]
    rows = [table.loc["time_per_output_token_s"] for table in tables]
    assert sum(row["change_percent_lower"] < 100 < row["change_percent_upper"] for row in rows) >= 8
    assert all(row["is_changed"] for row in rows)


def test_sweeps_of_one_block_have_no_change_of_parameters():
    with pytest.raises(ValueError, match="takes two blocks of each sweep"):
        compare_parameters(make_sweep(0, num_blocks=1), make_sweep(1))


def test_sweeps_without_a_common_setting_say_what_each_holds():
    odd = make_sweep(1).assign(is_fit=False, deviations="1 output tokens reported", is_warmup=False, error_type=None)
    message = r"sweep 1: p=1 o=1, .* and 1 more; sweep 2: none; 90 of 90 trials deviate .*1 output tokens reported"
    with pytest.raises(ValueError, match=message):
        compare_sweeps(make_sweep(0), odd)


def test_more_load_changes_runtimes_but_no_parameter():
    earlier, later = make_sweep(0), make_sweep(1, delay_s=1.0)
    assert overall(compare_sweeps(earlier, later))["is_changed"]
    assert not compare_parameters(earlier, later)["is_changed"].any()


def test_published_minima_of_four_dates_are_compared_with_their_history():
    runtimes = read_runtimes_over_time()
    rows = {}
    for model, frame in runtimes.groupby("model"):
        rows[model] = compare_with_history([day for _, day in frame.groupby("date")])
    table = pd.DataFrame.from_dict(rows, orient="index")
    assert len(table) == 5
    # Of the published weeks none stands out from the three before it by more than they do from each other.
    assert not table["is_changed"].any()


def test_blocks_that_a_difference_takes_tell_it_four_times_of_five():
    # The scatter of a block is known: 5 % of it is shared, 2 % a trial.
    pair = make_sweep(0, block_scale=0.05, num_blocks=200), make_sweep(1, block_scale=0.05, num_blocks=200)
    found = power_of_sweeps(*pair, difference_percent=6)
    assert found["block_scatter_percent"] == pytest.approx(100 * np.expm1(np.hypot(0.05, 0.02 / 3)), rel=0.1)
    num_blocks = found["num_blocks"]
    told = 0
    for seed in range(60):
        sweeps = (
            make_sweep(seed + 100 * later, block_scale=0.05, num_blocks=num_blocks, factor=1 + 0.06 * later)
            for later in (0, 1)
        )
        told += overall(compare_sweeps(*sweeps))["is_changed"]
    assert told / 60 == pytest.approx(0.8, abs=0.15)


def test_smallest_difference_falls_with_the_root_of_the_blocks():
    pairs = [[make_sweep(seed, block_scale=0.05, num_blocks=number) for seed in (0, 1)] for number in (50, 200)]
    few, many = (power_of_sweeps(*pair)["smallest_difference_percent"] for pair in pairs)
    assert few / many == pytest.approx(2, rel=0.25)


@pytest.mark.parametrize("percent", [0, -100])
def test_difference_that_is_none_is_refused(percent):
    with pytest.raises(ValueError, match="above -100 and not 0"):
        power_of_sweeps(make_sweep(0), make_sweep(1), difference_percent=percent)
