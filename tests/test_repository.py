"""The repository keeps its shape: few entries at the top, one version, small weights, nothing pickled."""

from __future__ import annotations

import ast
import configparser
import runpy
from fnmatch import fnmatch
from pathlib import Path

import pytest

import molrecon

ROOT = Path(__file__).resolve().parents[1]
TOP_LEVEL = {
    "setup.cfg",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CITATION.cff",
    "constraints.txt",
    "molrecon",
    "operators",
    "examples",
    "tests",
    "data_scripts",
    "docs",
}
WEIGHTS_LIMIT = 2_000_000  # bytes of one packaged model
IMAGER_LIMIT = 4_000_000
SOURCES = [
    path.relative_to(ROOT)
    for folder in ("operators", "molrecon", "examples", "data_scripts")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def ignored_patterns() -> list[str]:
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    return [line.strip("/ ") for line in lines if line.strip() and not line.startswith("#")]


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def dangerous_calls(source: str) -> list[str]:
    """Return the places where `source` may unpickle: torch.load without weights_only=True, allow_pickle=True."""
    tree = ast.parse(source)
    bare_load = any(
        isinstance(node, ast.ImportFrom) and node.module == "torch" and any(name.name == "load" for name in node.names)
        for node in ast.walk(tree)
    )
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        flags = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
        name = ast.unparse(node.func)
        if (name == "torch.load" or (bare_load and name == "load")) and flags.get("weights_only") is not True:
            found.append(f"line {node.lineno}: {name} without weights_only=True")
        elif flags.get("weights_only") is False:
            found.append(f"line {node.lineno}: {name} with weights_only=False")
        if flags.get("allow_pickle") is True:
            found.append(f"line {node.lineno}: {name} with allow_pickle=True")
    return found


def test_top_level_entries() -> None:
    patterns = ignored_patterns()
    extra = [
        path.name
        for path in sorted(ROOT.iterdir())
        if path.name not in TOP_LEVEL
        and not path.name.startswith(".")
        and not any(fnmatch(path.name, pattern) for pattern in patterns)
    ]
    assert not extra


def test_expected_entries_exist() -> None:
    assert not [name for name in sorted(TOP_LEVEL) if not (ROOT / name).exists()]


def test_pyproject_holds_the_build_system_only() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("\n")
    assert [line.split(" = ")[0] for line in lines] == ["[build-system]", "requires", "build-backend", ""]


def test_one_version() -> None:
    version = setup_cfg()["metadata"]["version"]
    assert molrecon.__version__ == version
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {version}" in citation
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_requirement_is_constrained() -> None:
    options = setup_cfg()
    extras = options["options.extras_require"]
    lists = [options["options"]["install_requires"], *(extras[name] for name in ("test", "dev", "train", "docs"))]
    wanted = "\n".join(lists).split("\n")
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0] for line in constraints}
    names = {line.split(";")[0].replace("==", ">=").split(">=")[0].strip() for line in wanted} - {""}
    assert names <= pinned
    assert "torch==2.13.0" in constraints
    for line in wanted:
        assert "==" not in line.split(";")[0] or line in constraints


def lowest_versions(setup_cfg: Path) -> list[str]:
    """Return what .ci/lowest.py prints for a setup.cfg."""
    return runpy.run_path(str(ROOT / ".ci" / "lowest.py"))["lowest"](setup_cfg)


def test_the_lowest_versions(tmp_path: Path) -> None:
    found = lowest_versions(ROOT / "setup.cfg")
    assert "torch==2.5" in found and "pytest==8.3" in found
    odd = tmp_path / "setup.cfg"
    odd.write_text("[options]\ninstall_requires =\n    torch>2\n[options.extras_require]\ntest =\n    pytest>=8\n")
    with pytest.raises(ValueError, match="requirement 'torch>2', expected NAME>=VERSION"):
        lowest_versions(odd)


def test_packaged_weights_are_small_and_described() -> None:
    weights = sorted((ROOT / "molrecon").rglob("*.safetensors"))
    assert all(path.parents[1] == ROOT / "molrecon" / "weights" for path in weights)
    # Imagers hold their sensing matrix as well.
    limits = {"sensing": IMAGER_LIMIT}
    assert not [path.name for path in weights if path.stat().st_size >= limits.get(path.parent.name, WEIGHTS_LIMIT)]
    assert not [path.name for path in weights if not path.with_suffix(".json").exists()]


def test_packages_are_typed() -> None:
    assert (ROOT / "operators" / "py.typed").exists()
    assert (ROOT / "molrecon" / "py.typed").exists()


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_nothing_is_unpickled(path: Path) -> None:
    assert not dangerous_calls((ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("torch.load(p)", 1),
        ("torch.load(p, weights_only=False)", 1),
        ("torch.load(p, map_location='cpu', weights_only=True)", 0),
        ("from torch import load\nload(p)", 1),
        ("load(p, weights_only=False)", 1),
        ("np.load(p, allow_pickle=True)", 1),
        ("np.load(p, allow_pickle=False)", 0),
        ("json.load(f)", 0),
    ],
)
def test_unpickling_is_found(source: str, count: int) -> None:
    assert len(dangerous_calls(source)) == count


@pytest.mark.parametrize("script", sorted((ROOT / "tests" / "benchmarks").glob("*.py")), ids=lambda path: path.name)
def test_benchmarks_find_the_packages_before_their_own_folder(script: Path) -> None:
    """Their folder has a file called operators.py, and a script's folder is searched first."""
    lines = script.read_text(encoding="utf-8").splitlines()
    packages = ("from molrecon", "from operators", "import molrecon")
    imports = [k for k, line in enumerate(lines) if line.startswith(packages)]
    searched = [k for k, line in enumerate(lines) if line.startswith("sys.path.insert(0, ")]
    assert not imports or (searched and searched[0] < imports[0]), script.name
