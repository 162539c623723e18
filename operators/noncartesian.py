"""Multi-coil MRI on any trajectory, `A = W^(1/2) F S`, with a normal operator that costs two padded FFTs a coil."""

from __future__ import annotations

from math import prod
from typing import final

import torch
from torch import Tensor

from operators import toeplitz as toeplitz_module
from operators.linear import LinearOperator, require_complex
from operators.nufft import NUFFT
from operators.off_resonance import OffResonance
from operators.sensitivity import Sensitivity
from operators.toeplitz import Toeplitz, check_weights


@final
class NonCartesianSense(LinearOperator):
    """The SENSE operator on an arbitrary trajectory, `A x = W^(1/2) F (s_1 x, ..., s_C x)`, in 2D and 3D.

    F is the `NUFFT`, or `OffResonance` when a field map is given. Without weights A is the plain acquisition. With
    weights W (density compensation) the least-squares problem and the adjoint are weighted by W, and the measured data
    enter through `weigh`:

        A.adjoint(A.weigh(b)) = S^H F^H W b        the gridding reconstruction
        argmin |A x - A.weigh(b)|^2                weighted least squares

    `normal` is `sum_c conj(s_c) T (s_c x)` with `Toeplitz` T, one padded FFT pair per coil; with a field map, or for
    input of higher precision than the maps, it is the adjoint of the forward operator. Unlike a Cartesian A, this one
    has a norm above 1: about the square root of the largest sampling density (samples per 1 / FOV^ndim), or about 1
    with density compensation.

    Args:
        sensitivity_maps: (batch or 1, coil, *spatial) complex.
        trajectory: (batch or 1, *samples, ndim) real, in cycles per field of view (see `NUFFT`).
        weights: (batch or 1, *samples) real, not negative, such as from `density_compensation`; None for none.
        field_map: B0 offset in Hz, (batch or 1, *spatial) real, together with
        readout_times: seconds after excitation of each sample, of a shape that broadcasts to *samples.
        accuracy: relative error asked of the NUFFT; single precision never asks for less than 1e-6.
        toeplitz: False saves the Toeplitz kernel (twice the image size along each axis) and takes the plain normal.

    Shapes: image (batch, *spatial), k-space (batch, coil, *samples), complex.

    Raises:
        ValueError: shapes that do not fit, a field map without times or the reverse.
        TypeError: real images, complex trajectories or weights.

    Reference: Pruessmann, Weiger, Boernert, Boesiger, Magn Reson Med 46, 2001; Fessler et al., IEEE TSP 53, 2005.
    """

    root_weights: Tensor | None

    def __init__(
        self,
        sensitivity_maps: Tensor,
        trajectory: Tensor,
        weights: Tensor | None = None,
        *,
        field_map: Tensor | None = None,
        readout_times: Tensor | None = None,
        accuracy: float = 1e-12,
        toeplitz: bool = True,
    ) -> None:
        super().__init__()
        self.sensitivity = Sensitivity(sensitivity_maps)
        spatial = tuple(sensitivity_maps.shape[2:])
        if (field_map is None) != (readout_times is None):
            missing = "field map" if field_map is None else "readout times"
            raise ValueError(f"NonCartesianSense: no {missing}, expected a field map and readout times, or neither")
        self.encoding: NUFFT | OffResonance
        if field_map is None or readout_times is None:
            self.encoding = NUFFT(trajectory, spatial, accuracy=accuracy)
        else:
            self.encoding = OffResonance(trajectory, field_map, readout_times, accuracy=accuracy)
            if self.encoding.spatial != spatial:
                raise ValueError(
                    f"NonCartesianSense: field map {tuple(field_map.shape)} (batch, *spatial) does not fit sensitivity"
                    f" maps {tuple(sensitivity_maps.shape)} (batch, coil, *spatial)"
                )
        batches = [len(sensitivity_maps), len(trajectory)]
        if weights is not None:
            check_weights("NonCartesianSense", weights, trajectory)
            batches.append(len(weights))
        if field_map is not None:
            batches.append(len(field_map))
        if len({*batches} - {1}) > 1:
            raise ValueError(
                f"NonCartesianSense: batches of sensitivity maps, trajectory, weights and field map are {batches},"
                " expected 1 or one size"
            )
        root = None if weights is None else weights.sqrt()
        self.register_buffer("root_weights", root, persistent=False)
        self.toeplitz: Toeplitz | None = None
        if toeplitz and field_map is None:
            convolution = Toeplitz(trajectory, spatial, weights, accuracy=accuracy)
            self.toeplitz = convolution.to(sensitivity_maps.real.dtype).to(sensitivity_maps.device)
        # Converting the module to double precision later does not make a rounded kernel exact.
        self._kernel_eps = torch.finfo(sensitivity_maps.dtype).eps

    @property
    def sensitivity_maps(self) -> Tensor:
        """The coil sensitivity maps, (batch or 1, coil, *spatial)."""
        return self.sensitivity.sensitivity_maps

    @property
    def trajectory(self) -> Tensor:
        """The sampled points of k-space, (batch or 1, *samples, ndim), in cycles per field of view."""
        return self.encoding.trajectory

    def weigh(self, kspace: Tensor) -> Tensor:
        """Return `W^(1/2) b`: measured k-space (batch, coil, *samples) in the units of this operator's range."""
        require_complex("NonCartesianSense", "k-space", kspace)
        expected = (self.sensitivity_maps.shape[1], *self.encoding.samples)
        root = self.root_weights
        if tuple(kspace.shape[1:]) != expected or (root is not None and len(root) not in (1, len(kspace))):
            raise ValueError(
                f"NonCartesianSense: k-space {tuple(kspace.shape)}, expected (batch, {', '.join(map(str, expected))})"
                + ("" if root is None else f" for a batch of {len(root)} weights")
            )
        return kspace if root is None else root.real.to(kspace.real.dtype)[:, None] * kspace

    def forward(self, x: Tensor) -> Tensor:
        """Return `W^(1/2) F S x`: image (batch, *spatial) to k-space (batch, coil, *samples)."""
        return self.weigh(self.encoding(self.sensitivity(x)))

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `S^H F^H W^(1/2) y`: k-space (batch, coil, *samples) to image (batch, *spatial)."""
        return self.sensitivity.adjoint(self.encoding.adjoint(self.weigh(y)))

    def normal(self, x: Tensor) -> Tensor:
        """Return `A^H A x`; image to image."""
        self.sensitivity.check_image(x)
        convolution = self.toeplitz
        if convolution is None:
            return super().normal(x)
        if torch.finfo(x.dtype).eps < max(self._kernel_eps, torch.finfo(convolution.spectrum.dtype).eps):
            return super().normal(x)
        maps = self.sensitivity_maps
        coils = maps.shape[1]
        padded = len(x) * prod(convolution.spectrum.shape[1:]) * x.element_size()
        step = max(1, toeplitz_module.CHUNK_BYTES // padded)
        if step >= coils:
            return self.sensitivity.adjoint(convolution(self.sensitivity(x)))
        parts = []
        for start in range(0, coils, step):
            some = Sensitivity(maps[:, start : start + step])
            parts.append(some.adjoint(convolution(some(x))))
        return torch.stack(parts).sum(0)
