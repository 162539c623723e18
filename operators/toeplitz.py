"""The normal operator of a NUFFT as a convolution: one zero-padded FFT pair, no gridding."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import final

import torch
from torch import Tensor

from operators.fourier import uncentre
from operators.linear import LinearOperator, require_complex
from operators.nufft import ACCURACY, NUFFT, check_trajectory
from operators.shapes import MORE, Shapes, batch_of

CHUNK_BYTES = 2**22  # padded channels worked through at a time: bounds the memory, and stays near the cache


@final
class Toeplitz(LinearOperator):
    """`T = F^H W F` for a NUFFT F and weights W, applied as a convolution:

        (T x)_m = sum_n h_(m - n) x_n,    h_l = 1 / N sum_j w_j exp(2 pi i sum_d k_jd l_d / N_d)

    The kernel h is computed once, at twice the image size, and its spectrum is real because h is Hermitian; so T is
    exactly self-adjoint. Axes are padded one after another as they are transformed, which leaves out the FFTs of rows
    that are all zero or that would be cropped. Equal to the two NUFFTs in turn within their accuracy; in
    single precision it is the more accurate of the two, for it has no points to round.

    Args:
        trajectory: k, (batch or 1, *samples, ndim) real, in cycles per field of view, as for `NUFFT`.
        spatial: image size.
        weights: w, (batch or 1, *samples) real, not negative; ones when None.
        accuracy: relative error of the kernel, computed in double precision.
        dtype: the real dtype that the kernel is kept in.

    Shapes: (batch, ..., *spatial) complex to the same.

    Raises:
        ValueError, TypeError: as `NUFFT`; weights that do not fit the trajectory or are negative.

    Reference: Fessler, Lee, Olafsson, Shi, Noll, IEEE TSP 53, 2005; Wajer and Pruessmann, ISMRM 2001, p. 767.
    """

    spectrum: Tensor

    def __init__(
        self,
        trajectory: Tensor,
        spatial: Sequence[int],
        weights: Tensor | None = None,
        *,
        accuracy: float = ACCURACY,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.spatial = tuple(spatial)
        check_trajectory("Toeplitz", trajectory, self.spatial)
        if weights is None:
            weights = torch.ones(1, *trajectory.shape[1:-1], dtype=torch.float64, device=trajectory.device)
        check_weights("Toeplitz", weights, trajectory)
        self.register_buffer("spectrum", self._spectrum(trajectory, weights, accuracy).to(dtype), persistent=False)
        # Converting the module to double precision later does not make a rounded kernel exact, and one that is less
        # exact than the default is another operator than the NUFFT to double precision.
        self._eps = max(torch.finfo(dtype).eps, 0.0 if accuracy <= ACCURACY else accuracy / 10)

    def serves(self, dtype: torch.dtype) -> bool:
        """Tell whether the kernel is as precise as images of this dtype."""
        return torch.finfo(dtype).eps >= max(self._eps, torch.finfo(self.spectrum.dtype).eps)

    def _spectrum(self, trajectory: Tensor, weights: Tensor, accuracy: float) -> Tensor:
        """Return the DFT of the kernel, lag 0 at index 0, (batch or 1, *(2 N)) float64."""
        double = tuple(2 * n for n in self.spatial)
        batch = max(len(trajectory), len(weights))
        values = weights.detach().to(torch.complex128).expand(batch, *weights.shape[1:])
        lags = NUFFT(2 * trajectory.double(), double, accuracy=accuracy).adjoint(values)
        lags = lags * (prod(double) ** 0.5 / prod(self.spatial))
        for axis in range(1, lags.ndim):
            # The lag -N has no partner +N on this grid and no pair of pixels: without it h is Hermitian.
            lags.narrow(axis, 0, 1).zero_()
        axes = tuple(range(1, lags.ndim))
        return torch.fft.fftn(uncentre(lags, axes), dim=axes).real.contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """Return `F^H W F x`."""
        require_complex("Toeplitz", "image", x)
        ndim = len(self.spatial)
        if x.ndim <= ndim or x.shape[x.ndim - ndim :] != self.spatial or len(self.spectrum) not in (1, len(x)):
            raise ValueError(
                f"Toeplitz: image {tuple(x.shape)}, expected (batch, ..., {', '.join(map(str, self.spatial))}) for a"
                f" batch of {len(self.spectrum)} kernels"
            )
        spectrum = self.spectrum.to(x.real.dtype)[:, None]
        flat = x.reshape(len(x), -1, *self.spatial)
        step = max(1, CHUNK_BYTES // (len(x) * prod(spectrum.shape[1:]) * x.element_size()))
        return torch.cat([self._convolve(chunk, spectrum) for chunk in flat.split(step, dim=1)], dim=1).reshape(x.shape)

    def _convolve(self, x: Tensor, spectrum: Tensor) -> Tensor:
        for axis, size in zip(range(-1, -len(self.spatial) - 1, -1), reversed(self.spatial), strict=True):
            x = torch.fft.fft(x, n=2 * size, dim=axis)
        x = x * spectrum
        for axis, size in zip(range(-len(self.spatial), 0), self.spatial, strict=True):
            x = torch.fft.ifft(x, dim=axis).narrow(axis, 0, size)
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `F^H W F y`: T is self-adjoint."""
        return self(y)

    @property
    def shapes(self) -> Shapes:
        """(batch, ..., *spatial) to the same."""
        image = (batch_of(self.spectrum), MORE, *self.spatial)
        return Shapes(image, image)


def check_weights(who: str, weights: Tensor, trajectory: Tensor) -> None:
    """Raise unless `weights` are (batch or 1, *samples) real, finite and not negative, fitting the trajectory."""
    if not torch.is_floating_point(weights):
        raise TypeError(f"{who}: weights have dtype {weights.dtype}, expected a real floating point dtype")
    batches = {len(weights), len(trajectory)} - {1} if weights.ndim else {0, 2}
    if weights.shape[1:] != trajectory.shape[1:-1] or len(batches) > 1:
        raise ValueError(
            f"{who}: weights {tuple(weights.shape)} (batch, *samples) do not fit the trajectory"
            f" {tuple(trajectory.shape)} (batch, *samples, ndim)"
        )
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        raise ValueError(f"{who}: weights hold negative or non-finite values, expected numbers of at least 0")
