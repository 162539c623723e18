"""Compressed sensing of photographs: the published training blocks, scores by the published protocol, and training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from molrecon.io.images import luma, matlab_grey, read_image
from molrecon.io.matlab import read_matrix
from molrecon.scans.metrics import psnr, ssim
from molrecon.sensing.block_batches import BlockBatches
from molrecon.sensing.imager import BLOCK_SIZE, BlockImager
from molrecon.sensing.ratios import MEASUREMENTS
from molrecon.sensing.stage import Stage, Unrolled, last_image
from molrecon.solvers.solution import Solution
from molrecon.training.task import Task
from molrecon.training.train_settings import TrainSettings
from operators import Dense, orthonormal_matrix

DRAWN_RATIOS = (20, 50)
STRIDE = 20  # of the grid of training blocks
HELD_OUT = 40  # the last so many images of train400 are for validation
PENALTY_WEIGHT = 0.01
# A small budget, without averages; the published protocol is 277,800 steps at a constant 1e-4.
IMAGING_SETTINGS = TrainSettings(
    steps=3000,
    learning_rate=1e-3,
    warmup=50,
    decay_start=0,
    final_rate=0.02,
    betas=(0.9, 0.999),
    ema=0,
    clip=None,
    checkpoint_every=250,
)


def training_blocks(folder: Path) -> np.ndarray:
    """Return the 88,912 blocks (n, 1089) uint8 on which ISTA-Net+ and COAST were trained.

    The 91 images in grey (MATLAB's rgb2gray), each in its eight orientations, cut on a grid of stride 20.

    Args:
        folder: the data folder, with cs/t91 (see data_scripts/prepare_cs.py).

    Raises:
        FileNotFoundError: no images there.
    """
    paths = image_paths(folder, "t91")
    return np.concatenate(
        [_blocks(turned) for path in paths for turned in _orientations(matlab_grey(read_image(path)))]
    )


def _orientations(image: np.ndarray) -> Iterator[np.ndarray]:
    for flipped in (image, image[:, ::-1]):
        for turns in range(4):
            yield np.rot90(flipped, turns)


def _blocks(image: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(image, (BLOCK_SIZE, BLOCK_SIZE))
    return windows[::STRIDE, ::STRIDE].reshape(-1, BLOCK_SIZE**2)


def second_moment(blocks: np.ndarray) -> np.ndarray:
    """Return `X X^T` (N, N) float64 of blocks (n, N) uint8, the columns of 255 X.

    Intensities are rounded to single precision, as those of the published blocks are: that shows in the ninth decimal
    of the initialisation matrix.
    """
    intensities = (np.arange(256) / 255).astype(np.float32).astype(np.float64)
    moment = np.zeros((blocks.shape[1], blocks.shape[1]))
    for start in range(0, len(blocks), 8192):
        chunk = intensities[blocks[start : start + 8192]]
        moment += chunk.T @ chunk
    return moment


def initialisation_matrix(phi: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """Return `Q = X Y^T (Y Y^T)^-1`, Y = Phi X, the linear estimate of blocks x from y that is best on average.

    Args:
        phi: (M, N).
        moment: `X X^T` (N, N), from `second_moment`.

    Returns: (N, M) float64.
    """
    cross = moment @ phi.T
    return np.linalg.solve(phi @ cross, cross.T).T


def sensing_matrix(folder: Path, ratio: int) -> np.ndarray:
    """Return Phi (M, 1089) float64 with orthonormal rows for a sampling ratio in percent.

    The published matrices for 10, 25, 30 and 40 %; those for 20 and 50 % were not published and are drawn here, with
    the ratio as the seed.

    Raises:
        FileNotFoundError: no published/ista_net_plus in the data folder.
        ValueError: another ratio.
    """
    if ratio not in MEASUREMENTS:
        raise ValueError(f"sensing_matrix: ratio {ratio}, expected one of {', '.join(map(str, MEASUREMENTS))}")
    if ratio in DRAWN_RATIOS:
        return orthonormal_matrix(MEASUREMENTS[ratio], BLOCK_SIZE**2, seed=ratio).numpy()
    return read_matrix(folder / "published" / "ista_net_plus" / f"phi_0_{ratio}_1089.mat", "phi")


def image_paths(folder: Path, name: str) -> list[Path]:
    """Return the files of cs/NAME in the data folder, sorted. Raises FileNotFoundError when there are none."""
    paths = sorted(path for path in (folder / "cs" / name).glob("*") if path.suffix in (".bmp", ".png", ".tif"))
    if not paths:
        raise FileNotFoundError(f"{folder / 'cs' / name}: no images, expected those of data_scripts/prepare_cs.py")
    return paths


def benchmark_images(folder: Path, name: str) -> list[np.ndarray]:
    """Return the luma (rows, cols) uint8 of the images of a test set: set11, bsd68, bsd68_cropped."""
    return [luma(read_image(path)) for path in image_paths(folder, name)]


def validation_images(folder: Path, count: int = HELD_OUT) -> list[np.ndarray]:
    """Return the first `count` of the held-out images of train400, (180, 180) uint8."""
    return [luma(read_image(path)) for path in image_paths(folder, "train400")[-HELD_OUT:][:count]]


def image_score(reference: np.ndarray, restored: Tensor) -> tuple[float, float]:
    """Return (PSNR in dB, SSIM) with the data range 255 of a reference (rows, cols) uint8.

    restored: (rows, cols) in [0, 1], clipped to that here and not rounded.
    """
    image = restored.clamp(0, 1).double().cpu().numpy() * 255
    return psnr(reference[None], image[None], 255), ssim(reference[None], image[None], 255)


@torch.no_grad()
def mean_score(imager: BlockImager, images: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return mean PSNR and SSIM of images (rows, cols) uint8, measured and reconstructed in evaluation mode."""
    was_training = imager.model.training
    imager.model.eval()
    scores = []
    for image in images:
        x = torch.from_numpy(image).to(imager.phi) / 255
        scores.append(image_score(image, imager(imager.measure(x[None]), x.shape)[0]))
    imager.model.train(was_training)
    return float(np.mean([s[0] for s in scores])), float(np.mean([s[1] for s in scores]))


def block_loss(imager: BlockImager, blocks: Tensor, *, mixed: bool = False) -> Tensor:
    """Return the loss of blocks (n, 1089) in [0, 1], see `penalised_error`.

    At an equilibrium the penalty is that of its stage.

    Args:
        imager: in training mode.
        blocks: (n, 1089).
        mixed: see `Unrolled.stages`.

    Raises:
        ValueError: mixed at an equilibrium, whose residual the rounding would hide.
    """
    measurements, operator, start = imager.block_problem(Dense(imager.phi)(blocks))
    images = blocks.reshape(start.shape)
    if isinstance(imager.model, Unrolled):
        return penalised_error(imager.model.stages(measurements, operator, start, mixed=mixed), images)
    if mixed:
        raise ValueError("block_loss: mixed precision at an equilibrium, expected single precision")
    image = imager.model(measurements, operator, start, on_backward=_unheeded).value
    _, penalty = last_image(imager.model.model.stages(measurements, operator, image.detach()))
    return (image - images).square().mean() + PENALTY_WEIGHT * penalty


def _unheeded(answer: Solution) -> None:
    """Let a gradient pass that is not quite solved: the next step has another."""


def penalised_error(stages: Iterable[Stage], images: Tensor) -> Tensor:
    """Return the mean squared error of the last image plus 0.01 times the sum of the stages' penalties."""
    image, penalty = last_image(stages)
    return (image - images).square().mean() + PENALTY_WEIGHT * penalty


@final
class ImagingTask(Task[BlockImager]):
    """An imager, and blocks to train its model on; Phi and the initialisation stay.

    Args:
        imager: its model is trained.
        batches: of blocks.
        mixed: see `Unrolled.stages`.
    """

    def __init__(self, imager: BlockImager, batches: BlockBatches, *, mixed: bool = False) -> None:
        self.model, self.batches, self.mixed = imager, batches, mixed

    def losses(self, step: int, rng: np.random.Generator) -> Iterator[Tensor]:
        """Yield the loss of the batch in parts; `rng` is not used."""
        for blocks, share in self.batches.parts(step, self.model.phi.device):
            yield block_loss(self.model, blocks, mixed=self.mixed) * share
