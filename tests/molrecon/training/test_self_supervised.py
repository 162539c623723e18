"""SSDU: the two parts of the measured samples, the loss between them, and that it teaches without references."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from molrecon.networks import PlainNetwork
from molrecon.reconstructors.modl import MoDL
from molrecon.simulation.strips import Problem, complex_noise, magnitude_psnr
from molrecon.training.self_supervised import normalised_l1_l2, split
from operators import Sense, random_mask
from operators.withholding import Choice

ROWS, COLS = 12, 64


def make_problem(masks: Tensor, seed: int = 0, noise_level: float = 0.01) -> Problem:
    """Return boxes seen by four coils, (batch, ROWS, COLS), with masks (batch or 1, rows or 1, cols)."""
    rng = np.random.default_rng(seed)
    batch = 3
    y, x = np.meshgrid(np.linspace(-1, 1, ROWS), np.linspace(-1, 1, COLS), indexing="ij")
    maps = np.stack([np.exp(-((x - a) ** 2) - (y - b) ** 2 + 1j * a * x) for a in (-0.8, 0.8) for b in (-0.8, 0.8)])
    maps /= np.linalg.norm(maps, axis=0)
    image = np.zeros((batch, ROWS, COLS), np.complex64)
    for one in image:
        for _ in range(5):
            left, width = rng.integers(6, 40), rng.integers(4, 18)
            one[1:-1, left : left + width] += rng.uniform(-0.3, 0.6)
    reference = torch.from_numpy(image)
    operator = Sense(torch.from_numpy(maps.astype(np.complex64))[None], masks)
    noise = noise_level * complex_noise((batch, 4, ROWS, COLS), rng)
    kspace = operator.sampling(operator(reference) + noise)
    return Problem(kspace, operator, reference, torch.full((batch,), noise_level))


def line_masks(count: int, acceleration: float = 3) -> Tensor:
    masks = [random_mask(COLS, acceleration, 0.13, seed) for seed in range(count)]
    return torch.from_numpy(np.stack(masks))[:, None]


def point_mask() -> Tensor:
    mask = torch.rand(3, ROWS, COLS, generator=torch.Generator().manual_seed(0)) < 0.3
    mask[:, ROWS // 2 - 3 : ROWS // 2 + 3, COLS // 2 - 3 : COLS // 2 + 3] = True
    return mask


@pytest.mark.parametrize("choice", ["uniform", "gaussian"])
@pytest.mark.parametrize("masks", [line_masks(1), line_masks(3), point_mask()], ids=["one", "lines", "points"])
def test_the_parts(masks: Tensor, choice: Choice) -> None:
    problem = make_problem(masks)
    given, _ = split(problem, np.random.default_rng(0), choice=choice)
    kept, whole = given.operator.sampling_mask, masks.expand(3, -1, -1)
    assert kept.shape == whole.shape  # lines stay lines
    chosen = whole & ~kept
    assert not (kept & ~whole).any()
    half = 4 if masks.shape[1] == 1 else 3
    centre = torch.zeros_like(whole)
    rows = slice(None) if masks.shape[1] == 1 else slice(ROWS // 2 - half, ROWS // 2 + half)
    centre[:, rows, COLS // 2 - half : COLS // 2 + half] = True
    assert (whole & centre).sum() == centre.sum() and not (chosen & centre).any()
    share = chosen.flatten(1).sum(1) / (whole & ~centre).flatten(1).sum(1)
    # The fully sampled centre may be a line wider by chance.
    assert ((share - 0.4).abs() < 0.12).all() and (share > 0).all()
    assert not torch.equal(chosen[0], chosen[1])
    sampled = kept[:, None].expand(given.kspace.shape)
    assert torch.equal(given.kspace[sampled], problem.kspace[sampled]) and not given.kspace[~sampled].any()


def test_gaussian_choice_prefers_the_centre() -> None:
    problem = make_problem(line_masks(3))
    distance = (torch.arange(COLS) - COLS // 2).abs().float()
    means = []
    for choice in ("uniform", "gaussian"):
        rng = np.random.default_rng(0)
        masks = [split(problem, rng, choice=choice)[0].operator.sampling_mask for _ in range(20)]
        chosen = torch.stack([problem.operator.sampling_mask & ~mask for mask in masks]).float()
        means.append(float((chosen * distance).sum() / chosen.sum()))
    assert means[1] < means[0] - 3


def test_volumes_and_time_frames() -> None:
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(np.stack([random_mask(COLS, 3, 0.1, seed) for seed in range(4)]))[None, :, None]
    maps = torch.randn(1, 2, 1, 6, COLS, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    operator = Sense(maps, frames, 2)
    kspace = operator(torch.ones(2, 4, 6, COLS, dtype=torch.complex64))
    given, loss = split(Problem(kspace, operator, torch.zeros(2, 4, 6, COLS), torch.ones(2)), rng)
    assert given.operator.sampling_mask.shape == (2, 4, 1, COLS)
    assert given.operator.sampling_mask[..., COLS // 2 - 3 : COLS // 2 + 3].all()
    assert float(loss(torch.ones(2, 4, 6, COLS, dtype=torch.complex64))) < 1e-5


def test_the_loss_needs_no_reference() -> None:
    problem = make_problem(line_masks(3))
    blind = replace(problem, reference=torch.full_like(problem.reference, complex(math.nan, math.nan)))
    results = []
    for one in (problem, blind):
        given, loss = split(one, np.random.default_rng(1))
        image = given.operator.adjoint(given.kspace).requires_grad_()
        value = loss(image)
        results.append((value, *torch.autograd.grad(value, image)))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    assert torch.isfinite(torch.view_as_real(results[0][1])).all()
    # Noise alone is left of the true image; none of it without noise.
    _, loss = split(make_problem(line_masks(3), noise_level=0.0), np.random.default_rng(1))
    assert float(loss(problem.reference)) < 1e-5 < float(results[0][0].detach())


def test_normalised_l1_l2() -> None:
    target = torch.tensor([[3j, 4.0], [0.0, 0.0]])
    kspace = torch.tensor([[3j, 0.0], [1.0, 0.0]])
    assert float(normalised_l1_l2(kspace, target)) == pytest.approx((4 / 5 + 4 / 7) / 2)


def test_bad_arguments() -> None:
    problem, rng = make_problem(line_masks(1)), np.random.default_rng(0)
    with pytest.raises(ValueError, match="share 1"):
        split(problem, rng, 1.0)
    for mask in (torch.ones(1, 1, COLS), torch.zeros(1, 1, COLS)):
        mask[..., COLS // 2] = 1
        with pytest.raises(ValueError, match="outside its fully sampled centre"):
            split(replace(problem, operator=Sense(problem.operator.sensitivity_maps, mask)), rng)


def test_it_teaches() -> None:
    problems = [make_problem(line_masks(3), seed) for seed in range(12)]
    train, held_out = problems[:8], problems[8:]
    blind = [replace(p, reference=torch.full_like(p.reference, complex(math.nan, math.nan))) for p in train]
    model = MoDL(PlainNetwork(layers=3, features=8, skip=True), n_unrolls=3)

    def answer(problem: Problem) -> Tensor:
        image: Tensor = model(problem.kspace, problem.operator, 0.01).value
        return image

    @torch.no_grad()
    def score() -> tuple[float, float]:
        found = [[magnitude_psnr(x, p.reference) for x in (p.operator.adjoint(p.kspace), answer(p))] for p in held_out]
        zero_filled, learned = np.mean(found, axis=0)
        return float(zero_filled), float(learned)

    _, before = score()
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(16):
        given, loss = split(blind[step % len(blind)], np.random.default_rng([0, step]))
        optimiser.zero_grad()
        loss(answer(given)).backward()
        optimiser.step()
    zero_filled, after = score()
    assert after > before + 1 and after > zero_filled + 3
