"""The published measurements that claims are recomputed from, each read once and only when it is needed."""

import json
import warnings
from functools import cached_property
from pathlib import Path

import pandas as pd

from idealized_runtime.architectures import Architecture
from idealized_runtime.fits import RuntimeModel
from idealized_runtime.fits.denoised import fit_denoised
from idealized_runtime.measurements.folders import PUBLISHED_LOGS, find_logs, model_of_log, read_logs
from idealized_runtime.measurements.published import published_data
from idealized_runtime.records import RepeatedSettingWarning, read_architecture
from idealized_runtime.reproductions.paper.models import by_printed_name
from idealized_runtime.reproductions.paper.tradeoffs import estimate_on_both

PARAMETER_FILES = {
    "a100": "inference_idealized_runtimes.json",
    "v100": "inference_idealized_runtimes_v100.json",
    "api": "inference_denoised_runtimes.json",
}
# Models of the published API minima, by HELM's name.
API_MODELS = {
    "ai21_j1_large": "ai21/j1-large",
    "ai21_j1_grande": "ai21/j1-grande",
    "ai21_j1_jumbo": "ai21/j1-jumbo",
    "anthropic": "anthropic/stanford-online-all-v4-s3",
    "cohere_small": "cohere/small-20220720",
    "cohere_medium": "cohere/medium-20220720",
    "cohere_large": "cohere/large-20220720",
    "cohere_xlarge": "cohere/xlarge-20220609",
    "openai_curie": "openai/curie",
    "openai_cushman_001": "openai/code-cushman-001",
    "openai_davinci": "openai/davinci",
    "openai_text-curie-001": "openai/text-curie-001",
    "openai_text-davinci-002": "openai/text-davinci-002",
}


class PaperData:
    """Published measurements, fits and points, by the names of their files.

    Every attribute raises ``PublishedDataMissingError`` where its file is not there.
    """

    def __init__(self):
        self._cache = {}

    def timings(self, hardware: str) -> dict[str, pd.DataFrame]:
        """Timings of each model on ``"a100"`` or ``"v100"``, by registry name."""
        return self._once(("timings", hardware), lambda: _read_timings(hardware))

    def fits(self, hardware: str) -> dict[str, RuntimeModel]:
        """Fits by the published procedure, by registry name."""
        return self._once(("fits", hardware), lambda: _fit(self.timings(hardware)))

    def timed_architectures(self) -> dict[str, Architecture]:
        """Shapes that the A100 logs print, by registry name."""
        return self._once("architectures", _read_architectures)

    def points(self, name: str) -> pd.DataFrame:
        """A table of ``paper_figures``, such as ``"figure7_points"``."""
        return self._once(("points", name), lambda: pd.read_csv(published_data(f"paper_figures/{name}.csv")))

    def drawn(self, *, vintage: str = "2023-05") -> pd.DataFrame:
        """Points of Figure 9: ``task, metric, unit, model, value, accuracy``."""
        points = self.points("figure9_points")
        return points[points["vintage"] == vintage].drop(columns="vintage")

    def parameters(self, name: str) -> dict[str, dict]:
        """Entries of an authors' parameter file, as they stand there: ``"a100"``, ``"v100"`` or ``"api"``."""
        path = f"helm-efficiency/processed_jsons/{PARAMETER_FILES[name]}"
        return self._once(("parameters", name), lambda: json.loads(published_data(path).read_text(encoding="utf-8")))

    @cached_property
    def api_minima(self) -> dict[str, pd.DataFrame]:
        """Minimum runtimes of the last vintage, by HELM's name.

        ``api_minimum_runtimes_2023-11`` lacks p = 256 for some models; the trials of Figure 5, whose minima
        it otherwise equals, have it for AI21's.
        """
        minima = self.points("api_minimum_runtimes_2023-11").rename(columns={"minimum_runtime_s": "runtime_s"})
        trials = self.points("figure5_trial_runtimes")
        trials = trials.assign(model=trials["model"].str.replace("-", "_", n=1).replace(_FIGURE5_NAMES))
        both = pd.concat([minima, trials[trials["model"].isin(API_MODELS)]])
        settings = both.groupby(["model", "num_prompt_tokens", "num_output_tokens"], as_index=False)["runtime_s"].min()
        return {API_MODELS[model]: frame for model, frame in settings.groupby("model")}

    @cached_property
    def api_fits(self) -> dict[str, RuntimeModel]:
        """Denoised fits to :attr:`api_minima` by the published procedure, by HELM's name."""
        return {name: fit_denoised(minima, method="published") for name, minima in self.api_minima.items()}

    @cached_property
    def estimates(self) -> pd.DataFrame:
        """Runtime and cost on both hardware of the queries behind Figure 9, from the fits to the logs."""
        fits = [by_printed_name(self.fits(hardware)) for hardware in ("a100", "v100")]
        return estimate_on_both(self.points("figure9_query_sizes"), *fits)

    @cached_property
    def scenarios(self) -> pd.DataFrame:
        """API runtimes of July 2022: one row a scenario and model, columns as in the file."""
        return pd.read_csv(published_data(f"{PUBLISHED_LOGS}/inference_runtimes_and_accuracies_all_scenarios.csv"))

    def _once(self, key, read):
        if key not in self._cache:
            self._cache[key] = read()
        return self._cache[key]


def short_name(name: str) -> str:
    """A printed name without its version: ``"AI21/J1-Large v1"`` is ``"AI21/J1-Large"``."""
    return name.split(" ")[0]


_FIGURE5_NAMES = {
    "ai21_j1-large": "ai21_j1_large",
    "ai21_j1-grande": "ai21_j1_grande",
    "ai21_j1-jumbo": "ai21_j1_jumbo",
}


def _log_folder(hardware) -> Path:
    return published_data(f"{PUBLISHED_LOGS}/{hardware}")


def _read_timings(hardware):
    with warnings.catch_warnings():
        # v100/yalm.log holds an aborted run, too: the last of a repeated setting counts, as for the authors.
        warnings.simplefilter("ignore", RepeatedSettingWarning)
        return read_logs(_log_folder(hardware))


def _fit(timings):
    return {model: RuntimeModel.fit(frame, method="published") for model, frame in timings.items()}


def _read_architectures():
    return {model_of_log(path): read_architecture(path) for path in find_logs(_log_folder("a100"))}
