"""README and docs/ say what is there: size, links, tables, picture, commands and Python that run."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import molrecon
from molrecon import available_models
from molrecon.command.parser import build_parser
from molrecon.reconstructors.classical import CGSense
from molrecon.simulation.phantom import coil_maps, phantom_volume
from operators import Sense, random_mask

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README_LIMIT = 8192  # bytes: one page
PAGES = [ROOT / "README.md", *(path for path in sorted(DOCS.rglob("*.md")) if path.parent.name in ("docs", "results"))]
GENERATED = ("docs/api/", "docs/gallery/", "docs/_build/")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([\w-]+))?\)")


def names(page: Path) -> str:
    return str(page.relative_to(ROOT))


def fences(page: Path, language: str) -> list[str]:
    """Return what stands in the fences of a language."""
    return [body for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def without_fences(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    titles = re.findall(r"^#+ (.+)$", without_fences(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments of every `molrecon ...` in shell lines or between backticks."""
    lines = text.replace("\\\n", " ").splitlines()
    for line in lines:
        for part in re.split(r"&&|\|", line.split("  #")[0]):
            words = shlex.split(part, comments=True)
            places = [index for index, word in enumerate(words) if Path(word).name == "molrecon"]
            if places and places[0] + 1 < len(words):
                yield words[places[0] + 1 :]


def commands_of(page: Path) -> list[list[str]]:
    """Return the commands of a page's fences, and those between backticks that have arguments."""
    found = [arguments for body in fences(page, "sh") for arguments in commands(body)]
    for text in re.findall(r"`(molrecon [^`]+)`", without_fences(page)):
        found += commands(text)
    return found


def is_pattern(arguments: list[str]) -> bool:
    """Tell whether a command stands for many: it holds words such as DATA, DIR, MODEL, `...` or choices a|b."""
    return any(re.fullmatch(r"[A-Z_]+|\.\.\.|.*\|.*|\[.*", word) for word in arguments)


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= README_LIMIT


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target, anchor in LINK.findall(without_fences(page)):
        if target.startswith("http"):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or not file.is_relative_to(ROOT):
            broken.append(target)
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            broken.append(f"{target}#{anchor}")
    assert not broken


def test_pages_of_llms_txt_exist() -> None:
    pages = re.findall(r"\]\(([\w/]+)\.html\)", (DOCS / "llms.txt").read_text(encoding="utf-8"))
    assert pages and not [name for name in pages if not ((DOCS / f"{name}.md").exists() or name == "api/index")]


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_files_named_in_code_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(
        r"\b((?:molrecon|operators|examples|tests|data_scripts|docs)/[\w/]+\.(?:py|json|csv|png|md))", text
    )
    assert not [file for file in named if not (ROOT / file).exists() and not file.startswith(GENERATED)]


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_modules_named_in_code_exist(page: Path) -> None:
    missing = []
    for dotted in set(re.findall(r"`(molrecon(?:\.\w+)+)", page.read_text(encoding="utf-8"))):
        parts = dotted.split(".")
        path = ROOT.joinpath(*parts)
        inside = ROOT.joinpath(*parts[:-1])  # `molrecon.weights.save`: a name of a module
        source = inside / "__init__.py" if inside.is_dir() else inside.with_suffix(".py")
        if path.is_dir() or path.with_suffix(".py").exists():
            continue
        if not source.exists() or not re.search(rf"\b{parts[-1]}\b", source.read_text(encoding="utf-8")):
            missing.append(dotted)
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_commands_parse(page: Path) -> None:
    refused = []
    for arguments in commands_of(page):
        if is_pattern(arguments):
            continue
        message = io.StringIO()
        try:
            with contextlib.redirect_stderr(message), contextlib.redirect_stdout(message):
                build_parser().parse_args(arguments)
        except SystemExit as stop:
            if stop.code:
                refused.append(f"molrecon {shlex.join(arguments)}: {message.getvalue().splitlines()[-1]}")
    assert not refused, "\n".join(refused)


def test_commands_are_found() -> None:
    assert list(commands(".venv/bin/pip install . && .venv/bin/molrecon demo --out demo")) == [
        ["demo", "--out", "demo"]
    ]
    assert list(commands("molrecon models   # what is packaged")) == [["models"]]
    assert list(commands("ls *.h5 | xargs molrecon reconstruct \\\n --out x")) == [["reconstruct", "--out", "x"]]
    assert list(commands('molrecon cs $(cat "share-$N")')) == [["cs", "$(cat", "share-$N)"]]
    assert is_pattern(["train", "DATA", "--out", "DIR"]) and not is_pattern(["train", "scans"])
    assert [len(commands_of(page)) > 0 for page in PAGES].count(True) >= 6


def run_docs_script(name: str) -> dict[str, Any]:
    return runpy.run_path(str(DOCS / name), run_name=name)


def test_tables_are_those_of_the_results() -> None:
    script = run_docs_script("results_tables.py")
    stale = [
        names(page)
        for page in script["pages"]()
        if script["filled"](page.read_text("utf-8")) != page.read_text("utf-8")
    ]
    assert not stale, f"{stale}: run python docs/results_tables.py"


def test_every_result_is_on_a_page() -> None:
    script = run_docs_script("results_tables.py")
    shown = {name for page in script["pages"]() for _, name, _ in script["MARKED"].findall(page.read_text("utf-8"))}
    # Of another form: see COMPUTED, and examples/compare_methods.py.
    computed = {"end_to_end", "validation", "validation_baselines", "compare_methods_slices"}
    files = [path.stem for path in script["RESULTS"].glob("*.json") if path.stem not in computed]
    stored = {f"{file}/{table}" for file in files for table in script["stored"](file)}
    assert shown == stored | set(script["COMPUTED"])


def test_cells_are_printed_as_their_column_says() -> None:
    texts_of = run_docs_script("results_tables.py")["texts_of"]
    column = {"decimals": 2, "signed": True, "best": "max"}
    assert texts_of([1.0, {"mean": -0.5, "spread": 0.25}, "diverges"], column) == [
        "**+1.00**",
        "-0.50 ± 0.25",
        "diverges",
    ]
    assert texts_of([42652, ""], {"decimals": 0}) == ["42,652", ""]
    assert texts_of([0.02, 0.01], {"decimals": 2, "best": "min"}) == ["0.02", "**0.01**"]


def test_a_table_says_that_it_is_out_of_date() -> None:
    measured_again = run_docs_script("results_tables.py")["measured_again"]
    name, scores = next(iter(run_docs_script("results_tables.py")["stored"]("validation_baselines").items()))
    name = name.split(" [")[0]
    assert not measured_again({"family": {name: {"baselines": scores}}})
    old = measured_again({"family": {name: {"baselines": {"BART": scores["BART"] - 1}}}})
    assert f"**Out of date**: BART has been measured again since, the models have not, on {name} (now " in old


def test_claims_look_up_one_cell_each() -> None:
    script = run_docs_script("results_tables.py")
    results = script["papers_claims"].Results(script["stored"], script["text_of"])
    assert results.cell("memory/training_step", "50", "equilibrium, 224 x 224") == "106"
    assert results.cell("inpainting/scores", "descents, %", "constrained") == "100"  # bold in the table
    for column, row in (("50", "equilibrium"), ("51", "equilibrium, 224 x 224")):
        with pytest.raises(LookupError, match="expected one each"):
            results.cell("memory/training_step", column, row)
    verdicts = {verdict for _, verdict, _ in script["papers_claims"].rows(results)}
    assert len(verdicts) == 5  # four, and none beside a title


def test_the_picture_of_the_rooms_is_that_of_the_import_rule() -> None:
    script = run_docs_script("rooms.py")
    assert script["PICTURE"].read_text(encoding="utf-8") == script["drawing"](), "run python docs/rooms.py"


def test_the_ten_questions() -> None:
    section = (DOCS / "architecture.md").read_text(encoding="utf-8").split("## Where would I look? Ten questions")[1]
    answers = re.findall(r"^\| .+\? \| `(.+)` \|$|^\| .+ \| `(.+)` \|$", section, re.MULTILINE)
    files = [first or second for first, second in answers]
    assert len(files) == 10 and not [file for file in files if not (ROOT / file).is_file()]


@pytest.fixture
def scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small undersampled scan as scan.h5 (whose bytes are those of an .npy) and as scan.npz."""
    image = torch.from_numpy(phantom_volume(1, (40, 36), 0))
    mask = random_mask(36, 3, 0.3, 0)
    A = Sense(torch.from_numpy(coil_maps(1, 4, (40, 36), 0)), torch.from_numpy(mask)[None, None])
    generator = torch.Generator().manual_seed(0)
    noise = 0.01 * torch.randn(1, 4, 40, 36, dtype=torch.complex64, generator=generator)
    kspace = A.sampling(A(image) + noise).numpy()
    with (tmp_path / "scan.h5").open("wb") as file:
        np.save(file, kspace)
    np.savez(tmp_path / "scan.npz", kspace=kspace, mask=mask)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_python(page: Path) -> dict[str, Any]:
    """Run the Python of a page, one block after the other, and return its names."""
    found: dict[str, Any] = {"__name__": "page"}
    for block in fences(page, "python"):
        exec(compile(block, str(page), "exec"), found)
    return found


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "reconstruct.md"], ids=names)
def test_python_that_reconstructs(page: Path, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # By CG-SENSE: the call and the answer are the same for every method, and the gallery runs the default model.
    assert "mol-guided-2d" in available_models() and "mol-guided-2d" in "".join(fences(page, "python"))
    monkeypatch.setattr(molrecon, "load", lambda name: CGSense(0.05))
    found = run_python(page)
    result = found["result"]
    assert result.image.shape == (1, 40, 36) and result.converged.all() and result.kind == "certified"
    if "closer" in found:
        assert bool(found["closer"].converged.all()) and found["baseline"].value.shape == (1, 40, 36)


def test_the_operator_of_the_docs() -> None:
    found = run_python(DOCS / "write_an_operator.md")
    assert found["adjoint_gap"](found["A"], found["x"], found["A"](found["x"])) < 1e-12
    assert found["normal_gap"](found["A"], found["x"]) < 1e-12


def test_the_reconstructor_of_the_docs() -> None:
    found = run_python(DOCS / "write_a_reconstructor.md")
    assert found["solution"].kind == "none" and found["solution"].value.shape == (2, 32, 32)
    assert found["Landweber"](3).settings() == {"steps": 3}


def test_the_reader_of_the_docs(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run_python(DOCS / "write_a_reader.md")
    assert found["READERS"].pop(0) is found["reader"]
    monkeypatch.setattr(molrecon.io, "READERS", [found["reader"], *found["READERS"]])
    volume = molrecon.read_volume(scan / "scan.npz")
    assert volume.kspace.shape == (1, 4, 40, 36) and volume.sampling_mask.shape == (1, 1, 36)
    (scan / "scan.npz").write_bytes(b"PK")
    with pytest.raises(found["UnreadableInput"], match=r"expected an \.npz with kspace"):
        molrecon.read_volume(scan / "scan.npz")


def test_other_python_of_the_docs_is_run_here() -> None:
    run = {"README.md", "reconstruct.md", "write_an_operator.md", "write_a_reconstructor.md", "write_a_reader.md"}
    left = {page.name for page in PAGES if fences(page, "python")} - run
    assert left == {"clinical_research.md"}
    run_python(DOCS / "clinical_research.md")


def docs_conf() -> dict[str, Any]:
    """Return the names of docs/conf.py, which changes sys.path: put back here."""
    path = list(sys.path)
    try:
        return runpy.run_path(str(DOCS / "conf.py"))
    finally:
        sys.path[:] = path


def test_docstrings_become_restructured_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("MPLBACKEND", "agg")
    converted = docs_conf()["as_restructured_text"]
    assert converted(["|x| and `a|b` of x_ and A^*"]) == [r"\|x\| and ``a|b`` of x\_ and A^\*", ""]
    assert converted(["First:", "", "    model(x)", "", "Args:", "    x: (n,)"])[2:5] == [
        ".. code-block:: none",
        "",
        "        model(x)",
    ]
    assert "    x: (n,)" in converted(["First.", "", "Args:", "    x: (n,)"])


def test_every_module_has_its_place_in_the_api(tmp_path: Path) -> None:
    run_docs_script("api_pages.py")["write_api_pages"](tmp_path)
    text = "".join(path.read_text(encoding="utf-8") for path in tmp_path.glob("*.rst"))
    sources = [*(ROOT / "molrecon").rglob("*.py"), *(ROOT / "operators").glob("*.py")]
    modules = [path.relative_to(ROOT).with_suffix("") for path in sources if not path.stem.startswith("_")]
    assert not [name for name in (".".join(path.parts) for path in modules) if f"automodule:: {name}\n" not in text]


@pytest.mark.parametrize(
    "script", sorted((ROOT / "examples" / "gallery").glob("plot_*.py")), ids=lambda path: path.stem
)
def test_gallery(script: Path, tmp_path: Path) -> None:
    code = (
        "import matplotlib, runpy, sys; matplotlib.use('agg'); sys.path.insert(0, sys.argv[2]);"
        "import matplotlib.pyplot as plt; plt.show = lambda: plt.savefig('figure.png');"
        "runpy.run_path(sys.argv[1], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(script), str(ROOT)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout and (tmp_path / "figure.png").stat().st_size > 5_000
