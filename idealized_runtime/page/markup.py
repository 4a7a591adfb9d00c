"""HTML in which text is text: whatever a file, a log or a link says is escaped, unless it was made here."""

import base64
from html import escape


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, *parts, **attributes) -> Html:
    """An element; parts that are no :class:`Html` are escaped, and so are attributes.

    A trailing underscore of an attribute's name is left out, others become hyphens: ``class_``, ``aria_label``.
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{said}>{join(parts)}</{name}>")


def join(parts, between: str = "") -> Html:
    """Parts one after the other, each escaped that is no :class:`Html`; an ``img`` needs no closing tag."""
    return Html(between.join(part if isinstance(part, Html) else escape(str(part)) for part in parts))


def image(png: bytes, alt: str) -> Html:
    """A picture that stands in the page itself."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return Html(f'<img src="{source}" alt="{escape(alt)}">')


def download(name: str, data: bytes, media_type: str) -> Html:
    """A link that saves a file that stands in the page itself."""
    href = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
    return tag("a", f"Save {name}", href=href, download=name, class_="download")


def link(text: str, href: str) -> Html:
    """A link to a page elsewhere, which opens beside this one and is not told where from."""
    return tag("a", text, href=href, target="_blank", rel="noreferrer noopener")


def table(head, rows, *, caption: str = "") -> Html:
    """A table whose first column heads its rows."""
    said = tag("caption", caption) if caption else ""
    heads = tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in head)))
    body = tag(
        "tbody",
        *(tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in rest)) for first, *rest in rows),
    )
    return tag("div", tag("table", said, heads, body), class_="scroll", tabindex="0", role="region",
               aria_label=caption or "table")  # fmt: skip
