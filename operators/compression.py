"""Fewer virtual coils that hold nearly all of the signal: coil compression by SVD, and to how many, and geometric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from operators.fourier import centred_fft, centred_ifft
from operators.linear import require_complex

MOST_LOST = 0.1  # signal energy that compression may leave out, relative to the noise's: a third of it in amplitude


@final
@dataclass(frozen=True, eq=False)
class CompressedCoils:
    """K-space of virtual coils, and how they were mixed.

    Attributes:
        kspace: (batch, virtual coil, *spatial), dtype of the input.
        matrix: (batch, virtual coil, coil), or (batch, row, virtual coil, coil) for a mixing that varies along the
            readout; orthonormal rows, so that noise that was white over the coils stays so at the same level.
        energy_kept: (batch,) float64, `|compressed|^2 / |kspace|^2`.
        axis: the readout as a negative axis of k-space when the mixing varies along it, else None.
    """

    kspace: Tensor
    matrix: Tensor
    energy_kept: Tensor
    axis: int | None = None

    def maps(self, sensitivity_maps: Tensor) -> Tensor:
        """Return the maps of the virtual coils, (batch, virtual coil, *spatial), from those of the coils.

        Any coil images may be given. With them `A' x` is the compressed `A x`, exactly.
        """
        if self.axis is None:
            return mix_coils(self.matrix, sensitivity_maps)
        return _mix_along(self.matrix.to(sensitivity_maps.dtype), sensitivity_maps, self.axis)


@final
@dataclass(frozen=True, eq=False)
class VirtualCoils:
    """One mixing of the coils for all slices of a scan, and what it leaves out.

    Attributes:
        matrix: (virtual coil, coil) complex, orthonormal rows; `mix_coils` applies it to k-space and maps alike.
        energy_kept: share of the data's energy, noise included, that the virtual coils hold.
        signal_lost: energy of the signal in the coils left out, relative to that of the noise in all coils.
    """

    matrix: Tensor
    energy_kept: float
    signal_lost: float


def virtual_coils(
    kspace: Tensor, noise_level: float, n_coils: int | None = None, *, most_lost: float = MOST_LOST
) -> VirtualCoils:
    """Return the virtual coils of most energy over all slices: as many as asked for, or as the noise allows to drop.

    With noise that is white over the coils, of variance sigma^2, each eigenvalue of the data's covariance (coil, coil),
    summed over N samples, holds `N sigma^2` of noise; what exceeds that is signal. The fewest coils are kept that lose
    at most `most_lost` times the noise's energy in all coils, `C N sigma^2`.

    Nothing else is wrong with the compressed data: with the maps mixed alike they are measurements of the same image.
    What is lost is what the coils left out would have added to them.

    Args:
        kspace: (slices, coil, *spatial) complex, prewhitened; samples that are not measured are zero in all coils.
        noise_level: sigma, with E|n|^2 = sigma^2.
        n_coils: virtual coils to keep; None: as the noise says.
        most_lost: see above.

    Raises:
        TypeError: real data.
        ValueError: `n_coils` outside 1 to coils, a negative noise level, k-space that is zero or not finite.

    Source: Buehrer et al., Magn Reson Med 57, 2007; Huang et al., Magn Reson Imaging 26, 2008.
    """
    coils = kspace.shape[1]
    _checked("virtual_coils", kspace, coils if n_coils is None else n_coils, None, each=False)
    if not noise_level >= 0:
        raise ValueError(f"virtual_coils: noise_level is {noise_level}, expected a number that is not negative")
    gram = torch.zeros(coils, coils, dtype=torch.complex128, device=kspace.device)
    samples = 0
    for one in kspace:  # slice by slice: nothing of the size of the scan is made
        data = one.flatten(1)
        gram += (data @ data.mH).to(gram.dtype)
        samples += int((data != 0).any(0).sum())
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0), vectors.flip(1)
    noise = samples * noise_level**2
    signal = (values - noise).clamp_min(0)
    lost = signal.sum() - signal.cumsum(0)  # of the first 1, 2, ... coils
    allowed = most_lost * coils * noise
    kept = n_coils or min(coils, 1 + int((lost > allowed).sum()))
    return VirtualCoils(
        matrix=vectors[:, :kept].mH.to(kspace.dtype),
        energy_kept=float(values[:kept].sum() / values.sum()),
        signal_lost=float(lost[kept - 1].clamp_min(0)) / (coils * noise) if noise > 0 else 0.0,
    )


def compress_coils(kspace: Tensor, n_coils: int, calibration: Tensor | None = None) -> CompressedCoils:
    """Return the `n_coils` virtual coils of most energy: the first left singular vectors of the data (coil, samples).

    Args:
        kspace: (batch, coil, *spatial) complex; samples that are not measured are zero.
        n_coils: virtual coils to keep.
        calibration: (batch, coil, ...) data from which the mixing is computed, the calibration region say; None: all.

    Raises:
        TypeError: real data.
        ValueError: `n_coils` outside 1 to coils, calibration data that do not fit, k-space that is zero or not finite.

    Source: Buehrer et al., Array compression for MRI with large coil arrays, Magn Reson Med 57, 2007; Huang et al.,
    Magn Reson Imaging 26, 2008.
    """
    data = _checked("compress_coils", kspace, n_coils, calibration).flatten(2)
    matrix = _principal((data @ data.mH).to(torch.complex128), n_coils).to(kspace.dtype)
    compressed = mix_coils(matrix, kspace)
    return CompressedCoils(compressed, matrix, _energy(compressed) / _energy(kspace))


def compress_coils_geometric(
    kspace: Tensor, n_coils: int, calibration: Tensor | None = None, axis: int = -2
) -> CompressedCoils:
    """Return `n_coils` virtual coils mixed anew at each position along the fully sampled readout (GCC).

    After the inverse FFT along the readout the data of position r, (coil, samples), have the first left singular
    vectors A_r. They are free up to a rotation, and are turned so that the virtual coils vary smoothly: from the centre
    outwards `A_r <- P A_r`, P the unitary matrix that brings `P A_r` closest to its neighbour (`C = A_r A_(r-1)^H =
    U s V^H`, `P = V U^H`). At each position few coils see the object, so fewer are needed than for all at once.

    Args:
        kspace: (batch, coil, *spatial) complex; samples that are not measured are zero.
        n_coils: virtual coils to keep.
        calibration: (batch, coil, *spatial) data from which the mixing is computed, with the full readout; None: all.
        axis: the readout, negative.

    Raises:
        TypeError, ValueError: as `compress_coils`; ValueError also when the readout of the calibration data differs.

    Source: Zhang, Pauly, Vasanawala, Lustig, Coil compression for accelerated imaging with Cartesian sampling, Magn
    Reson Med 69, 2013, equations 4-9.
    """
    data = _checked("compress_coils_geometric", kspace, n_coils, calibration)
    if data.shape[axis] != kspace.shape[axis]:
        raise ValueError(
            f"compress_coils_geometric: calibration data {tuple(data.shape)} have {data.shape[axis]} samples along the"
            f" readout, expected {kspace.shape[axis]}"
        )
    rows = centred_ifft(data, (axis,)).movedim(axis, 1).flatten(3)  # (batch, row, coil, samples)
    matrix = _aligned(_principal((rows @ rows.mH).to(torch.complex128), n_coils)).to(kspace.dtype)
    compressed = centred_fft(_mix_along(matrix, centred_ifft(kspace, (axis,)), axis), (axis,))
    return CompressedCoils(compressed, matrix, _energy(compressed) / _energy(kspace), axis)


def mix_coils(matrix: Tensor, coil_data: Tensor) -> Tensor:
    """Return `y_v = sum_c matrix[v, c] x_c`, for k-space, coil images or sensitivity maps alike.

    Args:
        matrix: (virtual coil, coil) or (batch, virtual coil, coil) complex.
        coil_data: (batch, coil, *spatial) complex; the result has its dtype.

    Raises:
        ValueError: shapes that do not fit.
        TypeError: real coil data.
    """
    require_complex("mix_coils", "coil data", coil_data)
    fits = matrix.ndim in (2, 3) and coil_data.ndim >= 2 and matrix.shape[-1] == coil_data.shape[1]
    if not fits or (matrix.ndim == 3 and 1 not in (len(matrix), len(coil_data)) and len(matrix) != len(coil_data)):
        raise ValueError(
            f"mix_coils: matrix {tuple(matrix.shape)} does not fit coil data {tuple(coil_data.shape)},"
            " expected (batch or nothing, virtual coil, coil) and (batch, coil, *spatial)"
        )
    mixed = matrix.to(coil_data.dtype) @ coil_data.flatten(2)
    return mixed.reshape(*mixed.shape[:2], *coil_data.shape[2:])


def _mix_along(matrix: Tensor, coil_data: Tensor, axis: int) -> Tensor:
    rows = coil_data.movedim(axis, 1)  # (batch, row, coil, *rest)
    if rows.shape[1:3] != (matrix.shape[1], matrix.shape[-1]):
        raise ValueError(
            f"CompressedCoils: coil data {tuple(coil_data.shape)} do not fit the mixing of {matrix.shape[1]} readout"
            f" positions and {matrix.shape[-1]} coils"
        )
    mixed = matrix @ rows.flatten(3)
    return mixed.reshape(*mixed.shape[:3], *rows.shape[3:]).movedim(1, axis)


def _principal(gram: Tensor, n_coils: int) -> Tensor:
    """Return the conjugate eigenvectors of most energy as rows, (..., n_coils, coil)."""
    return torch.linalg.eigh(gram).eigenvectors.flip(-1)[..., :n_coils].mH


def _aligned(matrices: Tensor) -> Tensor:
    """Return matrices (batch, row, virtual coil, coil), each turned towards its neighbour nearer the centre."""
    rows = list(matrices.unbind(1))
    centre = len(rows) // 2
    for r, neighbour in [(r, r - 1) for r in range(centre + 1, len(rows))] + [
        (r, r + 1) for r in reversed(range(centre))
    ]:
        u, _, vh = torch.linalg.svd(rows[r] @ rows[neighbour].mH)
        rows[r] = vh.mH @ u.mH @ rows[r]
    return torch.stack(rows, dim=1)


def _energy(data: Tensor) -> Tensor:
    return torch.linalg.vector_norm(data.flatten(1), dim=1, dtype=torch.complex128).square()


def _checked(who: str, kspace: Tensor, n_coils: int, calibration: Tensor | None, *, each: bool = True) -> Tensor:
    require_complex(who, "k-space", kspace)
    data = kspace if calibration is None else calibration
    require_complex(who, "calibration data", data)
    if kspace.ndim < 4 or data.ndim != kspace.ndim or data.shape[:2] != kspace.shape[:2]:
        raise ValueError(
            f"{who}: k-space {tuple(kspace.shape)} and calibration data {tuple(data.shape)},"
            " expected (batch, coil, *spatial) with at least two spatial axes"
        )
    if not 1 <= n_coils <= kspace.shape[1]:
        raise ValueError(f"{who}: n_coils is {n_coils}, expected 1 to {kspace.shape[1]}, the coils of the k-space")
    for energy in (_energy(kspace), _energy(data)):
        present = energy > 0 if each else (energy > 0).any()
        if not bool((torch.isfinite(energy) & present).all()):
            raise ValueError(f"{who}: the data of some sample are zero or not finite")
    return data
