"""How well a stack predicts a model it was not fitted to: each model predicted from all others."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from idealized_runtime.measurements.timed_models import TimedModel
from idealized_runtime.prediction.predicted import PredictedRuntime, PredictionError
from idealized_runtime.prediction.stack import (
    fit_stack_times,
    identified_terms,
    placement_of,
    prompt_range,
)
from idealized_runtime.statistics.errors import summarize_errors, with_errors

_QUANTITIES = ("time_per_output_token", "prompt_encoding_time", "query")


@dataclass(frozen=True, eq=False)
class LeftOutModel:
    """A timed model, and the runtime predicted for it from the others.

    ``is_identified`` says whether the others tell of every term in it. A kind of work that this model alone does
    cannot be predicted from them, though a further model's can be, from this one.
    """

    timed: TimedModel
    predicted: PredictedRuntime
    is_identified: bool

    def log_errors(self) -> tuple[np.ndarray, float]:
        """log(predicted / measured) of the prompt time at each size, and of g."""
        fit = self.timed.fit
        prompt_s = self.predicted.prompt_encoding_time_s(fit.num_prompt_tokens)
        token_s = self.predicted.output_token_s(self.timed.reference_num_context_tokens)
        return np.log(prompt_s / fit.profiled_prompt_times_s), float(np.log(token_s / fit.time_per_output_token_s))

    def query_errors(self, error: PredictionError | None = None, *, level: float = 0.95) -> pd.DataFrame:
        """Measured and predicted runtime of every setting.

        Parameters
        ----------
        error : PredictionError, optional
            To take intervals from.
        level : float
            Of those intervals.

        Returns
        -------
        DataFrame
            ``num_prompt_tokens, num_output_tokens, runtime_s, predicted_s, relative_error`` (predicted / measured
            - 1) and, with ``error``, ``is_covered``.
        """
        settings = self.timed.fit.settings[["num_prompt_tokens", "num_output_tokens", "runtime_s"]]
        query, runtime_s = (settings["num_prompt_tokens"], settings["num_output_tokens"]), settings["runtime_s"]
        predicted_s = self.predicted.predict(*query)
        result = with_errors(settings, predicted_s)
        if error is None:
            return result
        lower_s, upper_s = replace(self.predicted, error=error).predict_interval(*query, level=level)
        return result.assign(is_covered=(lower_s <= runtime_s) & (runtime_s <= upper_s))


def leave_one_model_out(models: Iterable[TimedModel]) -> dict[str, LeftOutModel]:
    """Each model predicted from all others, by name.

    Raises
    ------
    ValueError
        Fewer than three models, models of several stacks, or a log that cannot be fitted.
    """
    models = tuple(models)
    left_out = {}
    for model in models:
        others = [other for other in models if other is not model]
        predicted = PredictedRuntime(
            model.architecture, placement_of(model), fit_stack_times(others), prompt_range(models)
        )
        is_identified = set(identified_terms([model])) <= set(identified_terms(others))
        left_out[model.architecture.name] = LeftOutModel(model, predicted, is_identified)
    return left_out


def prediction_error(left_out: Iterable[LeftOutModel]) -> PredictionError | None:
    """Root mean square log errors over the left-out models that the others tell of; a model's sizes count as one.

    None where there is no such model.
    """
    errors = [model.log_errors() for model in left_out if model.is_identified]
    if not errors:
        return None
    prompt = np.sqrt(np.mean([np.mean(prompt**2) for prompt, _ in errors]))
    token = np.sqrt(np.mean([token**2 for _, token in errors]))
    return PredictionError(prompt=float(prompt), token=float(token), num_models=len(errors))


def left_out_table(left_out: Mapping[str, LeftOutModel]) -> pd.DataFrame:
    """Relative errors of the predictions of each left-out model, in per cent.

    Returns
    -------
    DataFrame, by model
        ``time_per_output_token`` with its sign; median and largest magnitude over prompt sizes
        (``prompt_median``, ``prompt_max``) and over the settings (p, o) (``query_median``, ``query_max``).
    """
    rows = {}
    for name, model in left_out.items():
        token, prompt, query = _percent_errors(model)
        rows[name] = {
            "time_per_output_token": token[0],
            "prompt_median": np.median(np.abs(prompt)),
            "prompt_max": np.max(np.abs(prompt)),
            "query_median": np.median(np.abs(query)),
            "query_max": np.max(np.abs(query)),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def left_out_summary(left_out: Mapping[str, LeftOutModel]) -> pd.DataFrame:
    """Magnitudes of the relative errors over all models, sizes and settings, in per cent.

    Returns
    -------
    DataFrame, by quantity (time per output token, prompt encoding time, query)
        ``median``, ``p95``, ``max``; ``num_errors`` they are taken over.

    Raises
    ------
    ValueError
        No model was left out.
    """
    if not left_out:
        raise ValueError("too few models were timed for one of them to be left out, so nothing is known of errors")
    pooled = [np.concatenate(errors) for errors in zip(*map(_percent_errors, left_out.values()), strict=True)]
    rows = {
        name: summarize_errors(errors) | {"num_errors": len(errors)}
        for name, errors in zip(_QUANTITIES, pooled, strict=True)
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.rename_axis("quantity").astype({"num_errors": int})


def coverage_table(left_out: Mapping[str, LeftOutModel], *, level: float = 0.95) -> pd.DataFrame:
    """Share of each model's settings that fall into the interval which the other models' errors give.

    Returns
    -------
    DataFrame, by model
        ``is_identified``; ``covered_percent``, missing where no other model is left to give an interval.
    """
    rows = {}
    for name, model in left_out.items():
        error = prediction_error(other for other in left_out.values() if other is not model)
        covered = np.nan if error is None else 100 * model.query_errors(error, level=level)["is_covered"].mean()
        rows[name] = {"is_identified": model.is_identified, "covered_percent": covered}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def _percent_errors(model) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    prompt, token = model.log_errors()
    query = model.query_errors()["relative_error"].to_numpy()
    return 100 * np.expm1([token]), 100 * np.expm1(prompt), 100 * query
