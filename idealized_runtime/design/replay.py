"""Designs replayed: on a log of a whole grid, whose trials are drawn with the scatter it prints and whose means are the
truth; and on the log of a design itself, block by block."""

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from idealized_runtime.checks import parse_json
from idealized_runtime.design.belief import Prior
from idealized_runtime.design.deviations import UNKNOWN
from idealized_runtime.design.priors import prior_from_others
from idealized_runtime.design.sequential import SequentialDesign, Stopped
from idealized_runtime.fits import RuntimeModel
from idealized_runtime.measurements.timed_models import TimedModel
from idealized_runtime.queries.tables import grid_queries
from idealized_runtime.records import SuspiciousLogWarning, parse_log
from idealized_runtime.records.common import TOKEN_COLUMNS
from idealized_runtime.records.settings import is_disturbed
from idealized_runtime.statistics.errors import summarize_errors
from idealized_runtime.statistics.intervals import draw_log_normal

# Runs of each setting, warm-ups included, behind the published logs (arXiv:2305.02440).
PUBLISHED_RUNS = 60
# And of a sweep of the driver with its defaults: 10 warm-ups, 50 trials in 5 blocks, of which each but the first has a
# warm-up more.
DEFAULT_RUNS = 64
# Of the mean of one visit from its curve, in units of a trial's deviation: a share of 0.25 of its variance.
_SETTING = 0.5
_TRIAL_COLUMNS = [*TOKEN_COLUMNS, "trial", "runtime_s"]
_EACH_TRIAL = ["trial_start_s", "runtime_s"]


class ReplayedModel:
    """A timed model that can be timed again: the mean and standard deviation of each setting of its log.

    Parameters
    ----------
    timed : TimedModel
        Whose log is of one sequence at a time.
    num_warmups : int
        Runs before the trials of a setting whenever it is timed, that count as device time and for nothing else.
    seed : int

    Attributes
    ----------
    settings : DataFrame
        The log's: what is true of each setting here.
    device_s : float
        Seconds of all runs so far.
    """

    def __init__(self, timed: TimedModel, *, num_warmups: int = 1, seed: int = 0):
        self.settings = timed.fit.settings
        self.num_warmups, self.device_s = num_warmups, 0.0
        self._rng = np.random.default_rng(seed)
        self._moments = self.settings.set_index(TOKEN_COLUMNS)[["runtime_s", "runtime_std_s"]]
        self._trials = []

    @property
    def published_device_s(self) -> float:
        """Seconds of every run behind the published log."""
        return PUBLISHED_RUNS * float(self.settings["runtime_s"].sum())

    @property
    def timings(self) -> pd.DataFrame:
        """Trials so far, one a row."""
        return pd.DataFrame(self._trials, columns=_TRIAL_COLUMNS)

    def time(self, settings: Iterable[tuple[int, int, int]]):
        """Time settings of so many prompt and output tokens, each with so many trials, one after the other."""
        for p, o, num_trials in settings:
            mean_s, std_s = self._moments.loc[(p, o)]
            runs_s = draw_log_normal(
                [mean_s], [np.nan_to_num(std_s)], num_draws=num_trials + self.num_warmups, rng=self._rng
            )[:, 0]
            self.device_s += float(runs_s.sum())
            first = len(self._trials)
            self._trials += [(p, o, first + i, run_s) for i, run_s in enumerate(runs_s[self.num_warmups :])]

    def result(self, predicted_s, bounds_s=None) -> dict:
        """Device time, its ratio to the published log's, and how far predictions of all settings are off.

        Returns
        -------
        dict
            ``device_s, times_cheaper, num_trials``; ``median, p95, max`` of the magnitudes of relative errors;
            ``covered``, the share of settings that intervals hold, of what a rounded mean may have been; ``errors``.
        """
        runtime_s = self.settings["runtime_s"].to_numpy()
        errors, row = predicted_s / runtime_s - 1, {}
        if bounds_s is not None:
            half_s = self.settings["runtime_resolution_s"].to_numpy() / 2
            row["covered"] = np.mean((bounds_s[0] <= runtime_s + half_s) & (runtime_s - half_s <= bounds_s[1]))
        return {
            "device_s": self.device_s, "times_cheaper": self.published_device_s / self.device_s,
            "num_trials": len(self._trials), **summarize_errors(errors), **row, "errors": errors,
        }  # fmt: skip


def replay_sequential(
    timed: TimedModel, *, prior: Prior | None, max_seconds: float, target_error: float = 1e-6, level=0.95, seed=0
) -> pd.DataFrame:
    """What a sequential design knows after each block, and how true it is.

    Parameters
    ----------
    timed : TimedModel
    prior : Prior or None
        As of :class:`SequentialDesign`; it must not come from the model's own log.
    max_seconds, target_error, level, seed
        As of it.

    Returns
    -------
    DataFrame, one row a block
        As :meth:`ReplayedModel.result` has it, and ``claimed_error``; ``rule`` by which the last one was that.
    """
    model = ReplayedModel(timed, seed=seed)
    sizes = (model.settings[name] for name in TOKEN_COLUMNS)
    design = SequentialDesign(
        **dict(zip(("prompt_sizes", "output_sizes"), sizes, strict=True)), target_error=target_error,
        max_seconds=max_seconds, level=level, seed=seed, prior=prior, num_warmups=model.num_warmups,
        # What is true here are printed means, which are rounded, and each of one visit.
        deviations=replace(
            UNKNOWN, setting=_SETTING, setting_s=float(model.settings["runtime_resolution_s"].max()) / np.sqrt(12)
        ),
    )  # fmt: skip
    p, o = (model.settings[name].to_numpy() for name in TOKEN_COLUMNS)
    rows, belief = [], None
    while True:
        block = design.next_block(model.timings, elapsed_s=model.device_s, belief=belief)
        if isinstance(block, Stopped):
            table = pd.DataFrame(rows)
            table["rule"] = [""] * (len(rows) - 1) + [block.rule] if rows else []
            return table
        model.time(block.settings)
        belief = design.belief(model.timings)
        result = model.result(belief.predict(p, o), belief.predict_interval(p, o, level=level))
        rows.append({**result, "claimed_error": design.error(belief)})


def stated_errors(path: str | os.PathLike, of: str | None = None) -> pd.DataFrame:
    """What was known after each block of a log that chose its settings as it went, and how far that was off.

    Parameters
    ----------
    path : path-like
        A log of ``--target-error`` with sizes of the sweep, one batch and nothing expected of the model beforehand.
    of : {"each", "total", "prompts", "tokens"}, optional
        What of the queries; by default what the log was asked for.

    Returns
    -------
    DataFrame, one row a block
        ``block``; ``device_s``, seconds of all runs so far, with warm-ups and what was set aside; ``num_trials`` that
        count; ``stated_error``, the relative half-width of the target's interval; ``deviation``, root mean square of
        predictions over the means of the whole log - 1, of all settings in it; ``default_s``, what a sweep of all sizes
        with the driver's defaults would take, by these predictions.

    Raises
    ------
    ValueError
        The log was asked for something else.
    """
    log = parse_log(path)
    sweep = log.header.get("sweep") or {}
    target = sweep.get("target", {"queries": None})
    if {"queries", "logs"} & set(target) or len(sweep["batchings"]) > 1:
        raise ValueError(f"{path}: must be a log of --target-error without --queries and --logs, of one batch")
    design = SequentialDesign(
        prompt_sizes=sweep["all_num_prompt_tokens"], output_sizes=sweep["all_num_output_tokens"],
        **target | ({} if of is None else {"of": of}),
    )  # fmt: skip
    records = [parse_json(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    visits = pd.DataFrame([record for record in records if record["record"] == "block"])
    visits["device_s"] = visits["warmups_s"].map(sum) + visits["runtimes_s"].map(sum)
    visits = visits.rename(columns={"runtimes_s": "runtime_s", "trial_starts_s": "trial_start_s"})
    means, grid, rows = log.settings_frame(), grid_queries(design.prompt_sizes, design.output_sizes), []
    for number in visits["block"].unique():
        so_far = visits[visits["block"] <= number]
        aside = [visit for guard in log.kept["guard"] if guard["block"] <= number for visit in guard["visits"]]
        trials = so_far[~so_far["visit"].isin(aside)].explode(_EACH_TRIAL, ignore_index=True)
        trials = trials[[*TOKEN_COLUMNS, *_EACH_TRIAL]].astype(dict.fromkeys(_EACH_TRIAL, float))
        is_held_up = trials.groupby(TOKEN_COLUMNS)["runtime_s"].transform(lambda its: is_disturbed(its.to_numpy()))
        trials = trials[~is_held_up.astype(bool)].rename_axis("trial").reset_index()
        belief = design.belief(trials)
        errors = belief.predict(*(means[name] for name in TOKEN_COLUMNS)) / means["runtime_s"] - 1
        default_s = DEFAULT_RUNS * belief.predict(*(grid[name] for name in TOKEN_COLUMNS)).sum()
        rows.append(
            {
                "block": number, "device_s": so_far["device_s"].sum(), "num_trials": len(trials),
                "stated_error": design.error(belief), "deviation": np.sqrt(np.mean(errors**2)), "default_s": default_s,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def replay_settings(timed: TimedModel, settings: Iterable[tuple[int, int, int]], *, seed=0) -> dict:
    """What the weighted fit of fixed settings (prompt tokens, output tokens, trials) makes of the whole grid."""
    model = ReplayedModel(timed, seed=seed)
    model.time(settings)
    p, o = (model.settings[name] for name in TOKEN_COLUMNS)
    with warnings.catch_warnings():
        # A few settings that depart from their line are what is looked at here.
        warnings.simplefilter("ignore", SuspiciousLogWarning)
        return model.result(RuntimeModel.fit(model.timings).predict(p, o, extrapolate=True))


def grid_settings(timed: TimedModel, num_prompt_sizes: int | None, output_sizes, num_trials: int) -> list:
    """A grid as one would choose it by hand: all prompt sizes, or so many evenly from the first to the last."""
    sizes = timed.fit.num_prompt_tokens
    if num_prompt_sizes is not None:
        sizes = sizes[np.unique(np.linspace(0, len(sizes) - 1, num_prompt_sizes).round().astype(int))]
    return [(int(p), int(o), num_trials) for p in sizes for o in output_sizes]


def random_settings(timed: TimedModel, number: int, num_trials: int, *, seed=0) -> list:
    """So many settings of the log's grid at random."""
    pairs = timed.fit.settings[TOKEN_COLUMNS].sample(number, random_state=seed)
    return [(int(p), int(o), num_trials) for p, o in pairs.itertuples(index=False)]


def replay_hand_made(timed: Mapping[str, TimedModel], *, num_trials: int = 3, seed: int = 0) -> pd.DataFrame:
    """Designs without a design, pooled over models: the whole grid, small grids chosen by hand, settings at random.

    Returns
    -------
    DataFrame, one row a design
        ``design, kind, times_cheaper`` (median over models), and as :func:`pooled_errors` has it.
    """
    settings = next(iter(timed.values())).fit.settings
    outputs = np.unique(settings["num_output_tokens"])
    few, many = [1, int(outputs[outputs <= 8].max())], [1, int(outputs.max())]
    designs = {
        ("the whole grid, 1 trial", "whole grid"): lambda model: grid_settings(model, None, outputs, 1),
        **{
            (f"{number or 'all'} prompt sizes, o = {o[0]} and {o[1]}", "small grid"): (
                lambda model, number=number, o=o: grid_settings(model, number, o, num_trials)
            )
            for number in (None, 6, 4)
            for o in (few, many)
        },
        **{
            (f"{number} settings at random", "random"): (
                lambda model, number=number: random_settings(model, number, num_trials, seed=seed)
            )
            for number in (16, 32, 64)
        },
    }
    rows = []
    for (name, kind), make in designs.items():
        results = pd.DataFrame(
            {**replay_settings(model, make(model), seed=seed), "model": other} for other, model in timed.items()
        )
        cheaper = results["times_cheaper"].median()
        rows.append({"design": name, "kind": kind, "times_cheaper": cheaper, **pooled_errors(results)})
    return pd.DataFrame(rows)


def replay_each(
    timed: Mapping[str, TimedModel], *, use_others=True, times_cheaper: float = 250, level=0.95, seeds=(0,)
) -> pd.DataFrame:
    """Sequential designs of each model, down to so small a part of the published device time.

    Parameters
    ----------
    timed : mapping of TimedModel
    use_others : bool
        What is expected of a model comes from the logs of the others; otherwise nothing is expected of it.
    times_cheaper : float
    level : float
        Of the intervals.
    seeds : iterable of int
        A design each.

    Returns
    -------
    DataFrame, one row a block
        ``model, seed`` and as :func:`replay_sequential` has it.
    """
    paths = []
    for name, model in timed.items():
        prior = prior_from_others(name, timed) if use_others else None
        most_s = ReplayedModel(model).published_device_s / times_cheaper
        for seed in seeds:
            path = replay_sequential(model, prior=prior, max_seconds=most_s, level=level, seed=seed)
            paths.append(path.assign(model=name, seed=seed))
    return pd.concat(paths, ignore_index=True)


def at_shares(paths: pd.DataFrame, times_cheaper: Iterable[float]) -> pd.DataFrame:
    """Errors of sequential designs, pooled over models, where each has spent so small a part of the published time.

    Returns
    -------
    DataFrame, one row a part that all designs went down to
        ``times_cheaper``, and as :func:`pooled_errors` has it.
    """
    rows, num_designs = [], len(paths.groupby(["model", "seed"]))
    for share in times_cheaper:
        # A block goes over by a run or two.
        spent = paths[paths["times_cheaper"] >= 0.98 * share].groupby(["model", "seed"]).tail(1)
        if len(spent) == num_designs:
            rows.append({"times_cheaper": share, **pooled_errors(spent)})
    return pd.DataFrame(rows)


def pooled_errors(results: pd.DataFrame) -> dict:
    """Relative errors of all settings of all models, in per cent: ``median, p95, max`` of the magnitudes.

    ``least_p95``, ``most_p95``: of a single model; ``covered``, ``least_covered``: what intervals hold, of all models
    and of the one where they hold least, where there are intervals. A model's are means over its designs.
    """
    row = {name: 100 * value for name, value in summarize_errors(np.concatenate(list(results["errors"]))).items()}
    each = 100 * results.drop(columns="errors").groupby("model").mean(numeric_only=True)
    row |= {"least_p95": each["p95"].min(), "most_p95": each["p95"].max()}
    return row | (
        {"covered": each["covered"].mean(), "least_covered": each["covered"].min()} if "covered" in each else {}
    )
