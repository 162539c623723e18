"""The OpenRecon label satisfies its schema and says what `molrecon serve` takes; the Dockerfile names what is there."""

from __future__ import annotations

import base64
import copy
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import molrecon
from molrecon.command.parser import build_parser
from molrecon.stream.config import Request

jsonschema = pytest.importorskip("jsonschema")

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "openrecon"
SCHEMA = json.loads((FOLDER / "schema.json").read_text(encoding="utf-8"))
# Where Siemens' own schema is: github.com/NeuroDesk/openrecon, recipes/OpenReconSchema_1.1.0.json. Not ours to copy.
OWN_SCHEMA = os.environ.get("OPENRECON_SCHEMA")


@pytest.fixture(scope="module")
def label() -> dict[str, Any]:
    """What the script prints for the image."""
    command = [sys.executable, str(FOLDER / "label.py"), "--base64"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    content: dict[str, Any] = json.loads(base64.b64decode(done.stdout))
    return content


def dockerfile() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile with their arguments."""
    lines = (FOLDER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    found = [line.partition(" ")[::2] for line in lines if line.strip() and not line.startswith("#")]
    return [(instruction, rest) for instruction, rest in found]


def test_the_label_is_of_this_version(label: dict[str, Any]) -> None:
    assert label["general"]["version"] == label["general"]["regulatory_information"]["production_identifier"]
    assert label["general"]["version"] in molrecon.__version__ and "VERSION" not in json.dumps(label)


def test_the_label_satisfies_the_schema(label: dict[str, Any]) -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(label, SCHEMA)
    for parameter in label["parameters"]:
        assert parameter["default"] in [value["id"] for value in parameter["values"]]


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "no emitter": lambda label: label["reconstruction"].pop("emitter"),
    "other injector": lambda label: label["reconstruction"].update(injector="raw"),
    "product": lambda label: label["reconstruction"].update(content_qualification_type="PRODUCT"),
    "port as text": lambda label: label["reconstruction"].update(port="9002"),
    "suffix of a version": lambda label: label["general"].update(version="1.2.3rc1"),
    "leading zero": lambda label: label["general"].update(version="1.02.3"),
    "no udi": lambda label: label["general"]["regulatory_information"].pop("udi"),
    "more about the device": lambda label: label["general"]["regulatory_information"].update(more=""),
    "identifier with a dash": lambda label: label["parameters"][0].update(id="max-steps"),
    "other part": lambda label: label.update(more={}),
    "no English": lambda label: label["general"].update(name={"de": "molrecon"}),
    "no values": lambda label: label["parameters"][0].update(values=[]),
    "too many parameters": lambda label: label.update(
        parameters=[{**label["parameters"][0], "id": f"p{k}"} for k in range(15)]
    ),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_the_schema_refuses(label: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> None:
    changed = copy.deepcopy(label)
    change(changed)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed, SCHEMA)


@pytest.mark.skipif(OWN_SCHEMA is None, reason="needs Siemens' schema, at the path of OPENRECON_SCHEMA")
def test_the_label_satisfies_siemens_own_schema(label: dict[str, Any]) -> None:
    jsonschema.validate(label, json.loads(Path(str(OWN_SCHEMA)).read_text(encoding="utf-8")))


def test_versions_that_scanners_refuse(tmp_path: Path) -> None:
    version_of = runpy.run_path(str(FOLDER / "label.py"))["version_of"]
    (tmp_path / "setup.cfg").write_text("[metadata]\nversion = 1.0.0rc1\n")
    with pytest.raises(ValueError, match=r"version 1\.0\.0rc1, expected three numbers"):
        version_of(tmp_path / "setup.cfg")


def test_the_server_understands_every_choice(label: dict[str, Any]) -> None:
    for parameter in label["parameters"]:
        for value in parameter["values"]:
            request = Request("molrecon").with_json(json.dumps({"parameters": {parameter["id"]: value["id"]}}))
            assert not request.checked().ignored


def test_the_command_of_the_image_is_one(label: dict[str, Any]) -> None:
    (command,) = (rest for instruction, rest in dockerfile() if instruction == "CMD")
    (exposed,) = (rest for instruction, rest in dockerfile() if instruction == "EXPOSE")
    program, *arguments = json.loads(command)
    args = build_parser().parse_args(arguments)
    assert program == "molrecon" and args.port == label["reconstruction"]["port"] == int(exposed)
    assert args.host == "0.0.0.0"


def test_the_image_gets_what_the_package_is_built_from(tmp_path: Path) -> None:
    """The files that are copied are there, and make the wheel that RUN installs, with weights and templates."""
    for instruction, rest in dockerfile():
        if instruction == "COPY":
            *sources, target = shlex.split(rest)
            for source in sources:
                assert (ROOT / source).exists(), source
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / source, tmp_path / target)
    (install,) = (rest for instruction, rest in dockerfile() if instruction == "RUN" and "pip install" in rest)
    words = shlex.split(install)
    assert (tmp_path / words[words.index("-c") + 1]).is_file() and words[-1] == "."
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", "wheel", "."]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheel").iterdir()
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    packaged = [path.relative_to(ROOT).as_posix() for path in (ROOT / "molrecon" / "weights").rglob("*.safetensors")]
    assert packaged and set(packaged) <= set(names)
    assert any(name.endswith(".html") for name in names) and "operators/py.typed" in names


def test_hadolint_finds_nothing() -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([program, FOLDER / "Dockerfile"], check=False, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout, done.stdout


def test_the_lines_that_build_the_image_name_what_is_there() -> None:
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    for path in re.findall(r"examples/openrecon/[\w.]+", text):
        assert (ROOT / path).is_file(), path
    assert "com.siemens-healthineers.magneticresonance.openrecon.metadata:1.1.0=" in text
