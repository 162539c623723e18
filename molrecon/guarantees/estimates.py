"""Local Lipschitz constant and monotonicity of a denoiser, looked for around given images.

What is found here is true of the points that were tried and of no others: a lower bound of Lip(H), an upper bound of
the monotonicity of I - H. Both can refute a claim; neither can certify one (`molrecon.networks.lipschitz` does that).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from molrecon.solvers.batched import dot, norm, per_sample

Map = Callable[[Tensor], Tensor]

POWER_STEPS, ASCENT_STEPS, LANCZOS_STEPS = 20, 10, 20
RADII = (1e-3, 1e-2, 1e-1)


@final
@dataclass(frozen=True, eq=False)
class LipschitzEstimate:
    """How much H was seen to stretch around some points: lower bounds of Lip(H), which refute and never certify.

    Attributes:
        value: (points,), the larger one of the next two.
        derivative: (points,), largest `|J_H v| / |v|` at the point.
        difference: (points,), largest `|H(x + v) - H(x)| / |v|`.
        power_steps, ascent_steps, radii, seed: what was tried, see `local_lipschitz`.
    """

    value: Tensor
    derivative: Tensor
    difference: Tensor
    power_steps: int
    ascent_steps: int
    radii: tuple[float, ...]
    seed: int


@final
@dataclass(frozen=True, eq=False)
class MonotonicityEstimate:
    """How monotone `F = I - H` was seen to be around some points: upper bounds of m, which refute and never certify.

    Attributes:
        value: (points,), the smaller one of the next two.
        eigenvalue: (points,), smallest `<v, (I - J_H) v> / |v|^2` at the point: an upper bound of the smallest
            eigenvalue of the symmetric part of I - J_H there.
        difference: (points,), smallest `<F(x + v) - F(x), v> / |v|^2`.
        lanczos_steps, radii, seed: what was tried, see `local_monotonicity`.
    """

    value: Tensor
    eigenvalue: Tensor
    difference: Tensor
    lanczos_steps: int
    radii: tuple[float, ...]
    seed: int


def local_lipschitz(
    denoise: Map,
    points: Tensor,
    *,
    power_steps: int = POWER_STEPS,
    ascent_steps: int = ASCENT_STEPS,
    radii: Sequence[float] = RADII,
    seed: int = 0,
) -> LipschitzEstimate:
    """Look for directions in which H stretches most, at each point by itself.

    At the point: power iteration `v <- J^H J v / |J^H J v|` with Jacobian products forwards and backwards. Around it:
    ascent of `|H(x + v) - H(x)|` on the spheres `|v| = rho |x|`, `v <- J(x + v)^H (H(x + v) - H(x))` scaled to the
    sphere, from the direction that the power iteration ended in. The best of all iterates counts.

    Args:
        denoise: H on (points, ...), samples independent of each other.
        points: x (points, ...) real or complex; complex ones count as their real and imaginary parts. Differences
            want double precision: in single precision their error is about `1e-7 / rho`.
        power_steps: products with J^H J.
        ascent_steps: steps on each sphere.
        radii: rho, relative to the norm of the point (absolute at a zero point).
        seed: of the first directions.

    Returns:
        LipschitzEstimate, detached; it refutes `Lip(H) <= L` when a value exceeds L.

    References: Bungert et al., CLIP, SSVM 2021 (ascent of difference quotients); Golub and Van Loan, Matrix
    computations, section 7.3 (power iteration).
    """
    _check("local_lipschitz", min(power_steps, ascent_steps), radii)
    forwards, backwards = _jacobian(denoise, points)
    v = _random_directions(points, seed)
    derivative = torch.zeros_like(norm(points))
    for _ in range(power_steps):
        image = forwards(v)
        derivative = torch.maximum(derivative, norm(image))
        v = _direction(backwards(image), v)
    derivative = torch.maximum(derivative, norm(forwards(v)))

    with torch.no_grad():
        there = denoise(points)
    difference = torch.zeros_like(derivative)
    for radius in _absolute(radii, points):
        w = v
        for _ in range(ascent_steps):
            step = per_sample(radius, w) * w
            change, pulled = _pulled_change(denoise, points + step, there)
            difference = torch.maximum(difference, norm(change) / norm(step))
            w = _direction(pulled, w)
    return LipschitzEstimate(
        torch.maximum(derivative, difference), derivative, difference, power_steps, ascent_steps, tuple(radii), seed
    )


def local_monotonicity(
    denoise: Map,
    points: Tensor,
    *,
    lanczos_steps: int = LANCZOS_STEPS,
    radii: Sequence[float] = RADII,
    seed: int = 0,
) -> MonotonicityEstimate:
    """Look for directions in which `F = I - H` is least monotone, at each point by itself.

    At the point: Lanczos with full reorthogonalisation for the smallest eigenvalue of `S = I - (J + J^H) / 2`; the
    value is the Rayleigh quotient of the Ritz vector, computed afresh. Around it: `<F(x + v) - F(x), v> / |v|^2` for v
    along that vector, forwards and backwards.

    Args:
        denoise, points, radii, seed: as for `local_lipschitz`.
        lanczos_steps: Lanczos vectors; all of them are kept, each as large as `points`.

    Returns:
        MonotonicityEstimate, detached; it refutes m-monotonicity when a value is below m.

    Reference: Golub and Van Loan, Matrix computations, section 10.1.
    """
    _check("local_monotonicity", lanczos_steps, radii)
    forwards, backwards = _jacobian(denoise, points)

    def symmetric(v: Tensor) -> Tensor:
        return v - (forwards(v) + backwards(v)) / 2

    v = _smallest_ritz_vector(symmetric, _random_directions(points, seed), lanczos_steps)
    eigenvalue = dot(v, symmetric(v))
    difference = torch.full_like(eigenvalue, torch.inf)
    with torch.no_grad():
        there = denoise(points)
        for radius in _absolute(radii, points):
            for sign in (1, -1):
                step = sign * per_sample(radius, v) * v
                change = step - (denoise(points + step) - there)
                difference = torch.minimum(difference, dot(change, step) / dot(step, step))
    return MonotonicityEstimate(
        torch.minimum(eigenvalue, difference), eigenvalue, difference, lanczos_steps, tuple(radii), seed
    )


def neighbours(image: Tensor, count: int, radius: float, seed: int) -> Tensor:
    """Return the image and `count` others at the distance `radius |x|` in random directions, (count + 1, ...).

    Args:
        image: x (1, ...), real or complex.
        count, radius, seed: how many, how far relative to the norm of the image, and of which directions.
    """
    many = image.expand(count + 1, *image.shape[1:])
    directions = _random_directions(many, seed)
    distance = radius * norm(many)
    distance[0] = 0
    return many + per_sample(distance, many) * directions


def _smallest_ritz_vector(matrix: Map, start: Tensor, steps: int) -> Tensor:
    """Return the unit vector that belongs to the smallest Ritz value of a symmetric matrix, per sample."""
    basis = [start]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    for _ in range(steps):
        v = basis[-1]
        w = matrix(v)
        alive = norm(v) > 0
        diagonal.append(torch.where(alive, dot(v, w), diagonal[0] if diagonal else dot(v, w)))
        for _ in range(2):  # once leaves what cancellation brought in
            for old in basis:
                w = w - per_sample(dot(old, w), w) * old
        size = norm(w)
        # A sample whose Krylov space is exhausted goes on with zero vectors and the value of its start.
        size = torch.where(size > 1e-10 * (1 + diagonal[-1].abs()), size, 0.0)
        beside.append(size)
        basis.append(_scaled(w, torch.where(size > 0, 1 / size.clamp_min(torch.finfo(size.dtype).tiny), 0.0)))
    tridiagonal = torch.diag_embed(torch.stack(diagonal, dim=-1))
    if steps > 1:
        off = torch.stack(beside[:-1], dim=-1)
        tridiagonal = tridiagonal + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    coefficients = torch.linalg.eigh(tridiagonal).eigenvectors[..., 0]
    vector = sum((_scaled(v, coefficients[:, k]) for k, v in enumerate(basis[:-1])), torch.zeros_like(start))
    return _direction(vector, start)


def _jacobian(denoise: Map, points: Tensor) -> tuple[Map, Map]:
    """Return `v -> J v` and `u -> J^H u` at the points, in the real sense: `Re <u, J v> = Re <J^H u, v>`.

    `u -> J^H u` is linear, so the pullback of its own pullback is J v; both products reuse one graph.
    """
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        image = denoise(points)
        if not image.requires_grad:  # a constant map
            return torch.zeros_like, torch.zeros_like
        anywhere = torch.zeros_like(image, requires_grad=True)
        (pulled,) = torch.autograd.grad(image, points, anywhere, create_graph=True)

    def forwards(v: Tensor) -> Tensor:
        return torch.autograd.grad(pulled, anywhere, v, retain_graph=True)[0]

    def backwards(u: Tensor) -> Tensor:
        return torch.autograd.grad(image, points, u, retain_graph=True)[0]

    return forwards, backwards


def _pulled_change(denoise: Map, points: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Return `d = H(x) - there` and `J(x)^H d` at the points x."""
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        image = denoise(points)
    change = image.detach() - there
    if not image.requires_grad:
        return change, torch.zeros_like(points)
    return change, torch.autograd.grad(image, points, change)[0]


def _random_directions(points: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(points.shape, dtype=points.dtype, generator=generator).to(points.device)
    return _direction(draws, draws)


def _direction(v: Tensor, otherwise: Tensor) -> Tensor:
    """Return `v / |v|` per sample, and the other one where v is zero or not finite."""
    size = norm(v)
    usable = torch.isfinite(size) & (size > 0)
    unit = _scaled(v, 1 / size.clamp_min(torch.finfo(size.dtype).tiny))
    return torch.where(per_sample(usable, v), unit, otherwise)


def _scaled(v: Tensor, factors: Tensor) -> Tensor:
    return per_sample(factors, v) * v


def _absolute(radii: Sequence[float], points: Tensor) -> list[Tensor]:
    size = norm(points)
    return [radius * torch.where(size > 0, size, 1.0) for radius in radii]


def _check(who: str, steps: int, radii: Sequence[float]) -> None:
    if steps < 1 or not all(radius > 0 for radius in radii):
        raise ValueError(f"{who}: got {steps} steps and radii {tuple(radii)}, expected at least 1 and positive radii")
