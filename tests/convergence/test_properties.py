"""Random certified networks on random operators: no case may break what the certificate promises.

A case is one pair of images (Lipschitz constant and monotonicity), one reconstruction from two starts (uniqueness),
one reconstruction that is stopped early against its equilibrium (error bound), or one perturbed reconstruction
(robustness). Every case has its own random images, maps, mask, noise level or data; PAIRS + 3 SCANS of them share a
network. `--cases` says how many there are.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from molrecon.guarantees.checks import absolute_error
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.reconstructors.mol import MOL
from molrecon.reconstructors.robustness_bounds import data_robustness_bound
from molrecon.solvers.batched import dot, norm, per_sample
from operators import Dense, Flatten, LinearOperator, Sense
from tests.random_networks import draw_network

PAIRS, SCANS = 128, 64
CASES_A_NETWORK = PAIRS + 3 * SCANS
EXACT = 1 + 1e-9
# Hardly sampled scans converge no faster than promised. Where the iterations end before the tolerance the error bound
# says so, and enters the comparison.
TOL, MAX_STEPS = 1e-4, 80


def normal(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape))


def complex_normal(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.complex(normal(rng, *shape), normal(rng, *shape))


def scattered(rng: np.random.Generator, count: int, low: float, high: float) -> Tensor:
    """Return numbers (count,) spread evenly in their logarithm, from 10^low to 10^high."""
    return torch.from_numpy(10 ** rng.uniform(low, high, count))


def draw_shape(rng: np.random.Generator, ndim: int) -> tuple[int, ...]:
    return tuple(int(n) for n in rng.integers(2, 8 if ndim == 2 else 5, ndim))


def draw_operator(rng: np.random.Generator, shape: tuple[int, ...]) -> LinearOperator:
    """Return coils with maps of any size and a mask of any density for every scan, or a random complex matrix."""
    if rng.random() < 0.25:
        pixels = math.prod(shape)
        rows = int(rng.integers(1, pixels + 1))
        return Dense(complex_normal(rng, rows, pixels) * float(10 ** rng.uniform(-1.5, 0))) @ Flatten(shape)
    coils = int(rng.integers(1, 5))
    maps = complex_normal(rng, SCANS, coils, *shape) * float(10 ** rng.uniform(-1, 0.3))
    mask = torch.from_numpy(rng.random((SCANS, *shape)) < rng.uniform(0, 1, (SCANS, *[1] * len(shape))))
    return Sense(maps, mask, None if rng.random() < 0.7 else len(shape) - 1 or 1)


def pairs_violated(rng: np.random.Generator, model: MOL, shape: tuple[int, ...]) -> Tensor:
    """Return (PAIRS,) bool: `|H(x) - H(y)| > L |x - y|` or `<F(x) - F(y), x - y> < m |x - y|^2`."""
    promised = model.certificate()
    x, change = normal(rng, PAIRS, 2, *shape), normal(rng, PAIRS, 2, *shape)
    x = per_sample(scattered(rng, PAIRS, -3, 1), x) * x
    change = per_sample(scattered(rng, PAIRS, -5, 1), x) * change
    denoise = model.network.denoiser(scattered(rng, PAIRS, -3.3, -1.3))
    denoised = denoise(x + change) - denoise(x)
    # Rounding of the two images, not of the promise.
    noise = 1e-14 * (norm(x) + norm(change))
    stretched = norm(denoised) > promised.lipschitz * norm(change) * EXACT + noise
    least = promised.monotonicity * norm(change).square() / EXACT - noise * norm(change)
    return stretched | (dot(change - denoised, change) < least)


def scans_violated(rng: np.random.Generator, model: MOL, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return (3, SCANS) bool, violated bounds of uniqueness, error and robustness, and what converged, (SCANS,)."""
    operator = draw_operator(rng, shape)
    kspace = operator(complex_normal(rng, SCANS, *shape))
    kspace = kspace + scattered(rng, 1, -3, 0) * complex_normal(rng, *kspace.shape)
    phase = torch.exp(1j * normal(rng, SCANS, *shape))
    conditioning = Conditioning(scattered(rng, SCANS, -2, 2), scattered(rng, SCANS, -3.3, -1.3), phase)
    change = complex_normal(rng, *kspace.shape)
    change = per_sample(scattered(rng, SCANS, -4, 1) * norm(kspace) / norm(change), change) * change
    start = per_sample(scattered(rng, SCANS, -3, 3), phase) * complex_normal(rng, SCANS, *shape)

    model.solver = replace(model.solver, tol=TOL, max_steps=MAX_STEPS)
    first = model(kspace, operator, conditioning=conditioning)
    second = model(kspace, operator, conditioning=conditioning, start=start)
    moved = model(kspace + change, operator, conditioning=conditioning, start=first.value)
    model.solver = replace(model.solver, max_steps=int(rng.integers(1, 8)), window=int(rng.choice([0, 5])))
    early = model(kspace, operator, conditioning=conditioning, start=start)

    def apart(one: Tensor, other: Tensor, allowed: Tensor) -> Tensor:
        return norm(one - other) > allowed * EXACT

    errors = [absolute_error(solution) for solution in (first, second, moved, early)]
    bound = data_robustness_bound(model.weight_ratio(conditioning), operator, change)
    violated = torch.stack(
        [
            apart(first.value, second.value, errors[0] + errors[1]),
            apart(first.value, early.value, errors[0] + errors[3]),
            apart(first.value, moved.value, errors[0] + errors[2] + bound),
        ]
    )
    return violated, first.converged & second.converged & moved.converged


@torch.no_grad()
def test_random_networks_on_random_operators_keep_their_promises(cases: int) -> None:
    tried, violations, unsolved = 0, [], 0
    for seed in range(-(-cases // CASES_A_NETWORK)):
        rng = np.random.default_rng(seed)
        ndim = int(rng.choice([2, 3], p=[0.7, 0.3]))
        model = MOL(draw_network(rng, ndim), data_weight=float(10 ** rng.uniform(-1, 3))).double().eval()
        assert model.certificate().kind == "certified"
        shape = draw_shape(rng, ndim)
        pairs = pairs_violated(rng, model, shape)
        scans, converged = scans_violated(rng, model, shape)
        tried += pairs.numel() + scans.numel()
        unsolved += int((~converged).sum())
        if pairs.any() or scans.any():
            violations.append((seed, int(pairs.sum()), *scans.sum(1).tolist()))
    assert tried >= cases
    assert not violations, "seed, violated: pairs, uniqueness, error bound, robustness"
    assert unsolved <= 0.2 * tried * SCANS / CASES_A_NETWORK
