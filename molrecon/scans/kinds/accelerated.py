"""Along which axes a scan was undersampled, read off its mask."""

from __future__ import annotations

import numpy as np

from molrecon.io import RawVolume

FILLED = 0.9  # share of the samples between the first and the last of a line: more is no acceleration


def accelerated_axes(volume: RawVolume) -> tuple[bool, bool]:
    """Return whether samples are missing between measured ones along (rows, columns), in any slice.

    Samples missing at the ends of a line are those of partial Fourier, of an ellipse, or of zero padding: along an axis
    it is the share of the samples between the first and the last of each line that tells. A calibration region changes
    it little.
    """
    mask, rows = volume.sampling_mask, volume.kspace.shape[-2]
    full = np.broadcast_to(mask, (len(mask), rows, mask.shape[-1]))
    return _filled(full.swapaxes(1, 2)) < FILLED, _filled(full) < FILLED


def acceleration_factor(volume: RawVolume) -> float:
    """Return all samples of the acquired range (without zero padding) over the measured ones."""
    left = int(volume.attributes.get("padding_left") or 0)
    right = int(volume.attributes.get("padding_right") or volume.sampling_mask.shape[-1])
    acquired = volume.sampling_mask[..., left:right]
    return acquired.size / max(1, int(acquired.sum()))


def _filled(lines: np.ndarray) -> float:
    """Return the share of measured samples between the first and the last of lines (..., n) that have some."""
    sampled = lines[lines.any(axis=-1)]
    if not len(sampled):
        return 1.0
    first, last = sampled.argmax(axis=-1), sampled.shape[-1] - 1 - sampled[:, ::-1].argmax(axis=-1)
    return float(sampled.sum() / (last - first + 1).sum())
