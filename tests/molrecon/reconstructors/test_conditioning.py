"""What a model is told of a scan: noise and the error of the coil maps together."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from molrecon.io import read_npy
from molrecon.networks import ResidualNetwork
from molrecon.reconstructors.conditioning import NOISE_LIMITS, condition
from molrecon.reconstructors.mol import MOL
from molrecon.scans.comparison import Comparison, undersample
from molrecon.scans.preparation import prepare
from molrecon.weights import load
from operators import Sense, centred_fft, random_mask
from operators.model_error import coil_model_error


def test_the_error_of_the_maps_counts_as_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, 4, 24, 20, dtype=torch.complex64, generator=generator)
    maps = maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    operator = Sense(maps, torch.from_numpy(random_mask(20, 2, 0.4, 0)))
    kspace = operator(torch.ones(2, 24, 20, dtype=torch.complex64))
    error = coil_model_error(kspace, operator)
    assert bool((error > 0).all())
    for sigma in (0.0, 0.003, 0.02):
        conditioning = condition(kspace, operator, sigma)
        expected = torch.hypot(torch.full((2,), sigma), error) / conditioning.scale
        torch.testing.assert_close(conditioning.noise_level, expected.clamp(*NOISE_LIMITS))


@pytest.mark.skipif("MOLRECON_DATA" not in os.environ, reason="needs measured data (MOLRECON_DATA)")
def test_kspace_that_seems_free_of_noise_is_not_fitted_more_closely_than_the_maps_allow(tmp_path: Path) -> None:
    """The scanner filtered this scan: its noise is read off 18 times too low, and models lost 3 to 10 dB by it."""
    folder = Path(os.environ["MOLRECON_DATA"]) / "mri"
    with np.load(folder / "multicoil_brain_4ch_ge_coilimages_i16.npz") as stored:
        parts = stored[stored.files[0]].astype(np.float32)
    coils = torch.from_numpy(parts[:, 0] + 1j * parts[:, 1]) / np.abs(parts).max()
    np.save(tmp_path / "ge.npy", centred_fft(coils, (-2, -1)).numpy().astype(np.complex64))
    full = read_npy(tmp_path / "ge.npy")
    scan = prepare(undersample(full, random_mask(256, 4, 0.1, 0), 0.0, [0]))
    model = load("mol-brain-2d", MOL)  # which lost 3 to 4 dB; the guided model still loses 0.9
    rough = replace(model.solver, tol=1e-2)
    as_read = Comparison(scan, full).score("as read", model, solver=rough).score.psnr
    louder = Comparison(replace(scan, noise_level=8 * scan.noise_level), full)
    right = louder.score("right", model, solver=rough).score.psnr
    assert as_read > right - 0.5


def test_the_data_weight_of_nearly_noise_free_scans_is_limited() -> None:
    model = MOL(ResidualNetwork(channels=2, features=4, levels=1), data_weight=20.0)
    with torch.no_grad():
        model.log_data_weight[2] = 2.0  # a quadratic term, which runs away beyond the noise levels of training
    weights = model.data_weight(torch.tensor([5e-4, 0.01])).detach()
    torch.testing.assert_close(weights, torch.tensor([model.largest_data_weight, 20.0]))
