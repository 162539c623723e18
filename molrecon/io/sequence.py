"""What the header of a scan says about its sequence: numbers that DICOM and BIDS have a place for, and no identity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final
from xml.etree import ElementTree

from molrecon.io.header import header_root

__all__ = ["EchoKind", "Sequence", "read_sequence"]

EchoKind = Literal["gradient echo", "spin echo"]
# What converters write as sequence_type (siemens_to_ismrmrd, and usual words), in small letters alone.
ECHOES: dict[str, EchoKind] = {
    "flash": "gradient echo",
    "gre": "gradient echo",
    "gradientecho": "gradient echo",
    "spgr": "gradient echo",
    "mprage": "gradient echo",
    "se": "spin echo",
    "spinecho": "spin echo",
    "tse": "spin echo",
    "fse": "spin echo",
    "turbospinecho": "spin echo",
    "fastspinecho": "spin echo",
}


@final
@dataclass(frozen=True)
class Sequence:
    """The parameters of a pulse sequence; None where unknown.

    Attributes:
        repetition_time, echo_time, inversion_time: milliseconds.
        flip_angle: degrees.
        field_strength: tesla.
        imaging_frequency: of hydrogen, megahertz.
        echoes: how many different echo times the header lists.
        echo_kind: how they are made; None also for others, such as balanced sequences.
        refocused_train: whether one excitation has a train of spin echoes, as far as the sequence's name tells.
    """

    repetition_time: float | None = None
    echo_time: float | None = None
    inversion_time: float | None = None
    flip_angle: float | None = None
    field_strength: float | None = None
    imaging_frequency: float | None = None
    echoes: int = 0
    echo_kind: EchoKind | None = None
    refocused_train: bool = False


def read_sequence(path: Path, header: str | None, contrast: int = 0) -> Sequence:
    """Return what an ISMRMRD header says about the sequence.

    Args:
        path: only named in errors.
        header: the XML, as in `RawVolume.header`; None: nothing is known.
        contrast: which of the echo times.

    Raises:
        UnreadableInput: a header that is no XML.
    """
    if header is None:
        return Sequence()
    root = header_root(path, header)
    parameters = "{*}sequenceParameters/{*}"
    hertz = _number(root, "{*}experimentalConditions/{*}H1resonanceFrequency_Hz")
    times = {_number(root, parameters + "TE", k) for k in range(len(root.findall(parameters + "TE")))}
    name = "".join(filter(str.isalpha, root.findtext(parameters + "sequence_type", "").lower()))
    return Sequence(
        repetition_time=_number(root, parameters + "TR"),
        echo_time=_number(root, parameters + "TE", contrast),
        inversion_time=_number(root, parameters + "TI"),
        flip_angle=_number(root, parameters + "flipAngle_deg"),
        field_strength=_number(root, "{*}acquisitionSystemInformation/{*}systemFieldStrength_T"),
        imaging_frequency=None if hertz is None else hertz / 1e6,
        echoes=len(times - {None}),
        echo_kind=ECHOES.get(name),
        refocused_train=name in ("tse", "fse", "turbospinecho", "fastspinecho"),
    )


def _number(root: ElementTree.Element, tag: str, position: int = 0) -> float | None:
    """Return a positive number; converters write 0, or words, where a value is unknown."""
    elements = root.findall(tag)
    try:
        value = float(elements[position].text or "")
    except (IndexError, ValueError):
        return None
    return value if math.isfinite(value) and value > 0 else None
