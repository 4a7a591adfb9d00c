"""Seconds of one step of a server, as a line in what the step does; and the file that keeps them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from idealized_runtime.checks import printable
from idealized_runtime.fits.parameters import read_entries, write_entries
from idealized_runtime.serving.scheduler import Scheduler
from idealized_runtime.statistics.intervals import normal_half_width

STEP_TERMS = ("fixed_s", "prompt_token_s", "sequence_s", "cache_token_s", "expert_s")
TERMS = (*STEP_TERMS, "request_s")
ORIGINS = ("fitted", "predicted", "measured")
_LEFT_OUT = "left out: what was timed does not tell it from the others"
# Tokens in the cache of a sequence, of the rows of a table of steps.
_CONTEXTS = (0, 128, 512, 2048, 8192)


def share_visited(num_tokens: ArrayLike, expert_share: float) -> float | np.ndarray:
    """Share of a layer's experts that so many tokens visit, each of which visits a share; none is preferred."""
    return -np.expm1(num_tokens * np.log1p(-expert_share))


@dataclass(frozen=True, eq=False)
class StepModel:
    """Time of one iteration of a server, and how surely it is known.

    ``fixed_s`` + ``prompt_token_s`` x prompt tokens encoded in it + ``sequence_s`` x sequences in it +
    ``cache_token_s`` x tokens in their cache + ``expert_s`` x share of the experts that its tokens visit. A request
    takes ``request_s`` beside its steps.

    Parameters
    ----------
    fixed_s, prompt_token_s, sequence_s, cache_token_s, expert_s : float
        Seconds, none negative and not all zero; the last is 0 of dense models.
    request_s : float
        Of the time to a first token, what passes outside of the engine: the way there and back, the client, the
        server's front. Steps go on meanwhile, so a busy engine serves no fewer requests for it.
    expert_share : float
        Share of a layer's experts that one token visits: 8 of 128 is 0.0625; 0 of dense models. So many of n tokens
        visit 1 - (1 - share)^n of them, where a router has no preferences.
    covariance : array, shape (6, 6), optional
        Of the six, in that order, or of the first five; None where no error is known.
    scheduler : Scheduler
        The rules under which they were measured, or are to be used.
    origin : {"fitted", "predicted", "measured"}
    hardware, software : str
    num_accelerators : int or None
        Devices of all engines together.
    sources : tuple of mapping
        Files it was fitted to, with ``file`` and ``sha256``.

    Raises
    ------
    ValueError
        A time is negative or not finite, all are zero, a share is not one, or the covariance is none.

    Examples
    --------
    >>> steps = StepModel(fixed_s=0.013, prompt_token_s=4e-5, sequence_s=4e-5, cache_token_s=7e-8)
    >>> float(steps.seconds(num_sequences=64, num_cached_tokens=64 * 1000))
    0.02004
    """

    fixed_s: float
    prompt_token_s: float
    sequence_s: float
    cache_token_s: float
    expert_s: float = 0.0
    request_s: float = 0.0
    expert_share: float = 0.0
    covariance: np.ndarray | None = field(default=None, repr=False)
    scheduler: Scheduler = field(default_factory=Scheduler)
    origin: str = "fitted"
    hardware: str = ""
    software: str = ""
    num_accelerators: int | None = None
    sources: tuple = field(default=(), repr=False)

    def __post_init__(self):
        for term in TERMS:
            value = getattr(self, term)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < np.inf:
                raise ValueError(f"{term} must be a number of seconds, not negative; got {value!r}")
        if not self.coefficients[:5].any():
            raise ValueError(f"one of {', '.join(STEP_TERMS)} must be above 0: a step takes time")
        if not 0 <= self.expert_share < 1:
            raise ValueError(
                f"expert_share must lie in [0, 1), the share that one token visits; got {self.expert_share!r}"
            )
        if self.origin not in ORIGINS:
            raise ValueError(f"origin must be one of {', '.join(ORIGINS)}; got {self.origin!r}")
        if self.covariance is not None:
            covariance = np.asarray(self.covariance, dtype=float)
            if covariance.shape == (5, 5):
                covariance = np.pad(covariance, (0, 1))
            if covariance.shape != (6, 6) or not np.isfinite(covariance).all():
                raise ValueError(f"covariance must be 6 x 6 finite numbers, of {', '.join(TERMS)}")
            if not np.allclose(covariance, covariance.T, rtol=1e-6) or (np.diag(covariance) < 0).any():
                raise ValueError("covariance must be symmetric, its diagonal not negative")
            object.__setattr__(self, "covariance", covariance)

    @property
    def coefficients(self) -> np.ndarray:
        """The six times, shape (6,)."""
        return np.array([getattr(self, term) for term in TERMS], dtype=float)

    def seconds(
        self,
        *,
        num_sequences: ArrayLike = 0,
        num_cached_tokens: ArrayLike = 0,
        num_prompt_tokens: ArrayLike = 0,
        num_prompts: ArrayLike | None = None,
    ) -> float | np.ndarray:
        """Time of a step with so many sequences, tokens in their cache, and prompt tokens to encode.

        All are numbers or arrays that broadcast. Sequences whose prompts are encoded, ``num_prompts``, are among the
        sequences (one where there are prompt tokens, unless it is said); each of the others gains a token.
        """
        num_prompt_tokens = np.asarray(num_prompt_tokens)
        num_prompts = num_prompt_tokens > 0 if num_prompts is None else num_prompts
        num_tokens = num_prompt_tokens + np.maximum(np.asarray(num_sequences) - num_prompts, 0)
        return (
            self.fixed_s
            + self.prompt_token_s * num_prompt_tokens
            + self.sequence_s * np.asarray(num_sequences)
            + self.cache_token_s * np.asarray(num_cached_tokens)
            + self.expert_s * share_visited(num_tokens, self.expert_share)
        )

    def draws(self, num_draws: int, rng: int | np.random.Generator) -> list["StepModel"]:
        """Step models as far from this one as its errors let the truth be.

        Normal draws with its covariance, and where one has a negative time, the nearest without (in the metric of the
        covariance), or another draw where that one has no time at all. All equal where no error is known.
        """
        from dataclasses import replace

        from scipy.optimize import nnls

        if self.covariance is None:
            return [self] * num_draws
        is_free = np.diag(self.covariance) > 0
        covariance = self.covariance[np.ix_(is_free, is_free)]
        scale = np.sqrt(np.diag(covariance))
        values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
        # What rounding leaves of a direction without error must not be divided by.
        deviations = np.sqrt(np.maximum(values, 1e-10))
        whitened = vectors.T / deviations[:, None] / scale
        rng, drawn = np.random.default_rng(rng), []
        while len(drawn) < num_draws:
            values = self.coefficients[is_free] + rng.standard_normal(len(scale)) * deviations @ vectors.T * scale
            if (values < 0).any():
                values = nnls(whitened * scale, whitened @ values)[0] * scale
            times = self.coefficients
            times[is_free] = values
            # A step without time cannot be.
            if times[:5].any():
                drawn.append(replace(self, **dict(zip(TERMS, times.tolist(), strict=True)), covariance=None))
        return drawn

    def table(self, *, level: float = 0.95) -> pd.DataFrame:
        """The times in units that people read: ``value, lower, upper, unit``, by term; lower bounds end at 0.

        Of a term that a fit left out there is no value, and the unit says why.
        """
        errors = np.full(len(TERMS), np.nan) if self.covariance is None else np.sqrt(np.diag(self.covariance))
        reach = normal_half_width(level) * errors
        units = {"fixed_s": (1e3, "ms a step"), "prompt_token_s": (1e6, "us a prompt token"),
                 "sequence_s": (1e6, "us a sequence"), "cache_token_s": (1e9, "ns a cached token"),
                 "expert_s": (1e3, "ms where all experts are visited"),
                 "request_s": (1e3, "ms a request, outside of steps")}  # fmt: skip
        rows = {
            term: {
                "value": scale * value,
                "lower": scale * max(value - half, 0.0),
                "upper": scale * (value + half),
                "unit": unit,
            }
            for (term, (scale, unit)), value, half in zip(units.items(), self.coefficients, reach, strict=True)
            if (term != "expert_s" or self.expert_share) and (term != "request_s" or value > 0 or half > 0)
        }
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("term")
        table.loc[(table["value"] == 0) & (table["upper"] == 0), :] = [np.nan, np.nan, np.nan, _LEFT_OUT]
        return table

    def step_table(self, *, level: float = 0.95) -> pd.DataFrame:
        """The time of steps of many sizes, for other simulators: a row a step that the scheduler allows.

        Sequences and prompt tokens are powers of 2 and of 4 up to its limits; each sequence that generates has from 0
        to 8192 tokens in the cache, as far as it holds them. Between the rows of a dense model the time is a line.

        Returns
        -------
        DataFrame
            ``num_sequences`` of the step, those whose prompts it encodes included; ``num_cached_tokens`` that it reads;
            ``num_prompt_tokens`` that it encodes; ``seconds, seconds_lower, seconds_upper``, the bounds NaN where no
            error is known. What passes outside of steps, ``request_s``, is in none of them.
        """
        rules = self.scheduler
        counts = _powers(2, rules.max_num_seqs)
        prompts = [0, *_powers(4, rules.max_num_batched_tokens)]
        n, p, context = (grid.ravel() for grid in np.meshgrid(counts, prompts, _CONTEXTS, indexing="ij"))
        # Continuous steps encode one prompt beside the sequences that generate, those of the others prompts alone.
        num_prompts = np.where(p == 0, 0, 1 if rules.policy == "continuous" else n)
        num_generating = n - num_prompts
        cached = num_generating * context
        is_allowed = (num_prompts <= p) & (num_generating + p <= max(rules.max_num_batched_tokens, rules.max_num_seqs))
        is_allowed &= (num_generating > 0) | (context == 0)
        if rules.cache_tokens is not None:
            is_allowed &= cached + num_generating + p <= rules.cache_tokens
        n, p, cached, num_prompts = (column[is_allowed] for column in (n, p, cached, num_prompts))
        visited = share_visited(p + n - num_prompts, self.expert_share)
        held = np.column_stack([np.ones(len(n)), p, n, cached, visited])
        seconds, errors = held @ self.coefficients[: len(STEP_TERMS)], np.full(len(n), np.nan)
        if self.covariance is not None:
            errors = np.sqrt(np.einsum("ij,jk,ik->i", held, self.covariance[:-1, :-1], held))
        reach = normal_half_width(level) * errors
        return pd.DataFrame({
            "num_sequences": n, "num_cached_tokens": cached, "num_prompt_tokens": p, "seconds": seconds,
            "seconds_lower": np.maximum(seconds - reach, 0), "seconds_upper": seconds + reach,
        })  # fmt: skip

    def llm_d_numbers(self, num_context_tokens: float, *, level: float = 0.95) -> pd.DataFrame:
        """What llm-d's autoscaler asks of a model on a machine, in milliseconds.

        Time between tokens is alpha + beta x batch, that of encoding a batch of prompts gamma + delta x tokens x batch
        (llm-d workload-variant-autoscaler, ``decodeParms`` and ``prefillParms``). A cache of so many tokens a sequence
        is part of beta; of a mixture alpha holds the time of all experts.

        Returns
        -------
        DataFrame, by ``alpha``, ``beta``, ``gamma``, ``delta``
            ``value_ms, value_ms_lower, value_ms_upper``.
        """
        weights = np.array([
            [1, 0, 0, 0, 1, 0],
            [0, 0, 1, num_context_tokens, 0, 0],
            [1, 0, 1, 0, 1, 0],
            [0, 1, 0, 0, 0, 0],
        ])  # fmt: skip
        values = weights @ self.coefficients
        errors = np.full(4, np.nan)
        if self.covariance is not None:
            errors = np.sqrt(np.einsum("ij,jk,ik->i", weights, self.covariance, weights))
        reach = normal_half_width(level) * errors
        bounds = {
            "value_ms": values, "value_ms_lower": np.maximum(values - reach, 0), "value_ms_upper": values + reach
        }  # fmt: skip
        return pd.DataFrame(
            {name: 1e3 * numbers for name, numbers in bounds.items()}, index=["alpha", "beta", "gamma", "delta"]
        )

    def to_json(self) -> dict:
        """What stands under ``"steps"`` in a parameter file."""
        known = {term: float(getattr(self, term)) for term in TERMS} | {"expert_share": float(self.expert_share)}
        covariance = None if self.covariance is None else self.covariance.tolist()
        named = {name: getattr(self, name) for name in ("origin", "hardware", "software", "num_accelerators")}
        return {
            **known,
            "covariance": covariance,
            "scheduler": vars(self.scheduler),
            **named,
            "sources": list(self.sources),
        }

    @classmethod
    def from_json(cls, entry: Mapping) -> "StepModel":
        """The model of what :meth:`to_json` gave, or of its four or five times alone.

        Raises
        ------
        ValueError
            A time is absent or a value is not what it should be; the message names it.
        """
        if not isinstance(entry, Mapping):
            raise ValueError(f"steps must be an object; got {type(entry).__name__}")
        if absent := [term for term in TERMS[:4] if term not in entry]:
            raise ValueError(f"steps lacks {', '.join(absent)}; needed: {', '.join(TERMS[:4])}")
        known = {name: entry[name] for name in cls.__dataclass_fields__ if name in entry}
        try:
            known["scheduler"] = Scheduler(**known.get("scheduler", {}))
            known["sources"] = tuple(known.get("sources", ()))
            return cls(**known)
        except TypeError as error:
            raise ValueError(f"steps: {error}") from error


def _powers(base, most) -> list[int]:
    """Powers of a base, from 1 to the most that is allowed, which is one of them."""
    return sorted({most, *(base**k for k in range(int(most).bit_length()) if base**k <= most)})


def llm_d_profile(name: str, steps: StepModel, num_context_tokens: float, *, level: float = 0.95) -> str:
    """YAML with the ``perfParms`` of a ``VariantAutoscaling`` resource of llm-d, in milliseconds.

    They stand under ``spec.variantProfile``, of older versions under an accelerator of ``spec.modelProfile`` (llm-d
    workload-variant-autoscaler, API llmd.ai/v1alpha1 of 2025, its CRD reference at commit 0ee487de). Version 0.9 has
    no such resource any more.
    """
    numbers = steps.llm_d_numbers(num_context_tokens, level=level)
    hardware = f" on {steps.num_accelerators or '?'} x {steps.hardware}" if steps.hardware else ""
    words = " ".join(printable(name + hardware).split())
    lines = [
        "# llm-d workload-variant-autoscaler, VariantAutoscaling of llmd.ai/v1alpha1 (2025; none since 0.9): ms",
        f"# {words}, steps {steps.origin}; maxBatchSize {steps.scheduler.max_num_seqs}, "
        f"{num_context_tokens:.0f} tokens in the cache of a sequence",
        "perfParms:",
    ]
    for group, names in (("decodeParms", ("alpha", "beta")), ("prefillParms", ("gamma", "delta"))):
        lines.append(f"  {group}:")
        for number in names:
            value, lower, upper = numbers.loc[number]
            bounds = "" if np.isnan(lower) else f"  # {100 * level:g} % interval: {lower:.4g} to {upper:.4g}"
            lines.append(f'    {number}: "{value:.9g}"{bounds}')
    return "\n".join(lines) + "\n"


def write_steps(path: str | os.PathLike, name: str, steps: StepModel) -> None:
    """Put a step model into a parameter file, which keeps what else it holds of this and of other models."""
    entries = read_entries(path) if Path(path).exists() else {}
    entries[name] = {**entries.get(name, {}), "steps": steps.to_json()}
    write_entries(path, entries)


def read_steps(path: str | os.PathLike) -> dict[str, StepModel]:
    """Step models of a parameter file, by model name.

    Raises
    ------
    ValueError
        It is not JSON, no model in it has steps, or a value is not what it should be; the message has file and model.
    """
    entries, models = read_entries(path), {}
    for name, entry in entries.items():
        if isinstance(entry, Mapping) and "steps" in entry:
            try:
                models[name] = StepModel.from_json(entry["steps"])
            except ValueError as error:
                raise ValueError(f"{path}: {name}: {error}") from error
    if not models:
        raise ValueError(
            f"{path}: no model in it has steps (there are: {', '.join(entries) or 'none'}); `serving fit` writes them"
        )
    return models
