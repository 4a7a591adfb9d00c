"""Settings that were timed in process, as records of a timing log and as frames with one row a trial, or a setting."""

from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from idealized_runtime.architectures import Architecture
from idealized_runtime.records.common import (
    BATCH_COLUMNS,
    PARALLELISM_COLUMNS,
    SETTING_COLUMNS,
    LogFormatError,
    NothingTimedError,
    check_error,
    check_integers,
    check_names,
    checked_guard,
    is_duration,
    is_integer,
    repeated,
    setting_name,
    with_frame_dtypes,
)
from idealized_runtime.records.log import TRIAL_MEANS, Log, means_frame
from idealized_runtime.records.slices import combine_slices
from idealized_runtime.statistics.ragged import Ragged

# Names of ``TRIAL_MEANS`` in a record, which has a list of each.
TRIAL_LISTS = dict(zip(TRIAL_MEANS, ("prompt_encoding_times_s", "generation_times_s", "energies_joules"), strict=True))
# All that a setting has one of a trial. Trials of a setting are spread over the sweep: when each began, in seconds
# since the header's ``started_at``, tells what drifted meanwhile.
_PER_TRIAL = ("runtimes_s", *TRIAL_LISTS.values(), "trial_starts_s")
_LISTS = (*_PER_TRIAL, "warmups_s", "later_warmups_s")
_KEY_COLUMNS = (*SETTING_COLUMNS, "num_layers_profiled")
# A runtime below the floor of the machine: of rates that may have been measured while something kept it busy.
REFUSED = "ImpossibleMeasurementError"
# Standard deviation of the trials of a setting, as a share of their mean: on CPUs that were idle it was 2 to 7 %.
_QUIET_SPREAD = 0.1
# A trial that something else on the machine held up: see `is_disturbed`.
# How often counters of energy move; a log names its counter.
_COUNTER_PERIODS_S = {"NVML": 0.1, "RAPL": 0.001}
_DISTURBED_FACTOR, _DISTURBED_DEVIATIONS, _DISTURBED_MIN_TRIALS = 1.25, 5.0, 5


def runtime_sentence(setting: dict, batch_columns: Sequence[str] = ()) -> str:
    """The sentence of 2023 for one ``setting`` record, which scripts of that time parse.

    ``batch_columns`` are those of ``BATCH_COLUMNS`` that tell it from others, and stand behind the tokens.
    """
    runtimes_s = np.asarray(setting["runtimes_s"])
    std_s = runtimes_s.std(ddof=1) if len(runtimes_s) > 1 else 0.0
    tokens = {"num_input_tokens": setting["num_prompt_tokens"], "num_output_tokens": setting["num_output_tokens"]}
    tokens.update({name: setting[name] for name in batch_columns})
    return f"Runtime for {tokens}: {runtimes_s.mean():.3f} seconds +- {std_s:.3f}"


def setting_key(setting: dict) -> tuple:
    """What tells one setting of a log from another: the values of ``SETTING_COLUMNS``, and the slice of the layers."""
    return tuple(setting[name] for name in _KEY_COLUMNS)


def joined_blocks(blocks: list[dict]) -> dict:
    """Trials of one setting, as its record has them, from those of its ``block`` records in their order.

    ``warmups_s`` are those before its first trial, ``later_warmups_s`` the few before later blocks. What one block
    lacks is None.
    """
    trials = {
        name: None if any(block.get(name) is None for block in blocks) else [x for block in blocks for x in block[name]]
        for name in _PER_TRIAL
    }
    first, *later = (block.get("warmups_s") or [] for block in blocks)
    return {"warmups_s": first, "later_warmups_s": [seconds for block in later for seconds in block], **trials}


class Settings(Sequence):
    """Settings with their trials, in columns of numbers: a million of three trials in two hundred megabytes.

    As a sequence, a record each. Of the tokens that were generated their number is kept, ``num_output_token_ids``.
    """

    def __init__(self):
        self._integers = {name: array("q") for name in _KEY_COLUMNS}
        self._num_output_token_ids = array("q")
        # Of each list its values, where those of a setting end, and whether it has the list.
        self._values = {name: array("d") for name in _LISTS}
        self._ends = {name: array("I") for name in _LISTS}
        self._has = {name: array("b") for name in _LISTS}
        self._errors: dict[int, dict] = {}

    def append(self, setting: dict):
        """Take in a record that was checked."""
        for name, column in self._integers.items():
            column.append(setting[name])
        if "error" in setting:
            self._errors[len(self) - 1] = setting["error"]
        for name in _LISTS:
            values = None if "error" in setting else setting.get(name)
            self._values[name].extend(values or ())
            self._ends[name].append(len(self._values[name]))
            self._has[name].append(values is not None)
        ids = setting.get("output_token_ids")
        self._num_output_token_ids.append(len(ids) if isinstance(ids, list) else -1)

    def take_out(self, key: tuple) -> dict:
        """Remove a setting, and give it."""
        number = next(number for number, other in enumerate(self.keys()) if other == key)
        taken = self[number]
        for name, ends in self._ends.items():
            first, last = ends[number - 1] if number else 0, ends[number]
            del self._values[name][first:last]
            ends[number:] = array("I", (end - (last - first) for end in ends[number:]))
        by_name = (self._integers, self._ends, self._has, {"": self._num_output_token_ids})
        for column in (column for columns in by_name for column in columns.values()):
            del column[number]
        self._errors.pop(number, None)
        self._errors = {other - (other > number): error for other, error in self._errors.items()}
        return taken

    @property
    def failed(self) -> list[int]:
        """Numbers of the settings that are errors."""
        return list(self._errors)

    def __len__(self) -> int:
        return len(self._integers[_KEY_COLUMNS[0]])

    def __getitem__(self, number: int) -> dict:
        number = range(len(self))[number]
        setting = {"record": "setting"} | {name: column[number] for name, column in self._integers.items()}
        if number in self._errors:
            return {**setting, "error": self._errors[number]}
        lists = (name for name, has in self._has.items() if has[number])
        for name, ends in ((name, self._ends[name]) for name in lists):
            setting[name] = self._values[name][ends[number - 1] if number else 0 : ends[number]].tolist()
        return setting

    def __iter__(self) -> Iterator[dict]:
        return map(self.__getitem__, range(len(self)))

    def keys(self) -> Iterator[tuple]:
        """What tells one setting from another, of each."""
        return zip(*self._integers.values(), strict=True)

    def _is_timed(self) -> np.ndarray:
        is_timed = np.ones(len(self), dtype=bool)
        is_timed[self.failed] = False
        return is_timed

    def timed_rows(self) -> pd.DataFrame:
        """Sizes, batch sizes and slice of those that did not fail."""
        is_timed = self._is_timed()
        return pd.DataFrame({name: np.array(column)[is_timed] for name, column in self._integers.items()})

    def timed_lists(self, name: str) -> Ragged:
        """A list of each setting that did not fail; where it does not have one it is empty."""
        ends = np.asarray(self._ends[name])[self._is_timed()].astype(np.int64)
        return Ragged(np.asarray(self._values[name]), ends)

    def timed_counts(self, name: str) -> np.ndarray:
        """Length of a list of each setting that did not fail, ``output_token_ids`` included; -1 where it has none."""
        if name == "output_token_ids":
            return np.array(self._num_output_token_ids)[self._is_timed()]
        return np.where(np.array(self._has[name], dtype=bool)[self._is_timed()], self.timed_lists(name).counts, -1)

    def trial_lists(self, name: str) -> Ragged:
        """A list with one value a trial; NaN for the trials of a setting that does not have it."""
        lists, ends = self.timed_lists(name), self.timed_lists("runtimes_s").ends
        if len(lists.flat) == ends[-1]:
            return lists
        values = np.full(ends[-1], np.nan)
        values[np.repeat(lists.counts > 0, np.diff(ends, prepend=0))] = lists.flat
        return Ragged(values, ends)


def least_energy_window_s(header) -> float:
    """Seconds that all trials of a setting last together, at least, for its joules to be used; 0 of unknown counters.

    Ten updates of the counter, so that what the first and the last one cut off is a few per cent: NVML's of a GPU moves
    every 0.1 s or so, RAPL's every millisecond.
    """
    counter = str(header.get("environment", {}).get("energy_counter") or "")
    return next((10 * period_s for name, period_s in _COUNTER_PERIODS_S.items() if counter.startswith(name)), 0.0)


class SettingsLog(Log):
    """A log of settings, each with all its trials.

    Attributes
    ----------
    slices : tuple of int
        Numbers of layers that are timed; of the whole model, or of slices of it.
    blocks : dict of list of dict
        By key, the ``block`` records of settings that are not complete: what was timed of them so far. In a log that
        chose its settings as it went, a block of a complete setting opens it again, its trials so far the first block;
        blocks that a ``guard`` record sets aside are in none.
    num_visits : int
        Numbers that its blocks were given.
    spent_s : float
        Seconds of all runs in blocks, warm-ups and what was set aside included.
    """

    measured = "setting"
    beside = ("block", "guard")
    key, place_in_key = staticmethod(setting_key), _KEY_COLUMNS.index("num_output_tokens")
    columns = Settings

    def __init__(self, path, header):
        self.blocks: dict[tuple, list[dict]] = defaultdict(list)
        self.num_visits, self.spent_s = 0, 0.0
        self._refused: set[tuple] = set()
        super().__init__(path, header)

    @property
    def is_sequential(self) -> bool:
        """Whether its settings and their trials were chosen as it went, for the target that its header names."""
        return isinstance(sweep := self.header.get("sweep"), dict) and "target" in sweep

    def keep(self, record):
        """Take in a record that was checked: a setting takes the place of its blocks, and of its refusal."""
        if record["record"] == "block":
            if (key := setting_key(record)) in self.completed:
                self.blocks[key].append(self._open_again(key))
            self.blocks[key].append(record)
            self.num_visits = max(self.num_visits, record.get("visit", 0))
            self.spent_s += sum(record["runtimes_s"]) + sum(record.get("warmups_s") or ())
        if record["record"] == "guard":
            self.kept["guard"].append(record)
            for key, blocks in list(self.blocks.items()):
                self.blocks[key] = [block for block in blocks if block.get("visit", 0) not in record["visits"]]
                if not self.blocks[key]:
                    del self.blocks[key]
        if record["record"] == "setting":
            self.blocks.pop(key := setting_key(record), None)
            if key in self._refused:
                self._refused.remove(key)
                self.records.take_out(key)
            if not self.is_final(record):
                self._refused.add(key)
        super().keep(record)

    def _open_again(self, key) -> dict:
        """What a complete setting holds, which then is not complete."""
        self.completed.discard(key)
        return self.records.take_out(key)

    def is_final(self, record):
        """Whether a setting need not be timed again: what does not fit the memory will not fit it another time."""
        return record.get("error", {}).get("type") != REFUSED

    def check_header(self):
        """Refuse a header that lacks what a reader needs, by a ValueError that says what."""
        header = self.header
        check_names(header, ("model", "hardware", "engine"))
        check_integers("the header's", header, PARALLELISM_COLUMNS, 1)
        for name, needed in (("software", ["megatron-core"]), ("architecture", [])):
            if not isinstance(header.get(name), dict) or any(key not in header[name] for key in needed):
                named = "".join(f" with {key}" for key in needed)
                raise ValueError(f"the header's {name} must be an object{named}; got {header.get(name)!r:.60}")
        profiled, num_layers = header.get("num_layers_profiled"), self.architecture().num_layers
        slices = profiled if isinstance(profiled, list) else [profiled]
        if not slices or not all(is_integer(size, 1) for size in slices):
            allowed = "an integer of at least 1, or a list of them"
            raise ValueError(f"the header's num_layers_profiled must be {allowed}; got {profiled!r:.60}")
        if len(set(slices)) < len(slices):
            raise ValueError(f"the header's num_layers_profiled has a slice twice: {profiled!r:.60}")
        if max(slices) > num_layers:
            raise ValueError(f"{max(slices)} layers profiled; the architecture has {num_layers}")
        self.slices = tuple(slices)

    def check_record(self, where: str, record: dict) -> dict:
        """The setting with what records lacked before there were micro-batches and slices.

        Without ``micro_batch_size`` or ``token_micro_batch_size`` the whole batch went together; without
        ``num_layers_profiled`` the header's one slice was timed.

        Raises
        ------
        LogFormatError
            A size or a runtime is not one, or the setting is repeated; the message begins with ``where``.
        """
        if record["record"] == "guard":
            return checked_guard(where, record)
        batch_size = record.get("batch_size")
        setting = {
            "micro_batch_size": batch_size,
            "token_micro_batch_size": batch_size,
            "num_layers_profiled": self.slices[0] if len(self.slices) == 1 else None,
            **record,
        }
        check_integers(f"{where}:", setting, (*SETTING_COLUMNS, "num_layers_profiled"), 1)
        for name in BATCH_COLUMNS[1:]:
            if batch_size % setting[name]:
                raise LogFormatError(f"{where}: {name} must divide the batch size, {batch_size}; got {setting[name]}")
        if (profiled := setting["num_layers_profiled"]) not in self.slices:
            allowed = f"one of the header's, {list(self.slices)}"
            raise LogFormatError(f"{where}: num_layers_profiled must be {allowed}; got {profiled}")
        if setting_key(setting) in self.completed and not (self.is_sequential and record["record"] == "block"):
            named = f"{setting_name(setting)} on {profiled} layers"
            raise LogFormatError(f"{where}: setting {named} stands here a second time")
        check_error(where, setting)
        if "error" not in setting:
            _check_times(where, setting)
        return setting

    def architecture(self) -> Architecture:
        """The architecture in its header."""
        return Architecture.from_dict(self.header["architecture"])

    @property
    def dtype(self) -> str:
        """Data type of weights and activations."""
        return self.header.get("dtype") or "float32"

    @property
    def hardware(self) -> str:
        """What was timed on."""
        return self.header["hardware"]

    @property
    def parallelism(self) -> tuple[int, int]:
        """Sizes of tensor and pipeline parallelism."""
        return tuple(self.header[name] for name in PARALLELISM_COLUMNS)

    @property
    def is_cuda(self) -> bool:
        """Whether kernels ran on a GPU."""
        return self.header["software"].get("cuda") is not None

    @property
    def num_layers_scaled(self) -> int:
        """Layers whose time was multiplied to that of the whole model: all, where it comes from a line through slices.

        The line counts once what does not grow with depth, as the whole model does.
        """
        return self.slices[0] if len(self.slices) == 1 else self.header["architecture"]["num_layers"]

    def trials_frame(self) -> pd.DataFrame:
        """One row a trial, of the whole model.

        Raises
        ------
        ValueError
            Several slices were timed: no trial tells the runtime of the whole model.
        """
        trials = self._timed_trials()
        rows = self.records.timed_rows()
        if len(slices := rows["num_layers_profiled"].unique()) > 1:
            raise ValueError(
                f"{self.path}: timed slices of {', '.join(map(str, slices))} layers, no trial of which tells the "
                "runtime of the whole model; read_log draws the line through them, load_log has the trials of each"
            )
        # Layers are identical, so time scales with depth.
        scale = self.header["architecture"]["num_layers"] / slices[0]
        runtimes = trials["runtime_s"]
        frame = pd.DataFrame({name: np.repeat(column.to_numpy(), runtimes.counts) for name, column in rows.items()})
        frame = self._identified(frame).assign(
            trial=np.arange(len(frame)) - np.repeat(runtimes.ends - runtimes.counts, runtimes.counts),
            **{name: scale * trials[name].flat for name in ("runtime_s", *TRIAL_LISTS)},
            trial_start_s=trials["trial_start_s"].flat,
            is_disturbed=runtimes.map(is_disturbed),
        )
        return with_frame_dtypes(frame)

    def settings_frame(self) -> pd.DataFrame:
        """One row a setting, of the whole model."""
        trials = self._timed_trials()
        is_held_up = trials["runtime_s"].map(is_disturbed)
        means = means_frame(self._identified(self.records.timed_rows()), trials, is_held_up)
        # A counter that moved a few times in all trials of a setting tells less than it seems to.
        is_short = means["num_trials"].astype(float) * means["runtime_s"] < least_energy_window_s(self.header)
        means["energy_joules"] = means["energy_joules"].mask(is_short)
        num_layers = self.header["architecture"]["num_layers"]
        return combine_slices(self.path, means, num_layers, num_slices=len(self.slices))

    def _identified(self, rows) -> pd.DataFrame:
        """Rows with what the header says of all of them."""
        software = self.header["software"]
        torch_version = f"torch {software.get('torch', 'of unknown version')}"
        stack = f"megatron-core {software['megatron-core']} {self.header['engine']}, {torch_version}"
        identity = {
            "model": self.header["model"],
            "hardware": self.header["hardware"],
            "software": f"{stack}, {self.header.get('dtype')}",
        }
        columns = {name: repeated(text, len(rows)) for name, text in identity.items()}
        columns |= {name: rows[name] for name in SETTING_COLUMNS} | {
            name: self.header[name] for name in PARALLELISM_COLUMNS
        }
        return pd.DataFrame({**columns, "num_layers_profiled": rows["num_layers_profiled"]}, copy=False)

    def _timed_trials(self) -> dict[str, Ragged]:
        """All that is known of each trial, as timed: of the slice, where only some layers were. A row a setting."""
        records = self.records
        if len(records.failed) == len(records):
            in_part = f"; of {len(self.blocks)} others a part: run it again to go on" if self.blocks else ""
            held = f"{len(records)} settings, all of which failed{in_part}"
            raise NothingTimedError(f"{self.path}: holds no timing: {held}")
        lists = {"runtime_s": "runtimes_s", **TRIAL_LISTS, "trial_start_s": "trial_starts_s"}
        return {name: records.trial_lists(listed) for name, listed in lists.items()}


def is_disturbed(runtimes_s: np.ndarray) -> np.ndarray:
    """Which trials of a setting, the last axis, were held up, by a rule that ordinary noise does not meet."""
    if runtimes_s.shape[-1] < _DISTURBED_MIN_TRIALS:
        return np.zeros(runtimes_s.shape, dtype=bool)
    median_s = np.median(runtimes_s, axis=-1, keepdims=True)
    excess_s = runtimes_s - median_s
    # 1.4826 turns the median absolute deviation of normal noise into its standard deviation.
    std_s = 1.4826 * np.median(np.abs(excess_s), axis=-1, keepdims=True)
    return (runtimes_s > _DISTURBED_FACTOR * median_s) & (excess_s > _DISTURBED_DEVIATIONS * std_s)


def disturbance_of(setting: dict) -> str | None:
    """What says that trials of a setting were held up; None where they scatter as they do on a quiet machine."""
    runtimes_s = np.array(setting["runtimes_s"])
    num_disturbed, mean_s = int(is_disturbed(runtimes_s).sum()), runtimes_s.mean()
    std_s = runtimes_s.std(ddof=1) if len(runtimes_s) > 1 else 0.0
    if std_s <= _QUIET_SPREAD * mean_s and not num_disturbed:
        return None
    held_up = f"; {num_disturbed} were held up, and readers leave them out" if num_disturbed else ""
    return (
        f"its {len(runtimes_s)} trials took {runtimes_s.min():.3g} to {runtimes_s.max():.3g} s, their standard "
        f"deviation is {std_s / mean_s:.0%} of the mean{held_up}"
    )


def _check_times(where, setting):
    runtimes_s = setting.get("runtimes_s")
    if not isinstance(runtimes_s, list) or not runtimes_s or not all(is_duration(t) for t in runtimes_s):
        raise LogFormatError(f"{where}: runtimes_s must be a list of positive seconds; got {runtimes_s!r:.60}")
    for listed in ("warmups_s", "later_warmups_s"):
        values = setting.get(listed) or []
        if not isinstance(values, list) or not all(map(is_duration, values)):
            raise LogFormatError(f"{where}: {listed} must be a list of positive seconds; got {values!r:.60}")
    for listed in _PER_TRIAL[1:]:
        values = setting.get(listed)
        if values is None:
            continue
        # A query of one output token generates none after its prompt: 0 s. A counter may not have moved: 0 J.
        if not isinstance(values, list) or not all(is_duration(value) or value == 0 for value in values):
            unit = "joules" if listed == "energies_joules" else "seconds"
            raise LogFormatError(f"{where}: {listed} must be a list of {unit}; got {values!r:.60}")
        if len(values) != len(runtimes_s):
            raise LogFormatError(f"{where}: {listed} has {len(values)} trials, runtimes_s {len(runtimes_s)}")
