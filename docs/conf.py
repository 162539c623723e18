"""The documentation site: python -m sphinx -W -b html docs docs/_build/html"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]
os.environ["PYTHONPATH"] = str(ROOT)
os.environ["MPLBACKEND"] = "agg"

from api_pages import write_api_pages  # type: ignore[import-not-found]  # noqa: E402

import molrecon  # noqa: E402

project = "molrecon"
author = copyright = "The molrecon authors"
version = release = molrecon.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_gallery.gen_gallery"]
exclude_patterns = ["_build", "gallery/*.ipynb", "gallery/*.py", "gallery/*.json"]
html_theme = "pydata_sphinx_theme"
html_title = f"molrecon {version}"
html_extra_path = ["llms.txt"]
html_static_path = ["_static"]
html_css_files = ["molrecon.css"]
# Pages that stand for themselves have no section to navigate.
SINGLE = ("index", "reconstruct", "bound", "train", "clinical_research", "threat_model", "architecture", "changelog")
html_sidebars: dict[str, list[str]] = {name: [] for name in SINGLE}
html_show_sourcelink = False
html_theme_options: dict[str, Any] = {
    "navbar_align": "left",
    "show_prev_next": False,
    "header_links_before_dropdown": 5,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
suppress_warnings = ["ref.python"]  # a type in a signature whose name two rooms have is shown without a link
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # else every attribute of a dataclass is described twice

sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "filename_pattern": "/plot_",
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,
    "abort_on_example_error": True,
    "within_subsection_order": "FileNameSortKey",
}


SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields|Example|Examples|Note|Notes):")
COLUMNS = re.compile(r"\S.* {3,}\S")  # a line of a table made of spaces


def as_restructured_text(lines: list[str]) -> list[str]:
    """Return a docstring, which is plain text, so that reStructuredText shows it as it is written.

    Names between single backticks are code, bars and stars are bars and stars. Paragraphs that are indented or hold
    columns are blocks of code, unless they stand in a section of the docstring such as Args.
    """
    result: list[str] = []
    section = False
    for paragraph in "\n".join(lines).split("\n\n"):
        rows = paragraph.split("\n")
        section = section if rows[0].startswith("    ") else bool(SECTION.fullmatch(rows[0]))
        if not section and any(row.startswith("    ") or COLUMNS.match(row) for row in rows):
            result += [".. code-block:: none", "", *(f"    {row}" for row in rows), ""]
        else:
            result += [*map(escaped, rows), ""]
    return result


def escaped(line: str) -> str:
    """Return a line of plain text as reStructuredText, what stands between backticks as code."""
    pieces = re.split(r"(`+[^`]+`+)", line)
    pieces[0::2] = [re.sub(r"([|*\\])|(?<=\w)(_)(?=\W|$)", r"\\\1\2", piece) for piece in pieces[0::2]]
    pieces[1::2] = [f"``{piece.strip('`').strip()}``" for piece in pieces[1::2]]
    return "".join(pieces)


def process_docstring(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Hand Sphinx a docstring of this house."""
    lines[:] = as_restructured_text(lines)


def setup(app: Any) -> None:
    """Write the API's pages and read docstrings as they are written here."""
    write_api_pages(ROOT / "docs" / "api")
    app.connect("autodoc-process-docstring", process_docstring, priority=400)  # before napoleon, at 500
