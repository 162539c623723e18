"""Masks with exact numbers of samples: counts, distances, regions, densities, seeds and errors."""

from __future__ import annotations

import os
from collections.abc import Callable
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from operators.density_masks import golden_kt_mask, kt_interleaved_mask, variable_density_mask
from operators.masks import center_mask
from operators.poisson_disc import MAX_TRIALS, _search, _take, poisson_disc_mask
from operators.radial_masks import pseudo_radial_mask, radial_mask

DATA = os.environ.get("MOLRECON_DATA")
EXACT = settings(max_examples=60, deadline=None, derandomize=True)
SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))
SEEDED: list[Callable[..., np.ndarray]] = [
    lambda seed: poisson_disc_mask((40, 48), 4, seed, (6, 6)),
    lambda seed: pseudo_radial_mask((40, 48), 4, seed),
    lambda seed: variable_density_mask(64, 4, seed, 6),
    lambda seed: variable_density_mask(64, 4, seed, 6, 0.2),
    lambda seed: golden_kt_mask(8, 64, 4, seed, 6),
]


def nearest_distances(mask: np.ndarray) -> np.ndarray:
    points = np.argwhere(mask).astype(float)
    squared = ((points[:, None] - points) ** 2).sum(-1)
    np.fill_diagonal(squared, np.inf)
    return np.sqrt(squared.min(1))


@pytest.mark.parametrize("draw", SEEDED)
def test_seeds(draw: Callable[..., np.ndarray]) -> None:
    state = repr(np.random.get_state(legacy=False))  # noqa: NPY002 - the state that must stay as it is
    first = draw(3)
    assert first.dtype == bool
    assert np.array_equal(first, draw(3))
    assert np.array_equal(first, draw(np.random.default_rng(3)))
    assert np.array_equal(draw((1, 2)), draw([1, 2]))
    assert not np.array_equal(first, draw(4))
    shared = np.random.default_rng(3)
    assert not np.array_equal(draw(shared), draw(shared))
    assert repr(np.random.get_state(legacy=False)) == state  # noqa: NPY002


@EXACT
@given(
    shape=SHAPES,
    acceleration=st.floats(1, 30),
    edge=st.sampled_from([1.0, 1.5, 3.0, 20.0]),
    part=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)),
    crop=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_poisson_disc_is_exact(
    shape: tuple[int, int],
    acceleration: float,
    edge: float,
    part: tuple[float, float],
    crop: bool,
    seed: int,
) -> None:
    calibration = (int(part[0] * shape[0]), int(part[1] * shape[1]))
    target = max(round(shape[0] * shape[1] / acceleration), 1)
    row, col = ((np.arange(n) - n // 2) / (n / 2) for n in shape)
    inside = np.hypot(row[:, None], col) <= 1 if crop else np.ones(shape, dtype=bool)
    region = np.outer(center_mask(shape[0], calibration[0]), center_mask(shape[1], calibration[1]))
    assume(region.sum() <= target <= (region | inside).sum())
    mask = poisson_disc_mask(shape, acceleration, seed, calibration, edge, crop)
    assert mask.shape == shape
    assert mask.sum() == target
    assert mask[region].all()
    assert not mask[~inside & ~region].any()


@pytest.mark.parametrize("acceleration", [1, 1.3, 2, 4, 8, 15.5, 4096])
@pytest.mark.parametrize("edge_to_center", [1.0, 3.0])
def test_poisson_disc_is_exact_for_every_acceleration(acceleration: float, edge_to_center: float) -> None:
    for seed in range(5):
        mask = poisson_disc_mask((64, 64), acceleration, seed, edge_to_center=edge_to_center)
        assert mask.sum() == round(4096 / acceleration)


def test_poisson_disc_keeps_distances() -> None:
    for seed in range(5):
        mask = poisson_disc_mask((96, 96), 8, seed, edge_to_center=1)
        chosen = np.random.default_rng(seed).permutation(mask.size)[: mask.sum()]
        uniform = np.zeros_like(mask)
        uniform.flat[chosen] = True
        ours, theirs = nearest_distances(mask), nearest_distances(uniform)
        assert ours.min() >= 2
        assert theirs.min() == 1
        assert np.quantile(ours, 0.01) > np.quantile(theirs, 0.5)
        assert ours.mean() > 1.4 * theirs.mean()
        assert ours.std() < theirs.std() / 2


def test_poisson_disc_radius_grows_outwards() -> None:
    mask = poisson_disc_mask((128, 128), 10, 0, edge_to_center=4)
    nearest = nearest_distances(mask)
    radius = np.hypot(*(np.argwhere(mask) - 64).T) / 64
    means = [nearest[(radius >= low) & (radius < low + 0.25)].mean() for low in (0, 0.25, 0.5, 0.75)]
    assert means == sorted(means)
    assert 2.5 < means[-1] / means[0] < 4
    # As many samples in one half as in the other: no direction is preferred.
    assert abs(mask[:64].sum() / mask.sum() - 0.5) < 0.03
    assert abs(mask[:, :64].sum() / mask.sum() - 0.5) < 0.03


@EXACT
@given(shape=SHAPES, largest=st.integers(0, 60), seed=st.integers(0, 999))
def test_taken_points_keep_their_radii(shape: tuple[int, int], largest: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    squared = generator.integers(0, largest + 1, shape)
    order = generator.permutation(shape[0] * shape[1])
    taken: list[int] = []
    for index in order:
        row, col = divmod(index, shape[1])
        if all((row - i // shape[1]) ** 2 + (col - i % shape[1]) ** 2 >= squared.flat[i] for i in taken):
            taken.append(index)
    assert _take(order, squared).tolist() == taken


def test_radii_beyond_the_grid() -> None:
    assert _take(np.arange(12), np.full((3, 4), 10**12)).tolist() == [0]


def test_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = []

    def never_enough(order: np.ndarray, squared_radii: np.ndarray) -> np.ndarray:
        trials.append(int(squared_radii.max()))
        return order[:1]

    monkeypatch.setattr("operators.poisson_disc._take", never_enough)
    order = np.arange(400)
    assert np.array_equal(_search(order, np.ones((20, 20)), np.zeros((20, 20)), 100), order)
    assert len(trials) == MAX_TRIALS


@EXACT
@given(shape=SHAPES, acceleration=st.floats(1, 30), seed=st.integers(0, 2**32))
def test_pseudo_radial_is_exact(shape: tuple[int, int], acceleration: float, seed: int) -> None:
    mask = pseudo_radial_mask(shape, acceleration, seed)
    assert mask.shape == shape
    assert mask.sum() == max(round(shape[0] * shape[1] / acceleration), 1)
    assert mask[shape[0] // 2, shape[1] // 2]


def test_points_that_no_spoke_meets_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operators.radial_masks._golden_spokes", lambda shape, first_angle: iter(()))
    assert pseudo_radial_mask((9, 8), 3, 0).sum() == 24


@EXACT
@given(shape=SHAPES, n_spokes=st.integers(1, 30), angle=st.floats(-4, 4), golden=st.booleans())
def test_spokes_meet_in_the_middle(shape: tuple[int, int], n_spokes: int, angle: float, golden: bool) -> None:
    mask = radial_mask(shape, n_spokes, angle, golden)
    assert mask[shape[0] // 2, shape[1] // 2]
    assert mask.sum() <= n_spokes * max(shape)
    # A line and its mirror image are one: odd grids are symmetric about their middle.
    odd = tuple(n - (n + 1) % 2 for n in shape)
    mask = radial_mask((odd[0], odd[1]), n_spokes, angle, golden)
    assert np.array_equal(mask, mask[::-1, ::-1])


def test_spokes_are_straight() -> None:
    assert np.array_equal(radial_mask((5, 7), 1), np.arange(5)[:, None] == np.full(7, 2))
    assert np.array_equal(radial_mask((5, 7), 1, np.pi / 2), (np.arange(7) == 3) | np.zeros((5, 1), dtype=bool))
    assert np.array_equal(radial_mask((7, 7), 1, np.pi / 4), np.eye(7, dtype=bool))
    row, col = np.argwhere(radial_mask((65, 65), 1, 0.3)).T - 32
    assert np.abs(row - np.tan(0.3) * col).max() <= 0.5


@pytest.mark.skipif(DATA is None, reason="MOLRECON_DATA is not set: no published masks")
@pytest.mark.parametrize(("ratio", "n_spokes"), [(10, 27), (20, 55), (30, 85), (40, 117), (50, 152)])
def test_published_pseudo_radial_masks(ratio: int, n_spokes: int) -> None:
    # The masks of ISTA-Net's MRI experiments are radial_mask's, but for the first row and column, which they leave out.
    loadmat = pytest.importorskip("scipy.io", reason="scipy is not installed").loadmat
    theirs = loadmat(Path(str(DATA)) / "published" / "ista_net_plus" / f"mask_{ratio}.mat")["mask_matrix"] > 0
    ours = radial_mask((256, 256), n_spokes)
    assert np.array_equal(np.fft.fftshift(theirs)[1:, 1:], ours[1:, 1:])


@EXACT
@given(
    cols=st.integers(1, 400),
    acceleration=st.floats(1, 30),
    low=st.floats(0, 1),
    width=st.sampled_from([None, 1e-3, 0.1, 0.5]),
    seed=st.integers(0, 2**32),
)
def test_variable_density_is_exact(cols: int, acceleration: float, low: float, width: float | None, seed: int) -> None:
    target = max(round(cols / acceleration), 1)
    mask = variable_density_mask(cols, acceleration, seed, int(low * target), width)
    assert mask.shape == (cols,)
    assert mask.sum() == target
    assert mask[center_mask(cols, int(low * target))].all()


def test_densities() -> None:
    distance = np.abs(np.arange(256) - 128) / 256
    uniform = np.mean([variable_density_mask(256, 8, seed) for seed in range(400)], 0)
    assert abs(uniform[distance < 0.1].mean() - uniform[distance > 0.4].mean()) < 0.02
    gaussian = np.mean([variable_density_mask(256, 8, seed, width=0.2) for seed in range(400)], 0)
    bands = [gaussian[(distance >= low) & (distance < low + 0.1)].mean() for low in (0, 0.1, 0.2, 0.3)]
    assert bands == sorted(bands, reverse=True)
    # Few of many, so that the fractions are nearly in the ratio of the densities.
    assert bands[2] / bands[0] == pytest.approx(np.exp(-0.5 * (0.25**2 - 0.05**2) / 0.2**2), rel=0.2)


@EXACT
@given(
    frames=st.integers(1, 12),
    cols=st.integers(1, 60),
    acceleration=st.integers(1, 9),
    shift=st.integers(-9, 9),
    data=st.data(),
)
def test_interleaved_frames_cover_all_columns(
    frames: int, cols: int, acceleration: int, shift: int, data: st.DataObject
) -> None:
    assume(np.gcd(shift, acceleration) == 1)
    num_low = data.draw(st.integers(0, cols))
    mask = kt_interleaved_mask(frames, cols, acceleration, num_low, shift)
    outside = mask[:, ~center_mask(cols, num_low)]
    assert mask.shape == (frames, cols)
    assert mask[:, center_mask(cols, num_low)].all()
    bare = kt_interleaved_mask(frames, cols, acceleration, 0, shift)
    assert set(bare.sum(1).tolist()) <= {cols // acceleration, ceil(cols / acceleration)}
    for start in range(frames - acceleration + 1):
        assert (outside[start : start + acceleration].sum(0) == 1).all()


@EXACT
@given(
    frames=st.integers(1, 12),
    cols=st.integers(1, 300),
    acceleration=st.floats(1, 30),
    low=st.floats(0, 1),
    edge=st.sampled_from([1.0, 3.0, 50.0]),
    seed=st.integers(0, 2**32),
)
def test_golden_kt_is_exact_in_every_frame(
    frames: int, cols: int, acceleration: float, low: float, edge: float, seed: int
) -> None:
    target = max(round(cols / acceleration), 1)
    mask = golden_kt_mask(frames, cols, acceleration, seed, int(low * target), edge)
    assert mask.shape == (frames, cols)
    assert (mask.sum(1) == target).all()
    assert mask[:, center_mask(cols, int(low * target))].all()


def test_golden_kt_density() -> None:
    mask = golden_kt_mask(1000, 160, 8, 0, edge_to_center=4)
    distance = np.abs(np.arange(160) - 80) / 80
    density = 1 / (1 + 3 * distance)
    np.testing.assert_allclose(mask.mean(0), 20 * density / density.sum(), atol=0.01)


def test_golden_kt_spreads_in_time() -> None:
    # Each column is revisited at intervals of at most a few of its mean periods, and no two frames in a row agree.
    mask = golden_kt_mask(200, 128, 8, 0, edge_to_center=1)
    for column in mask.T:
        assert np.diff(np.flatnonzero(column)).max() <= 3 * 8
    assert not (mask[1:] & mask[:-1]).all(1).any()
    # Neighbours within a frame are as far apart as the density asks for, to a column.
    gaps = [np.diff(np.flatnonzero(frame)) for frame in mask]
    assert {int(gap) for row in gaps for gap in row} <= {7, 8, 9}


ERRORS: list[tuple[Callable[[], object], str]] = [
    (lambda: poisson_disc_mask((0, 4), 2, 0), r"poisson_disc_mask: shape \(0, 4\), expected \(rows, cols\) of"),
    (lambda: poisson_disc_mask((-3, -4), 2, 0), r"poisson_disc_mask: shape \(-3, -4\)"),
    (lambda: poisson_disc_mask((4, 4), 0.5, 0), r"poisson_disc_mask: acceleration is 0.5, expected at least 1"),
    (lambda: poisson_disc_mask((4, 4), np.nan, 0), r"poisson_disc_mask: acceleration is nan, expected at least 1"),
    (lambda: poisson_disc_mask((4, 4), 2, 0, edge_to_center=0.5), r"edge_to_center is 0.5, expected at least 1"),
    (lambda: poisson_disc_mask((4, 4), 2, 0, edge_to_center=np.inf), r"edge_to_center is inf, expected at least 1"),
    (lambda: poisson_disc_mask((4, 4), 2, 0, (5, 1)), r"calibration region \(5, 1\), expected at most \(4, 4\)"),
    (
        lambda: poisson_disc_mask((8, 8), 8, 0, (4, 4)),
        r"poisson_disc_mask: 8 samples at acceleration 8, of which 16 in the calibration region and 48 possible",
    ),
    (lambda: poisson_disc_mask((64, 64), 1.1, 0, crop_corners=True), r"3724 samples .* expected another acceleration"),
    (lambda: radial_mask((4, 4), 0), r"radial_mask: n_spokes is 0, expected at least 1"),
    (lambda: radial_mask((4, 0), 3), r"radial_mask: shape \(4, 0\), expected \(rows, cols\)"),
    (lambda: pseudo_radial_mask((0, 4), 3, 0), r"pseudo_radial_mask: shape \(0, 4\)"),
    (lambda: pseudo_radial_mask((4, 4), np.inf, 0), r"pseudo_radial_mask: acceleration is inf, expected at least 1"),
    (lambda: variable_density_mask(0, 2, 0), r"variable_density_mask: the grid has 0 points, expected at least 1"),
    (lambda: variable_density_mask(64, 8, 0, 9), r"variable_density_mask: 9 central columns of the 8 .* 0 to 8"),
    (lambda: variable_density_mask(64, 8, 0, 4, 0.0), r"variable_density_mask: width is 0.0, expected a positive"),
    (lambda: kt_interleaved_mask(0, 8, 2), r"kt_interleaved_mask: frames is 0, expected at least 1"),
    (lambda: kt_interleaved_mask(3, 8, 6, shift=4), r"kt_interleaved_mask: shift 4 and acceleration 6 have a common"),
    (lambda: kt_interleaved_mask(3, 8, 2.5), r"acceleration is 2.5, expected a whole number"),  # type: ignore[arg-type]
    (lambda: kt_interleaved_mask(3, 8, 2, 9), r"center_mask: 9 central columns of 8"),
    (lambda: golden_kt_mask(0, 8, 2, 0), r"golden_kt_mask: frames is 0, expected at least 1"),
    (lambda: golden_kt_mask(3, 8, 2, 0, 5), r"golden_kt_mask: 5 central columns of the 4 that the acceleration allows"),
    (lambda: golden_kt_mask(3, 8, 2, 0, edge_to_center=0), r"golden_kt_mask: edge_to_center is 0, expected at least 1"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_errors(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
