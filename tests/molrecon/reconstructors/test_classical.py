"""Reconstructions without training: CG-SENSE against a dense solve, L1-wavelet against what it starts from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from molrecon.reconstructors import classical
from molrecon.reconstructors.classical import CGSense, L1Wavelet, ZeroFilled
from molrecon.solvers.solver_settings import SolverSettings
from operators import Fourier, Sense, random_mask


def random_complex(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


MASKS: dict[str, Tensor] = {
    "1d mask": torch.tensor([1, 0, 1, 1]).reshape(1, 1, 4),
    "masks per sample": torch.tensor([[1, 0, 1, 1], [0, 1, 1, 0]]).reshape(2, 1, 4),
    "first axis": torch.tensor([1, 0, 1, 0, 1]).reshape(1, 5, 1),
    "2d mask": (torch.arange(20).reshape(1, 5, 4) % 3 > 0),
    "fully sampled": torch.ones(1, 1, 1),
}


def tikhonov(operator: Sense, kspace: Tensor, regularisation: float) -> Tensor:
    """Return `(A^H A + mu)^-1 A^H b`."""
    return solve(operator, operator.adjoint(kspace), regularisation)


def solve(operator: Sense, image: Tensor, regularisation: float) -> Tensor:
    """Return `(A^H A + mu)^-1 y` from matrices written out column by column."""
    n = image[0].numel()
    unit = torch.eye(n, dtype=image.dtype).reshape(n, *image.shape[1:])
    columns = [operator.normal(u.expand(image.shape)).flatten(1) for u in unit]
    matrix = torch.stack(columns, dim=2) + regularisation * torch.eye(n, dtype=image.dtype)
    return torch.linalg.solve(matrix, image.flatten(1)).reshape(image.shape)


@pytest.mark.parametrize("regularisation", [0.01, 1.0])
@pytest.mark.parametrize("maps_batch", [1, 2], ids=["shared maps", "maps per sample"])
@pytest.mark.parametrize("chunk_bytes", [1, 600, 2**20])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_cg_sense_is_tikhonov(
    mask: Tensor, chunk_bytes: int, maps_batch: int, regularisation: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classical, "CHUNK_BYTES", chunk_bytes)
    operator = Sense(random_complex(maps_batch, 3, 5, 4, seed=0), mask)
    kspace = operator(random_complex(2, 5, 4, seed=1)) + operator.sampling(random_complex(2, 3, 5, 4, seed=2))
    solution = CGSense(regularisation, solver=SolverSettings(tol=1e-12, max_steps=200))(kspace, operator)
    truth = tikhonov(operator, kspace, regularisation)
    assert solution.converged.all()
    assert solution.value.shape == (2, 5, 4)
    torch.testing.assert_close(solution.value, truth, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mask", [MASKS["1d mask"], MASKS["2d mask"]], ids=["in chunks", "as a whole"])
def test_cg_sense_is_differentiable_in_the_kspace(mask: Tensor) -> None:
    operator = Sense(random_complex(1, 3, 5, 4, seed=0), mask)
    kspace = operator(random_complex(2, 5, 4, seed=1)).requires_grad_()
    solution = CGSense(0.05, solver=SolverSettings(tol=1e-12, max_steps=200))(kspace, operator)
    assert not solution.error_bound.requires_grad
    seen = random_complex(2, 5, 4, seed=2)
    # Through conj(), the gradient arrives with torch's lazy conjugation.
    (gradient,) = torch.autograd.grad((solution.value.conj() * seen).real.sum(), kspace)
    torch.testing.assert_close(gradient, operator(solve(operator, seen, 0.05)), rtol=1e-8, atol=1e-8)


def test_cg_sense_in_three_dimensions() -> None:
    mask = (torch.arange(12).reshape(1, 1, 3, 4) % 3) > 0
    operator = Sense(random_complex(1, 3, 3, 3, 4, seed=0), mask)
    kspace = operator.sampling(random_complex(1, 3, 3, 3, 4, seed=2))
    solution = CGSense(0.1, solver=SolverSettings(tol=1e-12, max_steps=200))(kspace, operator)
    torch.testing.assert_close(solution.value, tikhonov(operator, kspace, 0.1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunk_bytes", [1, 2**20])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("tol", [1e-1, 1e-3, 1e-5, 0.0])
@pytest.mark.parametrize("mask", [MASKS["1d mask"], MASKS["2d mask"]], ids=["1d mask", "2d mask"])
def test_cg_sense_error_bound_bounds(
    mask: Tensor, tol: float, dtype: torch.dtype, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classical, "CHUNK_BYTES", chunk_bytes)
    operator = Sense(random_complex(2, 3, 5, 4, seed=0).to(dtype), mask)
    kspace = operator.sampling(random_complex(2, 3, 5, 4, seed=2).to(dtype))
    exact = Sense(operator.sensitivity_maps.to(torch.complex128), mask)
    truth = tikhonov(exact, kspace.to(torch.complex128), 0.01)
    solution = CGSense(0.01, solver=SolverSettings(tol=tol, max_steps=50))(kspace, operator)
    error = torch.linalg.vector_norm((solution.value - truth).flatten(1), dim=1)
    size = torch.linalg.vector_norm(solution.value.flatten(1), dim=1)
    assert solution.value.dtype == dtype
    assert (error <= solution.error_bound * size * (1 + 1e-6)).all()
    assert torch.equal(solution.residuals[-1], solution.error_bound)
    assert len(solution.residuals) == int(solution.n_steps.max()) + 1


def test_cg_sense_of_nothing_is_nothing() -> None:
    operator = Sense(random_complex(1, 3, 5, 4, seed=0), MASKS["1d mask"])
    solution = CGSense()(torch.zeros(1, 3, 5, 4, dtype=torch.complex128), operator)
    assert torch.equal(solution.value, torch.zeros(1, 5, 4, dtype=torch.complex128))
    assert solution.converged.all()
    assert float(solution.error_bound) == 0


def phantom(size: int) -> tuple[Tensor, Sense]:
    """Return an image of boxes (1, size, size) and a Sense operator of 4 smooth coils, 3x random, all complex64."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    image = ((y.abs() < 0.8) & (x.abs() < 0.7)).float()
    image = image + 0.5 * ((y - 0.2).abs() < 0.3) * (x.abs() < 0.2) - 0.6 * ((y + 0.5).abs() < 0.1) * (x.abs() < 0.5)
    places = [(1.2, 1.2), (1.2, -1.2), (-1.2, 1.2), (-1.2, -1.2)]
    magnitudes = torch.stack([1 / ((y - a) ** 2 + (x - b) ** 2 + 0.3) for a, b in places])
    maps = torch.polar(magnitudes, torch.stack([a * y - b * x for a, b in places]))
    maps = maps / torch.linalg.vector_norm(maps, dim=0)
    mask = torch.from_numpy(random_mask(size, 3, 0.12, 0))
    return image.to(torch.complex64)[None], Sense(maps[None], mask[None, None])


def scan(size: int = 64) -> tuple[Tensor, Tensor, Sense]:
    """Return image, noisy k-space and operator."""
    image, operator = phantom(size)
    noise = random_complex(1, 4, size, size, seed=0).to(torch.complex64)
    return image, operator.sampling(operator(image) + 0.01 * noise), operator


def test_zero_filled() -> None:
    _, kspace, operator = scan(16)
    assert torch.equal(ZeroFilled()(kspace, operator).value, operator.adjoint(kspace))


def global_generator() -> tuple[np.ndarray, int]:
    """Return the state of numpy's global generator."""
    state: dict[str, Any] = dict(np.random.get_state(legacy=False))  # noqa: NPY002
    return state["state"]["key"], state["state"]["pos"]


def test_l1_wavelet_beats_zero_filled() -> None:
    image, kspace, operator = scan()
    before, position = global_generator()
    solution = L1Wavelet(0.002, max_steps=40)(kspace, operator)
    after, position_after = global_generator()
    assert np.array_equal(before, after)
    assert position == position_after
    error = torch.linalg.vector_norm(ZeroFilled()(kspace, operator).value - image)
    assert torch.linalg.vector_norm(solution.value - image) < 0.8 * error
    assert solution.value.shape == image.shape
    assert solution.value.dtype == torch.complex64
    assert solution.kind == "none" and bool(solution.error_bound.isnan().all())
    assert solution.n_steps.tolist() == [40]


def test_l1_wavelet_sees_samples_one_by_one() -> None:
    image, operator = phantom(32)
    masks = torch.stack([torch.from_numpy(random_mask(32, 3, 0.12, seed)) for seed in (0, 1)])[:, None]
    both = Sense(operator.sensitivity_maps, masks)
    kspace = both(torch.cat([image, 3 * image]))
    together = L1Wavelet(max_steps=5)(kspace, both)
    for i in range(2):
        alone = L1Wavelet(max_steps=5)(kspace[i : i + 1], Sense(operator.sensitivity_maps, masks[i : i + 1]))
        torch.testing.assert_close(together.value[i], alone.value[0], rtol=1e-4, atol=1e-5)
    # The regularisation is relative, so the result follows the intensity.
    scaled = L1Wavelet(max_steps=5)(7 * kspace, both)
    torch.testing.assert_close(scaled.value, 7 * together.value, rtol=1e-3, atol=1e-4)


def test_l1_wavelet_of_nothing_is_nothing() -> None:
    _, operator = phantom(32)
    solution = L1Wavelet(max_steps=3)(torch.zeros(1, 4, 32, 32, dtype=torch.complex64), operator)
    assert torch.equal(solution.value, torch.zeros(1, 32, 32, dtype=torch.complex64))
    assert solution.converged.all()


def test_l1_wavelet_tells_when_it_has_converged() -> None:
    _, kspace, operator = scan(32)
    assert not L1Wavelet(0.005, max_steps=2)(kspace, operator).converged.any()
    assert L1Wavelet(0.005, max_steps=150)(kspace, operator).converged.all()


@pytest.mark.parametrize("regularisation", [0.0, -1.0, float("nan")])
def test_regularisation_must_be_positive(regularisation: float) -> None:
    with pytest.raises(ValueError, match=r"CGSense: regularisation is .*, expected a positive number"):
        CGSense(regularisation)
    with pytest.raises(ValueError, match=r"L1Wavelet: regularisation is .*, expected a positive number"):
        L1Wavelet(regularisation)


def test_l1_wavelet_wants_sense() -> None:
    with pytest.raises(TypeError, match=r"L1Wavelet: operator is Fourier, expected Sense"):
        L1Wavelet()(torch.zeros(1, 4, 8, 8, dtype=torch.complex64), Fourier(2))


def test_cg_sense_has_no_iterates_to_report() -> None:
    kspace = torch.zeros(1, 2, 4, 4, dtype=torch.complex64)
    operator = Sense(torch.ones(1, 2, 4, 4, dtype=torch.complex64), torch.ones(1, 1, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="CGSense: got on_step"):
        CGSense()(kspace, operator, solver=SolverSettings(on_step=lambda iterate: None))


def test_cg_sense_hands_over_its_last_residual() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 8, 8, dtype=torch.complex128, generator=generator) / 3
    operator = Sense(maps, torch.rand(1, 1, 8, generator=generator) < 0.7)
    kspace = operator(torch.randn(2, 8, 8, dtype=torch.complex128, generator=generator))
    solution = CGSense(0.1)(kspace, operator, solver=SolverSettings(tol=1e-3, keep_residual=True))
    x = solution.value
    assert solution.last_residual is not None and CGSense(0.1)(kspace, operator).last_residual is None
    torch.testing.assert_close(solution.last_residual, operator.adjoint(kspace) - operator.normal(x) - 0.1 * x)
    assert 0 < float(solution.last_residual.abs().amax()) < 1e-2 * float(x.abs().amax())


@pytest.mark.parametrize("unit", [1e-23, 1e20])
def test_cg_sense_in_any_units(unit: float) -> None:
    _, kspace, operator = scan()
    method = CGSense(1e-2).eval()
    plain, other = method(kspace, operator), method(unit * kspace, operator)
    torch.testing.assert_close(other.value / unit, plain.value, rtol=1e-4, atol=1e-5)
    assert bool((other.error_bound > 0).all())
