"""What a claim is, and how it is judged: by the digits that were printed."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

REPRODUCED = "reproduced"
OTHER_DATA = "reproduced with other data"
DIFFERS = "differs"
NOT_TESTABLE = "not testable"
VERDICTS = (REPRODUCED, OTHER_DATA, DIFFERS, NOT_TESTABLE)

_PRINTED_NUMBER = re.compile(r"(?P<relation>[<>])?\s*(?:~|about)?\s*(?P<number>\d+(?:\.\d+)?)")
# Of the last digit. A printed number may have been rounded from either side of a half; doubles miss it by less.
_SLACK = 1e-6


@dataclass(frozen=True)
class Evidence:
    """Recomputed value of a claim.

    Parameters
    ----------
    value : float, int, str or None
        Unrounded number, or text. None: the data to compute it are missing, and ``note`` says which.
    holds : bool, optional
        Whether the claim holds. Where it is not given, the printed number decides (:func:`agrees`).
    is_other_data : bool
        The value comes from other data than the publication's own; ``note`` says which.
    note : str
        A sentence. Needed unless the claim is simply reproduced.
    printed : str, optional
        What a figure shows, where it is read from its drawn points instead of typed with the claim.
    """

    value: float | str | None
    holds: bool | None = None
    is_other_data: bool = False
    note: str = ""
    printed: str | None = None


@dataclass(frozen=True)
class Claim:
    """A number or statement of a publication, as printed, and the function that recomputes it.

    Parameters
    ----------
    section : str
        Place in the publication: section, table or figure.
    claim : str
        What is claimed, with the unit.
    printed : str
        As printed; a number may follow ``<``, ``>``, ``~`` or ``about``.
    recompute : callable
        From the published data and ``arguments`` to :class:`Evidence`.
    arguments : tuple
        What tells this claim from others that one function recomputes.
    """

    section: str
    claim: str
    printed: str
    recompute: Callable[..., Evidence]
    arguments: tuple = ()


class Claims(list):
    """Claims in the order of their source, each written above the function that recomputes it."""

    def add(self, section: str, claim: str, printed: str, *arguments):
        """Decorator of the function that recomputes one claim; see :class:`Claim`."""
        return self.add_each([(section, claim, printed, *arguments)])

    def add_each(self, rows: Iterable[tuple]):
        """Decorator of the function that recomputes several: rows of ``section, claim, printed, *arguments``."""

        def register(recompute):
            self.extend(Claim(*row[:3], recompute, tuple(row[3:])) for row in rows)
            return recompute

        return register


def tally(flags: Iterable[bool], text: str = "{} of {}", *, holds: Callable = all, **options) -> Evidence:
    """Evidence of how many of several are so.

    Parameters
    ----------
    flags : iterable of bool
    text : str
        With places for how many are so and how many there are.
    holds : callable
        From the flags to whether the claim holds: ``all``, ``any`` or :func:`most` of them.
    **options
        Of :class:`Evidence`.
    """
    flags = [bool(flag) for flag in flags]
    return Evidence(text.format(sum(flags), len(flags)), holds=holds(flags), **options)


def most(flags: list[bool]) -> bool:
    """Whether more than half of the flags are set."""
    return sum(flags) > len(flags) / 2


def agrees(printed: str, lowest: float, highest: float | None = None, *, is_cut: bool = False) -> bool:
    """Whether a value, rounded to the digits printed, is the printed number, or on the printed side of it.

    Parameters
    ----------
    printed : str
        Such as ``"0.178"``, ``"96.6 %"``, ``"about 0.55"`` or ``"> 0.999"``.
    lowest : float
        In the printed unit.
    highest : float, optional
        Where several values are possible: any between the two may agree.
    is_cut : bool
        Digits after the last one printed are cut off instead of rounded.

    Raises
    ------
    ValueError
        ``printed`` does not begin with a number.
    """
    match = _PRINTED_NUMBER.match(printed)
    if match is None:
        raise ValueError(f"a printed value that is compared must begin with a number; got {printed!r}")
    highest = lowest if highest is None else highest
    number = float(match["number"])
    if match["relation"]:
        return lowest < number if match["relation"] == "<" else highest > number
    unit = unit_in_last_place(match["number"])
    if is_cut:
        return highest >= number - _SLACK * unit and lowest < number + unit
    half = (0.5 + _SLACK) * unit
    return highest >= number - half and lowest <= number + half


def unit_in_last_place(digits: str) -> float:
    """Of a printed number: 0.01 of ``"1.25"``."""
    return 10.0 ** -len(digits.partition(".")[2])


def judge(claim: Claim, evidence: Evidence) -> str:
    """Verdict on a claim, one of ``VERDICTS``.

    Raises
    ------
    ValueError
        The verdict needs a sentence (``note``) and there is none.
    """
    if evidence.value is None:
        verdict = NOT_TESTABLE
    elif not (agrees(claim.printed, evidence.value) if evidence.holds is None else evidence.holds):
        verdict = DIFFERS
    else:
        verdict = OTHER_DATA if evidence.is_other_data else REPRODUCED
    if verdict != REPRODUCED and not evidence.note:
        raise ValueError(f"{claim.section}, {claim.claim}: the verdict {verdict!r} needs a note that says why")
    return verdict
