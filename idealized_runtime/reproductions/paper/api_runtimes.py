"""Published runtimes of models behind APIs: trials, minima, load, dates, and pairs of runtimes; under HELM's names."""

import pandas as pd

from idealized_runtime.measurements.published import published_data
from idealized_runtime.records import TOKEN_COLUMNS
from idealized_runtime.reproductions.paper.models import PAPER_MODELS

FOLDER = "paper_figures"
MINIMA_DATES = ("2022-09-06", "2023-11")
RUNTIME_PAIRS = ("denoised_vs_raw", "idealized_vs_raw", "idealized_vs_denoised")
# Names that do not follow from the file's by putting "/" after the provider.
_HELM_NAMES = {
    "anthropic": "anthropic/stanford-online-all-v4-s3",
    "cohere-small": "cohere/small-20220720",
    "cohere-medium": "cohere/medium-20220720",
    "cohere-large": "cohere/large-20220720",
    "cohere-xlarge": "cohere/xlarge-20220609",
    "openai-cushman-001": "openai/code-cushman-001",
}
_PROVIDERS = {"ai21": "AI21", "anthropic": "Anthropic", "cohere": "Cohere", "openai": "OpenAI"}
# Queries that Figure 7a cannot draw, since their models have no denoised parameters; the authors' 96.6 % counts them as
# passing, among its 3204 points.
NUM_POINTS_WITHOUT_DENOISED = 1117


def read_api_minima(date: str) -> pd.DataFrame:
    """Least runtime over trials of every setting, of all models timed for one date.

    Parameters
    ----------
    date : {"2022-09-06", "2023-11"}
        Behind Table 2's rows of AI21 and Anthropic; the final one, behind the authors' parameter file.

    Returns
    -------
    DataFrame, one row a model and setting
        ``model`` (HELM's name), ``num_prompt_tokens``, ``num_output_tokens``, ``runtime_s``.
    """
    if date not in MINIMA_DATES:
        raise ValueError(f"date must be one of {', '.join(MINIMA_DATES)}; got {date!r}")
    return _read(f"api_minimum_runtimes_{date}")


def complete_minima(minima: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Minima with the settings that only the trials hold, for models whose other minima are those of the trials.

    The final minima lack p = 256 for most models; the trials of Figure 5 have it for AI21's.

    Parameters
    ----------
    minima, trials : DataFrame
        As from :func:`read_api_minima` and :func:`read_api_trials`.

    Returns
    -------
    DataFrame
        As ``minima``, sorted by model and setting.
    """
    key = ["model", *TOKEN_COLUMNS]
    found = trials.groupby(key, as_index=False)["runtime_s"].min()
    both = minima.merge(found, on=key, suffixes=("", "_of_trials"))
    # The published points are read back from a figure to six digits.
    is_equal = (both["runtime_s"] / both["runtime_s_of_trials"] - 1).abs() < 1e-4
    same = is_equal.groupby(both["model"]).all()
    joined = pd.concat([minima, found[found["model"].isin(same.index[same])]])
    return joined.drop_duplicates(key).sort_values(key, ignore_index=True)


def read_api_trials() -> pd.DataFrame:
    """Single trials of six models, about ten a setting (Figure 5); columns as :func:`read_api_minima`."""
    return _read("figure5_trial_runtimes")


def read_runtimes_over_time() -> pd.DataFrame:
    """Least runtimes of five models at four dates a week apart; columns as :func:`read_api_minima`, and ``date``."""
    return _read("runtimes_over_time", parse_dates=["date"])


def read_load_runtimes() -> pd.DataFrame:
    """Least runtime while queries are sent in parallel (Figure 6), p = 512.

    Returns
    -------
    DataFrame, one row a provider, number of output tokens and load
        ``provider, num_prompt_tokens, num_output_tokens, num_parallel_queries, runtime_s``; ``slowdown``, the
        runtime over that of a single query.
    """
    runtimes = pd.read_csv(published_data(f"{FOLDER}/figure6_load_runtimes.csv"))
    runtimes = runtimes.rename(columns={"minimum_runtime_s": "runtime_s"}).replace({"provider": _PROVIDERS})
    setting = ["provider", *TOKEN_COLUMNS]
    runtimes = runtimes.sort_values([*setting, "num_parallel_queries"], ignore_index=True)
    return runtimes.assign(slowdown=runtimes["runtime_s"] / runtimes.groupby(setting)["runtime_s"].transform("first"))


def load_requests(runtimes: pd.DataFrame) -> pd.DataFrame:
    """The requests behind Figure 6: so many alike at once, of one of which the least runtime is known.

    Parameters
    ----------
    runtimes : DataFrame
        As from :func:`read_load_runtimes`.

    Returns
    -------
    DataFrame, a request table
        ``run`` is the index of the runtimes.
    """
    requests = runtimes.loc[runtimes.index.repeat(runtimes["num_parallel_queries"])]
    known_s = requests["runtime_s"].mask(requests.index.duplicated())
    requests = requests.assign(arrival_s=0.0, time_to_first_token_s=float("nan"), runtime_s=known_s)
    return requests.drop(columns="slowdown").rename_axis("run").reset_index()


def read_runtime_pairs(pair: str) -> pd.DataFrame:
    """Points of one panel of Figure 7, each a scenario and model.

    Parameters
    ----------
    pair : {"denoised_vs_raw", "idealized_vs_raw", "idealized_vs_denoised"}
        Named y against x.

    Returns
    -------
    DataFrame
        ``provider`` (``"AI21 Labs"``, ``"OpenAI"``, ``"other"``), ``x_runtime_s``, ``y_runtime_s``.
    """
    if pair not in RUNTIME_PAIRS:
        raise ValueError(f"pair must be one of {', '.join(RUNTIME_PAIRS)}; got {pair!r}")
    points = pd.read_csv(published_data(f"{FOLDER}/figure7_points.csv"))
    return points[points["panel"] == pair].drop(columns="panel").reset_index(drop=True)


def count_pairs(points: pd.DataFrame) -> pd.DataFrame:
    """How many points lie above y = x, by provider and over all.

    Parameters
    ----------
    points : DataFrame
        As from :func:`read_runtime_pairs`.

    Returns
    -------
    DataFrame, by provider and ``all``
        ``num_points``, ``num_above`` (y > x), ``percent_above``, ``percent_not_above``.
    """
    is_above = points["y_runtime_s"] > points["x_runtime_s"]
    counts = is_above.groupby(points["provider"]).agg(num_points="size", num_above="sum")
    counts.loc["all"] = [len(points), int(is_above.sum())]
    percent_above = 100 * counts["num_above"] / counts["num_points"]
    return counts.assign(percent_above=percent_above, percent_not_above=100 - percent_above)


def coefficients_of_variation(trials: pd.DataFrame) -> pd.DataFrame:
    """Scatter of the trials of each setting, averaged over the settings of a model.

    Parameters
    ----------
    trials : DataFrame, one row a trial
        ``model, num_prompt_tokens, num_output_tokens, runtime_s``.

    Returns
    -------
    DataFrame, by model
        ``coefficient_of_variation``, deviation (ddof = 1) over mean, the mean over settings; ``median_over_settings``
        of the same; ``largest_over_least``, the mean over settings, and ``worst_over_median``, of any setting.
    """
    settings = trials.groupby(["model", *TOKEN_COLUMNS])["runtime_s"]
    scatter = settings.agg(["mean", "std", "min", "max", "median"])
    variation = (scatter["std"] / scatter["mean"]).groupby("model")
    return pd.DataFrame(
        {
            "coefficient_of_variation": variation.mean(),
            "median_over_settings": variation.median(),
            "largest_over_least": (scatter["max"] / scatter["min"]).groupby("model").mean(),
            "worst_over_median": (scatter["max"] / scatter["median"]).groupby("model").max(),
        }
    )


def printed_name(helm_name: str) -> str:
    """Name that the paper prints for a model, HELM's with the provider spelled out where it prints none."""
    for row in PAPER_MODELS.values():
        if row.helm_name == helm_name:
            return row.name
    provider, _, model = helm_name.partition("/")
    return f"{_PROVIDERS.get(provider, provider)}/{model}"


def _read(name, **options) -> pd.DataFrame:
    frame = pd.read_csv(published_data(f"{FOLDER}/{name}.csv"), **options)
    plain = frame["model"].str.replace("_", "-")
    models = plain.map(_HELM_NAMES).fillna(plain.str.replace("-", "/", n=1))
    return frame.assign(model=models).rename(columns={"minimum_runtime_s": "runtime_s"})
