"""Imports flow one way: read from the source of every module, so that a backward edge fails without being run."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A unit is the package operators, or one room (or one of the two files) of molrecon. It may import the units that stand
# on the lines above its own, and no other. `molrecon` is the package's table of contents.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("operators",),
    ("molrecon.solvers",),
    ("molrecon.networks",),
    ("molrecon.reconstructors",),
    ("molrecon.io",),
    ("molrecon.weights",),
    ("molrecon.scans",),
    ("molrecon.simulation",),
    ("molrecon.guarantees", "molrecon.training", "molrecon.stream"),
    ("molrecon.sensing",),
    ("molrecon.descent",),
    ("molrecon",),
    ("molrecon.command",),
    ("molrecon.__main__",),
)
RANK = {unit: rank for rank, layer in enumerate(LAYERS) for unit in layer}
NEVER_IMPORTED = ("examples", "data_scripts", "tests", "pickle", "cPickle", "dill", "joblib", "shelve", "ismrmrd")
OPERATORS_MAY_IMPORT = ("operators", "torch", "numpy", "finufft")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): path for package in ("operators", "molrecon") for path in sorted((ROOT / package).rglob("*.py"))
}


def unit_of(module: str) -> str:
    parts = module.split(".")
    return parts[0] if parts[0] == "operators" else ".".join(parts[:2])


def imported_modules(source: str, module: str, *, is_package: bool, known: frozenset[str]) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of every import, those inside functions and `if TYPE_CHECKING` included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                kept = parents[: len(parents) - node.level + (1 if is_package else 0)]
                base = ".".join([*kept, base] if base else kept)
            for alias in node.names:
                # `from package import name` reaches a submodule if there is one, and otherwise the package itself.
                submodule = f"{base}.{alias.name}"
                yield node.lineno, submodule if submodule in known else base


def edges(module: str) -> list[tuple[int, str]]:
    path = SOURCES[module]
    return list(
        imported_modules(
            path.read_text(encoding="utf-8"), module, is_package=path.stem == "__init__", known=frozenset(SOURCES)
        )
    )


def backward(importer: str, imported: str) -> bool:
    """Tell whether `importer` may not import `imported`: the latter lies in a later layer."""
    first, second = unit_of(importer), unit_of(imported)
    return first != second and RANK[second] >= RANK[first]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return the nodes of `graph` that lie on or before a circle: what is left when leaves are removed in turn."""
    left = {node: set(targets) for node, targets in graph.items()}
    while leaves := [node for node, targets in left.items() if not targets & left.keys()]:
        for leaf in leaves:
            del left[leaf]
    return sorted(left)


@pytest.mark.parametrize("module", SOURCES)
def test_imports_flow_one_way(module: str) -> None:
    assert unit_of(module) in RANK, f"{module}: give {unit_of(module)} its place in LAYERS"
    found = []
    for line, name in edges(module):
        top = name.split(".")[0]
        where = f"{SOURCES[module].relative_to(ROOT)}:{line} imports {name}"
        if top in NEVER_IMPORTED:
            found.append(where)
        if top in ("operators", "molrecon"):
            if name not in SOURCES:
                found.append(f"{where}, which does not exist")
            elif backward(module, name):
                found.append(f"{where}, which lies in a later layer")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("module", SOURCES)
def test_every_module_can_be_imported(module: str) -> None:
    if module != "molrecon.__main__":
        importlib.import_module(module)


@pytest.mark.parametrize("module", [module for module in SOURCES if unit_of(module) == "operators"])
def test_operators_stand_alone(module: str) -> None:
    # The adapters meet other libraries, inside their functions: importing operators needs none of them.
    met = ("sigpy", "deepinv") if module == "operators.adapters" else ()
    allowed = (*OPERATORS_MAY_IMPORT, *met, *sys.stdlib_module_names)
    foreign = [f"line {line}: {name}" for line, name in edges(module) if name.split(".")[0] not in allowed]
    assert not foreign, f"{module} imports more than {', '.join(OPERATORS_MAY_IMPORT)}: {foreign}"


def test_no_import_circles() -> None:
    graph = {module: {name for _, name in edges(module) if name in SOURCES} - {module} for module in SOURCES}
    assert not circle(graph)


def test_the_reader_of_imports() -> None:
    known = frozenset({"molrecon", "molrecon.io", "molrecon.io.volume", "molrecon.mol"})
    source = "import torch\ndef f():\n    from molrecon import mol, MOL\nfrom .volume import x\nfrom .. import y\n"
    found = list(imported_modules(source, "molrecon.io", is_package=True, known=known))
    assert found == [(1, "torch"), (4, "molrecon.io.volume"), (5, "molrecon"), (3, "molrecon.mol"), (3, "molrecon")]
    inside = list(imported_modules("from .volume import x", "molrecon.io.header", is_package=False, known=known))
    assert inside == [(1, "molrecon.io.volume")]


@pytest.mark.parametrize(
    ("importer", "imported", "expected"),
    [
        ("operators.sense", "molrecon.reconstructors.mol", True),
        ("molrecon.networks.residual", "molrecon.reconstructors.mol", True),
        ("molrecon.guarantees.certify", "molrecon.training.loop", True),
        ("molrecon.reconstructors.mol", "molrecon", True),
        ("molrecon.reconstructors.mol", "molrecon.networks.residual", False),
        ("molrecon.networks.residual", "molrecon.networks.spectral", False),
        ("molrecon.__main__", "molrecon", False),
        ("molrecon", "molrecon.scans.reconstruction", False),
    ],
)
def test_the_rule(importer: str, imported: str, expected: bool) -> None:
    assert backward(importer, imported) is expected


def test_circles_are_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["a", "b", "c"]
