"""Noise in the image by the derivative: against differences, against the covariance, against pseudo-replicas."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from molrecon.networks import PlainNetwork, ResidualNetwork
from molrecon.reconstructors.admm_net import ADMMNet
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.classical import CGSense, L1Wavelet, ZeroFilled
from molrecon.reconstructors.guiding import GUIDE_CHANNELS
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.reconstructors.modl import MoDL
from molrecon.reconstructors.mol import MOL
from molrecon.reconstructors.noise_amplification import acceleration, noise_deviation, noise_responses
from molrecon.reconstructors.post_processing import PostProcessing
from molrecon.reconstructors.unrolled import UnrolledReconstructor
from molrecon.reconstructors.varnet import VarNet
from molrecon.solvers.solver_settings import SolverSettings
from operators import Sense, SoftSense, random_mask

SIGMA = 0.01
TIGHT = SolverSettings(tol=1e-10, max_steps=300, backward_tol=1e-9)


def make_problem(
    shape: tuple[int, int] = (12, 16), places: Sequence[tuple[float, float]] = ((-1, 0), (1, 0), (0, 1), (0, -1))
) -> tuple[Tensor, Sense]:
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, n, dtype=torch.float64) for n in shape], indexing="ij")
    coils = [torch.exp(-((y - a) ** 2) - (x - b) ** 2 + 1j * a * x) for a, b in places]
    maps = torch.stack(coils) / torch.stack(coils).abs().square().sum(0).sqrt()
    operator = Sense(maps[None], torch.from_numpy(random_mask(shape[1], 3, 0.2, 1))[None, None])
    image = torch.exp(-3 * (y**2 + x**2)) * torch.exp(1j * x) + 0.3 * (y.abs() < 0.3)
    noise = torch.randn(1, len(places), *shape, dtype=torch.complex128, generator=generator)
    return operator.sampling(operator(image[None]) + SIGMA * noise), operator


def network(guide: bool, seed: int) -> ResidualNetwork:
    channels = GUIDE_CHANNELS if guide else 0
    denoiser = ResidualNetwork(
        monotonicity=0.2, channels=3, features=8, levels=2, cycles=2, seed=seed, guide_channels=channels
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return denoiser


def model(kind: str) -> Reconstructor:
    if kind == "cg-sense":
        return CGSense(0.02, solver=replace(TIGHT, tol=1e-10))
    if kind == "zero-filled":
        return ZeroFilled()
    plain, admm_net = MOL(network(False, 3), data_weight=20.0, solver=TIGHT), ADMMNet(network(False, 3), n_unrolls=4)
    reconstructors: dict[str, LearnedReconstructor] = {
        "mol": plain,
        "mol guided": MOL(network(True, 4), first=plain, data_weight=20.0, solver=TIGHT),
        "mol guided by an unrolled one": MOL(network(True, 4), first=admm_net, data_weight=20.0, solver=TIGHT),
        "modl": MoDL(network(False, 3), n_unrolls=3),
        "varnet": VarNet(network(False, 3), n_unrolls=3),
        "admm-net": admm_net,
    }
    return reconstructors[kind].double().eval()


LEARNED = ("mol", "mol guided", "mol guided by an unrolled one", "modl", "varnet", "admm-net")


@pytest.fixture
def exact_guides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a guide is made of be solved as exactly as the rest, so that differences show nothing else."""
    monkeypatch.setattr("molrecon.reconstructors.guiding.FIRST_TOL", 1e-10)
    monkeypatch.setattr("molrecon.reconstructors.guiding.SENSE_TOL", 1e-10)
    monkeypatch.setattr("molrecon.reconstructors.guiding.SENSE_STEPS", 300)
    monkeypatch.setattr(UnrolledReconstructor, "inner_tol", 1e-10)
    monkeypatch.setattr(UnrolledReconstructor, "inner_steps", 300)
    monkeypatch.setattr("molrecon.reconstructors.unrolled.RESPONSE_TOL", 1e-10)
    monkeypatch.setattr("molrecon.reconstructors.unrolled.RESPONSE_STEPS", 300)


@pytest.mark.usefixtures("exact_guides")
@pytest.mark.parametrize("kind", ["zero-filled", "cg-sense", *LEARNED, "mol guided, many coils"])
def test_the_response_is_the_slope_of_the_image(kind: str) -> None:
    many = [(math.cos(angle), math.sin(angle)) for angle in range(10)]
    kind, _, coils = kind.partition(", ")
    kspace, operator = make_problem(places=many) if coils else make_problem()
    method = model(kind)
    conditioning = method.condition(kspace, operator, SIGMA)
    with torch.no_grad():
        image = method(kspace, operator, conditioning=conditioning).value
        generator = torch.Generator().manual_seed(5)
        change = operator.sampling(torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator))
        step = 1e-5
        ends = [method(kspace + s * step * change, operator, conditioning=conditioning).value for s in (1, -1)]
    respond = method.response(operator, conditioning, image, kspace)
    assert respond is not None
    found = respond(change)
    difference = (ends[0] - ends[1]) / (2 * step)
    assert float((found.value - difference).norm() / difference.norm()) < 2e-3  # kinks of rectifiers on the way
    assert bool(found.converged.all())
    assert not found.value.requires_grad


def test_the_deviation_of_cg_sense_is_that_of_its_covariance() -> None:
    kspace, operator = make_problem((6, 8))
    method = model("cg-sense")
    basis = torch.eye(48, dtype=torch.complex128).reshape(48, 6, 8)
    normal = torch.stack([operator.normal(e[None]).flatten() for e in basis], 1)
    inverse = torch.linalg.inv(normal + 0.02 * torch.eye(48))
    exact = SIGMA * (inverse @ normal @ inverse.mH).diagonal().real.sqrt().reshape(6, 8)
    image = method(kspace, operator).value
    probes = 400
    generator = torch.Generator().manual_seed(1)
    found = noise_deviation(method, operator, kspace, SIGMA, image, probes=probes, generator=generator)[0]
    assert float(((found / exact - 1).abs() * 2 * probes**0.5).max()) < 4.5  # of the standard error, in 48 pixels


def agreement(one: Tensor, other: Tensor, draws: int) -> tuple[float, float]:
    """Return the mean of the differences of two estimates from as many draws, and their size, in standard errors.

    A response that is as large in the real as in the imaginary part has 2 draws degrees of freedom, one that lies in
    one of them has half as many: the size is between 1 and sqrt(2).
    """
    difference = (one / other).log() / (2 / (4 * draws)) ** 0.5
    return float(difference.mean()), float(difference.square().mean().sqrt())


@pytest.mark.usefixtures("exact_guides")
@pytest.mark.parametrize("kind", ["cg-sense", "mol", "mol guided"])
def test_the_deviation_is_that_of_pseudo_replicas(kind: str) -> None:
    kspace, operator = make_problem((8, 12))
    method = model(kind)
    conditioning = method.condition(kspace, operator, SIGMA)
    draws, sigma, rough = (
        30,
        0.1 * SIGMA,
        SolverSettings(tol=1e-6, max_steps=300),
    )  # small, but finite: the first order holds, and every replica is solved anew
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        image = method(kspace, operator, conditioning=conditioning).value
        replicas = []
        for _ in range(draws):
            noise = operator.sampling(sigma * torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator))
            replicas.append(method(kspace + noise, operator, conditioning=conditioning, solver=rough).value)
    measured = torch.stack(replicas).sub(image).abs().square().mean(0).sqrt()
    found = noise_deviation(
        method, operator, kspace, sigma, image, conditioning=conditioning, probes=draws, generator=generator
    )
    mean, size = agreement(found, measured, draws)
    assert abs(mean) < 0.5  # neighbouring pixels are not independent, so that the mean does not vanish
    assert 0.7 < size < 1.5


@pytest.mark.parametrize("sets", [1, 2])
def test_the_response_of_an_unrolled_network_as_it_is_used(sets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In single precision, of a batch, with sets of maps and a plain network: the slope of exact stages."""
    kspace, operator = make_problem()
    maps = operator.sensitivity_maps
    plain = PlainNetwork(layers=3, features=4, seed=1)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.mul_(0.5)
    method, exact = ADMMNet(plain, n_unrolls=3).eval(), ADMMNet(copy.deepcopy(plain), n_unrolls=3).double().eval()

    def acquisition(dtype: torch.dtype) -> Sense | SoftSense:
        if sets == 1:
            return Sense(maps.to(dtype), operator.sampling_mask)
        return SoftSense(torch.stack([maps, maps.flip(1)], 1).to(dtype) / 2**0.5, operator.sampling_mask)

    data = torch.cat([kspace, 2 * kspace])
    conditioning = exact.condition(data, acquisition(data.dtype), SIGMA)
    change = 1e-4 * torch.randn(data.shape, dtype=data.dtype, generator=torch.Generator().manual_seed(4))
    narrow, change_in_single = acquisition(torch.complex64), change.to(torch.complex64)
    image = method(data.to(torch.complex64), narrow, conditioning=conditioning).value
    found = method.response(narrow, conditioning, image, data.to(torch.complex64))(change_in_single).value
    monkeypatch.setattr(UnrolledReconstructor, "inner_tol", 1e-11)
    monkeypatch.setattr(UnrolledReconstructor, "inner_steps", 300)
    with torch.no_grad():
        ends = [exact(data + s * change, acquisition(data.dtype), conditioning=conditioning).value for s in (1, -1)]
    difference = (ends[0] - ends[1]) / 2
    assert found.dtype == torch.complex64 and found.shape == image.shape
    # The points at which H is differentiated are those of inexact stages; a noise map of 16 probes is off by 0.18.
    assert float((found - difference).norm() / difference.norm()) < 0.12


def test_noise_in_single_precision_goes_through_a_scan_of_two_slices() -> None:
    kspace, operator = make_problem()
    both = Sense(operator.sensitivity_maps.expand(2, -1, -1, -1).to(torch.complex64), operator.sampling_mask)
    method = MOL(network(False, 3)).eval()
    data = torch.cat([kspace, 2 * kspace]).to(torch.complex64)
    with torch.no_grad():
        image = method(data, both, SIGMA).value
    responses = list(noise_responses(method, both, data, torch.tensor([SIGMA, 2 * SIGMA]), image, probes=2))
    assert [one.shape for one in responses] == [image.shape] * 2 and responses[0].dtype == torch.complex64


def test_what_is_not_known_is_said() -> None:
    kspace, operator = make_problem()
    image = operator.adjoint(kspace)
    with pytest.raises(ValueError, match="L1Wavelet does not tell the derivative"):
        next(noise_responses(L1Wavelet(), operator, kspace, SIGMA, image))
    unknown = MOL(network(True, 4), first=PostProcessing(network(False, 3))).double().eval()
    with pytest.raises(ValueError, match="MOL does not tell the derivative"):
        next(noise_responses(unknown, operator, kspace, SIGMA, image))
    with pytest.raises(ValueError, match="0 probes, expected at least one"):
        next(noise_responses(ZeroFilled(), operator, kspace, SIGMA, image, probes=0))


def test_acceleration_counts_samples() -> None:
    _, operator = make_problem()
    assert float(acceleration(operator)) == pytest.approx(16 / int(operator.sampling_mask.sum()))
