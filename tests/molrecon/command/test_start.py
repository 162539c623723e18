"""What starting costs: importing molrecon imports nothing heavy, and every name of its table of contents is there."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import molrecon
from molrecon.command.parser import COMMANDS, find_command
from molrecon.training.defaults import LOSS_NAMES
from molrecon.training.losses import LOSSES

HEAVY = (
    "dask",
    "distributed",
    "finufft",
    "h5py",
    "ismrmrd",
    "matplotlib",
    "nibabel",
    "numba",
    "PIL",
    "pydicom",
    "scipy",
    "sigpy",
    "skimage",
    "torchdeq",
)


def modules_after(code: str) -> set[str]:
    """Return the top-level packages that a new interpreter has imported after running `code`."""
    program = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import molrecon", ()),
        ("from molrecon import MOL", ("finufft",)),
        ("from molrecon import read_volume", ("finufft", "h5py")),
        ("import molrecon.scans.cohort", ("finufft", "h5py", "torchdeq")),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_used(code: str, allowed: tuple[str, ...]) -> None:
    found = modules_after(code)
    assert not found & (set(HEAVY) - set(allowed))
    assert code != "import molrecon" or "torch" not in found


WRONG_ARGUMENTS = (
    "nonsense",
    "demo --out",
    "reconstruct x.h5 --out y --device abacus",
    "compare x.h5 --accel 0.5",
    "certify",
    "robustness x.h5 --draws 0",
    "cs --ratio 7",
    "train x --out y --steps 0",
    "models --export",
)


def test_help_and_wrong_arguments_wait_for_nothing() -> None:
    lines = ("--version", "--help", *(f"{name} --help" for name in COMMANDS), *WRONG_ARGUMENTS)
    code = f"""
from molrecon.command.parser import main
for line in {lines!r}:
    try:
        main(line.split())
    except SystemExit:
        continue
    raise RuntimeError(line)
"""
    assert not modules_after(code) & {*HEAVY, "torch", "numpy", "pandas", "tqdm"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_is(name: str) -> None:
    command = find_command(name)
    assert command.HELP and not command.HELP.endswith(".")
    assert command.DESCRIPTION.endswith(".")


def test_what_help_names_is_there() -> None:
    assert tuple(LOSSES) == LOSS_NAMES


def test_the_table_of_contents() -> None:
    tree = ast.parse(Path(molrecon.__file__).read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    homes = {
        alias.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert homes == molrecon._HOMES
    assert sorted(homes) == sorted(molrecon.__all__)
    assert set(molrecon.__all__) <= set(dir(molrecon))
    for name in molrecon.__all__:
        assert getattr(molrecon, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'molrecon' has no attribute 'Mol'"):
        molrecon.Mol  # noqa: B018


def test_modules_are_found_from_the_package_alone() -> None:
    assert "h5py" in modules_after("import molrecon\nmolrecon.io.read_npy")
