"""A user's map in torchdeq: ours reaches the fixed point in the fewest evaluations, and training lowers the error."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from examples import torchdeq_map
from molrecon.solvers.torchdeq_solver import SAFEGUARDED_ANDERSON


def test_the_map_is_solved_and_trained(capsys: pytest.CaptureFixture[str]) -> None:
    table, errors = torchdeq_map.main(["--steps", "3"])
    assert "step 2: error" in capsys.readouterr().out
    ours, residual = table[SAFEGUARDED_ANDERSON]
    assert residual <= 1.01 * torchdeq_map.TOL
    assert ours < min(evaluations for name, (evaluations, _) in table.items() if name != SAFEGUARDED_ANDERSON) / 2
    assert errors == sorted(errors, reverse=True) and errors[0] > errors[-1]


def test_a_solve_that_failed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    kspace, operator, truth = torchdeq_map.scan()
    monkeypatch.setattr(torchdeq_map, "MOST", 2)
    with pytest.raises(FloatingPointError, match="torchdeq: 1 of 1 samples did not converge"):
        torchdeq_map.fit(torchdeq_map.LearnedMap(), operator.adjoint(kspace), operator, truth, 1)


def test_the_denoiser_contracts() -> None:
    denoise = torchdeq_map.SmoothedVariation(monotonicity=0.1)
    generator = torch.Generator().manual_seed(0)

    def draw() -> Tensor:
        return torch.randn(1, 9, 8, dtype=torch.complex128, generator=generator)

    for size in (1e-4, 1e-2, 1.0):
        x, y = draw(), draw()
        assert (denoise(x + size * y) - denoise(x)).norm() <= 0.9 * (size * y).norm()
