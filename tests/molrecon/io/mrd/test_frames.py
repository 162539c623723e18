"""Every image of an MRD file: contrasts, phases, repetitions, sets, encoding spaces; reversed lines; 3D."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest

from molrecon.io import UnreadableInput, read_frames, read_mrd, read_volume
from molrecon.io.mrd import read_mrd_frames
from molrecon.scans.scan import Scan

ROWS, COLS, COILS = 16, 10, 3


def random(*shape: int, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def line(samples: np.ndarray, column: int, *, flags: Sequence[int] = (), space: int = 0, stamp: int = 0, **idx: int):
    acquisition = ismrmrd.Acquisition.from_array(np.ascontiguousarray(samples))
    acquisition.center_sample = samples.shape[1] // 2
    acquisition.idx.kspace_encode_step_1 = column
    acquisition.encoding_space_ref, acquisition.acquisition_time_stamp = space, stamp
    for name, value in idx.items():
        setattr(acquisition.idx, name, value)
    for flag in flags:
        acquisition.set_flag(flag)
    return acquisition


def lines(kspace: np.ndarray, **idx: Any) -> list[ismrmrd.Acquisition]:
    """All readouts of kspace (slices, coils, rows, cols)."""
    return [line(one[:, :, n], n, slice=k, **idx) for k, one in enumerate(kspace) for n in range(kspace.shape[-1])]


def encoding(matrix: tuple[int, int, int], recon: tuple[int, int, int], trajectory: str = "cartesian") -> str:
    def space(name: str, size: tuple[int, int, int]) -> str:
        x, y, z = size
        return (
            f"<{name}><matrixSize><x>{x}</x><y>{y}</y><z>{z}</z></matrixSize>"
            f"<fieldOfView_mm><x>{2 * x}</x><y>{2 * y}</y><z>{3 * z}</z></fieldOfView_mm></{name}>"
        )

    def limits(axis: int) -> str:
        n, name = matrix[axis], f"kspace_encoding_step_{axis}"
        return f"<{name}><minimum>0</minimum><maximum>{n - 1}</maximum><center>{n // 2}</center></{name}>"

    return (
        f"<encoding>{space('encodedSpace', matrix)}{space('reconSpace', recon)}<encodingLimits>{limits(1)}{limits(2)}"
        f"</encodingLimits><trajectory>{trajectory}</trajectory></encoding>"
    )


def write(
    path: Path, acquisitions: list[ismrmrd.Acquisition], *encodings: str, system: str = "", sequence: str = ""
) -> Path:
    encodings = encodings or (encoding((ROWS, COLS, 1), (8, 8, 1)),)
    with ismrmrd.Dataset(str(path), "dataset", create_if_needed=True) as dataset:
        dataset.write_xml_header(
            (
                f'<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><acquisitionSystemInformation>{system}'
                f"</acquisitionSystemInformation>{''.join(encodings)}<sequenceParameters>{sequence}"
                "</sequenceParameters></ismrmrdHeader>"
            ).encode()
        )
        for acquisition in acquisitions:
            dataset.append_acquisition(acquisition)
    return path


def test_every_combination_of_counters_is_a_frame(tmp_path):
    data = random(2, 2, 3, 2, 2, COILS, ROWS, COLS)
    keys = list(np.ndindex(data.shape[:4]))
    acquisitions = [
        one for c, s, p, r in keys for one in lines(data[c, s, p, r], contrast=c, set=s, phase=p, repetition=r)
    ]
    order = np.random.default_rng(0).permutation(len(acquisitions))
    frames = read_mrd_frames(write(tmp_path / "raw.h5", [acquisitions[k] for k in order]))
    assert [(one.contrast, one.set, one.phase, one.repetition) for one in frames] == keys
    for frame, key in zip(frames, keys, strict=True):
        np.testing.assert_array_equal(frame.volume.kspace, data[key])
        assert frame.volume.left_out == {} and not frame.volume.incomplete


def test_frames_keep_their_own_masks_and_averages_are_combined(tmp_path):
    data = random(2, 2, 1, COILS, ROWS, COLS)  # repetition, average
    acquisitions = [
        one
        for r in range(2)
        for a in range(2)
        for one in lines(data[r, a], repetition=r, average=a, stamp=1000 + 400 * r)[r::2]
    ]
    frames = read_mrd_frames(write(tmp_path / "raw.h5", acquisitions))
    for r, frame in enumerate(frames):
        expected = np.zeros((1, COILS, ROWS, COLS), complex)
        expected[..., r::2] = data[r].mean(axis=0)[..., r::2]
        np.testing.assert_allclose(frame.volume.kspace, expected, rtol=1e-6)
        np.testing.assert_array_equal(np.flatnonzero(frame.volume.sampling_mask), np.arange(r, COLS, 2))
    first, second = (frame.seconds for frame in frames[:2])
    assert first is not None and second is not None and second - first == pytest.approx(1.0)  # 400 ticks of 2.5 ms


def test_encoding_spaces_have_headers_of_their_own(tmp_path):
    first, second = random(1, COILS, ROWS, COLS), random(1, COILS, 12, 6)
    other = encoding((12, 6, 1), (6, 6, 1))
    acquisitions = lines(first) + lines(second, space=1)
    frames = read_mrd_frames(write(tmp_path / "raw.h5", acquisitions, encoding((ROWS, COLS, 1), (8, 8, 1)), other))
    assert [frame.encoding_space for frame in frames] == [0, 1]
    np.testing.assert_array_equal(frames[1].volume.kspace, second)
    assert frames[1].volume.recon_shape == (6, 6)
    spiral = encoding((12, 6, 1), (6, 6, 1), "spiral")
    path = write(tmp_path / "spiral.h5", acquisitions, encoding((ROWS, COLS, 1), (8, 8, 1)), spiral)
    (frame,) = read_mrd_frames(path)
    assert frame.volume.left_out == {"encoding spaces": 1} and frame.volume.incomplete


def test_reversed_lines_are_turned_round(tmp_path):
    data = random(1, COILS, ROWS, COLS)
    acquisitions = lines(data)
    reverse = [ismrmrd.ACQ_IS_REVERSE]
    # Sampled at -7 ... 8 seen forwards: the centre is number 8 of the samples as they were taken.
    backwards = np.concatenate([random(COILS, 1, seed=9), data[0, :, :0:-1, 3]], axis=1)
    acquisitions[3] = line(backwards, 3, flags=reverse)
    kspace = read_mrd(write(tmp_path / "raw.h5", acquisitions)).kspace
    expected = data.copy()
    expected[0, :, 0, 3] = 0  # this line did not reach the first row
    np.testing.assert_array_equal(kspace, expected)


def test_echo_planar_is_refused_with_a_sentence(tmp_path):
    echo_planar = encoding((ROWS, COLS, 1), (8, 8, 1), "epi")
    path = write(tmp_path / "raw.h5", lines(random(1, COILS, ROWS, COLS)), echo_planar)
    with pytest.raises(UnreadableInput, match="regridded from the ramps"):
        read_mrd(path)


@pytest.mark.parametrize(("vendor", "turned"), [("SIEMENS", True), ("Siemens Healthineers", True), ("GE", False)])
def test_data_are_conjugated_as_the_vendor_asks(tmp_path, vendor, turned):
    data = random(1, COILS, ROWS, COLS)
    path = write(tmp_path / "raw.h5", lines(data), system=f"<systemVendor>{vendor}</systemVendor>")
    volume = read_mrd(path)
    np.testing.assert_array_equal(volume.kspace, data.conj() if turned else data)
    assert volume.attributes.get("conjugated", False) is turned
    other = read_volume(path, conjugate=not turned)
    np.testing.assert_array_equal(other.kspace, data if turned else data.conj())
    assert other.attributes.get("conjugated", False) is not turned
    np.testing.assert_array_equal(read_frames(path, conjugate=not turned)[0].volume.kspace, other.kspace)


def test_files_of_other_kinds_are_not_conjugated(tmp_path):
    np.save(tmp_path / "scan.npy", random(COILS, ROWS, COLS))
    assert read_volume(tmp_path / "scan.npy", conjugate=False).attributes == {}
    with pytest.raises(UnreadableInput, match="expected ISMRMRD"):
        read_frames(tmp_path / "scan.npy", conjugate=True)


def test_noise_is_scaled_to_the_sampling_of_the_image(tmp_path):
    # White noise through a receiver: the variance of a sample goes with one over its dwell time.
    rng, data = np.random.default_rng(4), random(1, COILS, ROWS, COLS)
    factor = np.array([[1, 0, 0], [0.4j, 0.8, 0], [0.1, -0.3, 1.2]])

    def noise(dwell: float, n: int) -> np.ndarray:
        white = rng.normal(size=(COILS, n)) + 1j * rng.normal(size=(COILS, n))
        return (factor @ white / np.sqrt(2 * dwell)).astype(np.complex64)

    scan = line(noise(2.0, 20000), 0, flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT])
    scan.sample_time_us = 2.0
    image = lines(data) + lines(data, average=1)
    for one in image:
        one.sample_time_us = 5.0
    expected = factor @ factor.conj().T / 5.0 / 2  # dwell time, two averages
    volume = read_mrd(write(tmp_path / "raw.h5", [scan, *image]))
    assert volume.noise_covariance is not None
    np.testing.assert_allclose(volume.noise_covariance, expected, atol=0.01)
    system = "<relativeReceiverNoiseBandwidth>0.8</relativeReceiverNoiseBandwidth>"
    filtered = read_mrd(write(tmp_path / "filtered.h5", [scan, *image], system=system))
    assert filtered.noise_covariance is not None
    np.testing.assert_allclose(filtered.noise_covariance, volume.noise_covariance / 0.8, rtol=1e-6)
    assert read_mrd(write(tmp_path / "none.h5", image)).noise_covariance is None


def test_a_3d_scan_becomes_independent_planes(tmp_path):
    depth, image = 6, random(COILS, 16, COLS, 6)  # readout, phase, partition
    axes = (1, 2, 3)
    kspace = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(image, axes), axes=axes, norm="ortho"), axes)
    measured = np.random.default_rng(1).random((COLS, depth)) < 0.6
    acquisitions = [line(kspace[:, :, c, p], int(c), kspace_encode_step_2=int(p)) for c, p in np.argwhere(measured)]
    path = write(tmp_path / "raw.h5", acquisitions, encoding((16, COLS, depth), (8, 8, 6)))
    volume = read_mrd(path)
    assert volume.kspace.shape == (8, COILS, COLS, depth) and volume.recon_shape == (8, 6)
    np.testing.assert_array_equal(volume.sampling_mask, measured[None])
    planes = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(image, (2, 3)), axes=(2, 3), norm="ortho"), (2, 3))
    expected = planes[:, 4:12].transpose(1, 0, 2, 3) * measured
    np.testing.assert_allclose(volume.kspace, expected, atol=1e-5)
    assert volume.voxel_size == (2.0, 3.0, 2.0)


def test_slabs_are_images_of_their_own_in_their_own_places(tmp_path):
    depth, data = 6, random(2, COILS, 16, COLS, 6)  # slab, coil, readout, phase, partition
    axes = (2, 3, 4)
    kspace = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(data, axes), axes=axes, norm="ortho"), axes)
    acquisitions = []
    for s, c, p in np.ndindex(2, COLS, depth):
        one = line(kspace[s, :, :, c, p], c, kspace_encode_step_2=p, slice=s)
        one.read_dir[:], one.phase_dir[:], one.slice_dir[:] = (1, 0, 0), (0, 1, 0), (0, 0, 1)
        one.position[:] = (0, 0, 40.0 * s)
        acquisitions.append(one)
    path = write(tmp_path / "raw.h5", acquisitions, encoding((16, COLS, depth), (16, COLS, depth)))
    frames = read_mrd_frames(path)
    assert [frame.slab for frame in frames] == [0, 1]
    planes = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(data, (3, 4)), axes=(3, 4), norm="ortho"), (3, 4))
    for frame, expected in zip(frames, planes, strict=True):
        np.testing.assert_allclose(frame.volume.kspace, expected.transpose(1, 0, 2, 3), atol=1e-5)
        assert frame.volume.volumetric and frame.volume.left_out == {}
    places = [frame.volume.geometry for frame in frames]
    origins = [np.array(place.origin) for place in places if place is not None]
    assert len(origins) == 2
    np.testing.assert_allclose(origins[1] - origins[0], (0, 0, 40), atol=1e-4)
    series = Scan(tuple(frames)).series()
    assert [one.entities for one in series] == ["acq-slab1", "acq-slab2"]
    first = read_mrd(path)
    assert first.left_out == {"slabs": 1} and first.incomplete
    np.testing.assert_array_equal(first.kspace, frames[0].volume.kspace)


def test_a_3d_partial_echo_is_completed_by_zeros_and_says_so(tmp_path):
    depth, first, data = 4, 5, random(COILS, ROWS, COLS, 4)
    acquisitions = []
    for c, p in np.ndindex(COLS, depth):
        one = line(data[:, first:, c, p], c, kspace_encode_step_2=p)
        one.center_sample = ROWS // 2 - first
        acquisitions.append(one)
    scan = line(random(COILS, 4000), 0, flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT])
    volume = read_mrd(write(tmp_path / "raw.h5", [scan, *acquisitions], encoding((ROWS, COLS, depth), (8, 8, depth))))
    filled = data.copy()
    filled[:, :first] = 0
    hybrid = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(filled, 1), axis=1, norm="ortho"), 1)[:, 4:12]
    np.testing.assert_allclose(volume.kspace, hybrid.transpose(1, 0, 2, 3), atol=1e-5)
    assert any("5 of 16 samples of each readout were not measured" in remark for remark in volume.remarks)
    # Of the noise of a full readout, E|n|^2 = 2 here, as much is left as was measured.
    assert volume.noise_covariance is not None
    np.testing.assert_allclose(np.diag(volume.noise_covariance), 2 * 11 / 16, rtol=0.1)


def test_3d_averages_and_conjugation_go_before_and_after_the_transform(tmp_path):
    depth, data = 4, random(2, COILS, ROWS, COLS, 4)  # average
    header = encoding((ROWS, COLS, depth), (ROWS, COLS, depth))
    twice = [line(data[a, :, :, c, p], c, kspace_encode_step_2=p) for a, c, p in np.ndindex(2, COLS, depth)]
    path = write(tmp_path / "raw.h5", twice, header)
    for conjugate in (False, True):
        mean = data.mean(axis=0)
        mean = mean.conj() if conjugate else mean
        hybrid = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(mean, 1), axis=1, norm="ortho"), 1)
        np.testing.assert_allclose(read_mrd(path, conjugate=conjugate).kspace, hybrid.transpose(1, 0, 2, 3), atol=1e-5)


def test_3d_scans_without_partitions_are_refused(tmp_path):
    header = encoding((ROWS, COLS, 2), (8, 8, 2))
    path = write(tmp_path / "raw.h5", lines(random(1, COILS, ROWS, COLS)), header)
    with pytest.raises(UnreadableInput, match="with 1 partition, expected a 3D scan in two or more partitions"):
        read_mrd(path)


def test_an_image_that_was_broken_off_keeps_all_slices(tmp_path):
    data = random(3, 3, COILS, ROWS, COLS)
    acquisitions = [one for r in range(2) for one in lines(data[r], repetition=r)] + lines(data[2, :2], repetition=2)
    frames = read_mrd_frames(write(tmp_path / "off.h5", acquisitions))
    assert [frame.volume.kspace.shape for frame in frames] == [(3, COILS, ROWS, COLS)] * 3
    np.testing.assert_allclose(frames[2].volume.kspace[:2], data[2, :2], rtol=1e-6)
    assert not frames[2].volume.kspace[2].any()
    assert frames[2].volume.remarks == ("no readouts of the slices [2], which are empty", *frames[0].volume.remarks)
    (series,) = Scan(tuple(frames)).series()
    assert len(series.frames) == 3


def test_epi_in_a_second_encoding_space_is_left_out(tmp_path):
    data = random(1, COILS, ROWS, COLS)
    matrix = (ROWS, COLS, 1), (8, 8, 1)
    path = write(
        tmp_path / "epi.h5", lines(data) + lines(data, space=1), encoding(*matrix), encoding(*matrix, trajectory="epi")
    )
    (frame,) = read_mrd_frames(path)
    assert frame.encoding_space == 0 and frame.volume.left_out == {"encoding spaces": 1}
