"""Problems of sparse coding: codes drawn at random, and patches of photographs with their lasso optima.

Every problem has a dictionary D (m, n) and draws (codes x* (count, n), measurements b (count, m)), float32. Training
draws with the generator of the loop, `default_rng([seed, step])`; `stream` gives others, apart from those.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, final

import numpy as np
import skimage.data
import torch
from torch import Tensor

from molrecon.descent.sparse import FISTA
from molrecon.io.images import luma, read_image
from molrecon.sensing.training import HELD_OUT, benchmark_images, image_paths, validation_images
from operators import Dense

VALIDATION, TEST = 1, 2  # streams of draws; 0 is the dictionary's
_DICTIONARY = 0

WINDOW = 32  # pixels on the side of a window of an image
REDUCTION = 4  # pixels on the side of the squares that a window is averaged over
ATOMS = 12  # frequencies an axis of the dictionary of patches
REGULARISATION = 0.1  # mu, where measurements have norm 1
FLAT = 0.02  # standard deviation of intensities in [0, 1] below which a window holds nothing to code


def stream(seed: int, which: int) -> np.random.Generator:
    """Return a source of draws, independent of the others and of every step of a training with any seed."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(which + 1,)))


class SparseProblem(Protocol):
    """What networks are trained on and scored with.

    Attributes:
        dictionary: D (m, n) float32.
    """

    dictionary: Tensor

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return codes x* (count, n) and measurements b (count, m), float32."""


def gaussian_dictionary(measurements: int = 250, atoms: int = 500, *, seed: int = 0) -> Tensor:
    """Return D (measurements, atoms) float32 of independent normal entries, its columns scaled to norm 1."""
    draws = stream(seed, _DICTIONARY).standard_normal((measurements, atoms))
    return torch.from_numpy(draws / np.linalg.norm(draws, axis=0)).float()


@final
class BernoulliGaussian:
    """The standard benchmark: `b = D x* + noise`, x* standard normal where it is not zero.

    Args:
        dictionary: D (m, n) with columns of norm 1.
        density: probability that an entry of x* is not zero, independently.
        snr_db: `10 log10(E|D x*|^2 / E|noise|^2)` of white Gaussian noise; None for none.

    Source: Chen, Liu, Wang, Yin, NeurIPS 2018, section 4.1: m = 250, n = 500, density 0.1, Gaussian D.
    """

    def __init__(self, dictionary: Tensor, *, density: float = 0.1, snr_db: float | None = None) -> None:
        self.dictionary = dictionary.float()
        self.density = density
        measurements, atoms = dictionary.shape
        power = density * atoms / measurements  # of an entry of D x*
        self.noise_level = 0.0 if snr_db is None else (power * 10 ** (-snr_db / 10)) ** 0.5

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return codes and measurements, see the class."""
        m, n = self.dictionary.shape
        codes = rng.standard_normal((count, n), np.float32) * (rng.random((count, n), np.float32) < self.density)
        noise = torch.from_numpy(self.noise_level * rng.standard_normal((count, m), np.float32))
        x = torch.from_numpy(codes)
        return x, x @ self.dictionary.T + noise


@final
class Patches:
    """Measurements that are given, and their codes by the lasso: `x* = argmin 1/2 |b - D x|^2 + mu |x|_1`.

    x* is FISTA's in float64, to a duality gap and a change a step of 1e-10.

    Args:
        measurements: b (count, m).
        dictionary: D (m, n).
        regularisation: mu.

    Attributes:
        measurements, codes: all of them, float32.

    Raises:
        RuntimeError: FISTA did not converge.
    """

    def __init__(self, measurements: Tensor, dictionary: Tensor, *, regularisation: float = REGULARISATION) -> None:
        self.dictionary = dictionary.float()
        self.measurements = measurements.float()
        solution = FISTA(regularisation)(self.measurements.double(), Dense(self.dictionary.double()))
        if not bool(solution.converged.all()):
            raise RuntimeError(f"Patches: {solution.shortfall()}")
        self.codes = solution.value.float()

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return `count` of them, with replacement."""
        chosen = torch.from_numpy(rng.integers(len(self.codes), size=count))
        return self.codes[chosen], self.measurements[chosen]


def overcomplete_dct(side: int, atoms: int) -> Tensor:
    """Return a dictionary (side^2, atoms^2 - 1) float64 for patches without their mean: cosines of more frequencies.

    Products of `cos(pi j (i + 1/2) / atoms)`, i = 0 .. side - 1, j = 0 .. atoms - 1, along both axes, less their mean
    and scaled to norm 1; the constant is left out. With `atoms = side` it is the orthonormal DCT.

    Raises:
        ValueError: fewer atoms than pixels an axis.
    """
    if not 1 <= side <= atoms:
        raise ValueError(
            f"overcomplete_dct: got side {side} and {atoms} atoms an axis, expected at least as many atoms"
        )
    positions = torch.arange(side, dtype=torch.float64) + 0.5
    axis = torch.cos(torch.pi * positions[:, None] * torch.arange(atoms, dtype=torch.float64) / atoms)
    products = torch.kron(axis, axis)[:, 1:]
    centred = products - products.mean(0)
    return centred / centred.norm(dim=0)


def patch_dictionary() -> Tensor:
    """Return the dictionary of the patches here, (64, 143) float32."""
    return overcomplete_dct(WINDOW // REDUCTION, ATOMS).float()


def draw_patches(images: Sequence[np.ndarray], count: int, rng: np.random.Generator) -> Tensor:
    """Return patches (count, 64) float32: windows of 32 x 32 pixels, averaged over 4 x 4, less their mean, of norm 1.

    Images are drawn alike, whatever their size. Flat windows, which hold nothing but noise, are drawn again.

    Args:
        images: (rows, cols) uint8, at least 32 x 32, not all of them flat.
        count: of patches.
        rng: source of randomness.
    """
    patches: list[np.ndarray] = []
    while len(patches) < count:
        image = images[int(rng.integers(len(images)))]
        row, col = (int(rng.integers(size - WINDOW + 1)) for size in image.shape)
        window = image[row : row + WINDOW, col : col + WINDOW] / 255
        patch = window.reshape(WINDOW // REDUCTION, REDUCTION, WINDOW // REDUCTION, REDUCTION).mean((1, 3)).ravel()
        patch -= patch.mean()
        if patch.std() >= FLAT:
            patches.append(patch / np.linalg.norm(patch))
    return torch.from_numpy(np.stack(patches)).float()


def training_images(folder: Path) -> list[np.ndarray]:
    """Return the luma (rows, cols) uint8 of train400 less the images of `validation_images`."""
    return [luma(read_image(path)) for path in image_paths(folder, "train400")[:-HELD_OUT]]


def image_split(folder: Path | None) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Return images (rows, cols) uint8 for training, validation and test.

    Args:
        folder: the data folder: train400 but for its last 40 images, these, and BSD68. None: photographs that ship
            with scikit-image (astronaut, cat, coffee and rocket; coins; cameraman), without any download.
    """
    if folder is not None:
        return training_images(folder), validation_images(folder), benchmark_images(folder, "bsd68")
    data = skimage.data
    train = [luma(image()) for image in (data.astronaut, data.chelsea, data.coffee, data.rocket)]
    return train, [data.coins()], [data.camera()]


def texture_images() -> list[np.ndarray]:
    """Return brick, grass and gravel, (512, 512) uint8, which ship with scikit-image: unlike photographs of scenes."""
    return [skimage.data.brick(), skimage.data.grass(), skimage.data.gravel()]
