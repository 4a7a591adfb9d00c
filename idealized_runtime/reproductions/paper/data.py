"""The published measurements that claims are recomputed from, each read once and only when it is needed."""

import functools
import json
import warnings
from functools import cached_property

import pandas as pd

from idealized_runtime.architectures import Architecture
from idealized_runtime.fits import ModelOfRuntimes, PublishedRuntimeModel
from idealized_runtime.measurements.folders import PUBLISHED_LOGS
from idealized_runtime.measurements.published import published_data
from idealized_runtime.measurements.timed_models import TimedModel, fit_models, read_timed_models
from idealized_runtime.records import RepeatedSettingWarning, SuspiciousLogWarning
from idealized_runtime.reproductions.paper.api_runtimes import complete_minima, read_api_minima, read_api_trials
from idealized_runtime.reproductions.paper.api_tables import entry_table, fit_apis
from idealized_runtime.reproductions.paper.models import by_printed_name
from idealized_runtime.reproductions.paper.tradeoffs import price_on_hardware, read_figure8

PARAMETER_FILES = {
    "a100": "inference_idealized_runtimes.json",
    "v100": "inference_idealized_runtimes_v100.json",
    "api": "inference_denoised_runtimes.json",
}


def _once(read):
    """A method of :class:`PaperData` that reads each of its answers once."""

    @functools.wraps(read)
    def answer(self, *arguments):
        key = (read.__name__, *arguments)
        if key not in self._cache:
            self._cache[key] = read(self, *arguments)
        return self._cache[key]

    return answer


class PaperData:
    """Published measurements, fits and points, by the names of their files.

    Every attribute raises ``PublishedDataMissingError`` where its file is not there.
    """

    def __init__(self):
        self._cache = {}

    @_once
    def timed(self, hardware: str) -> dict[str, TimedModel]:
        """What the logs of ``"a100"`` or ``"v100"`` hold, by registry name."""
        with warnings.catch_warnings():
            # v100/yalm.log holds an aborted run, too; the last of a repeated setting counts, as for the authors.
            # Other V100 logs were disturbed, and are what the paper rests on.
            warnings.simplefilter("ignore", RepeatedSettingWarning)
            warnings.simplefilter("ignore", SuspiciousLogWarning)
            return read_timed_models(published_data(f"{PUBLISHED_LOGS}/{hardware}"))

    def timings(self, hardware: str) -> dict[str, pd.DataFrame]:
        """Timings of each model on ``"a100"`` or ``"v100"``, by registry name."""
        return {name: model.runtimes for name, model in self.timed(hardware).items()}

    @_once
    def fits(self, hardware: str) -> dict[str, ModelOfRuntimes]:
        """Fits by the published procedure, by registry name."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SuspiciousLogWarning)
            return fit_models(self.timed(hardware), PublishedRuntimeModel.fit)

    def timed_architectures(self) -> dict[str, Architecture]:
        """Shapes that the A100 logs print, by registry name."""
        return {name: model.architecture for name, model in self.timed("a100").items()}

    @_once
    def points(self, name: str) -> pd.DataFrame:
        """A table of ``paper_figures``, such as ``"figure9_points"``."""
        return pd.read_csv(published_data(f"paper_figures/{name}.csv"))

    def drawn(self, *, vintage: str = "2023-05") -> pd.DataFrame:
        """Points of Figure 9: ``task, metric, unit, model, value, accuracy``."""
        points = self.points("figure9_points")
        return points[points["vintage"] == vintage].drop(columns="vintage")

    @_once
    def parameters(self, name: str) -> dict[str, dict]:
        """Entries of an authors' parameter file, as they stand there: ``"a100"``, ``"v100"`` or ``"api"``."""
        path = published_data(f"helm-efficiency/processed_jsons/{PARAMETER_FILES[name]}")
        return json.loads(path.read_text(encoding="utf-8"))

    @cached_property
    def api_trials(self) -> pd.DataFrame:
        """Single trials behind Figure 5; see :func:`.api_runtimes.read_api_trials`."""
        return read_api_trials()

    @cached_property
    def api_fits(self) -> dict[str, ModelOfRuntimes]:
        """Denoised fits by the published procedure to the final minima, by HELM's name."""
        return fit_apis(complete_minima(read_api_minima("2023-11"), self.api_trials))

    @cached_property
    def api_entries(self) -> pd.DataFrame:
        """:attr:`api_fits` beside the authors' file; see :func:`.api_tables.entry_table`."""
        return entry_table(self.api_fits, self.parameters("api"))

    @cached_property
    def estimates(self) -> pd.DataFrame:
        """Runtime and cost on both hardware of the queries behind Figure 9, from the fits to the logs."""
        fits = {hardware: by_printed_name(self.fits(hardware)) for hardware in ("a100", "v100")}
        return price_on_hardware(self.points("figure9_query_sizes"), fits)

    @cached_property
    def figure8(self) -> pd.DataFrame:
        """Points of Figure 8, a row a hardware, task and model."""
        return read_figure8()

    @cached_property
    def scenarios(self) -> pd.DataFrame:
        """API runtimes of July 2022: one row a scenario and model, columns as in the file."""
        return pd.read_csv(published_data(f"{PUBLISHED_LOGS}/inference_runtimes_and_accuracies_all_scenarios.csv"))
