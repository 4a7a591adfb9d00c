"""HELM run folders as one tidy frame, a row an instance and train trial."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from idealized_runtime.helm.accuracy import candidate_metrics, preferred_metrics
from idealized_runtime.helm.decoding import Entry, RunFormatError, RunSpec, iter_entries, read_run_spec
from idealized_runtime.helm.folders import PER_INSTANCE_STATS, RUN_SPEC, NoRunsError, find_run_folders

# Column -> HELM's metric.
EFFICIENCY_METRICS = {
    "num_prompt_tokens": "num_prompt_tokens",
    "num_output_tokens": "num_output_tokens",
    "raw_runtime_s": "inference_runtime",
    "denoised_runtime_s": "inference_denoised_runtime",
    "idealized_runtime_s": "inference_idealized_runtime",
}
IDENTITY_COLUMNS = ("scenario", "model", "instance_id")
NUMBER_COLUMNS = (*EFFICIENCY_METRICS, "accuracy")
_NO_RUNS = (
    f"no HELM run at or below this folder; a run is a folder with {RUN_SPEC} and {PER_INSTANCE_STATS}, "
    "which helm-run writes to benchmark_output/runs/<suite>/<run>/"
)
COLUMNS = [*IDENTITY_COLUMNS, "train_trial", *NUMBER_COLUMNS]


class SkippedRunWarning(UserWarning):
    """Runs were left out: broken, half-written, or the same run again."""


@dataclass(frozen=True)
class _Run:
    """Arrays of one run, all of shape (rows,)."""

    scenario: str
    model: str
    accuracy_metric: str | None
    instance_ids: list[str]
    train_trials: np.ndarray
    numbers: dict[str, np.ndarray]


def read_runs(folder, *, accuracy_metric: str | Mapping[str, str] | None = None) -> pd.DataFrame:
    """Every instance of every HELM run at or below a folder.

    Parameters
    ----------
    folder : path-like
        A run, a suite, or HELM's whole output. Links are followed, and a folder counts once. Where
        suites hold a run of the same name, the last suite in natural order counts, as HELM's own
        summary takes the latest.
    accuracy_metric : str, mapping or None
        HELM metric for the column ``accuracy``: one for all runs, or one by scenario or run group.
        Without it HELM's main metric of the scenario, or what comes nearest of what the run reports
        (:mod:`idealized_runtime.helm.accuracy`).

    Returns
    -------
    DataFrame
        One row an instance and train trial, in the order of folders and files: ``scenario`` (the
        run's name without the model), ``model`` (``openai/davinci``), ``instance_id``,
        ``train_trial``, ``num_prompt_tokens``, ``num_output_tokens``, ``raw_runtime_s``,
        ``denoised_runtime_s``, ``idealized_runtime_s`` (seconds), ``accuracy``. Names are
        categorical. Perturbed and training instances are left out; what HELM did not compute (no
        such metric, count 0, not finite) is NaN. Where an instance took several requests (a choice
        each, or windows of a long text), values are means over them, as in HELM's tables. The raw
        runtime of a query that ran in a batch is that of the batch, as HELM records it.
        ``attrs["accuracy_metrics"]`` lists the metrics behind ``accuracy`` by scenario.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        There is no such folder.
    NoRunsError
        The folder has no run, or none that can be read; the message says which and why.
    ValueError
        No run reports ``accuracy_metric``.

    Warns
    -----
    SkippedRunWarning
        Runs left out, each with its path and the reason, and their count.
    """
    runs = _Runs(folder, accuracy_metric)
    frame = _collect(runs.read())
    runs.warn_of_skipped(stacklevel=3)
    if isinstance(accuracy_metric, str) and not any(frame.attrs["accuracy_metrics"].values()):
        raise ValueError(f"{folder}: no run reports accuracy_metric={accuracy_metric!r} for its instances")
    return frame


def iter_runs(folder, *, accuracy_metric: str | Mapping[str, str] | None = None) -> Iterator[pd.DataFrame]:
    """Frames of :func:`read_runs`, one a run, for more runs than fit into memory.

    Runs left out are warned of when the iterator ends or is closed.
    """
    return _iter_frames(_Runs(folder, accuracy_metric))


def _iter_frames(runs):
    try:
        for run in runs.read():
            yield _collect([run])
    finally:
        runs.warn_of_skipped(stacklevel=3)


class _Runs:
    """The runs at or below a folder, and why some of them were skipped."""

    def __init__(self, folder, accuracy_metric):
        self._folder, self._accuracy_metric = folder, accuracy_metric
        self._paths, self._skipped = find_run_folders(folder)
        self._num_read = 0

    def read(self) -> Iterator[_Run]:
        paths_by_name, specs = self._read_specs()
        for name, paths in paths_by_name.items():
            run = self._read_first(paths, specs[name])
            if run is not None:
                self._num_read += 1
                yield run
        if not self._num_read:
            raise NoRunsError(f"{self._folder}: {self._describe_skipped() if self._skipped else _NO_RUNS}")

    def warn_of_skipped(self, *, stacklevel):
        if self._skipped and self._num_read:
            warnings.warn(self._describe_skipped(), SkippedRunWarning, stacklevel=stacklevel)

    def _read_specs(self) -> tuple[dict[str, list[Path]], dict[str, RunSpec]]:
        """Folders by run name, the latest suite first; and each name's specification."""
        paths_by_name, specs = {}, {}
        for path in self._paths:
            try:
                spec = read_run_spec(path / RUN_SPEC)
            except (OSError, RunFormatError) as error:
                self._skipped[path] = _reason(error)
                continue
            specs[spec.name] = spec
            paths_by_name.setdefault(spec.name, []).insert(0, path)
        return paths_by_name, specs

    def _read_first(self, paths, spec) -> _Run | None:
        """The first of these folders that can be read."""
        run = read_path = None
        for path in paths:
            if run is not None:
                self._skipped[path] = f"the same run as {read_path}, which was read"
                continue
            try:
                run, read_path = _read_run(path, spec, self._accuracy_metric), path
            except (OSError, RunFormatError) as error:
                self._skipped[path] = _reason(error)
        return run

    def _describe_skipped(self) -> str:
        num_found = len(self._skipped.keys() | set(self._paths))
        lines = [f"skipped {len(self._skipped)} of {num_found} HELM runs"]
        return "\n  ".join(lines + [f"{path}: {reason}" for path, reason in sorted(self._skipped.items())])


def _reason(error) -> str:
    if isinstance(error, OSError):
        return f"{Path(error.filename or '').name}: {error.strerror or error}".removeprefix(": ")
    return str(error)


def _read_run(path: Path, spec: RunSpec, accuracy_metric) -> _Run:
    candidates = candidate_metrics(accuracy_metric)
    sums = _Sums({*EFFICIENCY_METRICS.values(), *candidates})
    for entry in iter_entries(path / PER_INSTANCE_STATS):
        sums.add(entry)
    if not sums.rows:
        raise RunFormatError(f"{PER_INSTANCE_STATS}: no instance that is neither perturbed nor of the train split")
    preferred = preferred_metrics(spec.scenario, spec.groups, accuracy_metric)
    metric = next((name for name in preferred if sums.is_reported(name)), None)
    numbers = {column: sums.mean(name) for column, name in EFFICIENCY_METRICS.items()}
    numbers["accuracy"] = sums.mean(metric)
    train_trials = np.fromiter((trial for _, trial in sums.rows), np.int32, len(sums.rows))
    return _Run(spec.scenario, spec.model, metric, [name for name, _ in sums.rows], train_trials, numbers)


class _Sums:
    """Sums and counts of the wanted metrics by row, where a row is an (instance id, train trial)."""

    def __init__(self, metrics):
        self.rows = {}
        self._found = {name: ([], [], []) for name in metrics}

    def add(self, entry: Entry):
        if entry.perturbation is not None or (entry.stats and not entry.stats[0].name.is_evaluation):
            return
        row = self.rows.setdefault((entry.instance_id, entry.train_trial_index), len(self.rows))
        for stat in entry.stats:
            found = self._found.get(stat.name.name)
            if found is not None and stat.count and stat.name.is_evaluation:
                found[0].append(row)
                found[1].append(stat.sum)
                found[2].append(stat.count)

    def is_reported(self, metric) -> bool:
        return bool(self._found[metric][0])

    def mean(self, metric: str | None) -> np.ndarray:
        """Mean by row over all requests, shape (rows,): NaN where the metric is missing."""
        rows, sums, counts = self._found.get(metric, ([], [], []))
        rows = np.array(rows, dtype=np.intp)
        totals = np.bincount(rows, weights=np.array(sums, dtype=float), minlength=len(self.rows))
        counts = np.bincount(rows, weights=np.array(counts, dtype=float), minlength=len(self.rows))
        return np.divide(totals, counts, out=np.full(len(self.rows), np.nan), where=counts > 0)


def _collect(runs) -> pd.DataFrame:
    """One frame of all runs: names as codes into the distinct ones, numbers as they come."""
    names = {column: {} for column in IDENTITY_COLUMNS}
    parts = {column: [] for column in COLUMNS}
    metrics = {}
    for run in runs:
        num_rows = len(run.instance_ids)
        for column, values in (("scenario", [run.scenario]), ("model", [run.model]), ("instance_id", run.instance_ids)):
            codes = _codes(values, names[column])
            parts[column].append(codes if column == "instance_id" else np.repeat(codes, num_rows))
        parts["train_trial"].append(run.train_trials)
        for column in NUMBER_COLUMNS:
            parts[column].append(run.numbers[column])
        metrics.setdefault(run.scenario, set()).update([run.accuracy_metric] if run.accuracy_metric else [])
    frame = _frame(parts, names)
    frame.attrs["accuracy_metrics"] = {scenario: sorted(found) for scenario, found in metrics.items()}
    return frame


def _codes(values, known: dict) -> np.ndarray:
    return np.fromiter((known.setdefault(value, len(known)) for value in values), np.int32, len(values))


def _frame(parts, names) -> pd.DataFrame:
    columns = {}
    for column in COLUMNS:
        # Popped, so that the parts of a column are free before the next is joined.
        joined = np.concatenate(parts.pop(column))
        columns[column] = pd.Categorical.from_codes(joined, list(names[column])) if column in names else joined
    return pd.DataFrame(columns, copy=False)
