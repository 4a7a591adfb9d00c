"""Section 5.3 and Figure 8: claims about the V100 against the A100."""

from idealized_runtime.reproductions.paper.models import PAPER_MODELS
from idealized_runtime.reproductions.paper.tradeoffs import PRINTED_PRICES_USD, cost_identity_error, short_task
from idealized_runtime.reproductions.verdicts import Claims, Evidence, most, tally

# Points were read back from the drawing to about 1e-6.
DRAWING_ERROR = 2e-6

CLAIMS = Claims()


@CLAIMS.add_each(
    ("Figure 8", f"V100 is {claim}: {source}", "all", column, source)
    for source in ("drawn points", "fits to the logs")
    for claim, column in (("slower", "runtime_s"), ("more expensive", "cost_cents"))
)
def _v100_is_higher(data, column, source) -> Evidence:
    points, note = data.figure8, ""
    if source == "fits to the logs":
        points = points[["hardware", "task", "model"]].merge(data.estimates, on=["hardware", "task", "model"])
        note = "At the queries behind Figure 9's idealized points."
    a100, v100 = (points[points["hardware"] == name].reset_index() for name in ("a100", "v100"))
    is_higher = v100[column] > a100[column]
    if not is_higher.all():
        exceptions = (f"{row.model} on {short_task(row.task)}" for row in a100[~is_higher].itertuples())
        note = f"Not so for {', '.join(exceptions)}. {note}".strip()
    return tally(is_higher, "{} of {} points", note=note)


@CLAIMS.add("5.3", "V100 is cheaper for an hour (dollars a device, V100 and A100)", "cheaper")
def _cheaper_hour(data) -> Evidence:
    v100, a100 = (PRINTED_PRICES_USD[name] for name in ("v100", "a100"))
    return Evidence(f"{v100:.2f} and {a100:.2f}", holds=v100 < a100)


@CLAIMS.add("5.3", "often twice the devices hold a model on V100", "often")
def _twice_the_devices(data) -> Evidence:
    numbers = [PAPER_MODELS[name].num_accelerators for name in data.figure8["model"].unique()]
    return tally((number["v100"] >= 2 * number["a100"] for number in numbers), "{} of {} models", holds=most)


@CLAIMS.add("4.2", "dollar cost is runtime x devices x price", "all points")
def _cost_identity(data) -> Evidence:
    largest = cost_identity_error(data.figure8)
    return Evidence(f"equal to {largest:.0e} for {len(data.figure8)} costs", holds=largest < DRAWING_ERROR)
