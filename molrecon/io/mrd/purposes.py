"""What every readout of an MRD file is for: the image, its calibration, noise, or something else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from molrecon.io.header import Header
from molrecon.io.mrd.records import EXPECTED, Records
from molrecon.io.volume import UnreadableInput

# Flag n of the format is bit n - 1.
NOISE, CALIBRATION, CALIBRATION_AND_IMAGING, REVERSE, PHASE_CORRECTION = (1 << (n - 1) for n in (19, 20, 21, 22, 24))
# The flags of readouts that serve other purposes than the image, in plain words.
OTHER_PURPOSES = {
    19: "noise readouts",
    23: "navigator readouts",
    24: "phase correction readouts",
    26: "feedback readouts",
    27: "dummy readouts",
    28: "feedback readouts",
    29: "surface coil correction readouts",
    30: "phase stabilisation readouts",
    31: "phase stabilisation readouts",
}
# The counters that tell the images of a scan apart, in plain words.
COUNTERS = {"contrast": "contrasts", "phase": "cardiac phases", "repetition": "repetitions", "set": "sets"}
SLABS = {"slice": "slabs"}  # the slices of a 3D encoding
SEPARATE = ("separate", "external")


@final
@dataclass(frozen=True, eq=False)
class Purposes:
    """Which readouts are what, each (readouts,) bool.

    Attributes:
        imaging: those of images.
        calibration: measured for the coil maps alone, apart from the image.
        noise: without excitation.
        left_out: how many are not of an image, by purpose in plain words.
    """

    imaging: np.ndarray
    calibration: np.ndarray
    noise: np.ndarray
    left_out: dict[str, int]


def purposes(records: Records, header: Header) -> Purposes:
    """Tell the readouts apart by their flags. Raises UnreadableInput where none is of an image."""
    flags = records.heads["flags"]
    imaging = np.ones(len(flags), bool)
    calibration = np.zeros(len(flags), bool)
    left_out: dict[str, int] = {}

    def drop(readouts: np.ndarray, words: str) -> None:
        count = int(np.count_nonzero(imaging & readouts))
        if count:
            left_out[words] = left_out.get(words, 0) + count
        imaging[readouts] = False

    for flag, words in OTHER_PURPOSES.items():
        drop((flags & (1 << (flag - 1))) != 0, words)
    if header.calibration_mode in SEPARATE:
        calibration = imaging & ((flags & CALIBRATION) != 0) & ((flags & CALIBRATION_AND_IMAGING) == 0)
        drop(calibration, "separate calibration readouts")
    if not imaging.any():
        raise UnreadableInput(records.path, f"{len(flags)} readouts, none of an image", EXPECTED)
    return Purposes(imaging, calibration, (flags & NOISE) != 0, left_out)


def first_frame(records: Records, imaging: np.ndarray, counters: tuple[str, ...]) -> tuple[np.ndarray, dict[str, int]]:
    """Return the readouts of the first image, and how many values of each counter are left out with the others.

    The first value of each counter is taken in turn, among the readouts that are left: of the encoding space first,
    whose number is 0.
    """
    idx, spaces = records.heads["idx"], records.heads["encoding_space_ref"]
    left_out: dict[str, int] = {}
    others = len(np.unique(spaces[imaging & (spaces != 0)]))
    keep = imaging & (spaces == 0)
    if not keep.any():
        raise UnreadableInput(records.path, f"{len(idx)} readouts, none of an image", EXPECTED)
    if others:
        left_out["encoding spaces"] = others
    for name in counters:
        numbers = np.unique(idx[name][keep])
        if len(numbers) > 1:
            left_out[{**COUNTERS, **SLABS}[name]] = len(numbers) - 1
        keep &= idx[name] == numbers[0]
    return keep, left_out
