"""What is chosen on the page: one immutable value, which a link holds and restores."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from urllib.parse import parse_qsl, urlencode

from idealized_runtime.checks import check_positive, did_you_mean
from idealized_runtime.records import TOKEN_COLUMNS
from idealized_runtime.serving.objectives import WORKLOADS, Objective

VIEWS = ("time", "cost", "frontier", "plan", "sources")
# Sizes and objectives that others plan for; of those without sizes only the objectives can be taken.
PRESETS = tuple(name for name, workload in WORKLOADS.items() if workload.num_prompt_tokens is not None)
OWN_SIZES = "own sizes"
MOST_TOKENS = 131_072
LEAST_QUERIES_PER_S, MOST_QUERIES_PER_S = 0.01, 100_000
_CHAT = WORKLOADS["chat"]
# Names in a link are those of the command's flags.
_NAMES = {"rate_per_s": "rate", "machines": "logs", "is_served": "served", "objectives": "objective"}


@dataclass(frozen=True)
class State:
    """Everything that an answer depends on, and what of it is looked at.

    Parameters
    ----------
    model : str
        A name of the registry, or the path of a ``config.json``.
    other : str
        A second one beside it; empty for none.
    machines : tuple of str
        Names or folders of timing logs.
    is_served : bool
        Many queries at once, within objectives; else one at a time.
    workload : str
        One of ``PRESETS``, or ``OWN_SIZES``, which it becomes where the sizes are others than those of the workload.
    num_prompt_tokens, num_output_tokens : int
    rate_per_s : float
        Queries that come a second.
    queries : str
        Path of a table of queries or requests, which takes the place of the sizes; empty for none.
    objectives : tuple of str
        As :meth:`~idealized_runtime.serving.objectives.Objective.parse` takes them.
    num_accelerators : int or None
        Of a copy of the model; None for as few as hold it.
    price_usd_per_hour, power_watts : mapping by machine
        Own ones, of an accelerator.
    extrapolate : bool
        Answer for prompts beyond those that were timed, too.
    view : str
        One of ``VIEWS``.
    compare : tuple of str
        Labels of the two candidates that are compared, or fewer.

    Raises
    ------
    ValueError
        A value is not allowed; the message says what is.
    """

    model: str = "llama-3.1-8b"
    other: str = ""
    machines: tuple[str, ...] = ("a100", "v100")
    is_served: bool = False
    workload: str = "chat"
    num_prompt_tokens: int = _CHAT.num_prompt_tokens
    num_output_tokens: int = _CHAT.num_output_tokens
    rate_per_s: float = 9.0
    queries: str = ""
    objectives: tuple[str, ...] = tuple(map(str, _CHAT.objectives))
    num_accelerators: int | None = None
    price_usd_per_hour: Mapping[str, float] = field(default_factory=dict)
    power_watts: Mapping[str, float] = field(default_factory=dict)
    extrapolate: bool = False
    view: str = "time"
    compare: tuple[str, ...] = ()

    def __post_init__(self):
        for name in ("num_prompt_tokens", "num_output_tokens"):
            if not 1 <= getattr(self, name) <= MOST_TOKENS:
                raise ValueError(f"{name} must lie in [1, {MOST_TOKENS}]; got {getattr(self, name)}")
        if not LEAST_QUERIES_PER_S <= self.rate_per_s <= MOST_QUERIES_PER_S:
            raise ValueError(
                f"rate_per_s must lie in [{LEAST_QUERIES_PER_S}, {MOST_QUERIES_PER_S}]; got {self.rate_per_s:g}"
            )
        object.__setattr__(self, "machines", tuple(dict.fromkeys(self.machines)))
        if self.num_accelerators is not None:
            check_positive(num_accelerators=self.num_accelerators)
        for name, allowed in (("view", VIEWS), ("workload", (*PRESETS, OWN_SIZES))):
            if (given := getattr(self, name)) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}{did_you_mean(given, allowed)}; got {given!r:.60}"
                )
        if self.workload != OWN_SIZES and not self._has_sizes_of(WORKLOADS[self.workload]):
            object.__setattr__(self, "workload", OWN_SIZES)
        for name in ("price_usd_per_hour", "power_watts"):
            check_positive(**{f"{name} of {machine}": value for machine, value in getattr(self, name).items()})
        for text in self.objectives:
            Objective.parse(text)

    @property
    def models(self) -> tuple[str, ...]:
        """The model, and the other one where there is one."""
        return tuple(dict.fromkeys(name for name in (self.model, self.other) if name))

    def _has_sizes_of(self, workload):
        return all(getattr(self, name) == getattr(workload, name) for name in TOKEN_COLUMNS)

    def with_workload(self, name: str) -> "State":
        """With the sizes and objectives of a workload; with its own as they are for ``OWN_SIZES``."""
        if name == OWN_SIZES:
            return replace(self, workload=name)
        workload = WORKLOADS[name]
        return replace(
            self, workload=name, num_prompt_tokens=workload.num_prompt_tokens,
            num_output_tokens=workload.num_output_tokens, objectives=tuple(map(str, workload.objectives)), queries="",
        )  # fmt: skip

    def to_link(self) -> str:
        """The part of an address behind the ``?``: what differs from the state that the page begins with."""
        pairs, start = [], State()
        for name in (one.name for one in fields(self)):
            value = getattr(self, name)
            if value == getattr(start, name):
                continue
            key = _NAMES.get(name, name)
            match value:
                case Mapping():
                    pairs += [(key, f"{machine}:{number!r}") for machine, number in value.items()]
                case tuple():
                    pairs += [(key, one) for one in value or ("",)]
                case bool():
                    pairs.append((key, "yes" if value else "no"))
                case float():
                    pairs.append((key, repr(value)))
                case _:
                    pairs.append((key, "" if value is None else str(value)))
        return urlencode(pairs)

    @classmethod
    def from_link(cls, link: str) -> tuple["State", list[str]]:
        """The state that a link holds, and what of it could not be taken, in words."""
        fields_by_key = {_NAMES.get(one.name, one.name): one.name for one in fields(cls)}
        given, refused, state = {}, [], cls()
        for key, text in parse_qsl(link.lstrip("?"), keep_blank_values=True):
            if key in fields_by_key:
                given.setdefault(fields_by_key[key], []).append(text)
            else:
                refused.append(f"nothing here is called {key!r:.60}{did_you_mean(key, fields_by_key)}")
        # Sizes first: a workload without its own would become own sizes.
        for name, texts in sorted(given.items(), key=lambda item: item[0] == "workload"):
            try:
                state = replace(state, **{name: _value(getattr(cls(), name), name, texts)})
            except ValueError as error:
                refused.append(str(error))
        return state, refused


def _value(before, name, texts: Iterable[str]):
    """A field of the kind that it had before, from the texts of a link."""
    *_, last = texts
    match before:
        case Mapping():
            pairs = [text.rpartition(":") for text in texts if text]
            return {machine: _number(float, name, number) for machine, _, number in pairs}
        case tuple():
            return tuple(text for text in texts if text)
        case bool():
            if last not in ("yes", "no"):
                raise ValueError(f"{_NAMES.get(name, name)} must be yes or no; got {last!r:.60}")
            return last == "yes"
        case float():
            return _number(float, name, last)
        case int():
            return _number(int, name, last)
        case None:
            return _number(int, name, last) if last else None
    return last


def _number(kind, name, text):
    try:
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise ValueError(f"{_NAMES.get(name, name)} must be {wanted}; got {text!r:.60}") from None
