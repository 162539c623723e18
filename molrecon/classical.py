"""Reconstructions without training, for comparison: zero-filled, CG-SENSE and L1-wavelet."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from torch import Tensor

from molrecon.batched import norm
from molrecon.conjugate_gradient import solve_hermitian
from molrecon.defaults import CG_REGULARISATION, L1_REGULARISATION
from molrecon.solution import Solution
from operators import LinearOperator, Sense
from operators.sense import CHUNK_BYTES

CONVERGED_CHANGE = 1e-3  # relative change of the last FISTA step at which L1-wavelet counts as converged


def zero_filled(kspace: Tensor, operator: LinearOperator) -> Tensor:
    """Return `A^H b`, (batch, *spatial) complex: the coil combination with unmeasured samples left at zero."""
    return operator.adjoint(kspace)


@final
class CGSense:
    """Tikhonov-regularised SENSE, `argmin_x |A x - b|^2 + mu |x|^2 = (A^H A + mu)^-1 A^H b`, by conjugate gradients.

    Args:
        regularisation: mu, positive; A has norm at most 1 for maps with `sum_c |s_c|^2 <= 1`.
        tol: relative residual of the normal equations at which a sample is finished; 0 runs all the iterations.
        max_steps: iterations at most.

    Reference: Pruessmann, Weiger, Boernert, Boesiger, Magn Reson Med 46, 2001.
    """

    def __init__(self, regularisation: float = CG_REGULARISATION, *, tol: float = 1e-5, max_steps: int = 200) -> None:
        if not regularisation > 0:
            raise ValueError(f"CGSense: regularisation is {regularisation}, expected a positive number")
        self.regularisation = regularisation
        self.tol = tol
        self.max_steps = max_steps

    def __call__(self, kspace: Tensor, operator: LinearOperator) -> Solution:
        """Return the minimiser, differentiable; `error_bound = |(A^H A + mu) x - A^H b| / (mu |x|)`.

        Args:
            kspace: b (batch, coil, *spatial) complex.
            operator: the acquisition A.
        """
        right_side = operator.adjoint(kspace)
        if not isinstance(operator, Sense) or operator.chunk_axis != 1 or right_side.ndim < 3:
            return self._solve(operator, right_side)
        # Positions along a fully sampled readout are independent systems: a few at a time stay in cache through all
        # the iterations, and each has its own step sizes.
        rows = right_side.shape[1]
        count = max(1, CHUNK_BYTES // (right_side[0, 0].numel() * kspace.shape[1] * kspace.element_size()))
        parts = []
        for start in range(0, rows, count):
            stop = min(start + count, rows)
            parts.append(
                self._solve(operator.decoupled(start, stop, len(right_side)), right_side[:, start:stop].flatten(0, 1))
            )
        return self._joined(parts, right_side)

    def _solve(self, operator: LinearOperator, right_side: Tensor) -> Solution:
        return solve_hermitian(
            lambda x: operator.normal(x) + self.regularisation * x,
            right_side,
            tol=self.tol,
            max_steps=self.max_steps,
            smallest_eigenvalue=self.regularisation,
        )

    def _joined(self, parts: list[Solution], like: Tensor) -> Solution:
        """Return one Solution of whole images from those of their rows: residuals add up in squares."""
        batch = len(like)
        value = torch.cat([p.value.unflatten(0, (batch, -1)) for p in parts], dim=1)
        steps = max(len(p.residuals) for p in parts)
        squares = torch.zeros(steps, batch, dtype=like.real.dtype, device=like.device)
        for part in parts:
            sizes = (part.residuals * norm(part.value.detach())).square().unflatten(1, (batch, -1)).sum(-1)
            squares += torch.cat([sizes, sizes[-1:].expand(steps - len(sizes), -1)])
        residuals = squares.sqrt() / norm(value.detach()).clamp_min(torch.finfo(like.real.dtype).tiny)
        return Solution(
            value=value,
            error_bound=residuals[-1],
            residuals=residuals,
            converged=torch.stack([p.converged.unflatten(0, (batch, -1)).all(1) for p in parts]).all(0),
            n_steps=torch.stack([p.n_steps.unflatten(0, (batch, -1)).amax(1) for p in parts]).amax(0),
        )


@final
class L1Wavelet:
    """Sparsity in an orthonormal wavelet basis, `argmin_x 1/2 |A x - b|^2 + mu |W x|_1`, by sigpy's FISTA.

    Args:
        regularisation: mu relative to the largest magnitude of `A^H b`.
        max_steps: FISTA iterations.
        wavelet: name of the wavelet, as PyWavelets knows it.

    Reference: Lustig, Donoho, Pauly, Magn Reson Med 58, 2007; sigpy.mri.app.L1WaveletRecon.
    """

    def __init__(
        self, regularisation: float = L1_REGULARISATION, *, max_steps: int = 100, wavelet: str = "db4"
    ) -> None:
        if not regularisation > 0:
            raise ValueError(f"L1Wavelet: regularisation is {regularisation}, expected a positive number")
        self.regularisation = regularisation
        self.max_steps = max_steps
        self.wavelet = wavelet

    def __call__(self, kspace: Tensor, operator: Sense) -> Solution:
        """Return the last iterate of each sample. No error bound is known: it is infinite.

        Args:
            kspace: b (batch, coil, *spatial) complex.
            operator: the acquisition A, Cartesian.

        Raises:
            TypeError: operators other than Sense.
        """
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
            image, change = self._one(b.cpu().numpy(), s.cpu().numpy(), m.cpu().numpy(), float(z.abs().amax()))
            images.append(image)
            changes.append(change)
        value = torch.from_numpy(np.stack(images)).to(kspace)
        return Solution(
            value=value,
            error_bound=torch.full((batch,), torch.inf),
            residuals=torch.full((1, batch), torch.inf),
            converged=torch.tensor(changes) <= CONVERGED_CHANGE,
            n_steps=torch.full((batch,), self.max_steps),
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
