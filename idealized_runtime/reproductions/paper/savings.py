"""What estimating the runtimes of a benchmark's queries saves against measuring them.

Measuring denoised runtimes means every query several times through the API; estimating them, every query once
(the answer is wanted anyway) and a grid of profiling queries several times. Measuring idealized runtimes means
every query several times on one's own accelerators, and once through the API; estimating them, the profiling
grid on the accelerators instead. Factors and costs broadcast, so that assumptions may be arrays.

The accounting is that of notebooks/idealized_metrics_cost_analysis.ipynb in
https://github.com/stanford-crfm/helm-efficiency, as its text and its stored outputs tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from idealized_runtime.api.budget import Prices
from idealized_runtime.hardware.prices import dollar_cost_usd


@dataclass(frozen=True)
class BenchmarkCosts:
    """What one pass over a benchmark's queries costs.

    Parameters
    ----------
    api_usd : float
        All queries once through the API.
    estimable_api_usd : float
        Of these, the queries that have an idealized runtime.
    device_runtime_s : float
        Sum of those idealized runtimes.
    """

    api_usd: float
    estimable_api_usd: float
    device_runtime_s: float

    @classmethod
    def from_printed(
        cls,
        *,
        api_baseline_usd: float,
        device_baseline_usd: float,
        device_estimate_usd: float,
        profiling_runtime_s: float,
        num_api_trials: int,
        num_device_trials: int,
        device_price_usd_per_hour: float,
    ):
        """Costs of one pass, solved for from what the authors' notebook prints.

        Parameters
        ----------
        api_baseline_usd : float
            All queries ``num_api_trials`` times through the API.
        device_baseline_usd, device_estimate_usd : float
            Idealized runtimes measured; estimated. Both with one pass through the API.
        profiling_runtime_s : float
            Seconds they count for the profiling grid, one trial.
        num_api_trials, num_device_trials, device_price_usd_per_hour
            As they assume.
        """
        usd_per_s = num_device_trials * _usd_per_s(device_price_usd_per_hour)
        estimable_api_usd = float(device_estimate_usd - profiling_runtime_s * usd_per_s)
        return cls(
            api_usd=api_baseline_usd / num_api_trials,
            estimable_api_usd=estimable_api_usd,
            device_runtime_s=(device_baseline_usd - estimable_api_usd) / usd_per_s,
        )

    def with_api_price(self, factor: float) -> "BenchmarkCosts":
        """The same benchmark where each token costs ``factor`` times as much."""
        return BenchmarkCosts(factor * self.api_usd, factor * self.estimable_api_usd, self.device_runtime_s)


def profiling_api_cost_usd(runtimes: pd.DataFrame, *, prompt_price_usd, output_price_usd) -> float:
    """Dollars of sending every setting of a profiling grid once through an API that charges by 1000 tokens.

    Parameters
    ----------
    runtimes : DataFrame, one row a setting
        ``num_prompt_tokens, num_output_tokens``.
    """
    prices = Prices(1000 * prompt_price_usd, 1000 * output_price_usd)
    return float(np.sum(prices.cost_usd(runtimes["num_prompt_tokens"], runtimes["num_output_tokens"])))


def denoised_savings(api_usd, profiling_usd, *, num_trials, num_profiling_trials=None):
    """Factor by which estimated denoised runtimes are cheaper than measured ones.

    Parameters
    ----------
    api_usd : float or array
        One pass of the benchmark through the API.
    profiling_usd : float or array
        One trial of every profiling query.
    num_trials : int or array
        Trials of each query of the benchmark, where they are measured.
    num_profiling_trials : int or array, optional
        Trials of each profiling query; ``num_trials`` where it is not given.
    """
    num_profiling_trials = num_trials if num_profiling_trials is None else num_profiling_trials
    return num_trials * api_usd / (api_usd + num_profiling_trials * profiling_usd)


def idealized_savings(
    costs: BenchmarkCosts, profiling_runtime_s, *, num_trials, price_usd_per_hour, num_profiling_trials=None
):
    """Factor by which estimated idealized runtimes are cheaper than measured ones; both need one pass of the API.

    Parameters
    ----------
    costs : BenchmarkCosts
    profiling_runtime_s : float or array
        One trial of every setting of the profiling grid.
    num_trials : int or array
        Trials of each query of the benchmark on the accelerators, where they are measured.
    price_usd_per_hour : float or array
        Of the accelerators together.
    num_profiling_trials : int or array, optional
        Trials of each setting; ``num_trials`` where it is not given.
    """
    num_profiling_trials = num_trials if num_profiling_trials is None else num_profiling_trials
    usd_per_s = _usd_per_s(price_usd_per_hour)
    measured_usd = costs.estimable_api_usd + num_trials * costs.device_runtime_s * usd_per_s
    estimated_usd = costs.estimable_api_usd + num_profiling_trials * profiling_runtime_s * usd_per_s
    return measured_usd / estimated_usd


def break_even_num_queries(profiling_runtime_s, query_runtime_s, *, num_trials=1, num_profiling_trials=1):
    """Queries beyond which estimating on the accelerators is cheaper than measuring, whatever they cost.

    Parameters
    ----------
    profiling_runtime_s, query_runtime_s : float or array
        One trial of the grid; of a query of the benchmark, on average.
    num_trials, num_profiling_trials : int or array
    """
    return num_profiling_trials * profiling_runtime_s / (num_trials * query_runtime_s)


def denoised_savings_table(
    costs: BenchmarkCosts, profiling_usd: float, *, sizes: Sequence[float], num_trials: Sequence[int]
) -> pd.DataFrame:
    """Denoised savings by size of the benchmark (1: ``costs``), a column a number of trials on both sides."""
    sizes = np.asarray(sizes, dtype=float)
    columns = {n: denoised_savings(sizes * costs.api_usd, profiling_usd, num_trials=n) for n in num_trials}
    return _table(columns, sizes, "Size of the benchmark (multiple)", "Trials")


def idealized_savings_table(
    costs: BenchmarkCosts,
    profiling_runtime_s: float,
    *,
    num_trials: Sequence[int],
    device_prices_usd: Sequence[float] = (40.96,),
    api_factors: Sequence[float] = (1.0,),
) -> pd.DataFrame:
    """Idealized savings by trials on the accelerators, a column a price: of those an hour, or of the API.

    Parameters
    ----------
    costs, profiling_runtime_s
        As in :func:`idealized_savings`.
    num_trials : sequence of int
    device_prices_usd : sequence of float
        Of the accelerators together; the paper's eight A100s where it is not given.
    api_factors : sequence of float
        Multiples of the API prices behind ``costs``.

    Raises
    ------
    ValueError
        Both prices vary.
    """
    if len(device_prices_usd) > 1 and len(api_factors) > 1:
        raise ValueError("let device_prices_usd or api_factors vary, not both")
    trials = np.asarray(num_trials, dtype=float)
    columns = {
        (factor if len(api_factors) > 1 else price): idealized_savings(
            costs.with_api_price(factor), profiling_runtime_s, num_trials=trials, price_usd_per_hour=price
        )
        for price in device_prices_usd
        for factor in api_factors
    }
    name = "API price (multiple)" if len(api_factors) > 1 else "Accelerators ($/h)"
    return _table(columns, trials, "Trials on the accelerators", name)


def _usd_per_s(price_usd_per_hour):
    return dollar_cost_usd(1, num_accelerators=1, price_usd_per_hour=price_usd_per_hour)


def _table(columns, index, index_name, columns_name) -> pd.DataFrame:
    return pd.DataFrame(columns, index=pd.Index(index, name=index_name)).rename_axis(columns=columns_name)
