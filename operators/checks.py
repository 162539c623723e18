"""Checks that any operator must pass, for users' own operators too."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.linear import LinearOperator


@torch.no_grad()
def adjoint_gap(operator: LinearOperator, x: Tensor, y: Tensor) -> float:
    """Return `|<A x, y> - <x, A^H y>| / (|A x| |y|)`, which is at rounding level for an exact adjoint.

    Args:
        operator: the operator A.
        x: a point of A's domain, complex128 for a sharp answer.
        y: a point of A's range.

    Raises:
        ValueError: when A or A^H returns a shape that does not match y or x.
    """
    forward, backward = operator(x), operator.adjoint(y)
    if forward.shape != y.shape or backward.shape != x.shape:
        raise ValueError(
            f"adjoint_gap: A maps {tuple(x.shape)} to {tuple(forward.shape)} and A^H maps {tuple(y.shape)} to"
            f" {tuple(backward.shape)}, expected {tuple(y.shape)} and {tuple(x.shape)}"
        )
    left = (y.conj() * forward).sum()
    right = (backward.conj() * x).sum()
    if not (
        torch.is_complex(x) and torch.is_complex(y)
    ):  # a map between real and complex spaces is linear over the reals
        left, right = left.real, right.real
    scale = torch.linalg.vector_norm(forward) * torch.linalg.vector_norm(y)
    return float((left - right).abs() / scale.clamp_min(torch.finfo(scale.dtype).tiny))


@torch.no_grad()
def normal_gap(operator: LinearOperator, x: Tensor) -> float:
    """Return `|A^H A x - A^H(A x)| / |A^H(A x)|`: how far the structured normal operator is from the two in turn."""
    plain = operator.adjoint(operator(x))
    gap = torch.linalg.vector_norm(operator.normal(x) - plain)
    scale = torch.linalg.vector_norm(plain)
    return float(gap / scale.clamp_min(torch.finfo(scale.dtype).tiny))
