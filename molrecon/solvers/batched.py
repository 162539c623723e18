"""Per-sample inner products and selections: the batch is the first axis of every tensor."""

from __future__ import annotations

import torch
from torch import Tensor


def rows(x: Tensor) -> Tensor:
    """Return the real view of `x` as a matrix (batch, numbers); complex entries count as two."""
    return (torch.view_as_real(x) if torch.is_complex(x) else x).flatten(1)


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Return `Re <x, y>` of each sample, shape (batch,)."""
    return torch.linalg.vecdot(rows(x), rows(y))


def norm(x: Tensor) -> Tensor:
    """Return the Euclidean norm of each sample, shape (batch,)."""
    return torch.linalg.vector_norm(rows(x), dim=1)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Return `values` (batch,) shaped (batch, 1, ...) so that it broadcasts over the samples of `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
