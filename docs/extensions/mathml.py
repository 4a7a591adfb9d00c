"""Formulas as MathML, which browsers draw by themselves: no script, no fonts, nothing from outside."""

from docutils import nodes
from latex2mathml.converter import convert


def draw_inline(translator, node):
    """A formula within a sentence."""
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def draw_block(translator, node):
    """A formula in a line of its own."""
    translator.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app):
    """Sphinx calls this by its name."""
    app.add_html_math_renderer("mathml", (draw_inline, None), (draw_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
