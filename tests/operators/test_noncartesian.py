"""Non-Cartesian operators against the direct sum, sigpy, BART and known transforms."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from math import pi, prod
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from molrecon.reconstructors.classical import CGSense
from molrecon.solvers.solver_settings import SolverSettings
from operators import (
    Fourier,
    Sampling,
    Sense,
    Sensitivity,
    adjoint_gap,
    centred_fft,
    centred_ifft,
    toeplitz,
)
from operators.density import density_compensation, radial_density_compensation
from operators.density_weighted import WeightedSense, density_weighted
from operators.noncartesian import NonCartesianSense
from operators.nufft import NUFFT
from operators.off_resonance import OffResonance
from operators.toeplitz import Toeplitz
from operators.trajectories import GOLDEN_ANGLE, koosh_ball_trajectory, radial_trajectory, spiral_trajectory


def random_complex(*shape: int, seed: int, dtype: torch.dtype = torch.complex128) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def random_real(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_trajectory(*samples: int, spatial: tuple[int, ...], seed: int = 3) -> Tensor:
    return (random_real(*samples, len(spatial), seed=seed) - 0.5) * torch.tensor(spatial)


def pixels(spatial: tuple[int, ...]) -> Tensor:
    """The positions n - N // 2, (*spatial, ndim)."""
    axes = [torch.arange(n, dtype=torch.float64) - n // 2 for n in spatial]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def turn(turns: Tensor) -> Tensor:
    return torch.polar(torch.ones_like(turns), -2 * pi * turns)


def direct_sum(x: Tensor, trajectory: Tensor, field_map: Tensor | None = None, times: Tensor | None = None) -> Tensor:
    """The defining sum for images x (..., *spatial) and one trajectory (*samples, ndim), in double precision."""
    spatial = tuple(x.shape[-trajectory.shape[-1] :])
    points = trajectory.flatten(0, -2) / torch.tensor(spatial)
    turns = points @ pixels(spatial).flatten(0, -2).T
    if field_map is not None and times is not None:
        turns = turns + times.expand(trajectory.shape[:-1]).flatten()[:, None] * field_map.flatten()
    outer = x.shape[: x.ndim - len(spatial)]
    samples = x.reshape(-1, prod(spatial)) @ turn(turns).T / prod(spatial) ** 0.5
    return samples.reshape(*outer, *trajectory.shape[:-1])


PLANE = (6, 5)
ROUNDING = 1e-11  # the threads of finufft add in any order, so that two runs differ by rounding
POINTS = random_trajectory(1, 4, 9, spatial=PLANE)


def test_second_derivatives() -> None:
    operator = NUFFT(POINTS, PLANE)
    for function, shape in ((operator, (2, *PLANE)), (operator.adjoint, (2, 4, 9))):
        x = random_complex(*shape, seed=0).requires_grad_()
        assert torch.autograd.gradgradcheck(
            function, (x,), eps=1e-4, atol=1e-8, rtol=1e-8, nondet_tol=ROUNDING, fast_mode=True
        )


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    spatial=st.lists(st.integers(1, 8), min_size=1, max_size=3).map(tuple),
    batch=st.integers(1, 3),
    shared=st.booleans(),
    samples=st.lists(st.integers(1, 5), min_size=1, max_size=2).map(tuple),
    seed=st.integers(0, 99),
)
def test_nufft_is_the_direct_sum(
    spatial: tuple[int, ...], batch: int, shared: bool, samples: tuple[int, ...], seed: int
) -> None:
    trajectory = random_trajectory(1 if shared else batch, *samples, spatial=spatial, seed=seed)
    x, y = random_complex(batch, 2, *spatial, seed=seed), random_complex(batch, 2, *samples, seed=seed + 1)
    operator = NUFFT(trajectory, spatial)
    points = trajectory.expand(batch, *trajectory.shape[1:])
    expected = torch.stack([direct_sum(s, k) for s, k in zip(x, points, strict=True)])
    torch.testing.assert_close(operator(x), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(operator(x.to(torch.complex64)), expected.to(torch.complex64), rtol=1e-5, atol=1e-5)
    assert adjoint_gap(operator, x, y) < 1e-12
    convolution = Toeplitz(trajectory, spatial)
    torch.testing.assert_close(convolution(x), operator.normal(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("spatial", [(8,), (7, 6), (4, 5, 3)], ids=str)
def test_the_grid_gives_the_fft(spatial: tuple[int, ...]) -> None:
    x = random_complex(2, *spatial, seed=0)
    grid = pixels(spatial)[None]
    torch.testing.assert_close(NUFFT(grid, spatial)(x), Fourier(len(spatial))(x), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(Toeplitz(grid, spatial)(x), x, rtol=1e-11, atol=1e-11)


def test_some_columns_of_the_grid_give_cartesian_sense() -> None:
    maps, x = random_complex(1, 3, 6, 8, seed=0), random_complex(2, 6, 8, seed=1)
    mask = torch.tensor([0, 1, 0, 0, 1, 1, 0, 1], dtype=torch.bool)
    cartesian = Sense(maps, mask[None, None])
    ours = NonCartesianSense(maps, pixels((6, 8))[:, mask][None])
    torch.testing.assert_close(ours(x), cartesian(x)[..., mask], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(ours.normal(x), cartesian.normal(x), rtol=1e-11, atol=1e-11)


def test_the_transform_of_a_gaussian() -> None:
    # Off centre and elongated: the order of the axes, the sign and the scale all show.
    spatial, width, shift = (48, 40), torch.tensor([7.0, 5.0]), torch.tensor([4.0, -6.0])
    x = torch.exp(-pi * ((pixels(spatial) - shift) / width).square().sum(-1)).to(torch.complex128)
    trajectory = random_trajectory(1, 200, spatial=spatial)
    frequency = trajectory[0] / torch.tensor(spatial)
    expected = width.prod() * torch.exp(-pi * (frequency * width).square().sum(-1)) * turn(frequency @ shift.double())
    actual = NUFFT(trajectory, spatial)(x[None])[0] * prod(spatial) ** 0.5
    torch.testing.assert_close(actual, expected.to(actual), rtol=0, atol=1e-6)


@pytest.mark.parametrize("spatial", [(12, 9), (6, 7, 5)], ids=str)
def test_nufft_agrees_with_sigpy(spatial: tuple[int, ...]) -> None:
    # The same units (cycles per field of view), order of axes and scale; sigpy's own error is a few 1e-4 here.
    sigpy = pytest.importorskip("sigpy", reason="sigpy is not installed")
    trajectory = random_trajectory(1, 50, spatial=spatial)
    x, y = random_complex(1, *spatial, seed=0), random_complex(1, 50, seed=1)
    operator = NUFFT(trajectory, spatial)
    theirs = sigpy.nufft(x[0].numpy(), trajectory[0].numpy(), oversamp=2, width=6)
    assert np.linalg.norm(operator(x)[0].numpy() - theirs) < 1e-3 * np.linalg.norm(theirs)
    theirs = sigpy.nufft_adjoint(y[0].numpy(), trajectory[0].numpy(), spatial, oversamp=2, width=6)
    assert np.linalg.norm(operator.adjoint(y)[0].numpy() - theirs) < 1e-3 * np.linalg.norm(theirs)


@pytest.mark.skipif(shutil.which("bart") is None, reason="BART is not installed")
def test_nufft_agrees_with_bart(tmp_path: Path) -> None:
    # Its direct sum (-s), which leaves out 1 / sqrt(N). Its first axis varies fastest, so that x is our last axis.
    spatial = (16, 14)
    trajectory, x = radial_trajectory(5, 16, 14), random_complex(1, *spatial, seed=0, dtype=torch.complex64)
    points = torch.cat((trajectory[0].flip(-1), torch.zeros(5, 16, 1)), -1).to(torch.complex64)
    for name, tensor, sizes in (("k", points, "3 16 5"), ("x", x, "14 16 1")):
        (tmp_path / f"{name}.hdr").write_text(f"# Dimensions\n{sizes}{' 1' * 13}\n")
        tensor.contiguous().numpy().tofile(tmp_path / f"{name}.cfl")
    subprocess.run(
        ["bart", "nufft", "-s", "k", "x", "y"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    theirs = torch.from_numpy(np.fromfile(tmp_path / "y.cfl", dtype=np.complex64)).reshape(5, 16)
    ours = NUFFT(trajectory, spatial)(x)[0]
    assert (ours - theirs / prod(spatial) ** 0.5).norm() < 1e-4 * ours.norm()


def test_accuracy_is_what_was_asked_for() -> None:
    spatial = (32, 30)
    x, trajectory = random_complex(1, *spatial, seed=0), random_trajectory(1, 300, spatial=spatial)
    exact = direct_sum(x[0], trajectory[0])
    for accuracy in (1e-3, 1e-6, 1e-9, 1e-12):
        error = NUFFT(trajectory, spatial, accuracy=accuracy)(x)[0] - exact
        assert error.norm() < 10 * accuracy * exact.norm()
    single = NUFFT(trajectory, spatial)(x.to(torch.complex64))[0]
    assert (single - exact).norm() < 1e-5 * exact.norm()


def test_toeplitz_chunks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = NonCartesianSense(random_complex(1, 5, *PLANE, seed=0), POINTS)
    x = random_complex(2, *PLANE, seed=1)
    whole = operator.normal(x)
    for chunk_bytes in (1, 2 * 2 * 4 * 30 * 16):
        monkeypatch.setattr(toeplitz, "CHUNK_BYTES", chunk_bytes)
        torch.testing.assert_close(operator.normal(x), whole, rtol=1e-14, atol=1e-14)


def test_gradient_in_the_maps() -> None:
    x = random_complex(2, *PLANE, seed=0)
    maps = random_complex(1, 3, *PLANE, seed=5).requires_grad_()
    for function in (NonCartesianSense.forward, NonCartesianSense.normal):
        check = torch.autograd.gradcheck(
            lambda s, f=function: f(NonCartesianSense(s, POINTS), x),
            (maps,),
            eps=1e-4,
            nondet_tol=ROUNDING,
            atol=1e-7,
            fast_mode=True,
        )
        assert check


def test_weights_are_those_of_weighted_least_squares() -> None:
    maps, weights = random_complex(1, 3, *PLANE, seed=0), random_real(1, 4, 9, seed=4)
    b, x = random_complex(2, 3, 4, 9, seed=1), random_complex(2, *PLANE, seed=2)
    plain = NonCartesianSense(maps, POINTS)
    weighted = density_weighted(b, plain, weights)
    torch.testing.assert_close(weighted.kspace, weights.sqrt()[:, None] * b)
    torch.testing.assert_close(weighted.operator(x), weights.sqrt()[:, None] * plain(x))
    torch.testing.assert_close(weighted.operator.adjoint(weighted.kspace), plain.adjoint(weights[:, None] * b))
    torch.testing.assert_close(weighted.operator.normal(x), plain.adjoint(weights[:, None] * plain(x)))
    assert weighted.operator.toeplitz is not None
    assert density_weighted(b, NonCartesianSense(maps, POINTS, toeplitz=False), weights).operator.toeplitz is None


@pytest.mark.parametrize("angle_increment", [None, GOLDEN_ANGLE])
def test_radial_spokes(angle_increment: float | None) -> None:
    for n_readout in (16, 17, 32):
        spokes = radial_trajectory(13, n_readout, 16, angle_increment=angle_increment)
        assert spokes.shape == (1, 13, n_readout, 2)
        assert torch.equal(spokes[0, :, n_readout // 2], torch.zeros(13, 2, dtype=torch.float64))
        radius = torch.linalg.vector_norm(spokes, dim=-1)
        assert radius.max() <= 8 + 1e-12
        torch.testing.assert_close(radius[:, :, n_readout // 2 + 1], torch.full((1, 13), 16.0 / n_readout).double())
    directions = torch.view_as_complex(spokes[0, :, -1].contiguous()).angle() % pi
    expected = torch.arange(13).double() * (angle_increment or pi / 13) % pi
    torch.testing.assert_close(directions, expected)


def test_koosh_ball_covers_the_sphere() -> None:
    spokes = koosh_ball_trajectory(500, 8, 16)
    assert spokes.shape == (1, 500, 8, 3)
    directions = torch.nn.functional.normalize(spokes[0, :, 0], dim=-1)
    # Directions spread evenly over all lines: their second moment is that of the sphere.
    torch.testing.assert_close(directions.T @ directions / 500, torch.eye(3).double() / 3, rtol=0, atol=5e-3)
    torch.testing.assert_close(torch.linalg.vector_norm(spokes[:, :, 0], dim=-1), torch.full((1, 500), 8.0).double())


def test_spiral_arms_keep_their_distance() -> None:
    arms = spiral_trajectory(4, 400, 32, acceleration=2)
    assert arms.shape == (1, 4, 400, 2)
    radius = torch.linalg.vector_norm(arms, dim=-1)
    assert torch.equal(radius[0, :, 0], torch.zeros(4).double())
    torch.testing.assert_close(radius[0, :, -1], torch.full((4,), 16.0).double())
    # One turn of one arm leads past all the others: 4 arms, 2 cycles per field of view apart.
    angle = torch.view_as_complex(arms[0, 0, 1:].contiguous()).angle().numpy()
    turns = (np.unwrap(angle)[-1] - np.unwrap(angle)[0]) / (2 * pi)
    assert float(radius[0, 0, -1] - radius[0, 0, 1]) / turns == pytest.approx(8)


def test_density_of_a_grid_is_one() -> None:
    weights = density_compensation(pixels((6, 7))[None], (6, 7), n_steps=3)
    torch.testing.assert_close(weights, torch.ones(1, 6, 7).double(), rtol=1e-5, atol=1e-5)


def test_density_agrees_with_sigpy() -> None:
    mri = pytest.importorskip("sigpy.mri", reason="sigpy is not installed")
    spokes = radial_trajectory(60, 64, 32)
    ours = density_compensation(spokes, (32, 32))[0]
    theirs = torch.from_numpy(mri.pipe_menon_dcf(spokes[0].numpy(), (32, 32), show_pbar=False))
    # sigpy's convolution kernel is wider, which shows at the rim and the centre, and its scale is arbitrary.
    radius = torch.linalg.vector_norm(spokes[0], dim=-1)
    ratio = (theirs / ours)[(radius > 2) & (radius < 12)]
    assert float(ratio.std()) < 0.05 * float(ratio.mean())


def test_radial_ramp_is_the_area() -> None:
    # n readout samples of the spacing dk cover the disc (ball) to half a spacing beyond the last.
    weights = radial_density_compensation(radial_trajectory(20, 33, 32))
    dk = 32 / 33
    assert float(weights.sum()) == pytest.approx(pi * (16.5 * dk) ** 2)
    torch.testing.assert_close(weights[0, 3, 5], torch.tensor(11 * dk**2 * pi / 20).double())
    weights = radial_density_compensation(koosh_ball_trajectory(20, 33, 32))
    assert float(weights.sum()) == pytest.approx(4 / 3 * pi * (16.5 * dk) ** 3)


def test_both_densities_agree_on_a_radial_trajectory() -> None:
    spokes = radial_trajectory(60, 64, 32)
    ramp, iterated = radial_density_compensation(spokes), density_compensation(spokes, (32, 32))
    inside = (ramp > 0.2 * ramp.max()) & (torch.linalg.vector_norm(spokes, dim=-1) < 14)
    ratio = (iterated / ramp)[inside]
    assert float(ratio.mean()) == pytest.approx(1, abs=0.05)
    assert float(ratio.std()) < 0.1


def smooth_field(spatial: tuple[int, ...], span: float) -> Tensor:
    position = pixels(spatial) / torch.tensor(spatial)
    return span * (torch.exp(-8 * (position - 0.1).square().sum(-1)) + 0.3 * position[..., 0])[None]


@pytest.mark.parametrize("segment_error", [1e-2, 1e-3, 1e-5, 1e-8])
def test_off_resonance_is_the_direct_sum(segment_error: float) -> None:
    spatial = (16, 15)
    trajectory, x = radial_trajectory(5, 16, 14), random_complex(1, *spatial, seed=0)
    field_map = smooth_field(spatial, 150)
    times = torch.linspace(2e-3, 12e-3, 16, dtype=torch.float64)
    operator = OffResonance(trajectory, field_map, times, segment_error=segment_error)
    assert operator.interpolation_error <= segment_error
    exact = direct_sum(x[0], trajectory[0], field_map[0], times)
    error = float((operator(x)[0] - exact).norm() / exact.norm())
    assert error < 2 * segment_error
    ignored = float((NUFFT(trajectory, spatial)(x)[0] - exact).norm() / exact.norm())
    assert ignored > 0.5


def test_off_resonance_of_uniform_fields() -> None:
    x, times = random_complex(1, 3, *PLANE, seed=0), 0.01 * random_real(4, 9, seed=7)
    plain = NUFFT(POINTS, PLANE)(x)
    for frequency in (0.0, 100.0):
        operator = OffResonance(POINTS, torch.full((1, *PLANE), frequency), times)
        assert operator.n_segments == 1
        torch.testing.assert_close(operator(x), plain * turn(frequency * times), rtol=1e-10, atol=1e-10)
    # One echo time for all samples: a phase in the image, however inhomogeneous the field.
    field_map = 500 * random_real(1, *PLANE, seed=6)
    operator = OffResonance(POINTS, field_map, torch.tensor([0.02], dtype=torch.float64))
    assert operator.n_segments == 1
    torch.testing.assert_close(operator(x), NUFFT(POINTS, PLANE)(x * turn(0.02 * field_map)), rtol=1e-10, atol=1e-10)


def phantom(size: int) -> Tensor:
    """A head of smoothed ellipses with smooth phase, (1, size, size)."""
    position = pixels((size, size)) / size
    image = torch.zeros(size, size, dtype=torch.complex128)
    for height, centre, axes in (
        (1.0, (0.0, 0.0), (0.42, 0.32)),
        (-0.4, (0.05, 0.0), (0.36, 0.27)),
        (0.5, (-0.15, 0.1), (0.08, 0.05)),
        (-0.3, (0.12, -0.1), (0.1, 0.06)),
    ):
        inside = ((position - torch.tensor(centre)) / torch.tensor(axes)).square().sum(-1) < 1
        image += height * inside
    # Band-limited to the disc of k-space that radial and spiral trajectories measure, so that all of it can be found.
    taper = torch.exp(-10 * position.square().sum(-1))
    smooth = centred_ifft(taper * centred_fft(image, (0, 1)), (0, 1))
    return (smooth * turn(0.2 * position[..., 0] - 0.1 * position[..., 1]))[None]


def coil_maps(size: int, coils: int) -> Tensor:
    angle = 2 * pi * torch.arange(coils, dtype=torch.float64) / coils
    centres = 0.5 * torch.stack([angle.cos(), angle.sin()], -1)[:, None, None]
    maps = torch.exp(-3 * (pixels((size, size)) / size - centres).square().sum(-1)) * turn(0.1 * angle)[:, None, None]
    return (maps / torch.linalg.vector_norm(maps, dim=0))[None]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


SIZE = 48


@pytest.mark.parametrize(
    ("trajectory", "largest"),
    [
        (radial_trajectory(40, 2 * SIZE, SIZE), 0.01),
        (radial_trajectory(40, 2 * SIZE, SIZE, angle_increment=GOLDEN_ANGLE), 0.01),
        (spiral_trajectory(12, 600, SIZE), 0.01),
    ],
    ids=["radial", "golden angle", "spiral"],
)
def test_cg_sense_finds_the_phantom(trajectory: Tensor, largest: float) -> None:
    # measured by the sum itself: what is asked is whether A is the acquisition, with weights and without
    image, maps = phantom(SIZE), coil_maps(SIZE, 6)
    kspace = direct_sum(maps * image, trajectory[0]).to(torch.complex64)
    image, maps = image.to(torch.complex64), maps.to(torch.complex64)
    operator = NonCartesianSense(maps, trajectory)
    weighted = density_weighted(kspace, operator, density_compensation(trajectory, (SIZE, SIZE)))
    plain = CGSense(1e-3, solver=SolverSettings(tol=0.1, max_steps=200))(kspace, operator)
    compensated = CGSense(1e-3, solver=SolverSettings(tol=0.1, max_steps=200))(weighted.kspace, weighted.operator)
    for solution in (plain, compensated):
        assert bool(solution.converged.all())
        assert relative_error(solution.value, image) < largest
    assert int(compensated.n_steps.amax()) <= int(plain.n_steps.amax())
    assert relative_error(operator(image), kspace) < 1e-5


def test_gridding_finds_the_phantom() -> None:
    image, maps = phantom(SIZE), coil_maps(SIZE, 6)
    trajectory = radial_trajectory(2 * SIZE, 2 * SIZE, SIZE)
    for weights in (radial_density_compensation(trajectory), density_compensation(trajectory, (SIZE, SIZE))):
        operator = NonCartesianSense(maps, trajectory)
        weighted = density_weighted(operator(image), operator, weights)
        gridded = weighted.operator.adjoint(weighted.kspace)
        assert relative_error(gridded, image) < 0.15


def test_cg_sense_removes_off_resonance() -> None:
    image, maps = phantom(SIZE), coil_maps(SIZE, 6)
    trajectory = spiral_trajectory(12, 600, SIZE)
    weights = density_compensation(trajectory, (SIZE, SIZE))
    field_map, times = smooth_field((SIZE, SIZE), 60), torch.linspace(1e-3, 11e-3, 600, dtype=torch.float64)
    exact = direct_sum(maps * image, trajectory[0], field_map[0], times)
    maps = maps.to(torch.complex64)
    operator = NonCartesianSense(maps, trajectory, field_map=field_map, readout_times=times)
    kspace, method = exact.to(torch.complex64), CGSense(1e-3, solver=SolverSettings(tol=1.0, max_steps=20))
    right, wrong = (
        density_weighted(kspace, acquisition, weights)
        for acquisition in (operator, NonCartesianSense(maps, trajectory))
    )
    corrected = method(right.kspace, right.operator).value
    blurred = method(wrong.kspace, wrong.operator).value
    assert relative_error(corrected, image) < 0.01
    assert relative_error(blurred, image) > 0.2


MAPS = random_complex(1, 3, *PLANE, seed=5)
FIELD, TIMES = torch.zeros(1, *PLANE), torch.zeros(9)
ERRORS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: NUFFT(POINTS.to(torch.complex128), PLANE), TypeError, r"NUFFT: trajectory has dtype torch.complex128"),
    (lambda: NUFFT(POINTS.clone().requires_grad_(), PLANE), ValueError, r"NUFFT: trajectory requires a gradient"),
    (lambda: NUFFT(POINTS, (6,)), ValueError, r"NUFFT: trajectory \(1, 4, 9, 2\), expected a non-empty .*, 1\)"),
    (lambda: NUFFT(POINTS, (6, 5, 4, 3)), ValueError, r"NUFFT: spatial size is \(6, 5, 4, 3\), expected one, two or"),
    (lambda: NUFFT(POINTS[0, 0], PLANE), ValueError, r"NUFFT: trajectory \(9, 2\), expected a non-empty"),
    (lambda: NUFFT(POINTS[:, :0], PLANE), ValueError, r"NUFFT: trajectory \(1, 0, 9, 2\), expected a non-empty"),
    (
        lambda: NUFFT(torch.tensor([[[0.0, 2.6]]]), PLANE),
        ValueError,
        r"NUFFT: trajectory reaches 2.6 along spatial axis 1, expected at most 2.5 cycles per field of view",
    ),
    (lambda: NUFFT(POINTS * torch.nan, PLANE), ValueError, r"NUFFT: trajectory reaches nan along spatial axis 0"),
    (
        lambda: NUFFT(POINTS, PLANE, accuracy=0),
        ValueError,
        r"NUFFT: accuracy is 0, expected a number from 1e-14 to 0.1",
    ),
    (lambda: NUFFT(POINTS, PLANE)(FIELD), TypeError, r"NUFFT: image has dtype torch.float32, expected a complex"),
    (lambda: NUFFT(POINTS, PLANE)(MAPS[..., :4]), ValueError, r"NUFFT: image \(1, 3, 6, 4\), expected .*, 6, 5\)"),
    (lambda: NUFFT(POINTS, PLANE).adjoint(MAPS), ValueError, r"NUFFT: samples \(1, 3, 6, 5\), expected .*, 4, 9\)"),
    (lambda: NUFFT(POINTS.expand(2, 4, 9, 2), PLANE)(MAPS), ValueError, r"NUFFT: image .* trajectory \(2, 4, 9, 2\)"),
    (lambda: Toeplitz(POINTS, PLANE)(FIELD), TypeError, r"Toeplitz: image has dtype torch.float32"),
    (lambda: Toeplitz(POINTS, PLANE)(MAPS[..., :4]), ValueError, r"Toeplitz: image \(1, 3, 6, 4\), expected .*6, 5\)"),
    (lambda: Toeplitz(POINTS, PLANE, MAPS), TypeError, r"Toeplitz: weights have dtype torch.complex128"),
    (lambda: Toeplitz(POINTS, PLANE, FIELD), ValueError, r"Toeplitz: weights \(1, 6, 5\) .* do not fit the trajectory"),
    (lambda: Toeplitz(POINTS, PLANE, -torch.ones(1, 4, 9)), ValueError, r"Toeplitz: weights hold negative"),
    (lambda: NonCartesianSense(MAPS.real, POINTS), TypeError, r"Sensitivity: sensitivity maps has dtype torch.float64"),
    (
        lambda: NonCartesianSense(MAPS, POINTS, field_map=FIELD),
        ValueError,
        r"NonCartesianSense: no readout times, expected a field map and readout times, or neither",
    ),
    (
        lambda: NonCartesianSense(MAPS, POINTS, field_map=torch.zeros(1, 6, 6), readout_times=TIMES),
        ValueError,
        r"NonCartesianSense: field map \(1, 6, 6\) .* does not fit sensitivity maps \(1, 3, 6, 5\)",
    ),
    (
        lambda: NonCartesianSense(MAPS.expand(3, 3, 6, 5), POINTS.expand(2, 4, 9, 2)),
        ValueError,
        r"NonCartesianSense: batches of .* are \[3, 2\], expected 1 or one size",
    ),
    (lambda: NonCartesianSense(MAPS, POINTS)(MAPS), ValueError, r"Sensitivity: image \(1, 3, 6, 5\) does not fit"),
    (lambda: NonCartesianSense(MAPS, POINTS).normal(FIELD), TypeError, r"Sensitivity: image has dtype torch.float32"),
    (
        lambda: NonCartesianSense(MAPS, POINTS).adjoint(MAPS),
        ValueError,
        r"NonCartesianSense: k-space \(1, 3, 6, 5\), expected \(batch, 3, 4, 9\)",
    ),
    (
        lambda: density_weighted(
            random_complex(3, 3, 4, 9, seed=0), NonCartesianSense(MAPS, POINTS), torch.ones(2, 4, 9)
        ),
        ValueError,
        r"WeightedSense: k-space \(3, 3, 4, 9\) .*, expected a batch of 2, as of the weights",
    ),
    (
        lambda: WeightedSense(NonCartesianSense(MAPS.expand(3, 3, 6, 5), POINTS), torch.ones(2, 4, 9)),
        ValueError,
        r"WeightedSense: batches of .* are \[3, 1, 2\], expected 1 or one size",
    ),
    (
        lambda: WeightedSense(NonCartesianSense(MAPS, POINTS), -torch.ones(1, 4, 9)),
        ValueError,
        r"WeightedSense: weights hold negative",
    ),
    (
        lambda: density_weighted(MAPS, Fourier(2), torch.ones(1, 4, 9)),  # type: ignore[arg-type]
        TypeError,
        r"density_weighted: operator is Fourier, expected NonCartesianSense",
    ),
    (lambda: OffResonance(POINTS, MAPS[:, 0], TIMES), TypeError, r"OffResonance: field map has dtype torch.complex128"),
    (
        lambda: OffResonance(POINTS, FIELD * torch.inf, TIMES),
        ValueError,
        r"OffResonance: field map is empty or not fin",
    ),
    (lambda: OffResonance(POINTS, FIELD, TIMES[:8]), ValueError, r"OffResonance: field map .* times \(8,\) do not fit"),
    (
        lambda: OffResonance(POINTS / 2, 1e6 * random_real(1, 20, 19, seed=0), random_real(9, seed=1)),
        ValueError,
        r"OffResonance: 64 segments leave an error of .* expected at most segment_error = 0.001; check the units",
    ),
    (
        lambda: OffResonance(POINTS, FIELD, TIMES, segment_error=0),
        ValueError,
        r"OffResonance: segment_error is 0, expected a positive number",
    ),
    (lambda: radial_trajectory(0, 8, 8), ValueError, r"radial_trajectory: n_spokes is 0, expected at least 1"),
    (lambda: koosh_ball_trajectory(8, 8, 0), ValueError, r"koosh_ball_trajectory: matrix_size is 0, expected"),
    (lambda: spiral_trajectory(8, 1, 8), ValueError, r"spiral_trajectory: n_readout - 1 is 0, expected at least 1"),
    (lambda: spiral_trajectory(8, 8, 8, acceleration=0), ValueError, r"spiral_trajectory: acceleration is 0"),
    (lambda: density_compensation(POINTS, PLANE, n_steps=0), ValueError, r"density_compensation: n_steps is 0"),
    (lambda: radial_density_compensation(POINTS + 0j), TypeError, r"radial_density_compensation: trajectory has dtype"),
    (
        lambda: radial_density_compensation(POINTS[0]),
        ValueError,
        r"radial_density_compensation: trajectory \(4, 9, 2\), expected \(batch, spokes, readout, 2 or 3\)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for *_, message in ERRORS])
def test_errors_say_what_is_wrong(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_composes() -> None:
    composed = NUFFT(POINTS, PLANE) @ Sensitivity(MAPS)
    x = random_complex(2, *PLANE, seed=0)
    torch.testing.assert_close(composed(x), NonCartesianSense(MAPS, POINTS)(x), rtol=1e-12, atol=1e-12)
    assert not isinstance(composed, Sampling)


def test_an_inexact_kernel_does_not_serve_double_precision() -> None:
    assert Toeplitz(POINTS, PLANE).serves(torch.complex128)
    rough = Toeplitz(POINTS, PLANE, accuracy=1e-3)
    assert not rough.serves(torch.complex128) and not rough.serves(torch.complex64)


def test_the_callers_trajectory_is_copied() -> None:
    points = POINTS.clone()
    transform = NUFFT(points, PLANE)
    points.mul_(0.5)
    assert torch.equal(transform.trajectory, POINTS)
