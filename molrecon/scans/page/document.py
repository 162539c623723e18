"""A page as one self-contained HTML file that requests nothing and runs nothing but its own script.

The content security policy names the style sheet and the script by their hashes, and allows images only where they are
written out in the page. Every string that is filled into a template is escaped by Jinja.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
STYLE = "page.css"
GENERATOR = '<meta name="generator" content="molrecon">'  # near the start of every page
START = 2000  # bytes


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def render(template: str, script: str, content: dict[str, Any], data: dict[str, Any]) -> str:
    """Return the whole document.

    Args:
        template: file name of the HTML template, which extends base.html.
        script: file name of its JavaScript.
        content: the template's variables.
        data: JSON values for the script, which reads them from the element with the id "data".

    Raises:
        jinja2.UndefinedError: a variable of the template that is not in `content`.
        ValueError: numbers in `data` that are not finite.
    """
    style, code = (_source(name) for name in (STYLE, script))
    page = _environment().get_template(template)
    return page.render(
        **content,
        generator=Markup(GENERATOR),
        policy=content_security_policy(style, code),
        style=Markup(style),
        script=Markup(code),
        data=data,
    )


def is_page(path: Path) -> bool:
    """Tell whether a file is a page from here. Raises OSError."""
    with path.open("rb") as file:
        return GENERATOR.encode() in file.read(START)


def content_security_policy(style: str, script: str) -> str:
    """Return the policy of a page with this style sheet and this script, as they stand between their tags."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}';"
        " base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
