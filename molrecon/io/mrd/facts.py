"""What the header of an MRD file says about the measurement as a whole. Nothing that tells of a person is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import final

from molrecon.io.header import header_root

TICK = 2.5e-3  # seconds, of time stamps as scanners and their converters write them; the format leaves it open


@final
@dataclass(frozen=True)
class Facts:
    """Attributes:
    vendor: of the scanner, as written.
    relative_noise_bandwidth: of the receiver, 1 where it is not said.
    repetition_time: seconds, None where it is not said.
    encodings: number of encoding spaces.
    """

    vendor: str
    relative_noise_bandwidth: float
    repetition_time: float | None
    encodings: int

    @property
    def conjugated(self) -> bool:
        """Whether the vendor's raw data turn the other way than the Fourier transform of the format."""
        return "siemens" in self.vendor.lower()


def parse_facts(path: Path, xml: str) -> Facts:
    """Read an ISMRMRD header that `parse_header` accepted. Raises UnreadableInput."""
    root = header_root(path, xml)
    system = "{*}acquisitionSystemInformation/{*}"
    bandwidth = _positive(root.findtext(system + "relativeReceiverNoiseBandwidth", ""))
    milliseconds = _positive(root.findtext("{*}sequenceParameters/{*}TR", ""))
    return Facts(
        vendor=root.findtext(system + "systemVendor", "").strip(),
        relative_noise_bandwidth=1.0 if bandwidth is None else bandwidth,
        repetition_time=None if milliseconds is None else milliseconds / 1000,
        encodings=len(root.findall("{*}encoding")),
    )


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
