"""Density compensation as weighted least squares: the data and the acquisition weighted alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from operators.linear import LinearOperator
from operators.noncartesian import NonCartesianSense, convolved, kernel_for
from operators.nufft import NUFFT
from operators.shapes import Shapes, batch_of
from operators.toeplitz import Toeplitz, check_weights


@final
@dataclass(frozen=True, eq=False)
class DensityWeighted:
    """The weighted problem of a measurement: what a solver takes in place of k-space and acquisition.

    Attributes:
        kspace: `b_w = W^(1/2) b`, (batch, coil, *samples).
        operator: `A_w = W^(1/2) A`.
    """

    kspace: Tensor
    operator: WeightedSense


def density_weighted(kspace: Tensor, operator: NonCartesianSense, weights: Tensor) -> DensityWeighted:
    """Return `b_w = W^(1/2) b` and `A_w = W^(1/2) A` for measured k-space b, its acquisition A and weights W.

    Any solver takes the pair as it takes (b, A):

        CGSense(mu)(b_w, A_w)      argmin_x |W^(1/2) (A x - b)|^2 + mu |x|^2, in few steps: A_w is well conditioned
        MOL(...)(b_w, A_w)         the equilibrium of the weighted problem, with its bound; A_w has a norm of about 1,
                                   as the Cartesian operators have that models are trained with
        A_w.adjoint(b_w)           S^H F^H W b, the gridding reconstruction

    The noise of b_w has the standard deviation `sigma W^(1/2)`, sample by sample: white noise stays white only in
    (b, A), whose least squares are the better estimate where they can be waited for.

    Args:
        kspace: (batch, coil, *samples) complex.
        operator: A.
        weights: W, (batch or 1, *samples) real, not negative, such as from `density_compensation`.

    Raises:
        ValueError: shapes that do not fit, weights that are negative or not finite.
        TypeError: real k-space, complex weights, another operator.
    """
    if not isinstance(operator, NonCartesianSense):
        raise TypeError(f"density_weighted: operator is {type(operator).__name__}, expected NonCartesianSense")
    weighted = WeightedSense(operator, weights)
    return DensityWeighted(weighted.weigh(kspace), weighted)


def noise_gain(weights: Tensor) -> Tensor:
    """Return `sqrt(sum w^2 / sum w)` (batch or 1,) of weights (batch or 1, *samples).

    White noise of this level in weighted k-space, relative to that of a sample, leaves as much energy in the gridded
    image `A^H W b` of a fully sampled grid as the noise of the samples does.
    """
    w = weights.flatten(1)
    return (w.square().sum(1) / w.sum(1)).sqrt()


@final
class WeightedSense(LinearOperator):
    """The weighted acquisition `A_w = W^(1/2) A` of `density_weighted`; its range is that of weighted k-space.

    `normal` is `sum_c conj(s_c) T (s_c x)` with `Toeplitz` T of the weights, one padded FFT pair per coil, where A has
    a Toeplitz kernel; otherwise it is the adjoint of the forward operator.

    Args, Shapes, Raises: as `density_weighted`.

    Reference: Pruessmann, Weiger, Boernert, Boesiger, Magn Reson Med 46, 2001.
    """

    root_weights: Tensor

    def __init__(self, operator: NonCartesianSense, weights: Tensor) -> None:
        super().__init__()
        check_weights("WeightedSense", weights, operator.trajectory)
        if len({len(operator.sensitivity_maps), len(operator.trajectory), len(weights)} - {1}) > 1:
            raise ValueError(
                f"WeightedSense: batches of sensitivity maps, trajectory and weights are"
                f" {[len(operator.sensitivity_maps), len(operator.trajectory), len(weights)]}, expected 1 or one size"
            )
        self.operator = operator
        root = weights.detach().sqrt().to(operator.sensitivity_maps.device)
        self.register_buffer("root_weights", root, persistent=False)
        self.toeplitz: Toeplitz | None = None
        if operator.toeplitz is not None and isinstance(operator.encoding, NUFFT):
            maps, accuracy = operator.sensitivity_maps, operator.encoding.accuracy
            self.toeplitz = kernel_for(
                maps, operator.spatial, operator.trajectory, weights.to(operator.trajectory.device), accuracy
            )

    @property
    def sensitivity_maps(self) -> Tensor:
        """The coil sensitivity maps, (batch or 1, coil, *spatial)."""
        return self.operator.sensitivity_maps

    @property
    def sets(self) -> int | None:
        """Those of the acquisition."""
        return self.operator.sets

    @property
    def noise_gain(self) -> Tensor:
        """See `noise_gain` of the weights."""
        return noise_gain(self.root_weights.square())

    def weigh(self, kspace: Tensor) -> Tensor:
        """Return `W^(1/2) b`, (batch, coil, *samples) as k-space b."""
        self.operator.check_kspace(kspace)
        root = self.root_weights
        if len(root) not in (1, len(kspace)):
            raise ValueError(
                f"WeightedSense: k-space {tuple(kspace.shape)} (batch, coil, *samples), expected a batch of"
                f" {len(root)}, as of the weights"
            )
        return root.to(kspace.real.dtype)[:, None] * kspace

    def forward(self, x: Tensor) -> Tensor:
        """Return `W^(1/2) A x`: image to weighted k-space (batch, coil, *samples)."""
        return self.weigh(self.operator(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """Return `A^H W^(1/2) y`: weighted k-space (batch, coil, *samples) to image."""
        return self.operator.adjoint(self.weigh(y))

    def normal(self, x: Tensor) -> Tensor:
        """Return `A^H W A x`; image to image."""
        self.operator.sensitivity.check_image(x)
        if self.toeplitz is None or not self.toeplitz.serves(x.dtype):
            return super().normal(x)
        return convolved(self.operator.sensitivity, self.toeplitz, x)

    @property
    def shapes(self) -> Shapes:
        """Image to weighted k-space (batch, coil, *samples)."""
        (batch, *image), (_, *kspace) = self.operator.shapes.domain, self.operator.shapes.range
        batch = batch if isinstance(batch, int) else batch_of(self.root_weights)
        return Shapes((batch, *image), (batch, *kspace))

    def extra_repr(self) -> str:
        """Return the dtype of the maps."""
        return self.operator.extra_repr()
