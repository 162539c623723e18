"""Noise prewhitening: virtual coils whose noise is uncorrelated and of unit level."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.linear import require_complex


def noise_covariance(noise: Tensor) -> Tensor:
    """Return `Psi = N N^H / n`, the coil covariance of noise samples; `Psi[i, j] = E n_i conj(n_j)`.

    Args:
        noise: (..., coil, n) complex samples of noise alone (a prescan without excitation, the corners of images), of
            zero mean, at least as many as coils.

    Returns:
        (..., coil, coil) Hermitian, in squared units of the samples. The diagonal is E|n|^2 of each coil.

    Raises:
        TypeError: real samples.
        ValueError: fewer samples than coils.
    """
    require_complex("noise_covariance", "noise", noise)
    if noise.ndim < 2 or noise.shape[-1] < noise.shape[-2]:
        raise ValueError(f"noise_covariance: noise {tuple(noise.shape)}, expected (..., coil, n) with n at least coil")
    return noise @ noise.mH / noise.shape[-1]


def whitening_matrix(covariance: Tensor) -> Tensor:
    """Return `W = L^-1` with `Psi = L L^H`, lower triangular, so that `W Psi W^H = I`.

    `mix_coils(W, .)` applies it, to the k-space and to the sensitivity maps alike: with y = A x + n, `W y = (W A) x +
    W n`, where W A has the maps `W s` and the noise `W n` has unit variance and is independent between coils. Least
    squares is then the maximum-likelihood reconstruction.

    Args:
        covariance: (coil, coil) or (batch, coil, coil) complex Hermitian positive definite, of `noise_covariance` or
            `estimate_noise_covariance`.

    Raises:
        TypeError: a real matrix.
        ValueError: a matrix that is not square, not Hermitian, or not positive definite.

    Source: Pruessmann, Weiger, Boernert, Boesiger, Advances in sensitivity encoding with arbitrary k-space
    trajectories, Magn Reson Med 46, 2001, section on noise decorrelation.
    """
    require_complex("whitening_matrix", "covariance", covariance)
    if covariance.ndim < 2 or covariance.shape[-1] != covariance.shape[-2]:
        raise ValueError(f"whitening_matrix: covariance {tuple(covariance.shape)}, expected (..., coil, coil)")
    gap = (covariance - covariance.mH).abs().amax()
    scale = covariance.abs().amax()
    if not bool(torch.isfinite(scale)) or bool(gap > 1e-4 * scale):
        raise ValueError("whitening_matrix: the covariance is not Hermitian and finite")
    precise = covariance.to(torch.complex128)
    factor, failed = torch.linalg.cholesky_ex((precise + precise.mH) / 2)
    if bool((failed != 0).any()):
        raise ValueError(
            "whitening_matrix: the covariance is not positive definite: a coil without noise, or too few noise samples"
        )
    identity = torch.eye(covariance.shape[-1], dtype=precise.dtype, device=precise.device).expand_as(precise)
    return torch.linalg.solve_triangular(factor, identity, upper=False).to(covariance.dtype)
