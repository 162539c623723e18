"""A scan of a kind that no packaged model was trained for is told so; by classical methods it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from molrecon.io import RawVolume
from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.classical import CGSense
from molrecon.reconstructors.mol import MOL
from molrecon.scans.data_warnings import DataWarning, training_warnings
from molrecon.scans.parts import Parts
from molrecon.scans.preparation import prepare
from molrecon.scans.reconstruction import reconstruct_prepared
from molrecon.simulation import sampling, scan


def volume(coils: int = 4, step: int = 4, rows: int = 1, padding: int = 0, radial: bool = False) -> RawVolume:
    rng = np.random.default_rng(0)
    kspace = (rng.normal(size=(1, coils, 12, 48)) + 1j * rng.normal(size=(1, coils, 12, 48))).astype(np.complex64)
    mask = np.zeros((1, 12 if rows > 1 else 1, 48), bool)
    mask[:, ::rows, padding : 48 - padding : step] = True
    if radial:
        trajectory = rng.uniform(-6, 6, (1, 12, 48, 2))
        return RawVolume(
            Path("scan"), kspace, np.ones((1, 12, 48), bool), (12, 12), "", trajectory=trajectory, grid=(12, 12)
        )
    attributes: dict[str, str | float | int] = {}
    if padding:
        attributes = {"padding_left": padding, "padding_right": 48 - padding}
    return RawVolume(Path("scan"), kspace * mask[:, None], mask, (12, 48), "", attributes=attributes)


CASES: dict[str, Callable[[], list[DataWarning]]] = {
    "more noise than trained for": lambda: training_warnings(volume(), 0.06),
    "more undersampled than trained for": lambda: training_warnings(volume(step=12), 0.01),
    "more coils than trained for": lambda: training_warnings(volume(coils=33), 0.01),
    "undersampled along both axes (3D)": lambda: training_warnings(volume(rows=2), 0.01),
    "several sets of coil maps": lambda: training_warnings(volume(), 0.01, sets=2),
    "phase of the image": lambda: training_warnings(volume(), 0.01, phase=True),
    "trajectory": lambda: training_warnings(volume(radial=True), 0.01),
}


@pytest.mark.parametrize("check", CASES)
def test_each_kind_is_told(check):
    (warning,) = CASES[check]()
    assert warning.check == check and "cg-sense" in warning.advice


def test_ordinary_scans_are_not():
    assert training_warnings(volume(), 0.01) == []
    assert training_warnings(volume(step=10), 0.05) == []
    assert training_warnings(volume(step=8, padding=12), 0.01) == []  # of 24 acquired columns
    assert training_warnings(volume(rows=2, step=1, coils=1), 0.01) != []


def test_limits_are_those_of_the_training():
    from molrecon.reconstructors.conditioning import NOISE_LIMITS
    from molrecon.scans import data_warnings

    assert NOISE_LIMITS[1] == data_warnings.TRAINED_NOISE
    assert sampling.ACCELERATIONS[1] == data_warnings.TRAINED_ACCELERATION
    assert "1 to 32 coils" in (scan.simulate.__doc__ or "")


def test_learned_methods_say_so_and_classical_ones_do_not():
    network = ResidualNetwork(monotonicity=0.2, channels=2, features=4, levels=1, cycles=1)
    prepared = prepare(volume(), np.full((1, 4, 12, 48), 0.5, np.complex64), 0.01)
    parts = Parts(("phase",))
    checks = {
        type(model).__name__: {warning.check for warning in reconstruct_prepared(prepared, model, parts=parts).warnings}
        for model in (MOL(network).eval(), CGSense())
    }
    assert "phase of the image" in checks["MOL"] and "phase of the image" not in checks["CGSense"]
