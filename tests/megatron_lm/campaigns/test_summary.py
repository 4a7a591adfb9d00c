from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from makers import HEADER, make_failed, make_setting, write_log

from idealized_runtime.measurements.timed_models import read_timed_model
from megatron_lm.campaigns.jobs import Job
from megatron_lm.campaigns.outcomes import Outcome
from megatron_lm.campaigns.summary import joules_per_output_token, shorten, summary_table

BATCHES = [
    make_setting(16, 1, [0.01], batch_size=1),
    make_setting(8, 4, [0.01], batch_size=1),
    make_setting(16, 4, [0.5, 0.5], batch_size=1),
    make_setting(16, 4, [1.0, 2.0], batch_size=8, micro_batch_size=8, token_micro_batch_size=2),
    make_setting(16, 4, [1.6], batch_size=8, micro_batch_size=8, token_micro_batch_size=8),
    make_failed(16, 512),
]


@pytest.fixture
def outcomes(tmp_path):
    whole, none = (Job("gpt2-small", tmp_path, "sdpa", *parallelism) for parallelism in ((1, 1), (2, 1)))
    whole.log.parent.mkdir()
    write_log(whole.log, BATCHES)
    return {whole: Outcome("complete"), none: Outcome("failed", "no more memory")}


def test_summary_has_the_best_batch_of_the_longest_query_of_each_job(outcomes):
    best = summary_table(outcomes).iloc[0]
    # 8 x 4 tokens in 1.5 s and in 1.6 s, 4 tokens in 0.5 s.
    assert best["output_tokens_per_s"] == pytest.approx(32 / 1.5)
    assert best[["num_prompt_tokens", "num_output_tokens"]].tolist() == [16, 4]
    assert best[["batch_size", "token_micro_batch_size"]].tolist() == [8, 2]
    assert best[["num_settings", "num_failed_settings"]].tolist() == [5, 1]


def test_summary_has_fitted_times_beside_the_floors_of_the_machine(tmp_path):
    job = Job("gpt2-small", tmp_path)
    job.log.parent.mkdir()
    rates = {"memory_bytes_per_s": 1e10, "matmul_flops_per_s": {"float32": 1e12}}
    settings = [make_setting(p, o, [0.1 * p + 0.2 * o]) for p in (1, 16) for o in (1, 3)]
    write_log(job.log, settings, {**HEADER, "environment": {"machine_rates": rates}})
    row = summary_table({job: Outcome("complete")}).iloc[0]
    assert row["time_per_output_token_ms"] == pytest.approx(200)
    assert row["prompt_encoding_time_ms"] == pytest.approx(1e3 * (1.6 + 0.2))
    assert row["token_over_floor"] == pytest.approx(200 / row["token_floor_ms"])
    # Its parameters are read once a token, but for most of the 39 M of two tables.
    assert row["token_floor_ms"] > 1e3 * 4 * 120e6 / 1e10


def test_summary_of_a_job_without_log_has_its_error(outcomes):
    row = summary_table(outcomes).iloc[1]
    assert (row["status"], row["error"], row["num_settings"]) == ("failed", "no more memory", 0)
    assert row[["batch_size", "output_tokens_per_s", "time_per_output_token_ms"]].isna().all()


def test_summary_counts_what_an_incomplete_log_holds(tmp_path):
    job = Job("gpt2-small", tmp_path)
    job.log.parent.mkdir()
    write_log(job.log, BATCHES[:2], finish=False)
    assert summary_table({job: Outcome("unfinished")})["num_settings"].tolist() == [2]


def test_table_for_a_terminal_leaves_out_what_says_the_same_of_every_job(outcomes):
    table = shorten(summary_table(outcomes))
    assert {"T", "B", "k", "tokens/s", "ms/token"} < set(table)
    assert not {"P", "extrapolated"} & set(table)


def test_row_from_slices_of_the_layers_says_that_it_is_extrapolated(outcomes, tmp_path):
    job = Job("gpt2-small", tmp_path, "sdpa", 1, 2)
    job.log.parent.mkdir()
    settings = [make_setting(16, 4, [1.0, 1.0], num_layers_profiled=size) for size in (2, 4)]
    write_log(job.log, settings, {**HEADER, "num_layers_profiled": [2, 4]})
    summary = summary_table({**outcomes, job: Outcome("complete")})
    assert summary["is_extrapolated"].tolist() == [False, pd.NA, True]
    assert shorten(summary)["extrapolated"].tolist() == [False, pd.NA, True]
    assert read_timed_model(job.log).slices == 1


def test_joules_of_an_output_token_are_what_longer_generations_add():
    runtimes = pd.DataFrame(
        {"num_prompt_tokens": [8, 8, 8, 1], "num_output_tokens": [1, 2, 11, 1],
         "energy_joules": [5.0, 7.0, 25.0, 1.0], "batch_size": 1}
    )  # fmt: skip
    assert joules_per_output_token(SimpleNamespace(runtimes=runtimes), 8) == pytest.approx(2.0)
    assert np.isnan(joules_per_output_token(SimpleNamespace(runtimes=runtimes), 1))
