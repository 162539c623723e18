"""The header of a measurement as far as images are made from it: what tells of a person or a place goes no further."""

from __future__ import annotations

import copy
from xml.etree import ElementTree

from molrecon.io.xml_text import parse_xml
from molrecon.stream.wire import WireError

# Everything else is left out: names, numbers, dates, institutions, protocols, comments, and what the format adds later.
ELEMENTS = {
    "version": None,
    "experimentalConditions": None,
    "encoding": None,
    "sequenceParameters": None,
    "acquisitionSystemInformation": (
        "systemVendor",
        "systemFieldStrength_T",
        "relativeReceiverNoiseBandwidth",
        "receiverChannels",
    ),
}


def without_identity(xml: str) -> str:
    """Return the XML header with those elements alone that say how the scan was measured.

    Raises:
        WireError: no XML, a document type (entities could make it grow without bounds), or no encoding in it.
    """
    try:
        root = parse_xml(xml)
    except ValueError as error:
        raise WireError(f"a header that is {error}, expected an ISMRMRD XML header") from None
    namespace, _, tag = root.tag.rpartition("}")
    filtered = ElementTree.Element("ismrmrdHeader", {"xmlns": namespace[1:]} if namespace else {})
    for element in root:
        name = _local(element.tag)
        if name in ELEMENTS:
            filtered.append(_filtered(element, ELEMENTS[name]))
    if tag != "ismrmrdHeader" or not any(child.tag == "encoding" for child in filtered):
        raise WireError("a header without an encoding, expected an ISMRMRD XML header")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(filtered, encoding="unicode")


def _filtered(element: ElementTree.Element, names: tuple[str, ...] | None) -> ElementTree.Element:
    result = copy.deepcopy(element)
    if names is not None:
        for child in list(result):
            if _local(child.tag) not in names:
                result.remove(child)
    for descendant in result.iter():
        descendant.tag = _local(descendant.tag)
    return result


def _local(tag: object) -> str:
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""
