"""The non-uniform Fourier transform as an operator: samples anywhere in k-space, by the FINUFFT library.

FINUFFT itself rather than a torch binding of it: all that is missing is an autograd Function whose backward is the
other transform, which is then differentiable any number of times, batched, and scaled like the FFT here.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, final

import finufft
import numpy as np
import torch
from torch import Tensor

from operators.linear import LinearOperator, require_complex
from operators.shapes import MORE, Shapes, batch_of

ACCURACY = 1e-12  # of the sums, relative: as exact as double precision lets them be
SINGLE_ACCURACY = 1e-6  # about what single precision can hold; asking FINUFFT for less only costs time


@final
class NUFFT(LinearOperator):
    """Samples of the Fourier transform at points k_j, scaled like the centred orthonormal FFT:

        y_j = 1 / sqrt(N) sum_n x_n exp(-2 pi i sum_d k_jd (n_d - N_d // 2) / N_d),    N = prod_d N_d

    A trajectory that visits every point of the Cartesian grid, k_d = -(N_d // 2), ..., (N_d - 1) // 2, gives exactly
    `Fourier`. The adjoint is the conjugate transpose of that sum, without density compensation. Both transforms are
    differentiable in x and y, to any order; not in the trajectory.

    FINUFFT runs on the host: tensors of other devices are copied there and back. The number of threads is torch's.

    Args:
        trajectory: k, (batch or 1, *samples, ndim) real, in cycles per field of view: `|k_d| <= N_d / 2`. The last
            axis is in the order of the spatial axes. Keep it in double precision.
        spatial: (N_1, ..., N_ndim), the image size; one, two or three axes.
        accuracy: relative error asked of the transform. Single precision never asks for less than 1e-6, and rounds
            the points besides: about 1e-5 is what it reaches for images of 320 x 320.

    Shapes: image (batch, ..., *spatial) to samples (batch, ..., *samples), complex64 or complex128.

    Raises:
        ValueError: shapes that do not fit, points outside the band or not finite.
        TypeError: real input, a trajectory that is not real.

    Reference: Barnett, Magland, af Klinteberg, SIAM J Sci Comput 41, 2019; Fessler and Sutton, IEEE TSP 51, 2003.
    """

    trajectory: Tensor

    def __init__(self, trajectory: Tensor, spatial: Sequence[int], *, accuracy: float = ACCURACY) -> None:
        super().__init__()
        self.spatial = tuple(spatial)
        check_trajectory("NUFFT", trajectory, self.spatial)
        if not 1e-14 <= accuracy <= 0.1:
            raise ValueError(f"NUFFT: accuracy is {accuracy}, expected a number from 1e-14 to 0.1")
        self.accuracy = accuracy
        self.samples = tuple(trajectory.shape[1:-1])
        # a copy: the kernel of the normal operator would not change with the caller's tensor
        self.register_buffer("trajectory", trajectory.clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return `F x`: (batch, ..., *spatial) to (batch, ..., *samples)."""
        self.check("image", x, self.spatial)
        return self._apply_transform(x, 2, self.spatial, self.samples)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `F^H y`: (batch, ..., *samples) to (batch, ..., *spatial)."""
        self.check("samples", y, self.samples)
        return self._apply_transform(y, 1, self.samples, self.spatial)

    @property
    def shapes(self) -> Shapes:
        """(batch, ..., *spatial) to (batch, ..., *samples)."""
        batch = batch_of(self.trajectory)
        return Shapes((batch, MORE, *self.spatial), (batch, MORE, *self.samples))

    def _apply_transform(self, x: Tensor, kind: int, before: tuple[int, ...], after: tuple[int, ...]) -> Tensor:
        points = self.trajectory.flatten(1, -2)
        outer = x.shape[: x.ndim - len(before)]
        flat = x.reshape(len(x), -1, *(before if kind == 2 else (prod(before),)))
        result: Tensor = _Transform.apply(flat, points, self.spatial, self.accuracy, kind)
        return result.reshape(*outer, *after)

    def check(self, name: str, x: Tensor, expected: tuple[int, ...]) -> None:
        """Raise unless `x`, which the message calls `name`, is complex and of shape (batch, ..., *expected)."""
        require_complex("NUFFT", name, x)
        fits = x.ndim > len(expected) and x.shape[x.ndim - len(expected) :] == expected
        if not fits or len(self.trajectory) not in (1, len(x)):
            raise ValueError(
                f"NUFFT: {name} {tuple(x.shape)}, expected (batch, ..., {', '.join(map(str, expected))}) for the"
                f" trajectory {tuple(self.trajectory.shape)} (batch, *samples, ndim)"
            )


class _Transform(torch.autograd.Function):
    """x (batch, channel, ...), points (batch or 1, samples, ndim); type 2 is F, type 1 is F^H."""

    @staticmethod
    def forward(x: Tensor, points: Tensor, spatial: tuple[int, ...], accuracy: float, kind: int) -> Tensor:
        if len(points) == 1:
            return _execute(x.flatten(0, 1), points[0], spatial, accuracy, kind).unflatten(0, x.shape[:2])
        return torch.stack([_execute(a, p, spatial, accuracy, kind) for a, p in zip(x, points, strict=True)])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, points, ctx.spatial, ctx.accuracy, ctx.kind = inputs
        ctx.save_for_backward(points)
        ctx.save_for_forward(points)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (points,) = ctx.saved_tensors
        return _Transform.apply(grad, points, ctx.spatial, ctx.accuracy, 3 - ctx.kind), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        (points,) = ctx.saved_tensors
        result: Tensor = _Transform.apply(tangent, points, ctx.spatial, ctx.accuracy, ctx.kind)
        return result


def _execute(x: Tensor, points: Tensor, spatial: tuple[int, ...], accuracy: float, kind: int) -> Tensor:
    """Return the transforms of x (channel, ...) at points (samples, ndim), on the device of x."""
    dtype = np.complex64 if x.dtype == torch.complex64 else np.complex128
    real = np.float32 if x.dtype == torch.complex64 else np.float64
    scale = 2 * np.pi / np.asarray(spatial)
    radians = (points.detach().cpu().to(torch.float64).numpy() * scale).astype(real)
    plan = finufft.Plan(
        kind,
        spatial,
        n_trans=len(x),
        eps=max(accuracy, SINGLE_ACCURACY) if real is np.float32 else accuracy,
        isign=-1 if kind == 2 else 1,
        dtype=dtype,
        nthreads=torch.get_num_threads(),
    )
    plan.setpts(*(np.ascontiguousarray(radians[:, axis]) for axis in range(len(spatial))))
    data = x.detach().resolve_conj().resolve_neg().cpu().contiguous().numpy()
    shape = (len(x), len(points)) if kind == 2 else (len(x), *spatial)
    result = plan.execute(data if len(x) > 1 else data[0]).reshape(shape)
    result /= np.sqrt(prod(spatial), dtype=real)
    return torch.from_numpy(result).to(x.device)


def check_trajectory(who: str, trajectory: Tensor, spatial: tuple[int, ...]) -> None:
    """Raise unless `trajectory` is (batch or 1, *samples, ndim) real, finite and in the band of an image `spatial`."""
    if not torch.is_floating_point(trajectory):
        raise TypeError(f"{who}: trajectory has dtype {trajectory.dtype}, expected a real floating point dtype")
    if trajectory.requires_grad:
        raise ValueError(f"{who}: trajectory requires a gradient, which the NUFFT does not give; expected it detached")
    if not 1 <= len(spatial) <= 3 or min(spatial) < 1:
        raise ValueError(f"{who}: spatial size is {spatial}, expected one, two or three positive numbers")
    if trajectory.ndim < 3 or trajectory.shape[-1] != len(spatial) or 0 in trajectory.shape:
        raise ValueError(
            f"{who}: trajectory {tuple(trajectory.shape)}, expected a non-empty (batch or 1, *samples, {len(spatial)})"
            f" for images of size {spatial}"
        )
    largest = trajectory.flatten(0, -2).abs().amax(0)
    for axis, (k, n) in enumerate(zip(largest.tolist(), spatial, strict=True)):
        if not k <= n / 2 * (1 + 1e-6):
            raise ValueError(
                f"{who}: trajectory reaches {k:g} along spatial axis {axis}, expected at most {n / 2:g} cycles per"
                f" field of view (half the image size {n}); drop the samples beyond, or reconstruct a larger matrix"
            )
