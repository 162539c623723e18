"""Noise in images of samples on a trajectory: against the covariance, against pseudo-replicas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.classical import CGSense
from molrecon.reconstructors.mol import MOL
from molrecon.reconstructors.noise_amplification import acceleration, noise_deviation
from molrecon.solvers.solver_settings import SolverSettings
from operators import (
    Identity,
    NonCartesianSense,
    WeightedSense,
    density_compensation,
    density_weighted,
    radial_trajectory,
)

SIGMA, SIZE, MU = 0.01, 8, 0.02
TIGHT = SolverSettings(tol=1e-7, max_steps=300, backward_tol=1e-3)
GOAL = SolverSettings(tol=1e-5, max_steps=300)


def make_problem() -> tuple[Tensor, NonCartesianSense, Tensor]:
    """Return samples of spokes twice as dense along themselves as the grid is, their acquisition and weights."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, SIZE, dtype=torch.float64)] * 2, indexing="ij")
    coils = [torch.exp(-((y - a) ** 2) - (x - b) ** 2 + 1j * a * x) for a, b in ((-1, 0), (1, 0), (0, 1), (0, -1))]
    maps = torch.stack(coils) / torch.stack(coils).abs().square().sum(0).sqrt()
    points = radial_trajectory(9, 2 * SIZE, SIZE)
    operator = NonCartesianSense(maps[None], points)
    kspace = operator((torch.exp(-3 * (y**2 + x**2)) * torch.exp(1j * x))[None])
    noise = torch.randn(kspace.shape, dtype=kspace.dtype, generator=torch.Generator().manual_seed(0))
    return kspace + SIGMA * noise, operator, density_compensation(points, (SIZE, SIZE))


def model(kind: str) -> Reconstructor:
    if kind == "cg-sense":
        return CGSense(MU, solver=GOAL)
    network = ResidualNetwork(monotonicity=0.2, channels=3, features=6, levels=2, cycles=1, seed=3)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return MOL(network, data_weight=20.0, solver=TIGHT).double().eval()


@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "plain"])
def test_the_deviation_of_cg_sense_is_that_of_its_covariance(weighted: bool) -> None:
    kspace, plain, weights = make_problem()
    pair = density_weighted(kspace, plain, weights)
    method, data, operator = (
        (model("cg-sense"), pair.kspace, pair.operator) if weighted else (model("cg-sense"), kspace, plain)
    )
    basis = torch.eye(SIZE**2, dtype=torch.complex128).reshape(-1, SIZE, SIZE)
    matrix = torch.stack([plain(e[None]).flatten() for e in basis], 1)
    w = (weights[:, None].expand(kspace.shape) if weighted else torch.ones(kspace.shape)).flatten()
    inverse = torch.linalg.inv(matrix.mH @ (w[:, None] * matrix) + MU * torch.eye(SIZE**2))
    exact = SIGMA * torch.linalg.vector_norm(inverse @ matrix.mH * w, dim=1).reshape(SIZE, SIZE)
    probes = 50
    found = noise_deviation(
        method,
        operator,
        data,
        SIGMA,
        method(data, operator).value,
        probes=probes,
        generator=torch.Generator().manual_seed(1),
    )
    assert float(((found[0] / exact - 1).abs() * 2 * probes**0.5).max()) < 4.5  # of the standard error, in 64 pixels


@pytest.mark.parametrize("kind", ["cg-sense", "mol"])
def test_the_deviation_is_that_of_pseudo_replicas(kind: str) -> None:
    """Every replica is a scan of its own: noise is added to the samples, which are weighted and solved anew."""
    kspace, plain, weights = make_problem()
    pair = density_weighted(kspace, plain, weights)
    method, operator = model(kind), pair.operator
    known = method.condition(pair.kspace, operator, SIGMA * operator.noise_gain)
    draws, sigma = 8, 0.1 * SIGMA
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        image = method(pair.kspace, operator, conditioning=known).value
        replicas = []
        for _ in range(draws):
            noise = sigma * torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator)
            again = density_weighted(kspace + noise, plain, weights)
            replicas.append(method(again.kspace, operator, conditioning=known, solver=GOAL).value)
    measured = torch.stack(replicas).sub(image).abs().square().mean(0).sqrt()
    found = noise_deviation(
        method, operator, pair.kspace, sigma, image, conditioning=known, probes=draws, generator=generator
    )
    difference = (found / measured).log() / (2 / (4 * draws)) ** 0.5  # in standard errors
    assert abs(float(difference.mean())) < 0.5
    assert 0.7 < float(difference.square().mean().sqrt()) < 1.5


def test_the_model_is_told_the_noise_of_weighted_samples() -> None:
    kspace, plain, weights = make_problem()
    pair = density_weighted(kspace, plain, weights)
    method = model("mol")
    gain = math.sqrt(float(weights.square().sum() / weights.sum()))
    known = method.condition(pair.kspace, pair.operator, gain * SIGMA)
    with torch.no_grad():
        image = method(pair.kspace, pair.operator, conditioning=known).value
    by_level, by_conditioning = (
        noise_deviation(
            method,
            pair.operator,
            pair.kspace,
            SIGMA,
            image,
            conditioning=given,
            probes=1,
            generator=torch.Generator().manual_seed(0),
        )
        for given in (None, known)
    )
    torch.testing.assert_close(by_level, by_conditioning)


def test_acceleration_counts_pixels_and_samples() -> None:
    _, plain, weights = make_problem()
    for operator in (plain, WeightedSense(plain, weights)):
        assert float(acceleration(operator)) == pytest.approx(SIZE**2 / (9 * 2 * SIZE))
    with pytest.raises(TypeError, match="operator is Identity, expected Sense, SoftSense, NonCartesianSense or"):
        acceleration(Identity())
