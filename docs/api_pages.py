"""Writes docs/api: a page for each room of molrecon and one for operators, every public module of it by autodoc."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def underlined(title: str, sign: str) -> str:
    """Return a title of reStructuredText."""
    return f"{title}\n{sign * len(title)}\n"


def modules(package: Path) -> list[str]:
    """Return the dotted names of a room's public modules, those of its sub-packages among them."""
    search = package.glob if package.name == "molrecon" else package.rglob
    paths = sorted(path.relative_to(ROOT) for path in search("*.py") if path.parent / "__init__.py" != path)
    return [".".join(path.with_suffix("").parts) for path in paths if not path.stem.startswith("_")]


def page(name: str, names: list[str]) -> str:
    """Return the page of a package: its own words, then each of its modules."""
    parts = [underlined(name, "="), f".. automodule:: {name}\n   :no-members:\n"]
    for module in names:
        parts += [underlined(module, "-"), f".. automodule:: {module}\n   :members:\n   :show-inheritance:\n"]
    return "\n".join(parts)


def write_api_pages(folder: Path) -> None:
    """Write the pages and their index into `folder`, and remove those of rooms that are no more."""
    rooms = sorted(path.parent for path in (ROOT / "molrecon").glob("*/__init__.py"))
    packages = [ROOT / "operators", ROOT / "molrecon", *rooms]
    pages = {".".join(package.relative_to(ROOT).parts): modules(package) for package in packages}
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.rst"):
        if old.stem not in {*pages, "index"}:
            old.unlink()
    for name, names in pages.items():
        write(folder / f"{name}.rst", page(name, names))
    toctree = ".. toctree::\n   :maxdepth: 1\n\n" + "".join(f"   {name}\n" for name in pages)
    write(folder / "index.rst", f"{underlined('API', '=')}\n{toctree}")


def write(path: Path, text: str) -> None:
    """Write a page where it says something new: Sphinx reads again what has changed."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
