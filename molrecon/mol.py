"""Monotone operator learning: the reconstruction is the unique equilibrium of a score network and the data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor, nn

from molrecon.batched import norm, per_sample
from molrecon.conditioning import NOISE_COEFFICIENTS, Conditioning, condition, data_weight
from molrecon.conjugate_gradient import conjugate_gradient
from molrecon.fixed_point import WINDOW, solve_fixed_point
from molrecon.implicit import implicit_gradient, report_backward
from molrecon.lipschitz import Certificate, certificate
from molrecon.networks import ScoreNetwork
from molrecon.networks.full_precision import full_precision
from molrecon.solution import Solution
from operators import LinearOperator, Sense

INNER_TOL = 0.1  # of the inner CG, relative to the outer residual


@final
class MOL(nn.Module):
    """The equilibrium reconstructor: `model(kspace, A)` returns the x with `F(x) + lambda A^H (A x - b) = 0`.

    F = I - H is the score of an m-monotone network, lambda = lambda(sigma) a learned function of the noise level. At
    alpha = 1 one step of forward-backward splitting, written with the residual r, is

        r(x) = H(x) + lambda A^H b - x - lambda A^H A x,     x <- x + (I + lambda A^H A)^-1 r(x),

    accelerated by safeguarded Anderson. The inverse is conjugate gradients, started at zero for the correction, that
    is, at x itself, so that the inner error follows the outer one: they stop at `|r_cg| <= eta |r|`. With `eta = m / 4`
    an inexact step still contracts the residual by `(1 - m)(1 + eta) + eta < 1`; that is the promise of the safeguard's
    careful step, while trial steps use `eta = 0.1`. The iteration stops on the a-posteriori bound
    `|x - x*| <= |r(x)| / m`, which holds for every x by strong monotonicity.

    The network and the conjugate gradients work in the precision of the network.
    Image and data term are held in double precision (iterative refinement, `refine`): in single precision alone the
    rounding of `lambda A^H A x` over m would stop the bound at about `1e-7 lambda / m`, with it only the network's
    does, at about `4e-7 / m`. It is on by default because it costs one normal operator in double precision an
    iteration, a tenth of the time. The rounding is part of the bound (`ScoreNetwork.rounding`), and convolutions use
    all bits of float32 whatever torch's flags for TF32 say (`full_precision`). A sample that cannot reach `tol` for it
    stops early and is marked `stalled`; its error bound is then the attainable accuracy, and
    `model.double()` goes further.

    The gradient is that of the equilibrium itself (implicit function theorem), independent of how it was found; its
    linear system is solved by the same routine, preconditioner and tolerance rule, to an error bound of its own,
    `|w - w*| <= |dl/dx - (I - J_H + lambda A^H A)^H w| / m`, since the transpose is m-monotone too. It is
    our own and not torchdeq's `get_deq(..., ift=True)`, whose hook differentiates the map T and hence through the inner
    CG; here only r is differentiated. The solver is registered with torchdeq all the same (`safeguarded_anderson`).

    Args:
        network: the denoiser H.
        data_weight: lambda at the reference noise level, 0.01.
        phase_reference: show the network the image without its smooth phase (see `Conditioning`).

    Attributes:
        tol: goal for the relative error bound of each sample.
        max_steps: outer iterations at most.
        window: Anderson differences; 0 for the plain iteration.
        backward_tol: goal for the gradient's relative error bound.
        refine: hold image and data term in double precision; for devices without it, turn it off.

    Reference: Pramanik, Zimmerman, Jacob, IEEE TCI 2023, arXiv 2206.04797.
    """

    def __init__(self, network: ScoreNetwork, *, data_weight: float = 60.0, phase_reference: bool = True) -> None:
        super().__init__()
        if data_weight <= 0:
            raise ValueError(f"MOL: data_weight is {data_weight}, expected a positive number")
        self.network = network
        self.phase_reference = phase_reference
        self.log_data_weight = nn.Parameter(torch.tensor([math.log(data_weight), *NOISE_COEFFICIENTS]))
        self.tol = 1e-4
        self.max_steps = 100
        self.window = WINDOW
        self.backward_tol = 1e-2
        self.refine = True

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments besides the network and what is learned."""
        return {"phase_reference": self.phase_reference}

    def certificate(self) -> Certificate:
        """Return what is guaranteed; "certified" only if the network's Lipschitz bound is a true upper bound."""
        return certificate(self.network.lipschitz_bound(), certified=self.network.certified)

    def data_weight(self, noise_level: Tensor) -> Tensor:
        """Return lambda of each sample, see `conditioning.data_weight`."""
        return data_weight(self.log_data_weight, noise_level)

    def condition(
        self, kspace: Tensor, operator: LinearOperator, noise_level: float | Tensor | None = None
    ) -> Conditioning:
        """Return scale, relative noise level and smooth phase of a scan, see `conditioning.condition`."""
        return condition(kspace, operator, noise_level, phase_reference=self.phase_reference)

    def forward(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        noise_level: float | Tensor | None = None,
        *,
        conditioning: Conditioning | None = None,
        start: Tensor | None = None,
        on_backward: Callable[[Solution], None] | None = None,
    ) -> Solution:
        """Return the equilibrium of each sample, in the units of the data, with its error bound.

        Args:
            kspace: b (batch, coil, *spatial) complex; unsampled entries zero.
            operator: the acquisition A.
            noise_level: see `condition`.
            conditioning: given in place of what `condition` finds; the robustness bound is for a fixed one.
            start: first iterate, in the units of the image; the zero-filled image when None.
            on_backward: called with the Solution of the gradient's linear system. Without it a system that misses
                `backward_tol` is logged as a warning.

        Raises:
            ValueError: k-space that is not finite, or images with other than the network's number of spatial axes.
            TypeError: real k-space.
        """
        if not torch.is_complex(kspace):
            raise TypeError(f"MOL: kspace has dtype {kspace.dtype}, expected a complex dtype")
        if not _all_finite(kspace.detach()):
            raise ValueError("MOL: kspace holds NaN or infinite values, expected finite numbers")
        known = self.condition(kspace, operator, noise_level) if conditioning is None else conditioning
        if known.phase.ndim != self.network.ndim + 1:
            raise ValueError(
                f"MOL: images {tuple(known.phase.shape)} (batch, *spatial), expected {self.network.ndim} spatial axes,"
                f" as {type(self.network).__name__} has"
            )
        narrow = self.log_data_weight.dtype.to_complex()
        wide = torch.complex128 if self.refine else narrow
        known = replace(known, noise_level=known.noise_level.to(narrow.to_real()), phase=known.phase.to(narrow))
        scale = per_sample(known.scale, known.phase)
        weight = per_sample(self.data_weight(known.noise_level), known.phase)
        fixed_weight = weight.detach()
        denoise = known.denoiser(self.network)

        monotonicity = self.network.monotonicity
        careful_tol = monotonicity / 4
        contraction = (1 - monotonicity) * (1 + careful_tol) + careful_tol

        def regularised(x: Tensor) -> Tensor:
            return x + fixed_weight * operator.normal(x)

        def inner(x: Tensor) -> Tensor:
            return regularised(x).to(narrow)  # maps of higher precision than the network return their own

        def precondition(r: Tensor) -> Tensor:
            return conjugate_gradient(inner, r.to(narrow), tol=INNER_TOL, verify=False).value

        def careful(r: Tensor) -> Tensor:
            return conjugate_gradient(inner, r.to(narrow), tol=careful_tol, verify=False).value

        def solve(residual: Callable[[Tensor], Tensor], first: Tensor, tol: float) -> Solution:
            with full_precision(first.device):
                return solve_fixed_point(
                    residual,
                    precondition,
                    first,
                    tol=tol,
                    max_steps=self.max_steps,
                    monotonicity=monotonicity,
                    contraction=contraction,
                    window=self.window,
                    careful=careful,
                    rounding=rounding,
                )

        right_side = _adjoint(operator, kspace.detach(), wide) / scale
        rounding = torch.full_like(known.noise_level.detach(), self.network.rounding(narrow.to_real()))
        if not self.refine:
            size = norm(right_side).clamp_min(torch.finfo(narrow).tiny)
            rounding = rounding * (1 + 2 * norm(fixed_weight * operator.normal(right_side)) / size)
        first = right_side if start is None else start.detach().to(wide) / scale
        right_side = fixed_weight * right_side
        solution = solve(lambda x: denoise(x.to(narrow)) + right_side - regularised(x), first, self.tol)
        value = solution.value.to(narrow)
        if not torch.is_grad_enabled():
            return solution.with_value(value * scale)

        root = value.requires_grad_()
        with full_precision(root.device):
            denoised = denoise(root)
        fixed = root.detach()
        misfit = operator.adjoint(kspace) / scale - operator.normal(fixed)
        residual = denoised + (weight * misfit).to(narrow) - fixed

        def solve_adjoint(grad: Tensor) -> Tensor:
            def adjoint_residual(w: Tensor) -> Tensor:
                (pulled,) = torch.autograd.grad(denoised, root, w.to(narrow), retain_graph=True)
                return grad + pulled - regularised(w)

            answer = solve(adjoint_residual, torch.zeros_like(grad, dtype=wide), self.backward_tol)
            report_backward(answer, on_backward, "MOL")
            return answer.value.to(narrow)

        return solution.with_value(implicit_gradient(fixed, residual, solve_adjoint) * scale)


def _all_finite(kspace: Tensor) -> bool:
    """Tell whether all entries are finite, without a copy: extremes propagate NaN."""
    extremes = torch.aminmax(torch.view_as_real(kspace.resolve_conj()))
    return bool(torch.isfinite(extremes.min) & torch.isfinite(extremes.max))


def _adjoint(operator: LinearOperator, kspace: Tensor, dtype: torch.dtype) -> Tensor:
    """Return A^H b in a precision that all of k-space is not copied to where that can be helped."""
    return operator.adjoint(kspace, dtype) if isinstance(operator, Sense) else operator.adjoint(kspace.to(dtype))
