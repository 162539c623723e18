"""How many times a scan was accelerated, read off its mask."""

from __future__ import annotations

from molrecon.io import RawVolume


def acceleration_factor(volume: RawVolume) -> float:
    """Return all samples of the acquired range (without zero padding) over the measured ones."""
    left = int(volume.attributes.get("padding_left") or 0)
    right = int(volume.attributes.get("padding_right") or volume.sampling_mask.shape[-1])
    acquired = volume.sampling_mask[..., left:right]
    return acquired.size / max(1, int(acquired.sum()))
