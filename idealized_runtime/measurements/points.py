"""What others publish of servers, as one table of points; each row that tells something else is flagged by a rule."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from idealized_runtime.checks import check_columns

# Missing values are NaN. More columns may follow.
POINT_COLUMNS = (
    "model",
    "hardware",
    "software",
    "num_accelerators",
    "tensor_parallel_size",
    "dtype",
    "concurrency",
    "num_prompt_tokens",
    "num_output_tokens",
    "time_to_first_token_s",
    "time_per_output_token_s",
    "output_tokens_per_s",
    "power_watts",
    "energy_per_output_token_joules",
    "flags",
    "source",
)


@dataclass(frozen=True)
class FlagRule:
    """A rule by which rows of published points are flagged, and what that says of them.

    ``is_excluding`` where such a row measures something else than its columns say; other flags are a caution.
    """

    name: str
    says: str
    is_excluding: bool = True


RULES = (
    FlagRule("host-bound", "the 90th percentile of inter-token times is above 1.2 medians though fewer than a tenth of "
             "the steps encode a prompt, in this row or in half of such rows of its server: the host is the limit"),
    FlagRule("prompts-in-most-steps", "more than 0.69 new requests a step, so that most steps encode prompts and the "
             "median inter-token time is one of theirs"),
    FlagRule("data-parallel", "several copies share the requests, and the batch of each is not said"),
    FlagRule("disaggregated", "prompts are encoded on other devices than tokens are generated"),
    FlagRule("devices-added-up", "attention is said to be shared by a number of devices that is no power of two, or by "
             "more than 16, as no engine shares its heads: devices of several copies, or of prompts and tokens apart, "
             "are added up, and the batch of each is not said"),
    FlagRule("no-concurrency", "how many clients asked at once is not said"),
    FlagRule("listed-again", "the same measurement stands in another row, by both of its times"),
    FlagRule("queued", "the first token took longer than all further ones, so fewer requests ran than were sent"),
    FlagRule("quicker-with-more", "with more clients the tokens of its server took less than four fifths of what they "
             "took with fewer, of the same sizes: more than the clients changed, and no row says what"),
    FlagRule("few-rounds", "fewer than two rounds of requests: ramps are much of the run", is_excluding=False),
    FlagRule("batch-not-filled", "fewer than 95 % of the places were taken; the batch is the measured one",
             is_excluding=False),
    FlagRule("measured-twice", "another row has the same server and concurrency, and other times", is_excluding=False),
    FlagRule("devices-in-doubt", "experts, or attention, are split two ways: other listings of such measurements say "
             "fewer devices, so their number is missing", is_excluding=False),
)  # fmt: skip
_EXCLUDING = frozenset(rule.name for rule in RULES if rule.is_excluding)


def flag(holds: Mapping[str, Iterable[bool]]) -> np.ndarray:
    """Names of the rules that hold of each row, with spaces between; empty where none does.

    Parameters
    ----------
    holds : mapping of rule name to bools, one a row
    """
    named = np.array([np.where(is_so, f"{name} ", "") for name, is_so in holds.items()], dtype=object)
    return np.array([text.strip() for text in named.sum(axis=0)], dtype=object)


def usable_points(points: pd.DataFrame) -> pd.DataFrame:
    """Rows that no excluding rule flags; cautions stay."""
    check_columns(points, ["flags"], name="points")
    is_excluded = points["flags"].map(lambda flags: not _EXCLUDING.isdisjoint(flags.split()))
    return points[~is_excluded.astype(bool)].reset_index(drop=True)


def count_flags(points: pd.DataFrame) -> pd.DataFrame:
    """How many rows each rule flags.

    Returns
    -------
    DataFrame, by rule, those that flag no row left out
        ``num_rows``; ``num_alone``, those that no other excluding rule flags; ``is_excluding``; ``says``.
    """
    check_columns(points, ["flags"], name="points")
    flags = [set(text.split()) for text in points["flags"]]
    rows = {
        rule.name: {
            "num_rows": sum(rule.name in of_row for of_row in flags),
            "num_alone": sum(of_row & (_EXCLUDING | {rule.name}) == {rule.name} for of_row in flags),
            "is_excluding": rule.is_excluding,
            "says": rule.says,
        }
        for rule in RULES
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("rule")
    return table[table["num_rows"] > 0]
