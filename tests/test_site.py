"""The site's own extensions: what is checked once it is built, what the gallery shows, where figures lead."""

import base64
import io

import matplotlib.pyplot as plt
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from docs.extensions.closed_site import site_faults
from docs.extensions.notebook_cards import first_figure, title_and_question
from docs.extensions.whole_figures import link_figures


def write_site(folder, body, style=""):
    (folder / "deep").mkdir()
    (folder / "deep" / "other.html").write_text('<h1 id="top">Other</h1>')
    (folder / "site.css").write_text(style)
    (folder / "index.html").write_text(f'<link rel="stylesheet" href="site.css"><h1 id="here">Page</h1>{body}')
    return folder


def test_links_inside_and_pages_of_others_are_no_faults(tmp_path):
    body = """<a href="deep/other.html#top">in</a><a href="#here">here</a><a href="https://arxiv.org/abs/2305.02440">out</a>
    <img src="data:image/png;base64,AAAA"><a href="deep/other.html?highlight=x">asked</a>"""
    assert site_faults(write_site(tmp_path, body, "h1 { background: url(data:image/gif;base64,R0) }")) == []


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<a href="gone.html">x</a>', "index.html: gone.html leads nowhere"),
        ('<a href="deep/other.html#gone">x</a>', "index.html: deep/other.html#gone names no place on that page"),
        ('<img src="gone.png">', "index.html: gone.png leads nowhere"),
        ('<img src="https://a.org/b.png">', "index.html loads https://a.org/b.png from outside"),
        ('<script src="//a.org/b.js"></script>', "index.html loads //a.org/b.js from outside"),
    ],
)
def test_link_that_leads_nowhere_and_what_is_loaded_from_outside_are_faults(tmp_path, body, fault):
    assert site_faults(write_site(tmp_path, body)) == [fault]


def test_style_that_loads_from_outside_is_a_fault(tmp_path):
    style = "@import 'https://a.org/f.css'; h1 { background: url(//a.org/b.png) }"
    assert site_faults(write_site(tmp_path, "", style)) == [
        "site.css loads https://a.org/f.css from outside",
        "site.css loads //a.org/b.png from outside",
    ]


def figure_output(width):
    figure, _ = plt.subplots(figsize=(width, 1))
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100)
    plt.close(figure)
    return new_output("display_data", {"image/png": base64.b64encode(drawn.getvalue()).decode()})


def test_card_of_a_notebook_has_its_first_figure_title_and_question():
    text = "# Fit runtimes\n\n**Question.** What does *p* cost\n(Figure 4 of [the paper](https://arxiv.org))? Or more?"
    cells = [new_markdown_cell(text), new_code_cell("1", outputs=[])]
    notebook = new_notebook(cells=cells)
    assert title_and_question(notebook) == ("Fit runtimes", "What does p cost\n(Figure 4 of the paper)?")
    assert first_figure(notebook) is None
    notebook.cells += [new_code_cell("a", outputs=[figure_output(3)]), new_code_cell("b", outputs=[figure_output(2)])]
    assert first_figure(notebook).size == (300, 100)


def test_figures_lead_to_their_files_and_cards_to_their_notebooks():
    figure = '<img alt="Runtimes" src="../_images/runtimes.png" />'
    card = '<a class="card" href="../notebooks/plan.html"><img src="../_images/card-plan.png" alt=""></a>'
    linked = link_figures(f"<p>{figure}</p>{card}")
    assert linked == f'<p><a class="figure" href="../_images/runtimes.png">{figure}</a></p>{card}'
