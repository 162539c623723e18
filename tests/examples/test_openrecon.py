"""The OpenRecon label has the shape that its schema (version 1.1.0) asks for, and says what `molrecon serve` takes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

import molrecon
from molrecon.command.parser import build_parser
from molrecon.stream.config import Request

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "openrecon"
PARTS = {
    "general": {"name", "version", "vendor", "information", "id", "regulatory_information"},
    "reconstruction": {
        "transfer_protocol",
        "port",
        "emitter",
        "injector",
        "can_process_adjustment_data",
        "can_use_gpu",
        "min_count_required_gpus",
        "min_required_gpu_memory",
        "min_required_memory",
        "min_count_required_cpu_cores",
        "content_qualification_type",
    },
}
REGULATORY = {
    "device_trade_name",
    "production_identifier",
    "manufacturer_address",
    "made_in",
    "manufacture_date",
    "material_number",
    "gtin",
    "udi",
    "safety_advices",
    "special_operating_instructions",
    "additional_relevant_information",
}


@pytest.fixture
def label() -> dict[str, Any]:
    text = (FOLDER / "label.json").read_text(encoding="utf-8").replace("VERSION", molrecon.__version__)
    return json.loads(text)


def test_the_label_has_the_parts_of_the_schema(label):
    assert set(label) == {"general", "reconstruction", "parameters"}
    for part, names in PARTS.items():
        assert set(label[part]) == names
    assert set(label["general"]["regulatory_information"]) == REGULATORY
    assert re.fullmatch(r"\d+\.\d+\.\d+", label["general"]["version"])
    facts = label["reconstruction"]
    assert facts["transfer_protocol"] == {"protocol": "ISMRMRD", "version": "1.4.1"}
    assert (facts["emitter"], facts["injector"]) == ("raw", "image")
    assert facts["content_qualification_type"] == "RESEARCH"
    assert re.fullmatch("[A-Za-z0-9]+", label["general"]["id"])
    for parameter in label["parameters"]:
        assert re.fullmatch("[A-Za-z0-9]+", parameter["id"])
        assert set(parameter) == {"id", "label", "type", "values", "default", "information"}
        assert parameter["default"] in [value["id"] for value in parameter["values"]]


def test_the_label_is_valid_against_the_schema_itself(label):
    schema = os.environ.get("OPENRECON_SCHEMA")
    if schema is None:
        pytest.skip("needs OpenReconSchema_1.1.0.json, at the path of OPENRECON_SCHEMA; it may not be copied here")
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(label, json.loads(Path(schema).read_text(encoding="utf-8")))


def test_the_server_understands_every_choice(label):
    for parameter in label["parameters"]:
        for value in parameter["values"]:
            request = Request("molrecon").with_json(json.dumps({"parameters": {parameter["id"]: value["id"]}}))
            assert not request.checked().ignored


def test_the_command_of_the_image_is_one(label):
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"^CMD (\[.*\])$", text, re.M)
    assert found is not None
    program, *arguments = json.loads(found[1])
    args = build_parser().parse_args(arguments)
    assert program == "molrecon" and args.port == label["reconstruction"]["port"] and args.host == "0.0.0.0"
