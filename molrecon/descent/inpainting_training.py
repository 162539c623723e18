"""Training of GLOW-Prox: inpainting problems whose layers can be made to descend (`molrecon.descent.training`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from torch import Tensor

from molrecon.descent.constraints import DescentProblem
from molrecon.descent.glow_prox import GlowProx
from molrecon.descent.inpainting_problems import InpaintingBatch, Masks, crop, draw_masks, inpainting_batch
from molrecon.reconstructors.unrolled import Disturb
from molrecon.solvers.batched import norm
from molrecon.training.train_settings import TrainSettings

CALIBRATION = 64  # images that ActNorm is set from
INPAINTING_SETTINGS = TrainSettings(
    steps=300,
    learning_rate=2e-3,
    warmup=20,
    decay_start=0,
    final_rate=0.02,
    betas=(0.9, 0.99),
    ema=0,
    checkpoint_every=25,
    log_every=25,
)


@final
class InpaintingProblem(DescentProblem[GlowProx, InpaintingBatch]):
    """A GLOW-Prox and images to train it on, cropped and mirrored at random.

    Args:
        model: trained in place; its ActNorms are set from the images at once.
        images: (count, ...) uint8, for training.
        size: rows and columns of the crops.
        batch: images a step, with replacement.
        masks: what is drawn.
        noise_level: of the measurements.
        seed: of the images that ActNorm is set from.
    """

    def __init__(
        self,
        model: GlowProx,
        images: np.ndarray,
        size: int,
        *,
        batch: int = 16,
        masks: Masks = "centre",
        noise_level: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.n_layers = model.n_layers
        self.images = images
        self.size = size
        self.batch = batch
        self.masks: Masks = masks
        self.noise_level = noise_level
        first = self._draw(CALIBRATION, np.random.default_rng(seed))
        model.calibrate(first.measurements, first.operator)

    def draw(self, step: int, rng: np.random.Generator) -> InpaintingBatch:
        """Return the batch of a step."""
        return self._draw(self.batch, rng)

    def _draw(self, count: int, rng: np.random.Generator) -> InpaintingBatch:
        images = crop(self.images[rng.integers(len(self.images), size=count)], self.size, rng)
        known = draw_masks(self.masks, count, self.size, rng)
        problems = inpainting_batch(images, known, noise_level=self.noise_level, rng=rng)
        return problems.to(self.model.step_logit.device)

    def layers(self, batch: InpaintingBatch, disturb: Disturb | None) -> tuple[Tensor, Sequence[Tensor]]:
        """Return the masked image and the image after each layer."""
        stages = self.model.stages(batch.measurements, batch.operator, disturb=disturb)
        return batch.operator.adjoint(batch.measurements), list(stages)

    def final_loss(self, last: Tensor, batch: InpaintingBatch) -> Tensor:
        """Return the mean over the images of `|y_L - y*|^2 / |y*|^2`."""
        return (norm(last - batch.images) / norm(batch.images)).square().mean()

    def reference(self, batch: InpaintingBatch) -> Tensor:
        """Return the images without holes."""
        return batch.images
