"""Stacks of radial and spiral readouts, taken apart along their partitions, and the 3D trajectories that are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ismrmrd
import numpy as np
import pytest

from examples._mrd_files import header, radial, readouts, spiral, write
from molrecon.io import RawVolume, UnreadableInput, read_mrd
from molrecon.io.mrd import read_mrd_frames

MATRIX, DEPTH, COILS = 16, 5, 3


def random(*shape: int, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def encoded(slices: np.ndarray) -> np.ndarray:
    """Return what is measured in each partition of samples (slice, ...): the Fourier sum along the slab, written out.

    The centre of the slab is slice n // 2, and that of k-space partition n // 2.
    """
    n = len(slices)
    place = np.arange(n) - n // 2
    matrix = np.exp(-2j * np.pi * np.outer(place, place) / n) / np.sqrt(n)
    return np.tensordot(matrix, slices, 1).astype(np.complex64)


def stack(
    path: Path,
    partitions: np.ndarray,
    points: np.ndarray | list[np.ndarray],
    *,
    kind: str = "radial",
    depth: int = DEPTH,
    recon: str | None = None,
    change: Callable[[list[ismrmrd.Acquisition]], list[ismrmrd.Acquisition]] = lambda acquisitions: acquisitions,
    **idx: int,
) -> Path:
    """Write a stack of samples (partition, coil, readout, sample), the same points or points of each partition."""
    own = points if isinstance(points, list) else [points] * len(partitions)
    acquisitions = [
        one
        for p in range(len(partitions))
        for one in readouts(partitions[p], own[p] / MATRIX, kspace_encode_step_2=p, **idx)
    ]
    xml = header(kind, (MATRIX, MATRIX), depth=depth)
    if recon is not None:
        before, after = xml.split("<reconSpace>")
        xml = f"{before}<reconSpace>{after.replace(f'<z>{depth}</z>', f'<z>{recon}</z>')}"
    return write(path, xml, change(acquisitions))


def points_of(volume: RawVolume) -> np.ndarray:
    assert volume.trajectory is not None
    return volume.trajectory


@pytest.mark.parametrize("depth", [5, 4])
@pytest.mark.parametrize("kind", ["radial", "spiral"])
def test_slices_are_those_of_the_slab(tmp_path, kind, depth):
    points = spiral(3, 40, MATRIX) if kind == "spiral" else radial(4, MATRIX)
    slices = random(depth, COILS, *points.shape[:2])
    path = stack(tmp_path / "raw.h5", encoded(slices), points, kind=kind, depth=depth)
    volume = read_mrd(path)
    np.testing.assert_allclose(volume.kspace, slices, atol=1e-5)
    np.testing.assert_allclose(points_of(volume), points[None], atol=1e-5)
    assert volume.attributes["trajectory"] == kind and not volume.volumetric and volume.left_out == {}
    assert volume.voxel_size == pytest.approx((2, 2, 5 / depth))
    assert volume.geometry is not None
    assert volume.geometry.slice_step == pytest.approx((0, 0, 5 / depth))
    # The centre of the slab is at z = 30 mm, in its slice n // 2.
    assert volume.geometry.origin == pytest.approx((10 - 8 * 2, 20 - 8 * 2, 30 - depth // 2 * 5 / depth))


def test_the_slices_of_the_recon_matrix_are_the_central_ones(tmp_path):
    points = radial(4, MATRIX)
    slices = random(DEPTH, COILS, *points.shape[:2])
    volume = read_mrd(stack(tmp_path / "raw.h5", encoded(slices), points, recon="3"))
    np.testing.assert_allclose(volume.kspace, slices[1:4], atol=1e-5)
    assert volume.geometry is not None and volume.geometry.origin[2] == pytest.approx(30 - 1)


def test_order_of_measurement_and_slabs_and_vendor(tmp_path):
    points = radial(4, MATRIX)
    slabs = random(2, DEPTH, COILS, *points.shape[:2])
    acquisitions = []
    for number, slices in enumerate(slabs):
        for p, samples in enumerate(encoded(slices)):
            acquisitions += readouts(samples, points / MATRIX, kspace_encode_step_2=p, slice=number)
    order = np.random.default_rng(0).permutation(len(acquisitions))
    path = write(tmp_path / "raw.h5", header("radial", (16, 16), depth=DEPTH), [acquisitions[k] for k in order])
    for frame, slices in zip(read_mrd_frames(path), slabs, strict=True):
        np.testing.assert_allclose(frame.volume.kspace, slices, atol=1e-5)
    first = read_mrd(path, conjugate=True)
    assert first.left_out == {"slabs": 1}
    # The transform is of what was measured, conjugated: slices in the other direction, about the centre.
    np.testing.assert_allclose(first.kspace, slabs[0][::-1].conj(), atol=1e-5)


@pytest.mark.parametrize("unit", [1, DEPTH])
def test_a_third_coordinate_is_that_of_the_partition(tmp_path, unit):
    points = radial(4, MATRIX)
    slices = random(DEPTH, COILS, *points.shape[:2])

    def with_height(acquisitions):
        for one in acquisitions:
            height = (one.idx.kspace_encode_step_2 - DEPTH // 2) / unit
            flat = one.traj.copy()
            one.resize(one.number_of_samples, one.active_channels, 3)
            one.traj[:] = np.concatenate([flat, np.full((len(flat), 1), height, np.float32)], 1)
        return acquisitions

    volume = read_mrd(stack(tmp_path / "raw.h5", encoded(slices), points, change=with_height))
    np.testing.assert_allclose(volume.kspace, slices, atol=1e-5)
    assert volume.remarks == ()


def koosh_ball(acquisitions):
    for number, one in enumerate(acquisitions):
        flat, angle = one.traj.copy(), 0.1 * number
        one.resize(one.number_of_samples, one.active_channels, 3)
        radius = np.linspace(-0.5, 0.5, len(flat))[:, None]
        one.traj[:] = np.concatenate([flat * np.cos(angle), radius * np.sin(angle)], 1)
    return acquisitions


def tilted(acquisitions):
    for one in acquisitions:
        flat = one.traj.copy()
        one.resize(one.number_of_samples, one.active_channels, 3)
        one.traj[:] = np.concatenate([flat, np.full((len(flat), 1), 0.37, np.float32)], 1)
    return acquisitions


def shifted(acquisitions):
    for one in acquisitions:
        one.idx.kspace_encode_step_2 += 1
    return acquisitions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (koosh_ball, "whose readouts run through the partitions, as those of a koosh ball do"),
        (tilted, "whose third coordinates are not those of its partitions"),
        (lambda acquisitions: acquisitions[:-4], "with readouts in 4 of its partitions, numbered 0 to 3"),
        (lambda acquisitions: acquisitions[:-1], "with 3 to 4 readouts in each partition"),
        (shifted, "with readouts in 5 of its partitions, numbered 1 to 5"),
        ("turning", "whose readouts turn from partition to partition"),
    ],
    ids=["koosh ball", "height", "a partition missing", "a readout missing", "outside", "turning"],
)
def test_what_is_no_stack_is_refused(tmp_path, change, message):
    points = radial(4, MATRIX)
    own = [radial(4, MATRIX, golden=True, first=4 * p) for p in range(DEPTH)] if change == "turning" else points
    keep = {} if change == "turning" else {"change": change}
    path = stack(tmp_path / "raw.h5", random(DEPTH, COILS, *points.shape[:2]), own, **keep)
    for read in (read_mrd, read_mrd_frames):
        with pytest.raises(UnreadableInput, match="a 3D radial scan with an encoded matrix of 16 x 16 x 5, ") as caught:
            read(path)
        assert message in str(caught.value)
        assert str(caught.value).endswith(
            "expected a 2D scan, or a stack of 2D ones: the same readouts in every partition, each within its own"
        )
