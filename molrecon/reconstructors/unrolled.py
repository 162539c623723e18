"""What unrolled reconstructors share: conditioning, the units of the data, and the loop over their stages."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from molrecon.networks import Denoiser
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.reconstructors.forward_mode import derivative
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.solvers.batched import per_sample
from molrecon.solvers.conjugate_gradient import solve_hermitian
from molrecon.solvers.solution import Solution, unbounded_solution
from molrecon.solvers.solver_settings import SolverSettings
from operators import LinearOperator

# (layer number from 1, its output) -> what the next layer gets: the noise between layers of a training or a check.
Disturb = Callable[[int, Tensor], Tensor]

# Of the inner solves of a derivative: what an image's leave undone is a fifth of its change, in small problems.
RESPONSE_TOL, RESPONSE_STEPS = 1e-4, 150


class UnrolledReconstructor(LearnedReconstructor):
    """A fixed number K of stages around one network, trained end to end.

    Subclasses define `iterate`. The graph of all K stages is held for the gradient. Nothing is guaranteed about the
    result.

    Args:
        network: the denoiser H, shared by the stages.
        n_unrolls: K.
        data_weight: lambda at the reference noise level.
        phase_reference: show the network the image without its smooth phase (see `Conditioning`).

    Attributes:
        n_unrolls: stages that are run; may be set to fewer than K.
        inner_tol, inner_steps: of the conjugate gradients, relative to the residual at the image they start from; may
            be set.

    Shapes: k-space (batch, coil, *spatial), image (batch, *spatial), complex.

    Raises:
        ValueError: `n_unrolls` or `data_weight` that is not positive.
    """

    inner_tol = 1e-2
    inner_steps = 30
    log_data_weight: nn.Parameter
    n_unrolls: int

    def __init__(self, network: Denoiser, *, n_unrolls: int, data_weight: float, phase_reference: bool) -> None:
        if n_unrolls < 1 or data_weight <= 0:
            raise ValueError(
                f"{type(self).__name__}: got n_unrolls {n_unrolls} and data_weight {data_weight}, expected both to be"
                " positive"
            )
        super().__init__(network, data_weight=data_weight, phase_reference=phase_reference)
        self.n_unrolls = n_unrolls

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments besides what is learned."""
        return {**super().settings(), "n_unrolls": self.n_unrolls}

    @abstractmethod
    def iterate(
        self,
        zero_filled: Tensor,
        operator: LinearOperator,
        weight: Tensor,
        denoise: Callable[[Tensor], Tensor],
        disturb: Disturb,
    ) -> Iterator[Tensor]:
        """Yield x_1 .. x_K in the units of the network; x_0 is `zero_filled`.

        Args:
            zero_filled: A^H b (batch, *spatial), divided by the scan's intensity.
            operator: the acquisition A.
            weight: lambda of each sample (batch, 1, ...).
            denoise: H on complex images.
            disturb: (k, x_k) -> the x_k that is yielded and that stage k + 1 starts from.
        """

    def data_consistent(self, image: Tensor, zero_filled: Tensor, operator: LinearOperator, weight: Tensor) -> Tensor:
        """Return `(I + lambda A^H A)^-1 (image + lambda A^H b)`, the images (batch, *spatial).

        Conjugate gradients started at the image, with the implicit gradient of the exact solution.
        """

        def regularised(x: Tensor) -> Tensor:
            return x + weight * operator.normal(x)

        residual = weight * (zero_filled - operator.normal(image))
        change = solve_hermitian(
            regularised, residual, tol=self.inner_tol, max_steps=self.inner_steps, verify=False
        ).value
        return image + change

    def _solve(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        conditioning: Conditioning | None,
        start: Tensor | None,
        solver: SolverSettings | None,
    ) -> Solution:
        stages = self._stages(kspace, operator, conditioning or self.condition(kspace, operator), None)
        return unbounded_solution(_last(stages), self.n_unrolls)

    @torch.no_grad()
    def response(
        self, operator: LinearOperator, conditioning: Conditioning | None, image: Tensor, kspace: Tensor
    ) -> Callable[[Tensor], Solution]:
        """Return the derivative of the image by the data, see `Reconstructor.response`.

        All of a stage but H is linear in data and image, so the derivative is the same stages of the changed data, with
        the derivative of H at the image that H was given in the stage. Those K images are held. It is the derivative of
        exact stages, to RESPONSE_TOL; those of the image itself are left at `inner_tol`.
        """
        conditioning = (conditioning or self.condition(kspace, operator)).in_precision(self.precision)
        denoise = conditioning.denoiser(self.network)
        points: list[Tensor] = []
        exact = copy(self)
        exact.inner_tol, exact.inner_steps = RESPONSE_TOL, RESPONSE_STEPS

        def recorded(x: Tensor) -> Tensor:
            points.append(x)
            return denoise(x)

        _last(self._stages(kspace, operator, conditioning, None, recorded))

        def respond(change: Tensor) -> Solution:
            at = iter(points)

            def slope(dx: Tensor) -> Tensor:
                return derivative(denoise, next(at), dx)

            return unbounded_solution(_last(exact._stages(change, operator, conditioning, None, slope)), self.n_unrolls)

        return torch.no_grad()(respond)

    def stages(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        noise_level: float | Tensor | None = None,
        *,
        conditioning: Conditioning | None = None,
        disturb: Disturb | None = None,
    ) -> Iterator[Tensor]:
        """Yield x_1 .. x_K in the units of the data; the start is the zero-filled image.

        Args:
            kspace, operator, noise_level, conditioning: as of a call.
            disturb: (k, x_k) -> image, for k = 1 .. K - 1; what it returns is what the next stage starts from, and what
                is yielded.
        """
        if conditioning is None:
            conditioning = self.condition(kspace, operator, noise_level)
        yield from self._stages(kspace, operator, conditioning, disturb)

    def _stages(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        conditioning: Conditioning,
        disturb: Disturb | None,
        denoise: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[Tensor]:
        narrow = self.precision
        conditioning = conditioning.in_precision(narrow)
        scale = per_sample(conditioning.scale, conditioning.phase).to(narrow.to_real())
        weight = per_sample(self.data_weight(conditioning.noise_level), conditioning.phase)
        zero_filled = operator.adjoint(kspace).to(narrow) / scale

        def handed_on(stage: int, x: Tensor) -> Tensor:
            return x if disturb is None or stage == self.n_unrolls else disturb(stage, x * scale) / scale

        denoise = denoise or conditioning.denoiser(self.network)
        for x in self.iterate(zero_filled, operator, weight, denoise, handed_on):
            yield (x * scale).to(narrow)


def _last(stages: Iterator[Tensor]) -> Tensor:
    """Return the last image; a list of all stages would hold them."""
    (image,) = deque(stages, maxlen=1)
    return image
