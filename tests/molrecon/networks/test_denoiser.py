"""Denoisers as callables, and modules of one's own as denoisers: used in an equilibrium, believed but not certified."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from molrecon.networks import Denoiser, ResidualNetwork
from molrecon.networks.denoiser import from_channels, to_channels
from molrecon.reconstructors.mol import MOL
from tests.molrecon.reconstructors.test_mol import make_problem, norms


class Half(nn.Module):
    """H(x) = x / 2: known to contract by one half."""

    def forward(self, image: Tensor) -> Tensor:
        return image / 2


def test_a_network_is_called_on_real_and_on_complex_images() -> None:
    network = ResidualNetwork(monotonicity=0.1, channels=3, features=4, levels=2, cycles=1).eval()
    image = torch.randn(2, 8, 6, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    levels = torch.tensor([0.01, 0.02])
    with torch.no_grad():
        expected = network.denoiser(levels)(to_channels(image))
        torch.testing.assert_close(network(to_channels(image), levels), expected, rtol=0, atol=0)
        torch.testing.assert_close(network(image, levels), from_channels(expected), rtol=0, atol=0)
        torch.testing.assert_close(network(image.conj(), 0.01)[:1], network(image.conj()[:1], 0.01))
    with pytest.raises(ValueError, match=r"ResidualNetwork: image \(2, 3, 8, 6\)"):
        network(torch.zeros(2, 3, 8, 6), 0.01)


def test_a_module_of_ones_own_reconstructs() -> None:
    kspace, operator, _ = make_problem(shape=(12, 10))
    model = MOL(Denoiser.from_module(Half(), lipschitz=0.5), data_weight=20.0).double().eval()
    assert not model.network.certified and model.certificate().kind == "estimated"
    assert model.certificate().monotonicity == 0.5
    conditioning = model.condition(kspace, operator, 0.01)
    with torch.no_grad():
        solution = model(kspace, operator, conditioning=conditioning, solver=replace(model.solver, tol=1e-10))
    assert solution.kind == "estimated" and bool(solution.converged.all())
    weight = model.data_weight(conditioning.noise_level).detach()[:, None, None]
    residual = solution.value / 2 - solution.value + weight * operator.adjoint(kspace - operator(solution.value))
    assert (norms(residual) <= 1e-8 * norms(solution.value)).all()


@pytest.mark.parametrize(
    ("lipschitz", "monotonicity"), [(None, None), (1.0, None), (-0.1, None), (0.9, 0.2), (None, 0.0), (None, 1.5)]
)
def test_numbers_that_do_not_fit_are_refused(lipschitz: float | None, monotonicity: float | None) -> None:
    with pytest.raises(ValueError, match=r"Denoiser\.from_module: got lipschitz"):
        Denoiser.from_module(Half(), lipschitz=lipschitz, monotonicity=monotonicity)


def test_a_module_that_changes_the_shape_is_named() -> None:
    with pytest.raises(ValueError, match="MaxPool2d returned"):
        Denoiser.from_module(nn.MaxPool2d(2), monotonicity=0.1)(torch.zeros(1, 2, 4, 4), 0.01)


def test_what_is_printed_is_short() -> None:
    kspace, operator, _ = make_problem(shape=(12, 10))
    model = MOL(Denoiser.from_module(Half(), lipschitz=0.5), data_weight=20.0).double().eval()
    with torch.no_grad():
        solution = model(kspace, operator, 0.01)
    assert repr(solution).startswith("Solution(value (2, 12, 10) complex128, estimated error_bound <= ")
    assert "data_weight=20, monotonicity=0.5, phase_reference=True, parameters=3" in repr(model)
