"""Texts for the log of a scanner, in the form that it sorts by severity."""

from __future__ import annotations

from molrecon.stream.messages import encode_text

# Eight characters wide, as the peers of this format pad them.
INFO, WARNING, ERROR = "INFO    ", "WARNING ", "ERROR   "


def log_line(level: str, text: str) -> bytes:
    """Return the message of a line, INFO, WARNING or ERROR, without line breaks."""
    return encode_text(f"{level} {' '.join(text.split())}")
