"""The table: a row for each claim, in the order of the paper."""

from collections.abc import Iterable

import pandas as pd

from idealized_runtime.measurements.published import PublishedDataMissingError
from idealized_runtime.reproductions.paper import apis, frontiers, hardware, ranks, shapes, timings
from idealized_runtime.reproductions.paper.data import PaperData
from idealized_runtime.reproductions.verdicts import DIFFERS, VERDICTS, Claim, Evidence, judge

# In the order of the paper; what it does not print comes last.
SECTIONS = (
    "1", "2.1", "3.1.1", "3.2", "Table 1", "Figure 3", "Figure 4", "Figure 5", "Figure 6", "4.2", "Table 2", "Table 3",
    "5.1", "5.2", "Figure 7", "5.3", "Figure 8", "5.4", "Figure 9", "Figure 10", "6", "authors' files",
)  # fmt: skip
COLUMNS = ("section", "claim", "printed", "recomputed", "verdict", "note")


def all_claims() -> list[Claim]:
    """Every claim, section by section."""
    modules = (shapes, timings, apis, hardware, frontiers, ranks)
    claims = [claim for module in modules for claim in module.CLAIMS]
    return sorted(claims, key=lambda claim: SECTIONS.index(claim.section))


def reproduce(claims: Iterable[Claim] | None = None, data: PaperData | None = None) -> pd.DataFrame:
    """Recompute claims and judge them.

    Parameters
    ----------
    claims : iterable of Claim, optional
        Every claim where it is not given.
    data : PaperData, optional
        The published measurements.

    Returns
    -------
    DataFrame, one row a claim
        ``section, claim, printed, recomputed, verdict, note``: ``recomputed`` is unrounded; a claim whose
        data are not there is ``"not testable"``, and its note says what is missing.
    """
    data = PaperData() if data is None else data
    rows = [_row(claim, data) for claim in (all_claims() if claims is None else claims)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def count_verdicts(report: pd.DataFrame) -> pd.DataFrame:
    """Number of claims by section and verdict, with a last row of totals."""
    counts = pd.crosstab(report["section"], report["verdict"]).reindex(columns=list(VERDICTS), fill_value=0)
    counts = counts.reindex(report["section"].unique())
    counts.loc["all"] = counts.sum()
    return counts.rename_axis(index=None, columns=None)


def to_text(report: pd.DataFrame, *, num_digits: int = 5) -> pd.DataFrame:
    """The report for reading: recomputed numbers as text with so many significant digits, missing ones empty."""

    def text(value):
        if value is None:
            return ""
        return value if isinstance(value, str) else f"{value:.{num_digits}g}"

    return report.assign(recomputed=report["recomputed"].map(text))


def to_html(table: pd.DataFrame) -> str:
    """Table for a notebook: every row, words uncut and aligned left."""
    with pd.option_context("display.max_colwidth", None, "display.max_rows", None):
        return table.to_html(justify="left").replace("<td>", '<td style="text-align: left">')


def _row(claim: Claim, data: PaperData) -> dict:
    try:
        evidence = claim.recompute(data, *claim.arguments)
    except PublishedDataMissingError as error:
        evidence = Evidence(None, note=f"The data are not there: {error}.")
    verdict, note = judge(claim, evidence), evidence.note
    if verdict == DIFFERS and evidence.is_other_data:
        note += " Other data: the print may be right."
    return {
        "section": claim.section,
        "claim": claim.claim,
        "printed": claim.printed if evidence.printed is None else evidence.printed,
        "recomputed": evidence.value,
        "verdict": verdict,
        "note": note,
    }
