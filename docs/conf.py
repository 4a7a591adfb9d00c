"""The site: `make docs` builds README's pages, the notebooks as they were executed, and the docstrings.

Its sources begin at the repository root, so that a link between pages is the same here and on a code host.
"""

import sys
from pathlib import Path

from numpy.typing import ArrayLike
from sphinx.util.typing import stringify_annotation

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "extensions")]

project = "idealized-runtime"
root_doc = "docs/index"
include_patterns = ["docs/**.md", "notebooks/*.ipynb", "benchmarks/README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
exclude_patterns = [".*", "build", "published", "shared", "**.egg-info"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
    "notebook_cards",
    "whole_figures",
    "closed_site",
]

# Notebooks are shown as they were committed; the tests execute them.
nb_execution_mode = "off"
nb_output_stderr = "remove-warn"
myst_enable_extensions = ["dollarmath"]
# Dollars of a price are no formula.
myst_dmath_allow_space = False
myst_dmath_allow_digits = False
myst_heading_anchors = 3

autodoc_default_options = {"members": True}
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
add_module_names = False
python_maximum_signature_line_length = 100
napoleon_google_docstring = False
napoleon_use_rtype = False
# Types in our docstrings are prose, whose words may be the names of several attributes.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = project
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "entrance.html"}
templates_path = ["templates"]


def _name_arrays(app, what, name, thing, options, signature, annotation):
    """Signatures with ArrayLike by its name: autodoc writes out the ten types that it is the union of."""
    written_out = stringify_annotation(ArrayLike, "smart")
    return tuple(text and text.replace(written_out, "ArrayLike") for text in (signature, annotation))


def setup(app):
    """Sphinx calls this by its name."""
    app.connect("autodoc-process-signature", _name_arrays)
