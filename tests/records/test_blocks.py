import json

import pytest
from makers import HEADER, make_failed, make_setting, write_log

from idealized_runtime.records import Journal, LogFormatError, joined_blocks, load_log, read_log
from idealized_runtime.records.settings import REFUSED, setting_key


def block(p, o, runtimes_s, starts_s, **change):
    return make_setting(p, o, runtimes_s, trial_starts_s=list(starts_s), **change)


@pytest.fixture
def in_midst(tmp_path):
    """A log that was cut when one setting was complete and another half timed."""
    path = tmp_path / "log.jsonl"
    with Journal(path, HEADER) as journal:
        journal.append("block", block(1, 1, [0.5], [1.0]))
        journal.append("block", block(16, 1, [1.5], [2.0]))
        journal.append("block", block(16, 1, [1.6, 1.7], [3.0, 5.0], warmups_s=[8.0]))
        journal.append("setting", make_setting(1, 1, [0.5, 0.6]))
    return path


def test_blocks_of_a_setting_that_is_complete_are_not_read(in_midst):
    with pytest.warns(UserWarning, match="no footer after 1 settings"):
        frame = read_log(in_midst)
    assert frame[["num_prompt_tokens", "num_trials"]].to_numpy().tolist() == [[1, 2]]


def test_blocks_of_a_setting_that_is_not_are_kept_for_the_run_that_goes_on(in_midst):
    (blocks,) = load_log(in_midst).blocks.values()
    joined = joined_blocks(blocks)
    assert joined["runtimes_s"] == [1.5, 1.6, 1.7]
    assert joined["trial_starts_s"] == [2.0, 3.0, 5.0]
    assert (joined["warmups_s"], joined["later_warmups_s"]) == ([9.0], [8.0])


def test_log_of_which_all_settings_are_timed_in_part_says_so(tmp_path):
    with Journal(tmp_path / "log.jsonl", HEADER) as journal:
        journal.append("block", block(1, 1, [0.5], [1.0]))
    with (
        pytest.warns(UserWarning, match="no footer after 0 settings"),
        pytest.raises(LogFormatError, match="of 1 others a part: run it again to go on"),
    ):
        read_log(tmp_path / "log.jsonl")


def test_list_that_one_block_lacks_is_none_of_the_setting():
    joined = joined_blocks([block(1, 1, [1.0], [0.0], energies_joules=[2.0]), block(1, 1, [1.0], [0.0])])
    assert joined["energies_joules"] is None


@pytest.mark.parametrize("change", [{"trial_starts_s": [1.0]}, {"trial_starts_s": ["a", "b"]}, {"runtimes_s": []}])
def test_block_that_is_not_what_it_claims_is_refused(tmp_path, change):
    path = write_log(tmp_path / "log.jsonl", finish=False)
    with path.open("a") as file:
        file.write(json.dumps({"record": "block", **block(16, 2, [0.1, 0.2], [1.0, 2.0]), **change}) + "\n")
    with pytest.raises(LogFormatError, match=":5: "):
        load_log(path)


def test_setting_that_was_refused_can_be_timed_again_and_then_counts_once(tmp_path):
    refused = {**make_failed(1, 1), "error": {"type": REFUSED, "message": "too quick"}}
    path = write_log(tmp_path / "log.jsonl", [refused, make_failed(16, 1)])
    with Journal(path, HEADER) as journal:
        assert journal.log.completed == {setting_key(journal.log.records[1])}, "what does not fit never will"
        journal.append("setting", make_setting(1, 1))
        journal.finish()
    log = load_log(path)
    assert [setting.get("error", {}).get("type") for setting in log.records] == ["OutOfMemoryError", None]
    assert log.is_complete
