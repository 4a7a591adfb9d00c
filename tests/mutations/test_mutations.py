"""A few of the mutations that ``python -m tests.mutations`` makes by the thousand."""

import pytest

from tests.mutations.kinds import KINDS
from tests.mutations.trials import FAULTS, Trials

NUMBER = 6 * len(KINDS)


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    return Trials(tmp_path_factory.mktemp("mutations") / "all")


def test_damaged_inputs_give_no_traceback_and_no_silent_change(trials):
    outcomes = [trials.run(number) for number in range(NUMBER)]
    assert [outcome for outcome in outcomes if outcome.verdict in FAULTS] == []
    # Where all is told, or all the same, nothing was put to the test.
    assert len({outcome.verdict for outcome in outcomes}) == 3


def test_same_number_gives_the_same_mutation(trials):
    assert trials.run(3) == trials.run(3)
