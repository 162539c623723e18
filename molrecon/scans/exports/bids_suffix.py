"""The suffix of BIDS that the header of a scan tells: what its sequence weights, where no other reading is possible."""

from __future__ import annotations

from pathlib import Path

import h5py

from molrecon.io import READERS, UnreadableInput
from molrecon.io.hdf5 import check_heaps, read_text
from molrecon.io.mrd import is_mrd
from molrecon.io.sequence import Sequence, read_sequence
from molrecon.io.volume import reading

# What fastMRI calls its acquisitions.
ACQUISITIONS = {
    "AXT1": "T1w",
    "AXT1PRE": "T1w",
    "AXT1POST": "T1w",
    "AXT2": "T2w",
    "AXFLAIR": "FLAIR",
    "CORPD_FBK": "PDw",
    "CORPDFS_FBK": "PDw",
}
SHORT_TI, LONG_TI = 400.0, 1500.0  # milliseconds: below, no tissue but fat is nulled; above, water is


def suffix_of(sequence: Sequence) -> str | None:
    """Return what a sequence weights, by its times in milliseconds; None where they leave it open.

    Several echoes: MEGRE of gradient echoes, MESE of single spin echoes. Spin echoes: T1w (TR <= 1000, TE <= 30), PDw
    (TR >= 1500, TE <= 40), T2w (TR >= 1500, TE >= 70), FLAIR (as T2w, with TI >= 1500). Gradient echoes: T1w with an
    inversion (TI 500 to 1500, TE <= 10) or in slices (TR >= 100, flip angle >= 50 degrees, TE <= 10), T2starw
    (TE >= 15). A time-of-flight angiogram has the times of a T1w volume, balanced sequences weight T2/T1, converters
    write TI where nothing is inverted: such cases are left open.
    """
    tr, te, ti = sequence.repetition_time, sequence.echo_time, sequence.inversion_time or 0.0
    if sequence.echo_kind is None or tr is None or te is None:
        return None
    if sequence.echo_kind == "gradient echo":
        return _of_gradient_echoes(sequence, tr, te, ti)
    if sequence.echoes > 1:
        return None if sequence.refocused_train else "MESE"
    if tr >= LONG_TI and te >= 70:
        return "FLAIR" if ti >= LONG_TI else "T2w" if ti < SHORT_TI else None
    if ti >= SHORT_TI:
        return None
    if tr <= 1000 and te <= 30:
        return "T1w"
    return "PDw" if tr >= LONG_TI and te <= 40 else None


def _of_gradient_echoes(sequence: Sequence, tr: float, te: float, ti: float) -> str | None:
    if sequence.echoes > 1:
        return "MEGRE"
    if te >= 15:
        return "T2starw"
    inverted = 500 <= ti <= LONG_TI
    saturated = tr >= 100 and (sequence.flip_angle or 0.0) >= 50 and ti < 500
    return "T1w" if te <= 10 and (inverted or saturated) else None


def read_suffix(path: Path) -> str | None:
    """Return the suffix that the header of an input tells, without its samples; None where it tells none.

    Raises:
        UnreadableInput: a damaged file, or one of no kind that is read here.
    """
    if not any(reader.recognises(path) for reader in READERS):
        raise UnreadableInput(path, "a file of an unknown kind", "a scan")
    with reading(path, "an HDF5 file"):
        if not h5py.is_hdf5(path):
            return None
        check_heaps(path)
        raw = is_mrd(path)
        with h5py.File(path, "r") as file:
            if (named := ACQUISITIONS.get(str(file.attrs.get("acquisition")))) is not None:
                return named
            group = next((name for name in file if isinstance(file[name], h5py.Group) and "xml" in file[name]), None)
            place = f"{group}/xml" if raw else "ismrmrd_header"
            xml = read_text(path, file[place]) if place in file else None
    return suffix_of(read_sequence(path, xml))
