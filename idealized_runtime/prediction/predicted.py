"""The runtime of a model that was never timed: as a fitted model predicts it, and with an interval."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from idealized_runtime.architectures import Architecture
from idealized_runtime.checks import token_array
from idealized_runtime.fits.entries import doubling_sizes, entry_of
from idealized_runtime.fits.protocol import NoIntervalError, PredictingModel, plain
from idealized_runtime.prediction.stack import StackTimes
from idealized_runtime.prediction.work import Placement, prompt_work, token_work
from idealized_runtime.statistics.intervals import half_width


@dataclass(frozen=True)
class PredictionError:
    """How far predictions are off, as the models left out one at a time show it.

    Parameters
    ----------
    prompt, token : float
        Root mean square of log(predicted / measured) over those models: of prompt times, and of g.
    num_models : int
    """

    prompt: float
    token: float
    num_models: int


@dataclass(frozen=True, eq=False, repr=False)
class PredictedRuntime(PredictingModel):
    """Runtime of an architecture that was not timed, on a stack that was; obeys the protocol of
    :class:`~idealized_runtime.fits.protocol.ModelOfRuntimes`.

    Wherever queries are taken, p (prompt tokens) and o (output tokens) are scalars or arrays that broadcast,
    of integers or of real means, at least 1.

    Parameters
    ----------
    architecture : Architecture
    placement : Placement
    times : StackTimes
    prompt_range : tuple of int
        Smallest and largest prompt that the logs of the stack hold.
    error : PredictionError or None
    caveats, context_caveats : tuple of str
        What of this model no log of the stack tells, and what of queries as long as it was predicted for.
    """

    method: ClassVar[str] = "predicted"

    architecture: Architecture
    placement: Placement
    times: StackTimes
    prompt_range: tuple[int, int]
    error: PredictionError | None = None
    caveats: tuple[str, ...] = ()
    context_caveats: tuple[str, ...] = ()

    def predict(
        self, num_prompt_tokens: ArrayLike, num_output_tokens: ArrayLike, *, extrapolate: bool = False
    ) -> float | np.ndarray:
        """Runtime of each query in seconds; float for two scalars, else an array.

        Raises
        ------
        ValueError
            A number of tokens is below 1, or p is longer than any prompt timed and ``extrapolate`` is not set.
        """
        prompt_s, decode_s = self._parts(num_prompt_tokens, num_output_tokens, extrapolate)
        return plain(prompt_s + decode_s)

    def predict_interval(
        self,
        num_prompt_tokens: ArrayLike,
        num_output_tokens: ArrayLike,
        *,
        level: float = 0.95,
        extrapolate: bool = False,
    ) -> tuple[float | np.ndarray, float | np.ndarray]:
        """Prediction interval (lower, upper) of the runtime this model would show if it were timed.

        As wide as the errors of the models left out one at a time ask for, by Student's t with as many degrees
        of freedom as there were models. Prompt and output tokens are taken to err to the same side.

        Raises
        ------
        ValueError
            As :meth:`predict`; or the stack has too few models to leave one out.
        """
        prompt_factor, token_factor = self._factors(level)
        prompt_s, decode_s = self._parts(num_prompt_tokens, num_output_tokens, extrapolate)
        lower_s = prompt_s / prompt_factor + decode_s / token_factor
        return plain(lower_s), plain(prompt_s * prompt_factor + decode_s * token_factor)

    def output_token_s(self, num_context_tokens: ArrayLike) -> float | np.ndarray:
        """Seconds for one further output token after so many tokens, itself included."""
        context = token_array("num_context_tokens", num_context_tokens).astype(float)
        work = token_work(self.architecture, context.ravel(), self.placement)
        return plain(self._pass_times_s(work).reshape(context.shape))

    def output_token_interval_s(
        self, num_context_tokens: ArrayLike, level: float = 0.95
    ) -> tuple[float | np.ndarray, float | np.ndarray]:
        """Prediction interval (lower, upper) of :meth:`output_token_s`."""
        time_s, factor = self.output_token_s(num_context_tokens), self._factors(level)[1]
        return time_s / factor, time_s * factor

    def to_json(self) -> dict:
        """HELM's keys at prompt sizes that double, and under ``"fit"`` what :meth:`from_json` restores the model by."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return entry_of(self, doubling_sizes(*self.prompt_range), parts, method=self.method)

    @classmethod
    def from_json(cls, entry: Mapping) -> "PredictedRuntime":
        """The model of an entry that :meth:`to_json` made: a reader for ``fits.read_parameters``."""
        fit = entry["fit"]
        return cls(
            Architecture(**fit["architecture"]),
            Placement(**fit["placement"]),
            StackTimes(**fit["times"]),
            tuple(fit["prompt_range"]),
            fit["error"] and PredictionError(**fit["error"]),
            tuple(fit["caveats"]),
            tuple(fit["context_caveats"]),
        )

    def _factors(self, level) -> tuple[float, float]:
        """What to divide and multiply prompt times and token times by, for the ends of their intervals."""
        if self.error is None:
            raise NoIntervalError("no interval is known: too few models were timed to leave one out; time more of them")
        quantile = half_width(level, float(self.error.num_models), 0.0)
        return float(np.exp(quantile * self.error.prompt)), float(np.exp(quantile * self.error.token))

    def _parts(self, num_prompt_tokens, num_output_tokens, extrapolate):
        """Seconds of prompt encoding and of all further tokens of each query."""
        p = self._checked_prompts(num_prompt_tokens, extrapolate).astype(float)
        p, o = np.broadcast_arrays(p, token_array("num_output_tokens", num_output_tokens).astype(float))
        prompt_s = self._pass_times_s(prompt_work(self.architecture, p.ravel(), self.placement)).reshape(p.shape)
        # The time grows with the context in straight lines, and little: the middle one of the tokens stands for all.
        return prompt_s, (o - 1) * self.output_token_s(p + o / 2)

    def _pass_times_s(self, work):
        return self.times.pass_time_s(work, is_cuda=self.placement.is_cuda)
