"""Images with holes: photographs that ship with scikit-image, folders of images, masks, and batches of problems.

Images are (count, rows, cols) uint8 when grey and (count, 3, rows, cols) in colour. `known` is True where a pixel is
known (see `operators.Inpainting`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import numpy as np
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from molrecon.io.images import luma, read_image
from operators import Inpainting

FACE_SIZE = 24  # of the 25 rows and columns
HOLE = 24 / 64  # side of the centre hole over that of the image
RANDOM_SHARE = 0.5  # of the pixels that a random mask keeps
SHARES = (0.7, 0.1)  # of the images for training and validation; the rest is for the test
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".webp")

Masks = Literal["centre", "random", "both"]


@final
@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Images for training, validation and test; none is in two of them."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@final
@dataclass(frozen=True, eq=False)
class InpaintingBatch:
    """Inpainting problems: images x (batch, ...) in [0, 1], the operator M, and the measurements `M (x + noise)`."""

    images: Tensor
    operator: Inpainting
    measurements: Tensor

    def to(self, device: str | torch.device) -> InpaintingBatch:
        """Return the batch on another device, with an operator of its own; this one stays where it is."""
        return InpaintingBatch(self.images.to(device), self.operator.on(device), self.measurements.to(device))


def split_images(images: np.ndarray, seed: int = 0) -> ImageSplit:
    """Return 70, 10 and 20 % of the images, drawn with this seed.

    Raises:
        ValueError: fewer than ten images.
    """
    if len(images) < 10:
        raise ValueError(f"split_images: {len(images)} images, expected at least 10")
    order = np.random.default_rng(seed).permutation(len(images))
    first, second = (round(share * len(images)) for share in (SHARES[0], sum(SHARES)))
    return ImageSplit(images[order[:first]], images[order[first:second]], images[order[second:]])


def shipped_faces(seed: int = 0) -> ImageSplit:
    """Return the 100 grey faces of 25 x 25 pixels that ship with scikit-image: 70, 10 and 20 of them.

    They are a random choice of Labeled Faces in the Wild, cut out and scaled. Nothing is downloaded. Who they show is
    not told, so that one person may be in two parts; no two pictures are alike (correlation 0.85 at most).
    """
    faces = skimage.data.lfw_subset()[:100]
    return split_images(np.rint(255 * faces).astype(np.uint8), seed)


def photograph_patches(count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return grey windows (count, size, size) uint8 of shipped photographs at half their resolution: no faces' kin.

    Cat, coins, coffee, cameraman and rocket, drawn alike; nearly flat windows (standard deviation below 8) drawn again.
    """
    data = skimage.data
    photographs = [luma(image()) for image in (data.chelsea, data.coins, data.coffee, data.camera, data.rocket)]
    windows: list[np.ndarray] = []
    while len(windows) < count:
        whole = photographs[rng.integers(len(photographs))]
        row, col = (int(rng.integers(length - 2 * size + 1)) for length in whole.shape)
        window = whole[row : row + 2 * size, col : col + 2 * size].reshape(size, 2, size, 2).mean((1, 3))
        if window.std() >= 8:
            windows.append(np.rint(window).astype(np.uint8))
    return np.stack(windows)


def folder_images(folder: Path, size: int = 64, *, colour: bool = True, seed: int = 0) -> ImageSplit:
    """Return the images of a folder such as CelebA-HQ's, middle square, scaled to size x size by Pillow's Lanczos.

    Args:
        folder: with images of 8 bits, of any size; subfolders are not looked into.
        size: rows and columns afterwards.
        colour: red, green and blue, (count, 3, size, size); otherwise luma, (count, size, size).
        seed: of the split, which is one of the sorted names.

    Raises:
        ValueError: fewer than ten images there.
        UnreadableInput: one of them cannot be read.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if len(paths) < 10:
        raise ValueError(f"{folder}: {len(paths)} images, expected at least 10")
    return split_images(np.stack([_square(read_image(path), size, colour) for path in paths]), seed)


def _square(image: np.ndarray, size: int, colour: bool) -> np.ndarray:
    image = image if colour else luma(image)
    side = min(image.shape[:2])
    row, col = ((length - side) // 2 for length in image.shape[:2])
    middle = Image.fromarray(image[row : row + side, col : col + side])
    scaled = np.asarray(middle.convert("RGB" if colour else "L").resize((size, size), Image.Resampling.LANCZOS))
    return np.moveaxis(scaled, -1, 0) if colour else scaled


def centre_mask(size: int) -> np.ndarray:
    """Return known pixels (size, size) with a square hole in the middle, 3/8 of the side: 24 x 24 of 64 x 64."""
    hole = round(HOLE * size)
    start = (size - hole) // 2
    known = np.ones((size, size), bool)
    known[start : start + hole, start : start + hole] = False
    return known


def draw_masks(kind: Masks, count: int, size: int, rng: np.random.Generator, share: float = RANDOM_SHARE) -> np.ndarray:
    """Return known pixels (count, size, size): the centre mask, random ones, or either with equal chances.

    A random mask knows every pixel with probability `share`, independently.

    Raises:
        ValueError: another kind.
    """
    if kind not in ("centre", "random", "both"):
        raise ValueError(f"draw_masks: masks {kind!r}, expected 'centre', 'random' or 'both'")
    centre = np.broadcast_to(centre_mask(size), (count, size, size))
    random = rng.random((count, size, size)) < share
    chosen = rng.random((count, 1, 1)) < {"centre": 0.0, "random": 1.0, "both": 0.5}[kind]
    return np.where(chosen, random, centre)


def inpainting_batch(
    images: np.ndarray, known: np.ndarray, *, noise_level: float = 0.0, rng: np.random.Generator | None = None
) -> InpaintingBatch:
    """Return the problems of images and masks.

    Args:
        images: uint8.
        known: (count or 1, rows, cols).
        noise_level: standard deviation of white Gaussian noise on the known pixels, intensities in [0, 1].
        rng: source of the noise; needed where there is some.

    Raises:
        ValueError: noise without a source, masks that do not fit.
    """
    if noise_level and rng is None:
        raise ValueError("inpainting_batch: noise and no rng, expected a source of randomness")
    x = torch.from_numpy(np.ascontiguousarray(images)).float() / 255
    operator = Inpainting(torch.from_numpy(known if images.ndim == 3 else known[:, None]))
    if noise_level == 0 or rng is None:
        return InpaintingBatch(x, operator, operator(x))
    noise = torch.from_numpy(rng.standard_normal(x.shape, np.float32))
    return InpaintingBatch(x, operator, operator(x + noise_level * noise))


def crop(images: np.ndarray, size: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Return size x size windows, and half of them mirrored: drawn, or the first corner as it is where rng is None.

    Raises:
        ValueError: images smaller than that.
    """
    room = [length - size for length in images.shape[-2:]]
    if min(room) < 0:
        raise ValueError(f"crop: images {images.shape}, expected at least {size} rows and columns")
    if rng is None:
        return images[..., :size, :size]
    windows = []
    for image in images:
        row, col = (int(rng.integers(length + 1)) for length in room)
        window = image[..., row : row + size, col : col + size]
        windows.append(window[..., ::-1] if rng.random() < 0.5 else window)
    return np.stack(windows)


def evaluation_batches(
    images: np.ndarray, size: int, kinds: Sequence[Masks] = ("centre",), *, noise_level: float = 0.0, seed: int = 0
) -> list[InpaintingBatch]:
    """Return all images as one batch for each kind of mask, the same at every call."""
    cropped = crop(images, size)
    batches = []
    for kind in kinds:
        rng = np.random.default_rng(seed)
        known = draw_masks(kind, len(cropped), size, rng)
        batches.append(inpainting_batch(cropped, known, noise_level=noise_level, rng=rng))
    return batches
