"""One image of a scan with several: which contrast, phase, repetition and set it is of, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from molrecon.io.volume import RawVolume


@final
@dataclass(frozen=True, eq=False)
class Frame:
    """A volume of a scan and the counters that tell it from the others.

    Attributes:
        volume: k-space, mask and geometry; averages are combined.
        contrast, phase, repetition, set: the scanner's counters (echo, cardiac phase, measurement, and what else
            varies, such as flow encoding).
        encoding_space: which encoding of the header it was measured with.
        seconds: when its first readout was measured, since midnight or another moment that all frames share; None where
            the file does not say. Of cardiac phases, since the trigger.
        slab: of a 3D scan in several, which are images of their own.
    """

    volume: RawVolume
    contrast: int = 0
    phase: int = 0
    repetition: int = 0
    set: int = 0
    encoding_space: int = 0
    seconds: float | None = None
    slab: int = 0
