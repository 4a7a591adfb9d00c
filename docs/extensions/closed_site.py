"""Once the site is built: every link inside it leads somewhere, and no page loads anything from outside."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.util import logging

# What a browser fetches by itself, by tag; where an <a> leads is followed by a person.
_LOADED = {"img": "src", "script": "src", "link": "href", "source": "src", "iframe": "src", "video": "src"}
_LOADED_BY_STYLE = re.compile(r"(?:url\(|@import\s+)['\"]?((?:https?:)?//[^'\")\s]+)")


class _Page(HTMLParser):
    """Names of the places on a page, where its links lead, and what it loads."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors, self.links, self.loaded = {""}, [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        # Of <link>s, the neighbours of a page (next, prev, search, index) are only links.
        if tag in _LOADED and given.get(_LOADED[tag]):
            self.loaded.append(given[_LOADED[tag]])
        elif tag == "a" and given.get("href"):
            self.links.append(given["href"])


def site_faults(folder: Path) -> list[str]:
    """What is wrong with a built site: links that lead nowhere, and what is loaded from outside.

    Parameters
    ----------
    folder : Path
        Of ``.html`` and ``.css`` files.

    Returns
    -------
    list of str
        A line a fault, with the file that has it.
    """
    pages = {path.resolve(): _Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    faults = []
    for path, page in pages.items():
        for link in [*page.loaded, *page.links]:
            parts = urlsplit(link)
            name = path.relative_to(folder.resolve())
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                faults += [f"{name} loads {link} from outside"] if link in page.loaded else []
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                faults.append(f"{name}: {link} leads nowhere")
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                faults.append(f"{name}: {link} names no place on that page")
    for path in sorted(folder.rglob("*.css")):
        faults += [f"{path.name} loads {url} from outside" for url in _LOADED_BY_STYLE.findall(path.read_text("utf-8"))]
    return faults


def _report(app, exception):
    if exception is None:
        for fault in site_faults(Path(app.outdir)):
            logging.getLogger(__name__).warning(fault)


def setup(app):
    """Sphinx calls this by its name."""
    app.connect("build-finished", _report)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
