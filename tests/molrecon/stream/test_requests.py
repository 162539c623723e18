"""What a peer may ask for, and what is kept of its header."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import ismrmrd.xsd
import pytest

from molrecon.io.header import parse_header
from molrecon.stream.config import Refused, Request
from molrecon.stream.header import without_identity
from molrecon.stream.public_server import header_xml
from molrecon.stream.wire import WireError

from .conftest import PLANTED, header


def test_values_come_as_text():
    request = Request("molrecon").with_json('{"parameters": {"tol": "1e-3", "maxsteps": "7", "pixels": "uint16"}}')
    assert (request.tol, request.max_steps, request.pixels) == (1e-3, 7, "uint16")
    assert request.with_json("{}") == request
    assert Request("x").with_json('{"parameters": {"config": "null", "customconfig": "molrecon"}}').config == "molrecon"
    assert Request().named('{"parameters": {"config": "null"}}').checked().config == "null"
    assert Request().named(" null ").checked().config == "null"


@pytest.mark.parametrize("parameter", ['"tol": "no"', '"tol": 2', '"tol": [1]', '"maxsteps": 0', '"maxsteps": 1e300'])
def test_values_that_make_no_sense(parameter):
    with pytest.raises(Refused, match="expected"):
        Request().with_json(f'{{"parameters": {{{parameter}}}}}')


@pytest.mark.parametrize("text", ["[]", '{"parameters": 3}', "{", "[" * 100_000])
def test_texts_that_are_no_parameters(text):
    with pytest.raises(ValueError):
        Request().with_json(text)


def test_only_how_it_was_measured_is_kept():
    xml = header(96, 64, (96, 64, 4))
    kept = without_identity(xml)
    assert PLANTED not in kept and "1911" not in kept and "HFS" not in kept
    assert parse_header(Path("a"), kept) == parse_header(Path("a"), xml)
    assert ElementTree.fromstring(kept).findtext(".//{*}systemVendor") == "molrecon tests"
    assert without_identity(kept) == kept


def test_a_header_that_the_reference_library_has_read():
    xml = header(96, 64, (96, 64, 4))
    again = without_identity(header_xml(ismrmrd.xsd.CreateFromDocument(xml)))
    assert PLANTED not in again
    assert parse_header(Path("a"), again) == parse_header(Path("a"), xml)


@pytest.mark.parametrize("xml", ["", "text", "<a/>", "<ismrmrdHeader/>", "<!DOCTYPE a><ismrmrdHeader/>", "<a>\x01</a>"])
def test_headers_that_are_none(xml):
    with pytest.raises(WireError, match="header"):
        without_identity(xml)
