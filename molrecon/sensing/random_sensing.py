"""COAST's training: one model for every sensing matrix and sampling ratio, which change from step to step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np
import torch
from torch import Tensor

from molrecon.sensing.block_batches import BlockBatches
from molrecon.sensing.imager import BLOCK_SIZE
from molrecon.sensing.ratios import MEASUREMENTS
from molrecon.sensing.stage import Unrolled
from molrecon.sensing.training import penalised_error
from molrecon.training.task import Task
from operators import Dense, Flatten, orthonormal_matrix

MATRICES = 25
RATIOS = (10, 20, 30, 40, 50)  # percent
FIRST_SEED = 1000  # of the matrices: none of them is one that models are scored with


@final
class RandomSensingTask(Task[Unrolled]):
    """A model of blocks for any operator: each step measures with one of 25 matrices at one of five ratios.

    The first M rows of an orthonormal matrix of 545 rows are the matrix of M measurements. x_0 is `Phi^T y`.

    Args:
        model: for real images.
        batches: of blocks.
        mixed: see `Unrolled.stages`.

    Reference: You, Zhang, Xie, Chen, Ma, COAST, IEEE TIP 30, 2021, section IV-A (random projection augmentation).
    """

    def __init__(self, model: Unrolled, batches: BlockBatches, *, mixed: bool = False) -> None:
        self.model, self.batches, self.mixed = model, batches, mixed
        rows, device = MEASUREMENTS[max(RATIOS)], next(model.parameters()).device
        drawn = [orthonormal_matrix(rows, BLOCK_SIZE**2, seed=FIRST_SEED + i) for i in range(MATRICES)]
        self.matrices = torch.stack(drawn).float().to(device)

    def losses(self, step: int, rng: np.random.Generator) -> Iterator[Tensor]:
        """Yield the loss of the batch in parts; `rng` draws matrix and ratio."""
        matrix, ratio = int(rng.integers(MATRICES)), RATIOS[int(rng.integers(len(RATIOS)))]
        phi = self.matrices[matrix, : MEASUREMENTS[ratio]]
        operator = Dense(phi) @ Flatten((BLOCK_SIZE, BLOCK_SIZE))
        for blocks, share in self.batches.parts(step, phi.device):
            images = blocks.reshape(-1, BLOCK_SIZE, BLOCK_SIZE)
            stages = self.model.stages(operator(images), operator, mixed=self.mixed)
            yield penalised_error(stages, images) * share
