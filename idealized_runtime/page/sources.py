"""Where each number of an answer comes from, one click from the log or the document."""

import re
from itertools import islice

from idealized_runtime.measurements.ml_energy import FOLDER
from idealized_runtime.measurements.published import SOURCES
from idealized_runtime.page.machines import ServingMachine, log_path, read_machine
from idealized_runtime.page.markup import Html, join, link, table, tag
from idealized_runtime.page.queries import Option, QueryAnswer
from idealized_runtime.page.served import ServedAnswer
from idealized_runtime.serving.known_stacks import get_known_stack

_REFERENCE = re.compile(
    r"arXiv:(\d{4}\.\d{4,5})|((?:github\.com|huggingface\.co|images\.nvidia\.com|qwenlm\.github\.io)/[\w./-]*\w)"
)
_MOST_LINES, _MOST_CHARACTERS = 40, 240
# Of the logs of 2022, whose coefficients come with the package.
_PUBLISHED = next(source.repository for source in SOURCES if source.folder == "helm-efficiency")


def sources_of(answer: QueryAnswer, served: ServedAnswer | None) -> Html:
    """Of each candidate: runtimes, devices, price, watts, what intervals do not hold; and the logs of each machine."""
    parts = [_of_option(option, answer) for option in answer.options]
    if served is not None:
        parts += _of_plan(served)
    for name in answer.state.machines:
        parts.append(_logs(name))
    return join(parts)


def with_links(text: str) -> Html:
    """A text whose references are links."""
    parts, end = [], 0
    for found in _REFERENCE.finditer(text):
        address = f"https://arxiv.org/abs/{found[1]}" if found[1] else f"https://{found[2]}"
        parts += [text[end : found.start()], link(found[0], address)]
        end = found.end()
    return join([*parts, text[end:]])


def _of_option(option: Option, answer) -> Html:
    if option.priced is None:
        return tag("section", tag("h3", option.label), tag("p", with_links(option.reason)))
    priced, machine = option.priced, read_machine(option.machine)
    said = [
        ("Runtimes", f"{option.origin}: {priced.stack}"),
        ("How queries come", priced.queries),
        ("Devices", priced.devices),
    ]
    if option.is_timed:
        log = machine.timed(priced.name).source
        said.append(("Its log", f"{log['file']}, SHA-256 {log['sha256'][:12]}…" if log else "not named"))
    else:
        said.append(
            (
                "Predicted from",
                ", ".join(one.name for one in machine.models) or priced.origin.removeprefix("predicted from "),
            )
        )
    if priced.errors:
        said.append(("How far predictions were off", priced.errors))
    if priced.architecture is not None:
        said.append(("Architecture", getattr(priced.architecture, "source", "") or "its config.json"))
    row = machine.accelerator
    for name, rate, unit, figure in (
        ("Price", priced.price_usd_per_hour, "$ an hour", "price_usd_per_hour"),
        ("Power", priced.power_watts, "W", "power_watts"),
    ):
        if rate is None:
            said.append((name, "not known: give your own"))
        else:
            is_of_row = row is not None and rate.source.startswith(("list price", "maximum of its data sheet"))
            origin = row.sources.get(figure) if is_of_row else None
            said.append((name, f"{rate.value:.4g} {unit}, {rate.source}" + (f" ({origin})" if origin else "")))
    said += [("Not in the interval", caveat) for caveat in priced.caveats]
    rows = [join([tag("dt", name), tag("dd", with_links(text))]) for name, text in said]
    return tag("section", tag("h3", option.label), tag("dl", *rows))


def _of_plan(served) -> list[Html]:
    found = []
    for one in served.plan.answers:
        candidate = one.candidate
        said = [("Step times", f"{candidate.steps.origin}, {candidate.steps.software}")]
        said += [("Not in the interval", caveat) for caveat in candidate.caveats]
        rows = [join([tag("dt", name), tag("dd", with_links(text))]) for name, text in said]
        found.append(tag("section", tag("h3", f"Served: {candidate.model} on {candidate.devices}"), tag("dl", *rows)))
    return found


def _coefficients(machine) -> Html:
    """What a server is predicted by: coefficients, what they were fitted to, and how far they were off, by a click."""
    known = get_known_stack(machine.engine)
    source = next(source for source in SOURCES if source.folder == FOLDER.split("/")[0])
    file = f"idealized_runtime/measurements/stacks/{known.path.name}"
    off = known.left_out_percent(machine.accelerator)
    errors = [(name, f"{row['median']:.3g}", f"{row['p90']:.3g}") for name, row in off.items()]
    where = "on it" if machine.hardware == known.hardware else f"taken from {known.hardware} by the data sheets"
    said = tag(
        "p", f"Coefficients of {known.software} on {known.hardware}, {where}: {file}, "
        f"fitted to {len(known.served)} models of ", link(source.repository, source.repository),
        f", commit {source.commit}.",
    )  # fmt: skip
    head = ("left-out models, off by", "median, %", "90th percentile, %")
    seen = [(name, f"{least:,.4g}", f"{most:,.4g}") for name, (least, most) in known.seen.items()]
    sizes = table(("measured from, to", "least", "most"), seen)
    terms = {**known.stack.times, **known.stack.prompt_times}
    coefficients = [(name, f"{value:.4g} s", "–") for name, value in terms.items()]
    watts = known.power.standard_errors
    coefficients += [(name, f"{value:.4g} W", f"{watts[name]:.3g} W") for name, value in known.power.watts.items()]
    opened = join([said, table(head, errors), sizes, table(("coefficient", "value", "standard error"), coefficients)])
    summary = tag("summary", file)
    title = tag("h3", f"What {machine.engine} on {machine.title} is predicted by ({machine.name})")
    return tag("section", title, tag("details", summary, opened))


def _logs(machine_name) -> Html:
    """The logs of a machine, each opened by a click; those that are not at hand by where they are published."""
    machine, rows = read_machine(machine_name), []
    if isinstance(machine, ServingMachine):
        return _coefficients(machine)
    for one in machine.models:
        source = one.source or {"file": one.name, "sha256": ""}
        summary = tag("summary", f"{source['file']} ({one.name})")
        path = log_path(machine_name, one.name)
        if path is None:
            body = join(
                [
                    tag(
                        "p",
                        "The log is not on this machine; its coefficients come with the package. It is published at ",
                    ),
                    link(_PUBLISHED, _PUBLISHED),
                ]
            )
        else:
            with path.open(encoding="utf-8", errors="replace") as file:
                lines = [line.rstrip("\n")[:_MOST_CHARACTERS] for line in islice(file, _MOST_LINES)]
            body = join(
                [
                    tag("p", f"{path}, SHA-256 {source['sha256']}; its beginning:"),
                    tag("pre", "\n".join(lines), tabindex="0"),
                ]
            )
        rows.append(tag("details", summary, body))
    findings = tag("ul", *(tag("li", text) for text in machine.findings)) if machine.findings else Html()
    return tag("section", tag("h3", f"Logs of {machine.title} ({machine_name})"), findings, *rows)
