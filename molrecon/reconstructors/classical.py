"""Reconstructions without training, for comparison: zero-filled, CG-SENSE and L1-wavelet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.certificate import Certificate, certificate
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.reconstructors.defaults import CG_REGULARISATION, L1_REGULARISATION
from molrecon.reconstructors.robustness_bounds import data_robustness_bound
from molrecon.solvers.batched import norm
from molrecon.solvers.conjugate_gradient import solve_hermitian
from molrecon.solvers.solution import Solution, unbounded_solution
from molrecon.solvers.solver_settings import SolverSettings
from operators import LinearOperator, Sense
from operators.coil_chunks import CHUNK_BYTES

CG_SETTINGS = SolverSettings(tol=1e-3, max_steps=200, backward_tol=1e-3)
CONVERGED_CHANGE = 1e-3  # relative change of the last FISTA step at which L1-wavelet counts as converged


@final
class ZeroFilled(Reconstructor):
    """`A^H b`: the coil combination with unmeasured samples left at zero."""

    takes_sets = True

    def change_bound(
        self, conditioning: Conditioning | None, operator: LinearOperator, change: Tensor
    ) -> Tensor | None:
        """Return `|A^H d|`: the method is linear, so that this is the change itself."""
        return norm(operator.adjoint(change))

    def response(
        self, operator: LinearOperator, conditioning: Conditioning | None, image: Tensor, kspace: Tensor
    ) -> Callable[[Tensor], Solution]:
        """Return the method itself, which is linear."""
        return partial(self, operator=operator)

    def _solve(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        conditioning: Conditioning | None,
        start: Tensor | None,
        solver: SolverSettings | None,
    ) -> Solution:
        return unbounded_solution(operator.adjoint(kspace))


@final
class CGSense(Reconstructor):
    """Tikhonov-regularised SENSE, `argmin_x |A x - b|^2 + mu |x|^2 = (A^H A + mu)^-1 A^H b`, by conjugate gradients.

    Args:
        regularisation: mu, positive; A has norm at most 1 for maps with `sum_c |s_c|^2 <= 1`.
        solver: goal and limit of the iterations where a call does not say them; a goal of 0 runs all of them.

    The image is the equilibrium of `x + A^H (A x - b) / mu`, with H = 0: m = 1 and lambda = 1 / mu. Its certificate
    says so, and `error_bound = |(A^H A + mu) x - A^H b| / (mu |x|)` is certified.

    Raises:
        ValueError: a weight that is not positive.

    Reference: Pruessmann, Weiger, Boernert, Boesiger, Magn Reson Med 46, 2001.
    """

    takes_sets = True
    solver: SolverSettings

    def __init__(self, regularisation: float = CG_REGULARISATION, *, solver: SolverSettings = CG_SETTINGS) -> None:
        super().__init__()
        if not regularisation > 0:
            raise ValueError(f"CGSense: regularisation is {regularisation}, expected a positive number")
        self.regularisation = regularisation
        self.solver = solver

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"regularisation": self.regularisation, "solver": self.solver}

    def certificate(self) -> Certificate:
        """Return m = 1 and q = 0: at lambda = 1 / mu one exact inner solve is the answer."""
        return certificate(0.0, certified=True)

    def change_bound(
        self, conditioning: Conditioning | None, operator: LinearOperator, change: Tensor
    ) -> Tensor | None:
        """Return `min(|d| / (2 sqrt(mu)), |A^H d| / mu)`."""
        ratio = norm(change).new_full((len(change),), 1 / self.regularisation)
        return data_robustness_bound(ratio, operator, change)

    def response(
        self, operator: LinearOperator, conditioning: Conditioning | None, image: Tensor, kspace: Tensor
    ) -> Callable[[Tensor], Solution]:
        """Return the method itself, which is linear."""
        return partial(self, operator=operator)

    def _solve(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        conditioning: Conditioning | None,
        start: Tensor | None,
        solver: SolverSettings | None,
    ) -> Solution:
        settings = solver or self.solver
        if settings.on_step is not None:
            raise ValueError("CGSense: got on_step, expected None: rows are solved by themselves, each with its steps")
        right_side = operator.adjoint(kspace)
        # Squares of data in other units than usual would leave the range of single precision.
        size = right_side.detach().abs().flatten(1).amax(1)
        size = torch.where(size > 0, size, torch.ones_like(size)).reshape(-1, *[1] * (right_side.ndim - 1))
        solution = self._by_rows(kspace, operator, right_side / size, settings)
        solution = replace(solution, value=solution.value * size)
        if not settings.keep_residual:
            return solution
        value = solution.value.detach()
        left = right_side.detach() - operator.normal(value) - self.regularisation * value
        return replace(solution, last_residual=left)

    def _by_rows(
        self, kspace: Tensor, operator: LinearOperator, right_side: Tensor, settings: SolverSettings
    ) -> Solution:
        if not isinstance(operator, Sense) or operator.chunk_axis != 1 or right_side.ndim < 3:
            return self._minimiser(operator, right_side, settings)
        # Positions along a fully sampled readout are independent systems: a few at a time stay in cache through all
        # the iterations, and each has its own step sizes.
        rows = right_side.shape[1]
        count = max(1, CHUNK_BYTES // (right_side[0, 0].numel() * kspace.shape[1] * kspace.element_size()))
        chunks = []
        for row in range(0, rows, count):
            stop = min(row + count, rows)
            chunks.append(
                self._minimiser(
                    operator.decoupled(row, stop, len(right_side)), right_side[:, row:stop].flatten(0, 1), settings
                )
            )
        return self._joined(chunks, right_side)

    def _minimiser(self, operator: LinearOperator, right_side: Tensor, settings: SolverSettings) -> Solution:
        solution = solve_hermitian(
            lambda x: operator.normal(x) + self.regularisation * x,
            right_side,
            # |A^H b| <= (1 + mu) |x| for |A| <= 1, so that this residual leaves an error of at most tol |x|.
            tol=settings.tol * self.regularisation / (1 + self.regularisation),
            max_steps=settings.max_steps,
            smallest_eigenvalue=self.regularisation,
            on_backward=settings.on_backward,
        )
        return solution.with_kind("certified")

    def _joined(self, chunks: list[Solution], like: Tensor) -> Solution:
        """Return one Solution of whole images from those of their rows: residuals add up in squares."""
        batch = len(like)
        value = torch.cat([p.value.unflatten(0, (batch, -1)) for p in chunks], dim=1)
        steps = max(len(p.residuals) for p in chunks)
        squares = torch.zeros(steps, batch, dtype=like.real.dtype, device=like.device)
        for chunk in chunks:
            sizes = (chunk.residuals * norm(chunk.value.detach())).square().unflatten(1, (batch, -1)).sum(-1)
            squares += torch.cat([sizes, sizes[-1:].expand(steps - len(sizes), -1)])
        residuals = squares.sqrt() / norm(value.detach()).clamp_min(torch.finfo(like.real.dtype).tiny)
        return Solution(
            value=value,
            error_bound=residuals[-1],
            residuals=residuals,
            converged=torch.stack([p.converged.unflatten(0, (batch, -1)).all(1) for p in chunks]).all(0),
            n_steps=torch.stack([p.n_steps.unflatten(0, (batch, -1)).amax(1) for p in chunks]).amax(0),
            kind="certified",
        )


@final
class L1Wavelet(Reconstructor):
    """Sparsity in an orthonormal wavelet basis, `argmin_x 1/2 |A x - b|^2 + mu |W x|_1`, by sigpy's FISTA.

    Args:
        regularisation: mu relative to the largest magnitude of `A^H b`.
        max_steps: FISTA iterations.
        wavelet: name of the wavelet, as PyWavelets knows it.

    The last iterate is returned. No error bound is known; `residuals` is the relative change of the last step.

    Raises:
        TypeError: operators other than `Sense`.
        ValueError: a weight that is not positive; operators with axes that are not Fourier transformed.

    Reference: Lustig, Donoho, Pauly, Magn Reson Med 58, 2007; sigpy.mri.app.L1WaveletRecon.
    """

    def __init__(
        self, regularisation: float = L1_REGULARISATION, *, max_steps: int = 100, wavelet: str = "db4"
    ) -> None:
        super().__init__()
        if not regularisation > 0:
            raise ValueError(f"L1Wavelet: regularisation is {regularisation}, expected a positive number")
        self.regularisation = regularisation
        self.max_steps = max_steps
        self.wavelet = wavelet

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"regularisation": self.regularisation, "max_steps": self.max_steps, "wavelet": self.wavelet}

    def _solve(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        conditioning: Conditioning | None,
        start: Tensor | None,
        solver: SolverSettings | None,
    ) -> Solution:
        if not isinstance(operator, Sense):
            raise TypeError(f"L1Wavelet: operator is {type(operator).__name__}, expected Sense")
        if operator.encoding.fourier_ndim != operator.encoding.ndim:
            raise ValueError("L1Wavelet: the operator has axes that are not Fourier transformed, expected none")
        zero = operator.adjoint(kspace)
        batch = len(kspace)
        maps = operator.sensitivity_maps.expand(batch, *operator.sensitivity_maps.shape[1:])
        mask = operator.sampling_mask.expand(batch, *zero.shape[1:])
        images, changes = [], []
        for b, s, m, z in zip(kspace, maps, mask, zero, strict=True):
            image, changed = self._one(b.cpu().numpy(), s.cpu().numpy(), m.cpu().numpy(), float(z.abs().amax()))
            images.append(image)
            changes.append(changed)
        value = torch.from_numpy(np.stack(images)).to(kspace)
        change = torch.tensor(changes, device=kspace.device)
        return Solution(
            value=value,
            error_bound=torch.full((batch,), torch.nan, device=kspace.device),
            residuals=change[None],
            converged=change <= CONVERGED_CHANGE,
            n_steps=torch.full((batch,), self.max_steps, device=kspace.device),
            kind="none",
        )

    def _one(self, kspace: np.ndarray, maps: np.ndarray, mask: np.ndarray, scale: float) -> tuple[np.ndarray, float]:
        from sigpy.mri.app import L1WaveletRecon

        largest = float((np.abs(maps) ** 2).sum(0).max())
        if scale == 0 or largest == 0:
            return np.zeros(maps.shape[1:], maps.dtype), 0.0
        # Orthonormal transforms: the step 1 / |S|^2 is safe, and sigpy need not estimate one with global randomness.
        recon = L1WaveletRecon(
            kspace,
            maps,
            self.regularisation * scale,
            weights=np.ascontiguousarray(mask, dtype=np.float32)[None],
            wave_name=self.wavelet,
            alpha=1 / largest,
            max_iter=self.max_steps,
            show_pbar=False,
        )
        image = recon.run()
        return image, float(recon.alg.resid) / largest / max(float(np.linalg.norm(image)), 1e-30)
