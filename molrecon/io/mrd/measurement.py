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
class Measurement:
    """The scanner and its receiver.

    Attributes:
        vendor: of the scanner, as written.
        relative_noise_bandwidth: of the receiver, 1 where the header does not give it.
    """

    vendor: str
    relative_noise_bandwidth: float

    @property
    def conjugated(self) -> bool:
        """Whether the vendor's raw data turn the other way than the Fourier transform of the format."""
        return "siemens" in self.vendor.lower()


def parse_measurement(path: Path, xml: str) -> Measurement:
    """Read an ISMRMRD header that `parse_header` accepted. Raises UnreadableInput."""
    system = "{*}acquisitionSystemInformation/{*}"
    root = header_root(path, xml)
    try:
        bandwidth = float(root.findtext(system + "relativeReceiverNoiseBandwidth", ""))
    except ValueError:
        bandwidth = math.nan
    return Measurement(
        vendor=root.findtext(system + "systemVendor", "").strip(),
        relative_noise_bandwidth=bandwidth if math.isfinite(bandwidth) and bandwidth > 0 else 1.0,
    )
