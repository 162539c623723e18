"""Parts of simulated scans: phase, fields, noise, masks, places."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from molrecon.simulation.contrast import without_noise_floor
from molrecon.simulation.fields import draw_fields
from molrecon.simulation.images import ImageSet, placed, resampled
from molrecon.simulation.noise import NOISE_RANGE, complex_noise, draw_noise_level, image_noise_level
from molrecon.simulation.phase import band_limited, chemical_shift, field_map, residual_angle, rough_phase, transplanted
from molrecon.simulation.problem import robust_maximum
from molrecon.simulation.sampling import draw_calibration_lines, draw_columns, draw_matrix, draw_plane
from operators import center_mask


def disc(rows: int = 80, cols: int = 64) -> np.ndarray:
    """Return a bright disc with a dark hole, (rows, cols) float32."""
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, cols), indexing="ij")
    return ((np.hypot(y, x) < 0.7) & (np.hypot(y - 0.2, x) > 0.2)).astype(np.float32)


@pytest.mark.parametrize("seed", range(40))
def test_columns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cols = int(rng.integers(64, 320))
    lines = draw_calibration_lines(cols, rng)
    assert 8 <= lines <= 40
    mask = draw_columns(cols, lines, rng)
    assert mask.shape == (cols,)
    assert mask[center_mask(cols, lines)].all()
    assert lines < mask.sum() < 0.75 * cols


def test_columns_of_a_smaller_matrix() -> None:
    acquired = next(m for s in range(100) if (m := draw_matrix(120, np.random.default_rng(s))) is not None)
    assert 84 <= acquired.sum() <= 114
    assert not draw_columns(120, 12, np.random.default_rng(0), acquired)[~acquired].any()


@pytest.mark.parametrize("seed", range(8))
def test_plane(seed: int) -> None:
    mask = draw_plane((112, 90), 14, np.random.default_rng(seed))
    assert mask[np.outer(center_mask(112, 24), center_mask(90, 14))].all()
    assert 2.2 < mask.size / mask.sum() < 11


def test_noise() -> None:
    noise = complex_noise((200, 200), np.random.default_rng(0)).numpy()
    assert np.mean(np.abs(noise) ** 2) == pytest.approx(1, abs=0.02)
    levels = [draw_noise_level(np.random.default_rng(s)) for s in range(200)]
    assert NOISE_RANGE[0] <= min(levels) < 1e-3
    assert 2e-2 < max(levels) <= NOISE_RANGE[1]
    image = disc(200, 200) + 0.03 * noise
    assert image_noise_level(image) == pytest.approx(0.03, rel=0.1)
    assert image_noise_level(np.zeros((8, 8), np.float32)) == 0


def test_noise_floor_is_taken_off() -> None:
    magnitude = np.abs(disc(200, 200) + 0.05 * complex_noise((200, 200), np.random.default_rng(0)).numpy())
    clean = without_noise_floor(magnitude, 0.05)
    air = disc(200, 200) == 0
    assert clean[air].mean() < 0.1 * magnitude[air].mean()
    assert clean[~air].mean() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("seed", range(6))
def test_fields_are_compressed_and_smooth(seed: int) -> None:
    fields = draw_fields(disc(), 8, np.random.default_rng(seed), count=20)
    assert fields.shape == (8, 80, 64)
    assert fields.dtype == np.complex64
    assert np.abs(np.diff(fields, axis=1)).max() < 0.3 * np.abs(fields).max()
    assert draw_fields(disc(), 8, np.random.default_rng(seed), count=5).shape == (5, 80, 64)


def test_field_map_solves_the_dipole_equation() -> None:
    """Inside a long cylinder across B0 the field is uniform, and outside it falls as the square of the distance."""
    y, x = np.meshgrid(np.arange(128) - 64, np.arange(128) - 64, indexing="ij")
    field = field_map((np.hypot(y, x) < 30).astype(np.float32), np.random.default_rng(1))
    inside, near = np.hypot(y, x) < 20, np.abs(np.hypot(y, x) - 34) < 2
    assert field[inside].std() < 0.3 * field[near].std()


def test_rough_phase_follows_the_seed() -> None:
    first, second = (rough_phase(disc(), np.random.default_rng(s)) for s in (3, 3))
    np.testing.assert_array_equal(first, second)
    assert band_limited((90, 90), 3, np.random.default_rng(0)).std() == pytest.approx(1, rel=1e-3)


def test_fat_moves_and_the_rest_stays() -> None:
    image = (0.4 * disc() + 0j).astype(np.complex64)
    image[38:44, 30:36] = 1
    moved = chemical_shift(image, np.random.default_rng(0))
    assert np.abs(moved - image)[36:47, 29:37].max() > 0.1
    np.testing.assert_allclose(moved[:30], image[:30], atol=1e-6)


def test_residual_phase_is_what_is_not_smooth() -> None:
    y = np.linspace(-1, 1, 80)[:, None]
    smooth = disc() * np.exp(1j * y)
    assert np.abs(residual_angle(smooth)[30:36, 20:40]).max() < 0.15
    rough = smooth * np.exp(1j * (np.indices((80, 64)).sum(0) % 2))
    assert residual_angle(rough)[30:36, 20:40].std() > 0.4
    assert transplanted(residual_angle(rough), (40, 90)).shape == (40, 90)


def test_images_keep_what_was_measured() -> None:
    stored = np.random.default_rng(0).integers(-100, 100, (3, 2, 32, 48), np.int16)
    images = ImageSet("noise", stored, kept=(0.5, 0.75))
    image = images.image(1)
    assert len(images) == 3
    assert image.shape == (16, 36)
    assert image.dtype == np.complex64
    assert np.abs(image).max() == pytest.approx(1)
    magnitude = ImageSet("noise", np.abs(stored[:, 0])).image(0)
    assert magnitude.dtype == np.float32


def test_resampling_back_and_forth() -> None:
    rng = np.random.default_rng(0)
    image = (rng.standard_normal((24, 20)) + 1j * rng.standard_normal((24, 20))).astype(np.complex64)
    np.testing.assert_allclose(resampled(resampled(image, (36, 31)), (24, 20)), image, atol=1e-4)


@pytest.mark.parametrize("seed", range(10))
def test_places_are_large_enough(seed: int) -> None:
    view = placed(disc(100, 40), np.random.default_rng(seed))
    assert min(view.shape) >= 64
    assert max(view.shape) <= 320
    assert view.max() > 0.5
    assert max(placed(disc(512, 512), np.random.default_rng(seed)).shape) <= 320


@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1.0, 1e9])
def test_the_robust_maximum_has_the_unit_of_the_image(unit: float) -> None:
    magnitude = unit * torch.arange(1, 1001, dtype=torch.float64).reshape(10, 100)
    assert float(robust_maximum(magnitude)) == pytest.approx(995 * unit)
    point = torch.zeros(1000)
    point[3] = unit
    assert float(robust_maximum(point)) == pytest.approx(unit) and float(robust_maximum(torch.zeros(9))) == 1
