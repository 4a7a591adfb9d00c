"""What serving a query costs as measured, in place of 2 N FLOPs a token at a guessed utilisation.

Every profiled model gives the accelerator-seconds of the mean query of a mix; regressed on model size they are an
inference cost that the solver takes. Few models stand behind a regression (13 on A100, 11 on V100, 4 on CPU), of all
depths and widths and with batches of one query: its intervals are wide, and hold for more such models.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from idealized_runtime.checks import check_not_negative, check_positive
from idealized_runtime.fits.protocol import options_beyond
from idealized_runtime.hardware.prices import dollar_cost_usd
from idealized_runtime.lifetime.costs import LifetimeCosts, Rental, inference_flops
from idealized_runtime.lifetime.size_curve import FloorPowerLaw, SizeCurve
from idealized_runtime.queries.mix import QueryMix
from idealized_runtime.queries.price import price
from idealized_runtime.queries.terms import PricedModel


@dataclass(frozen=True)
class ScaledLawCost:
    """A law of model size times a number: the inference cost that measurements give.

    Parameters
    ----------
    law : FloorPowerLaw
        Cost of a query; convex in ln N.
    factor : float or array
        Queries over the model's life, times what one unit of the law's cost costs.
    """

    law: FloorPowerLaw
    factor: float | np.ndarray

    def __post_init__(self):
        check_not_negative(factor=self.factor)

    def cost(self, num_params):
        """Lifetime cost of serving models of this size."""
        return self.factor * self.law(num_params)

    def marginal_cost(self, num_params):
        """Its derivative with respect to ln(num_params)."""
        return self.factor * self.law.slope(num_params)


@dataclass(frozen=True, eq=False)
class QueryCost:
    """Accelerator-seconds of the mean query of a mix, as a function of model size.

    Parameters
    ----------
    mix : QueryMix
    per_query : SizeCurve
    """

    mix: QueryMix
    per_query: SizeCurve

    def is_extrapolated(self, num_params: ArrayLike) -> bool | np.ndarray:
        """Whether each size lies outside those of the models behind the curve."""
        return self.per_query.is_extrapolated(num_params)

    def dollar_costs(
        self,
        *,
        training: Rental,
        price_usd_per_hour: float,
        num_requests: ArrayLike,
        training_mfu: float = 0.5,
        law: FloorPowerLaw | None = None,
    ) -> LifetimeCosts:
        """Lifetime costs for the solver: training at an assumed utilisation, inference by the curve.

        Parameters
        ----------
        training : Rental
        price_usd_per_hour : float
            Of one accelerator of the hardware that serves.
        num_requests : float or array
            Over the model's life; may be zero.
        training_mfu : float or array
        law : FloorPowerLaw, optional
            Drawn from ``per_query`` in place of its best law.
        """
        check_not_negative(num_requests=num_requests)
        # What the law gives are accelerator-seconds.
        usd = dollar_cost_usd(num_requests, num_accelerators=1, price_usd_per_hour=price_usd_per_hour)
        inference = ScaledLawCost(law or self.per_query.law, usd)
        return LifetimeCosts(training.usd_per_flop(training_mfu), inference, "usd")


@dataclass(frozen=True, eq=False)
class MeasuredQueryCost(QueryCost):
    """Accelerator-seconds of the mean query as timed, one at a time or in batches. Made by :meth:`fit`.

    Whole queries, their prompts and their further tokens are regressed each by itself, so the first is the sum of the
    others at every profiled model, but on the curves only to within their scatter.

    Parameters
    ----------
    profiles : tuple of PricedModel
        By size.
    per_prompt : SizeCurve
        Prompt encoding of the mean query, which yields the first output token.
    per_output_token : SizeCurve
        Each further output token, averaged over those of the mix.
    share_extrapolated : float
        Share of the queries whose prompt lies outside the sizes that some model was profiled at.
    """

    profiles: tuple[PricedModel, ...]
    per_prompt: SizeCurve
    per_output_token: SizeCurve
    share_extrapolated: float

    @classmethod
    def fit(cls, profiles: Sequence[PricedModel], mix: QueryMix, *, extrapolate: bool = False) -> "MeasuredQueryCost":
        """Regress the cost of a mix on the size of the profiled models.

        Parameters
        ----------
        profiles : sequence of PricedModel
            Of one hardware and software; see :func:`~idealized_runtime.lifetime.profiles.read_profiles`.
        mix : QueryMix
        extrapolate : bool
            Allow prompts longer than those profiled.

        Raises
        ------
        ValueError
            Fewer than four models or of two kinds of hardware, or prompts beyond the profiled sizes and no leave to
            extrapolate; the message names the model.
        """
        profiles = tuple(profiles)
        if len(hardware := {profile.hardware for profile in profiles}) > 1:
            raise ValueError(f"profiles must be of one hardware; got {', '.join(sorted(hardware))}")
        sizes = [profile.num_params for profile in profiles]
        queries, prompts, tokens = zip(
            *(mean_accelerator_s(profile, mix, extrapolate=extrapolate) for profile in profiles), strict=True
        )
        outside = np.any([profile.runtimes.is_extrapolated(mix.num_prompt_tokens) for profile in profiles], axis=0)
        per_query, per_prompt, per_output_token = (SizeCurve.fit(sizes, times) for times in (queries, prompts, tokens))
        return cls(mix, per_query, profiles, per_prompt, per_output_token, float(mix.weights[outside].sum()))

    def utilization(self, num_params: ArrayLike, peak_flops_per_s: float, *, level: float = 0.95) -> pd.DataFrame:
        """Utilisation that the measurements imply, 2 N tokens / (accelerator-seconds x peak), of a new model.

        Parameters
        ----------
        num_params : array
        peak_flops_per_s : float
            Of one accelerator, for the type measured in.
        level : float
            Of the interval for one further model of that size.

        Returns
        -------
        DataFrame, by num_params
            ``prompts, prompts_lower, prompts_upper, output_tokens, output_tokens_lower, output_tokens_upper``, and
            ``is_extrapolated``. 2 N counts the embeddings, whose rows are only looked up: a small model that is mostly
            vocabulary can seem to exceed the peak.
        """
        check_positive(peak_flops_per_s=peak_flops_per_s)
        sizes = np.atleast_1d(np.asarray(num_params, dtype=float))
        columns = {}
        for name, curve, num_tokens in (
            ("prompts", self.per_prompt, self.mix.mean_prompt_tokens),
            ("output_tokens", self.per_output_token, 1),
        ):
            ideal_s = inference_flops(sizes, num_tokens) / peak_flops_per_s
            shortest_s, longest_s = curve.interval(sizes, level=level)
            bounds = {name: curve(sizes), f"{name}_lower": longest_s, f"{name}_upper": shortest_s}
            columns |= {column: ideal_s / seconds for column, seconds in bounds.items()}
        index = pd.Index(sizes, name="num_params")
        return pd.DataFrame(columns | {"is_extrapolated": self.is_extrapolated(sizes)}, index=index)


def profile_table(measured: MeasuredQueryCost, peak_flops_per_s: float) -> pd.DataFrame:
    """Each profiled model as measured, beside the regression.

    Returns
    -------
    DataFrame, by model
        ``num_params, num_accelerators, batch_size``; accelerator-seconds ``query_s, prompt_s, output_token_s`` of the
        mean query; ``query_fitted_s`` on the curve; the utilisations ``prompts`` and ``output_tokens``.
    """
    rows = measured.profiles
    table = pd.DataFrame(
        {
            "num_params": [row.num_params for row in rows],
            "num_accelerators": [row.num_accelerators for row in rows],
            "batch_size": [row.batch_size for row in rows],
            "query_s": measured.per_query.costs,
            "prompt_s": measured.per_prompt.costs,
            "output_token_s": measured.per_output_token.costs,
        },
        index=pd.Index([row.name for row in rows], name="model"),
    )
    ideal_s = inference_flops(table["num_params"], 1) / peak_flops_per_s
    return table.assign(
        query_fitted_s=measured.per_query(table["num_params"]),
        prompts=ideal_s * measured.mix.mean_prompt_tokens / table["prompt_s"],
        output_tokens=ideal_s / table["output_token_s"],
    )


def mean_accelerator_s(profile: PricedModel, mix: QueryMix, *, extrapolate: bool = False) -> tuple[float, float, float]:
    """Accelerator-seconds of the mean query of a mix, of its prompt, and of a further output token.

    The prompt yields the first output token. The token is the mean over those of the mix after the first; where there
    is none, it is what one would take.

    Raises
    ------
    ValueError
        A prompt lies beyond the profiled sizes, and ``extrapolate`` is not set; the message begins with the model.
    """
    p, o = mix.num_prompt_tokens, mix.num_output_tokens
    options = {"num_accelerators": profile.num_accelerators, "extrapolate": extrapolate}
    try:
        priced = price(mix.queries, profile.runtimes, **options)
        if priced.missing:
            # A mean over the other queries would be of another mix: the model itself says which it refuses.
            profile.runtimes.predict(p, o)
        prompts = price(mix.queries.assign(num_output_tokens=1), profile.runtimes, **options)
        token_time_s = profile.runtimes.time_per_output_token_at
        tokens_s = token_time_s(p, **(options_beyond(token_time_s) if extrapolate else {}))
    except ValueError as error:
        raise ValueError(f"{profile.name}: {error}") from error
    num_further = mix.weights * (o - 1)
    weights = num_further if num_further.any() else mix.weights
    token_s = profile.num_accelerators / profile.batch_size * (weights @ tokens_s) / weights.sum()
    return float(mix.weights @ priced.accelerator_s), float(mix.weights @ prompts.accelerator_s), float(token_s)
