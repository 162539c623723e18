"""Compressed sensing with a matrix: `y = Phi v` on the vectors of `Flatten` (whole images) or of `Blocks`.

    A = Dense(orthonormal_matrix(272, 33 * 33, seed=0)) @ Blocks((256, 256), 33)

maps images (batch, 256, 256) to measurements (batch, 64, 272). A real matrix senses real and complex images alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

from operators.linear import LinearOperator
from operators.shapes import MORE, Shapes, dtype_name


def gaussian_matrix(measurements: int, pixels: int, seed: int | torch.Generator) -> Tensor:
    """Return Phi (measurements, pixels) of independent normal entries of variance 1/measurements, float64.

    On average `|Phi v|^2 = |v|^2`.

    Args:
        measurements, pixels: M and N, both at least 1.
        seed: an integer, or a generator, which is advanced. The global generator is not touched.

    Raises:
        ValueError: sizes below 1.
    """
    if measurements < 1 or pixels < 1:
        raise ValueError(f"gaussian_matrix: got {measurements} x {pixels}, expected sizes of at least 1")
    generator = _generator(seed)
    draws = torch.randn(measurements, pixels, dtype=torch.float64, generator=generator, device=generator.device)
    return draws / measurements**0.5


def orthonormal_matrix(measurements: int, pixels: int, seed: int | torch.Generator) -> Tensor:
    """Return Phi (measurements, pixels) with orthonormal rows, `Phi Phi^T = I`, spread evenly over all such, float64.

    The rows span those of a Gaussian matrix: the usual random Phi of block compressed sensing. `Phi^T Phi` is then
    a projection, and Phi does not amplify noise.

    Args:
        measurements, pixels: 1 <= M <= N.
        seed: an integer, or a generator, which is advanced. The global generator is not touched.

    Raises:
        ValueError: sizes below 1, or more measurements than pixels.
    """
    if not 1 <= measurements <= pixels:
        raise ValueError(f"orthonormal_matrix: got {measurements} x {pixels}, expected 1 <= measurements <= pixels")
    q, r = torch.linalg.qr(gaussian_matrix(measurements, pixels, seed).T)
    # The signs of R make the columns of Q independent of the conventions of the QR routine.
    return (q * torch.where(r.diagonal() < 0, -1.0, 1.0)).T.contiguous()


@final
class Dense(LinearOperator):
    """Sensing by a matrix, `y = Phi v` on the last axis; the adjoint is `Phi^H y`.

    Args:
        phi: (M, N), real or complex.

    Shapes: vectors (batch, ..., N) to measurements (batch, ..., M). A real Phi takes real and complex vectors and
    keeps which; a complex Phi takes complex ones. The precision is the higher one of Phi and input.

    Raises:
        ValueError: Phi without rows or columns, vectors or measurements of other lengths.
        TypeError: integer or boolean tensors, real input for a complex Phi.
    """

    phi: Tensor

    def __init__(self, phi: Tensor) -> None:
        super().__init__()
        if phi.ndim != 2 or 0 in phi.shape:
            raise ValueError(f"Dense: sensing matrix {tuple(phi.shape)}, expected (measurements, pixels)")
        if not (phi.is_floating_point() or phi.is_complex()):
            raise TypeError(f"Dense: sensing matrix has dtype {phi.dtype}, expected a floating or complex dtype")
        self.register_buffer("phi", phi, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return `Phi x`."""
        return _multiply("Dense", "vectors", self.phi, x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `Phi^H y`."""
        return _multiply("Dense", "measurements", self.phi.mH, y)

    def normal(self, x: Tensor) -> Tensor:
        """Return `Phi^H Phi x`."""
        return self.adjoint(self(x))

    @property
    def shapes(self) -> Shapes:
        """Vectors (batch, ..., N) to measurements (batch, ..., M)."""
        return matrix_shapes(*self.phi.shape)

    def extra_repr(self) -> str:
        """Return the dtype of Phi."""
        return dtype_name(self.phi)


@final
class BinaryDense(LinearOperator):
    """Sensing by a learned binary matrix, `y = Phi v` with `Phi = sign(latent) / sqrt(N)`, sign(0) = 1.

    The entries are +1 and -1 over sqrt(N), so that every row has norm 1; a device that can only let light pass or not
    measures twice, or once more for the mean. The gradient passes the sign straight through where the latent is
    within [-1, 1], `d Phi / d latent = 1 / sqrt(N)`, and is zero outside, where a latent stays as it is.

    Args:
        measurements, pixels: M and N, both at least 1.
        seed: an integer, or a generator, for latents uniform in [-1, 1]. The global generator is not touched.

    Attributes:
        latent: the parameter (M, N), float32, which a state dict holds.

    Shapes, dtypes and errors: as for `Dense` with a real matrix.

    References: Bengio et al., arXiv:1308.3432 (straight-through estimator); Courbariaux et al., arXiv:1602.02830 (the
    window of its derivative); Zhang, Zhao and Gao, OPINE-Net, IEEE J Sel Top Signal Process 14, 2020 (binary Phi).
    """

    def __init__(self, measurements: int, pixels: int, seed: int | torch.Generator) -> None:
        super().__init__()
        if measurements < 1 or pixels < 1:
            raise ValueError(f"BinaryDense: got {measurements} x {pixels}, expected sizes of at least 1")
        generator = _generator(seed)
        draws = torch.rand(measurements, pixels, generator=generator, device=generator.device)
        self.latent = nn.Parameter(2 * draws - 1)

    @property
    def phi(self) -> Tensor:
        """The matrix (M, N), differentiable in `latent` in the straight-through sense."""
        scale = self.latent.shape[1] ** -0.5
        surrogate = self.latent.clamp(-1, 1) * scale
        binary = torch.where(self.latent < 0, -scale, scale).to(self.latent.dtype)
        # The bracket is exactly zero, and carries the gradient.
        return binary + (surrogate - surrogate.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Return `Phi x`."""
        return _multiply("BinaryDense", "vectors", self.phi, x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `Phi^T y`."""
        return _multiply("BinaryDense", "measurements", self.phi.mH, y)

    def normal(self, x: Tensor) -> Tensor:
        """Return `Phi^T Phi x`, with Phi built once."""
        phi = self.phi
        return _multiply("BinaryDense", "measurements", phi.mH, _multiply("BinaryDense", "vectors", phi, x))

    @property
    def shapes(self) -> Shapes:
        """Vectors (batch, ..., N) to measurements (batch, ..., M)."""
        return matrix_shapes(*self.latent.shape)

    def extra_repr(self) -> str:
        """Return the dtype of Phi."""
        return dtype_name(self.latent)


def matrix_shapes(measurements: int, pixels: int) -> Shapes:
    """Return the shapes of a sensing matrix (M, N) that acts on the last axis."""
    return Shapes(("batch", MORE, pixels), ("batch", MORE, measurements))


def on_parts(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return `function(x)` for a real linear function; of complex x the real and the imaginary part apart."""
    return torch.complex(function(x.real), function(x.imag)) if x.is_complex() else function(x)


def require_vectors(who: str, name: str, x: Tensor, length: int) -> None:
    """Raise unless `x` is (batch, ..., length) of floating or complex numbers."""
    if not (x.is_floating_point() or x.is_complex()):
        raise TypeError(f"{who}: {name} have dtype {x.dtype}, expected a floating or complex dtype")
    if x.ndim < 2 or x.shape[-1] != length:
        raise ValueError(f"{who}: {name} {tuple(x.shape)}, expected (batch, ..., {length})")


def _multiply(who: str, name: str, matrix: Tensor, x: Tensor) -> Tensor:
    require_vectors(who, name, x, matrix.shape[1])
    if matrix.is_complex():
        if not x.is_complex():
            raise TypeError(f"{who}: {name} have dtype {x.dtype}, expected a complex dtype for a complex matrix")
        dtype = torch.promote_types(matrix.dtype, x.dtype)
        return x.to(dtype) @ matrix.to(dtype).mT
    dtype = torch.promote_types(matrix.dtype, x.dtype.to_real())
    return on_parts(lambda part: part.to(dtype) @ matrix.to(dtype).mT, x)


def _generator(seed: int | torch.Generator) -> torch.Generator:
    return seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
