"""Volumes and series as one problem: the problem of the scan itself, solved once, and reported slice by slice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.mol import MOL
from molrecon.scans.kinds.joint import (
    joint_noise_level,
    joint_series_problem,
    joint_volume_problem,
    reconstruct_jointly,
)
from molrecon.scans.preparation import PreparedVolume, prepare
from molrecon.scans.scan import Scan
from molrecon.scans.series import joined
from molrecon.simulation.phantom import coil_maps, phantom_volume
from operators import Sense, centred_fft, poisson_disc_mask
from operators.model_error import coil_model_error

READOUT, ROWS, COLS, COILS = 12, 32, 24, 4


def model() -> MOL:
    found = MOL(ResidualNetwork(ndim=3, monotonicity=0.2, channels=2, features=4, levels=2, cycles=1)).eval()
    found.solver = replace(found.solver, tol=1e-5)
    return found


def coil_images(count: int = READOUT) -> tuple[torch.Tensor, np.ndarray]:
    """Return coil images (slices, coil, rows, cols) of the phantom and their maps."""
    maps = coil_maps(count, COILS, (ROWS, COLS))
    maps = (maps / np.linalg.norm(maps, axis=1, keepdims=True)).astype(np.complex64)
    return torch.from_numpy(maps * phantom_volume(count, (ROWS, COLS))[:, None]), maps


def slab(sets: int = 1) -> PreparedVolume:
    images, maps = coil_images()
    mask = poisson_disc_mask((ROWS, COLS), 3, 0, (8, 8))
    kspace = centred_fft(images, (-2, -1)).numpy()
    volume = Scan.from_arrays(kspace, mask, volumetric=True).frames[0].volume
    given = maps if sets == 1 else np.stack([maps, np.roll(maps, 1, axis=1) * 0.5], axis=1)
    return prepare(volume, given, 0.01)


@torch.no_grad()
def test_a_volume_is_the_problem_of_its_3d_kspace() -> None:
    prepared, mol = slab(), model()
    kspace, operator = joint_volume_problem(prepared)
    whole = centred_fft(kspace, (2,))  # with the readout as it was measured
    reference = Sense(operator.sensitivity_maps.contiguous(), prepared.sampling_mask[None])
    x = torch.randn(1, READOUT, ROWS, COLS, dtype=torch.complex64)
    torch.testing.assert_close(operator.adjoint(kspace), reference.adjoint(whole), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(operator.normal(x), reference.normal(x), rtol=1e-4, atol=1e-5)
    (found,) = reconstruct_jointly([prepared], mol)
    expected = mol(whole, reference, joint_noise_level([prepared], range(READOUT)))
    image = torch.from_numpy(found.image)
    assert float((image - expected.value[0].abs()).norm() / expected.value.norm()) < 1e-4
    assert (found.unit, found.kind, found.method) == ("volume", "certified", "MOL")
    assert found.converged.all() and (found.error_bound == found.error_bound[0]).all() and found.error_bound[0] <= 1e-5
    assert len(found.checks) == len(found.residuals) == READOUT
    assert not any("both axes" in warning.check for warning in found.warnings)  # which models of planes never saw


def test_two_sets_of_maps_are_kept_together() -> None:
    (found,) = reconstruct_jointly([slab(sets=2)], model())
    assert found.image.shape == (READOUT, ROWS, COLS) and found.converged.all()


@torch.no_grad()
def test_a_slice_over_time_is_one_problem() -> None:
    times, mol = 5, model()
    images, maps = coil_images(2)
    moving = torch.stack([images * (1 + 0.1 * k) for k in range(times)])
    mask = np.zeros((times, 1, 1, COLS), bool)
    for k in range(times):
        mask[k, ..., k % 3 :: 3] = mask[k, ..., 10:14] = True
    kspace = centred_fft(moving, (-2, -1)).numpy()
    kspace[:, 1, :, :, :] *= np.array([1, 1, 0, 1, 1])[:, None, None, None]  # the second slice lacks a frame
    scan = Scan.from_arrays(kspace, mask, time_step=0.5)
    first = prepare(scan.frames[0].volume, maps, 0.01)
    frames = [first, *(prepare(frame.volume, shared=first) for frame in scan.frames[1:])]
    results = reconstruct_jointly(frames, mol)
    together = joined(results, 0.5)
    assert together.image.shape == (times, 2, ROWS, COLS) and together.unit == "series"
    expected = Sense(torch.from_numpy(maps[0])[None, :, None], torch.from_numpy(mask[:, 0])[None], 2)
    data = torch.from_numpy(kspace[:, 0] * mask[:, 0, None]).transpose(0, 1)[None]
    solution = mol(data, expected, joint_noise_level(frames, [0]))
    image = torch.from_numpy(together.image[:, 0])
    assert float((image - solution.value[0].abs()).norm() / solution.value.norm()) < 1e-4
    assert together.empty.tolist() == [False] * 5 + [True] + [False] * 4
    assert not together.image[2, 1].any() and together.n_steps[5] == 0
    assert joint_series_problem(frames, 1)[0].shape == (1, COILS, times, ROWS, COLS)


def test_the_error_of_the_maps_counts_as_noise() -> None:
    prepared = slab()
    sound = joint_noise_level([prepared], range(READOUT))
    assert 0.01 <= sound < 0.03
    wrong = replace(prepared, sensitivity_maps=prepared.sensitivity_maps.flip(2))
    errors = [float(coil_model_error(wrong.kspace[[k]], wrong.operator([k]))) for k in range(READOUT)]
    expected = np.sqrt(0.01**2 + np.mean(np.square(errors)))
    assert joint_noise_level([wrong], range(READOUT)) == pytest.approx(expected) and expected > 2 * sound


def test_estimated_maps_are_continuous_along_the_readout() -> None:
    images, _ = coil_images()
    turned = images * torch.polar(torch.ones(READOUT), torch.arange(READOUT) * 2.0)[:, None, None, None]
    kspace = centred_fft(turned, (-2, -1)).numpy()

    def steps(volumetric: bool) -> torch.Tensor:
        volume = Scan.from_arrays(kspace, volumetric=volumetric).frames[0].volume
        maps = prepare(volume, map_sets=1).sensitivity_maps[:, 0]
        change = (maps[1:] * maps[:-1].conj()).sum(1)
        return (change.angle().abs() * (change.abs() > 0.5)).amax((1, 2))

    assert float(steps(True).max()) < 0.5


def test_a_frame_that_lacks_a_slice_measured_nothing_of_it() -> None:
    images, maps = coil_images(2)
    kspace = centred_fft(images, (-2, -1)).numpy()
    frames = [prepare(Scan.from_arrays(kspace).frames[0].volume, maps, 0.01) for _ in range(3)]
    frames[1].kspace[1] = 0
    frames[1] = replace(frames[1], empty=np.array([False, True]))
    for k, measured in ((0, [True, True, True]), (1, [True, False, True])):
        _, operator = joint_series_problem(frames, k)
        assert operator.sampling_mask.flatten(2).all(2).tolist() == [measured]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_a_bound_holds_the_rounding_of_what_is_delivered(dtype: torch.dtype) -> None:
    kind = model().double() if dtype == torch.complex128 else model()
    kind.solver = replace(kind.solver, tol=1e-4 if dtype == torch.complex64 else 1e-10)
    (found,) = reconstruct_jointly([slab()], kind)
    assert found.error_bound.max() > torch.finfo(torch.complex64).eps and found.converged.all()
