"""Bounds of what a change of the data or of the operator does to an m-monotone equilibrium."""

from __future__ import annotations

import torch
from torch import Tensor

from molrecon.solvers.batched import norm
from operators import LinearOperator


def data_robustness_bound(ratio: Tensor, operator: LinearOperator, change: Tensor) -> Tensor:
    """Return `min(sqrt(lambda / m) / 2 |d|, (lambda / m) |A^H d|)` >= |x*(b + d) - x*(b)|, (batch,).

    Args:
        ratio: lambda / m (batch,), see `MOL.weight_ratio`; 1 / mu for CG-SENSE with the weight mu.
        operator: A.
        change: d (batch, coil, *spatial).

    The first follows from `m |dx|^2 + lambda |A dx|^2 <= lambda |A dx| |d|`, the second from `<= lambda |dx| |A^H d|`.
    """
    return torch.minimum(ratio.sqrt() / 2 * norm(change), ratio * norm(operator.adjoint(change)))


def operator_robustness_bound(
    ratio: Tensor, operator: LinearOperator, changed: LinearOperator, kspace: Tensor, image: Tensor
) -> Tensor:
    """Return a bound of `|x*(A + D, b) - x*(A, b)|` for a changed operator (coil maps) A + D, (batch,).

    With x = x*(A, b), its data residual e = A x - b, and y = x*(A + D, b), subtracting the two equilibria gives

        F(y) - F(x) + lambda (A + D)^H (A + D) (y - x) = -lambda (D^H e + (A + D)^H D x).

    The inner product with s = y - x, monotonicity, and the maximum over `t = |(A + D) s|` give

        m |s|^2 <= lambda |s| |D^H e| + lambda (t |D x| - t^2) <= lambda |s| |D^H e| + lambda |D x|^2 / 4,

    hence `|s| <= a + sqrt(a^2 + lambda |D x|^2 / (4 m))` with `a = lambda |D^H e| / (2 m)`. Without using t it is
    `|s| <= (lambda / m) |D^H e + (A + D)^H D x|`. The smaller one is returned. There is no bound in |D| alone: it
    scales with the image and with its data residual.

    Args:
        ratio: lambda / m (batch,); scale, noise level and phase are held fixed.
        operator, changed: A and A + D.
        kspace: b. image: x, in the units of the data; exact up to its error bound.
    """
    misfit = operator(image) - kspace
    shift = changed(image) - operator(image)
    pulled = changed.adjoint(misfit) - operator.adjoint(misfit)
    half = ratio * norm(pulled) / 2
    through_data = half + (half.square() + ratio * norm(shift).square() / 4).sqrt()
    through_image = ratio * norm(pulled + changed.adjoint(shift))
    return torch.minimum(through_data, through_image)
