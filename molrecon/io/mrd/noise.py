"""The noise covariance of a scan, from its noise readouts, brought to the sampling of the image."""

from __future__ import annotations

import numpy as np

from molrecon.io.mrd.measurement import Measurement
from molrecon.io.mrd.records import Records, readout

FEWEST_SAMPLES = 8  # for each coil: fewer give a covariance that says little


def noise_covariance(
    records: Records, noise: np.ndarray, imaging: np.ndarray, measurement: Measurement
) -> np.ndarray | None:
    """Return `Psi[i, j] = E n_i conj(n_j)` (coils, coils) complex128 of the samples of the image, one average.

        Psi = Psi_noise (T_noise / T_image) / b

    The variance of a sample goes with the bandwidth it is taken with, thus with one over its dwell time T; the filter
    of the noise scan lets the share b of its nominal bandwidth pass (relativeReceiverNoiseBandwidth). Dwell times that
    the file does not give count as equal.

    Args:
        records: the file.
        noise, imaging: (readouts,) bool.
        measurement: of the header.

    Returns:
        None without noise readouts, for other coils than those of the image, for fewer than eight samples a coil, and
        where a coil has no noise.

    Source: Kellman and McVeigh, Magn Reson Med 54:1439 (2005); Hansen and Kellman, J Magn Reson Imaging 41:573 (2015).
    """
    chosen = np.flatnonzero(noise)
    coils = np.unique(records.heads["active_channels"][noise | imaging])
    if not len(chosen) or not imaging.any() or len(coils) != 1:
        return None
    samples = np.concatenate([readout(records, int(k), int(coils[0])) for k in chosen], 1).astype(np.complex128)
    if not np.isfinite(samples).all() or samples.shape[1] < FEWEST_SAMPLES * len(samples):
        return None
    covariance: np.ndarray = samples @ samples.conj().T / samples.shape[1]
    values = np.linalg.eigvalsh(covariance)
    if not values[0] > 1e-10 * values[-1]:
        return None
    dwell = [float(np.median(records.heads["sample_time_us"][which])) for which in (noise, imaging)]
    ratio = dwell[0] / dwell[1] if min(dwell) > 0 and np.isfinite(dwell).all() else 1.0
    return covariance * ratio / measurement.relative_noise_bandwidth
