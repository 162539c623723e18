"""The plain network's tempering: reshaped kernels of norm 1 at most, and no promise."""

from __future__ import annotations

import torch

from molrecon.networks import PlainNetwork


def test_spectral_projection() -> None:
    network = PlainNetwork(layers=3, features=5, spectral=True, seed=4)
    free = PlainNetwork(layers=3, features=5, seed=4)
    with torch.no_grad():
        for convolution in (*network.convolutions, *free.convolutions):
            convolution.get_parameter("weight").mul_(3)
        network.convolutions[2].get_parameter("weight").mul_(0.01)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.project()
    norms = [torch.linalg.matrix_norm(c.get_parameter("weight").flatten(1), 2) for c in network.convolutions]
    torch.testing.assert_close(torch.stack(norms[:2]), torch.ones(2))
    after = network.state_dict()
    for key in ("convolutions.2.weight", "convolutions.0.bias"):
        assert torch.equal(after[key], before[key])
    first = "convolutions.0.weight"
    torch.testing.assert_close(after[first] / after[first].norm(), before[first] / before[first].norm())
    kept = {key: value.clone() for key, value in free.state_dict().items()}
    free.project()
    assert all(torch.equal(value, kept[key]) for key, value in free.state_dict().items())
    assert not network.certified
    assert network.settings()["spectral"] is True
