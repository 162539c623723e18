"""Sparse codes: the lasso by ISTA and FISTA, and the error of codes in dB.

minimise f(x) = 1/2 |b - D x|^2 + mu |x|_1        D (m, n), m < n, `operators.Dense`
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from molrecon.solvers.batched import dot
from molrecon.solvers.solution import Solution
from operators import Dense

CHECK_EVERY = 10  # iterations between two looks at the duality gap, which costs another product with D and D^T
NORM_MARGIN = 1e-10  # of a singular value computed in float64


def soft_threshold(values: Tensor, threshold: Tensor | float) -> Tensor:
    """Return `sign(v) max(|v| - threshold, 0)`, the proximal map of `threshold |.|_1`; real."""
    return values - values.clamp(-threshold, threshold)  # type: ignore[arg-type]  # tensors or numbers, both alike


def squared_norm(operator: Dense) -> float:
    """Return an upper bound of `|D|^2`, the Lipschitz constant of the gradient of `1/2 |b - D x|^2`.

    The largest singular value in float64, up to rounding; the Frobenius norm would be up to sqrt(m) times larger, and
    the steps as much shorter.
    """
    return float(torch.linalg.matrix_norm(operator.phi.detach().double(), 2)) ** 2 * (1 + NORM_MARGIN)


def lasso_objective(codes: Tensor, measurements: Tensor, operator: Dense, regularisation: float) -> Tensor:
    """Return f(x) of each sample, (batch,)."""
    residual = measurements - operator(codes)
    return 0.5 * dot(residual, residual) + regularisation * codes.abs().sum(1)


def duality_gap(codes: Tensor, measurements: Tensor, operator: Dense, regularisation: float) -> Tensor:
    """Return an upper bound of `(f(x) - f*) / (1/2 |b|^2)` of each sample, (batch,): 0 at an optimum.

    The dual point is the residual, scaled so that `|D^T u|_inf <= mu`; the dual objective there,
    `1/2 |b|^2 - 1/2 |b - u|^2`, is at most f*.
    """
    residual = measurements - operator(codes)
    largest = operator.adjoint(residual).abs().amax(1)
    dual = residual * (regularisation / largest.clamp_min(regularisation))[:, None]
    energy = 0.5 * dot(measurements, measurements)
    missed = measurements - dual
    bound = 0.5 * dot(residual, residual) + regularisation * codes.abs().sum(1) - energy + 0.5 * dot(missed, missed)
    return bound.clamp_min(0) / energy.clamp_min(torch.finfo(energy.dtype).tiny)


@dataclass
class _Iterates:
    """x_k, the point z_k that the next gradient is taken at, and FISTA's t_k (batch,)."""

    code: Tensor
    point: Tensor
    inertia: Tensor

    def of(self, chosen: Tensor) -> _Iterates:
        return _Iterates(self.code[chosen], self.point[chosen], self.inertia[chosen])


class _ProximalGradient:
    """The part that ISTA and FISTA share; they differ in whether there is momentum."""

    _accelerated: bool

    def __init__(self, regularisation: float, *, tol: float = 1e-10, max_steps: int = 100_000) -> None:
        if not regularisation > 0:
            raise ValueError(f"{type(self).__name__}: regularisation is {regularisation}, expected a positive number")
        self.regularisation = regularisation
        self.tol = tol
        self.max_steps = max_steps

    @torch.no_grad()
    def stages(self, measurements: Tensor, operator: Dense) -> Iterator[Tensor]:
        """Yield x_1, x_2, ... (batch, n) without end, from x_0 = 0."""
        self._check(measurements)
        state, step = self._start(measurements, operator), 1 / squared_norm(operator)
        while True:
            state = self._next(state, measurements, operator, step)
            yield state.code

    @torch.no_grad()
    def __call__(self, measurements: Tensor, operator: Dense) -> Solution:
        """Return the codes (batch, n) of measurements b (batch, m), real.

        A sample is finished when its duality gap (see `duality_gap`) and the relative change of its last step are both
        at most `tol`; it is looked at every 10 steps and then left alone. `residuals` holds the gaps at those looks,
        (looks, batch), and `duality_gap` the last of them. They bound the objective, and `|D (x - x*)|^2` by
        `gap |b|^2`; the distance of codes has no such bound where D has more columns than rows.

        Raises:
            TypeError: complex measurements.
        """
        self._check(measurements)
        step = 1 / squared_norm(operator)
        state = self._start(measurements, operator)
        value, gaps = state.code.clone(), [duality_gap(state.code, measurements, operator, self.regularisation)]
        n_steps = torch.zeros(len(value), dtype=torch.long, device=value.device)
        left = torch.arange(len(value), device=value.device)
        for done in range(0, self.max_steps, CHECK_EVERY):
            if not len(left):
                break
            count = min(CHECK_EVERY, self.max_steps - done)
            for _ in range(count):
                before = state.code
                state = self._next(state, measurements[left], operator, step)
            value[left], n_steps[left] = state.code, done + count
            gap = duality_gap(state.code, measurements[left], operator, self.regularisation)
            gaps.append(gaps[-1].index_copy(0, left, gap))
            change = (state.code - before).norm(dim=1)
            moving = (gap > self.tol) | (change > self.tol * state.code.norm(dim=1))
            left, state = left[moving], state.of(moving)
        converged = torch.ones_like(n_steps, dtype=torch.bool)
        converged[left] = False
        unknown = torch.full_like(gaps[-1], torch.nan)
        return Solution(value, unknown, torch.stack(gaps), converged, n_steps, kind="none", duality_gap=gaps[-1])

    def _check(self, measurements: Tensor) -> None:
        if measurements.is_complex():
            raise TypeError(
                f"{type(self).__name__}: measurements have dtype {measurements.dtype}, expected real numbers"
            )

    def _start(self, measurements: Tensor, operator: Dense) -> _Iterates:
        code = torch.zeros_like(operator.adjoint(measurements))
        return _Iterates(code, code, code.new_ones(len(code)))

    def _next(self, state: _Iterates, measurements: Tensor, operator: Dense, step: float) -> _Iterates:
        gradient = operator.adjoint(operator(state.point) - measurements)
        code = soft_threshold(state.point - step * gradient, step * self.regularisation)
        if not self._accelerated:
            return _Iterates(code, code, state.inertia)
        # Momentum that points uphill is dropped, by sample.
        restart = dot(state.point - code, code - state.code) > 0
        inertia = torch.where(restart, torch.ones_like(state.inertia), state.inertia)
        grown = 0.5 + (0.25 + inertia.square()).sqrt()
        momentum = torch.where(restart, torch.zeros_like(inertia), (inertia - 1) / grown)
        return _Iterates(code, code + momentum[:, None] * (code - state.code), grown)


@final
class ISTA(_ProximalGradient):
    """Iterative shrinkage, `x_{k+1} = soft(x_k + D^T (b - D x_k) / L, mu / L)` with `L = |D|^2`.

    Args:
        regularisation: mu.
        tol: see `__call__`; in float64 1e-10 is attainable, in float32 about 1e-6.
        max_steps: iterations at most.

    Raises:
        ValueError: mu that is not positive.

    Reference: Daubechies, Defrise, De Mol, Comm Pure Appl Math 57, 2004.
    """

    _accelerated = False


@final
class FISTA(_ProximalGradient):
    """ISTA with Nesterov's momentum, restarted by sample whenever it points against the step (gradient scheme).

    Arguments and errors: as of ISTA.

    References: Beck, Teboulle, SIAM J Imaging Sci 2, 2009; O'Donoghue, Candes, Found Comput Math 15, 2015 (restart).
    """

    _accelerated = True


def pooled_nmse_db(codes: Tensor, reference: Tensor) -> float:
    """Return `10 log10(sum |x - x*|^2 / sum |x*|^2)`, the sums over all samples and entries: the hardest samples count.

    Raises:
        ValueError: a reference of zeros.
    """
    error, energy = (float(x.detach().double().square().sum()) for x in (codes - reference, reference))
    if not energy > 0:
        raise ValueError("pooled_nmse_db: reference of zeros, expected codes")
    return 10 * math.log10(max(error, np.finfo(np.float64).tiny) / energy)


def mean_nmse_db(codes: Tensor, reference: Tensor) -> float:
    """Return the mean over samples of `10 log10(|x - x*|^2 / |x*|^2)`: every sample counts the same.

    At most the pooled one where samples have equal norms, by Jensen's inequality. Samples of zeros are left out.

    Raises:
        ValueError: a reference of zeros.
    """
    error, energy = (x.detach().double().square().sum(1) for x in (codes - reference, reference))
    kept = energy > 0
    if not bool(kept.any()):
        raise ValueError("mean_nmse_db: reference of zeros, expected codes")
    tiny = torch.finfo(energy.dtype).tiny
    return float((10 * (error[kept] / energy[kept]).clamp_min(tiny).log10()).mean())


@torch.no_grad()
def nmse_by_layer(stages: Iterator[Tensor], reference: Tensor, layers: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (pooled, mean of dB), each (layers,), of the codes that `stages` yields; see `pooled_nmse_db`."""
    curves: Sequence[tuple[float, float]] = [
        (pooled_nmse_db(codes, reference), mean_nmse_db(codes, reference)) for codes in itertools.islice(stages, layers)
    ]
    return np.array([pooled for pooled, _ in curves]), np.array([mean for _, mean in curves])
