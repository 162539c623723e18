"""Training data: simulated scans are what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from molrecon.simulation.strips import Problem, Scan, draw_mask, simulate_scan, stack_problems, strip_problem

SIZE, ROWS = 48, 8


def head() -> np.ndarray:
    """Return a box with two inner boxes, (50, 44) complex64, with some phase."""
    image = np.zeros((50, 44), np.complex64)
    image[6:44, 6:38] = 0.6
    image[14:26, 12:22] = 1
    image[30:38, 20:34] = 0.3
    return image * np.exp(0.5j * np.linspace(-1, 1, 44)).astype(np.complex64)


def make_scan(seed: int) -> Scan:
    return simulate_scan(head(), SIZE, np.random.default_rng(seed), coils=5)


def make_problem(rng: np.random.Generator, step: int = 0) -> Problem:
    del step
    return strip_problem(simulate_scan(head(), SIZE, rng, coils=5), ROWS, rng)


def tensors(problem: Problem) -> list[Tensor]:
    operator = problem.operator
    return [problem.kspace, operator.sensitivity_maps, operator.sampling_mask, problem.reference, problem.noise_level]


@pytest.mark.parametrize("seed", range(6))
def test_scan(seed: int) -> None:
    scan = make_scan(seed)
    assert scan.coil_images.shape == scan.sensitivity_maps.shape == (5, SIZE, SIZE)
    assert scan.reference.shape == (SIZE, SIZE)
    assert scan.coil_images.dtype == scan.sensitivity_maps.dtype == scan.reference.dtype == torch.complex64
    root_sum_of_squares = torch.linalg.vector_norm(scan.coil_images, dim=0)
    assert float(root_sum_of_squares.quantile(0.995)) == pytest.approx(1, rel=0.05)
    assert 0.001 <= scan.noise_level <= 0.03
    # Maps have unit norm or are zero, and the coil combination loses little of what the coils saw.
    norms = torch.linalg.vector_norm(scan.sensitivity_maps, dim=0)
    assert ((norms < 1e-6) | ((norms - 1).abs() < 1e-3)).all()
    kept = torch.linalg.vector_norm(scan.reference) / torch.linalg.vector_norm(scan.coil_images)
    assert 0.95 < float(kept) <= 1 + 1e-5
    silent = scan.coil_images.abs().amax((1, 2)) == 0
    assert int(silent.sum()) <= 1  # of five coils, four or more are active
    assert not scan.sensitivity_maps[silent].any()


def test_moving_a_problem_leaves_it_where_it_is() -> None:
    problem = make_problem(np.random.default_rng(3))
    before, operator = tensors(problem), problem.operator
    moved = problem.to("meta")
    assert all(tensor.is_meta for tensor in (*tensors(moved), *moved.operator.buffers()))
    assert problem.operator is operator
    assert all(tensor is kept for tensor, kept in zip(tensors(problem), before, strict=True))
    assert not any(buffer.is_meta for buffer in operator.buffers())


def test_draws_follow_the_seed() -> None:
    state = torch.get_rng_state()
    first, again, other = (make_problem(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(tensors(first), tensors(again), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.reference, other.reference)
    assert float(first.noise_level) != float(other.noise_level)


def test_problem_measures_its_reference() -> None:
    kinds = set()
    for seed in range(24):
        rng = np.random.default_rng(seed)
        problem = make_problem(rng)
        operator, level = problem.operator, float(problem.noise_level)
        assert problem.kspace.shape == (1, 5, ROWS, SIZE)
        assert problem.reference.shape == (1, ROWS, SIZE)
        mask = operator.sampling_mask
        kinds.add(tuple(mask.shape))
        sampled = mask.expand(1, ROWS, SIZE)[:, None].expand(problem.kspace.shape)
        assert not problem.kspace[~sampled].any()
        heard = (operator.sensitivity_maps.abs().amax((2, 3)) > 0)[..., None, None] & sampled
        difference = (problem.kspace - operator(problem.reference))[heard].abs().square().mean().sqrt()
        # At least the noise, and little more: the rest is what the estimated maps miss.
        assert 0.85 * level < float(difference) < 1.15 * level + 0.01
    assert kinds == {(1, 1, SIZE), (1, ROWS, SIZE)}


def test_stacked_problems() -> None:
    rng = np.random.default_rng(0)
    problems = [make_problem(rng) for _ in range(16)]
    together = stack_problems(problems)
    assert together.kspace.shape == (16, 5, ROWS, SIZE)
    assert together.noise_level.shape == (16,)
    predicted = together.operator(together.reference)
    for i, problem in enumerate(problems):
        torch.testing.assert_close(predicted[i], problem.operator(problem.reference)[0], rtol=1e-5, atol=1e-6)
        assert torch.equal(together.kspace[i], problem.kspace[0])


def test_masks() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = draw_mask(256, rng)
        assert mask.shape == (256,)
        assert mask.dtype == bool
        assert mask[126:130].all()
        assert 2.2 < 256 / mask.sum() < 11
