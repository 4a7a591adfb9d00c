import pandas as pd
import pytest

from idealized_runtime.measurements.published import PublishedDataMissingError, published_data
from idealized_runtime.reproductions.paper import all_claims, count_verdicts, reproduce, to_html, to_text
from idealized_runtime.reproductions.paper.api_tables import equals_entry
from idealized_runtime.reproductions.paper.data import PaperData
from idealized_runtime.reproductions.paper.frontiers import METRICS
from idealized_runtime.reproductions.paper.tradeoffs import TASKS
from idealized_runtime.reproductions.verdicts import VERDICTS, Claim, Claims, Evidence, agrees, judge, most, tally


def claim(printed="0.178", evidence=None, section="Table 3", text="prompt time"):
    return Claim(section, text, printed, lambda data: evidence)


def verdict(printed, *arguments, **options):
    return judge(claim(printed), Evidence(*arguments, **{"note": "Why.", **options}))


@pytest.mark.parametrize(
    ("printed", "value"),
    [
        ("0.178", 0.1784), ("0.178", 0.1775), ("0.178", 0.1785), ("175", 174.6), ("96.6 %", 96.55), ("~0.2", 0.2265),
        ("about 0.55", 0.5456), ("3x", 2.7553), ("> 0.999", 0.99968), ("< 2 hours", 1.99), ("0", 0.0),
    ],
)  # fmt: skip
def test_value_that_rounds_to_the_printed_digits_agrees(printed, value):
    assert agrees(printed, value)


@pytest.mark.parametrize(
    ("printed", "value"),
    [
        ("0.178", 0.1774), ("0.178", 0.1786), ("0.142", 0.042), ("178", 175.0), ("96.6 %", 94.73), ("~0.2", 0.2685),
        ("2x", 3.7), ("> 0.999", 0.999), ("< 2 hours", 2.0), ("0", 1.0), ("0.190", 0.1912),
    ],
)  # fmt: skip
def test_value_that_rounds_to_other_digits_does_not_agree(printed, value):
    assert not agrees(printed, value)


def test_any_value_of_a_range_may_agree_and_digits_may_be_cut():
    assert agrees("2.387", 2.376, 2.392)
    assert not agrees("0.46", 0.4657)
    assert agrees("0.46", 0.4657, is_cut=True)
    assert not agrees("0.47", 0.4657, is_cut=True)


def test_tally_counts_what_is_so_and_holds_as_it_is_asked():
    assert tally([True, True], "on {} of {} tasks") == Evidence("on 2 of 2 tasks", holds=True)
    assert tally([True, False]).holds is False
    assert tally([True, False], holds=any).holds is True
    assert tally([True, False], holds=most).holds is False
    assert tally([True, True, False], holds=most, note="Why.") == Evidence("2 of 3", holds=True, note="Why.")


def test_claims_stand_in_the_order_they_are_written_and_hand_their_arguments_on():
    claims = Claims()

    @claims.add("5.1", "smallest", "1")
    def smallest(data):
        return Evidence(min(data))

    @claims.add_each(("5.1", f"over {divisor}", printed, divisor) for divisor, printed in ((2, "2"), (4, "1")))
    def largest(data, divisor):
        return Evidence(max(data) / divisor)

    report = reproduce(claims, data=[1, 4])
    assert report["claim"].tolist() == ["smallest", "over 2", "over 4"]
    assert report["recomputed"].tolist() == [1, 2, 1]
    assert set(report["verdict"]) == {"reproduced"}


def test_text_is_not_compared_as_a_number():
    with pytest.raises(ValueError, match="must begin with a number; got 'often'"):
        agrees("often", 3.0)


def test_printed_number_decides_where_the_evidence_does_not():
    assert verdict("0.178", 0.178) == "reproduced"
    assert verdict("0.178", 0.2) == "differs"


def test_evidence_decides_over_the_printed_number():
    assert verdict("0.178", 0.2, holds=True) == "reproduced"
    assert verdict("0.178", 0.178, holds=False) == "differs"


def test_other_data_are_named_in_the_verdict():
    assert verdict("0.178", 0.178, is_other_data=True) == "reproduced with other data"
    assert verdict("0.178", 0.2, is_other_data=True) == "differs"


def test_claim_without_a_value_is_not_testable():
    assert verdict("0.178", None) == "not testable"
    assert verdict("0.178", None, holds=True) == "not testable"


@pytest.mark.parametrize(
    "evidence", [Evidence(0.2), Evidence(None), Evidence(0.178, is_other_data=True)], ids=["differs", "none", "other"]
)
def test_verdict_that_needs_a_sentence_is_refused_without_one(evidence):
    with pytest.raises(ValueError, match=r"Table 3, prompt time: the verdict .* needs a note"):
        judge(claim(), evidence)


def test_report_has_a_row_for_each_claim_and_names_other_data():
    claims = [
        claim(evidence=Evidence(0.17812)),
        claim(evidence=Evidence(0.2, is_other_data=True, note="From the other file.")),
        claim("squares", Evidence("a, b", holds=True, printed="b, a"), section="Figure 9"),
    ]
    report = reproduce(claims, data=object())
    assert report["recomputed"].tolist() == [0.17812, 0.2, "a, b"]
    assert report["printed"].tolist() == ["0.178", "0.178", "b, a"]
    assert report["verdict"].tolist() == ["reproduced", "differs", "reproduced"]
    assert report["note"].tolist() == ["", "From the other file. Other data: the print may be right.", ""]


def test_missing_data_make_a_claim_not_testable():
    def recompute(data):
        raise PublishedDataMissingError("published measurements not found: run `make published`")

    (row,) = reproduce([Claim("Table 2", "R^2", "0.985", recompute)], data=object()).itertuples()
    assert row.verdict == "not testable"
    assert "run `make published`" in row.note


def test_without_published_data_no_claim_on_them_is_judged(monkeypatch, tmp_path):
    monkeypatch.setenv("PUBLISHED_DATA", str(tmp_path))
    report = reproduce()
    judged = report[report["verdict"] != "not testable"]
    # Computed from the registry and the printed prices alone.
    assert judged["claim"].tolist() == [
        "minimum number of devices necessary to hold each model",
        "V100 is cheaper for an hour (dollars a device, V100 and A100)",
    ]


def test_summary_counts_every_claim_once():
    report = pd.DataFrame(
        {"section": ["5.2", "Table 3", "Table 3"], "verdict": ["differs", "reproduced", "not testable"]}
    )
    summary = count_verdicts(report)
    assert summary.columns.tolist() == list(VERDICTS)
    assert summary.loc["Table 3"].tolist() == [1, 0, 0, 1]
    assert summary.loc["all"].tolist() == [1, 0, 1, 1]


def test_text_rounds_numbers_and_leaves_words():
    report = pd.DataFrame({"recomputed": [0.178123456, 15, "4 of 4", None]})
    assert to_text(report)["recomputed"].tolist() == ["0.17812", "15", "4 of 4", ""]
    assert report["recomputed"].iloc[0] == 0.178123456


def test_html_keeps_every_row_and_every_word():
    note = "word " * 40
    html = to_html(pd.DataFrame({"note": [f"{note}{row}" for row in range(100)]}))
    assert all(f'<td style="text-align: left">{note}{row}</td>' in html for row in range(100))


def test_entry_that_differs_by_a_millisecond_is_not_equal():
    class Fit:
        def to_json(self):
            return {"runtime_per_output_token": 0.021, "runtime_for_prompt_tokens": {"1": 0.023}}

    assert equals_entry(Fit(), Fit().to_json())
    assert not equals_entry(Fit(), {**Fit().to_json(), "runtime_per_output_token": 0.022})
    assert not equals_entry(Fit(), {**Fit().to_json(), "runtime_for_prompt_tokens": {"1": 0.023, "16": 0.024}})
    assert not equals_entry(Fit(), {**Fit().to_json(), "overhead": 0.2})


def test_no_claim_stands_twice():
    places = [(each.section, each.claim) for each in all_claims()]
    assert len(set(places)) == len(places)


def test_every_frontier_of_figure_9_is_a_row():
    rows = {each.claim for each in all_claims() if each.section == "Figure 9"}
    assert {f"{title}: frontier by {label}" for title in TASKS.values() for label in METRICS.values()} <= rows


@pytest.fixture(scope="module")
def report(published):
    published_data("paper_figures")  # or else its claims are not testable
    return reproduce(data=PaperData())


def row(report, section, text):
    (found,) = report[(report["section"] == section) & report["claim"].str.contains(text, regex=False)].itertuples()
    return found


def test_every_claim_has_a_verdict_and_a_sentence_unless_reproduced(report):
    assert report["verdict"].isin(VERDICTS).all()
    notes = report.loc[report["verdict"] != "reproduced", "note"]
    assert notes.str.endswith(".").all()


@pytest.mark.parametrize("section", ["Table 2", "Figure 3", "Figure 4"])
def test_whole_sections_are_reproduced(report, section):
    assert set(report.loc[report["section"] == section, "verdict"]) == {"reproduced"}


def test_every_idealized_number_of_table_3_is_reproduced(report):
    rows = report[(report["section"] == "Table 3") & report["claim"].str.contains("idealized")]
    assert len(rows) == 16
    assert set(rows["verdict"]) == {"reproduced"}


def test_denoised_numbers_of_table_3_differ_by_the_misprint_and_by_the_unpublished_minima(report):
    rows = report[(report["section"] == "Table 3") & report["claim"].str.contains("denoised")]
    assert len(rows) == 16
    differing = rows[rows["verdict"] == "differs"]
    misprint = differing.iloc[0]
    assert misprint["claim"] == "OpenAI/davinci, denoised: prompt encoding time at p = 1536 (s)"
    assert (misprint["printed"], misprint["recomputed"]) == ("0.142", 0.042)
    assert differing["claim"].iloc[1:].str.startswith("Anthropic/v4-s3").all()
    errors_s = differing["recomputed"].iloc[1:].astype(float) - differing["printed"].iloc[1:].astype(float)
    assert errors_s.to_numpy() == pytest.approx([0.001] * 4)


@pytest.mark.parametrize(
    ("section", "text", "verdict", "recomputed"),
    [
        ("Figure 7", "raw runtimes greater than denoised", "differs", 100 * 1977 / 2087),
        ("Figure 7", "AI21 Labs models: idealized above", "reproduced", 100 * 62 / 396),
        ("Figure 7", "OpenAI models: idealized above", "reproduced", 100 * 256 / 399),
        ("Figure 7", "all other models: idealized above", "reproduced", 0.0),
        ("Figure 5", "J1-Grande v1: mean coefficient of variation", "reproduced", 0.5456),
        ("Figure 6", "largest increase", "differs", 3.703),
        ("Table 1", "YaLM: parameters", "differs", 78.85),
        ("Table 1", "TNLG v2: 80-GB A100 devices", "reproduced", 24),
        ("authors' files", "A100", "reproduced", 15),
        ("authors' files", "V100", "reproduced", 15),
        ("Figure 9", "points of idealized runtime", "reproduced", 40),
        ("Figure 9", "points of idealized cost", "reproduced", 40),
    ],
)
def test_numbers_that_the_published_data_settle(report, section, text, verdict, recomputed):
    found = row(report, section, text)
    assert found.verdict == verdict
    assert found.recomputed == pytest.approx(recomputed, rel=1e-3)


def test_printed_share_of_raw_runtimes_counts_points_without_a_denoised_one(report):
    note = row(report, "Figure 7", "raw runtimes greater").note
    assert note.startswith("1977 of the 2087 drawn points; 96.6 % come out only if 1117 points")


@pytest.mark.parametrize(
    ("text", "verdict", "recomputed"),
    [
        ("V100 is slower: drawn", "differs", "33 of 36 points"),
        ("V100 is more expensive: drawn", "differs", "35 of 36 points"),
    ],
)
def test_v100_conclusions_have_exceptions(report, text, verdict, recomputed):
    found = row(report, "Figure 8", text)
    assert (found.verdict, found.recomputed) == (verdict, recomputed)


@pytest.mark.parametrize("metric", ["idealized runtime", "idealized cost", "model size"])
@pytest.mark.parametrize("title", TASKS.values())
def test_frontiers_that_can_be_recomputed_are_those_drawn(report, metric, title):
    found = row(report, "Figure 9", f"{title}: frontier by {metric}")
    assert found.verdict == "reproduced"
    assert found.recomputed == found.printed


@pytest.mark.parametrize(
    ("text", "verdict", "recomputed"),
    [
        ("davinci is on the raw runtime frontier", "reproduced", "on 4 of 4"),
        ("davinci is on no frontier of an idealized", "reproduced", "on 0 of 8"),
        ("BLOOM achieves cheaper idealized cost", "differs", "on 0 of 4 tasks"),
        ("worse raw runtime than J1-Jumbo: in July", "reproduced with other data", "on 4 of 4 tasks"),
        ("average rank improves", "reproduced", "from 9.00 to 3.50"),
        ("no model dominates", "reproduced", "AI21/J1-Large v1 is first most often, in 3 of 8"),
    ],
)
def test_claims_of_section_5_4(report, text, verdict, recomputed):
    found = row(report, "5.4", text)
    assert (found.verdict, found.recomputed) == (verdict, recomputed)


def test_profiling_time_depends_on_the_settings(report):
    rows = report[report["claim"].str.startswith("profiling takes")]
    assert rows["verdict"].tolist() == ["differs", "differs", "reproduced"]
    assert rows["recomputed"].str.split(",").str[0].tolist() == [
        "0 of 9 below 2 h", "2 of 9 below 2 h", "9 of 9 below 2 h",
    ]  # fmt: skip
