"""Two sets of maps: one image for each, the same constants, and better where one set is wrong."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from molrecon.guarantees.checks import check_decrease, check_equilibrium
from molrecon.io import read_npy
from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.defaults import DEFAULT_MODEL
from molrecon.reconstructors.guiding import GUIDE_CHANNELS
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.reconstructors.mol import MOL
from molrecon.solvers.batched import norm
from molrecon.training.models import build
from molrecon.weights import load
from operators import Sense, SoftSense, espirit, random_mask
from operators.calibration import calibration_region


def model(*, guided: bool = False) -> MOL:
    settings = {"monotonicity": 0.1, "channels": 3, "features": 4, "levels": 2, "cycles": 1}
    first = MOL(ResidualNetwork(**settings, seed=1), data_weight=20.0)  # type: ignore[arg-type]
    if not guided:
        return first.eval()
    network = ResidualNetwork(guide_channels=GUIDE_CHANNELS, **settings)  # type: ignore[arg-type]
    assert network.guide is not None
    with torch.no_grad():
        for parameter in network.guide.heads.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    return MOL(network, first=first, data_weight=20.0).eval()


def problem(dtype: torch.dtype = torch.complex64, sets: int = 2) -> tuple[Tensor, SoftSense]:
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(1, sets, 4, 16, 12, dtype=torch.complex128, generator=generator)
    maps = torch.linalg.qr(maps.movedim((1, 2), (-1, -2)))[0].movedim((-1, -2), (1, 2))
    operator = SoftSense(maps.to(dtype), torch.from_numpy(random_mask(12, 2, 0.3, 1)))
    image = torch.randn(2, sets, 16, 12, dtype=torch.complex128, generator=generator).to(dtype)
    return operator(image), operator


@pytest.mark.parametrize("guided", [False, True])
@torch.no_grad()
def test_the_equilibrium_of_two_sets_is_certified(guided: bool) -> None:
    mol = model(guided=guided)
    kspace, operator = problem()
    solution = mol(kspace, operator, 0.02)
    assert solution.value.shape == (2, 2, 16, 12) and solution.kind == "certified" and bool(solution.converged.all())
    conditioning = mol.condition(kspace[:1], operator, 0.02)
    assert not check_equilibrium(mol, kspace[:1], operator, conditioning).violated
    assert not check_decrease(mol, kspace[:1], operator, conditioning).violated
    change = operator.sampling(0.05 * torch.randn(kspace[:1].shape, dtype=kspace.dtype))
    one, other = (mol(b, operator, conditioning=conditioning) for b in (kspace[:1], kspace[:1] + change))
    bound = mol.change_bound(conditioning, operator, change)
    assert bound is not None
    errors = sum(s.error_bound * norm(s.value) for s in (one, other))
    assert bool((norm(one.value - other.value) <= bound + errors).all())


@torch.no_grad()
def test_one_set_is_the_model_of_one_image() -> None:
    mol = model()
    kspace, operator = problem(sets=1)
    plain = Sense(operator.sensitivity_maps[:, 0], operator.sampling_mask)
    conditioning, of_plain = (mol.condition(kspace, A, 0.02) for A in (operator, plain))
    torch.testing.assert_close(conditioning.phase[:, 0], of_plain.phase)
    torch.testing.assert_close(conditioning.scale, of_plain.scale)
    soft, single = (mol(kspace, A, 0.02).value for A in (operator, plain))
    torch.testing.assert_close(soft[:, 0], single, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["modl", "admm-net", "varnet", "unet", "de-grad"])
@torch.no_grad()
def test_other_learned_methods_have_an_image_for_each_set(kind: str) -> None:
    method = build(kind, seed=1).eval()
    kspace, operator = problem(sets=1)
    plain = Sense(operator.sensitivity_maps[:, 0], operator.sampling_mask)
    soft, single = (method(kspace, A, 0.02).value for A in (operator, plain))
    torch.testing.assert_close(soft[:, 0], single, rtol=1e-3, atol=1e-4)
    kspace, operator = problem(sets=2)
    assert method(kspace, operator, 0.02).value.shape == (2, 2, 16, 12)


def test_the_gradient_is_that_of_the_equilibrium() -> None:
    mol = model().double()
    mol.solver = replace(mol.solver, tol=1e-11, backward_tol=1e-11, max_steps=500, backward_max_steps=500)
    kspace, operator = problem(torch.complex128)
    conditioning = mol.condition(kspace, operator, 0.02)
    generator = torch.Generator().manual_seed(2)
    direction = operator.sampling(torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator))

    def loss(b: Tensor) -> Tensor:
        return mol(b, operator, conditioning=conditioning).value.abs().square().sum()

    b = kspace.clone().requires_grad_()
    loss(b).backward()
    assert b.grad is not None
    with torch.no_grad():
        up, down = (float(loss(kspace + s * 1e-6 * direction)) for s in (1, -1))
    assert float((b.grad.conj() * direction).real.sum()) == pytest.approx((up - down) / 2e-6, rel=1e-4)


def test_images_of_other_kinds_are_told() -> None:
    kspace, operator = problem()
    conditioning = model().condition(kspace, Sense(operator.sensitivity_maps[:, 0], operator.sampling_mask), 0.02)
    with pytest.raises(ValueError, match=r"\(batch, set, \*spatial\), expected 2 spatial axes"):
        model()(kspace, operator, conditioning=conditioning)


@pytest.mark.skipif("MOLRECON_DATA" not in os.environ, reason="needs measured data (MOLRECON_DATA)")
@pytest.mark.parametrize("name", [DEFAULT_MODEL, "admm-net-2d"])
@torch.no_grad()
def test_a_head_that_is_folded_into_its_field_of_view(name: str) -> None:
    """Every second phase-encode line of a real head, taken as all of them: the coil model of one set is wrong."""
    full = read_npy(Path(os.environ["MOLRECON_DATA"]) / "mri" / "brain_mprage_8ch_230x180_ksp_c64.npy")
    kspace = torch.from_numpy(full.kspace[..., ::2].copy())
    mask = torch.from_numpy(random_mask(kspace.shape[-1], 2, 24 / kspace.shape[-1], 0))[None, None]
    measured = kspace * mask
    region = calibration_region(measured, mask)
    method = load(name, LearnedReconstructor)
    solver = None if method.solver is None else replace(method.solver, tol=1e-2)
    reference = torch.linalg.vector_norm(torch.fft.ifft2(torch.fft.ifftshift(kspace, (-2, -1)), norm="ortho"), dim=1)
    psnr = {}
    for sets in (1, 2):
        maps = espirit(region, (kspace.shape[-2], kspace.shape[-1]), n_maps=2).maps[:, :sets]
        operator = SoftSense(maps, mask)
        solution = method(measured, operator, solver=solver)
        assert solution.kind == ("none" if solver is None else "certified") and bool(solution.converged.all())
        coils = (maps * solution.value[:, :, None]).sum(1)
        image = torch.fft.ifftshift(torch.linalg.vector_norm(coils, dim=1), (-2, -1))
        error = (image - reference).square().mean().sqrt()
        psnr[sets] = float(20 * torch.log10(reference.max() / error))
    assert psnr[2] > psnr[1] + 2, psnr
