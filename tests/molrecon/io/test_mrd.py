"""ISMRMRD raw data: files written by the reference library, and the tools of Debian's ismrmrd-tools."""

from __future__ import annotations

import logging
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import h5py
import ismrmrd
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from molrecon.io import UnreadableInput, center_crop, read_mrd, read_volume

ROWS, COLS, COILS = 16, 10, 3
GENERATE, RECONSTRUCT = "ismrmrd_generate_cartesian_shepp_logan", "ismrmrd_recon_cartesian_2d"


def readout(samples, column, *, center=None, flags=(), discard=(0, 0), **idx):
    """One acquisition with samples (coils, length), kspace_encode_step_1 = column and the counters `idx`."""
    acquisition = ismrmrd.Acquisition.from_array(np.ascontiguousarray(samples))
    acquisition.center_sample = samples.shape[1] // 2 if center is None else center
    acquisition.discard_pre, acquisition.discard_post = discard
    acquisition.idx.kspace_encode_step_1 = column
    for name, value in idx.items():
        setattr(acquisition.idx, name, value)
    for flag in flags:
        acquisition.set_flag(flag)
    return acquisition


def readouts(kspace, columns=range(COLS), **idx):
    """All readouts of kspace (slices, coils, rows, cols)."""
    return [readout(one[:, :, n], n, slice=number, **idx) for number, one in enumerate(kspace) for n in columns]


@pytest.fixture
def mrd_file(tmp_path, header):
    def make(acquisitions, text=None, name="raw.h5"):
        with ismrmrd.Dataset(str(tmp_path / name), "dataset", create_if_needed=True) as dataset:
            dataset.write_xml_header((text or header()).encode())
            for acquisition in acquisitions:
                dataset.append_acquisition(acquisition)
        return tmp_path / name

    return make


def test_slices_and_coils_are_sorted(mrd_file, kspace, header):
    data = kspace(2, COILS, ROWS, COLS)
    volume = read_volume(mrd_file(readouts(data)[::-1]))
    np.testing.assert_array_equal(volume.kspace, data)
    assert volume.kspace.dtype == np.dtype(np.complex64)
    assert volume.fully_sampled
    assert volume.recon_shape == (8, 8)
    assert volume.voxel_size == pytest.approx((2.0, 2.5, 5.0))
    assert volume.header == header()
    assert volume.attributes == {}


def test_conjugation_is_an_explicit_choice(mrd_file, kspace):
    data = kspace(1, COILS, ROWS, COLS)
    np.testing.assert_array_equal(read_mrd(mrd_file(readouts(data)), conjugate=True).kspace, data.conj())


def test_noise_is_reported_and_not_used(mrd_file, kspace):
    data, noise = kspace(1, COILS, ROWS, COLS), kspace(COILS, 4096, seed=5)
    scan = readout(noise, 0, flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT])
    volume = read_mrd(mrd_file([scan, *readouts(data)]))
    np.testing.assert_array_equal(volume.kspace, data)
    assert volume.attributes["noise_readouts"] == 1
    assert volume.attributes["noise_scan_level"] == pytest.approx(np.sqrt(np.mean(np.abs(noise) ** 2)), rel=1e-6)


def test_navigators_and_phase_correction_are_not_used(mrd_file, kspace):
    data = kspace(1, COILS, ROWS, COLS)
    flags = [ismrmrd.ACQ_IS_NAVIGATION_DATA, ismrmrd.ACQ_IS_PHASECORR_DATA, ismrmrd.ACQ_IS_DUMMYSCAN_DATA]
    extra = [readout(data[0, :, :, 0], 5, flags=[flag]) for flag in flags]
    np.testing.assert_array_equal(read_mrd(mrd_file(extra + readouts(data))).kspace, data)


@pytest.mark.parametrize("mode", ["separate", "interleaved"])
def test_separate_calibration_is_not_used(mrd_file, kspace, header, mode):
    data = kspace(1, COILS, ROWS, COLS)
    parallel = f"<parallelImaging><calibrationMode>{mode}</calibrationMode></parallelImaging></encoding>"
    imaging = readouts(data, range(0, COLS, 2))
    calibration = [readout(data[0, :, :, 5], 5, flags=[ismrmrd.ACQ_IS_PARALLEL_CALIBRATION])]
    volume = read_mrd(mrd_file(imaging + calibration, header().replace("</encoding>", parallel)))
    columns = [0, 2, 4, 6, 8] if mode == "separate" else [0, 2, 4, 5, 6, 8]
    np.testing.assert_array_equal(np.flatnonzero(volume.sampling_mask), columns)
    expected = np.zeros_like(data)
    expected[..., columns] = data[..., columns]
    np.testing.assert_array_equal(volume.kspace, expected)


def test_averages_are_averaged(mrd_file, kspace):
    first, second = kspace(1, COILS, ROWS, COLS), kspace(1, COILS, ROWS, COLS, seed=8)
    volume = read_mrd(mrd_file(readouts(first) + readouts(second, average=1)))
    np.testing.assert_allclose(volume.kspace, (first + second) / 2, rtol=1e-6)


def test_of_several_repetitions_the_first_is_read_and_the_log_says_so(mrd_file, kspace, caplog):
    first, second = kspace(1, COILS, ROWS, COLS), kspace(1, COILS, ROWS, COLS, seed=8)
    with caplog.at_level(logging.WARNING):
        volume = read_mrd(mrd_file(readouts(second, repetition=1) + readouts(first)))
    np.testing.assert_array_equal(volume.kspace, first)
    assert "left out: 1 repetition" in caplog.text
    assert volume.left_out == {"repetitions": 1} and volume.incomplete


@pytest.mark.parametrize(
    ("counter", "words"),
    [
        ("contrast", "contrasts"),
        ("phase", "cardiac phases"),
        ("repetition", "repetitions"),
        ("set", "sets"),
        ("kspace_encode_step_2", "second phase encodes"),
    ],
)
def test_what_is_left_out_is_counted(mrd_file, kspace, counter, words):
    data = kspace(3, 1, COILS, ROWS, COLS)
    lines = [line for number, one in enumerate(data) for line in readouts(one, **{counter: 2 * number})]
    volume = read_mrd(mrd_file(lines))
    np.testing.assert_array_equal(volume.kspace, data[0])
    assert volume.left_out == {words: 2} and volume.incomplete
    assert read_mrd(mrd_file(readouts(data[0], **{counter: 1}), name="one.h5")).left_out == {}


def test_counters_within_the_first_frame_are_counted_and_no_others(mrd_file, kspace):
    data = kspace(5, 1, COILS, ROWS, COLS)
    frames = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]  # contrast, repetition
    lines = [line for one, (c, r) in zip(data, frames, strict=True) for line in readouts(one, contrast=c, repetition=r)]
    volume = read_mrd(mrd_file(lines))
    np.testing.assert_array_equal(volume.kspace, data[0])
    assert volume.left_out == {"contrasts": 1, "repetitions": 1}


def test_other_encoding_spaces_and_data_sets_are_counted(mrd_file, kspace):
    data = kspace(1, COILS, ROWS, COLS)
    lines = readouts(data)
    for space in (1, 1, 2):
        other = readout(data[0, :, :, 0], 0)
        other.encoding_space_ref = space
        lines.append(other)
    path = mrd_file(lines)
    with ismrmrd.Dataset(str(path), "later", create_if_needed=True) as dataset:
        dataset.write_xml_header(b"<other/>")
        dataset.append_acquisition(lines[0])
    volume = read_mrd(path)
    np.testing.assert_array_equal(volume.kspace, data)
    assert volume.left_out == {"encoding spaces": 2, "data sets": 1} and volume.incomplete


def test_readouts_for_other_purposes_are_counted_and_the_volume_is_complete(mrd_file, kspace, header):
    data = kspace(1, COILS, ROWS, COLS)
    flags = {
        ismrmrd.ACQ_IS_NOISE_MEASUREMENT: "noise readouts",
        ismrmrd.ACQ_IS_NAVIGATION_DATA: "navigator readouts",
        ismrmrd.ACQ_IS_PHASECORR_DATA: "phase correction readouts",
        ismrmrd.ACQ_IS_HPFEEDBACK_DATA: "feedback readouts",
        ismrmrd.ACQ_IS_RTFEEDBACK_DATA: "feedback readouts",
        ismrmrd.ACQ_IS_DUMMYSCAN_DATA: "dummy readouts",
        ismrmrd.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA: "surface coil correction readouts",
        ismrmrd.ACQ_IS_PHASE_STABILIZATION_REFERENCE: "phase stabilisation readouts",
        ismrmrd.ACQ_IS_PARALLEL_CALIBRATION: "separate calibration readouts",
    }
    extra = [readout(data[0, :, :, 0], 5, flags=[flag], repetition=7) for flag in flags]
    parallel = "<parallelImaging><calibrationMode>separate</calibrationMode></parallelImaging></encoding>"
    volume = read_mrd(mrd_file(extra + readouts(data), header().replace("</encoding>", parallel)))
    np.testing.assert_array_equal(volume.kspace, data)
    assert volume.left_out == dict.fromkeys(flags.values(), 1) | {"feedback readouts": 2}
    assert not volume.incomplete


def test_slices_keep_their_own_columns(mrd_file, kspace):
    data = kspace(3, COILS, ROWS, COLS)
    columns = [[0, 3, 4, 5, 8], [1, 4, 5, 6, 9], []]
    lines = [readout(data[k, :, :, n], n, slice=k) for k in (0, 1) for n in columns[k]]
    lines.append(readout(data[2, :, :, 5], 5, slice=2))
    volume = read_mrd(mrd_file(lines))
    expected = np.zeros((3, 1, COLS), bool)
    for k, places in enumerate([*columns[:2], [5]]):
        expected[k, 0, places] = True
    np.testing.assert_array_equal(volume.sampling_mask, expected)
    np.testing.assert_array_equal(volume.kspace, data * expected[:, None])
    alike = [readout(data[k, :, :, n], n, slice=k) for k in (0, 2) for n in columns[0]]
    volume = read_mrd(mrd_file(alike, name="alike.h5"))
    np.testing.assert_array_equal(np.flatnonzero(volume.sampling_mask), columns[0])
    assert volume.sampling_mask.shape == (1, 1, COLS) and not volume.kspace[1].any()


def test_asymmetric_encoding_in_both_directions(mrd_file, kspace, header):
    # 7 phase encodes, the centre number 3, thus columns 2 to 8; 12 samples, the centre number 4, thus rows 4 to 15.
    data = kspace(1, COILS, ROWS, COLS)
    lines = [readout(data[0, :, 4:, n + 2], n, center=4) for n in range(7)]
    volume = read_mrd(mrd_file(lines, header(limits=(0, 6, 3))))
    expected = np.zeros_like(data)
    expected[:, :, 4:, 2:9] = data[:, :, 4:, 2:9]
    np.testing.assert_array_equal(volume.kspace, expected)
    assert (volume.attributes["padding_left"], volume.attributes["padding_right"]) == (2, 9)
    assert volume.fully_sampled


def test_samples_to_discard(mrd_file, kspace):
    data = kspace(1, COILS, ROWS, COLS)
    volume = read_mrd(mrd_file([readout(data[0, :, :, n], n, discard=(2, 1)) for n in range(COLS)]))
    data[:, :, :2] = data[:, :, -1:] = 0
    np.testing.assert_array_equal(volume.kspace, data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("cartesian", "radial"), "a radial trajectory"),
        (lambda text: text.replace("<z>1</z>", "<z>4</z>", 1), "a 3D encoding"),
        (lambda text: text.replace("<y>10</y>", "<y>9</y>"), "columns 0 to 8 of the encoded matrix"),
        (lambda text: text.replace("<x>16</x>", "<x>15</x>"), "inside 15 rows"),
        (lambda text: text.replace("<x>16</x>", "<x>900000</x>"), "in a file of"),
        (lambda text: "<other/>", "without an encoding"),
    ],
)
def test_headers_that_do_not_fit(mrd_file, kspace, header, change, message):
    path = mrd_file(readouts(kspace(1, COILS, ROWS, COLS)), change(header()))
    with pytest.raises(UnreadableInput, match=message):
        read_volume(path)


def test_data_that_do_not_fit(mrd_file, kspace):
    data = kspace(2, COILS, ROWS, COLS)
    noise = readout(data[0, :, :, 0], 0, flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT])
    reverse = readout(data[0, :, :, 0], 0, flags=[ismrmrd.ACQ_IS_REVERSE])
    echo_planar = [reverse, readout(data[0, :, :, 0], 0, flags=[ismrmrd.ACQ_IS_PHASECORR_DATA])]
    cases = [
        ([noise], "none of an image"),
        (echo_planar, "reversed readouts"),
        ([*readouts(data), readout(data[0, :2, :, 0], 0)], r"readouts of \[2, 3\] coils"),
        (readouts(data * np.float32(np.nan)), "NaN or infinity"),
    ]
    for number, (acquisitions, message) in enumerate(cases):
        with pytest.raises(UnreadableInput, match=message):
            read_volume(mrd_file(acquisitions, name=f"{number}.h5"))


def test_not_raw_data(fastmri_file, kspace):
    with pytest.raises(UnreadableInput, match=r"no group with xml and data among \['kspace'\]"):
        read_mrd(fastmri_file({"kspace": kspace(1, 2, 16, 10)}))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=6))
def test_damaged_files(mrd_file, tmp_path, kspace, flips):
    if not (tmp_path / "raw.h5").exists():
        mrd_file(readouts(kspace(1, 2, ROWS, COLS)))
    content = bytearray((tmp_path / "raw.h5").read_bytes())
    for place, value in flips:
        content[int(place * len(content))] ^= value
    (tmp_path / "damaged.h5").write_bytes(content)
    try:
        volume = read_volume(tmp_path / "damaged.h5")
    except UnreadableInput as error:
        assert "damaged.h5: found " in str(error)
    else:
        assert np.isfinite(volume.kspace.view(np.float32)).all()


@pytest.mark.skipif(
    shutil.which(GENERATE) is None or shutil.which(RECONSTRUCT) is None, reason="ismrmrd-tools is not installed"
)
@pytest.mark.parametrize("options", [[], ["-C"]], ids=["plain", "with a noise scan"])
def test_images_agree_with_those_of_ismrmrd_tools(tmp_path, options):
    def run(*command):
        subprocess.run(command, cwd=tmp_path, check=True, timeout=60, capture_output=True)

    run(GENERATE, "-m", "32", "-c", "4", "-r", "1", "-n", "0.001", "-o", "raw.h5")
    run(RECONSTRUCT, "raw.h5")
    with h5py.File(tmp_path / "raw.h5") as file:
        expected = file["dataset/cpp/data"][()].squeeze().T  # stored (phase encode, readout)
    run(GENERATE, "-m", "32", "-c", "4", "-r", "1", "-n", "0.001", "-o", "noisy.h5", *options)

    volume = read_volume(tmp_path / ("noisy.h5" if options else "raw.h5"))
    assert volume.kspace.shape == (1, 4, 64, 32)
    assert volume.recon_shape == (32, 32)
    assert volume.voxel_size == pytest.approx((9.375, 9.375, 6.0))
    assert volume.fully_sampled
    assert volume.attributes.get("noise_readouts", 0) == len(options)
    axes = (-2, -1)
    images = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(volume.kspace[0], axes), norm="ortho"), axes)
    image = center_crop(np.sqrt(np.sum(np.abs(images) ** 2, axis=0)), volume.recon_shape)
    image *= np.linalg.norm(expected) / np.linalg.norm(image)
    assert np.linalg.norm(image - expected) / np.linalg.norm(expected) < (0.01 if options else 1e-5)


@pytest.mark.skipif(shutil.which(GENERATE) is None, reason="ismrmrd-tools is not installed")
def test_undersampled_scan_of_ismrmrd_tools(tmp_path):
    command = [GENERATE, "-m", "32", "-c", "4", "-r", "1", "-a", "2", "-w", "8", "-o", "raw.h5"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60, capture_output=True)
    volume = read_volume(tmp_path / "raw.h5")
    assert not volume.fully_sampled
    columns = np.flatnonzero(volume.sampling_mask)
    np.testing.assert_array_equal(columns, sorted({*range(0, 32, 2), *range(12, 20)}))
    np.testing.assert_array_equal(volume.kspace.any(axis=(0, 1, 2)), volume.sampling_mask[0, 0])
    assert volume.left_out == {"repetitions": 1}  # the tool shifts the pattern from one repetition to the next


@pytest.mark.skipif(shutil.which(GENERATE) is None, reason="ismrmrd-tools is not installed")
@pytest.mark.parametrize(
    ("options", "left_out", "incomplete"),
    [
        (["-r", "3"], {"repetitions": 2}, True),
        (["-a", "3", "-w", "8", "-r", "2"], {"repetitions": 5}, True),
        (["-C"], {"noise readouts": 1}, False),
        (["-r", "2", "-C"], {"noise readouts": 1, "repetitions": 1}, True),
        ([], {}, False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_scans_of_ismrmrd_tools_say_what_is_left_out(tmp_path, options, left_out, incomplete):
    command = [GENERATE, "-m", "32", "-c", "4", "-o", "raw.h5", *options]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60, capture_output=True)
    volume = read_volume(tmp_path / "raw.h5")
    assert volume.left_out == left_out
    assert volume.incomplete == incomplete


def test_a_scan_read_by_several_threads(mrd_file, kspace):
    data = kspace(2, 3, 16, 10)
    path = mrd_file(readouts(data))
    with ThreadPoolExecutor(4) as pool:
        for volume in pool.map(read_mrd, [path] * 40):
            np.testing.assert_array_equal(volume.kspace, data)
