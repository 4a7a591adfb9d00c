"""What serving a query costs as others measured it: published servers at the largest batch within a limit.

A server that always runs a full batch answers a query in accelerator-seconds of a token x output tokens. Regressed on
model size, over dense Transformers.
"""

from dataclasses import dataclass

import pandas as pd

from idealized_runtime.architectures import Architecture
from idealized_runtime.checks import check_columns
from idealized_runtime.lifetime.measured import QueryCost
from idealized_runtime.lifetime.size_curve import MIN_MODELS, SizeCurve
from idealized_runtime.measurements.served_models import served_architecture
from idealized_runtime.queries.mix import QueryMix

_TOKEN_S = "accelerator_s_per_output_token"


@dataclass(frozen=True, eq=False)
class ServedQueryCost(QueryCost):
    """Accelerator-seconds of the mean query on published servers. Made by :meth:`of_servers`.

    Parameters
    ----------
    models : DataFrame, by model
        As of :meth:`of_servers`.
    left_out : dict of str
        By architecture of the servers, why it is no point of the curve.
    """

    models: pd.DataFrame
    left_out: dict[str, str]

    @classmethod
    def of_servers(cls, servers: pd.DataFrame, mix: QueryMix) -> "ServedQueryCost":
        """Regress what a query costs on model size, each model on that server where it costs least.

        Parameters
        ----------
        servers : DataFrame
            Of one machine and task, as from :meth:`~idealized_runtime.serving.full_batches.FullBatches.within`.
        mix : QueryMix
            Of which the output tokens count. A server's mean step encodes prompts as the task has them: the mix should
            have that many.

        Returns
        -------
        ServedQueryCost
            ``models`` has ``num_params, num_accelerators, dtype, batch, is_largest_measured``; accelerator-seconds of
            the mean query, ``query_s, query_s_lower, query_s_upper``; and ``query_fitted_s`` on the curve.

        Raises
        ------
        ValueError
            Servers are of several machines or tasks, or fewer than four models are dense Transformers.
        """
        check_columns(servers, ["architecture", "hardware", "task", _TOKEN_S], name="servers")
        for column in ("hardware", "task"):
            if len(values := servers[column].unique()) > 1:
                raise ValueError(f"servers must be of one {column}; got {', '.join(map(str, values))}")
        best = servers.sort_values(_TOKEN_S, kind="stable").drop_duplicates("architecture").set_index("architecture")
        known = {name: served_architecture(name) for name in best.index}
        left_out = {name: reason for name, architecture in known.items() if (reason := _why_not_dense(architecture))}
        best = best.drop(index=list(left_out))
        if len(best) < MIN_MODELS:
            raise ValueError(
                f"at least {MIN_MODELS} dense models must be served to tell what a size costs; {len(best)} are"
                + "".join(f"; {name}: {reason}" for name, reason in left_out.items())
            )
        models = pd.DataFrame({"num_params": {name: known[name].num_params for name in best.index}})
        models = models.join(best[["num_accelerators", "dtype", "batch", "is_largest_measured"]])
        for bound in ("", "_lower", "_upper"):
            models[f"query_s{bound}"] = mix.mean_output_tokens * best[f"{_TOKEN_S}{bound}"]
        models = models.sort_values("num_params").rename_axis("model")
        curve = SizeCurve.fit(models["num_params"], models["query_s"])
        return cls(mix, curve, models.assign(query_fitted_s=curve(models["num_params"])), left_out)


def _why_not_dense(architecture: Architecture | None) -> str:
    """Why a model's cost is no function of its size as a scaling law has it; empty where it is."""
    if architecture is None:
        return "its size is not known"
    if architecture.num_experts is not None:
        return "a token visits a part of its experts"
    kinds = {part.kind for part, _ in architecture.blocks} - {"attention", "feed-forward", "norms"}
    return f"its layers have {', '.join(sorted(kinds))}" if kinds else ""
