"""Coil sensitivity maps from coil images alone: the adaptive combination of Walsh."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from operators.espirit import align_phase, power_method, virtual_coils
from operators.linear import require_complex

_CHUNK_ELEMENTS = 2**20  # complex numbers of pixel matrices worked on at a time, 8 MB
_DOMINANT = 0.5  # share of the local energy below which an eigenvector is not worth iterating for


def walsh_maps(coil_images: Tensor, width: int = 7, max_iterations: int = 30, tol: float = 1e-3) -> Tensor:
    """Return coil sensitivity maps: the dominant eigenvectors of the local covariance of the coil images.

    At each pixel r, with m(q) the vector of the coil images at q,

        R(r) = mean of m(q) m(q)^H over the width x width neighbourhood of r,     R(r) s(r) = lambda s(r).

    s is the matched filter of the neighbourhood. Images without aliasing are needed (those of the fully sampled centre,
    say). No null space tells signal from noise: the maps follow the noise where there is no signal, and there is no
    eigenvalue to crop by. Noise that is not white over the coils must be whitened first.

    Args:
        coil_images: (batch, coil, rows, cols) complex.
        width: of the neighbourhood in pixels, odd; cut off at the edges of the image.
        max_iterations: most power steps.
        tol: stop when no pixel's map moves by more than this, of those where one eigenvector holds half the energy.

    Returns:
        (batch, coil, rows, cols), dtype of the input: sum_c |s_c|^2 = 1, or 0 where the neighbourhood is zero. The
        phase is relative to the virtual coil of most energy, as of `espirit_maps`.

    Raises:
        TypeError: real images.
        ValueError: images that are not 4D, zero or not finite, or a width that is not odd and positive.

    Source: Walsh, Gmitro, Marcellin, Adaptive reconstruction of phased array MR imagery, Magn Reson Med 43, 2000,
    equations 12-15.
    """
    require_complex("walsh_maps", "coil images", coil_images)
    if coil_images.ndim != 4:
        raise ValueError(f"walsh_maps: coil images {tuple(coil_images.shape)}, expected (batch, coil, rows, cols)")
    if width < 1 or width % 2 == 0:
        raise ValueError(f"walsh_maps: width is {width}, expected an odd positive number")
    energy = coil_images.abs().square().sum(dim=(1, 2, 3))
    if not bool((torch.isfinite(energy) & (energy > 0)).all()):
        raise ValueError("walsh_maps: the coil images of some slice are zero or not finite")
    return torch.stack([_maps(images, width, max_iterations, tol) for images in coil_images])


def _maps(images: Tensor, width: int, max_iterations: int, tol: float) -> Tensor:
    coil, rows, cols = images.shape
    images = images / images.abs().amax()  # squares of small units must not underflow
    maps = torch.empty_like(images)
    step = max(1, _CHUNK_ELEMENTS // (cols * coil**2))
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        covariance = _covariance(images, start, stop, width)
        # R e_c of the strongest coil c is near the dominant eigenvector already, and zero only where R is
        strongest = covariance.diagonal(dim1=1, dim2=2).real.argmax(dim=1)
        first = covariance[torch.arange(len(covariance), device=images.device), :, strongest]
        vectors, _ = power_method(covariance, first, _DOMINANT, max_iterations, tol)
        maps[:, start:stop] = vectors.T.reshape(coil, stop - start, cols)
    return align_phase(maps.movedim(0, -1), virtual_coils(images)[0]).movedim(-1, 0)


def _covariance(images: Tensor, start: int, stop: int, width: int) -> Tensor:
    """Return R of the pixels of rows start..stop, (pixel, coil, coil), divided by its trace."""
    coil, rows, _ = images.shape
    half = width // 2
    first, last = max(0, start - half), min(rows, stop + half)
    near = images[:, first:last]
    i, j = torch.triu_indices(coil, coil, device=images.device)  # the rest are the conjugates
    products = torch.view_as_real(near[i] * near[j].conj()).movedim(-1, 0).flatten(0, 1)[None]
    for window, padding in (((1, width), (0, half)), ((width, 1), (half, 0))):
        products = avg_pool2d(products, window, stride=1, padding=padding, count_include_pad=False)
    mean = products[0, :, start - first : stop - first].reshape(2, len(i), -1)
    upper = torch.complex(mean[0], mean[1]).T
    covariance = upper.new_empty(len(upper), coil, coil)
    covariance[:, j, i] = upper.conj()
    covariance[:, i, j] = upper
    trace = covariance.diagonal(dim1=1, dim2=2).real.sum(dim=1)
    return covariance / trace.clamp_min(torch.finfo(trace.dtype).tiny)[:, None, None]
