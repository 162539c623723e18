"""The Lipschitz penalty: its estimate is what it says, and training with it lowers the constant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from molrecon.networks import PlainNetwork
from molrecon.reconstructors.mol import MOL
from molrecon.simulation.strips import Problem, simulate_scan, strip_problem
from molrecon.training.lipschitz_penalty import BARRIER_WIDTH, log_barrier, stretch
from molrecon.training.loop import train
from molrecon.training.reconstruction_task import ReconstructionSettings, ReconstructionTask
from molrecon.training.train_settings import TrainSettings


def test_estimate_of_a_linear_map_is_its_norm() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(12, 12, dtype=torch.float64, generator=generator)
    image = torch.randn(3, 2, 6, dtype=torch.float64, generator=generator)
    direction = torch.randn(3, 2, 6, dtype=torch.float64, generator=generator)

    def denoise(x: torch.Tensor) -> torch.Tensor:
        return (x.flatten(1) @ matrix.T).reshape(x.shape)

    estimate, found = stretch(denoise, image, direction, steps=200)
    exact = torch.linalg.matrix_norm(matrix, ord=2)
    torch.testing.assert_close(estimate, exact.expand(3), rtol=1e-6, atol=0)
    again, _ = stretch(denoise, image, found, steps=0)
    torch.testing.assert_close(again, estimate)
    few, _ = stretch(denoise, image, direction, steps=1)
    assert (few <= exact * (1 + 1e-12)).all()


def test_barrier_grows_and_is_continuous() -> None:
    estimate = torch.linspace(0.5, 1.5, 2001, dtype=torch.float64).requires_grad_()
    value = log_barrier(estimate, 0.95)
    (slope,) = torch.autograd.grad(value.sum(), estimate)
    assert (slope > 0).all()
    value, estimate = value.detach(), estimate.detach()
    assert float(value.diff().max()) < 2 * 0.0005 / BARRIER_WIDTH
    inside = 0.95 - estimate > BARRIER_WIDTH
    torch.testing.assert_close(value[inside], -(0.95 - estimate[inside]).log())


def make_problem(rng: np.random.Generator, step: int = 0) -> Problem:
    del step
    image = np.zeros((32, 32), np.complex64)
    image[6:26, 8:24] = 1
    return strip_problem(simulate_scan(image, 32, rng, coils=4), 8, rng)


def test_penalty_lowers_the_constant(tmp_path: Path) -> None:
    def trained(penalty: float) -> float:
        model = MOL(PlainNetwork(monotonicity=0.2, layers=2, features=4, skip=True))
        with torch.no_grad():
            model.network.get_parameter("convolutions.1.weight").add_(0.3)
        settings = TrainSettings(steps=12, warmup=1, learning_rate=1e-2, ema=0.1)
        own = ReconstructionSettings(pool=1, visits=99, early_share=0, penalty=penalty)
        list(train(ReconstructionTask(model, make_problem, own), settings, tmp_path / str(penalty)))
        generator = torch.Generator().manual_seed(0)
        image = torch.rand(1, 2, 16, 16, generator=generator)
        denoise = model.network.denoiser(torch.tensor([0.01]))
        return float(stretch(denoise, image, image, steps=20)[0].detach())

    assert trained(1.0) < trained(0.0)
