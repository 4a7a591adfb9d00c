"""Every figure leads to itself in full size, since a page shows it no wider than its text."""

import re

_FIGURE = re.compile(r'<img [^>]*?src="([^"]*_images/(?!card-)[^"]+)"[^>]*>')


def link_figures(body: str) -> str:
    """HTML in which each figure but those of the cards, which lead to their notebook, leads to its file."""
    return _FIGURE.sub(r'<a class="figure" href="\1">\g<0></a>', body)


def _link_page(app, page_name, template_name, context, doctree):
    if "body" in context:
        context["body"] = link_figures(context["body"])


def setup(app):
    """Sphinx calls this by its name."""
    app.connect("html-page-context", _link_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
