"""Monotone operator learning: the reconstruction is the unique equilibrium of a score network and the data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor, nn

from molrecon.networks import Denoiser
from molrecon.reconstructors.certificate import Certificate, certificate
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.reconstructors.forward_mode import derivative
from molrecon.reconstructors.guiding import GUIDE_CHANNELS, first_of_guide, guide_response, with_guide
from molrecon.reconstructors.learned import LearnedReconstructor
from molrecon.reconstructors.planes import PlaneByPlane
from molrecon.reconstructors.robustness_bounds import data_robustness_bound
from molrecon.reconstructors.splitting import ForwardBackward, residual_rounding, with_implicit_gradient
from molrecon.solvers.batched import per_sample
from molrecon.solvers.solution import Iterate, Solution, in_units
from molrecon.solvers.solver_settings import SolverSettings
from operators import LinearOperator, Sense, SoftSense, principal_coils


@final
class MOL(LearnedReconstructor):
    """The equilibrium reconstructor: the x with `F(x) + lambda A^H (A x - b) = 0`.

    F = I - H is the score of an m-monotone network, lambda = lambda(sigma) a learned function of the noise level. At
    alpha = 1 one step of forward-backward splitting, written with the residual r, is

        r(x) = H(x) + lambda A^H b - x - lambda A^H A x,     x <- x + (I + lambda A^H A)^-1 r(x),

    accelerated by safeguarded Anderson. The inverse is conjugate gradients, started at zero for the correction, that
    is, at x itself, so that the inner error follows the outer one: they stop at `|r_cg| <= eta |r|`. With `eta = m / 4`
    an inexact step still contracts the residual by `(1 - m)(1 + eta) + eta < 1`; that is the promise of the safeguard's
    careful step, while trial steps use `eta = 0.1` and the principal coils (`operators.principal_coils`). Trial steps
    are also longer, with a relaxation alpha above 1 (`SolverSettings.relaxation`):
    `x <- x + (I / alpha + lambda A^H A)^-1 r(x)`. The I of the plain step takes the score's slope for 1, and over most
    of an image it is less. Such steps need not contract by themselves, for which the safeguard is there. The iteration
    stops on the a-posteriori bound `|x - x*| <= |r(x)| / m`, which holds for every x by strong monotonicity.

    The network and the conjugate gradients work in the precision of the network. Image and data term are held in
    double precision (iterative refinement, `SolverSettings.refine`): in single precision alone the rounding of
    `lambda A^H A x` over m would stop the bound at about `1e-7 lambda / m`, with it only the network's does, at
    about `4e-7 / m`. It costs little: a normal operator in double precision is computed once in ten to twenty
    iterations, and for what is reported (`RefinedResidual`). The rounding is part of the bound (`Denoiser.rounding`),
    and convolutions use all bits of float32 whatever torch's flags for TF32 say (`full_precision`). A sample whose
    rounding keeps it from `tol` stops early and is marked `stalled`; its error bound is then the attainable accuracy,
    and `model.double()` goes further.

    The gradient is that of the equilibrium itself (implicit function theorem), independent of how it was found; its
    linear system is solved by the same routine, preconditioner and tolerance rule, to an error bound of its own,
    `|w - w*| <= |dl/dx - (I - J_H + lambda A^H A)^H w| / m`, since the transpose is m-monotone too. It is
    our own and not torchdeq's `get_deq(..., ift=True)`, whose hook differentiates the map T and hence through the inner
    CG; here only r is differentiated. The solver is torchdeq's all the same (`molrecon.solvers.torchdeq_solver`).

    With several sets of maps (`SoftSense`) there is an image for each set, and H acts on each by itself: the same
    constants, and all that follows from them.

    With a guided network the thresholds of H follow images c of the scan that are found before the iteration starts:
    the image of a first model, unrolled or an equilibrium to `guiding.FIRST_TOL`, where the iteration then starts too,
    and a CG-SENSE image (see `guide_images`), both of the principal coils. For every c the network keeps to
    `Lip(H) <= 1 - m` in the iterate. Existence, uniqueness, convergence and error bound are those of the scan with its
    c. So is the bound of changes, `change_bound`: it is for a fixed c. Through c two data sets move their equilibria by
    at most

        |x*(b1; c1) - x*(b2; c2)| <= |x*(b1; c1) - x*(b2; c1)| + |H(y; c1) - H(y; c2)| / m,    y = x*(b2; c2),

    the first term bounded as before, the second found for the two scans at hand; before they are, there is no bound, as
    the guide is a free network. A conditioning without a guide lets the call find c itself, differentiably.

    Args:
        network: the denoiser H.
        first: of a guided network, the model whose image guides it; of three axes it may be one of planes
            (`PlaneByPlane`). It need guarantee nothing.
        data_weight: lambda at the reference noise level, 0.01.
        phase_reference: show the network the image without its smooth phase (see `Conditioning`).
        solver: how the equilibrium is looked for where a call does not say it.

    Raises:
        ValueError: `data_weight` that is not positive; a guided network without a first model, or the reverse; images
            with other than the network's number of spatial axes.

    Reference: Pramanik, Zimmerman, Jacob, IEEE TCI 2023, arXiv 2206.04797.
    """

    # Between 40 and 300 the images of nearly noise-free scans differ by tenths of a decibel; beyond, they lose up to 3.
    largest_data_weight = 100.0

    log_data_weight: nn.Parameter
    solver: SolverSettings

    def __init__(
        self,
        network: Denoiser,
        *,
        first: LearnedReconstructor | PlaneByPlane | None = None,
        data_weight: float = 60.0,
        phase_reference: bool = True,
        solver: SolverSettings | None = None,
    ) -> None:
        super().__init__(network, data_weight=data_weight, phase_reference=phase_reference)
        if network.guide_channels != (0 if first is None else GUIDE_CHANNELS):
            raise ValueError(
                f"MOL: network with {network.guide_channels} guide channels and {'no' if first is None else 'a'} first"
                f" model, expected 0 without one and {GUIDE_CHANNELS} with one"
            )
        if first is not None and (first.ndim, first.phase_reference) != (network.ndim, phase_reference):
            raise ValueError(
                f"MOL: first model with {first.ndim} axes and phase_reference {first.phase_reference}, expected"
                f" {network.ndim} and {phase_reference}: it is given the conditioning of the one that it guides"
            )
        self.first = first
        self.solver = solver or SolverSettings()

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments besides what is learned."""
        return {**super().settings(), "first": self.first, "solver": self.solver}

    def certificate(self) -> Certificate:
        """Return what is guaranteed; "certified" only if the network's Lipschitz bound is a true upper bound."""
        return certificate(self.network.lipschitz_bound(), certified=self.network.certified)

    def weight_ratio(self, conditioning: Conditioning) -> Tensor:
        """Return `lambda / m` of the certificate, (batch,); infinite without monotonicity."""
        m = self.certificate().monotonicity
        weight = self.data_weight(conditioning.noise_level).detach()
        return weight / m if m > 0 else torch.full_like(weight, math.inf)

    def change_bound(
        self, conditioning: Conditioning | None, operator: LinearOperator, change: Tensor
    ) -> Tensor | None:
        """Return `min(sqrt(lambda / m) / 2 |d|, (lambda / m) |A^H d|)`; None without monotonicity.

        Nor is there a bound for a guided network whose conditioning holds no guide.
        """
        if conditioning is None or not self.certificate().monotonicity > 0:
            return None
        if self.first is not None and conditioning.guide is None:  # a call would find another guide for other data
            return None
        return data_robustness_bound(self.weight_ratio(conditioning), operator, change)

    def tolerance(self, residual: float) -> float:
        """Return the error bound `|r| / (m |x|)` of a relative residual."""
        return residual / self.network.monotonicity

    def lipschitz_target(self) -> float | None:
        """Return `1 - m` for a network that is not strict."""
        return None if self.network.strict else 1 - self.network.monotonicity

    @torch.no_grad()
    def guided(self, kspace: Tensor, operator: LinearOperator, conditioning: Conditioning) -> Conditioning:
        """Return a conditioning with the guide of this scan; as it is for a model without a first one."""
        return self._guided(kspace, operator, conditioning)

    @torch.no_grad()
    def stages(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        noise_level: float | Tensor | None = None,
        *,
        conditioning: Conditioning | None = None,
        start: Tensor | None = None,
        solver: SolverSettings | None = None,
    ) -> list[Iterate]:
        """Return every iterate of a call with its error bound, the first iterate included; arguments as of a call.

        All of them are held at once. `SolverSettings.on_step` sees them one at a time.
        """
        iterates: list[Iterate] = []
        watched = replace(solver or self.solver, on_step=iterates.append)
        self(kspace, operator, noise_level, conditioning=conditioning, start=start, solver=watched)
        return iterates

    @torch.no_grad()
    def response(
        self, operator: LinearOperator, conditioning: Conditioning | None, image: Tensor, kspace: Tensor
    ) -> Callable[[Tensor], Solution] | None:
        """Return the derivative of the equilibrium by the data, from one linear solve a change.

        The implicit function theorem at `H(x; c) + lambda A^H (b - A x) = x`: `dx = J n` solves

            (I - J_H + lambda A^H A) dx = lambda A^H n + (dH/dc) dc,

        by the iteration that finds the equilibrium, to the goal `backward_tol`: `J_H` contracts by 1 - m as H does. Its
        products with vectors are forward-mode derivatives of the network.

        Scale, noise level, phase and lambda are held fixed. The guide c of a guided network is not: it is a function of
        the data, differentiated through its first model and its CG-SENSE image. None where the first model does not
        tell its derivative.
        """
        solver, narrow = self.solver, self.precision
        wide = torch.complex128 if solver.refine else narrow
        conditioning = self._completed(kspace, operator, conditioning)
        scale = per_sample(conditioning.scale, conditioning.phase)
        weight = per_sample(self.data_weight(conditioning.noise_level), conditioning.phase)
        root = (image / scale).to(narrow)
        rounding = residual_rounding(self.network, operator, weight, root.to(wide), narrow, solver)
        splitting = ForwardBackward(
            operator, _few_coils(operator), weight, self.network.monotonicity, rounding, narrow, solver.window
        )
        denoise = conditioning.denoiser(self.network)
        of_guide = None
        if self.first is not None:
            of_guide = guide_response(self.first, self.network, operator, conditioning, root, kspace)
            if of_guide is None:
                return None

        def respond(change: Tensor) -> Solution:
            right_side = splitting.weight * _adjoint(operator, change, wide) / scale
            if of_guide is not None:
                right_side = right_side + of_guide(change)

            def source(w: Tensor) -> Tensor:
                return derivative(denoise, root, w.to(narrow)) + right_side

            zero = torch.zeros_like(right_side)
            solution = splitting.solve(source, zero, solver.backward_tol, solver.backward_max_steps)
            return solution.with_kind("estimated").with_value(solution.value.to(narrow) * scale)

        return torch.no_grad()(respond)

    def _solve(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        conditioning: Conditioning | None,
        start: Tensor | None,
        solver: SolverSettings | None,
    ) -> Solution:
        solver, narrow = solver or self.solver, self.precision
        wide = torch.complex128 if solver.refine else narrow
        conditioning = self._completed(kspace, operator, conditioning)

        scale = per_sample(conditioning.scale, conditioning.phase)
        weight = per_sample(self.data_weight(conditioning.noise_level), conditioning.phase)  # lambda
        denoise = conditioning.denoiser(self.network)  # H
        zero_filled = _adjoint(operator, kspace.detach(), wide) / scale  # A^H b
        rounding = residual_rounding(self.network, operator, weight.detach(), zero_filled, narrow, solver)
        splitting = ForwardBackward(
            operator, _few_coils(operator), weight.detach(), self.network.monotonicity, rounding, narrow, solver.window
        )
        relaxed = replace(splitting, relaxation=solver.relaxation)
        right_side = splitting.weight * zero_filled  # lambda A^H b
        first = self._first_iterate(conditioning, zero_filled) if start is None else start.detach().to(wide) / scale

        def source(x: Tensor) -> Tensor:
            return denoise(x.to(narrow)) + right_side

        on_step = in_units(scale, solver.on_step)
        solution = relaxed.solve(source, first, solver.tol, solver.max_steps, on_step, solver.keep_residual)
        solution = solution.with_kind("certified" if self.network.certified else "estimated")
        solution = solution.with_residual_in(scale, narrow)
        value = solution.value.to(narrow)
        if not torch.is_grad_enabled():
            return solution.with_value(value * scale)

        def data_term(x: Tensor) -> Tensor:
            return weight * (operator.adjoint(kspace) / scale - operator.normal(x))

        return solution.with_value(with_implicit_gradient(value, denoise, data_term, splitting, wide, solver) * scale)

    def _completed(self, kspace: Tensor, operator: LinearOperator, conditioning: Conditioning | None) -> Conditioning:
        """Return the conditioning in the network's precision, with the guide of the scan; what is missing is found."""
        conditioning = (conditioning or self.condition(kspace, operator)).in_precision(self.precision)
        self._check_axes(conditioning, operator)
        return conditioning if conditioning.guide is not None else self._guided(kspace, operator, conditioning)

    def _check_axes(self, conditioning: Conditioning, operator: LinearOperator) -> None:
        shape, sets = tuple(conditioning.phase.shape), operator.sets
        if len(shape) != self.network.ndim + (1 if sets is None else 2):
            raise ValueError(
                f"MOL: images {shape} ({'batch' if sets is None else 'batch, set'}, *spatial), expected"
                f" {self.network.ndim} spatial axes, as {type(self.network).__name__} has"
            )

    def _guided(self, kspace: Tensor, operator: LinearOperator, conditioning: Conditioning) -> Conditioning:
        if self.first is None:
            return conditioning
        return with_guide(self.first, kspace, operator, conditioning, self.solver)

    def _first_iterate(self, conditioning: Conditioning, zero_filled: Tensor) -> Tensor:
        """Return the first model's image where there is one, else the zero-filled image, at unit scale."""
        if conditioning.guide is None:
            return zero_filled
        image = first_of_guide(conditioning.guide.detach(), self.network.ndim)
        return (image * conditioning.phase).to(zero_filled.dtype)


@torch.no_grad()
def _few_coils(operator: LinearOperator) -> LinearOperator:
    return principal_coils(operator).operator


def _adjoint(operator: LinearOperator, kspace: Tensor, dtype: torch.dtype) -> Tensor:
    """Return A^H b in a precision that all of k-space is not copied to where that can be helped."""
    if isinstance(operator, Sense | SoftSense):
        return operator.adjoint(kspace, dtype)
    return operator.adjoint(kspace.to(dtype))
