"""A method of planes on volumes and series: one by one, with one bound together, and as the guide of a 3D model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from molrecon.networks import PlainNetwork, ResidualNetwork
from molrecon.reconstructors.guiding import GUIDE_CHANNELS
from molrecon.reconstructors.mol import MOL
from molrecon.reconstructors.planes import PlaneByPlane
from molrecon.solvers.solver_settings import SolverSettings
from molrecon.weights import load, save
from operators import Sense, SoftSense, centred_ifft

SHAPE = (3, 12, 10)  # positions, rows, columns
M = 0.3


def planes() -> MOL:
    network = ResidualNetwork(ndim=2, monotonicity=M, channels=2, features=4, levels=1, cycles=1)
    return MOL(network, solver=SolverSettings(tol=1e-5)).eval()


def volumes(first: PlaneByPlane) -> MOL:
    network = ResidualNetwork(
        ndim=3, monotonicity=M, channels=2, features=4, levels=1, cycles=1, guide_channels=GUIDE_CHANNELS
    )
    return MOL(network, first=first, solver=SolverSettings(tol=1e-5)).eval()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def scan(fourier_ndim: int, batch: int = 1) -> tuple[Sense, Tensor]:
    """Half of the columns; with three Fourier axes of a volume, with two of a series, other ones in each frame."""
    mask = torch.rand(1, 1 if fourier_ndim == 3 else SHAPE[0], 1, SHAPE[2], generator=torch.Generator().manual_seed(1))
    maps = random(1, 2, *SHAPE)
    operator = Sense(maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True), mask < 0.5, fourier_ndim)
    return operator, operator(random(batch, *SHAPE, seed=2))


@pytest.mark.parametrize("fourier_ndim", [2, 3])
def test_each_plane_is_reconstructed_by_itself_and_all_have_one_bound(fourier_ndim: int) -> None:
    operator, kspace = scan(fourier_ndim, batch=2)
    model, method = planes(), PlaneByPlane(planes()).eval()
    conditioning = method.condition(kspace, operator, 0.01)
    solution = method(kspace, operator, conditioning=conditioning)
    assert solution.value.shape == (2, *SHAPE) and solution.kind == "certified" and bool(solution.converged.all())
    apart = centred_ifft(kspace, (2,)) if fourier_ndim == 3 else kspace
    squares = torch.zeros(2)
    for k in range(SHAPE[0]):
        one = type(conditioning)(conditioning.scale, conditioning.noise_level, conditioning.phase[:, k])
        plane = model(apart[:, :, k], operator.decoupled(k, k + 1, 2), conditioning=one)
        torch.testing.assert_close(solution.value[:, k], plane.value)
        squares += (plane.error_bound * plane.value.abs().square().sum((1, 2)).sqrt()).square()
    size = solution.value.abs().square().sum((1, 2, 3)).sqrt()
    torch.testing.assert_close(solution.error_bound, (squares.sqrt() / size).to(solution.error_bound))


def test_planes_in_sets() -> None:
    maps = random(1, 2, 2, *SHAPE)
    operator = SoftSense(
        maps / torch.linalg.vector_norm(maps, dim=2, keepdim=True) / 2**0.5, torch.ones(1, 1, 1, 10), 2
    )
    kspace = operator(random(1, 2, *SHAPE, seed=2))
    solution = PlaneByPlane(planes()).eval()(kspace, operator, 0.01)
    assert solution.value.shape == (1, 2, *SHAPE) and solution.kind == "certified"


def test_a_model_of_volumes_is_guided_by_planes_and_stored_with_them(tmp_path: Path) -> None:
    operator, kspace = scan(3)
    model = volumes(PlaneByPlane(planes()))
    assert model.certificate().kind == "certified"
    conditioning = model.condition(kspace, operator, 0.01)
    assert conditioning.guide is not None
    first = PlaneByPlane(planes()).eval()(kspace, operator, conditioning=conditioning).value
    shown = torch.view_as_complex(conditioning.guide[:, :2].movedim(1, -1).contiguous())
    torch.testing.assert_close(shown * conditioning.phase * conditioning.scale, first, rtol=0, atol=5e-2)
    solution = model(kspace, operator, conditioning=conditioning)
    assert solution.kind == "certified" and float(solution.error_bound) <= 1e-5
    save(model, tmp_path / "guided.safetensors", {})
    again = load(tmp_path / "guided.safetensors", MOL).eval()
    assert isinstance(again.first, PlaneByPlane)
    torch.testing.assert_close(again(kspace, operator, 0.01).value, solution.value, rtol=0, atol=2e-3)


def test_what_is_no_stack_of_planes_is_refused() -> None:
    with pytest.raises(ValueError, match="MOL has 3 axes, expected one of planes"):
        PlaneByPlane(volumes(PlaneByPlane(planes())))
    plain = PlaneByPlane(MOL(PlainNetwork(features=2))).eval()
    with pytest.raises(ValueError, match="expected Sense or SoftSense of three spatial axes"):
        plain(random(1, 2, *SHAPE[1:]), Sense(random(1, 2, *SHAPE[1:]), torch.ones(1, 1, SHAPE[2])), 0.01)
    mask = torch.zeros(1, *SHAPE, dtype=torch.bool)
    mask[:, 0, ::2] = mask[:, 1] = True
    with pytest.raises(ValueError, match="the first of the three axes is undersampled, expected time"):
        plain(random(1, 2, *SHAPE), Sense(random(1, 2, *SHAPE), mask), 0.01)
