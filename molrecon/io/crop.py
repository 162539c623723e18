"""Central crop, as fastMRI cuts images to the recon matrix."""

from __future__ import annotations

import numpy as np

__all__ = ["center_crop"]


def center_crop(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The central part of the last two axes of image (..., rows, cols); a view, not a copy.

    It starts at (size - shape) // 2. Along an axis on which the image is smaller than `shape` all of it is kept: some
    FLAIR volumes are narrower than their recon matrix, and zeros around them would be invented data. The result is
    thus (..., min(rows, shape[0]), min(cols, shape[1])). Raises ValueError for fewer than two axes or a size below 1.
    """
    if image.ndim < 2 or len(shape) != 2 or min(shape) < 1:
        raise ValueError(
            f"center_crop: image {image.shape} and shape {tuple(shape)}, expected (..., rows, cols), two sizes > 0"
        )
    rows, cols = min(shape[0], image.shape[-2]), min(shape[1], image.shape[-1])
    top, left = (image.shape[-2] - rows) // 2, (image.shape[-1] - cols) // 2
    return image[..., top : top + rows, left : left + cols]
