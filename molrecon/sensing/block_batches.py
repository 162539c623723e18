"""Which blocks of photographs each step of a training sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from molrecon.training.processes import process_count, rank


@final
@dataclass(frozen=True, eq=False)
class BlockBatches:
    """Blocks in an order that depends on seed and step alone: a permutation an epoch, for all processes together.

    Attributes:
        blocks: (n, 1089) uint8, at least `batch`.
        batch: blocks a step.
        micro_batch: blocks whose gradients are computed at a time; a few of them fit into a processor's cache.
        seed: of the order.

    Raises:
        ValueError: fewer blocks than a batch.
    """

    blocks: np.ndarray
    batch: int = 64
    micro_batch: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= len(self.blocks):
            raise ValueError(
                f"BlockBatches: a batch of {self.batch} from {len(self.blocks)} blocks, expected 1 to"
                f" {len(self.blocks)}"
            )

    def parts(self, step: int, device: torch.device) -> Iterator[tuple[Tensor, float]]:
        """Yield parts of this step's batch, (micro batch, 1089) in 0..1, each with its share of the batch."""
        chosen = drawn_blocks(len(self.blocks), self.batch, self.seed, step * process_count() + rank())
        for part in torch.from_numpy(self.blocks[chosen]).to(device).split(self.micro_batch):
            yield part.float() / 255, len(part) / self.batch


def drawn_blocks(count: int, batch: int, seed: int, step: int) -> np.ndarray:
    """Return the indices of a step: consecutive parts of a permutation of `count`, another one for every epoch."""
    epoch, index = divmod(step, count // batch)
    return np.random.default_rng([seed, epoch]).permutation(count)[index * batch : (index + 1) * batch]
