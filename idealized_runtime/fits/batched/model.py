"""BatchRuntimeModel: what a batch costs, in seconds, on a pipeline that works through it in micro-batches."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from idealized_runtime.checks import check_columns, check_range, token_array
from idealized_runtime.fits.batched.pass_times import PassTimes, Work, fit_pass_times
from idealized_runtime.fits.entries import doubling_sizes, entry_of
from idealized_runtime.fits.protocol import PredictingModel
from idealized_runtime.fits.settings import check_one_identity
from idealized_runtime.records.common import IDENTITY_COLUMNS, PARALLELISM_COLUMNS, SETTING_COLUMNS
from idealized_runtime.statistics import errors as summaries
from idealized_runtime.statistics.intervals import half_width, satterthwaite_dof

_TIMES = ["prompt_encoding_time_s", "generation_time_s"]


@dataclass(frozen=True, eq=False)
class BatchRuntimeModel:
    """Runtime of a batch, t(p, o, B, k): prompts encoded m at a time, then tokens generated k sequences at a time.

    Both parts are passes through P stages (see ``throughput.pipeline``): B / m micro-batches in one round, then
    B / k of them in o - 1 rounds. Made by :meth:`fit`. Wherever settings are taken, p (prompt tokens), o
    (output tokens), B (sequences), k and m are integers or arrays of them that broadcast; k and m divide B.

    Parameters
    ----------
    pipeline_parallel_size : int
        P.
    prompt : PassTimes
        By the number of prompt tokens that are encoded together, m p.
    generation : PassTimes
        By the number of sequences that generate a token together, k.
    prompt_range : tuple of int
        Smallest and largest prompt size.
    settings : DataFrame or None
        The settings fitted, with ``predicted_s`` and ``relative_error`` (predicted / measured - 1); None of a model
        that was read from parameters.

    Examples
    --------
    >>> from idealized_runtime import read_log
    >>> timings = read_log("logs/cpu_pipeline/gpt2-small.jsonl")
    >>> model = BatchRuntimeModel.fit(timings)
    >>> round(float(model.predict(32, 9, batch_size=8, token_micro_batch_size=4, m=1)), 2)  # seconds of the whole batch
    1.54
    """

    pipeline_parallel_size: int
    prompt: PassTimes
    generation: PassTimes
    prompt_range: tuple[int, int]
    settings: pd.DataFrame | None = None

    @classmethod
    def fit(cls, timings: pd.DataFrame) -> "BatchRuntimeModel":
        """Fit the timings of one model on one hardware, software and parallelism.

        Parameters
        ----------
        timings : DataFrame, one row a setting
            ``num_prompt_tokens, num_output_tokens, batch_size, micro_batch_size, token_micro_batch_size,
            pipeline_parallel_size, prompt_encoding_time_s, generation_time_s``, as ``read_log`` gives them.
            The slowest stage's share is told by a token micro-batch size that was timed in several batch
            sizes; else the stages are taken to be alike.

        Raises
        ------
        ValueError
            A column or value is missing or not positive, timings of different things are mixed, or no
            setting has two output tokens; the message says which.
        """
        settings = _checked_settings(timings)
        num_stages = int(settings["pipeline_parallel_size"].iloc[0])
        prompt_work, token_work = _work(*(settings[name].to_numpy(float) for name in SETTING_COLUMNS))
        prompt_s, generation_s = (settings[name].to_numpy(float) for name in _TIMES)
        prompt = fit_pass_times(prompt_work, prompt_s, num_stages)
        is_generating = token_work.num_rounds > 0
        generation = fit_pass_times(token_work.take(is_generating), generation_s[is_generating], num_stages)
        predicted_s = prompt.predict(prompt_work) + generation.predict(token_work)
        settings = summaries.with_errors(settings.assign(runtime_s=prompt_s + generation_s), predicted_s)
        sizes = settings["num_prompt_tokens"]
        return cls(num_stages, prompt, generation, (int(sizes.min()), int(sizes.max())), settings)

    def at(self, batch_size: int, token_micro_batch_size: int | None = None, *, m: int | None = None) -> "BatchRuntime":
        """The model of runtimes of batches of one size; the whole batch goes together where k or m is not given."""
        return BatchRuntime(self, batch_size, token_micro_batch_size or batch_size, m or batch_size)

    def predict(
        self,
        num_prompt_tokens: ArrayLike,
        num_output_tokens: ArrayLike,
        batch_size: ArrayLike,
        token_micro_batch_size: ArrayLike,
        *,
        m: ArrayLike | None = None,
        extrapolate: bool = False,
    ) -> float | np.ndarray:
        """Runtime of each batch in seconds; float for scalars, else an array.

        Parameters
        ----------
        m : int or array, optional
            Prompts that are encoded together; the whole batch where it is not given.
        extrapolate : bool
            Allow prompts beyond the profiled ones, as long as so many tokens were encoded together: the time of
            a generated token goes on along its line in the length of the context.

        Raises
        ------
        ValueError
            A size is no integer of at least 1, k or m does not divide B, k or m p lies outside the profiled
            range, or p does and ``extrapolate`` is not set.
        """
        sizes = num_prompt_tokens, num_output_tokens, batch_size, token_micro_batch_size, m
        works, shape = self._works(*sizes, extrapolate)
        return _plain(sum(part.predict(work) for part, work in works), shape)

    def predict_interval(
        self,
        num_prompt_tokens: ArrayLike,
        num_output_tokens: ArrayLike,
        batch_size: ArrayLike,
        token_micro_batch_size: ArrayLike,
        *,
        m: ArrayLike | None = None,
        level: float = 0.95,
        extrapolate: bool = False,
    ) -> tuple[float | np.ndarray, float | np.ndarray]:
        """Prediction interval (lower, upper) of the measured mean runtime of each batch.

        It holds the scatter of the fitted settings, the errors of what was fitted to them and, where k or m p
        was not profiled, the error of the line between sizes; not what another machine or day would change.
        In simulations 93 to 97 % of 95 % intervals hold a new measurement.

        Raises
        ------
        ValueError
            As :meth:`predict`.
        NoIntervalError
            Nothing is known of the errors.
        """
        sizes = num_prompt_tokens, num_output_tokens, batch_size, token_micro_batch_size, m
        works, shape = self._works(*sizes, extrapolate)
        predicted_s = sum(part.predict(work) for part, work in works)
        variances, dofs = zip(*(part.variance(work) for part, work in works), strict=True)
        variance = sum(variances)
        spread = sum(part**2 / np.maximum(dof, 1e-9) for part, dof in zip(variances, dofs, strict=True))
        half_s = half_width(level, satterthwaite_dof(variance, spread), 0.0) * np.sqrt(variance)
        return _plain(np.maximum(predicted_s - half_s, 0), shape), _plain(predicted_s + half_s, shape)

    def optimal_token_micro_batch_size(self, num_prompt_tokens: int, num_output_tokens: int, batch_size: int) -> int:
        """The k that generates the output tokens of this batch soonest, of B's divisors in the profiled range.

        Raises
        ------
        ValueError
            No divisor of B lies in the profiled range, or p does not.
        """
        self._check_prompts(np.atleast_1d(num_prompt_tokens))
        low, high = self.generation.sizes[[0, -1]]
        candidates = [k for k in range(1, batch_size + 1) if batch_size % k == 0 and low <= k <= high]
        if not candidates:
            raise ValueError(f"no divisor of batch_size {batch_size} lies in [{low:g}, {high:g}], the profiled range")
        sizes = np.broadcast_arrays(num_prompt_tokens, num_output_tokens, batch_size, batch_size, candidates)
        work = _work(*(size.astype(float) for size in sizes))[1]
        return candidates[int(np.argmin(self.generation.predict(work)))]

    def _works(self, num_prompt_tokens, num_output_tokens, batch_size, token_micro_batch_size, m, extrapolate=False):
        given = num_prompt_tokens, num_output_tokens, batch_size, batch_size if m is None else m, token_micro_batch_size
        sizes = [token_array(name, size) for name, size in zip(SETTING_COLUMNS, given, strict=True)]
        for name, size in zip(SETTING_COLUMNS[2:], sizes[2:], strict=True):
            if size.dtype.kind == "f":
                raise ValueError(f"{name} must be an integer of at least 1, or an array of them; got {size!s:.60}")
        arrays = np.broadcast_arrays(*sizes)
        for name, size in zip(SETTING_COLUMNS[3:], arrays[3:], strict=True):
            if np.any(arrays[2] % size):
                raise ValueError(f"{name} must divide batch_size; got {size.ravel()[:5]} for {arrays[2].ravel()[:5]}")
        self._check_prompts(arrays[0].ravel(), extrapolate)
        prompt_work, token_work = _work(*(array.astype(float).ravel() for array in arrays))
        remedy = "Profile that size"
        check_range("micro_batch_size x num_prompt_tokens", prompt_work.size, self.prompt.sizes, remedy=remedy)
        check_range("token_micro_batch_size", token_work.size, self.generation.sizes, remedy=remedy)
        return [(self.prompt, prompt_work), (self.generation, token_work)], arrays[0].shape

    def _check_prompts(self, num_prompt_tokens, extrapolate=False):
        if not extrapolate:
            check_range("num_prompt_tokens", num_prompt_tokens, self.prompt_range)


@dataclass(frozen=True, eq=False, repr=False)
class BatchRuntime(PredictingModel):
    """Runtime of batches of one size, t(p, o); obeys the protocol of models of runtimes. Made by :meth:`.at`.

    Passes are never extrapolated: prompts that are longer together than any that were timed are refused.

    Parameters
    ----------
    model : BatchRuntimeModel
    batch_size : int
        Queries that run together; every runtime is that of their batch.
    token_micro_batch_size, micro_batch_size : int
        k and m.
    """

    method: ClassVar[str] = "batched"

    model: BatchRuntimeModel
    batch_size: int
    token_micro_batch_size: int
    micro_batch_size: int

    @property
    def prompt_range(self) -> tuple[float, float]:
        """Smallest and largest prompt that were timed, alone and together."""
        together = self.model.prompt.sizes[[0, -1]] / self.micro_batch_size
        return max(self.model.prompt_range[0], together[0]), min(self.model.prompt_range[1], together[1])

    def predict(
        self, num_prompt_tokens: ArrayLike, num_output_tokens: ArrayLike, *, extrapolate: bool = False
    ) -> float | np.ndarray:
        """Runtime of each batch in seconds; raises as :meth:`BatchRuntimeModel.predict`."""
        return self._of_model(self.model.predict, num_prompt_tokens, num_output_tokens, extrapolate=extrapolate)

    def predict_interval(
        self,
        num_prompt_tokens: ArrayLike,
        num_output_tokens: ArrayLike,
        *,
        level: float = 0.95,
        extrapolate: bool = False,
    ) -> tuple[float | np.ndarray, float | np.ndarray]:
        """As :meth:`BatchRuntimeModel.predict_interval`."""
        options = {"level": level, "extrapolate": extrapolate}
        return self._of_model(self.model.predict_interval, num_prompt_tokens, num_output_tokens, **options)

    def to_json(self) -> dict:
        """HELM's keys at prompt sizes that double, and under ``"fit"`` what :meth:`from_json` restores the model by."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        parts["model"] = replace(self.model, settings=None)
        low, high = self.prompt_range
        return entry_of(self, doubling_sizes(int(np.ceil(low)), int(high)), parts, method=self.method)

    @classmethod
    def from_json(cls, entry: Mapping) -> "BatchRuntime":
        """The model of an entry that :meth:`to_json` made; ``fits.model_from_json`` reads any entry."""
        fit, model = entry["fit"], entry["fit"]["model"]
        parts = (PassTimes.from_json(model[name]) for name in ("prompt", "generation"))
        batched = BatchRuntimeModel(model["pipeline_parallel_size"], *parts, tuple(model["prompt_range"]))
        return cls(batched, fit["batch_size"], fit["token_micro_batch_size"], fit["micro_batch_size"])

    def _of_model(self, method, p, o, **options):
        return method(p, o, self.batch_size, self.token_micro_batch_size, m=self.micro_batch_size, **options)


def leave_one_out(timings: pd.DataFrame, column: str = "token_micro_batch_size") -> pd.DataFrame:
    """Every setting predicted by the model fitted without the settings that share its value of one column.

    Parameters
    ----------
    timings : DataFrame
        As :meth:`BatchRuntimeModel.fit` takes them.
    column : str
        Such as ``token_micro_batch_size`` or ``batch_size``.

    Returns
    -------
    DataFrame, one row a setting that could be predicted so
        Its sizes, ``runtime_s`` measured, ``predicted_s`` and ``relative_error``. Left out are those whose sizes
        lie outside the range of the others: the first and last k; no row where all share one value.
    """
    settings = _checked_settings(timings)
    check_columns(timings, [column])
    columns = [*SETTING_COLUMNS, "runtime_s", "predicted_s", "relative_error"]
    parts = [settings.head(0).reindex(columns=columns).astype(dict.fromkeys(columns[-3:], "float64"))]
    for value in settings[column].unique():
        is_out = settings[column] == value
        # A fit needs a setting that generates; one batch size alone leaves none.
        if (settings.loc[~is_out, "num_output_tokens"] > 1).any():
            parts.append(_predictable(settings[is_out], BatchRuntimeModel.fit(settings[~is_out])))
    return pd.concat(parts)[columns].sort_index().reset_index(drop=True)


def error_table(timings: pd.DataFrame) -> pd.DataFrame:
    """Relative errors of runtimes: of the settings fitted, and of those a fit had not seen.

    Parameters
    ----------
    timings : DataFrame
        As :meth:`BatchRuntimeModel.fit` takes them.

    Returns
    -------
    DataFrame, by what was left out of the fit
        ``num_settings``; ``median_percent, p95_percent, max_percent`` of the absolute relative error, missing where
        no setting could be predicted from the others.
    """
    frames = {
        "nothing": BatchRuntimeModel.fit(timings).settings,
        "its batch size": leave_one_out(timings, "batch_size"),
        "its token micro-batch size": leave_one_out(timings),
    }
    errors = {name: frame["relative_error"] for name, frame in frames.items()}
    return summaries.error_table(errors).rename_axis("left out")


def optimum_table(timings: pd.DataFrame, model: BatchRuntimeModel) -> pd.DataFrame:
    """Token micro-batch size with the shortest generation time, measured and predicted, for each batch size.

    Parameters
    ----------
    timings : DataFrame
        One prompt size, output size and micro-batch size.
    model : BatchRuntimeModel
        Of these timings or of others.

    Returns
    -------
    DataFrame, by batch size
        ``best_k`` measured and ``predicted_best_k``; ``generation_time_s`` and ``runtime_s`` at the measured best k;
        ``loss_percent``, by how much the generation time measured at the predicted best k is longer. Prompts do
        not depend on k, and what their times scatter does not decide.
    """
    check_columns(timings, [*SETTING_COLUMNS, *_TIMES])
    rows = {}
    for batch_size, group in timings.groupby("batch_size"):
        by_k = group.set_index("token_micro_batch_size")
        best = by_k["generation_time_s"].idxmin()
        p, o = (int(group[name].iloc[0]) for name in SETTING_COLUMNS[:2])
        predicted = model.optimal_token_micro_batch_size(p, o, int(batch_size))
        shortest_s = by_k.loc[best, "generation_time_s"]
        rows[batch_size] = {
            "best_k": best,
            "predicted_best_k": predicted,
            "generation_time_s": shortest_s,
            "runtime_s": by_k.loc[best, _TIMES].sum(),
            "loss_percent": 100 * (by_k["generation_time_s"].get(predicted, np.nan) / shortest_s - 1),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("batch_size")


def _predictable(settings, model) -> pd.DataFrame:
    """Settings within the range of a model, with what it predicts."""
    prompt_tokens = settings["micro_batch_size"] * settings["num_prompt_tokens"]
    is_inside = prompt_tokens.between(*model.prompt.sizes[[0, -1]])
    is_inside &= settings["token_micro_batch_size"].between(*model.generation.sizes[[0, -1]])
    is_inside &= settings["num_prompt_tokens"].between(*model.prompt_range)
    inside = settings[is_inside]
    p, o, batch, m, k = (inside[name].to_numpy() for name in SETTING_COLUMNS)
    measured = inside.assign(runtime_s=inside[_TIMES].sum(axis=1))
    return summaries.with_errors(measured, model.predict(p, o, batch, k, m=m))


def _work(p, o, batch, m, k) -> tuple[Work, Work]:
    """Passes of the prompts and of the output tokens of each setting."""
    prompt = Work(size=m * p, num_rounds=np.ones_like(p), num_micro_batches=batch / m, context=np.zeros_like(p))
    # Output tokens 2 to o attend to p + 1 to p + o - 1 tokens.
    return prompt, Work(size=k, num_rounds=o - 1, num_micro_batches=batch / k, context=p + o / 2)


def _checked_settings(timings) -> pd.DataFrame:
    needed = [*SETTING_COLUMNS, "pipeline_parallel_size", *_TIMES]
    check_columns(timings, needed)
    check_one_identity(timings, (*IDENTITY_COLUMNS, *PARALLELISM_COLUMNS))
    settings = timings.reset_index(drop=True)
    is_valid = settings[needed].notna().all(axis=1) & (settings["prompt_encoding_time_s"] > 0)
    is_valid &= (settings["generation_time_s"] > 0) | (settings["num_output_tokens"] == 1)
    if not is_valid.all():
        raise ValueError(
            f"{(~is_valid).sum()} of {len(settings)} settings lack a batch size, or prompt encoding and generation "
            "times above 0; logs have them since there are token micro-batches: time them again"
        )
    if not (settings["num_output_tokens"] > 1).any():
        raise ValueError("no setting has two output tokens or more, so none tells how long a token takes to generate")
    return settings.astype(dict.fromkeys(SETTING_COLUMNS, "int64"))


def _plain(values, shape):
    return values.reshape(shape) if shape else float(values[0])
