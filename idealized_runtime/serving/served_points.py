"""Predictions of what others served, held against serving points that took no part in them."""

import numpy as np
import pandas as pd

from idealized_runtime.checks import check_columns
from idealized_runtime.measurements.served_models import architecture_name, served_architecture
from idealized_runtime.serving.known_stacks import get_known_stack
from idealized_runtime.serving.served import ModelTooLargeError, predict_served

_SERVER = ["model", "hardware", "dtype", "tensor_parallel_size"]
_NEEDED = ("software", "concurrency", "num_prompt_tokens", "num_output_tokens", "time_per_output_token_s",
           "time_to_first_token_s", "num_accelerators")  # fmt: skip
# As points name the formats that the weights of a served model have.
_STORED = {"bfloat16": "bfloat16", "float8": "float8", "float4": "mxfp4"}


def predict_points(points: pd.DataFrame, *, software: str = "vllm", level: float = 0.95) -> pd.DataFrame:
    """Points of an engine, of any version, and what the stack that comes with the package says of them.

    Parameters
    ----------
    points : DataFrame
        As from ``read_inferencex``, without what must not be used.
    software : str
        The engine.
    level : float
        Of the intervals of times per output token.

    Returns
    -------
    DataFrame
        Rows of the engine, on devices that share every layer and can hold the model, whose models are counted and whose
        weights are in a format that was served (4 bits: of gpt-oss alone); with ``architecture``; ``predicted_s`` and
        ``relative_error`` of the time per output token, ``is_covered`` by its interval; ``first_token_error``,
        relative, of a prompt that nobody waits for.
    """
    check_columns(points, [*_SERVER, *_NEEDED], name="points")
    known = get_known_stack(software)
    points = points.assign(architecture=points["model"].map(architecture_name), dtype=points["dtype"].map(_STORED))
    is_served = points["software"].str.split().str[0] == known.software.split()[0]
    is_served &= points["num_accelerators"] == points["tensor_parallel_size"]
    # Others of 4 bits are stored in another format.
    four_bits = [name for name, dtypes in known.served.items() if "mxfp4" in dtypes]
    is_served &= (points["dtype"] != "mxfp4") | points["architecture"].isin(four_bits)
    architectures = {model: served_architecture(model) for model in points["model"].unique()}
    parts = []
    for (model, hardware, dtype, size), rows in points[is_served].groupby(_SERVER):
        if architectures[model] is None:
            continue
        try:
            served = predict_served(
                architectures[model], hardware=hardware, software=software, dtype=dtype, tensor_parallel_size=int(size),
                num_context_tokens=1,
            )  # fmt: skip
        except ModelTooLargeError:
            # Listed on fewer devices than can have held it.
            continue
        for concurrency, part in rows.groupby("concurrency"):
            runtimes, (p, o) = served.runtimes(int(concurrency)), part[list(_NEEDED[2:4])].to_numpy(float).T
            measured_s, predicted_s = part["time_per_output_token_s"], runtimes.output_token_s(p, o)
            lower_s, upper_s = runtimes.output_token_interval_s(p, o, level)
            first_s = runtimes.predict(p, np.ones_like(p), extrapolate=True)
            parts.append(
                part.assign(
                    predicted_s=predicted_s, relative_error=predicted_s / measured_s - 1,
                    is_covered=((lower_s <= measured_s) & (measured_s <= upper_s)).astype(float),
                    first_token_error=first_s / part["time_to_first_token_s"] - 1,
                )
            )  # fmt: skip
    return pd.concat(parts).sort_index() if parts else points[:0]
