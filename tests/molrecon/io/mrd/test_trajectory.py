"""Radial, spiral and other trajectories of MRD files: where their samples lie, and what is refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
import pytest

from examples._mrd_files import header, radial, readouts, spiral, write
from molrecon.io import RawVolume, UnreadableInput, read_mrd, read_volume
from molrecon.io.mrd import read_mrd_frames

MATRIX, COILS = 16, 3
GENERATE = "ismrmrd_generate_cartesian_shepp_logan"


def random(*shape: int, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def points_of(volume: RawVolume) -> np.ndarray:
    """Return where the samples of a volume lie, which it has to know."""
    assert volume.trajectory is not None
    return volume.trajectory


@pytest.mark.parametrize("unit", ["1/pixel", "cycles"])
@pytest.mark.parametrize("kind", ["radial", "spiral", "goldenangle", "other"])
def test_samples_and_their_coordinates(tmp_path, kind, unit):
    points = spiral(3, 40, MATRIX) if kind == "spiral" else radial(5, MATRIX, golden=kind == "goldenangle")
    data = random(COILS, *points.shape[:2])
    stored = points / MATRIX if unit == "1/pixel" else points
    path = write(tmp_path / "raw.h5", header(kind, (MATRIX, MATRIX), (12, 10)), readouts(data, stored))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.kspace[0], data)
    np.testing.assert_allclose(points_of(volume)[0], points, atol=1e-5)
    assert points_of(volume).dtype == np.float64
    assert (volume.grid, volume.recon_shape, volume.attributes["trajectory"]) == ((16, 16), (12, 10), kind)
    assert not volume.fully_sampled and volume.left_out == {}
    assert volume.voxel_size == pytest.approx((2, 2, 5))
    # The centre of the image is pixel 6 of 12 rows and 5 of 10 columns, see `mrd_geometry`.
    assert volume.geometry is not None
    assert volume.geometry.origin == pytest.approx((10 - 6 * 2, 20 - 5 * 2, 30))


def test_the_first_coordinate_is_that_of_the_rows(tmp_path):
    points = np.zeros((1, 4, 2))
    points[0, :, 0] = [0, 1, 2, 20]
    path = write(tmp_path / "raw.h5", header("other", (40, 20)), readouts(random(COILS, 1, 4), points))
    np.testing.assert_allclose(points_of(read_mrd(path))[0], points)  # 20 cycles fit the rows, and not the columns
    path = write(tmp_path / "swapped.h5", header("other", (40, 20)), readouts(random(COILS, 1, 4), points[..., ::-1]))
    with pytest.raises(UnreadableInput, match="reaches 0 and 20"):
        read_mrd(path)


def test_slices_and_repetitions_have_trajectories_of_their_own(tmp_path):
    data = random(2, 2, COILS, 4, 2 * MATRIX)  # repetition, slice
    points = [[radial(4, MATRIX, golden=True, first=4 * (2 * r + s)) for s in range(2)] for r in range(2)]
    acquisitions = [
        one
        for r in range(2)
        for s in range(2)
        for one in readouts(data[r, s], points[r][s] / MATRIX, repetition=r, slice=s)
    ]
    order = np.random.default_rng(0).permutation(len(acquisitions))
    mixed = write(tmp_path / "raw.h5", header("radial", (MATRIX, MATRIX)), [acquisitions[k] for k in sorted(order)])
    frames = read_mrd_frames(mixed)
    assert [frame.repetition for frame in frames] == [0, 1]
    for r, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.volume.kspace, data[r])
        np.testing.assert_allclose(points_of(frame.volume), np.stack(points[r]), atol=1e-5)
    same = [one for s in range(2) for one in readouts(data[0, s], points[0][0] / MATRIX, slice=s)]
    volume = read_mrd(write(tmp_path / "same.h5", header("radial", (MATRIX, MATRIX)), same))
    assert points_of(volume).shape == (1, 4, 2 * MATRIX, 2)  # once, where all slices have it
    assert volume.geometry is not None
    assert volume.geometry.slice_step == pytest.approx((0, 0, 5))


def test_averages_stay_readouts_and_samples_are_discarded(tmp_path):
    points, data = radial(4, MATRIX), random(COILS, 4, 2 * MATRIX)
    acquisitions = readouts(data, points / MATRIX) + readouts(2 * data, points / MATRIX, average=1)
    for one in acquisitions:
        one.discard_pre, one.discard_post = 3, 2
    volume = read_mrd(write(tmp_path / "raw.h5", header("radial", (MATRIX, MATRIX)), acquisitions))
    np.testing.assert_array_equal(volume.kspace[0], np.concatenate([data, 2 * data], 1)[:, :, 3:-2])
    np.testing.assert_allclose(points_of(volume)[0], np.concatenate([points, points])[:, 3:-2], atol=1e-5)


def test_a_third_coordinate_is_zero_or_a_weight(tmp_path):
    points = np.concatenate([radial(4, MATRIX) / MATRIX, np.zeros((4, 2 * MATRIX, 1))], -1)
    data = random(COILS, 4, 2 * MATRIX)
    plain = read_mrd(write(tmp_path / "zero.h5", header("radial", (MATRIX, MATRIX)), readouts(data, points)))
    assert plain.remarks == ()
    points[..., 2] = 0.25
    weighted = read_mrd(write(tmp_path / "weight.h5", header("radial", (MATRIX, MATRIX)), readouts(data, points)))
    assert "density" in weighted.remarks[0]
    np.testing.assert_array_equal(points_of(weighted), points_of(plain))


def test_data_of_siemens_are_conjugated(tmp_path):
    points, data = radial(4, MATRIX), random(COILS, 4, 2 * MATRIX)
    xml = header("radial", (MATRIX, MATRIX)).replace(
        "<acquisitionSystemInformation/>",
        "<acquisitionSystemInformation><systemVendor>SIEMENS</systemVendor></acquisitionSystemInformation>",
    )
    volume = read_mrd(write(tmp_path / "raw.h5", xml, readouts(data, points / MATRIX)))
    np.testing.assert_array_equal(volume.kspace[0], data.conj())
    np.testing.assert_allclose(points_of(volume)[0], points, atol=1e-5)


def test_coordinates_a_little_outside_come_back_on_the_other_side(tmp_path):
    points = np.array([[[8.1, 0], [-8.1, 0], [8.0, 3], [-8.0, -3]]])
    volume = read_mrd(write(tmp_path / "raw.h5", header("other", (16, 16)), readouts(random(COILS, 1, 4), points)))
    np.testing.assert_allclose(points_of(volume)[0, 0], [[-7.9, 0], [7.9, 0], [8.0, 3.0], [-8.0, -3.0]], atol=1e-5)


def spokes(tmp_path, change=lambda acquisitions: acquisitions, *, scale=1.0, axes=2, depth=1, kind="radial"):
    """A small radial file in which something is wrong."""
    points = scale * radial(4, MATRIX) / MATRIX
    points = np.concatenate([points, np.zeros((4, 2 * MATRIX, 2))], -1)[..., :axes]
    acquisitions = readouts(random(COILS, 4, 2 * MATRIX), points if axes else None)
    return write(tmp_path / "raw.h5", header(kind, (MATRIX, MATRIX), depth=depth), change(acquisitions))


def shorter(acquisitions):
    data = random(COILS, 1, 20)
    return [*acquisitions, *readouts(data, radial(1, 10) / 20)]


def fewer(acquisitions):
    data = random(COILS, 1, 2 * MATRIX)
    return [*acquisitions, *readouts(data, radial(1, MATRIX) / MATRIX, slice=1)]


def other_coils(acquisitions):
    return [*acquisitions, *readouts(random(2, 1, 2 * MATRIX), radial(1, MATRIX) / MATRIX)]


def broken(acquisitions):
    acquisitions[2].traj[5, 0] = np.nan
    return acquisitions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": 0}, "a radial trajectory, whose coordinates no readout holds, expected two coordinates"),
        ({"axes": 1}, r"a radial trajectory of \[1\] coordinates"),
        ({"axes": 4}, r"a radial trajectory of \[4\] coordinates"),
        ({"scale": 2 * np.pi}, "reaches 3.142 and .*, expected 0.5 / pixel, or 8 and 8 cycles per field of view"),
        ({"scale": 40.0}, "reaches 20"),
        ({"scale": 0.01}, "reaches 0.005"),
        ({"depth": 4}, "a 3D radial scan with an encoded matrix of 16 x 16 x 4, with readouts in 1 of"),
        ({"change": shorter}, "3 coils x samples 0 to 19 of 20, 3 coils x samples 0 to 31 of 32, expected"),
        ({"change": other_coils}, "2 coils x samples"),
        ({"change": fewer}, "slices of 1 to 4 radial readouts, expected as many in each slice"),
        ({"change": broken}, "NaN or infinity in a radial trajectory"),
        ({"kind": "epi"}, "regridded from the ramps"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_refused(tmp_path, change, message):
    path = spokes(tmp_path, **change)
    for read in (read_mrd, read_mrd_frames):
        with pytest.raises(UnreadableInput, match=message):
            read(path)


def test_damaged_files_are_read_soundly_or_refused(tmp_path):
    content = spokes(tmp_path).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(150):
        damaged = np.frombuffer(content, np.uint8).copy()
        places = rng.integers(len(damaged), size=rng.integers(1, 200))
        damaged[places] = rng.integers(256, size=len(places))
        path = tmp_path / f"{number}.h5"
        path.write_bytes(damaged.tobytes())
        try:
            volume = read_mrd(path)
        except UnreadableInput:
            refused += 1
        else:
            assert np.isfinite(volume.kspace.view(np.float32)).all()
            assert volume.trajectory is None or np.isfinite(volume.trajectory).all()
        path.unlink()
    assert 0 < refused < 150


def test_numbers_of_slices_that_the_file_cannot_hold(tmp_path):
    def far(acquisitions):
        for one in acquisitions:
            one.idx.slice = 60000
        return acquisitions

    with pytest.raises(UnreadableInput, match="in a file of"):
        read_mrd(spokes(tmp_path, far))


@pytest.mark.parametrize(("matrix", "depth"), [((16, 16), 10**9), ((16 * 10**6, 16), 1), ((30000, 30000), 1)])
def test_sizes_of_images_that_the_file_cannot_hold(tmp_path, matrix, depth):
    points = radial(4, MATRIX) / MATRIX
    path = write(
        tmp_path / "raw.h5", header("radial", matrix, depth=depth), readouts(random(COILS, 4, 2 * MATRIX), points)
    )
    with pytest.raises(UnreadableInput):
        read_mrd(path)


@pytest.mark.skipif(shutil.which(GENERATE) is None, reason="ismrmrd-tools is not installed")
def test_coordinates_of_ismrmrd_tools_are_those_of_the_grid(tmp_path: Path):
    """The tool's option -k stores where each sample of a Cartesian scan lies: read as a trajectory, it is the same."""
    command = [GENERATE, "-m", "24", "-c", "3", "-r", "1", "-n", "0.01", "-C", "-k", "-o", "raw.h5"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60, capture_output=True)
    grid = read_mrd(tmp_path / "raw.h5")
    shutil.copy(tmp_path / "raw.h5", tmp_path / "other.h5")
    with h5py.File(tmp_path / "other.h5", "r+") as file:
        xml = file["dataset/xml"][0].decode()
        file["dataset/xml"][0] = xml.replace("cartesian", "other").encode()
    other = read_mrd(tmp_path / "other.h5")
    assert other.grid == grid.kspace.shape[-2:] == (48, 24) and other.recon_shape == grid.recon_shape
    points = points_of(other)[0]
    rows, cols = np.moveaxis(np.rint(points).astype(int) + np.array([24, 12]), -1, 0)
    np.testing.assert_allclose(points, np.stack([rows - 24, cols - 12], -1), atol=1e-5)
    np.testing.assert_array_equal(other.kspace[0], grid.kspace[0][:, rows, cols])
    np.testing.assert_array_equal(other.noise_covariance, grid.noise_covariance)
    assert other.left_out == {"noise readouts": 1}


def test_acquisitions_of_the_package_hold_what_is_meant():
    (one,) = readouts(random(COILS, 1, 6), np.arange(12.0).reshape(1, 6, 2))
    assert isinstance(one, ismrmrd.Acquisition) and one.trajectory_dimensions == 2 and one.traj.shape == (6, 2)
