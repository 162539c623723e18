"""What a sequence weights, for usual protocols, and where its times leave that open."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from molrecon.io import UnreadableInput
from molrecon.io.sequence import Sequence, read_sequence
from molrecon.scans.exports.bids_suffix import read_suffix, suffix_of


def header(kind: str, tr: float, tes: tuple[float, ...], ti: float | None = None, flip: float = 90) -> str:
    times = "".join(f"<TE>{te}</TE>" for te in tes) + ("" if ti is None else f"<TI>{ti}</TI>")
    parameters = f"<TR>{tr}</TR>{times}<flipAngle_deg>{flip}</flipAngle_deg><sequence_type>{kind}</sequence_type>"
    root = 'ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"'
    return f"<{root}><sequenceParameters>{parameters}</sequenceParameters></ismrmrdHeader>"


PROTOCOLS = {
    "spin echo T1": (header("SE", 500, (9,)), "T1w"),
    "turbo spin echo T2": (header("TurboSpinEcho", 5000, (102,), 100), "T2w"),
    "turbo spin echo PD of a knee": (header("TurboSpinEcho", 2800, (27,)), "PDw"),
    "FLAIR": (header("TurboSpinEcho", 9000, (81,), 2500), "FLAIR"),
    "T1 FLAIR": (header("TurboSpinEcho", 2000, (9,), 860), None),
    "MPRAGE": (header("Flash", 2300, (2.98,), 900, 9), "T1w"),
    "FLASH in slices": (header("Flash", 250, (2.5,), 300, 70), "T1w"),
    "time of flight": (header("Flash", 22, (3.7,), None, 18), None),
    "T2*": (header("Flash", 700, (20,), None, 20), "T2starw"),
    "several gradient echoes": (header("Flash", 50, (5, 10, 15), None, 15), "MEGRE"),
    "several spin echoes": (header("SpinEcho", 2000, (12, 24, 36)), "MESE"),
    "two echoes of one train": (header("TurboSpinEcho", 4000, (12, 96)), None),
    "balanced": (header("SSFP", 4, (2,), None, 60), None),
    "echo planar": (header("EPI", 2000, (30,)), None),
    "unnamed": (header("", 500, (9,)), None),
    "unknown times": (header("SE", 0, (9,)), None),
    "in between": (header("SE", 1200, (50,)), None),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols(name: str) -> None:
    xml, expected = PROTOCOLS[name]
    assert suffix_of(read_sequence(Path("scan.h5"), xml)) == expected


def test_of_files(tmp_path: Path) -> None:
    assert suffix_of(Sequence()) is None
    np.save(tmp_path / "scan.npy", np.zeros(3))
    assert read_suffix(tmp_path / "scan.npy") is None
    (tmp_path / "bad.h5").write_bytes(b"nothing")
    for bad in ("bad.h5", "absent.h5"):
        with pytest.raises(UnreadableInput):
            read_suffix(tmp_path / bad)
    for attribute, xml, expected in (
        ("AXFLAIR", None, "FLAIR"),
        ("CORPDFS_FBK", header("SE", 500, (9,)), "PDw"),
        ("DOE JANE", header("SE", 500, (9,)), "T1w"),
        ("", None, None),
    ):
        with h5py.File(tmp_path / "scan.h5", "w") as file:
            file["kspace"], file.attrs["acquisition"] = np.zeros((1, 1, 4, 4), np.complex64), attribute
            if xml is not None:
                file["ismrmrd_header"] = xml
        assert read_suffix(tmp_path / "scan.h5") == expected
