"""How well the stages of an unrolled network agree with the measurements."""

from __future__ import annotations

import torch
from torch import Tensor

from molrecon.sensing.stage import Unrolled
from operators import LinearOperator


@torch.no_grad()
def alignment(
    model: Unrolled, measurements: Tensor, operator: LinearOperator, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return `|A u - b| / |b|` before and after the network of every stage, each (stages,), of all samples together.

    Before: u is what the stage's network adds to, `x_k - rho_k g_k`. After: u = x_{k+1}. Arguments as of `Unrolled`.
    """
    before, after = [], []
    for stage in model.stages(measurements, operator, start):
        before.append(torch.linalg.vector_norm(operator(stage.base) - measurements))
        after.append(torch.linalg.vector_norm(operator(stage.image) - measurements))
    size = torch.linalg.vector_norm(measurements)
    return torch.stack(before) / size, torch.stack(after) / size
