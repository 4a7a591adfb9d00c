"""Models whose runtime is known, with their size and the accelerators and batch they were timed with."""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from idealized_runtime.architectures import ARCHITECTURES, Architecture
from idealized_runtime.checks import check_positive
from idealized_runtime.fits import RuntimeModel, read_parameters
from idealized_runtime.measurements.folders import find_logs
from idealized_runtime.measurements.published import PublishedDataMissingError
from idealized_runtime.measurements.timed_models import read_timed_model
from idealized_runtime.queries.mix import QueryMix
from idealized_runtime.reproductions.paper.models import PAPER_MODELS

# What Table 1 and Figure 8 of arXiv:2305.02440 leave out, from the arguments that the published logs print. TNLG was
# timed by a third of its layers, on 16 V100.
_NUM_ACCELERATORS_IN_LOGS = {
    "a100": {"ada": 1, "gpt2-9.9b": 1, "gpt-neox-20b": 1, "opt-66b": 4},
    "v100": {"ada": 1, "gpt-neox-20b": 2, "tnlg-v2": 48},
}
_PUBLISHED_DTYPE = "float16"


@dataclass(frozen=True, eq=False)
class ModelProfile:
    """A model with its fitted runtime, and what that runtime occupied.

    Parameters
    ----------
    name : str
    num_params : int
        N as the scaling laws count it: all parameters, embeddings included.
    runtime : RuntimeModel
        Seconds of one batch.
    num_accelerators : int
        Held while the batch runs: tensor times pipeline parallel size.
    batch_size : int
        Queries in the batch.
    hardware : str
        Folder of the log that was fitted; empty where it is not known.
    dtype : str
        Type it computed in; empty where it is not known.
    """

    name: str
    num_params: int
    runtime: RuntimeModel
    num_accelerators: int
    batch_size: int = 1
    hardware: str = ""
    dtype: str = ""

    def __post_init__(self):
        check_positive(num_accelerators=self.num_accelerators, batch_size=self.batch_size)

    @property
    def accelerators_per_query(self) -> float:
        """Accelerator-seconds of a query for each second of its batch."""
        return self.num_accelerators / self.batch_size

    def prompt_accelerator_s(self, mix: QueryMix, *, extrapolate=False) -> float:
        """Mean accelerator-seconds of encoding a prompt of the mix, which yields the first output token."""
        seconds = self.runtime.prompt_encoding_time_s(mix.num_prompt_tokens, extrapolate=extrapolate)
        return float(self.accelerators_per_query * (mix.weights @ seconds))

    def query_accelerator_s(self, mix: QueryMix, *, extrapolate=False) -> float:
        """Mean accelerator-seconds of a query of the mix."""
        seconds = self.runtime.predict(mix.num_prompt_tokens, mix.num_output_tokens, extrapolate=extrapolate)
        return float(self.accelerators_per_query * (mix.weights @ seconds))

    def output_token_accelerator_s(self, mix: QueryMix, *, extrapolate=False) -> float:
        """Mean accelerator-seconds of an output token after the first; of what one would take where there is none."""
        num_further = mix.weights * (mix.num_output_tokens - 1)
        weights = num_further if num_further.any() else mix.weights
        seconds = self.runtime.time_per_output_token_at(mix.num_prompt_tokens, extrapolate=extrapolate)
        return float(self.accelerators_per_query * (weights @ seconds) / weights.sum())


def read_profiles(
    path, *, models: Iterable[str] | None = None, num_accelerators: Mapping[str | None, int] | None = None
) -> tuple[ModelProfile, ...]:
    """Profiles of a parameter file, such as ``processed_jsons/a100.json``, smallest model first.

    HELM lists some models under several names; each architecture counts once. The number of accelerators comes
    from ``num_accelerators``, else (the published logs) from the paper, else from the log that the parameters name
    as their source. The batch size is what the parameters state (``fit.batch_size``), else that log's, else 1.

    Parameters
    ----------
    path : path-like
    models : iterable of str, optional
        Only these: names in the file, or of the registry.
    num_accelerators : mapping of model name to int, optional
        By names as in ``models``; under None that of all others.

    Raises
    ------
    ValueError
        The file is no parameter file, lacks a model asked for, or a model cannot be placed: its size or number of
        accelerators is not known, or a token visits only a part of it. The message begins with path and model.
    """
    path, given = Path(path), dict(num_accelerators or {})
    of_all_others = given.pop(None, None)
    runtimes = read_parameters(path)
    rows = {name: _registry_row(name) for name in runtimes}
    _select(path, rows, given)
    if of_all_others is not None:
        given = {**dict.fromkeys(runtimes, of_all_others), **given}
    by_architecture = {}
    for name in _select(path, rows, models):
        try:
            profile = _profile(name, rows[name], runtimes[name], given)
        except ValueError as error:
            raise ValueError(f"{path}: {name}: {error}") from error
        by_architecture.setdefault(profile.name, profile)
    return tuple(sorted(by_architecture.values(), key=lambda profile: (profile.num_params, profile.name)))


def _select(path, rows, models) -> list[str]:
    if models is None:
        return list(rows)
    models = [models] if isinstance(models, str) else list(models)
    registry_names = {name: row.name if row else name for name, row in rows.items()}
    known = {*registry_names, *registry_names.values()}
    if missing := [model for model in models if model not in known]:
        raise ValueError(f"{path}: no model {', '.join(missing)}; there are: {', '.join(sorted(known))}")
    return [name for name in rows if name in models or registry_names[name] in models]


def _registry_row(name) -> Architecture | None:
    return next((row for row in ARCHITECTURES.values() if name in (row.name, *row.helm_names)), None)


def _profile(name, row, runtime, given) -> ModelProfile:
    if runtime.overhead_s is not None:
        raise ValueError("timed through an API, which says nothing of accelerators; give a model timed on its hardware")
    hardware, log = _log_of(runtime)
    dtype = _PUBLISHED_DTYPE if hardware in _NUM_ACCELERATORS_IN_LOGS else ""
    timed = None if log is None or (row and dtype) else read_timed_model(log)
    row = row or (timed and timed.architecture)
    if row is None:
        raise ValueError("its size is not known: neither the registry nor a log at hand describes this model")
    if row.num_experts is not None:
        raise ValueError("a token visits a part of its experts: its cost is no function of N; leave it out of models")
    batch_size = runtime.batch_size
    number = given.get(row.name, given.get(name, _published_num_accelerators(hardware, row.name)))
    if timed is not None and not dtype:
        dtype = timed.dtype or ""
        number = timed.tensor_parallel_size * timed.pipeline_parallel_size if number is None else number
        batch_size = _only_batch_size(timed.runtimes) if batch_size is None else batch_size
    if number is None:
        raise ValueError("its number of accelerators is not known: give num_accelerators for it")
    return ModelProfile(row.name, row.num_params, runtime, number, batch_size or 1, hardware, dtype)


def _log_of(runtime) -> tuple[str, Path | None]:
    """Hardware of the log a model was fitted to, and its path where it is at hand."""
    if not runtime.sources:
        return "", None
    source = Path(runtime.sources[0]["file"])
    with contextlib.suppress(PublishedDataMissingError, ValueError):
        return source.parent.name, find_logs(source.parent.name, [source.stem])[0]
    return source.parent.name, None


def _published_num_accelerators(hardware, name) -> int | None:
    if hardware not in _NUM_ACCELERATORS_IN_LOGS:
        return None
    printed = {row.architecture_name: getattr(row, f"num_{hardware}") for row in PAPER_MODELS.values()}
    return _NUM_ACCELERATORS_IN_LOGS[hardware].get(name) or printed.get(name)


def _only_batch_size(frame) -> int:
    sizes = frame["batch_size"].unique()
    if len(sizes) > 1:
        found = ", ".join(map(str, sizes))
        raise ValueError(f"its log holds batches of {found} queries, and its parameters do not state fit.batch_size")
    return int(sizes[0])
