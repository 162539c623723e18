"""Small random networks of every certified kind, for property tests."""

from __future__ import annotations

import numpy as np
import torch

from molrecon.networks import Denoiser, ResidualNetwork, SpectralNetwork
from molrecon.networks.convolution import Padding

KINDS = ("spectral", "potential", "sll", "separable potential", "separable sll")


def draw_network(rng: np.random.Generator, ndim: int) -> Denoiser:
    """Return a certified network in evaluation mode, float32, with random raw weights far from those it starts with.

    Args:
        rng: the only source of randomness.
        ndim: 2 or 3; with 3 the kernels may be separable and the first axis may be left out of the pyramid.
    """
    return build_network(rng, ndim, str(rng.choice(KINDS if ndim == 3 else KINDS[:3])))


def build_network(rng: np.random.Generator, ndim: int, kind: str) -> Denoiser:
    """Return a random network of one of `KINDS`."""
    monotonicity = float(10 ** rng.uniform(-2, -0.3))
    padding: Padding = "zeros" if rng.random() < 0.5 else "circular"
    kernel_size = int(rng.choice([1, 3, 5] if ndim == 2 else [1, 3, 3]))
    seed = int(rng.integers(2**31))
    network: Denoiser
    if kind == "spectral":
        network = SpectralNetwork(
            monotonicity=monotonicity,
            layers=int(rng.integers(2, 5)),
            features=int(rng.integers(1, 8)),
            kernel_size=kernel_size,
            ndim=ndim,
            padding=padding,
            seed=seed,
        )
    else:
        network = ResidualNetwork(
            monotonicity=monotonicity,
            channels=int(rng.integers(2, 5)),
            features=int(rng.integers(1, 8)),
            levels=int(rng.integers(1, 4)),
            cycles=int(rng.integers(1, 3)),
            kernel_size=kernel_size,
            ndim=ndim,
            padding=padding,
            layer="sll" if kind.endswith("sll") else "potential",
            separable=kind.startswith("separable"),
            pyramid_axes=(1, 2) if ndim == 3 and rng.random() < 0.5 else None,
            seed=seed,
        )
    generator = torch.Generator().manual_seed(seed)
    spread = float(10 ** rng.uniform(-2, 0.5))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            size = {"log_threshold": 2.0, "noise_power": 0.3, "log_q": 1.0, "bias": 0.05}.get(name, spread)
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return network.eval()
