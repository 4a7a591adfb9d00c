"""What every JSON Lines log shares once it is parsed, whatever it holds."""

import warnings
from collections import defaultdict
from pathlib import Path

import pandas as pd

from idealized_runtime.records.common import (
    FRAME_COLUMNS,
    IDENTITY_COLUMNS,
    PARALLELISM_COLUMNS,
    SETTING_COLUMNS,
    IncompleteLogWarning,
    LogFormatError,
    setting_name,
    with_frame_dtypes,
)

SCHEMA_VERSION = 1


class Log:
    """The parsed lines of one log. What is read and what is written pass the same check.

    A kind of log, :class:`~idealized_runtime.records.settings.SettingsLog` or
    :class:`~idealized_runtime.records.requests.RequestsLog`, says what its header and records must be
    (``check_header``, ``check_record``), what tells one measured record from another (``key``), and what they are as
    frames (``trials_frame``, ``settings_frame``).

    Parameters
    ----------
    path : Path or None
        For messages.
    header : dict
        Its first record.

    Attributes
    ----------
    kept : dict of list of dict
        Records behind the header, by their kind; what old ones lack is filled in.
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
    # What an API does not tell.
    dtype: str | None = None
    is_cuda = False
    num_layers_scaled: int | None = None
    was_killed = False

    def __init__(self, path: Path | None, header: dict):
        if (version := header.get("schema_version")) != SCHEMA_VERSION:
            raise ValueError(f"schema version {version!r}; this release reads version {SCHEMA_VERSION}")
        self.path, self.header = path, header
        self.kept: dict[str, list[dict]] = defaultdict(list)
        self.completed: set[tuple] = set()
        self.is_complete, self.is_intact = False, None
        self.last_record = "header"
        self.check_header()

    @property
    def records(self) -> list[dict]:
        """What was measured, in the order of the file; what failed is there with its ``error``."""
        return self.kept[self.measured]

    @property
    def failed(self) -> list[dict]:
        """The measured records that are errors."""
        return [record for record in self.records if "error" in record]

    @property
    def measured_on(self) -> str:
        """ISO date of the measurement; empty where the header does not tell."""
        return str(self.header.get("started_at") or "")[:10]

    @property
    def machine_rates(self) -> list:
        """Rates of the machine, once for each time that the driver measured them."""
        environments = [record.get("environment") for record in (self.header, *self.kept["resume"])]
        measured = [environment.get("machine_rates") for environment in environments if isinstance(environment, dict)]
        return [rates for rates in measured if rates is not None]

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
        self.kept[kind].append(record)
        self.is_complete = kind == "footer"
        if kind == self.measured and self.is_final(record):
            self.completed.add(self.key(record))

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


def means_frame(trials: pd.DataFrame) -> pd.DataFrame:
    """One row a setting and slice, from one row a trial."""
    keys = [*IDENTITY_COLUMNS, *SETTING_COLUMNS, *PARALLELISM_COLUMNS, "num_layers_profiled"]
    # What an API does not tell is missing, and a key all the same.
    num_disturbed = trials.groupby(keys, sort=False, dropna=False)["is_disturbed"].sum().to_numpy()
    # A neighbour on the machine slows a few trials several times over: they say nothing about the model.
    kept = trials[~trials["is_disturbed"]].groupby(keys, sort=False, dropna=False)
    frame = kept["runtime_s"].agg(runtime_s="mean", runtime_std_s="std", runtime_min_s="min", num_trials="size")
    parts = kept[["prompt_encoding_time_s", "generation_time_s", "energy_joules"]].mean()
    # Trials in their order tell whether they depend on those before them.
    order, ends = kept.ngroup().dropna().sort_values(kind="stable").index, frame["num_trials"].cumsum()
    in_order = trials.loc[order]
    lists = {
        column: [tuple(values[end - count : end]) for count, end in zip(frame["num_trials"], ends, strict=True)]
        for column, values in (
            ("trial_runtimes_s", in_order["runtime_s"].tolist()),
            ("trial_starts_s", in_order["trial_start_s"].tolist()),
        )
    }
    frame = frame.assign(num_disturbed=num_disturbed, **lists).join(parts).reset_index()
    is_unknown = kept["trial_start_s"].count().to_numpy() < frame["num_trials"]
    return frame.assign(trial_starts_s=frame["trial_starts_s"].mask(is_unknown, None))
