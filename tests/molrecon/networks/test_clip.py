"""The clip of the residual layers: its values, its gradients, and the order of numbers in memory that makes it fast."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from molrecon.networks import ResidualNetwork
from molrecon.networks.clip import Clip

SHAPES = {
    "a threshold a feature": ((2, 5, 1, 1), (2, 5, 7, 6)),
    "guided": ((2, 5, 7, 6), (2, 5, 7, 6)),
    "3D": ((1, 5, 4, 7, 6), (1, 5, 4, 7, 6)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_clip_is_the_clip(shapes: tuple[tuple[int, ...], tuple[int, ...]], dtype: torch.dtype) -> None:
    threshold, u = torch.rand(shapes[0], dtype=dtype), torch.randn(shapes[1], dtype=dtype)
    wanted = torch.minimum(torch.maximum(u, -threshold), threshold)
    assert torch.equal(Clip(threshold)(u.clone()), wanted)


def test_gradients_are_those_of_the_clip() -> None:
    threshold = torch.rand(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    u = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u, t: Clip(t)(u), (u, threshold))


def test_features_that_a_graph_needs_stay() -> None:
    u, threshold = torch.randn(1, 2, 4, 4), torch.rand(1, 2, 4, 4, requires_grad=True)
    kept = u.clone()
    Clip(threshold)(u)
    assert torch.equal(u, kept)


def test_thresholds_of_a_guide_lie_as_the_features_do() -> None:
    network = ResidualNetwork(features=6, levels=3, guide_channels=2).eval()
    with torch.no_grad():
        denoise = network.denoiser(torch.tensor([0.01]), torch.rand(1, 2, 24, 20))
        with _Clamps() as clamps:
            denoise(torch.randn(1, 2, 24, 20))
    assert len(clamps.operands) == 2 * 5
    for operands in clamps.operands:
        assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in operands)


class _Clamps(TorchDispatchMode):
    """Notes the tensors that are clamped, and the bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.operands: list[list[Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "clamp" in func.name():
            self.operands.append([tensor for tensor in args if isinstance(tensor, Tensor)])
        return func(*args, **(kwargs or {}))
