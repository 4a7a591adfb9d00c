"""HELM run folders as one tidy frame, a row an instance, perturbation and train trial."""

import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from idealized_runtime.checks import warn_missing
from idealized_runtime.records.helm.accuracy import candidate_metrics, preferred_metrics
from idealized_runtime.records.helm.decoding import RunFormatError, StatsReader, read_run_spec
from idealized_runtime.records.helm.folders import PER_INSTANCE_STATS, RUN_SPEC, NoRunsError, find_run_folders

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
COLUMNS = [*IDENTITY_COLUMNS, "split", "perturbation", "train_trial", *NUMBER_COLUMNS, "accuracy_metric"]
# Of a scenario, HELM's tables show one.
SPLITS = ("test", "valid", "train")


class SkippedRunWarning(UserWarning):
    """Runs were left out: broken or half-written."""


class RepeatedRunWarning(UserWarning):
    """Runs stand in several folders, as in two suites; their instances count each time."""


@dataclass(frozen=True)
class _Run:
    """Arrays of one run, all of shape (rows,)."""

    scenario: str
    model: str
    accuracy_metric: str | None
    instance_ids: Sequence[str]
    splits: Sequence[str | None]
    perturbations: Sequence[str | None]
    train_trials: np.ndarray
    numbers: dict[str, np.ndarray]

    def of_split(self, split: str) -> "_Run":
        """The same run without instances of other splits; those that name none stay."""
        kept = np.flatnonzero([it in (split, None) for it in self.splits])
        if len(kept) == len(self.splits):
            return self
        lists = {
            name: [getattr(self, name)[row] for row in kept] for name in ("instance_ids", "splits", "perturbations")
        }
        numbers = {name: values[kept] for name, values in self.numbers.items()}
        return replace(self, **lists, train_trials=self.train_trials[kept], numbers=numbers)


def read_runs(
    folder: str | os.PathLike,
    *,
    accuracy_metric: str | Mapping[str, str] | None = None,
    splits: Sequence[str] | None = None,
    is_perturbed: bool = False,
) -> pd.DataFrame:
    """The instances of every HELM run at or below a folder.

    Parameters
    ----------
    folder : path-like
        A run, a suite, or HELM's whole output. Links are followed, and a folder counts once.
    accuracy_metric : str, mapping or None
        HELM metric for the column ``accuracy``: one for all runs, or one by scenario or run group.
        Without it HELM's main metric of the scenario, or what comes nearest of what the run reports
        (:mod:`idealized_runtime.records.helm.accuracy`).
    splits : sequence of str, optional
        Whose instances are read, of :data:`SPLITS`. Without it those of HELM's tables: test or, in a run that has none,
        valid; a run with both holds valid instances that no table counts.
    is_perturbed : bool
        Whether perturbed instances are read beside the plain ones.

    Returns
    -------
    DataFrame
        One row an instance, perturbation and train trial, in the order of folders and files: ``scenario`` (the run's
        name without the model), ``model`` (``openai/davinci``), ``instance_id``, ``split``, ``perturbation`` (its name;
        missing of a plain instance), ``train_trial``, ``num_prompt_tokens``,
        ``num_output_tokens``, ``raw_runtime_s``, ``denoised_runtime_s``, ``idealized_runtime_s`` (seconds),
        ``accuracy`` and the ``accuracy_metric`` behind it, missing where the run reports none. Names are categorical.
        What HELM did not compute (no such metric, count 0, not finite)
        is NaN. Where an instance took several requests (a choice each, or windows of a long text), values are means
        over them, as in HELM's tables. The raw runtime of a query that ran in a batch is that of the batch, as HELM
        records it.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        There is no such folder.
    NoRunsError
        The folder has no run, or none that can be read; the message says which and why.
    ValueError
        No run reports ``accuracy_metric``, or there is no such split.

    Warns
    -----
    SkippedRunWarning
        Runs left out, each with its path and the reason, and their count.
    RepeatedRunWarning
        A run stands in several folders; its instances are there once for each.
    MissingValueWarning
        Rows without accuracy, counted by scenario.

    Examples
    --------
    >>> instances = read_runs("benchmark_output/runs/v1.0")  # doctest: +SKIP
    >>> instances.groupby("model")["num_output_tokens"].sum()  # doctest: +SKIP
    """
    if unknown := set(splits or ()) - set(SPLITS):
        raise ValueError(f"splits must be of {', '.join(SPLITS)}; got {', '.join(map(str, sorted(unknown)))}")
    paths, skipped = find_run_folders(folder)
    metrics = [*EFFICIENCY_METRICS.values(), *candidate_metrics(accuracy_metric)]
    reader, folders_of = StatsReader(metrics), defaultdict(list)

    def runs() -> Iterator[_Run]:
        for path in paths:
            try:
                spec = read_run_spec(path / RUN_SPEC)
                sums = _Sums(metrics, splits, is_perturbed)
                run = _read_run(path, spec, reader, sums, accuracy_metric)
            except OSError as error:
                skipped[path] = f"{Path(error.filename or '').name}: {error.strerror or error}".removeprefix(": ")
            except RunFormatError as error:
                skipped[path] = str(error)
            else:
                folders_of[spec.name].append(path)
                yield run
        if not folders_of:
            raise NoRunsError(f"{folder}: {_describe_skipped(skipped, paths) if skipped else _NO_RUNS}")

    frame = _collect(runs())
    if skipped:
        warnings.warn(_describe_skipped(skipped, paths), SkippedRunWarning, stacklevel=2)
    if repeated := [(name, found) for name, found in folders_of.items() if len(found) > 1]:
        name, found = repeated[0]
        warnings.warn(
            f"{len(repeated)} HELM runs stand in several folders, and each folder was read; the first is {name}: "
            f"{', '.join(map(str, found))}. Give one suite's folder to count a run once",
            RepeatedRunWarning,
            stacklevel=2,
        )
    if isinstance(accuracy_metric, str) and frame["accuracy_metric"].isna().all():
        raise ValueError(f"{folder}: no run reports accuracy_metric={accuracy_metric!r} for its instances")
    warn_missing(frame["accuracy"].isna().to_numpy(), "have no accuracy", labels=frame["scenario"])
    return frame


def _read_run(path, spec, reader, sums, accuracy_metric) -> _Run:
    for entries in reader.read(path / PER_INSTANCE_STATS, spec.scenario.partition(":")[0]):
        sums.add(entries)
    if not sums.rows:
        raise RunFormatError(f"{PER_INSTANCE_STATS}: no instance of the splits that are read, or only perturbed ones")
    preferred = preferred_metrics(spec.scenario, spec.groups, accuracy_metric)
    metric = next((name for name in preferred if sums.is_reported(name)), None)
    numbers = {column: sums.mean(name) for column, name in EFFICIENCY_METRICS.items()}
    numbers["accuracy"] = sums.mean(metric)
    instance_ids, train_trials, splits, perturbations = zip(*sums.rows, strict=True)
    run = _Run(
        spec.scenario,
        spec.model,
        metric,
        instance_ids,
        splits,
        [perturbation and perturbation[0] for perturbation in perturbations],
        np.array(train_trials, np.int32),
        numbers,
    )
    return run if sums.is_chosen or "test" not in splits else run.of_split("test")


def _describe_skipped(skipped, paths) -> str:
    lines = [f"skipped {len(skipped)} of {len(skipped.keys() | set(paths))} HELM runs"]
    return "\n  ".join(lines + [f"{path}: {reason}" for path, reason in sorted(skipped.items())])


class _Sums:
    """Statistics of the wanted metrics by row: (instance id, train trial, split, perturbation)."""

    def __init__(self, metrics, splits, is_perturbed):
        self.rows = {}
        self.is_chosen = splits is not None
        # Which of test and valid is HELM's tells the whole file.
        self._splits = frozenset(splits if self.is_chosen else ("test", "valid", None))
        self._is_perturbed = is_perturbed
        self._found = {name: ([], []) for name in metrics}

    def add(self, entries):
        rows, found, is_perturbed = self.rows, self._found, self._is_perturbed
        for entry, stats in entries:
            context = (stats or entry.stats)[0].name if entry.stats else None
            split = context and context.split
            perturbation = entry.perturbation
            is_plain = perturbation is None and (context is None or context.perturbation is None)
            if not (is_plain or is_perturbed) or split not in self._splits:
                continue
            if not is_plain:
                # Two of one name differ in their parameters.
                perturbation = (str((perturbation or {}).get("name")), str(perturbation))
            row = rows.setdefault((entry.instance_id, entry.train_trial_index, split, perturbation), len(rows))
            for stat in stats:
                name = stat.name
                # What a metric computed of another split or of a perturbation beside it belongs to another row.
                if name.split == split and (name.perturbation is None) is is_plain:
                    where, what = found[name.name]
                    where.append(row)
                    what.append(stat)

    def is_reported(self, metric) -> bool:
        stats = self._found[metric][1]
        return bool(stats) and any(stat.count for stat in stats)

    def mean(self, metric: str | None) -> np.ndarray:
        """Mean by row over all requests, shape (rows,): NaN where the metric is missing."""
        num_rows = len(self.rows)
        rows, stats = self._found.get(metric, ([], []))
        sums = np.array([stat.sum for stat in stats], dtype=float)
        counts = [stat.count for stat in stats]
        if rows == list(range(num_rows)) and counts.count(1) == num_rows:
            return sums
        rows = np.array(rows, dtype=np.intp)
        totals = np.bincount(rows, weights=sums, minlength=num_rows)
        counts = np.bincount(rows, weights=counts, minlength=num_rows)
        return np.divide(totals, counts, out=np.full(num_rows, np.nan), where=counts > 0)


def _collect(runs) -> pd.DataFrame:
    """One frame of all runs: names as codes into the distinct ones, numbers as they come."""
    names = {column: {} for column in (*IDENTITY_COLUMNS, "split", "perturbation", "accuracy_metric")}
    parts = {column: [] for column in COLUMNS}

    def add_names(column, values):
        known = names[column]
        # No name is the code -1 of what is missing.
        codes = [-1 if value is None else known.setdefault(value, len(known)) for value in values]
        parts[column].append(np.array(codes, np.int32))

    num_rows = []
    for run in runs:
        num_rows.append(len(run.instance_ids))
        for column in ("scenario", "model", "accuracy_metric"):
            add_names(column, [getattr(run, column)])
        for column, values in (
            ("instance_id", run.instance_ids),
            ("split", run.splits),
            ("perturbation", run.perturbations),
        ):
            add_names(column, values)
        parts["train_trial"].append(run.train_trials)
        for column in NUMBER_COLUMNS:
            parts[column].append(run.numbers[column])
    for column in ("scenario", "model", "accuracy_metric"):
        parts[column] = [np.repeat(np.concatenate(parts[column]), num_rows)]
    columns = {}
    for column in COLUMNS:
        # Popped, so that the parts of a column are free before the next is joined.
        joined = np.concatenate(parts.pop(column))
        columns[column] = pd.Categorical.from_codes(joined, list(names[column])) if column in names else joined
    return pd.DataFrame(columns, copy=False)
