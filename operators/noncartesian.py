"""Multi-coil MRI on any trajectory, `A = F S`, with a normal operator that costs two padded FFTs a coil."""

from __future__ import annotations

from math import prod
from typing import final

import torch
from torch import Tensor

from operators import toeplitz as toeplitz_module
from operators.linear import LinearOperator, require_complex
from operators.nufft import ACCURACY, NUFFT
from operators.off_resonance import OffResonance
from operators.sensitivity import Sensitivity, SoftSensitivity
from operators.shapes import Shapes, batch_of, dtype_name
from operators.toeplitz import Toeplitz


@final
class NonCartesianSense(LinearOperator):
    """The SENSE operator on an arbitrary trajectory, `A x = F (s_1 x, ..., s_C x)`, in 2D and 3D: the acquisition.

    F is the `NUFFT`, or `OffResonance` when a field map is given. `normal` is `sum_c conj(s_c) T (s_c x)` with
    `Toeplitz` T, one padded FFT pair per coil; with a field map, or for input of higher precision than the maps, it is
    the adjoint of the forward operator. Unlike a Cartesian A, this one has a norm above 1: about the square root of the
    largest sampling density (samples per 1 / FOV^ndim). Density compensation does not belong to the acquisition: it
    weighs the data and the operator alike, see `density_weighted`.

    Args:
        sensitivity_maps: (batch or 1, coil, *spatial) complex; several sets as (batch or 1, set, coil, *spatial), see
            `SoftSense`.
        trajectory: (batch or 1, *samples, ndim) real, in cycles per field of view (see `NUFFT`).
        field_map: B0 offset in Hz, (batch or 1, *spatial) real, together with
        readout_times: seconds after excitation of each sample, of a shape that broadcasts to *samples.
        accuracy: relative error asked of the NUFFT; single precision never asks for less than 1e-6.
        toeplitz: False saves the Toeplitz kernel (twice the image size along each axis) and takes the plain normal.

    Shapes: image (batch, *spatial), with several sets (batch, set, *spatial); k-space (batch, coil, *samples); complex.

    Raises:
        ValueError: shapes that do not fit, a field map without times or the reverse.
        TypeError: real images, complex trajectories.

    Reference: Pruessmann, Weiger, Boernert, Boesiger, Magn Reson Med 46, 2001; Fessler et al., IEEE TSP 53, 2005.
    """

    def __init__(
        self,
        sensitivity_maps: Tensor,
        trajectory: Tensor,
        *,
        field_map: Tensor | None = None,
        readout_times: Tensor | None = None,
        accuracy: float = ACCURACY,
        toeplitz: bool = True,
    ) -> None:
        super().__init__()
        ndim = trajectory.shape[-1]
        self.sensitivity: Sensitivity | SoftSensitivity
        in_sets = sensitivity_maps.ndim == ndim + 3
        self.sensitivity = SoftSensitivity(sensitivity_maps) if in_sets else Sensitivity(sensitivity_maps)
        spatial = tuple(sensitivity_maps.shape[3 if in_sets else 2 :])
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
        batches = [len(sensitivity_maps), len(trajectory)] + ([] if field_map is None else [len(field_map)])
        if len({*batches} - {1}) > 1:
            raise ValueError(
                f"NonCartesianSense: batches of sensitivity maps, trajectory and field map are {batches}, expected 1 or"
                " one size"
            )
        self.toeplitz: Toeplitz | None = None
        if toeplitz and field_map is None:
            self.toeplitz = kernel_for(sensitivity_maps, spatial, trajectory, None, accuracy)

    @property
    def sensitivity_maps(self) -> Tensor:
        """The coil sensitivity maps, (batch or 1, coil, *spatial)."""
        return self.sensitivity.sensitivity_maps

    @property
    def sets(self) -> int | None:
        """The number of sets of maps, and of images that make one sample; None for maps without such an axis."""
        return self.sensitivity.sets

    @property
    def spatial(self) -> tuple[int, ...]:
        """The shape of an image."""
        return tuple(self.sensitivity_maps.shape[2 if self.sets is None else 3 :])

    @property
    def _coils(self) -> int:
        return self.sensitivity_maps.shape[1 if self.sets is None else 2]

    @property
    def trajectory(self) -> Tensor:
        """The sampled points of k-space, (batch or 1, *samples, ndim), in cycles per field of view."""
        return self.encoding.trajectory

    def forward(self, x: Tensor) -> Tensor:
        """Return `F S x`: image (batch, *spatial) to k-space (batch, coil, *samples)."""
        kspace: Tensor = self.encoding(self.sensitivity(x))
        return kspace

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `S^H F^H y`: k-space (batch, coil, *samples) to image (batch, *spatial)."""
        self.check_kspace(y)
        return self.sensitivity.adjoint(self.encoding.adjoint(y))

    def normal(self, x: Tensor) -> Tensor:
        """Return `A^H A x`; image to image."""
        self.sensitivity.check_image(x)
        if self.toeplitz is None or not self.toeplitz.serves(x.dtype):
            return super().normal(x)
        return convolved(self.sensitivity, self.toeplitz, x)

    def check_kspace(self, kspace: Tensor) -> None:
        """Raise unless `kspace` is complex and of shape (batch, coil, *samples)."""
        require_complex("NonCartesianSense", "k-space", kspace)
        expected = (self._coils, *self.encoding.samples)
        if tuple(kspace.shape[1:]) != expected:
            raise ValueError(
                f"NonCartesianSense: k-space {tuple(kspace.shape)}, expected (batch, {', '.join(map(str, expected))})"
            )

    @property
    def shapes(self) -> Shapes:
        """Image (batch, *spatial), or (batch, set, *spatial), to k-space (batch, coil, *samples)."""
        field = [self.encoding.field_map] if isinstance(self.encoding, OffResonance) else []
        batch = batch_of(self.sensitivity_maps, self.trajectory, *field)
        sets = () if self.sets is None else (self.sets,)
        return Shapes((batch, *sets, *self.spatial), (batch, self._coils, *self.encoding.samples))

    def extra_repr(self) -> str:
        """Return the dtype of the maps."""
        return dtype_name(self.sensitivity_maps)


def kernel_for(
    sensitivity_maps: Tensor, spatial: tuple[int, ...], trajectory: Tensor, weights: Tensor | None, accuracy: float
) -> Toeplitz:
    """Return `F^H W F` for coil images of these maps, in their precision and on their device."""
    convolution = Toeplitz(trajectory, spatial, weights, accuracy=accuracy, dtype=sensitivity_maps.real.dtype)
    return convolution.to(sensitivity_maps.device)


def convolved(sensitivity: Sensitivity | SoftSensitivity, convolution: Toeplitz, x: Tensor) -> Tensor:
    """Return `sum_c conj(s_c) T (s_c x)`, a few coils at a time."""
    maps = sensitivity.sensitivity_maps
    axis = 1 if sensitivity.sets is None else 2
    coils = maps.shape[axis]
    padded = len(x) * prod(convolution.spectrum.shape[1:]) * x.element_size()
    step = max(1, toeplitz_module.CHUNK_BYTES // padded)
    if step >= coils:
        return sensitivity.adjoint(convolution(sensitivity(x)))
    images = []
    for start in range(0, coils, step):
        few = type(sensitivity)(maps.narrow(axis, start, min(step, coils - start)))
        images.append(few.adjoint(convolution(few(x))))
    return torch.stack(images).sum(0)
