"""Coil sensitivity maps from the fully sampled centre of k-space: ESPIRiT."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from operators.calibration import calibration_matrix
from operators.linear import require_complex

_CHUNK_ELEMENTS = 2**19  # complex numbers of pixel matrices worked on at a time: 4 MB, so that they stay in cache
# Of `tol`, that a map moves by at most to be left where it is, after so many steps: one that starts near another
# eigenvector moves little at first.
_ARRIVED, _FIRST_STEPS = 0.1, 3
_COARSE_STRIDE = 4


@final
@dataclass(frozen=True, eq=False)
class Espirit:
    """Sets of sensitivity maps and what they are worth.

    Attributes:
        maps: (batch, set, coil, rows, cols), by falling eigenvalue and orthogonal to each other.
        eigenvalues: (batch, set, rows, cols), of every pixel, those without a map included. Near 1 where the set is
            needed to explain the signal; below what matters to the maps they are rough.
    """

    maps: Tensor
    eigenvalues: Tensor


def espirit_maps(
    calibration_kspace: Tensor,
    image_shape: Sequence[int],
    kernel_width: int | None = None,
    threshold: float = 0.02,
    crop: float = 0.8,
    noise_level: float | Tensor | None = None,
    max_iterations: int = 30,
    tol: float = 1e-3,
    n_maps: int = 1,
    soft: bool = False,
) -> Tensor:
    """Return the maps of `espirit`, (batch, coil, rows, cols), or (batch, n_maps, coil, rows, cols) for several sets.

    Arguments and errors are those of `espirit`.
    """
    maps = espirit(
        calibration_kspace, image_shape, kernel_width, threshold, crop, noise_level, max_iterations, tol, n_maps, soft
    ).maps
    return maps if n_maps > 1 else maps[:, 0]


def espirit(
    calibration_kspace: Tensor,
    image_shape: Sequence[int],
    kernel_width: int | None = None,
    threshold: float = 0.02,
    crop: float = 0.8,
    noise_level: float | Tensor | None = None,
    max_iterations: int = 30,
    tol: float = 1e-3,
    n_maps: int = 2,
    soft: bool = False,
) -> Espirit:
    """Return coil sensitivity maps of each slice and their eigenvalues: the local k-space kernels, decomposed.

    The rows of the calibration matrix A are all `kernel_width`^2 blocks of the calibration region, coils side by side.
    With V the right singular vectors whose singular values exceed `threshold` times the largest, V V^H projects on the
    blocks that this object and these coils can produce. At pixel r it becomes the Hermitian matrix

        G(r)[c, d] = 1/kernel_width^2 sum_lag exp(2 pi i lag . r / n) C[c, d, lag],
        C[c, d, lag] = sum_{a - b = lag} (V V^H)[(c, a), (d, b)],     lag in (-kernel_width, kernel_width)^2,

    and `G(r) s(r) = s(r)` for the true maps s wherever there is signal. G is summed from its (2 kernel_width - 1)^2
    lags at each pixel (exact interpolation, no FFT), and its dominant eigenvector found by the power method, started
    from the maps of a grid four times coarser.

    Args:
        calibration_kspace: (batch, coil, rows, cols) complex, the fully sampled centre, zero frequency anywhere.
        image_shape: (rows, cols) of the maps.
        kernel_width: width of the k-space kernels in samples. None takes two fifths of the narrower side of the region,
            2 to 6: a kernel of 6 on 8 lines would lose a quarter of the signal to `crop`.
        threshold: smallest singular value kept, relative to the largest. (BART's `-t` is the square of this.)
        crop: maps are zero where the eigenvalue v is below this; 0 keeps every pixel.
        noise_level: sigma of `estimate_noise_level`, a number or (batch,). Singular values below
            `sigma (sqrt(blocks) + sqrt(coil kernel_width^2))`, the edge of a noise matrix, are dropped as well.
        max_iterations: power steps on the full grid after which it stops, with less than twice as many taken.
        tol: stop when no kept pixel's map moves by more than this (maps have unit norm).
        n_maps: number of eigenvectors. Where the object is folded into a field of view smaller than itself, several
            eigenvalues are one, and as many sets of maps are needed (`SoftSense`, `map_sets_needed`).
        soft: fade the maps out in place of a sharp edge, as BART's `ecalib -S`: the norm of the coil vector is
            `(1 + 2 t / (1 + t^2)) / 2`, `t = (sqrt(v) - crop) / (1 - crop)` within -1 to 1. What belongs to a second
            set partly is then regularised in favour of the first.

    Returns:
        `maps` and `eigenvalues`, in the precision of the input. sum_c |s_c|^2 = 1 where the eigenvalue reaches `crop`,
        0 elsewhere, each set by its own eigenvalue; where two eigenvalues are equal only the span is determined. The
        phase is relative to the virtual coil u that holds most of the calibration energy (first principal component,
        its largest entry real and positive): `sum_c conj(u_c) s_c(r)` is real and not negative.

    Raises:
        TypeError: when the k-space is not complex.
        ValueError: when it is not 4D, smaller than the kernel, all zero or not finite, or an argument is out of range.

    Source: M. Uecker et al., ESPIRiT - an eigenvalue approach to autocalibrating parallel MRI, Magn. Reson. Med. 71,
    990-1001, 2014, equations 15-25; the fading is that of BART 0.8.
    """
    if kernel_width is None:
        kernel_width = max(2, min(6, 2 * min(calibration_kspace.shape[-2:]) // 5))
    _check(calibration_kspace, image_shape, kernel_width, threshold, crop)
    if not 1 <= n_maps <= calibration_kspace.shape[1]:
        raise ValueError(f"espirit: n_maps is {n_maps}, expected 1 to {calibration_kspace.shape[1]}, the coils")
    if max_iterations < 1 or not tol > 0:
        raise ValueError(f"espirit: max_iterations {max_iterations} and tol {tol}, expected at least 1 and above 0")
    batch, coil = calibration_kspace.shape[:2]
    given = torch.as_tensor(0.0 if noise_level is None else noise_level)
    if tuple(given.shape) not in ((), (1,), (batch,)):
        raise ValueError(f"espirit: noise_level {tuple(given.shape)}, expected a number or ({batch},), the batch")
    levels = given.expand(batch).tolist()
    lowest = max(0.0, 2 * crop - 1) ** 2 if soft else crop  # the smallest eigenvalue that is not cropped
    maps = calibration_kspace.new_zeros(batch, n_maps, coil, *image_shape)
    values = maps.new_zeros(batch, n_maps, *image_shape, dtype=maps.real.dtype)
    for calibration, level, out, value in zip(calibration_kspace, levels, maps, values, strict=True):
        lags = _kernel_lags(calibration, kernel_width, threshold, level)
        virtual = virtual_coils(calibration, n_maps)
        waves = [_waves(n, lags) for n in image_shape]
        coarse_waves = [wave[::_COARSE_STRIDE] for wave in waves]
        start = virtual.expand(len(coarse_waves[0]), len(coarse_waves[1]), n_maps, coil)
        coarse, _ = _dominant_maps(lags, coarse_waves, start, lowest, 2 * max_iterations, tol)
        start = _refine(align_phase(coarse, virtual[0]), image_shape)
        vectors, eigenvalues = _dominant_maps(lags, waves, start, lowest, max_iterations, tol)
        kept = _faded(eigenvalues, crop) if soft else eigenvalues >= crop
        out.copy_((align_phase(vectors, virtual[0]) * kept[..., None]).permute(2, 3, 0, 1))
        value.copy_(eigenvalues.permute(2, 0, 1))
    return Espirit(maps, values)


def _faded(eigenvalues: Tensor, crop: float) -> Tensor:
    """Return the norms of soft maps: 1 at the eigenvalue 1, 1/2 at crop^2, 0 below (2 crop - 1)^2."""
    t = ((eigenvalues.clamp_min(0).sqrt() - crop) / (1 - crop)).clamp(-1, 1)
    return (1 + 2 * t / (1 + t.square())) / 2


def _kernel_lags(calibration: Tensor, kernel_width: int, threshold: float, noise_level: float) -> Tensor:
    """Return C of `espirit` divided by kernel_width^2, shape (lag, lag, coil^2)."""
    coil, k = calibration.shape[0], kernel_width
    matrix = calibration_matrix(calibration, (k, k))
    eigenvalues, vectors = torch.linalg.eigh(matrix.mT @ matrix.conj())
    edge = noise_level * (math.sqrt(matrix.shape[0]) + math.sqrt(matrix.shape[1]))
    # the largest always stays: noise alone gives poor maps, not an empty projection
    kept = vectors[:, eigenvalues >= (threshold**2 * eigenvalues[-1]).clamp_min(edge**2).clamp_max(eigenvalues[-1])]
    projection = (kept @ kept.mH).reshape(coil, k, k, coil, k, k)
    lags = projection.new_zeros(2 * k - 1, 2 * k - 1, coil, coil)
    for i in range(k):
        for j in range(k):
            block = projection[:, i, j].flip(-2, -1)  # (coil, coil, k, k), from lag (i - k + 1, j - k + 1) upwards
            lags[i : i + k, j : j + k] += block.permute(2, 3, 0, 1)
    return lags.flatten(-2) / k**2


def _dominant_maps(
    lags: Tensor, waves: Sequence[Tensor], start: Tensor, crop: float, max_iterations: int, tol: float
) -> tuple[Tensor, Tensor]:
    """Return the dominant eigenvectors (rows, cols, map, coil) of G and their eigenvalues (rows, cols, map)."""
    row_waves, col_waves = waves
    rows, cols, n_maps, coil = start.shape
    per_row = torch.tensordot(row_waves, lags, dims=1)  # (rows, lag, coil^2)
    vectors = torch.empty_like(start)
    eigenvalues = torch.empty(rows, cols, n_maps, dtype=lags.real.dtype, device=lags.device)
    step = max(1, _CHUNK_ELEMENTS // (cols * coil**2))
    for first in range(0, rows, step):
        block = slice(first, first + step)
        matrices = (col_waves @ per_row[block]).reshape(-1, coil, coil)
        first_guess = start[block].reshape(-1, n_maps, coil)
        if n_maps == 1:
            vector, value = power_method(matrices, first_guess[:, 0], crop, max_iterations, tol)
        else:
            vector, value = _orthogonal_iteration(matrices, first_guess, crop, max_iterations, tol)
        vectors[block] = vector.reshape(-1, cols, n_maps, coil)
        eigenvalues[block] = value.reshape(-1, cols, n_maps)
    return vectors, eigenvalues


def power_method(
    matrices: Tensor, vector: Tensor, crop: float, max_iterations: int, tol: float
) -> tuple[Tensor, Tensor]:
    """Return the dominant eigenvectors (pixel, coil) and values (pixel,) of Hermitian matrices (pixel, coil, coil).

    Iterates from `vector` until none with an eigenvalue of at least `crop` moves by more than `tol` in a step. After
    three steps, those that move by a tenth of that at most are left where they are, and the others go on with squared
    matrices, twice as many steps at a time: 2 and one, 4 and one, 8 and one, to `max_iterations` and less than twice
    that.
    """
    vectors, values, moved = _power_step(matrices, vector)
    taken = 1
    while taken < min(_FIRST_STEPS, max_iterations) and _moves(moved, values, crop, tol):
        vectors, values, moved = _power_step(matrices, vectors)
        taken += 1
    if taken >= max_iterations or not _moves(moved, values, crop, tol):
        return vectors, values
    active = (moved > _ARRIVED * tol).nonzero()[:, 0]
    matrices, vector = matrices[active], vectors[active]
    power, steps = matrices, 1
    while taken < max_iterations:
        power, steps = power @ power, 2 * steps
        power = _scaled(power, _norm(power.flatten(1))[:, None])
        vector, value, moved = _power_step(matrices, _power_step(power, vector)[0])
        taken += steps + 1
        if not _moves(moved, value, crop, tol):
            break
    vectors[active], values[active] = vector, value
    return vectors, values


def _power_step(matrices: Tensor, vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return `G s / |G s|`, `|G s|` and how far the vectors moved."""
    product = (matrices @ vector[..., None]).squeeze(-1)
    value = _norm(product)
    product = _scaled(product, value)
    return product, value, _norm(product - vector)


def _moves(moved: Tensor, values: Tensor, crop: float, tol: float) -> bool:
    return bool(((moved > tol) & (values >= crop)).any())


def _orthogonal_iteration(
    matrices: Tensor, vectors: Tensor, crop: float, max_iterations: int, tol: float
) -> tuple[Tensor, Tensor]:
    """Return the dominant eigenvectors (pixel, map, coil), by falling eigenvalue, and eigenvalues (pixel, map)."""
    basis = _orthonormal(vectors)[0].mT  # (pixel, coil, map)
    for _ in range(max_iterations):
        following, value = _orthonormal((matrices @ basis).mT)
        following = following.mT
        # the first k vectors together span what converges; within equal eigenvalues they may turn for ever
        outside = following - basis @ (basis.mH @ following).triu()
        moved = _norm(outside.mT)
        basis = following
        if bool((moved * (value >= crop)).max() <= tol):
            break
    eigenvalues, rotation = torch.linalg.eigh(basis.mH @ matrices @ basis)
    return (basis @ rotation.flip(-1)).mT, eigenvalues.flip(-1)


def _orthonormal(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return Gram-Schmidt of vectors (pixel, map, coil), and the lengths that each adds (pixel, map)."""
    done: list[Tensor] = []
    lengths = []
    for vector in vectors.unbind(1):
        length = _norm(vector)
        vector = _scaled(vector, length)
        for _ in range(2):  # once leaves rounding errors where the vectors are nearly parallel
            for other in done:
                vector = vector - (other.conj() * vector).sum(-1, keepdim=True) * other
        rest = _norm(vector)
        done.append(_scaled(vector, rest))
        lengths.append(length * rest)
    return torch.stack(done, dim=1), torch.stack(lengths, dim=1)


def _scaled(vectors: Tensor, lengths: Tensor) -> Tensor:
    """Return vectors (..., n) divided by lengths (...); torch's own division of complex numbers takes twice as long."""
    lengths = lengths.clamp_min(torch.finfo(lengths.dtype).tiny)[..., None, None]
    return torch.view_as_complex(torch.view_as_real(vectors) / lengths)


def _norm(vectors: Tensor) -> Tensor:
    """Return the norm over the last axis; torch's own is many times slower on short complex vectors."""
    return torch.view_as_real(vectors).square().sum(dim=(-2, -1)).sqrt()


def _waves(n: int, lags: Tensor) -> Tensor:
    """Return exp(2 pi i lag r / n), shape (n, lag), for the pixels r from -(n // 2) and the lags centred on 0."""
    n_lags = lags.shape[0]
    pixel = torch.arange(n, dtype=torch.float64, device=lags.device) - n // 2
    lag = torch.arange(n_lags, dtype=torch.float64, device=lags.device) - n_lags // 2
    phase = 2 * math.pi / n * pixel[:, None] * lag
    return torch.polar(torch.ones_like(phase), phase).to(lags.dtype)


def _refine(coarse: Tensor, shape: Sequence[int]) -> Tensor:
    """Return linear interpolation of the maps of every `_COARSE_STRIDE`-th pixel, (rows, cols, map, coil)."""
    fine = coarse
    for axis, n in enumerate(shape):
        pixel = torch.arange(n, device=coarse.device)
        low = pixel // _COARSE_STRIDE
        high = (low + 1).clamp_max(coarse.shape[axis] - 1)
        weight = (pixel % _COARSE_STRIDE).to(coarse.real.dtype) / _COARSE_STRIDE
        weight = weight.reshape(-1, *(1,) * (3 - axis))
        fine = torch.lerp(fine.index_select(axis, low), fine.index_select(axis, high), weight.to(fine.dtype))
    return _scaled(fine, _norm(fine))


def virtual_coils(samples: Tensor, n: int = 1) -> Tensor:
    """Return the first n principal components (n, coil) of data (coil, ...), their largest entries real, positive."""
    samples = samples.flatten(1)
    vectors = torch.linalg.eigh(samples @ samples.mH).eigenvectors.flip(-1)[:, :n].T
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return vectors * (largest.conj() / largest.abs())


def align_phase(maps: Tensor, virtual_coil: Tensor) -> Tensor:
    """Return maps (..., coil) with the phase of their component along the virtual coil removed."""
    component = maps @ virtual_coil.conj()
    return maps * torch.polar(torch.ones_like(component.real), -component.angle())[..., None]


def _check(
    calibration_kspace: Tensor, image_shape: Sequence[int], kernel_width: int, threshold: float, crop: float
) -> None:
    require_complex("espirit", "calibration k-space", calibration_kspace)
    shape = tuple(calibration_kspace.shape)
    if len(shape) != 4 or len(image_shape) != 2:
        raise ValueError(
            f"espirit: calibration k-space {shape} and image shape {tuple(image_shape)},"
            " expected (batch, coil, rows, cols) and (rows, cols)"
        )
    if kernel_width < 1 or min(shape[2:]) < kernel_width:
        raise ValueError(f"espirit: calibration region {shape[2:]} is smaller than the kernel width {kernel_width}")
    if not 0 <= threshold < 1 or not 0 <= crop < 1:
        raise ValueError(f"espirit: threshold {threshold} and crop {crop}, expected 0 to 1")
    energy = calibration_kspace.abs().square().sum(dim=(1, 2, 3))
    if not bool(torch.isfinite(energy).all()) or not bool((energy > 0).all()):
        raise ValueError("espirit: the calibration k-space of some slice is zero or not finite")
