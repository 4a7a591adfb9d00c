"""AIConfigurator's sample of InferenceX: serving points of 15 models on H100 to GB300, under three engines."""

import numpy as np
import pandas as pd

from idealized_runtime.hardware.accelerators import get_accelerator
from idealized_runtime.measurements.points import POINT_COLUMNS, flag
from idealized_runtime.measurements.published import published_data

FILE = "aiconfigurator/aic-core/src/aiconfigurator_core/systems/silicon_sample.csv"
_DTYPES = {"fp8": "float8", "bf16": "bfloat16", "fp4": "float4", "int4": "int4"}
_SHARED_SIZES = (1, 2, 4, 8, 16)
# Anywhere between 0.67 and 0.8 the same rows are found.
_QUICKER = 0.8
# Half of the last digit of listings that are rounded, to 0.01 ms.
_ROUNDING_S = 0.00501e-3
_SETTING = [
    "model", "hardware", "software", "dtype", "tensor_parallel_size", "data_parallel_size", "expert_parallel_size",
    "expert_tensor_parallel_size", "concurrency", "num_prompt_tokens", "num_output_tokens",
]  # fmt: skip


def read_inferencex() -> pd.DataFrame:
    """Every point of the sample, traps flagged.

    So many clients each send their next request when one is answered. Times are means over requests, and no spread
    is given.

    Returns
    -------
    DataFrame, one row a listing
        The columns of a point table; ``concurrency`` is the number of clients. ``num_accelerators`` is missing where
        it is in doubt. Further ones: ``data_parallel_size``, of attention; ``expert_parallel_size,
        expert_tensor_parallel_size``.

    Raises
    ------
    PublishedDataMissingError
        The sample is not among the published data.
    """
    rows = pd.read_csv(published_data(FILE))
    prefix = np.where(rows["mode"] == "disagg", "decode_", "")
    sizes = {
        name: np.where(prefix == "", rows[name], rows[f"decode_{name}"])
        for name in ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
    }
    tensor, copies, expert_tensor, expert = (pd.Series(values) for values in sizes.values())
    # Of dense models the sizes that only mixtures have are 0 or missing.
    copies = copies.where(copies > 0, 1.0)
    is_in_doubt = (expert_tensor > 1) & (expert > 1) | (tensor > 1) & (copies > 1)
    points = pd.DataFrame(
        {
            "model": rows["model_path"],
            "hardware": rows["system"].map({name: get_accelerator(name).name for name in rows["system"].unique()}),
            "software": rows["backend"] + (" " + rows["backend_version"]).fillna(""),
            "num_accelerators": (tensor * copies).mask(is_in_doubt | (rows["mode"] == "disagg")),
            "tensor_parallel_size": tensor,
            "dtype": rows["precision"].map(_DTYPES),
            "concurrency": rows["silicon_data_source"].str.extract(r"silicon_concurrency=(\d+)")[0].astype(float),
            "num_prompt_tokens": rows["isl"],
            "num_output_tokens": rows["osl"],
            "time_to_first_token_s": rows["silicon_ttft_ms"] / 1e3,
            "time_per_output_token_s": rows["silicon_tpot_ms"] / 1e3,
            "output_tokens_per_s": np.nan,
            "power_watts": np.nan,
            "energy_per_output_token_joules": np.nan,
            "data_parallel_size": copies,
            "expert_parallel_size": expert,
            "expert_tensor_parallel_size": expert_tensor,
            "source": FILE + ": " + rows["id"],
        }
    )
    further_s = points["time_per_output_token_s"] * (points["num_output_tokens"] - 1)
    is_again = _listed_again(points, is_in_doubt)
    holds = {
        "disaggregated": rows["mode"] == "disagg",
        "devices-added-up": ~tensor.isin(_SHARED_SIZES),
        "no-concurrency": points["concurrency"].isna(),
        "listed-again": is_again,
        "queued": points["time_to_first_token_s"] > further_s,
    }
    points["flags"] = flag(
        {
            **holds,
            "quicker-with-more": _quicker_with_more(points, ~pd.DataFrame(holds).any(axis=1)),
            "measured-twice": points[~is_again]
            .duplicated(_SETTING, keep=False)
            .reindex(points.index, fill_value=False),
            "devices-in-doubt": is_in_doubt,
        }
    )
    return points[[*POINT_COLUMNS, *points.columns.difference(POINT_COLUMNS, sort=False)]]


def _listed_again(points, is_in_doubt) -> pd.Series:
    """Whether a row's two times stand in a better one: one whose devices and version are known, or an earlier one.

    The same measurement is listed in up to four dumps: as DeepSeek-R1 and as V3, with 8 devices and with 64, exact and
    rounded to 0.01 ms.
    """
    is_again = pd.Series(False, index=points.index)
    key = ["hardware", "dtype", "concurrency", "num_prompt_tokens", "num_output_tokens"]
    engine = points["software"].str.split().str[0]
    worse = is_in_doubt.astype(int) + (engine == points["software"])
    times_s = points[["time_to_first_token_s", "time_per_output_token_s"]].to_numpy()
    for _, rows in points.groupby([*key, engine], dropna=False):
        order = rows.index[np.argsort(worse[rows.index], kind="stable")]
        for place, row in enumerate(order[1:], start=1):
            is_same = np.abs(times_s[order[:place]] - times_s[row]).max(axis=1) <= _ROUNDING_S
            is_again[row] = is_same.any()
    return is_again


def _quicker_with_more(points, is_usable) -> pd.Series:
    """Whether more clients make the tokens of a row's server, at its sizes, come much sooner than fewer do."""
    is_so = pd.Series(False, index=points.index)
    key = [name for name in _SETTING if name != "concurrency"]
    for _, rows in points[is_usable].groupby(key, dropna=False):
        times_s = rows.groupby("concurrency")["time_per_output_token_s"].median()
        is_so[rows.index] = (times_s / times_s.cummax()).min() < _QUICKER
    return is_so
