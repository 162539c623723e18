"""Draws docs/rooms.svg: the rooms of molrecon, what each is for, and the order of their imports.

    python docs/rooms.py

The order is LAYERS of tests/test_imports.py, read from its source, and what a room is for is the first sentence of its
`__init__`: the picture cannot say anything that the code does not.
"""

from __future__ import annotations

import ast
import textwrap
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "rooms.svg"
WIDTH, LEFT, ROW, GAP, LETTERS = 920, 70, 66, 6, 128
STYLE = (
    "text{font-family:sans-serif;fill:#1b2a3a}.name{font-size:15px;font-weight:bold}.what{font-size:12px}"
    "rect{stroke:#4a6a8a;fill:#eef4fa}.linear{fill:#e6f2e6}.front{fill:#fbf1e3}path{stroke:#4a6a8a;stroke-width:2;fill:none}"
)
FRONT = ("molrecon", "molrecon.command", "molrecon.__main__")  # what users meet first


def layers() -> tuple[tuple[str, ...], ...]:
    """Return the import order of tests/test_imports.py, the lowest layer first."""
    tree = ast.parse((ROOT / "tests" / "test_imports.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "LAYERS" and node.value is not None:
            return tuple(ast.literal_eval(node.value))
    raise ValueError("tests/test_imports.py: no LAYERS, expected the layers of the imports")


def purpose(unit: str) -> str:
    """Return the first sentence of a package or module, without its own name in front."""
    path = ROOT / Path(*unit.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    sentence = " ".join(docstring.split("\n\n")[0].replace("`", "").split()).removesuffix(".")
    first, _, rest = sentence.partition(": ")
    return rest[0].upper() + rest[1:] if rest and first.lower() == unit.rsplit(".", maxsplit=1)[-1] else sentence


def box(unit: str, x: float, y: float, width: float) -> str:
    """Return a unit's rectangle with its name and its purpose."""
    kind = "linear" if unit == "operators" else "front" if unit in FRONT else "room"
    lines = textwrap.wrap(purpose(unit), int(LETTERS * width / (WIDTH - LEFT)))[:3]
    texts = [f'<text class="name" x="{x + 10:g}" y="{y + 19:g}">{escape(unit)}</text>']
    texts += [
        f'<text class="what" x="{x + 10:g}" y="{y + 35 + 14 * index:g}">{escape(line)}</text>'
        for index, line in enumerate(lines)
    ]
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{ROW}" rx="6"/>' + "".join(texts)


def drawing() -> str:
    """Return the picture as SVG, the lowest layer at the bottom."""
    order = layers()[::-1]
    height = len(order) * (ROW + GAP) + GAP
    shapes = []
    for index, layer in enumerate(order):
        width = (WIDTH - LEFT - GAP * len(layer)) / len(layer)
        y = GAP + index * (ROW + GAP)
        shapes += [box(unit, LEFT + number * (width + GAP), y, width) for number, unit in enumerate(layer)]
    arrow = f'<path d="M30 {GAP + 10} V{height - 20} m-7 -12 l7 12 l7 -12"/>'
    label = f'<text class="what" transform="translate(20 {height / 2:g}) rotate(-90)">may import</text>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">'
    return "\n".join([head, f"<style>{STYLE}</style>", arrow, label, *shapes, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(drawing(), encoding="utf-8")
