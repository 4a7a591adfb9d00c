import json
import re
from pathlib import Path

import numpy as np
import pytest
from makers import API_HEADER, HEADER, make_trial, write_log

from idealized_runtime.architectures import get_architecture
from idealized_runtime.records import (
    ImplausibleLogError,
    SuspiciousLogWarning,
    load_log,
    log_findings,
    parse_log,
    read_log,
    read_trials,
)
from idealized_runtime.records.json_lines import log_of
from idealized_runtime.records.validity import SEVERE, _drift, _populations, _Timed, _trial_order

REPOSITORY = Path(__file__).parents[2]
SIZES = [(p, o) for p in (1, 16, 64, 128, 256, 512) for o in (1, 2, 8, 16)]
SWEEP = {"all_num_prompt_tokens": [1, 16, 64, 128, 256, 512], "all_num_output_tokens": [1, 2, 8, 16]}
NUM_TRIALS = 20
MEANS_S = np.array([0.02 + 2e-4 * p + 0.021 * (o - 1) for p, o in SIZES])


def simulated(rng, *, noise=0.02, num_trials=NUM_TRIALS, autocorrelation=0.0):
    """Trials of a sweep, one row a setting: relative noise, of which trials of a setting may share a part."""
    shocks = rng.standard_normal((len(SIZES), num_trials))
    for trial in range(1, num_trials):
        shocks[:, trial] = autocorrelation * shocks[:, trial - 1] + np.sqrt(1 - autocorrelation**2) * shocks[:, trial]
    return MEANS_S[:, None] * np.exp(noise * shocks)


def records_of(times_s, **columns):
    """Settings with these trials; ``columns`` are lists of one value a setting."""
    return [
        {"num_prompt_tokens": p, "num_output_tokens": o, "batch_size": 1, "runtimes_s": times.tolist()}
        | {name: values[number] for name, values in columns.items()}
        for number, ((p, o), times) in enumerate(zip(SIZES, times_s, strict=True))
    ]


def header_of(**changes):
    return {"record": "header", "schema_version": 1, **HEADER, "num_trials": NUM_TRIALS, "sweep": SWEEP, **changes}


def log_with(records, **changes):
    """A log that was never a file."""
    log = log_of(None, header_of(**changes))
    for record in (
        *({"record": "setting", **it} for it in records),
        {"record": "footer", "num_settings": len(records)},
    ):
        log.keep(log.check("here", record))
    return log


def names(log):
    return [finding.name for finding in log_findings(log)]


def found_by_chance(log):
    """Names of what the tests at a level of significance find: quicker than all findings."""
    timed = _Timed.of(log)
    return [finding.name for check in (_populations, _trial_order, _drift) for finding in check(timed)]


def share_found(name, change, *, num_seeds=40, **options):
    """Share of simulated logs in which a change of their trials is found by that name."""
    logs = [change(simulated(rng, **options), rng) for rng in map(np.random.default_rng, range(num_seeds))]
    return np.mean([name in found_by_chance(log_with(records_of(times_s))) for times_s in logs])


def one(log, name):
    (finding,) = [finding for finding in log_findings(log) if finding.name == name]
    assert finding.is_severe == (name in SEVERE)
    return finding.message


# Levels and power


@pytest.mark.parametrize("options", [{}, {"noise": 0.1}, {"autocorrelation": 0.9}, {"num_trials": 5}])
def test_sound_logs_have_no_finding(options):
    header = {"num_trials": options.get("num_trials", NUM_TRIALS)}
    logs = [log_with(records_of(simulated(np.random.default_rng(seed), **options)), **header) for seed in range(40)]
    assert sum(bool(found_by_chance(log)) for log in logs) <= 1
    assert not any(map(names, logs[:3]))


@pytest.mark.filterwarnings("error")
def test_trials_without_any_noise_have_no_finding():
    rounded_s = np.repeat(MEANS_S.round(4)[:, None], NUM_TRIALS, axis=1)
    assert names(log_with(records_of(rounded_s))) == []


def test_exponential_tails_are_no_second_population():
    def tails(times_s, rng):
        return times_s * (1 + 0.05 * rng.exponential(size=times_s.shape))

    assert share_found("two_populations", tails) == 0


def slow_half(times_s, rng):
    return times_s * np.where(rng.random(times_s.shape) < 0.5, 1.5, 1.0)


def slow_half_of_each(times_s, rng):
    return times_s * np.where(np.arange(times_s.shape[1]) % 2, 1.5, 1.0)


def three_of_ten_slow(times_s, rng):
    return times_s * np.where(rng.random(times_s.shape) < 0.3, 2.0, 1.0)


def slow_first(times_s, rng):
    return times_s * np.where(np.arange(times_s.shape[1]) == 0, 1.2, 1.0)


def throttled_from_the_sixth(times_s, rng):
    return times_s * np.where(np.arange(times_s.shape[1]) >= 5, 1.2, 1.0)


@pytest.mark.parametrize(
    ("name", "change", "options"),
    [
        ("two_populations", slow_half, {}),
        ("two_populations", slow_half_of_each, {}),
        ("two_populations", slow_half, {"num_trials": 10}),
        ("two_populations", three_of_ten_slow, {}),
        ("first_trial", slow_first, {}),
        ("first_trial", slow_first, {"num_trials": 5}),
        ("later_trials", throttled_from_the_sixth, {}),
        ("later_trials", throttled_from_the_sixth, {"noise": 0.05, "autocorrelation": 0.5}),
    ],
)
def test_disturbed_trials_are_found_in_nearly_all_logs(name, change, options):
    assert share_found(name, change, num_seeds=20, **options) >= 0.95


def interleaved(times_s, along_s, num_blocks=4):
    """Settings whose trials were spread over the sweep, in blocks; ``along_s`` is what a trial takes by its place."""
    num_settings, num_trials = times_s.shape
    block = np.arange(num_trials) // (num_trials // num_blocks)
    place = block * num_settings * (num_trials // num_blocks) + np.arange(num_settings)[:, None] * (
        num_trials // num_blocks
    )
    place = (place + np.arange(num_trials) % (num_trials // num_blocks)) / times_s.size
    return log_with(records_of(times_s * along_s(place), trial_starts_s=(100 * place).tolist()))


@pytest.mark.parametrize(
    ("along_s", "power"),
    [
        (lambda x: 1 + 0.1 * x, 0.95),
        (lambda x: 1 + 0.5 * x, 0.95),
        (lambda x: np.where(x >= 0.6, 1.3, 1.0), 0.95),
        # The first tenth of a sweep alone.
        (lambda x: 1 - 0.3 * np.exp(-x / 0.1), 0.8),
    ],
    ids=["drift of 10 %", "drift of 50 %", "throttled from 60 % on", "turbo that decays"],
)
def test_drift_over_a_sweep_with_start_times_is_found(along_s, power):
    logs = [interleaved(simulated(np.random.default_rng(seed)), along_s) for seed in range(20)]
    assert np.mean(["drift" in found_by_chance(log) for log in logs]) >= power


def test_no_drift_is_found_where_there_is_none():
    logs = [interleaved(simulated(np.random.default_rng(seed)), np.ones_like) for seed in range(40)]
    assert sum("drift" in found_by_chance(log) for log in logs) <= 1


def test_drift_is_told_in_numbers():
    log = interleaved(simulated(np.random.default_rng(0)), lambda x: np.where(x >= 0.6, 1.3, 1.0))
    assert re.search(r"runtimes rise by (1\d|2\d|30)% over the sweep, from 60% of its trials on", one(log, "drift"))


# What cannot be


@pytest.fixture
def times_s():
    return simulated(np.random.default_rng(0))


def test_severe_finding_refuses_unless_it_is_accepted_by_name(tmp_path, times_s):
    path = write_log(tmp_path / "a.jsonl", records_of(times_s * 1000), header_of())
    with pytest.raises(ImplausibleLogError, match=r"far_above_floor: 19 of 24.*milliseconds.*--accept far_"):
        read_log(path)
    with pytest.raises(ImplausibleLogError, match="far_above_floor"):
        read_trials(path)
    with pytest.warns(SuspiciousLogWarning, match="far_above_floor"):
        assert len(read_log(path, accept=["far_above_floor"])) == 24
    with pytest.raises(ValueError, match=r"accept takes names of findings: checksum, .*; got parts_of_it"):
        parse_log(path, accept=["parts_of_it"])


def test_settings_below_the_floor_of_measured_rates_are_refused(times_s):
    rates = {"memory_bytes_per_s": 3e10, "matmul_flops_per_s": {"float32": 2e11}}
    assert "24 of 24 settings are faster than the machine's rates can be" in one(
        log_with(records_of(times_s / 100), environment={"machine_rates": rates}), "below_floor"
    )


def test_the_best_of_several_measured_rates_count(times_s):
    busy, idle = (
        {"machine_rates": {"memory_bytes_per_s": rate, "matmul_flops_per_s": {}, "cache_bytes": 1e6}}
        for rate in (1e9, 3e10)
    )
    log = log_with(records_of(times_s), environment=busy)
    assert "below_floor" in names(log)
    log.keep({"record": "resume", "environment": idle})
    assert "below_floor" not in names(log)


def test_settings_below_the_floor_of_any_machine_are_refused_without_rates(times_s):
    assert "faster than any machine" in one(log_with(records_of(times_s / 1000)), "below_floor")


@pytest.mark.parametrize("runtime_s", [1e-300, 1e20])
def test_one_trial_that_no_clock_told_is_refused(times_s, runtime_s):
    times_s[7, 3] = runtime_s
    assert f"1 of 480 runtimes are ones that no clock told, such as {runtime_s:.3g} s" in one(
        log_with(records_of(times_s)), "out_of_range"
    )


@pytest.mark.parametrize("number", range(len(SIZES)))
@pytest.mark.parametrize("factor", [1000, 1 / 1000])
def test_one_setting_in_another_unit_is_refused(times_s, number, factor):
    times_s[number] *= factor
    assert set(names(log_with(records_of(times_s)))) & {"contradiction", "far_above_floor", "below_floor"}


def test_prompt_size_that_takes_three_times_as_long_as_a_longer_one_contradicts_it(times_s):
    times_s[4:8] *= 20
    assert "p=16 o=1 0.461 s, p=64 0.0328 s" in one(log_with(records_of(times_s)), "contradiction")


def test_trial_in_another_unit_than_the_others_of_its_setting_is_refused(times_s):
    times_s[3, 2] /= 1000
    message = one(log_with(records_of(times_s)), "contradiction")
    assert "1 settings have a trial that takes less than a tenth of all their others" in message


def test_noise_of_a_few_short_trials_is_no_contradiction():
    rngs = map(np.random.default_rng, range(20))
    logs = [log_with(records_of(simulated(rng, noise=0.5, num_trials=3) / 100), num_trials=3) for rng in rngs]
    assert sum("contradiction" in names(log) for log in logs) <= 1


@pytest.mark.parametrize("times_s", [(0.02, 20.0), (0.02, 20.0, 20.0), (19.0, 20.0, 31.0)])
def test_noise_of_trials_hides_no_other_unit(times_s):
    records = records_of(MEANS_S[:, None] * np.ones(len(times_s)))
    records[0]["runtimes_s"] = list(times_s)
    assert "contradiction" in names(log_with(records, num_trials=len(times_s)))


def test_longer_prompts_that_are_faster_are_warned_of(times_s):
    times_s[:4] *= 1.4
    message = one(log_with(records_of(times_s)), "longer_is_faster")
    assert "more tokens take over 10% less, 4 times: p=1 o=1 0.0282 s, p=16 0.023 s" in message


def test_runtime_that_is_not_the_sum_of_its_parts_is_refused(times_s):
    prompts = np.full_like(times_s, 0.015)
    parts = {"prompt_encoding_times_s": prompts.tolist(), "generation_times_s": (times_s - prompts).tolist()}
    assert names(log_with(records_of(times_s, **parts))) == []
    log = log_with(records_of(times_s * 2, **parts))
    assert "runtimes_s of 24 settings are not prompt_encoding_times_s + generation_times_s" in one(log, "parts")


def test_prompt_parts_in_another_unit_are_refused(times_s):
    prompts = np.full_like(times_s, 0.015)
    parts = {"prompt_encoding_times_s": (1000 * prompts).tolist(), "generation_times_s": (times_s - prompts).tolist()}
    assert "parts" in names(log_with(records_of(times_s, **parts)))


def test_trials_that_take_twice_as_long_as_their_warm_ups_are_refused(times_s):
    warmups_s = [[2 * time_s, time_s] for time_s in MEANS_S]
    assert "warmups" not in names(log_with(records_of(times_s, warmups_s=warmups_s)))
    assert "trials take 2 times as long" in one(log_with(records_of(2 * times_s, warmups_s=warmups_s)), "warmups")


@pytest.mark.parametrize(("watts", "is_found"), [(100, False), (2500, True), (0.1, True)])
def test_watts_that_no_device_draws_are_refused(times_s, watts, is_found):
    log = log_with(records_of(times_s, energies_joules=(watts * times_s).tolist()))
    assert ("energy" in names(log)) == is_found


@pytest.mark.parametrize(("counter", "is_found"), [("NVML, total energy of the GPU", True), ("RAPL, package-0", False)])
def test_joules_of_a_window_too_short_for_their_counter_are_named_and_not_used(times_s, counter, is_found):
    """Some settings last less than a second in all their trials: ten updates of NVML's counter, many of RAPL's."""
    is_short = times_s.sum(axis=1) < 1
    assert 0 < is_short.sum() < len(is_short)
    records = records_of(times_s, energies_joules=(100 * times_s).tolist())
    log = log_with(records, environment={"energy_counter": counter})
    assert ("energy_window" in names(log)) == is_found
    assert log.settings_frame()["energy_joules"].isna().to_numpy().tolist() == (is_short & is_found).tolist()


def test_watts_are_those_of_each_device(times_s):
    joules = (2500 * times_s).tolist()
    assert "energy" not in names(log_with(records_of(times_s, energies_joules=joules), tensor_parallel_size=2))


def test_generation_that_stopped_early_is_refused(times_s):
    ids = [[5] * min(o, 4) for _, o in SIZES]
    message = one(log_with(records_of(times_s, output_token_ids=ids)), "output_tokens")
    assert "12 of 24 settings generated another number of tokens than they say: p=1 o=8 has 4" in message


def test_the_same_trials_twice_are_refused(times_s):
    twice = np.concatenate([times_s, times_s], axis=1)
    assert "480 of 960 trials repeat others to the last digit" in one(log_with(records_of(twice)), "repeated_trials")


def test_trials_of_one_setting_twice_are_refused(times_s):
    times_s[5, 10:] = times_s[5, :10]
    assert "10 of 480 trials repeat others to the last digit (p=16 o=2)" in one(
        log_with(records_of(times_s)), "repeated_trials"
    )


def test_a_setting_copied_to_other_sizes_is_refused(times_s):
    times_s[5] = times_s[4]
    assert "repeated_trials" in names(log_with(records_of(times_s)))


def test_rounded_trials_may_be_equal(times_s):
    assert "repeated_trials" not in names(log_with(records_of(times_s.round(3))))


# What the header announces


def test_fewer_trials_and_warm_ups_than_announced_are_warned_of(times_s):
    records = records_of(times_s, warmups_s=[[0.5]] * len(SIZES))
    records[3]["runtimes_s"] = records[3]["runtimes_s"][:2]
    log = log_with(records, num_warmup=3)
    assert "1 of 24 settings have 2; the header says 20" in one(log, "num_trials")
    assert "24 of 24 settings have 1; the header says 3" in one(log, "num_warmup")


def test_setting_that_a_complete_log_lacks_is_warned_of(times_s):
    assert "1 of the 24 settings that the header asks for are in no line: p=1 o=2" in one(
        log_with([record for number, record in enumerate(records_of(times_s)) if number != 1]), "sweep"
    )


def test_prompt_size_that_a_complete_log_lacks_is_warned_of(times_s):
    records = [record for record in records_of(times_s) if record["num_prompt_tokens"] != 64]
    assert "4 of the 24 settings" in one(log_with(records), "sweep")


def test_incomplete_log_need_not_hold_its_sweep(times_s):
    log = log_of(None, header_of())
    log.keep(log.check("here", {"record": "setting", **records_of(times_s)[0]}))
    assert names(log) == []


def test_setting_that_nobody_asked_for_is_warned_of(times_s):
    sweep = {**SWEEP, "all_num_prompt_tokens": SWEEP["all_num_prompt_tokens"][:-1]}
    assert "4 of 24 settings are none of the header's: p=512 o=1" in one(
        log_with(records_of(times_s), sweep=sweep), "sweep"
    )


# The file


def test_line_that_was_changed_after_the_footer_is_refused(tmp_path, times_s):
    path = write_log(tmp_path / "a.jsonl", records_of(times_s), header_of())
    assert load_log(path).is_intact
    text = path.read_text()
    path.write_text(text.replace("gpt2-small", "gpt2-large", 1))
    with pytest.raises(ImplausibleLogError, match="checksum: its lines are not those"):
        read_log(path)
    with pytest.warns(SuspiciousLogWarning, match="checksum"):
        read_log(path, accept=["checksum"])


def test_log_without_a_checksum_reads_as_before(tmp_path, times_s):
    path = write_log(tmp_path / "a.jsonl", records_of(times_s), header_of())
    *lines, footer = path.read_text().splitlines()
    footer = json.loads(footer)
    del footer["sha256"]
    path.write_text("\n".join([*lines, json.dumps(footer)]) + "\n")
    assert load_log(path).is_intact is None
    assert len(read_log(path)) == 24


def test_log_that_went_on_has_the_checksum_of_all_its_lines(tmp_path, times_s):
    records = records_of(times_s)
    path = write_log(tmp_path / "a.jsonl", records[:3], header_of())
    write_log(path, records[3:], header_of())
    assert load_log(path).is_intact
    assert len(read_log(path)) == 24


def test_log_of_an_api_is_checked_too(tmp_path):
    trials = [make_trial(number, start_s=0.1 + 1e-9 * number * np.pi) for number in range(3)]
    path = write_log(tmp_path / "a.jsonl", trials, API_HEADER)
    path.write_text(path.read_text().replace("mock 1.0", "mock 2.0"))
    with pytest.raises(ImplausibleLogError, match="checksum"):
        read_trials(path)


# Text logs


def write_text_log(path, runtimes_s, *, arguments=True):
    gpt2 = get_architecture("gpt2-small")
    printed = {
        "hidden_size": gpt2.hidden_size, "ffn_hidden_size": gpt2.ffn_hidden_size, "num_layers": gpt2.num_layers,
        "max_position_embeddings": 1024, "num_attention_heads": gpt2.num_attention_heads,
        "params_dtype": "torch.float16",
    }  # fmt: skip
    lines = [f"  {name} {'.' * (48 - len(name))} {value}" for name, value in printed.items() if arguments]
    lines += [" > padded vocab (size: 50257) with 47 dummy tokens (new size: 50304)"]
    lines += [
        f"Runtime for {{'num_input_tokens': {p}, 'num_output_tokens': {o}}}: {time_s:.3f} seconds +- 0.001"
        for (p, o), time_s in zip(SIZES, runtimes_s, strict=True)
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("folder", ["a100", "some_gpu"])
def test_text_log_in_milliseconds_is_refused(tmp_path, folder):
    path = write_text_log(tmp_path / folder / "mine.log", 1000 * MEANS_S)
    with pytest.raises(ImplausibleLogError, match="far_above_floor"):
        read_log(path)


def test_one_setting_of_a_text_log_in_milliseconds_is_refused_whatever_is_known_of_it(tmp_path):
    runtimes_s = MEANS_S.copy()
    runtimes_s[6] *= 1000
    path = write_text_log(tmp_path / "box" / "mine.log", runtimes_s, arguments=False)
    with pytest.raises(ImplausibleLogError, match="contradiction"):
        read_log(path)


def test_sound_text_log_has_no_finding(tmp_path):
    assert names(parse_log(write_text_log(tmp_path / "a100" / "mine.log", MEANS_S))) == []


# Committed and published logs


@pytest.mark.parametrize("folder", ["cpu", "cpu_batch", "cpu_designed", "cpu_eager", "cpu_pipeline", "cpu_sdpa", "api"])
def test_committed_logs_have_no_finding(folder):
    logs = sorted((REPOSITORY / "logs" / folder).glob("*.jsonl"))
    assert logs
    assert {path.name: names(parse_log(path)) for path in logs} == {path.name: [] for path in logs}


def test_published_a100_logs_have_no_finding_and_seven_v100_logs_have_prompts_that_shrink_runtimes(published):
    logs = published / "helm-efficiency" / "logs"
    assert not any(names(parse_log(path)) for path in (logs / "a100").glob("*.log"))
    found = {path.stem: names(parse_log(path)) for path in (logs / "v100").glob("*.log")}
    assert {tuple(findings) for findings in found.values()} == {(), ("longer_is_faster",)}
    assert sorted(name for name in found if found[name]) == [
        "ai21_j1_grande", "ai21_j1_jumbo", "anthropic", "bloom", "openai_ada", "openai_davinci", "yalm",
    ]  # fmt: skip
