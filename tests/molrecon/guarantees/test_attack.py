"""The worst case of a linear reconstruction is known: its largest singular vector."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from molrecon.guarantees.attack import worst_case_kspace

N = 7


def complex_normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


MATRICES = complex_normal(3, N, N)
KSPACE = complex_normal(3, N, seed=1)
SAMPLED = torch.arange(N) % 2 == 0


def linear(kspace: Tensor) -> Tensor:
    return (MATRICES @ kspace[..., None])[..., 0]


def keep_sampled(kspace: Tensor) -> Tensor:
    return kspace * SAMPLED


def test_finds_the_largest_singular_value_within_the_ball() -> None:
    radius = torch.tensor([0.1, 2.0, 0.0], dtype=torch.float64)
    attack = worst_case_kspace(linear, KSPACE, radius, 200, generator=generator())
    largest = torch.linalg.matrix_norm(MATRICES, ord=2) * radius
    torch.testing.assert_close(attack.change, largest, rtol=1e-6, atol=1e-12)
    assert (torch.linalg.vector_norm(attack.perturbation, dim=1) <= radius * (1 + 1e-12)).all()
    moved = linear(KSPACE + attack.perturbation) - linear(KSPACE)
    torch.testing.assert_close(torch.linalg.vector_norm(moved, dim=1), attack.change, rtol=1e-9, atol=1e-12)
    assert attack.history.shape == (201, 3)
    assert torch.equal(attack.history.amax(0), attack.change)


def test_only_sampled_positions_are_perturbed() -> None:
    attack = worst_case_kspace(linear, KSPACE, 1.0, 200, generator=generator(), project=keep_sampled)
    assert (attack.perturbation[:, ~SAMPLED] == 0).all()
    largest = torch.linalg.matrix_norm(MATRICES[..., SAMPLED], ord=2)
    torch.testing.assert_close(attack.change, largest, rtol=1e-6, atol=0)


def test_away_from_a_reference() -> None:
    reference = linear(KSPACE) + complex_normal(3, N, seed=2)
    attack = worst_case_kspace(
        linear, KSPACE, 0.5, 20, generator=generator(), reference=reference, start=torch.ones_like(KSPACE)
    )
    before = torch.linalg.vector_norm(linear(KSPACE) - reference, dim=1)
    assert (attack.change > before).all()
    assert (attack.change <= before + 0.5 * torch.linalg.matrix_norm(MATRICES, ord=2)).all()


def test_samples_and_seeds() -> None:
    state = torch.get_rng_state()
    first, same = (worst_case_kspace(linear, KSPACE, 1.0, 5, generator=generator(3)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.perturbation, same.perturbation)
    start = complex_normal(3, N, seed=4)
    together = worst_case_kspace(linear, KSPACE, 1.0, 5, generator=generator(), start=start)
    start[1:] = 1
    alone = worst_case_kspace(linear, KSPACE, 1.0, 5, generator=generator(), start=start)
    torch.testing.assert_close(together.perturbation[0], alone.perturbation[0])


def test_parameters_get_no_gradient() -> None:
    gain = torch.ones((), dtype=torch.float64, requires_grad=True)
    worst_case_kspace(lambda b: gain * linear(b), KSPACE, 1.0, 2, generator=generator())
    assert gain.grad is None


def test_bad_input_is_refused() -> None:
    for radius, steps, step_size in ((-1.0, 3, 1.0), (1.0, 0, 1.0), (1.0, 3, 0.0)):
        with pytest.raises(ValueError, match=r"worst_case_kspace: got radius .*, expected a radius of at least 0"):
            worst_case_kspace(linear, KSPACE, radius, steps, generator=generator(), step_size=step_size)
    with pytest.raises(ValueError, match=r"worst_case_kspace: the reconstruction is not finite"):
        worst_case_kspace(lambda b: linear(b) / 0, KSPACE, 1.0, 2, generator=generator())
