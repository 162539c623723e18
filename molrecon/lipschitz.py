"""Certified upper bounds of convolutions' operator norms, and what a certificate says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

GRAM_ITERATIONS = 5


@final
@dataclass(frozen=True)
class Certificate:
    """What is guaranteed about a model's equilibrium.

    Attributes:
        kind: "certified" when every number follows from true upper bounds, "estimated" when any of them was only
            observed or assumed.
        lipschitz: upper bound of Lip(H), the denoiser.
        monotonicity: m, with `Re <F(x) - F(y), x - y> >= m |x - y|^2` for the score F = I - H; `1 - lipschitz`.
        contraction: q, the factor by which one plain step brings two images closer (at alpha = 1).
        robustness: c, with `|x*(b1) - x*(b2)| <= c |b1 - b2|` at lambda = 1; it is `sqrt(lambda) c` at others.
    """

    kind: str
    lipschitz: float
    monotonicity: float
    contraction: float
    robustness: float


def certificate(lipschitz: float, *, certified: bool) -> Certificate:
    """Return the certificate that follows from a bound of Lip(H).

    `Lip(H) <= 1 - m` gives monotonicity m and, at alpha = 1, contraction `1 - m` (the resolvent is non-expansive).
    Robustness: from `m |dx|^2 + lambda |A dx|^2 <= lambda |A dx| |db|` (monotonicity of F applied to two equilibria)
    follows `|dx|^2 <= max_t (lambda t |db| - lambda t^2) / m = lambda |db|^2 / (4 m)`, so `c = 1 / (2 sqrt(m))`. It is
    not finite without monotonicity.
    """
    m = 1.0 - lipschitz
    robustness = 0.5 / math.sqrt(m) if m > 0 else math.inf
    kind = "certified" if certified and m > 0 else "estimated"
    return Certificate(kind, lipschitz, m, lipschitz, robustness)


def convolution_norm_bound(kernels: Tensor, ndim: int, *, grid: int = 32, iterations: int = GRAM_ITERATIONS) -> Tensor:
    """Return an upper bound of the operator norm of each stride-1 convolution, zero- or circular-padded, on any grid.

    The norm is at most `sup_w sigma_max(K(w))` with the symbol `K(w) = sum_t k_t exp(-i w t)`. On a grid of
    frequencies the bound is `|G^(2^n)|_F^(1 / 2^n) >= sigma_max^2` for the smaller Gram matrix G of K(w) (Gram
    iteration, rescaled at every step). Between the grid points: `v^H G(w) v` is a trigonometric polynomial of degree
    `d = size - 1` in each frequency, which exceeds its maximum on N equispaced points by at most `1 / cos(pi d / N)`
    an axis. Both factors are upper bounds, so the result is one, up to rounding.

    Args:
        kernels: (..., out, in, *size) real; leading axes are independent convolutions.
        ndim: number of spatial axes, the last ones.
        grid: frequencies per axis, N; more than `2 (size - 1)`.
        iterations: Gram iterations n; the excess is at most `r^(1 / 2^(n + 1))` for Gram matrices of side r.

    Returns:
        (...) bounds, differentiable in the kernels.

    Raises:
        ValueError: when the grid is too coarse for the kernel.

    References: Delattre, Barthelemy, Araujo, Allauzen, ICML 2023 (Gram iteration); Ehlich and Zeller, Math Z 86, 1964.
    """
    degrees = [size - 1 for size in kernels.shape[-ndim:]]
    if any(2 * degree >= grid for degree in degrees):
        raise ValueError(
            f"convolution_norm_bound: grid {grid} for kernel {tuple(kernels.shape[-ndim:])}, expected more"
        )
    # The powers below leave the range of single precision for kernels far from 1 in size.
    size = kernels.detach().abs().flatten(-ndim - 2).amax(-1).clamp_min(torch.finfo(kernels.dtype).tiny)
    kernels = kernels / size.reshape(*size.shape, *[1] * (ndim + 2))
    # A real kernel's symbol at -w is the conjugate of that at w: the half spectrum is enough.
    symbol = torch.fft.rfftn(kernels, s=[grid] * ndim, dim=tuple(range(-ndim, 0)))
    symbol = symbol.flatten(-ndim).movedim(-1, -3)
    gram = symbol.mH @ symbol if symbol.shape[-1] <= symbol.shape[-2] else symbol @ symbol.mH
    log_scale = torch.zeros_like(gram[..., 0, 0].real)
    for _ in range(iterations):
        norm = torch.linalg.matrix_norm(gram).clamp_min(torch.finfo(log_scale.dtype).tiny)
        gram = gram / norm[..., None, None]
        gram = gram @ gram
        log_scale = 2 * (log_scale + norm.log())
    norm = torch.linalg.matrix_norm(gram).clamp_min(torch.finfo(log_scale.dtype).tiny)
    square = torch.exp((log_scale + norm.log()) / 2**iterations).amax(-1)
    between = math.prod(math.cos(math.pi * degree / grid) for degree in degrees)
    return size * (square / between).sqrt()


def convolution_norm_on_grid(kernel: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the exact operator norm of a circular convolution on a grid: the largest singular value of its symbols.

    Args:
        kernel: (out, in, *size) real.
        shape: the grid, at least as large as the kernel.

    It bounds `convolution_norm_bound` from below. Reference: Sedghi, Gupta, Long, ICLR 2019.
    """
    ndim = len(shape)
    symbol = torch.fft.fftn(kernel, s=list(shape), dim=tuple(range(-ndim, 0)))
    return torch.linalg.matrix_norm(symbol.flatten(2).movedim(-1, 0), ord=2).amax()
