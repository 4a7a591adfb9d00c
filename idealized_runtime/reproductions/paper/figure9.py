"""Points of Figure 9 recomputed from published measurements, one table a metric: ``task, model, value``."""

import pandas as pd

from idealized_runtime.architectures.closed_forms import closed_form_flops_without_attention
from idealized_runtime.fits import model_from_json
from idealized_runtime.queries.price import price
from idealized_runtime.reproductions.paper.data import PaperData
from idealized_runtime.reproductions.paper.models import PAPER_MODELS, by_printed_name
from idealized_runtime.reproductions.paper.tradeoffs import TASKS, idealized_points

# Of the API runtimes of July 2022, by printed name. Anthropic's model of that date is another one.
SCENARIO_MODELS = {
    "openai_davinci": "OpenAI/davinci",
    "ai21_j1-large": "AI21/J1-Large v1",
    "ai21_j1-grande": "AI21/J1-Grande v1",
    "ai21_j1-jumbo": "AI21/J1-Jumbo v1",
}


def recomputed_points(data: PaperData, metric: str) -> pd.DataFrame:
    """Points of one row of Figure 9, for the models that the published measurements allow.

    Parameters
    ----------
    data : PaperData
    metric : {"model_size", "flops", "runtime", "denoised_runtime", "idealized_runtime", "idealized_cost"}

    Returns
    -------
    DataFrame
        ``task, model, value``, in the unit of Figure 9.
    """
    queries = data.points("figure9_query_sizes")
    if metric == "model_size":
        shapes = data.timed_architectures()
        billions = {name: shapes[row.architecture_name].num_params / 1e9 for name, row in PAPER_MODELS.items()}
        points = queries.assign(value=queries["model"].map(billions))
    elif metric == "flops":
        # 24 h^2 l for every token that passes through the layers: all but the last output token.
        num_tokens = queries["num_prompt_tokens"] + queries["num_output_tokens"] - 1
        per_token = {
            name: closed_form_flops_without_attention(row.architecture, 1) for name, row in PAPER_MODELS.items()
        }
        points = queries.assign(value=queries["model"].map(per_token) * num_tokens)
    elif metric == "denoised_runtime":
        parameters = by_printed_name(data.parameters("api"))
        models = {name: model_from_json(entry) for name, entry in parameters.items()}
        points = queries.assign(value=price(queries, models, extrapolate=True).table["runtime_s"]).dropna()
    elif metric == "runtime":
        points = _july_runtimes(data.scenarios)
    else:
        fits = {hardware: by_printed_name(data.fits(hardware)) for hardware in ("a100", "v100")}
        points = idealized_points(queries, fits).query("metric == @metric")
    return points[["task", "model", "value"]]


def _july_runtimes(scenarios) -> pd.DataFrame:
    """Mean raw runtimes of July 2022, of the scenarios and models that Figure 9 draws, too."""
    # "imdb:model=openai_davinci", or "mmlu:subject=college_chemistry,model=openai_davinci".
    parts = scenarios["scenario"].str.extract(r"^(?P<task>.+?)[:,]model=(?P<model>[^,]+)$")
    rows = parts.assign(value=scenarios["inference_runtime"], model=parts["model"].map(SCENARIO_MODELS))
    rows = rows[rows["task"].isin(TASKS)].dropna()
    return rows.groupby(["task", "model"], as_index=False)["value"].mean()
