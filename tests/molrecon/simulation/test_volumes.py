from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from examples._volumes import (
    PERFUSION_TRAIN,
    PERFUSION_VALIDATION,
    T1_VALIDATION_SLAB,
    Slabs,
    Windows,
    cardiac_frames,
    perfusion_series,
    t1_training_volume,
    t1_validation_slab,
    t1_volume,
)
from molrecon.scans.metrics import psnr
from molrecon.simulation.problem import Problem
from molrecon.simulation.volumes import frame_mask, plane_mask, resampled, slab_problem, window_problem
from molrecon.solvers.conjugate_gradient import conjugate_gradient

DATA = os.environ.get("MOLRECON_DATA")


def ball(shape: tuple[int, ...]) -> np.ndarray:
    """Return a soft ball of intensity 1 in a volume of zeros."""
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    return (1 / (1 + np.exp(20 * (np.sqrt(sum(axis**2 for axis in grid)) - 0.7)))).astype(np.float32)


def check_is_a_measurement_of_its_reference(problem: Problem) -> None:
    """Samples that are not measured are zero; those that are hold the reference, noise, and what the maps leave."""
    operator, mask = problem.operator, problem.operator.sampling_mask
    rest = problem.kspace - operator(problem.reference)
    sampled = mask[:, None].expand(rest.shape)
    assert not problem.kspace[~sampled].any()
    level = rest[sampled].abs().square().mean().sqrt()
    assert level >= 0.9 * float(problem.noise_level[0])
    assert rest.norm() < 0.1 * problem.kspace.norm() + 1.1 * problem.noise_level[0] * int(sampled.sum()) ** 0.5
    unit = torch.linalg.vector_norm(operator.sensitivity_maps, dim=1)
    torch.testing.assert_close(unit, (unit > 0).to(unit))
    assert problem.reference.abs().flatten().quantile(0.995) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("readout", [0, 1, 2])
def test_slab_is_fully_sampled_along_the_readout_alone(readout: int):
    shape = [32, 36, 40]
    shape[readout] = 5
    problem = slab_problem(
        ball((60, 56, 64)), (shape[0], shape[1], shape[2]), readout, np.random.default_rng(readout), acceleration=(6, 6)
    )
    check_is_a_measurement_of_its_reference(problem)
    assert problem.reference.shape == (1, *shape)
    mask = problem.operator.sampling_mask
    assert mask.shape[1 + readout] == 1
    assert mask.numel() / mask.sum() == pytest.approx(6, rel=0.02)
    assert problem.operator.encoding.fourier_ndim == 3


def test_window_is_undersampled_in_time_and_columns_and_moves():
    rng = np.random.default_rng(1)
    problem = window_problem(ball((1, 64, 64)), (8, 20, 40), rng, acceleration=(8, 8))
    check_is_a_measurement_of_its_reference(problem)
    assert problem.operator.sampling_mask.shape == (1, 8, 1, 40)
    assert problem.operator.sensitivity_maps.shape == (1, 8, 1, 20, 40)
    assert problem.operator.encoding.fourier_ndim == 2
    magnitude = problem.reference[0].abs()
    assert (magnitude[1:] - magnitude[:-1]).abs().max() > 0.02


def test_series_that_are_not_moved_are_shown_as_they_are():
    series = ball((1, 64, 64)) * np.linspace(0.5, 1, 9, dtype=np.float32)[:, None, None]
    problem = window_problem(series, (9, 20, 40), np.random.default_rng(2), moving=False)
    frames = problem.reference[0].abs()
    # Intensity alone changes: every frame is a multiple of the first.
    ratio = (frames * frames[0]).sum((1, 2)) / frames[0].square().sum()
    torch.testing.assert_close(frames, ratio[:, None, None] * frames[0], atol=1e-4, rtol=1e-3)
    with pytest.raises(ValueError, match="a series of 5 frames, expected 1 or at least 9"):
        window_problem(series[:5], (9, 20, 40), np.random.default_rng(2))


def test_masks_have_the_acceleration_that_is_asked_for():
    rng = np.random.default_rng(0)
    for _ in range(8):
        mask = plane_mask((40, 48), 6.0, rng)
        assert mask.sum() == round(40 * 48 / 6) and mask[16:24, 20:28].all()
        frames = frame_mask(10, 64, 8.0, rng)
        assert frames.shape == (10, 64) and 5 < frames.size / frames.sum() <= 10
        assert len(np.unique(frames, axis=0)) > 1


def test_coarser_grids_keep_the_field_of_view():
    coarse = resampled(ball((40, 36, 44)), (20, 18, 22))
    assert psnr(ball((40, 36, 44))[::2, ::2, ::2], coarse) > 20
    assert coarse.mean() == pytest.approx(ball((40, 36, 44)).mean(), rel=0.02)
    with pytest.raises(ValueError, match="none larger"):
        resampled(ball((8, 8, 8)), (9, 8, 8))


def banks() -> list[Slabs | Windows]:
    volume = ball((60, 64, 48))
    series = ball((1, 64, 64)) * np.linspace(0.5, 1, 12, dtype=np.float32)[:, None, None]
    return [
        Slabs([volume], ball((96, 96, 12)), shape=(3, 35, 37), batch=2),
        Windows(series, series[:2], (series, series[:1]), shape=(6, 16, 32)),
    ]


@pytest.mark.parametrize("bank", banks(), ids=["slabs", "windows"])
def test_problems_depend_on_step_and_generator_alone(bank: Slabs | Windows):
    first = bank.draw(np.random.default_rng([0, 30]), 30)
    bank.draw(np.random.default_rng([0, 50]), 50)
    again = bank.draw(np.random.default_rng([0, 30]), 30)
    torch.testing.assert_close(again.kspace, first.kspace, rtol=0, atol=0)
    assert first.reference.shape[0] == 2 and first.noise_level.shape == (2,)
    image = conjugate_gradient(lambda x: first.operator.normal(x) + 0.01 * x, first.operator.adjoint(first.kspace))
    assert (image.value - first.reference).norm() < 0.7 * first.reference.norm()


@pytest.mark.parametrize("bank", banks(), ids=["slabs", "windows"])
def test_validation_problems_are_fixed(bank: Slabs | Windows):
    first, again = bank.problems(3), bank.problems(3)
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(one.kspace, other.kspace, rtol=0, atol=0)
    assert not torch.equal(first[0].operator.sampling_mask, first[1].operator.sampling_mask)


@pytest.mark.skipif(DATA is None, reason="MOLRECON_DATA is not set")
def test_no_voxel_frame_or_subject_is_in_both_parts():
    data = Path(str(DATA))
    first, last = T1_VALIDATION_SLAB
    training, slab = t1_training_volume(data), t1_validation_slab(data)
    assert training.shape[2] == first
    np.testing.assert_array_equal(slab, t1_volume(data)[:, :, first:last])
    assert PERFUSION_TRAIN.stop < PERFUSION_VALIDATION.start
    assert len(perfusion_series(data, PERFUSION_VALIDATION)) == 15
    shown, held = cardiac_frames(data, held_out=False), cardiac_frames(data, held_out=True)
    assert len(shown) + len(held) == 526 and len(held) > 50
    assert not {frame.tobytes() for frame in shown} & {frame.tobytes() for frame in held}
