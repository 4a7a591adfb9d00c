"""What every JSON Lines log shares once it is parsed, whatever it holds."""

import warnings
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from idealized_runtime.records.common import (
    FRAME_COLUMNS,
    IncompleteLogWarning,
    Keys,
    LogFormatError,
    setting_name,
    with_frame_dtypes,
)
from idealized_runtime.statistics.ragged import Ragged

SCHEMA_VERSION = 1
# What is known of each trial next to its runtime: its two parts, which add up to it, and its energy.
TRIAL_MEANS = ("prompt_encoding_time_s", "generation_time_s", "energy_joules")


class Log:
    """The parsed lines of one log. What is read and what is written pass the same check.

    A kind of log, :class:`~idealized_runtime.records.settings.SettingsLog` or
    :class:`~idealized_runtime.records.requests.RequestsLog`, says what its header and records must be
    (``check_header``, ``check_record``), what tells one measured record from another (``key``), in what they are kept
    (``columns``), and what they are as frames (``trials_frame``, ``settings_frame``).

    Parameters
    ----------
    path : Path or None
        For messages.
    header : dict
        Its first record.

    Attributes
    ----------
    records : sequence of dict
        What was measured, in the order of the file; what failed is there with its ``error``.
    kept : dict of list of dict
        Other records behind the header, by their kind: of runs that stopped or went on, and the footer.
    completed : set of tuple
        Keys of what need not be measured again.
    is_complete : bool
        Whether a footer ended it.
    is_intact : bool or None
        Whether its lines are those that the footer's checksum was taken of; None where it has none.

    Raises
    ------
    ValueError
        The header is of another schema version, or lacks what a reader needs.
    """

    # The kind of record that holds what was measured, which a footer counts; and others that this kind of log has.
    measured: str
    beside: tuple[str, ...] = ()
    # Which entry of a key differs most.
    place_in_key: int
    # What an API does not tell.
    dtype: str | None = None
    is_cuda = False
    num_layers_scaled: int | None = None
    was_killed = False

    def __init__(self, path: Path | None, header: dict):
        if (version := header.get("schema_version")) != SCHEMA_VERSION:
            raise ValueError(f"schema version {version!r}; this release reads version {SCHEMA_VERSION}")
        self.path, self.header = path, header
        self.records = self.columns()
        self.kept: dict[str, list[dict]] = defaultdict(list)
        self.completed = Keys(self.place_in_key)
        self.is_complete, self.is_intact = False, None
        self.last_record = "header"
        self.check_header()

    @property
    def failed(self) -> list[dict]:
        """The measured records that are errors."""
        return [self.records[number] for number in self.records.failed]

    @property
    def measured_on(self) -> str:
        """ISO date of the measurement; empty where the header does not tell."""
        return str(self.header.get("started_at") or "")[:10]

    @property
    def machine_rates(self) -> list:
        """Rates of the machine, once for each time that the driver measured them."""
        return self.told_of_environment("machine_rates")

    def told_of_environment(self, name: str) -> list:
        """What runs have found out of the machine under this name, in their order."""
        environments = [record.get("environment") for record in (self.header, *self.kept["resume"])]
        found = [environment.get(name) for environment in environments if isinstance(environment, dict)]
        return [value for value in found if value is not None]

    def check(self, where: str, record: dict) -> dict:
        """A record that may come next, in full.

        Raises
        ------
        LogFormatError
            It may not; the message begins with ``where``.
        """
        kind = record["record"]
        if kind == "header":
            raise LogFormatError(f"{where}: a second header; a log holds one measurement")
        if self.is_complete:
            raise LogFormatError(f"{where}: a {kind!r} record after the footer")
        if kind in (self.measured, *self.beside):
            return self.check_record(where, record)
        if kind not in ("stop", "resume", "footer"):
            raise LogFormatError(f"{where}: a {kind!r} record; its header announces the other kind of log")
        if kind == "footer" and (count := record.get(f"num_{self.measured}s")) != len(self.records):
            raise LogFormatError(
                f"{where}: the footer counts {count} {self.measured}s; the log holds {len(self.records)}"
            )
        return record

    def keep(self, record: dict):
        """Take in a record that was checked."""
        kind = self.last_record = record["record"]
        self.is_complete = kind == "footer"
        if kind == self.measured:
            self.records.append(record)
            if self.is_final(record):
                self.completed.add(self.key(record))
        elif kind not in self.beside:
            self.kept[kind].append(record)

    def is_final(self, record: dict) -> bool:
        """Whether a measured record need not be measured again; what failed may succeed another time."""
        return "error" not in record

    def frame(self) -> pd.DataFrame:
        """One row a setting, as :func:`idealized_runtime.records.read_log` gives it."""
        self.warn_if_partial(stacklevel=4)
        return with_frame_dtypes(self.settings_frame().assign(runtime_resolution_s=0.0)[FRAME_COLUMNS])

    def requests_frame(self) -> pd.DataFrame:
        """One row a request, as :func:`idealized_runtime.records.read_requests` gives it."""
        raise LogFormatError(f"{self.path}: holds settings timed in process; read them with read_log or read_trials")

    def warn_if_partial(self, *, stacklevel: int = 3):
        """Warn of a log without footer, and of what failed in it."""
        causes = []
        if not self.is_complete:
            held = f"{len(self.records)} {self.measured}s"
            causes.append(f"incomplete: no footer after {held}; run it again to resume")
        if failed := self.failed:
            named = dict.fromkeys(f"{setting_name(record)} ({record['error']['type']})" for record in failed)
            causes.append(f"{len(failed)} {self.measured}s failed and are left out: {', '.join(named)}")
        for cause in causes:
            warnings.warn(f"{self.path}: {cause}", IncompleteLogWarning, stacklevel=stacklevel)


def means_frame(settings: pd.DataFrame, trials: Mapping[str, Ragged], is_disturbed: np.ndarray) -> pd.DataFrame:
    """What was measured of each setting and slice, beside the columns that tell one from another.

    Parameters
    ----------
    settings : DataFrame, one row a setting and slice
    trials : mapping of Ragged
        A row a setting: ``runtime_s``, ``trial_start_s`` and the ``TRIAL_MEANS``, NaN where the log does not have one.
    is_disturbed : bool array, one a trial
    """
    # A neighbour on the machine slows a few trials several times over: they say nothing about the model.
    num_disturbed = trials["runtime_s"].counts
    trials = {name: column.where(~is_disturbed) for name, column in trials.items()}
    runtimes, starts = trials["runtime_s"], trials["trial_start_s"]
    return settings.assign(
        runtime_s=runtimes.reduce(np.mean),
        runtime_std_s=runtimes.reduce(partial(np.std, ddof=1), least=2),
        runtime_min_s=runtimes.reduce(np.min),
        num_trials=runtimes.counts,
        num_disturbed=num_disturbed - runtimes.counts,
        # Trials in their order tell whether they depend on those before them.
        trial_runtimes_s=runtimes.tuples(),
        trial_starts_s=starts.tuples(),
        **{name: trials[name].reduce(np.mean) for name in TRIAL_MEANS},
    )
