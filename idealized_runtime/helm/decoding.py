"""HELM's ``run_spec.json`` and ``per_instance_stats.json``, decoded into what is needed of them.

Typed decoding skips every other field without making an object of it. A statistics file is read in
pieces, so that memory does not grow with the file, and a piece stays in the processor's cache.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

PIECE_BYTES = 1 << 18

# HELM writes with indent=2: at that depth this is the end of one instance and the start of the next,
# and it cannot stand inside a string, where a newline is escaped. Other layouts are decoded in one piece.
_BETWEEN_ENTRIES = b"\n  },\n  {"

# Python writes numbers that JSON does not have (HELM removes a statistic whose sum is NaN, but leaves
# an infinite one, whose variance then is NaN).
_NON_FINITE = re.compile(rb"(?<=[\s:,\[])(?:-?Infinity|NaN)(?=\s*[,\]}])")


class RunFormatError(ValueError):
    """A file of a run is cut, malformed, or does not hold what HELM writes there."""


class AdapterSpec(msgspec.Struct):
    model: str = ""
    model_deployment: str = ""


class RunSpec(msgspec.Struct):
    """The parts of HELM's ``RunSpec`` that name a run."""

    name: str
    adapter_spec: AdapterSpec
    groups: list[str] = []

    @property
    def model(self) -> str:
        """HELM's name of the model, such as ``openai/davinci``."""
        return self.adapter_spec.model or self.adapter_spec.model_deployment

    @property
    def scenario(self) -> str:
        """The run's name without the model: ``mmlu:subject=college_chemistry``."""
        scenario, _, arguments = self.name.partition(":")
        kept = [part for part in arguments.split(",") if part.partition("=")[0] not in ("model", "model_deployment")]
        return f"{scenario}:{','.join(kept)}" if any(kept) else scenario


# Structs hold no cycles: gc=False spares the collector some 50 objects an instance.
class Perturbation(msgspec.Struct, gc=False):
    """Only its presence counts."""


class MetricName(msgspec.Struct, gc=False):
    name: str
    split: str | None = None
    perturbation: Perturbation | None = None

    @property
    def is_evaluation(self) -> bool:
        """Neither of a training instance nor of a perturbed one."""
        return self.split != "train" and self.perturbation is None


class Stat(msgspec.Struct, gc=False):
    name: MetricName
    count: float
    sum: float | None = None


class Entry(msgspec.Struct, gc=False):
    """Statistics that one metric computed of one instance; several metrics write several entries."""

    instance_id: str
    train_trial_index: int
    stats: list[Stat]
    perturbation: Perturbation | None = None


_RUN_SPEC_DECODER = msgspec.json.Decoder(RunSpec)
_ENTRIES_DECODER = msgspec.json.Decoder(list[Entry])


def read_run_spec(path: Path) -> RunSpec:
    """What a run is called.

    Raises
    ------
    RunFormatError
        Not a run specification of HELM, or without a model.
    OSError
        The file cannot be read.
    """
    try:
        spec = _RUN_SPEC_DECODER.decode(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunFormatError(f"{path.name}: {error}") from error
    if not spec.model:
        raise RunFormatError(f"{path.name}: adapter_spec names no model")
    return spec


def iter_entries(path: Path) -> Iterator[Entry]:
    """Entries of a ``per_instance_stats.json`` in file order, perturbed and training instances included.

    Numbers that are not finite come as missing.

    Raises
    ------
    RunFormatError
        The file is cut or malformed; entries before the fault have been yielded.
    OSError
        The file cannot be read.
    """
    start = 0
    for piece in _read_pieces(path):
        try:
            yield from _decode(piece)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            place = f", in the part that begins at byte {start}" if start else ""
            raise RunFormatError(f"{path.name}: {error}{place}") from error
        start += len(piece) - 1


def _decode(piece: bytes) -> list[Entry]:
    try:
        return _ENTRIES_DECODER.decode(piece)
    except msgspec.DecodeError:
        finite, num_replaced = _NON_FINITE.subn(b"null", piece)
        if not num_replaced:
            raise
        return _ENTRIES_DECODER.decode(finite)


def _read_pieces(path: Path) -> Iterator[bytes]:
    """The file as complete JSON lists of whole entries; the last piece keeps whatever fault there is."""
    with open(path, "rb", buffering=0) as file:
        rest = file.read(PIECE_BYTES)
        while True:
            end = rest.rfind(_BETWEEN_ENTRIES)
            if end < 0:
                yield rest + file.read()
                return
            yield rest[: end + 4] + b"]"
            rest = b"[" + rest[end + 5 :] + file.read(PIECE_BYTES)
