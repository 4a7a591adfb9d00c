"""``notebook-cards``: every notebook as a card with its first figure, its title and its question."""

import base64
import html
import io
import re
from pathlib import Path

import nbformat
from docutils import nodes
from PIL import Image
from sphinx.util.docutils import SphinxDirective

THUMBNAIL_PIXELS = (480, 320)


def first_figure(notebook) -> Image.Image | None:
    """The first figure that was drawn."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                return Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"])))
    return None


def title_and_question(notebook) -> tuple[str, str]:
    """The first heading, and the first question below it without its marks of Markdown."""
    source = notebook.cells[0].source
    question = re.search(r"\*\*Question\.\*\* (.*?\?)", source, re.DOTALL)[1]
    return source.splitlines()[0].lstrip("# "), re.sub(r"\[([^]]*)\]\([^)]*\)|\*", r"\1", question)


class NotebookCards(SphinxDirective):
    """Reads notebooks/ when the page is built."""

    def run(self):
        pictures = Path(self.env.app.outdir, "_images")
        pictures.mkdir(parents=True, exist_ok=True)
        cards = []
        for path in sorted(Path(self.env.srcdir, "notebooks").glob("*.ipynb")):
            self.env.note_dependency(str(path))
            notebook = nbformat.read(path, as_version=4)
            title, question = title_and_question(notebook)
            picture = first_figure(notebook)
            image = "tables only"
            if picture is not None:
                picture.thumbnail(THUMBNAIL_PIXELS)
                picture.save(pictures / f"card-{path.stem}.png")
                image = f'<img src="../_images/card-{path.stem}.png" alt="" loading="lazy">'
            cards.append(
                f'<a class="card" href="../notebooks/{path.stem}.html"><span class="picture">{image}</span>'
                f"<strong>{html.escape(title)}</strong><span>{html.escape(question)}</span></a>"
            )
        return [nodes.raw("", f'<div class="cards">{"".join(cards)}</div>', format="html")]


def setup(app):
    """Sphinx calls this by its name."""
    app.add_directive("notebook-cards", NotebookCards)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
