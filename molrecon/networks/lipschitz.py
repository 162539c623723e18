"""Certified upper bounds of convolutions' operator norms."""

from __future__ import annotations

import math

import torch
from torch import Tensor

GRAM_ITERATIONS = 6
OVERSAMPLING = 16  # frequencies per axis and degree of a kernel: 0.5 % an axis
FINE_ITERATIONS = 8  # for certificates
FINE_OVERSAMPLING = 32
CERTIFIED_MARGIN = 1e-8
NORMALISING_MARGIN = 5e-5  # of a bound computed in float32, see normalised_kernels


def convolution_norm_bound(
    kernels: Tensor, ndim: int, *, oversampling: int = OVERSAMPLING, iterations: int = GRAM_ITERATIONS
) -> Tensor:
    """Return an upper bound of the operator norm of each stride-1 convolution, zero- or circular-padded, on any grid.

    The norm is at most `sup_w sigma_max(K(w))` with the symbol `K(w) = sum_t k_t exp(-i w t)`: circular padding takes
    some of these frequencies, zero padding compresses the convolution of unbounded images. On a grid of frequencies
    the bound is `b(G^(2^n))^(1 / 2^n) >= sigma_max^2` for the smaller Gram matrix G of K(w) (Gram iteration, rescaled
    at every step), where `b = mu + sqrt(r - 1) s` bounds the largest of r eigenvalues by their mean and standard
    deviation. b is exact when one eigenvalue stands out and when all are equal, as in tight frames, and never more than
    the Frobenius norm, so that the bound of sigma_max is too large by at most `r^(1 / 2^(n + 2))`.

    Between the grid points: `p(w) = v^H G(w) v` is a trigonometric polynomial of degree `d = size - 1` in each
    frequency, with `0 <= p <= M = sup sigma_max^2`. `p - M / 2` lies within `M / 2`, so around its maximum it is at
    least `M / 2 cos(d delta)` at the distance delta, hence `p >= M cos(d delta / 2)^2`. With N = d * oversampling
    equispaced points some point is within pi / N, and M exceeds the grid's maximum by at most
    `1 / cos(pi / (2 oversampling))^2` an axis. For the norm that is 0.5 % an axis at 16, 0.12 % at 32.

    All factors are upper bounds, so the result is one, up to rounding. In float64 that is smaller than
    `CERTIFIED_MARGIN`, see `certified_norm_bound`.

    Args:
        kernels: (..., out, in, *size) real; leading axes are independent convolutions.
        ndim: number of spatial axes, the last ones.
        oversampling: frequencies per axis and degree; at least 2.
        iterations: Gram iterations n.

    Returns:
        (...) bounds, differentiable in the kernels.

    Raises:
        ValueError: when the grid is too coarse.

    References: Delattre, Barthelemy, Araujo, Allauzen, ICML 2023 (Gram iteration); Ehlich and Zeller, Math Z 86, 1964,
    and Riesz 1914 (a polynomial near its maximum is above the cosine); Wolkowicz and Styan, Linear Algebra Appl 29,
    1980 (b).
    """
    if oversampling < 2:
        raise ValueError(f"convolution_norm_bound: oversampling is {oversampling}, expected at least 2")
    spatial = kernels.shape[-ndim:]
    grid = tuple(max(1, (n - 1) * oversampling) for n in spatial)
    between = math.cos(math.pi / (2 * oversampling)) ** sum(n > 1 for n in spatial)
    flat = kernels.reshape(-1, *kernels.shape[-ndim - 2 :])
    # Under a caller's autocast the products would be rounded.
    with torch.autocast(flat.device.type, enabled=False):
        # The powers below leave the range of single precision for kernels far from 1 in size.
        size = flat.detach().flatten(1).abs().amax(1).clamp_min(torch.finfo(flat.dtype).tiny)
        lags, correlations = _correlations(flat / size.reshape(-1, *[1] * (ndim + 2)))
        phases = _half_grid(grid, flat.device) @ lags.T
        waves = torch.stack([phases.cos(), -phases.sin()]).to(flat.dtype)  # cos and -sin, frequency, lag
        # Searched for without gradients, one at a time: memory stays that of one convolution's Gram matrices.
        largest = torch.stack([_largest_frequency(one, waves, iterations) for one in correlations.detach()])
        bounds = size * _norm_bound_at(correlations, waves[:, largest, None], iterations)
    return bounds.reshape(kernels.shape[: -ndim - 2]) / between


def _half_grid(grid: tuple[int, ...], device: torch.device) -> Tensor:
    """Return the frequencies (frequency, axis) of a grid; of w and -w, where G is conjugate, only one."""
    sizes = (*grid[:-1], grid[-1] // 2 + 1)
    axes = [
        torch.arange(m, device=device, dtype=torch.float64) * (2 * math.pi / n)
        for m, n in zip(sizes, grid, strict=True)
    ]
    return torch.cartesian_prod(*axes).reshape(-1, len(grid))


def _correlations(kernels: Tensor) -> tuple[Tensor, Tensor]:
    """Return lags t and terms of the smaller Gram matrix, `G(w) = sum_t cos(w t) C_t - i sin(w t) D_t`.

    With `R_t = sum_s k_s^T k_(s + t)` the matrix `K(w)^H K(w)` is `sum_t R_t exp(-i w t)` over all lags, and
    `R_(-t) = R_t^T`: half the lags are enough, C_t = R_t + R_t^T is symmetric, D_t = R_t - R_t^T skew. Fewer numbers
    than the symbols have, and no product of symbols for each frequency. The sums are in float64.

    Args:
        kernels: (layer, out, in, *size).

    Returns:
        lags (lag, axis) float64, and [C, D] (layer, lag, r, 2 r) in the kernels' dtype.
    """
    if kernels.shape[2] > kernels.shape[1]:
        kernels = kernels.transpose(1, 2)  # K(w) K(w)^H, conjugated, has the same eigenvalues
    sizes, r = kernels.shape[3:], kernels.shape[2]
    axes = [torch.arange(n, device=kernels.device) for n in sizes]
    taps = torch.cartesian_prod(*axes).reshape(-1, len(sizes))
    lag = taps[None] - taps[:, None]  # of taps s and s + t
    code = torch.zeros_like(lag[..., 0])
    for axis, n in enumerate(sizes):
        code = code * (2 * n - 1) + lag[..., axis]  # its sign is that of the first lag that is not zero
    chosen = code >= 0
    codes, which = torch.unique(code[chosen], return_inverse=True)
    lags = torch.zeros(len(codes), len(sizes), dtype=torch.float64, device=kernels.device)
    lags[which] = lag[chosen].double()
    flat = kernels.double().flatten(3).permute(0, 3, 2, 1).flatten(1, 2)  # layer, tap r, out
    products = (flat @ flat.mT).unflatten(1, (-1, r)).unflatten(3, (-1, r)).movedim(3, 2)[:, chosen]
    terms = flat.new_zeros(len(flat), len(codes), r, r).index_add(1, which, products)
    weight = torch.where(codes > 0, 1.0, 0.5)[:, None, None]  # the lag zero is its own opposite
    return lags, torch.cat([weight * (terms + terms.mT), terms - terms.mT], -1).to(kernels.dtype)


def _gram(correlations: Tensor, waves: Tensor) -> Tensor:
    """Return `G = S + i A` as [S, A] (..., frequency, r, 2 r).

    Args:
        correlations: (..., lag, r, 2 r), from `_correlations`.
        waves: `cos(w t)` and `-sin(w t)`, (2, ..., frequency, lag).
    """
    symmetric, skew = correlations.chunk(2, -1)
    parts = (waves[0] @ symmetric.flatten(-2), waves[1] @ skew.flatten(-2))
    return torch.cat([part.unflatten(-1, symmetric.shape[-2:]) for part in parts], -1)


def _norm_bound_at(correlations: Tensor, waves: Tensor, iterations: int) -> Tensor:
    """Return the Gram iteration's bound (layer,) at one frequency each: waves (2, layer, 1, lag)."""
    power = _gram(correlations, waves)[:, 0]
    log_scale = power.new_zeros(len(power))
    for _ in range(iterations):
        power, log_scale = _squared(power, log_scale)
    return torch.exp((log_scale + _eigenvalue_bound(power).log()) / 2 ** (iterations + 1))


@torch.no_grad()
def _largest_frequency(correlations: Tensor, waves: Tensor, iterations: int) -> Tensor:
    """Return the index of the frequency at which the bound of one convolution is largest: waves (2, frequency, lag).

    A column's norm bounds that of a matrix from below, so frequencies whose upper bound is less than another one's
    lower bound are left out after each iteration.
    """
    power = _gram(correlations, waves)
    kept = torch.arange(len(power), device=power.device)
    log_scale = power.new_zeros(len(power))
    tiny = torch.finfo(power.dtype).tiny
    for _ in range(iterations):
        columns = power.square().sum(-1)  # squared norms of the rows, which are those of the columns
        above = log_scale + columns.sum(-1).clamp_min(tiny).log() / 2
        below = log_scale + columns.amax(-1).clamp_min(tiny).log() / 2
        # In float32 neither logarithm is exact; a frequency too many costs little.
        chosen = ~(above < below.amax() - 1e-3)  # NaN compares false, so that it stays and is reported
        power, log_scale = _squared(power[chosen], log_scale[chosen])
        kept = kept[chosen]
    bound = log_scale + _eigenvalue_bound(power).log()
    return kept[bound.argmax()]


def _squared(power: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return the square of `exp(log_scale) power` in the same form, `power` of norm 1 before it is squared.

    `(S + i A)^2 = (S S^T + A A^T) + i (S A - (S A)^T)` for S symmetric and A skew: in batches, products of small real
    matrices are several times as fast as those of complex ones.
    """
    norm = _frobenius(power)
    power = power / norm[..., None, None]
    symmetric, skew = power.chunk(2, -1)
    product = symmetric @ skew
    return torch.cat([power @ power.mT, product - product.mT], -1), 2 * (log_scale + norm.log())


def _eigenvalue_bound(matrix: Tensor) -> Tensor:
    """Return `mu + sqrt(r - 1) s` with mean and standard deviation of the r eigenvalues: at least the largest one."""
    r, tiny = matrix.shape[-2], torch.finfo(matrix.dtype).tiny
    mean = matrix.diagonal(dim1=-2, dim2=-1).sum(-1) / r  # of S: that of a skew matrix is zero
    variance = _frobenius(matrix).square() / r - mean.square()
    return (mean + ((r - 1) * variance).clamp_min(tiny).sqrt()).clamp_min(tiny)


def _frobenius(matrix: Tensor) -> Tensor:
    return matrix.square().sum((-2, -1)).clamp_min(torch.finfo(matrix.dtype).tiny).sqrt()


@torch.no_grad()
def certified_norm_bound(kernels: Tensor, ndim: int) -> Tensor:
    """Return upper bounds of the norms of convolutions, rounding included: float64 (layer,), on the kernels' device.

    The kernels are taken as they are, in the precision in which they are applied, and everything after that is done
    in float64 (unit roundoff u = 1.1e-16). To first order, with r the side of the Gram matrices, T the taps, L the lags
    and c the channels summed over: an entry of G passes through at most `c + T + L + 4` roundings, so G has an error
    below `(c + T + L + 4) u sum_st |k_s|_F |k_t|_F`, at most `(c + T + L + 4) u T |k|_F^2`, and `|k|_F^2`, the mean of
    `|K(w)|_F^2`, is at most `r sigma^2`; a matrix product adds at most `(r + 2) r u`, and a squaring doubles what is
    there, which the root of the order 2^n halves again: together `r (T (c + T + L + 4) + (r + 2) n) u`. The standard
    deviation of the eigenvalues, a difference of squares, is off by up to `sqrt(r u)` of the largest at most; with
    `sqrt(r)` before it and the root behind it, `r sqrt(u) / 2^n`. For `r <= 200`, filters of up to 5 x 5 x 5 and n = 8
    the sum is below 1e-8: that is `CERTIFIED_MARGIN`, as a factor.

    What is certified is the map with these numbers. Evaluating it in float32 adds rounding errors that do not shrink
    with the distance of two images; the solver counts those in its error bound.

    Args:
        kernels: (layer, out, in, *size), taken one layer at a time to bound the memory.
        ndim: number of spatial axes.
    """
    # Where the norm is attained between its points, a finer grid's bound can be the larger one; both are true.
    grids = {OVERSAMPLING, FINE_OVERSAMPLING if ndim < 3 else OVERSAMPLING}
    bounds = [
        torch.stack(
            [convolution_norm_bound(kernel.double(), ndim, oversampling=n, iterations=FINE_ITERATIONS) for n in grids]
        ).amin(0)
        for kernel in kernels
    ]
    return torch.stack(bounds) * (1 + CERTIFIED_MARGIN)


def normalised_kernels(kernels: Tensor, ndim: int, *, fine: bool = False) -> Tensor:
    """Return the kernels (layer, out, in, *size) divided by their norms' bounds where those exceed 1; differentiable.

    The bound is taken in the kernels' own precision and raised by its rounding, so that `certified_norm_bound` of the
    result, which is at least as tight, stays at or below 1.

    Args:
        kernels: see `convolution_norm_bound`.
        ndim: number of spatial axes.
        fine: take as many frequencies and iterations as in two dimensions a certificate does, at four times the cost.
    """
    oversampling, iterations = (FINE_OVERSAMPLING, FINE_ITERATIONS) if fine else (OVERSAMPLING, GRAM_ITERATIONS)
    # On a GPU products of float32 may be rounded to ten bits, by flags that are the caller's.
    precise = kernels.double() if kernels.is_cuda else kernels
    bound = convolution_norm_bound(precise, ndim, oversampling=oversampling, iterations=iterations).to(kernels.dtype)
    return kernels / (bound * (1 + NORMALISING_MARGIN)).clamp_min(1.0).reshape(-1, *[1] * (ndim + 2))


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
