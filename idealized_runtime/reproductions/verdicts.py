"""What a claim is, and how it is judged: by the digits that were printed."""

import re
from collections.abc import Callable
from dataclasses import dataclass

REPRODUCED = "reproduced"
OTHER_DATA = "reproduced with other data"
DIFFERS = "differs"
NOT_TESTABLE = "not testable"
VERDICTS = (REPRODUCED, OTHER_DATA, DIFFERS, NOT_TESTABLE)

_PRINTED_NUMBER = re.compile(r"(?P<relation>[<>])?\s*(?:~|about)?\s*(?P<number>\d+(?:\.(?P<decimals>\d+))?)")
# A printed number may have been rounded from either side of a half; doubles miss the half by less than this.
_HALF = 0.5 + 1e-6


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
        The value comes from other data than the paper's own; ``note`` says which.
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
    """A number or statement of the paper, as printed, and the function that recomputes it.

    Parameters
    ----------
    section : str
        Place in the paper: section, table or figure.
    claim : str
        What is claimed, with the unit.
    printed : str
        As printed; a number may follow ``<``, ``>``, ``~`` or ``about``.
    recompute : callable
        From :class:`~idealized_runtime.reproductions.paper.data.PaperData` to :class:`Evidence`.
    """

    section: str
    claim: str
    printed: str
    recompute: Callable[..., Evidence]


def agrees(printed: str, value: float) -> bool:
    """Whether a value, rounded to the digits printed, is the printed number, or on the printed side of it.

    Parameters
    ----------
    printed : str
        Such as ``"0.178"``, ``"96.6 %"``, ``"about 0.55"`` or ``"> 0.999"``.
    value : float
        In the printed unit.

    Raises
    ------
    ValueError
        ``printed`` does not begin with a number.
    """
    match = _PRINTED_NUMBER.match(printed)
    if match is None:
        raise ValueError(f"a printed value that is compared must begin with a number; got {printed!r}")
    number = float(match["number"])
    if match["relation"]:
        return value < number if match["relation"] == "<" else value > number
    unit_in_last_place = 10.0 ** -len(match["decimals"] or "")
    return abs(value - number) <= _HALF * unit_in_last_place


def judge(claim: Claim, evidence: Evidence) -> str:
    """Verdict on a claim, one of ``VERDICTS``.

    Raises
    ------
    ValueError
        The verdict needs a sentence (``note``) and there is none.
    """
    verdict = _verdict(claim, evidence)
    if verdict != REPRODUCED and not evidence.note:
        raise ValueError(f"{claim.section}, {claim.claim}: the verdict {verdict!r} needs a note that says why")
    return verdict


def _verdict(claim, evidence) -> str:
    if evidence.value is None:
        return NOT_TESTABLE
    holds = agrees(claim.printed, evidence.value) if evidence.holds is None else evidence.holds
    if not holds:
        return DIFFERS
    return OTHER_DATA if evidence.is_other_data else REPRODUCED
