import numpy as np
import pytest

from idealized_runtime.design.guards import Visit, notice, notice_level

SETTINGS = [(p, o) for p in (1, 64, 128, 256, 512) for o in (1, 2, 8, 16)]
ANCHOR = SETTINGS[0]


def simulate(seed, *, trial_std, visit_std, slower=lambda block, visit, trial: 1.0, gap_s=1e-5, num_blocks=8):
    """First thing noticed in a run of blocks, each of a few settings between two trials of one; None if nothing is.

    ``slower`` says by how much a trial is slowed down, from its block, its visit and its number (-1: the warm-up).
    """
    rng, visits = np.random.default_rng(seed), []
    for block in range(1, num_blocks + 1):
        chosen = [SETTINGS[place] for place in rng.choice(len(SETTINGS), rng.integers(1, 6), replace=False)]
        for place, (p, o) in enumerate([ANCHOR, *chosen, ANCHOR]):
            number = len(visits) + 1
            num_trials = 1 if place in (0, len(chosen) + 1) else rng.integers(1, 4)
            mean_s = (0.02 + 6e-4 * p + 0.02 * (o - 1)) * np.exp(visit_std * rng.standard_normal())
            warmup_s, *runtimes_s = (
                mean_s * slower(block, number, trial) * np.exp(trial_std * rng.standard_normal())
                for trial in range(-1, num_trials)
            )
            gaps_s = (gap_s,) * (num_trials + 1)
            visits.append(Visit(number, block, (p, o), tuple(runtimes_s), (1.05 * warmup_s,), gaps_s))
        if (found := notice(visits)) is not None:
            return found, block, visits
    return None


@pytest.mark.parametrize(("trial_std", "visit_std"), [(0.01, 0.0), (0.03, 0.02), (0.06, 0.03)])
def test_at_most_one_quiet_run_of_forty_is_disturbed(trial_std, visit_std):
    found = [simulate(seed, trial_std=trial_std, visit_std=visit_std) for seed in range(120)]
    assert sum(it is not None for it in found) <= 3


FAULTS = {
    "throttling": lambda block, visit, trial: 1.3 if block >= 4 else 1.0,
    "drift": lambda block, visit, trial: 1 + 0.05 * (block - 1),
    "cold_start": lambda block, visit, trial: 1.25 if block == 1 else 1.0,
    "two_populations": lambda block, visit, trial: 1.5 if (7 * visit + 3 * trial) % 5 < 2 else 1.0,
    "held_up": lambda block, visit, trial: 2.0 if visit == 20 and trial == 0 else 1.0,
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_noticed_by_its_name(name):
    found = [simulate(seed, trial_std=0.02, visit_std=0.01, slower=FAULTS[name], num_blocks=12) for seed in range(20)]
    names = [it[0].name for it in found if it is not None]
    assert len(names) >= 18
    others = {
        "drift": {"throttling"},
        "cold_start": {"held_up"},
        "two_populations": {"held_up", "throttling", "drift", "cold_start"},
    }
    assert sum(it == name for it in names) >= 10
    assert set(names) <= {name, *others.get(name, ())}


def test_what_is_set_aside_is_what_was_slow():
    found, block, visits = simulate(0, trial_std=0.01, visit_std=0.0, slower=FAULTS["throttling"])
    assert block == 4
    assert set(found.visits) == {visit.number for visit in visits if visit.block == 4}
    found, block, visits = simulate(0, trial_std=0.01, visit_std=0.0, slower=FAULTS["cold_start"])
    assert block == 2
    assert set(found.visits) == {visit.number for visit in visits if visit.block == 1}


def test_first_trials_that_take_longer_ask_for_more_warmups():
    cold = lambda block, visit, trial: {-1: 1.8, 0: 1.2}.get(trial, 1.0)  # noqa: E731
    names = set()
    for seed in range(10):
        found = simulate(seed, trial_std=0.01, visit_std=0.0, slower=cold)
        names.add(found[0].name)
    assert "cold_start" in names


@pytest.mark.parametrize("gap_s", [0.5, -0.5])
def test_clocks_that_disagree_are_noticed_before_anything_else(gap_s):
    found, block, visits = simulate(0, trial_std=0.01, visit_std=0.0, gap_s=gap_s)
    assert (found.name, block) == ("clock", 1)
    assert "by the system's clock" in found.message
    assert len(found.visits) == len(visits)


@pytest.mark.parametrize("trial_std", [0.03, 0.1, 0.2])
def test_server_of_heavy_tails_is_disturbed_once_in_forty_runs_at_most(trial_std):
    def first(seed):
        rng, visits = np.random.default_rng(seed), []
        for block in range(1, 9):
            chosen = [SETTINGS[place] for place in rng.choice(len(SETTINGS), 6)]
            for p, o in (ANCHOR, *chosen, ANCHOR):
                seconds = (0.05 + 2e-4 * p + 0.02 * o) * np.exp(trial_std * rng.standard_t(4))
                visits.append(Visit(len(visits) + 1, block, (p, o), (float(seconds),)))
            if (found := notice_level(visits)) is not None:
                return found
        return None

    assert sum(first(seed) is not None for seed in range(120)) <= 3
