from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from ismrmrd import xsd

from molrecon.io import center_crop, read_volume
from molrecon.simulation.anatomy import Anatomy, SmoothField
from molrecon.simulation.coils import receive_field
from molrecon.simulation.phantom import coil_maps, phantom_volume, voxel_size, write_phantom
from operators.fourier import centred_fft, centred_ifft

SMALL = (48, 42)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("phantom") / "sample.h5", 3, 8, SMALL, noise_level=0.01, seed=5)


def test_volume_has_the_fastmri_layout(sample):
    with h5py.File(sample) as file:
        assert set(file) == {"kspace", "reconstruction_rss", "ismrmrd_header"}
        assert file["kspace"].shape == (3, 8, 96, 42) and file["kspace"].dtype == np.complex64
        assert file["reconstruction_rss"].shape == (3, 48, 42) and file["reconstruction_rss"].dtype == np.float32
        assert isinstance(file["ismrmrd_header"][()], bytes)
        assert set(file.attrs) == {"acquisition", "max", "norm", "patient_id", "noise_level"}
        reference = file["reconstruction_rss"][()]
        assert file.attrs["max"] == pytest.approx(reference.max())
        assert file.attrs["norm"] == pytest.approx(np.linalg.norm(reference))


@pytest.mark.parametrize("shape", [SMALL, (33, 31)])
def test_reference_is_the_root_sum_of_squares_of_the_cropped_coil_images(tmp_path, shape):
    path = write_phantom(tmp_path / "sample.h5", 2, 4, shape)
    volume = read_volume(path)
    images = centred_ifft(torch.from_numpy(volume.kspace), (-2, -1)).abs().numpy()
    expected = np.sqrt((center_crop(images, shape) ** 2).sum(1))
    assert volume.reference is not None and volume.reference_kind == "rss"
    np.testing.assert_allclose(volume.reference, expected, rtol=1e-4, atol=1e-5)


def test_header_is_valid_and_says_what_the_file_holds(sample):
    with h5py.File(sample) as file:
        header = xsd.CreateFromDocument(file["ismrmrd_header"][()])
    (encoding,) = header.encoding
    encoded, recon, limits = encoding.encodedSpace, encoding.reconSpace, encoding.encodingLimits
    row, col, slice_ = voxel_size(3, SMALL)
    assert (encoded.matrixSize.x, encoded.matrixSize.y, encoded.matrixSize.z) == (96, 42, 1)
    assert (recon.matrixSize.x, recon.matrixSize.y, recon.matrixSize.z) == (48, 42, 1)
    assert encoded.fieldOfView_mm.x == pytest.approx(96 * row)
    assert recon.fieldOfView_mm.x == pytest.approx(48 * row)
    assert recon.fieldOfView_mm.y == encoded.fieldOfView_mm.y == pytest.approx(42 * col)
    assert recon.fieldOfView_mm.z == pytest.approx(slice_)
    lines = limits.kspace_encoding_step_1
    assert (lines.minimum, lines.maximum, lines.center) == (0, 41, 21)
    assert limits.slice.maximum == 2
    assert encoding.trajectory.value == "cartesian"
    assert header.acquisitionSystemInformation.receiverChannels == 8


def test_our_reader_takes_it(sample):
    volume = read_volume(sample)
    assert volume.fully_sampled and volume.n_coils == 8
    assert volume.recon_shape == SMALL
    assert volume.voxel_size == pytest.approx(voxel_size(3, SMALL), rel=1e-5)


def test_kspace_is_maps_times_image_plus_noise_of_the_stated_level(tmp_path):
    clean = read_volume(write_phantom(tmp_path / "clean.h5", 1, 4, SMALL, noise_level=0.0, seed=2)).kspace
    padded = np.zeros((1, 4, 96, 42), np.complex64)
    padded[:, :, 24:72] = coil_maps(1, 4, SMALL, seed=2) * phantom_volume(1, SMALL, 2)[:, None]
    expected = centred_fft(torch.from_numpy(padded), (-2, -1)).numpy()
    np.testing.assert_allclose(clean, expected, atol=1e-5)

    noisy = read_volume(write_phantom(tmp_path / "noisy.h5", 1, 4, SMALL, noise_level=0.03, seed=2)).kspace
    noise = noisy - clean
    assert np.sqrt(np.mean(np.abs(noise) ** 2)) == pytest.approx(0.03, rel=0.03)
    assert abs(np.mean(noise**2)) < 0.05 * 0.03**2  # circular: real and imaginary part alike and uncorrelated


def test_same_arguments_same_bytes_other_seed_other_head(tmp_path):
    paths = [write_phantom(tmp_path / f"{i}.h5", 1, 2, (24, 20), seed=seed) for i, seed in enumerate((1, 1, 2))]
    first, again, other = (path.read_bytes() for path in paths)
    assert first == again != other
    assert np.abs(phantom_volume(1, (24, 20), 1) - phantom_volume(1, (24, 20), 2)).max() > 0.1


def test_global_random_state_is_left_alone():
    before = str(np.random.get_state(legacy=False))  # noqa: NPY002
    phantom_volume(1, (16, 16))
    assert str(np.random.get_state(legacy=False)) == before  # noqa: NPY002


def test_size_does_not_change_the_head():
    coarse, fine = phantom_volume(1, (64, 56), 3), phantom_volume(1, (128, 112), 3)
    spectrum = centred_fft(torch.from_numpy(fine), (-2, -1))[:, 32:96, 28:84]
    reduced = centred_ifft(spectrum, (-2, -1)).numpy() / 2
    assert np.linalg.norm(reduced - coarse) < 0.1 * np.linalg.norm(coarse)


def test_image_looks_like_a_head_scan():
    volume = phantom_volume(8, (96, 84))
    magnitude = np.abs(volume)
    assert volume.shape == (8, 96, 84) and volume.dtype == np.complex64
    assert magnitude[:, :6, :6].max() < 0.05  # air in the corners
    assert 0.8 < magnitude.max() < 1.4
    middle = magnitude[4]
    scalp = max(middle[48, :24].max(), middle[48, -24:].max())
    tissue = np.median(middle[30:66, 26:58])
    assert scalp > 1.2 * tissue > 0.5
    assert np.abs(np.diff(magnitude, axis=0)).mean() > 0.01  # slices differ
    phase = np.angle(volume[4][middle > 0.5])
    assert phase.max() - phase.min() > 1.0


def test_spectrum_decays_like_a_brain():
    # In a slice of a real T1 brain volume, 0.88 mm, log10 of the mean energy falls by 1.2 from 0.05 to 0.15 cycles per
    # mm, and by 2.1 from 0.05 to 0.25.
    image = np.abs(phantom_volume(1)[0])
    energy = centred_fft(torch.from_numpy(image).to(torch.complex64), (-2, -1)).abs().numpy() ** 2
    pixel = voxel_size()[0]
    rows, cols = (np.fft.fftshift(np.fft.fftfreq(n, pixel)) for n in image.shape)
    radius = np.hypot(rows[:, None], cols)

    def band(middle):
        return energy[np.abs(radius - middle) < 0.01].mean()

    assert np.log10(band(0.05) / band(0.15)) == pytest.approx(1.2, abs=0.3)
    assert np.log10(band(0.05) / band(0.25)) == pytest.approx(2.1, abs=0.3)


def test_coil_maps_are_smooth_and_distinct():
    maps = coil_maps(2, 8, SMALL)
    assert maps.shape == (2, 8, *SMALL) and maps.dtype == np.complex64
    inner = maps[:, :, 8:40, 8:34]
    steps = np.abs(np.diff(inner, axis=-1)).max() / np.abs(inner).max()
    assert steps < 0.2
    combined = np.sqrt((np.abs(inner) ** 2).sum(1))
    assert combined.min() > 0.1
    gram = np.corrcoef(inner[0].reshape(8, -1))
    assert np.linalg.svd(gram, compute_uv=False)[-1] > 1e-4


@pytest.mark.parametrize("coils", [1, 9, 16, 25])
def test_any_number_of_coils(coils):
    maps = coil_maps(1, coils, (16, 16))
    assert maps.shape == (1, coils, 16, 16) and np.isfinite(maps).all()


def test_field_of_a_loop_on_its_axis():
    # A loop of radius R around the x axis: the field there is 2 pi R^2 / (R^2 + x^2)^(3/2), and has no y component.
    turn = 2 * np.pi * np.arange(256) / 256
    loop = 50.0 * np.stack([0 * turn, np.cos(turn), np.sin(turn)], axis=1)
    distances = np.array([80.0, 120.0, 200.0], np.float32)
    points = np.zeros((3, 3), np.float32)
    points[0] = distances
    exact = 2 * np.pi * 50.0**2 / (50.0**2 + distances**2) ** 1.5
    np.testing.assert_allclose(receive_field(loop, points), exact, rtol=0.02)


def test_smooth_field_statistics_and_distance():
    rng = np.random.default_rng(0)
    field = SmoothField.draw(rng, 60, (10.0, 20.0))
    points = rng.uniform(-500, 500, (3, 5000)).astype(np.float32)
    values = field(points)
    assert abs(values.mean()) < 0.1 and values.std() == pytest.approx(1, abs=0.1)
    assert (field.distance_to_zero(points) >= 0).all()


def test_anatomy_is_empty_outside_the_head():
    far = np.array([[0.0, 200.0, 0.0], [150.0, 0.0, 0.0], [0.0, 0.0, 300.0]], np.float32).T
    assert not Anatomy(np.random.default_rng(0)).intensity(np.ascontiguousarray(far)).any()


@pytest.mark.parametrize(
    "arguments",
    [
        {"slices": 0},
        {"coils": 0},
        {"shape": (15, 40)},
        {"shape": (40,)},
        {"noise_level": -1.0},
        {"noise_level": float("nan")},
        {"noise_level": float("inf")},
    ],
)
def test_impossible_requests_are_refused_and_nothing_is_written(tmp_path, arguments):
    with pytest.raises(ValueError, match=r"phantom: got .*, expected"):
        write_phantom(tmp_path / "sample.h5", **arguments)
    assert not list(tmp_path.iterdir())


def test_many_slices_stay_in_the_head():
    assert voxel_size(8)[2] == 5.0
    assert voxel_size(75)[2] == 1.0
