"""Monotone operator learning: the reconstruction is the unique equilibrium of a score network and the data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor, nn

from molrecon.networks import Denoiser
from molrecon.networks.full_precision import full_precision
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.certificate import Certificate, certificate
from molrecon.reconstructors.conditioning import NOISE_COEFFICIENTS, Conditioning, condition, data_weight
from molrecon.reconstructors.guiding import GUIDE_CHANNELS, first_of_guide, guide_images
from molrecon.reconstructors.robustness_bounds import data_robustness_bound
from molrecon.solvers.batched import norm, per_sample
from molrecon.solvers.conjugate_gradient import conjugate_gradient
from molrecon.solvers.fixed_point import solve_fixed_point
from molrecon.solvers.implicit import implicit_gradient, report_backward
from molrecon.solvers.solution import Solution
from molrecon.solvers.solver_settings import SolverSettings
from operators import LinearOperator, Sense, SoftSense

FIRST_TOL = 1e-2  # error bound of the first equilibrium, which a second one is guided by and started at
INNER_TOL = 0.1  # of the inner CG, relative to the outer residual


@final
class MOL(Reconstructor):
    """The equilibrium reconstructor: the x with `F(x) + lambda A^H (A x - b) = 0`.

    F = I - H is the score of an m-monotone network, lambda = lambda(sigma) a learned function of the noise level. At
    alpha = 1 one step of forward-backward splitting, written with the residual r, is

        r(x) = H(x) + lambda A^H b - x - lambda A^H A x,     x <- x + (I + lambda A^H A)^-1 r(x),

    accelerated by safeguarded Anderson. The inverse is conjugate gradients, started at zero for the correction, that
    is, at x itself, so that the inner error follows the outer one: they stop at `|r_cg| <= eta |r|`. With `eta = m / 4`
    an inexact step still contracts the residual by `(1 - m)(1 + eta) + eta < 1`; that is the promise of the safeguard's
    careful step, while trial steps use `eta = 0.1`. The iteration stops on the a-posteriori bound
    `|x - x*| <= |r(x)| / m`, which holds for every x by strong monotonicity.

    The network and the conjugate gradients work in the precision of the network. Image and data term are held in
    double precision (iterative refinement, `SolverSettings.refine`): in single precision alone the rounding of
    `lambda A^H A x` over m would stop the bound at about `1e-7 lambda / m`, with it only the network's does, at
    about `4e-7 / m`. It is on by default because it costs one normal operator in double precision an iteration, a
    tenth of the time. The rounding is part of the bound (`Denoiser.rounding`), and convolutions use all bits of
    float32 whatever torch's flags for TF32 say (`full_precision`). A sample that cannot reach `tol` for it stops early
    and is marked `stalled`; its error bound is then the attainable accuracy, and
    `model.double()` goes further.

    The gradient is that of the equilibrium itself (implicit function theorem), independent of how it was found; its
    linear system is solved by the same routine, preconditioner and tolerance rule, to an error bound of its own,
    `|w - w*| <= |dl/dx - (I - J_H + lambda A^H A)^H w| / m`, since the transpose is m-monotone too. It is
    our own and not torchdeq's `get_deq(..., ift=True)`, whose hook differentiates the map T and hence through the inner
    CG; here only r is differentiated. The solver is torchdeq's all the same (`molrecon.solvers.torchdeq_solver`).

    With several sets of maps (`SoftSense`) there is an image for each set, and H acts on each by itself: the same
    constants, and all that follows from them.

    With a guided network the thresholds of H follow images c of the scan that are found before the iteration starts:
    the equilibrium of a first model, to `FIRST_TOL`, where the iteration then starts too, and a CG-SENSE image (see
    `guide_images`). For every c the network keeps to `Lip(H) <= 1 - m` in the iterate. Existence, uniqueness,
    convergence and error bound are those of the scan with its c. So is the bound of changes, `change_bound`: it is
    for a fixed c. Through c two data sets move their equilibria by at most

        |x*(b1; c1) - x*(b2; c2)| <= |x*(b1; c1) - x*(b2; c1)| + |H(y; c1) - H(y; c2)| / m,    y = x*(b2; c2),

    the first term bounded as before, the second found for the two scans at hand; before they are, there is no bound, as
    the guide is a free network. A conditioning without a guide lets the call find c itself, differentiably.

    Args:
        network: the denoiser H.
        first: of a guided network, the model whose equilibrium guides it.
        data_weight: lambda at the reference noise level, 0.01.
        phase_reference: show the network the image without its smooth phase (see `Conditioning`).
        solver: how the equilibrium is looked for where a call does not say it.

    Raises:
        ValueError: `data_weight` that is not positive; a guided network without a first model, or the reverse; images
            with other than the network's number of spatial axes.

    Reference: Pramanik, Zimmerman, Jacob, IEEE TCI 2023, arXiv 2206.04797.
    """

    takes_sets = True

    solver: SolverSettings

    def __init__(
        self,
        network: Denoiser,
        *,
        first: MOL | None = None,
        data_weight: float = 60.0,
        phase_reference: bool = True,
        solver: SolverSettings | None = None,
    ) -> None:
        super().__init__()
        if not data_weight > 0:
            raise ValueError(f"MOL: data_weight is {data_weight}, expected a positive number")
        if network.guide_channels != (0 if first is None else GUIDE_CHANNELS):
            raise ValueError(
                f"MOL: network with {network.guide_channels} guide channels and {'no' if first is None else 'a'} first"
                f" model, expected 0 without one and {GUIDE_CHANNELS} with one"
            )
        self.network = network
        self.first = first
        self.phase_reference = phase_reference
        self.log_data_weight = nn.Parameter(torch.tensor([math.log(data_weight), *NOISE_COEFFICIENTS]))
        self.solver = solver or SolverSettings()

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments besides what is learned."""
        return {
            "network": self.network,
            "first": self.first,
            "phase_reference": self.phase_reference,
            "solver": self.solver,
        }

    def certificate(self) -> Certificate:
        """Return what is guaranteed; "certified" only if the network's Lipschitz bound is a true upper bound."""
        return certificate(self.network.lipschitz_bound(), certified=self.network.certified)

    def data_weight(self, noise_level: Tensor) -> Tensor:
        """Return lambda of each sample, see `conditioning.data_weight`."""
        return data_weight(self.log_data_weight, noise_level)

    def weight_ratio(self, conditioning: Conditioning) -> Tensor:
        """Return `lambda / m` of the certificate, (batch,); infinite without monotonicity."""
        m = self.certificate().monotonicity
        weight = self.data_weight(conditioning.noise_level).detach()
        return weight / m if m > 0 else torch.full_like(weight, math.inf)

    def change_bound(
        self, conditioning: Conditioning | None, operator: LinearOperator, change: Tensor
    ) -> Tensor | None:
        """Return `min(sqrt(lambda / m) / 2 |d|, (lambda / m) |A^H d|)`; None without monotonicity."""
        if conditioning is None or not self.certificate().monotonicity > 0:
            return None
        return data_robustness_bound(self.weight_ratio(conditioning), operator, change)

    def condition(
        self, kspace: Tensor, operator: LinearOperator, noise_level: float | Tensor | None = None
    ) -> Conditioning:
        """Return scale, relative noise level, smooth phase and guide of a scan, see `conditioning.condition`."""
        known = condition(kspace, operator, noise_level, phase_reference=self.phase_reference)
        return self.guided(kspace, operator, known)

    @torch.no_grad()
    def guided(self, kspace: Tensor, operator: LinearOperator, known: Conditioning) -> Conditioning:
        """Return a conditioning with the guide of this scan; as it is for a model without a first one."""
        return known if self.first is None else replace(known, guide=self._guide(self.first, kspace, operator, known))

    def _guide(self, first: MOL, kspace: Tensor, operator: LinearOperator, known: Conditioning) -> Tensor:
        rough = replace(self.solver, tol=FIRST_TOL, on_backward=None)
        image = first(kspace, operator, conditioning=replace(known, guide=None), solver=rough).value
        return guide_images(kspace, operator, known, image)

    def _solve(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        conditioning: Conditioning | None,
        start: Tensor | None,
        solver: SolverSettings | None,
    ) -> Solution:
        solver = solver or self.solver
        narrow = self.log_data_weight.dtype.to_complex()
        known = (conditioning or self.condition(kspace, operator)).in_precision(narrow)
        if known.phase.ndim != self.network.ndim + (1 if operator.sets is None else 2):
            raise ValueError(
                f"MOL: images {tuple(known.phase.shape)} ({'batch' if operator.sets is None else 'batch, set'},"
                f" *spatial), expected {self.network.ndim} spatial axes,"
                f" as {type(self.network).__name__} has"
            )
        if self.first is not None and known.guide is None:
            known = replace(known, guide=self._guide(self.first, kspace, operator, known))
        scale = per_sample(known.scale, known.phase)
        weight = per_sample(self.data_weight(known.noise_level), known.phase)
        denoise = known.denoiser(self.network)
        iteration = _Iteration(operator, weight.detach(), self.network, narrow, solver)

        zero_filled = _adjoint(operator, kspace.detach(), iteration.wide) / scale
        iteration.allow_for_rounding(zero_filled)
        first = zero_filled
        if start is not None:
            first = start.detach().to(iteration.wide) / scale
        elif known.guide is not None:
            image = first_of_guide(known.guide.detach(), self.network.ndim)
            first = (image * known.phase).to(iteration.wide)
        right_side = iteration.weight * zero_filled

        def residual(x: Tensor) -> Tensor:
            return denoise(x.to(narrow)) + right_side - iteration.regularised(x)

        solution = iteration.solve(residual, first, solver.tol, solver.max_steps)
        solution = solution.with_kind("certified" if self.network.certified else "estimated")
        value = solution.value.to(narrow)
        if not torch.is_grad_enabled():
            return solution.with_value(value * scale)

        root = value.requires_grad_()
        with full_precision(root.device):
            denoised = denoise(root)
        fixed = root.detach()
        misfit = operator.adjoint(kspace) / scale - operator.normal(fixed)

        def solve_adjoint(grad: Tensor) -> Tensor:
            def adjoint_residual(w: Tensor) -> Tensor:
                (pulled,) = torch.autograd.grad(denoised, root, w.to(narrow), retain_graph=True)
                return grad + pulled - iteration.regularised(w)

            zero = torch.zeros_like(grad, dtype=iteration.wide)
            answer = iteration.solve(adjoint_residual, zero, solver.backward_tol, solver.backward_max_steps)
            report_backward(answer, solver.on_backward, "MOL")
            return answer.value.to(narrow)

        at_root = denoised + (weight * misfit).to(narrow) - fixed
        return solution.with_value(implicit_gradient(fixed, at_root, solve_adjoint) * scale)


@final
class _Iteration:
    """`x <- x + (I + lambda A^H A)^-1 r(x)`, for the equilibrium and for its gradient."""

    def __init__(
        self,
        operator: LinearOperator,
        weight: Tensor,
        network: Denoiser,
        narrow: torch.dtype,
        settings: SolverSettings,
    ) -> None:
        self.operator, self.weight, self.narrow = operator, weight, narrow
        self.monotonicity = monotonicity = network.monotonicity
        self.window, self.refine = settings.window, settings.refine
        self.wide = torch.complex128 if settings.refine else narrow
        self.careful_tol = monotonicity / 4
        self.contraction = (1 - monotonicity) * (1 + self.careful_tol) + self.careful_tol
        self.rounding = weight.new_full((len(weight),), network.rounding(narrow.to_real()))

    def allow_for_rounding(self, image: Tensor) -> None:
        """Without refinement the rounding of `lambda A^H A x` counts too; it is that of an image like this one."""
        if not self.refine:
            size = norm(image).clamp_min(torch.finfo(self.narrow).tiny)
            self.rounding = self.rounding * (1 + 2 * norm(self.weight * self.operator.normal(image)) / size)

    def regularised(self, x: Tensor) -> Tensor:
        """Return `(I + lambda A^H A) x` in the precision of x, or of the operator's maps if that is higher."""
        return x + self.weight * self.operator.normal(x)

    def solve(self, residual: Callable[[Tensor], Tensor], first: Tensor, tol: float, max_steps: int) -> Solution:
        with full_precision(first.device):
            return solve_fixed_point(
                residual,
                self._inverse(INNER_TOL),
                first,
                tol=tol,
                max_steps=max_steps,
                monotonicity=self.monotonicity,
                contraction=self.contraction,
                window=self.window,
                careful=self._inverse(self.careful_tol),
                rounding=self.rounding,
            )

    def _inverse(self, tol: float) -> Callable[[Tensor], Tensor]:
        def apply(r: Tensor) -> Tensor:
            return conjugate_gradient(self._narrowed, r.to(self.narrow), tol=tol, verify=False).value

        return apply

    def _narrowed(self, x: Tensor) -> Tensor:
        return self.regularised(x).to(self.narrow)


def _adjoint(operator: LinearOperator, kspace: Tensor, dtype: torch.dtype) -> Tensor:
    """Return A^H b in a precision that all of k-space is not copied to where that can be helped."""
    if isinstance(operator, Sense | SoftSense):
        return operator.adjoint(kspace, dtype)
    return operator.adjoint(kspace.to(dtype))
