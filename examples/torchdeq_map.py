"""A MOL map of your own, solved in torchdeq by `safeguarded_anderson`: its fixed point, and its gradient for training.

    python examples/torchdeq_map.py [--steps N]

The map is one step of forward-backward splitting, `T(x) = (I + lambda A^H A)^-1 (H(x) + lambda A^H b)`: any denoiser H,
and the data term solved by conjugate gradients, which autograd differentiates as the inverse that they are. torchdeq
finds its fixed point and its implicit gradient. What torchdeq leaves to you:

    ift=True             the default gradient is that of a single step
    f_stop_mode="rel"    its default tolerance is in the units of the image
    info["solution"]     torchdeq is silent when a solve fails: `shortfall()` says it in words
    backward_writer      the same for the gradient's linear system

Printed are the evaluations of the map that torchdeq's own solvers and ours need until the residual is 1e-6 of the
image, and a few steps of training of H and lambda on a simulated head of one slice.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchdeq import get_deq

from molrecon.simulation.phantom import coil_maps, phantom_volume
from molrecon.solvers.conjugate_gradient import solve_hermitian
from molrecon.solvers.torchdeq_solver import SAFEGUARDED_ANDERSON
from operators import Sense, random_mask

SHAPE, COILS, NOISE = (32, 28), 4, 0.02
TOL, BACKWARD_TOL, INNER_TOL, MOST = 1e-6, 1e-2, 1e-8, 200
SOLVERS = ("fixed_point_iter", "anderson", SAFEGUARDED_ANDERSON)


class SmoothedVariation(nn.Module):
    """`H(x) = (1 - m)(x - R^T e tanh(R x / e))`: a gradient step of a smoothed total variation with learned filters R.

    |R| is at most the sum of the filters' magnitudes, which is divided out, so `H / (1 - m)` never expands distances.
    """

    def __init__(self, features: int = 8, monotonicity: float = 0.05) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.filters = nn.Parameter(torch.randn(features, 2, 3, 3, dtype=torch.float64, generator=generator))
        self.log_edge = nn.Parameter(torch.tensor(-5.0, dtype=torch.float64))
        self.monotonicity = monotonicity

    def forward(self, x: Tensor) -> Tensor:
        """Return H of complex images (batch, rows, cols)."""
        channels = torch.view_as_real(x).movedim(-1, 1)
        filters, edge = self.filters / self.filters.abs().sum(), self.log_edge.exp()
        features = edge * torch.tanh(nn.functional.conv2d(channels, filters, padding=1) / edge)
        channels = channels - nn.functional.conv_transpose2d(features, filters, padding=1)
        return (1 - self.monotonicity) * torch.view_as_complex(channels.movedim(1, -1).contiguous())


class LearnedMap(nn.Module):
    """The map of one scan's b and A, with lambda and H to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.denoise = SmoothedVariation()
        self.log_weight = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        self.evaluations = 0

    def map(self, zero_filled: Tensor, operator: Sense) -> Callable[[Tensor], Tensor]:
        """Return T for `A^H b` (batch, rows, cols) complex."""
        weight = self.log_weight.exp()

        def regularised(x: Tensor) -> Tensor:
            return x + weight * operator.normal(x)

        def step(x: Tensor) -> Tensor:
            self.evaluations += 1
            return solve_hermitian(regularised, self.denoise(x) + weight * zero_filled, tol=INNER_TOL).value

        return step


def scan() -> tuple[Tensor, Sense, Tensor]:
    """Return k-space (1, coil, rows, cols), its operator and the true image (1, rows, cols) of half the columns."""
    truth = torch.from_numpy(phantom_volume(1, SHAPE)).to(torch.complex128)
    maps = torch.from_numpy(coil_maps(1, COILS, SHAPE)).to(torch.complex128)
    maps = maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    operator = Sense(maps, torch.from_numpy(random_mask(SHAPE[1], 2, 0.16, 0))[None, None])
    noise = torch.randn(maps.shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    return operator(truth) + NOISE * operator.sampling_mask * noise, operator, truth


def compare(model: LearnedMap, zero_filled: Tensor, operator: Sense) -> dict[str, tuple[int, float]]:
    """Return, for each solver, the evaluations of the map and the residual that was reached, relative to the image."""
    table = {}
    with torch.no_grad():
        step = model.map(zero_filled, operator)
        for name in SOLVERS:
            model.evaluations = 0
            deq = get_deq(f_solver=name, f_tol=TOL, f_max_iter=MOST, f_stop_mode="rel").eval()
            # torchdeq's own solvers want real numbers: their Gram matrices are unconjugated.
            (value,), _ = deq(lambda x: torch.view_as_real(step(torch.view_as_complex(x))), real(zero_filled))
            image = torch.view_as_complex(value.contiguous())
            evaluations = model.evaluations
            table[name] = evaluations, float((step(image) - image).norm() / image.norm())
    return table


def real(image: Tensor) -> Tensor:
    """Return real and imaginary parts on a last axis of two."""
    return torch.view_as_real(image).contiguous()


def fit(model: LearnedMap, zero_filled: Tensor, operator: Sense, truth: Tensor, steps: int) -> list[float]:
    """Train on one scan and return the relative error before every step.

    Raises:
        FloatingPointError: a fixed point, or the linear system of a gradient, was not found.
    """
    deq = get_deq(
        ift=True,
        f_solver=SAFEGUARDED_ANDERSON,
        b_solver=SAFEGUARDED_ANDERSON,
        f_stop_mode="rel",
        b_stop_mode="rel",
        f_tol=TOL,
        b_tol=BACKWARD_TOL,
        f_max_iter=MOST,
        b_max_iter=MOST,
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    errors = []
    image = zero_filled
    for _ in range(steps):
        (image,), info = deq(model.map(zero_filled, operator), image.detach(), backward_writer=insist)
        insist(info)
        error = (image - truth).norm() / truth.norm()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        errors.append(float(error.detach()))
    return errors


def insist(info: dict[str, Any]) -> None:
    """Raise FloatingPointError when a solve of torchdeq did not converge."""
    if shortfall := info["solution"].shortfall():
        raise FloatingPointError(f"torchdeq: {shortfall}")


def main(argv: Sequence[str] | None = None) -> tuple[dict[str, tuple[int, float]], list[float]]:
    """Compare the solvers, train, and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, metavar="N", help="of training (default: %(default)s)")
    steps = parser.parse_args(argv).steps
    kspace, operator, truth = scan()
    zero_filled = operator.adjoint(kspace)
    model = LearnedMap()
    table = compare(model, zero_filled, operator)
    for name, (evaluations, residual) in table.items():
        print(f"{name:<20} {evaluations:4d} evaluations, residual {residual:.1e}")
    print(f"zero-filled: error {float((zero_filled - truth).norm() / truth.norm()):.4f}")
    errors = fit(model, zero_filled, operator, truth, steps)
    for number, error in enumerate(errors):
        print(f"step {number}: error {error:.4f}")
    return table, errors


if __name__ == "__main__":
    main()
