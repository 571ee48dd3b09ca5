"""How Sphinx builds these pages; `make docs` runs it with warnings as errors."""

import importlib.metadata
import sys
from pathlib import Path

import latex2mathml.converter

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

project = "ldd_jax"
version = release = importlib.metadata.version("ldd-jax")
extensions = ["myst_parser", "sphinx_copybutton"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "ldd_jax"
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False
html_show_search_summary = False  # they are fetched, which a browser refuses for a page on disk
html_static_path = ["_static"]
html_css_files = ["site.css"]
copybutton_prompt_text = "$ "
suppress_warnings = ["misc.highlighting_failure"]  # blocks of text that no language describes


def _math(display):
    """Formulae become MathML when the page is built: no script, nothing from a network."""
    from docutils.nodes import SkipNode

    def visit(writer, node):
        made = latex2mathml.converter.convert(node.astext(), display=display)
        writer.body.append(f"<div>{made}</div>" if display == "block" else made)
        raise SkipNode

    return visit


def _generate(app):
    import generate
    import nbformat
    import to_notebooks

    generate.write(HERE / "reference")
    for file in to_notebooks.write(HERE / "notebooks"):
        nbformat.validate(nbformat.read(file, as_version=4))


def _offer(app, page, source):
    """Every tutorial ends with its notebook."""
    folder, _, name = page.partition("/")
    if folder == "tutorials":
        file = f"../notebooks/{name}.ipynb"
        source[0] += f"\n\nThis page {{download}}`as a notebook <{file}>`.\n"


def setup(app):
    """The reference and the notebooks are written anew before every build."""
    app.add_html_math_renderer("mathml", (_math("inline"), None), (_math("block"), None))
    app.connect("builder-inited", _generate)
    app.connect("source-read", _offer)


html_math_renderer = "mathml"
