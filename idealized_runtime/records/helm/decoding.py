"""HELM's ``run_spec.json`` and ``per_instance_stats.json``, decoded into what is needed of them.

Typed decoding skips every other field without making an object of it. A statistics file is read in
pieces, so that memory does not grow with the file, and a piece stays in the processor's cache. As the
instances of a run list the same metrics in the same order, that order is learned and the metrics that
nobody asked for are then only checked to be others than the wanted ones, which takes less than decoding.
"""

import re
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Literal, NamedTuple

import msgspec

from idealized_runtime.records.helm.folders import PER_INSTANCE_STATS, RUN_SPEC

PIECE_BYTES = 1 << 16

# Orders of metrics to keep: a suite has one or two a scenario.
_MAX_LAYOUTS = 64

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


# These hold no cycles: gc=False spares the collector some 50 objects an instance.
class Perturbation(msgspec.Struct, gc=False):
    """Only its presence counts."""


class MetricName(msgspec.Struct, gc=False):
    name: str
    split: str | None = None
    perturbation: Perturbation | None = None


class Stat(msgspec.Struct, gc=False):
    name: MetricName
    count: int
    sum: float | None = None


class EntryKey(msgspec.Struct, gc=False, kw_only=True):
    instance_id: str
    train_trial_index: int
    # Its name and parameters: two of one name are two.
    perturbation: dict | None = None


class Entry(EntryKey, gc=False, kw_only=True):
    """Statistics that one metric computed of one instance; several metrics write several entries."""

    stats: list[Stat]


_RUN_SPEC_DECODER = msgspec.json.Decoder(RunSpec)
_ENTRIES_DECODER = msgspec.json.Decoder(list[Entry])


def read_run_spec(path) -> RunSpec:
    """What a run is called.

    Raises
    ------
    RunFormatError
        Not a run specification of HELM, or without a model.
    OSError
        The file cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            spec = _RUN_SPEC_DECODER.decode(file.read())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunFormatError(f"{RUN_SPEC}: {error}") from error
    if not spec.model:
        raise RunFormatError(f"{RUN_SPEC}: adapter_spec names no model")
    return spec


class _Layout(NamedTuple):
    """Decoder of entries that list certain metrics in a certain order, and what picks the wanted ones."""

    decoder: msgspec.json.Decoder
    pick: itemgetter


class StatsReader:
    """Reads one ``per_instance_stats.json`` after another, for the same metrics.

    Parameters
    ----------
    metrics : iterable of str
        HELM's names of the wanted metrics.
    """

    def __init__(self, metrics):
        self._wanted = frozenset(metrics)
        self._layouts = {}
        self._likely_layout = {}

    def read(self, path, scenario: str = "") -> Iterator[list[tuple[Entry, Sequence[Stat]]]]:
        """Lists of entries in file order, perturbed and training instances included, with their wanted statistics.

        Of an entry's ``stats`` only the wanted ones are sure to be whole. Numbers that are not
        finite come as missing. ``scenario`` is a hint: runs of one scenario tend to list the same metrics.

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
                yield self._decode(piece, scenario)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                place = f", in the part that begins at byte {start}" if start else ""
                raise RunFormatError(f"{PER_INSTANCE_STATS}: {error}{place}") from error
            start += len(piece) - 1

    def _decode(self, piece, scenario) -> list[tuple[Entry, Sequence[Stat]]]:
        layout = self._likely_layout.get(scenario)
        if layout is not None:
            try:
                entries = layout.decoder.decode(piece)
            except (msgspec.DecodeError, UnicodeDecodeError):
                pass  # Another order of metrics, or a fault: the general decoder finds out.
            else:
                pick = layout.pick
                return [(entry, pick(entry.stats)) for entry in entries]
        entries = _decode_any_layout(piece)
        if entries:
            names = tuple(stat.name.name for stat in entries[-1].stats)
            if names not in self._layouts and len(self._layouts) < _MAX_LAYOUTS:
                self._layouts[names] = _make_layout(names, self._wanted)
            self._likely_layout[scenario] = self._layouts.get(names)
        wanted = self._wanted
        return [(entry, [stat for stat in entry.stats if stat.name.name in wanted]) for entry in entries]


def _make_layout(names: tuple[str, ...], wanted: frozenset) -> _Layout | None:
    positions = [index for index, name in enumerate(names) if name in wanted]
    others = tuple(set(names) - wanted)
    if len(positions) < 2 or not others:
        return None
    # Any order of the others passes, but none of the wanted can hide among them.
    other_name = msgspec.defstruct("OtherName", [("name", Literal[others])], gc=False)
    other_stat = msgspec.defstruct("OtherStat", [("name", other_name)], gc=False)
    stats = tuple[tuple(Stat if name in wanted else other_stat for name in names)]
    entry = msgspec.defstruct("EntryOfLayout", [("stats", stats)], bases=(EntryKey,), gc=False, kw_only=True)
    return _Layout(msgspec.json.Decoder(list[entry]), itemgetter(*positions))


def _decode_any_layout(piece: bytes) -> list[Entry]:
    try:
        return _ENTRIES_DECODER.decode(piece)
    except msgspec.DecodeError:
        finite, num_replaced = _NON_FINITE.subn(b"null", piece)
        if not num_replaced:
            raise
        return _ENTRIES_DECODER.decode(finite)


def _read_pieces(path) -> Iterator[bytes | memoryview]:
    """The file as complete JSON lists of whole entries; the last piece keeps whatever fault there is.

    Pieces are views of one buffer, which the next one overwrites.
    """
    buffer = bytearray(PIECE_BYTES)
    view = memoryview(buffer)
    num_kept = 0
    with open(path, "rb", buffering=0) as file:
        while True:
            filled = num_kept + file.readinto(view[num_kept:])
            end = buffer.rfind(_BETWEEN_ENTRIES, 0, filled) + 4
            if end < 4:
                yield bytes(view[:filled]) + file.read()
                return
            # The comma between two entries closes one list and then opens the next.
            buffer[end : end + 1] = b"]"
            yield view[: end + 1]
            buffer[end : end + 1] = b"["
            num_kept = filled - end
            view[:num_kept] = view[end:filled]
