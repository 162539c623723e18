"""A scan compressed to virtual coils before it is prepared: what is lost, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from molrecon.command.parser import build_parser
from molrecon.io import RawVolume, read_volume
from molrecon.reconstructors.classical import CGSense
from molrecon.scans.cohort import reconstruct_cohort
from molrecon.scans.comparison import undersample
from molrecon.scans.preparation import prepare
from molrecon.scans.reconstruction import reconstruct_prepared
from molrecon.scans.settings import Settings
from molrecon.scans.sidecar import ModelSource
from molrecon.simulation.phantom import write_phantom
from operators import random_mask

COILS, LEVEL = 12, 0.02


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> RawVolume:
    path = tmp_path_factory.mktemp("scan") / "head.h5"
    full = read_volume(write_phantom(path, slices=2, coils=COILS, shape=(48, 64), noise_level=LEVEL))
    return undersample(full, random_mask(64, 2, 0.3, 0), 0.0, [0])


def test_fewer_coils_show_the_same_within_the_noise(scan: RawVolume) -> None:
    whole, fewer = prepare(scan), prepare(scan, compress="auto")
    assert fewer.compression is not None and fewer.noise_level == whole.noise_level
    kept = len(fewer.compression.matrix)
    assert kept < COILS and fewer.compression.signal_lost <= 0.1
    assert fewer.kspace.shape[1] == fewer.sensitivity_maps.shape[2] == kept
    one, two = (reconstruct_prepared(p, CGSense()).image for p in (whole, fewer))
    assert np.sqrt(np.mean((one - two) ** 2)) < LEVEL


def test_given_maps_are_mixed_as_the_data_are(scan: RawVolume) -> None:
    maps = prepare(scan, map_sets=1).sensitivity_maps[:, 0].numpy()
    whole, all_of_them = prepare(scan, maps), prepare(scan, maps, compress=COILS)
    # As many virtual coils as coils: a change of basis, and nothing is lost.
    assert all_of_them.compression is not None and all_of_them.compression.energy_kept == pytest.approx(1)
    one, two = (reconstruct_prepared(p, CGSense()).image for p in (whole, all_of_them))
    np.testing.assert_allclose(two, one, atol=1e-3 * one.max())
    few = prepare(scan, maps, compress=5)
    assert few.sensitivity_maps.shape == (2, 1, 5, 48, 64)


def test_images_of_one_scan_share_their_virtual_coils(scan: RawVolume) -> None:
    first = prepare(scan, compress=6)
    later = prepare(replace(scan, kspace=scan.kspace * np.complex64(0.5j)), shared=first)
    assert later.compression is first.compression
    np.testing.assert_allclose(later.kspace.numpy(), 0.5j * first.kspace.numpy(), atol=1e-6)


def test_more_virtual_coils_than_coils_are_all_of_them(scan: RawVolume) -> None:
    found = prepare(scan, compress=99).compression
    assert found is not None and len(found.matrix) == COILS


def test_the_sidecar_says_what_was_lost(scan: RawVolume, tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", scan.kspace)
    out = tmp_path / "out"
    out.mkdir()
    source = ModelSource("cg-sense", None)
    hashes = []
    for compress in (None, 6):
        reconstruct_cohort([tmp_path / "scan.npy"], out, CGSense(), source, Settings(compress=compress))
        sidecar = json.loads((out / "scan.json").read_text())
        hashes.append(sidecar["settings_sha256"])
        compression = sidecar["coil_compression"]
        if compress is None:
            assert compression is None
        else:
            assert (compression["virtual_coils"], compression["of"]) == (6, COILS)
            assert 0.9 < compression["energy_kept"] < 1 and compression["signal_lost_over_noise"] >= 0
    assert hashes[0] != hashes[1]


def test_the_command_takes_a_number_or_auto(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["reconstruct", "scan.h5", "--out", "out"]
    assert build_parser().parse_args(command).compress is None
    for text, value in (("auto", "auto"), ("9", 9)):
        assert build_parser().parse_args([*command, "--virtual-coils", text]).compress == value
    with pytest.raises(SystemExit):
        build_parser().parse_args([*command, "--virtual-coils", "0"])
    assert "whole number" in capsys.readouterr().err
