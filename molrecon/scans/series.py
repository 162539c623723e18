"""Several reconstructed volumes as one, and one of them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from molrecon.scans.data_warnings import DataWarning
from molrecon.scans.reconstruction import Reconstruction


def joined(results: Sequence[Reconstruction], time_step: float | None = None) -> Reconstruction:
    """Return volumes of one method as a series; a single one as it is.

    Slices are numbered through all frames, in warnings too; what is said of every frame alike is said once. Images of
    different shapes do not form a series: the image is then that of the first.

    Raises:
        ValueError: no volumes.
    """
    if not results:
        raise ValueError("joined: no volumes, expected one or more")
    first = results[0]
    if len(results) == 1:
        return first
    alike = all(one.image.shape == first.image.shape for one in results)
    warnings: dict[DataWarning, None] = {}
    start = 0
    for one in results:
        warnings |= {
            warning if warning.slice is None else replace(warning, slice=warning.slice + start): None
            for warning in one.warnings
        }
        start += len(one.converged)
    return replace(
        first,
        image=np.stack([one.image for one in results]) if alike else first.image,
        error_bound=np.concatenate([one.error_bound for one in results]),
        residuals=[residuals for one in results for residuals in one.residuals],
        converged=np.concatenate([one.converged for one in results]),
        n_steps=np.concatenate([one.n_steps for one in results]),
        empty=np.concatenate([one.empty for one in results]),
        scale=np.concatenate([one.scale for one in results]),
        seconds=sum(one.seconds for one in results),
        checks=[checks for one in results for checks in one.checks],
        warnings=list(warnings),
        time_step=time_step,
        complex_image=_stacked([one.complex_image for one in results]) if alike else first.complex_image,
        noise=_joined_noise(results) if alike else first.noise,
    )


def frame_of(result: Reconstruction, k: int) -> Reconstruction:
    """Return frame k of a series (time, slices, rows, cols). Raises IndexError."""
    image = result.image[k]
    slices = slice(k * len(image), (k + 1) * len(image))
    warnings = [
        warning if warning.slice is None else replace(warning, slice=warning.slice - slices.start)
        for warning in result.warnings
        if warning.slice is None or slices.start <= warning.slice < slices.stop
    ]
    return replace(
        result,
        image=image,
        error_bound=result.error_bound[slices],
        residuals=result.residuals[slices],
        converged=result.converged[slices],
        n_steps=result.n_steps[slices],
        empty=result.empty[slices],
        scale=result.scale[slices],
        checks=result.checks[slices],
        warnings=warnings,
        time_step=None,
        last_residual=result.last_residual if k == 0 else None,
        complex_image=None if result.complex_image is None else result.complex_image[k],
        noise=None if result.noise is None else (result.noise[0][k], result.noise[1][k]),
    )


def _stacked(images: Sequence[np.ndarray | None]) -> np.ndarray | None:
    present = [one for one in images if one is not None]
    return np.stack(present) if len(present) == len(images) else None


def _joined_noise(results: Sequence[Reconstruction]) -> tuple[np.ndarray, np.ndarray] | None:
    maps = [one.noise for one in results if one.noise is not None]
    if len(maps) < len(results):
        return None
    return np.stack([deviation for deviation, _ in maps]), np.stack([amplification for _, amplification in maps])
