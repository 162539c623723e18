"""The tolerance of the default model: no pixel of the image would move by a tenth of the noise if it went further."""

from __future__ import annotations

from dataclasses import replace

import torch

from molrecon.reconstructors.defaults import DEFAULT_MODEL
from molrecon.reconstructors.mol import MOL
from molrecon.simulation.sample import sample_image, sample_maps
from molrecon.solvers.solver_settings import IMAGE_TOL
from molrecon.weights import load
from operators import Sense, random_mask

SIGMA, ROWS = 0.01, slice(92, 124)


@torch.no_grad()
def test_going_on_changes_no_pixel_by_a_tenth_of_the_noise() -> None:
    model = load(DEFAULT_MODEL, MOL)
    assert model.solver.tol == IMAGE_TOL
    image, maps = (torch.from_numpy(part[..., ROWS, :]) for part in (sample_image(1), sample_maps(1)))
    combined = torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    operator = Sense(maps / combined, torch.from_numpy(random_mask(200, 4, 0.12, 0))[None, None])
    kspace = operator(image * combined[:, 0])
    noise = torch.randn(kspace.shape, dtype=kspace.dtype, generator=torch.Generator().manual_seed(0))
    kspace = operator.sampling(kspace + SIGMA * noise)
    found = model(kspace, operator, SIGMA)
    further = model(kspace, operator, SIGMA, solver=replace(model.solver, tol=IMAGE_TOL / 5))
    assert found.converged.all() and further.converged.all() and found.kind == "certified"
    assert (found.n_steps < further.n_steps).all()
    assert float((found.value.abs() - further.value.abs()).abs().max()) < SIGMA / 10
