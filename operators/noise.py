"""The noise of a multi-coil scan, from the scan itself."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from operators.calibration import calibration_matrix, calibration_region
from operators.fourier import centred_ifft
from operators.linear import require_complex
from operators.sampling import as_mask

_MATRIX_COLUMNS = 144
_FEWEST_LINES = 4
_WARM_UP_ROUNDS = 4
_MAX_ROUNDS = 8
_SETTLED = 0.005
_FILTERED = 0.5  # of the centre's noise level: with less at the edge, k-space was filtered


def estimate_noise_level(
    kspace: Tensor, sampling_mask: Tensor | np.ndarray, readout_oversampled: bool = False
) -> Tensor:
    """Return the noise standard deviation sigma of the k-space, `sigma^2 = mean over coils of E|n_c|^2`, per sample.

    sigma is that of the complex noise, so each of its real and imaginary parts has sigma / sqrt(2); with the
    orthonormal Fourier transform it is the same number in each coil image.

    With `readout_oversampled`, the outer part of the readout field of view holds noise only: after an inverse transform
    along the rows (Hann-windowed against ringing), sigma^2 is the median over those rows of the mean energy. Else it is
    the mean diagonal entry of `estimate_noise_covariance`.

    Args:
        kspace: (batch, coil, rows, cols) complex; rows are the readout; samples that are not measured are not used.
        sampling_mask: (batch or 1, rows, cols) bool or 0/1, NumPy or torch, with size 1 along fully sampled axes, or
            (cols,).
        readout_oversampled: rows are sampled twice as densely as the object needs, and not yet cropped.

    Returns:
        (batch,) float, in the units of the k-space.

    Raises:
        TypeError, ValueError: as `estimate_noise_covariance`; ValueError also when `readout_oversampled` and the mask
            varies along the rows.

    Accuracy on simulated 8-coil scans of T1 and T2 slices and an ellipse phantom, sigma 0.001 to 0.03 of the image
    maximum, fully sampled or 1D random 4x and 8x: within 3 %; 2 to 32 coils likewise, but for 20 % at two coils and 8x.
    On a real 8-coil head, against the corners of its image: 2 %.
    """
    if not readout_oversampled:
        covariance = estimate_noise_covariance(kspace, sampling_mask)
        return covariance.diagonal(dim1=1, dim2=2).real.mean(dim=1).sqrt()
    masks = _checked_mask(kspace, sampling_mask)
    if masks.shape[1] != 1:
        raise ValueError(
            f"estimate_noise_level: the sampling mask {tuple(masks.shape)} varies along the rows,"
            " expected size 1 there with readout_oversampled"
        )
    levels = []
    for index, scan in enumerate(kspace):
        mask = masks[index % len(masks), 0].expand(kspace.shape[-1])
        scan = _without_empty_rows(scan[:, :, mask])
        rows = scan.shape[1]
        window = torch.hann_window(rows + 1, periodic=True, dtype=scan.real.dtype, device=scan.device)[1:]
        window = window / window.square().mean().sqrt()
        energy = centred_ifft(scan * window[:, None], (1,)).abs().square().mean(dim=(0, 2))
        margin, object_edge = round(0.03 * rows), round(0.2 * rows)
        outside = torch.cat((energy[margin:object_edge], energy[rows - object_edge : rows - margin]))
        levels.append(outside.median().sqrt())
    return torch.stack(levels)


def estimate_noise_covariance(kspace: Tensor, sampling_mask: Tensor | np.ndarray) -> Tensor:
    """Return the noise covariance over coils, `Psi[i, j] = E n_i conj(n_j)`, estimated from the scan itself.

    The overlapping multi-coil blocks of k-space form a matrix A of low rank plus noise: r of its N right singular
    vectors carry the signal, and the rest form a null space V_0 of every noise-free scan of this object with these
    coils (the fact ESPIRiT is built on). What A has in it is noise. Alternately, until sigma settles:

    1. Scale. The noise in V_0 is compared with simulated white noise of unit variance, A_1, with the same overlaps,
       from which the signal's left and right singular spaces U and V are removed just as the decomposition removes them
       from the data: `sigma^2 = sum of the lowest eigenvalues of V_0^H A^H A V_0 / the same of V_0^H A_1^H (I - U U^H)
       A_1 V_0` (the lower half, which weak signal does not reach). r is the number of eigenvalues of A^H A above
       sigma^2 times the largest simulated one. No formula for random matrices is needed: overlapping blocks have none.
    2. Covariance. Psi is fitted by least squares to `P (Psi x I) P = P A^H A P / blocks`, P = V_0 V_0^H, and the coils
       are whitened by it for the next round. Without this, noise that is correlated between the coils is
       underestimated, because the quietest combinations of coils look most like a null space (by 17 % on a real 8-coil
       head).

    A holds at most 24 central lines and, with 1D undersampling, the whole readout. The blocks shrink with the number of
    coils so that N stays near 144 and a slice takes about 0.1 s.

    Both this and the energy of the outermost measured samples can only be too high (the centre of a real scan holds
    motion and other errors that no low-rank model describes, the edge holds fine detail), so Psi is scaled down to the
    latter where that is less (`smaller_noise_level`). Without a fully sampled centre the outermost samples are all
    there is, and Psi is diagonal.

    Args:
        kspace: (batch, coil, rows, cols) complex; rows are the readout.
        sampling_mask: (batch or 1, rows, cols) bool or 0/1, NumPy or torch, with size 1 along fully sampled axes, or
            (cols,).

    Returns:
        (batch, coil, coil) complex Hermitian positive definite, in squared units of the k-space.

    The noise should be white along k-space. Where it was filtered or interpolated, sigma is that of the centre. Rows
    that are exactly zero at the edges (an asymmetric echo) are left out. With a single coil the null space is owed to
    the empty background alone, and sigma is overestimated when the object fills the field of view and is sharp.

    Raises:
        TypeError: when the k-space is not complex.
        ValueError: when shapes do not fit, or some k-space is zero or not finite.
    """
    masks = _checked_mask(kspace, sampling_mask)
    return torch.stack(
        [_noise_covariance(scan, masks[index % len(masks)]).to(kspace.dtype) for index, scan in enumerate(kspace)]
    )


class NoiseEstimates(NamedTuple):
    """Two independent estimates of sigma, (batch,) each; `smaller_noise_level` is that of `estimate_noise_level`.

    Attributes:
        null_space: from the null space of the calibration region, as `estimate_noise_covariance` says; NaN where the
            region is too small for it.
        periphery: from the outermost measured samples.
    """

    null_space: Tensor
    periphery: Tensor


def noise_level_estimates(kspace: Tensor, sampling_mask: Tensor | np.ndarray) -> NoiseEstimates:
    """Return both estimates that `estimate_noise_covariance` chooses from.

    On sound scans they agree, or the periphery's is larger, by the fine detail that it holds. Where it is much smaller,
    k-space is not as it was measured: filtered, interpolated or padded.

    Arguments and errors are those of `estimate_noise_covariance`.
    """
    masks = _checked_mask(kspace, sampling_mask)
    centre, edge = [], []
    for index, scan in enumerate(kspace):
        mask = masks[index % len(masks)]
        covariance = _null_space_covariance(scan, mask)
        centre.append(torch.nan if covariance is None else math.sqrt(covariance.diagonal().real.mean()))
        edge.append(math.sqrt(_peripheral_variances(scan, mask).mean()))
    return NoiseEstimates(kspace.real.new_tensor(centre), kspace.real.new_tensor(edge))


def smaller_noise_level(estimates: NoiseEstimates) -> Tensor:
    """Return the smaller estimate (batch,), but that of the centre where the edge has less than half of it.

    Noise is as strong at the edge of k-space as in its centre, unless a filter took it away there. What remains in the
    image is then nearly all of the centre's level, and a method that is told that of the edge fits the noise.
    """
    null_space, periphery = estimates
    return torch.where(periphery < _FILTERED * null_space, null_space, torch.fmin(null_space, periphery))


class _Grams(NamedTuple):
    """A^H A of the data, A^H A_1 and A_1^H A_1 of data and simulated noise, all (N, N)."""

    data: Tensor
    cross: Tensor
    noise: Tensor

    def whitened(self, factor: Tensor) -> _Grams:
        """Return the Gram matrices after the coils were multiplied by the inverse of `factor` (coil, coil)."""
        mixing = torch.linalg.inv(factor).mT.contiguous()
        mixing = torch.kron(mixing, torch.eye(len(self.data) // len(factor), dtype=mixing.dtype, device=mixing.device))
        return _Grams(mixing.mH @ self.data @ mixing, mixing.mH @ self.cross, self.noise)


def _noise_covariance(scan: Tensor, sampling_mask: Tensor) -> Tensor:
    peripheral = _peripheral_variances(scan, sampling_mask)
    covariance = _null_space_covariance(scan, sampling_mask)
    if covariance is None:
        return torch.diag(peripheral).to(torch.complex128)
    centre = covariance.diagonal().real.mean().sqrt()
    return covariance * (smaller_noise_level(NoiseEstimates(centre, peripheral.mean().sqrt())) / centre).square()


def _null_space_covariance(scan: Tensor, sampling_mask: Tensor) -> Tensor | None:
    """Return Psi of the calibration region alone; None where there is no region, or no signal in it."""
    block = calibration_region(scan[None], sampling_mask[None], min_width=0, max_shape=(scan.shape[1], 24))[0]
    block = _without_empty_rows(block).to(torch.complex128)
    if min(block.shape[1:]) < _FEWEST_LINES:
        return None
    coil, rows, cols = block.shape
    scale = block.abs().max()
    width = max(1, min(round(math.sqrt(_MATRIX_COLUMNS / coil)), cols // 2))
    height = max(1, min(_MATRIX_COLUMNS // (coil * width), rows // 2))
    generator = torch.Generator().manual_seed(0)
    simulated = torch.randn(block.shape, generator=generator, dtype=torch.complex128).to(block.device)
    stride = 2 if rows > 64 else 1
    data = calibration_matrix(block / scale, (height, width), stride)
    noise = calibration_matrix(simulated, (height, width), stride)
    grams = _Grams(data.mH @ data, data.mH @ noise, noise.mH @ noise)

    factor = torch.eye(coil, dtype=block.dtype, device=block.device)  # Psi = factor factor^H, up to sigma^2
    for _ in range(_WARM_UP_ROUNDS):  # the edge of the noise means little before whitening: take a third as null space
        gram = grams.whitened(factor).data
        null_space = torch.linalg.eigh(gram).eigenvectors[:, : max(1, len(gram) // 3)]
        factor = _refit(factor, gram, null_space)
    previous = 0.0
    for _ in range(_MAX_ROUNDS):
        whitened = grams.whitened(factor)
        variance, null_space = _scale_of_noise(whitened)
        covariance = variance * (factor @ factor.mH)
        power = float(covariance.diagonal().real.mean())
        if not power > 0:  # without any signal there is no null space to tell from it, and the periphery is all noise
            return None
        level = math.sqrt(power)
        if abs(level - previous) <= _SETTLED * level:
            break
        previous = level
        factor = _refit(factor, whitened.data, null_space)
    return covariance * scale**2


def _peripheral_variances(scan: Tensor, sampling_mask: Tensor) -> Tensor:
    """Return the variance (coil,) of the outermost 5 % of the measured samples, by their median against outliers."""
    rows, cols = scan.shape[1:]
    radius = [(torch.arange(n, device=scan.device) - n // 2).to(scan.real.dtype) / n for n in (rows, cols)]
    radius_squared = radius[0][:, None].square() + radius[1].square()
    measured = sampling_mask.expand(rows, cols) & (scan != 0).any(dim=0)
    samples, distance = scan[:, measured], radius_squared[measured]
    outer = distance.topk(max(1, len(distance) // 20)).indices
    return samples[:, outer].abs().square().median(dim=1).values.to(torch.float64) / math.log(2)


def _refit(factor: Tensor, gram: Tensor, null_space: Tensor) -> Tensor:
    """Return the factor of Psi after step 2 of `estimate_noise_covariance` on data whitened with `factor`."""
    shape = factor @ _coil_covariance(gram, null_space, len(factor)) @ factor.mH
    values, vectors = torch.linalg.eigh(shape)
    return vectors * (values.clamp_min(1e-3 * values[-1]) / values[-1]).sqrt()


def _scale_of_noise(grams: _Grams) -> tuple[float, Tensor]:
    """Return step 1 of `estimate_noise_covariance`: the variance and V_0 (N, N - r)."""
    eigenvalues, vectors = torch.linalg.eigh(grams.data)
    cross = vectors.mH @ grams.cross @ vectors
    noise = vectors.mH @ grams.noise @ vectors
    n = len(eigenvalues)
    eigenvalues = eigenvalues.clamp_min(torch.finfo(eigenvalues.dtype).eps * eigenvalues[-1])
    rank, variance, n_null = n // 2, 0.0, n
    for _ in range(8):
        n_null = n - rank
        removed = cross[n_null:, :n_null]
        simulated = torch.linalg.eigvalsh(noise[:n_null, :n_null] - removed.mH @ (removed / eigenvalues[n_null:, None]))
        half = max(1, n_null // 2)
        variance = float(eigenvalues[:half].sum() / simulated[:half].sum())
        above = int((eigenvalues > 1.05 * variance * simulated[-1]).sum())
        if min(above, n - 2) == rank:
            break
        rank = min(above, n - 2)
    return variance, vectors[:, :n_null]


def _coil_covariance(gram: Tensor, null_space: Tensor, coil: int) -> Tensor:
    """Return step 2 of `estimate_noise_covariance`: the coil covariance (coil, coil) that fits best, up to a factor."""
    size = len(gram) // coil
    projector = null_space @ null_space.mH
    target = torch.einsum("iaja->ij", (projector @ gram @ projector).reshape(coil, size, coil, size)).flatten()
    blocks = projector.reshape(coil, size, coil, size)
    normal = torch.einsum("iakb,lbja->ijkl", blocks, blocks).reshape(coil**2, coil**2)
    white = torch.eye(coil, dtype=gram.dtype, device=gram.device).flatten()
    white = white * (white @ target) / projector.diagonal().sum()
    ridge = 1e-3 * size * torch.eye(coil**2, dtype=gram.dtype, device=gram.device)
    solution = (white + torch.linalg.solve(normal + ridge, target - normal @ white)).reshape(coil, coil)
    return (solution + solution.mH).conj() / 2  # the rows of A are transposed samples, so A^H A holds conj(Psi)


def _without_empty_rows(scan: Tensor) -> Tensor:
    """Return (coil, rows, cols) without the rows at either edge that are exactly zero in every coil and column."""
    filled = torch.nonzero((scan != 0).any(dim=0).any(dim=1)).flatten()
    return scan[:, int(filled[0]) : int(filled[-1]) + 1] if len(filled) else scan


def _checked_mask(kspace: Tensor, sampling_mask: Tensor | np.ndarray) -> Tensor:
    """Return the mask (batch or 1, rows or 1, cols or 1) bool; raise unless k-space and mask fit and hold signal."""
    require_complex("estimate_noise_level", "k-space", kspace)
    mask = as_mask(sampling_mask, 2, kspace.device)
    shape, mask_shape = tuple(kspace.shape), tuple(mask.shape)
    sizes = (shape[0], *shape[2:])
    if len(shape) != 4 or any(m not in (1, n) for m, n in zip(mask_shape, sizes, strict=True)):
        raise ValueError(
            f"estimate_noise_level: k-space {shape} does not fit the sampling mask {mask_shape},"
            " expected (batch, coil, rows, cols) and (batch or 1, rows or 1, cols or 1)"
        )
    peak = kspace.abs().amax(dim=(1, 2, 3))
    if not bool(torch.isfinite(peak).all()) or not bool((peak > 0).all()):
        raise ValueError("estimate_noise_level: the k-space of some sample is zero or not finite")
    return mask
