"""Timed models beside the floors of their machine: how far above them. What lies below is refused when it is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from idealized_runtime.architectures import Architecture
from idealized_runtime.fits.entries import doubling_sizes, entry_of
from idealized_runtime.fits.protocol import PredictingModel, plain
from idealized_runtime.hardware.rates import MachineRates, device_rates
from idealized_runtime.hardware.roofline import Roofline
from idealized_runtime.measurements.timed_models import TimedModel

_TOKEN = "output token"


def machine_rates(model: TimedModel) -> MachineRates | None:
    """:func:`device_rates` of the machine that a model was timed on."""
    return device_rates(model.machine_rates, hardware=model.hardware, dtype=model.dtype, is_cuda=model.is_cuda)


def roofline_of(model: TimedModel) -> Roofline | None:
    """Roofline of a timed model; None where nothing is known of its machine, or its log does not tell what ran."""
    rates = machine_rates(model)
    if rates is None or model.architecture is None or model.dtype is None:
        return None
    return Roofline(model.architecture, rates, model.dtype, model.tensor_parallel_size, model.pipeline_parallel_size)


def roofline_table(models: Mapping[str, TimedModel], *, num_prompt_tokens: int | None = None) -> pd.DataFrame:
    """Fitted times beside their floors, at a batch of one.

    Parameters
    ----------
    models : mapping of TimedModel, by name
    num_prompt_tokens : int, optional
        Prompt size; the largest that each model was timed at where it is not given.

    Returns
    -------
    DataFrame, by model
        ``time_per_output_token_ms``, ``token_floor_ms``, ``token_over_floor``; ``num_prompt_tokens``,
        ``prompt_encoding_time_ms``, ``prompt_floor_ms``, ``prompt_over_floor``. Floors are missing where
        nothing is known of the machine.
    """
    rows = {}
    for name, model in models.items():
        fit, roofline = model.fit, roofline_of(model)
        p = int(fit.num_prompt_tokens[-1] if num_prompt_tokens is None else num_prompt_tokens)
        token_s, prompt_s, floors_s = fit.time_per_output_token_s, fit.prompt_encoding_time_s(p), (np.nan, np.nan)
        if roofline is not None:
            context = model.reference_num_context_tokens
            floors_s = float(roofline.output_token_s(context)), float(roofline.prompt_encoding_s(p))
        rows[name] = {
            "time_per_output_token_ms": 1e3 * token_s,
            "token_floor_ms": 1e3 * floors_s[0],
            "token_over_floor": token_s / floors_s[0],
            "num_prompt_tokens": p,
            "prompt_encoding_time_ms": 1e3 * prompt_s,
            "prompt_floor_ms": 1e3 * floors_s[1],
            "prompt_over_floor": prompt_s / floors_s[1],
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def floor_distances(models: Mapping[str, TimedModel]) -> pd.DataFrame:
    """How many times its floor each fitted time takes.

    Parameters
    ----------
    models : mapping of TimedModel, by name

    Returns
    -------
    DataFrame, one column a model
        By what was fitted: ``output token``, then each prompt size. Missing where the log does not tell the
        architecture or data type, where nothing is known of the machine, and at sizes that were not timed.
    """
    columns = {name: {} for name in models}
    for name, model in models.items():
        if (roofline := roofline_of(model)) is not None:
            fit, sizes = model.fit, model.fit.num_prompt_tokens
            columns[name][_TOKEN] = fit.time_per_output_token_s / roofline.output_token_s(
                model.reference_num_context_tokens
            )
            over_floor = fit.profiled_prompt_times_s / roofline.prompt_encoding_s(sizes)
            columns[name].update(zip(sizes.tolist(), over_floor, strict=True))
    sizes = sorted({size for column in columns.values() for size in column} - {_TOKEN})
    return pd.DataFrame(columns, index=pd.Index([_TOKEN, *sizes], name="fitted time"), dtype=float)


@dataclass(frozen=True, repr=False)
class FloorRuntime(PredictingModel):
    """The floor of one model's runtimes, known exactly; obeys the protocol of models of runtimes.

    A floor is computed, not fitted: no prompt size is extrapolated, its bounds are itself and its standard error is 0.

    Parameters
    ----------
    roofline : Roofline
    """

    method: ClassVar[str] = "floor"
    prompt_range: ClassVar[tuple[float, float]] = (1, np.inf)

    roofline: Roofline

    def predict(
        self, num_prompt_tokens: ArrayLike, num_output_tokens: ArrayLike, *, extrapolate: bool = False
    ) -> float | np.ndarray:
        """Seconds below which no software answers each query."""
        return plain(self.roofline.query_s(num_prompt_tokens, num_output_tokens))

    def predict_interval(
        self,
        num_prompt_tokens: ArrayLike,
        num_output_tokens: ArrayLike,
        *,
        level: float = 0.95,
        extrapolate: bool = False,
    ) -> tuple[float | np.ndarray, float | np.ndarray]:
        """The same floor twice: it has no error but that of the hardware's rates."""
        floor_s = self.predict(num_prompt_tokens, num_output_tokens)
        return floor_s, floor_s

    def to_json(self) -> dict:
        """HELM's keys at prompt sizes that double, and under ``"fit"`` what :meth:`from_json` restores the floor by."""
        sizes = doubling_sizes(1, self.roofline.architecture.max_position_embeddings)
        return entry_of(self, sizes, {"roofline": self.roofline}, method=self.method)

    @classmethod
    def from_json(cls, entry: Mapping) -> "FloorRuntime":
        """The floor of an entry that :meth:`to_json` made: a reader for ``fits.read_parameters``."""
        parts = dict(entry["fit"]["roofline"])
        architecture, rates = Architecture(**parts.pop("architecture")), MachineRates(**parts.pop("rates"))
        return cls(Roofline(architecture, rates, **parts))
