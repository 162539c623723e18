"""XML from files and scanners that are not trusted."""

from __future__ import annotations

from xml.etree import ElementTree

__all__ = ["parse_xml"]


def parse_xml(xml: str) -> ElementTree.Element:
    """Return the root of a document, which is not parsed if it has a document type: nothing here needs one.

    Entities, which can grow without bounds or name other files, are declared in a document type and nowhere else.

    Raises:
        ValueError: a document type, or no XML. The message quotes nothing of the text, which may identify a person.
    """
    if "<!DOCTYPE" in xml:
        raise ValueError("XML with a document type (DOCTYPE), expected none")
    try:
        return ElementTree.fromstring(xml)
    except (ElementTree.ParseError, ValueError) as error:  # a ParseError tells the place alone
        reason = error if isinstance(error, ElementTree.ParseError) else type(error).__name__
        raise ValueError(f"no XML ({reason})") from None
