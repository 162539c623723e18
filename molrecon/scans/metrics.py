"""Image metrics as the fastMRI challenge defines them; every function takes whole volumes, reference first.

Zbontar et al., "fastMRI: An Open Dataset and Benchmarks for Accelerated MRI", arXiv:1811.08839, section 5. Other
toolkits take the data range from each slice, from both images or from the dtype, and get other numbers.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["nmse", "psnr", "ssim"]

SSIM_WINDOW = 7


def nmse(reference: np.ndarray, image: np.ndarray) -> float:
    """Normalised mean squared error |reference - image|^2 / |reference|^2 over the whole volume.

    reference, image: (slices, h, w), real; computed in float64. Raises ValueError for differing shapes, another rank,
    NaN or infinity, a reference without a positive value; TypeError for complex arrays.
    """
    reference, image = _checked("nmse", reference, image)
    return float(np.sum((reference - image) ** 2) / np.sum(reference**2))


def psnr(reference: np.ndarray, image: np.ndarray, data_range: float | None = None) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(data_range^2 / mean((reference - image)^2)) over the whole volume.

    data_range: the maximum of the reference volume when None. Infinite for equal volumes. Arguments and errors as in
    `nmse`; ValueError also for a data_range that is not positive.
    """
    reference, image = _checked("psnr", reference, image)
    peak = _data_range("psnr", reference, data_range)
    error = float(np.mean((reference - image) ** 2))
    return 10 * math.log10(peak**2 / error) if error > 0 else math.inf


def ssim(reference: np.ndarray, image: np.ndarray, data_range: float | None = None) -> float:
    """Structural similarity (Wang et al., IEEE TIP 13:600, 2004), mean over slices.

    Each slice: uniform 7x7 window, sample covariance, K1 = 0.01, K2 = 0.03, mean over the positions where the window
    fits (scikit-image's defaults). data_range: the maximum of the reference volume when None. Arguments and errors as
    in `nmse`; ValueError also for slices smaller than 7x7 and a data_range that is not positive.
    """
    from skimage.metrics import structural_similarity

    reference, image = _checked("ssim", reference, image)
    peak = _data_range("ssim", reference, data_range)
    if min(reference.shape[1:]) < SSIM_WINDOW:
        raise ValueError(f"ssim: slices of {reference.shape[1:]}, expected at least {SSIM_WINDOW} x {SSIM_WINDOW}")
    pairs = zip(reference, image, strict=True)
    return float(np.mean([structural_similarity(one, other, data_range=peak) for one, other in pairs]))


def _checked(who: str, reference: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    reference, image = np.asarray(reference), np.asarray(image)
    for name, array in (("reference", reference), ("image", image)):
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{who}: {name} of dtype {array.dtype}, expected real numbers (take the magnitude first)")
        if array.ndim != 3 or array.size == 0:
            raise ValueError(f"{who}: {name} of shape {array.shape}, expected (slices, h, w), none empty")
        if not np.isfinite(array).all():
            raise ValueError(f"{who}: NaN or infinity in the {name}, expected finite values")
    if reference.shape != image.shape:
        raise ValueError(f"{who}: reference {reference.shape} and image {image.shape}, expected equal shapes")
    if not reference.max() > 0:
        raise ValueError(f"{who}: reference without a positive value, expected an image")
    return reference.astype(np.float64), image.astype(np.float64)


def _data_range(who: str, reference: np.ndarray, data_range: float | None) -> float:
    peak = float(reference.max()) if data_range is None else float(data_range)
    if not 0 < peak < math.inf:
        raise ValueError(f"{who}: data_range {data_range}, expected a positive number")
    return peak
