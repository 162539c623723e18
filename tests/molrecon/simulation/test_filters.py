"""Filters that scanners lay over k-space."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from molrecon.simulation import scan as simulation
from molrecon.simulation.filters import KSpaceFilter, draw_filter
from molrecon.simulation.scan import simulate, strip
from operators import centred_fft, noise_level_estimates


@pytest.mark.parametrize("disc", [True, False])
def test_window_falls_from_one_to_the_floor(disc: bool) -> None:
    window = KSpaceFilter(0.3, 0.9, 0.1, disc).window((40, 64))
    assert window.shape == (40, 64)
    assert window[20, 32] == 1 and window[20, 32 + 9] == 1
    assert torch.allclose(window[0], torch.tensor(0.1)) and torch.allclose(window[:, 0], torch.tensor(0.1))
    along = window[20, 32:]
    assert bool((along.diff() <= 0).all())
    corner = window[20 + 10, 32 + 16]  # half way along both axes
    assert corner < window[20, 32 + 16] if disc else torch.isclose(corner, window[20, 32 + 16])


def test_images_are_filtered_in_k_space() -> None:
    images = torch.randn(3, 24, 20, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    kspace_filter = KSpaceFilter(0.1, 0.7, 0.05, True)
    filtered = centred_fft(kspace_filter(images), (-2, -1))
    assert torch.allclose(filtered, centred_fft(images, (-2, -1)) * kspace_filter.window((24, 20)), atol=1e-5)


def test_most_scans_are_not_filtered() -> None:
    drawn = [draw_filter(np.random.default_rng(seed)) for seed in range(400)]
    filters = [one for one in drawn if one is not None]
    assert 24 <= len(filters) <= 72
    assert all(0.02 <= one.floor <= 0.5 and one.start < one.stop for one in filters)


def test_noise_of_a_filtered_scan_is_named_as_it_is_in_the_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "draw_filter", lambda rng: KSpaceFilter(0.2, 0.8, 0.05, False))
    monkeypatch.setattr(simulation, "draw_noise_level", lambda rng: 0.02)
    monkeypatch.setattr(simulation, "image_noise_level", lambda image: 0.0)  # edges alone, and no noise
    rows, cols = np.mgrid[-1:1:160j, -1:1:144j]
    head = ((rows / 0.8) ** 2 + (cols / 0.7) ** 2 < 1).astype(np.float32)
    problem = strip(simulate(head, np.random.default_rng(3)), 10**6, np.random.default_rng(0))
    assert float(problem.noise_level) == pytest.approx(0.02)
    assert float(noise_level_estimates(problem.kspace, problem.operator.sampling_mask).periphery) < 0.3 * 0.02
