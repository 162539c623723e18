"""The derivative of a network along a direction, by forward-mode differentiation."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad


@torch.no_grad()
def derivative(function: Callable[[Tensor], Tensor], at: Tensor, change: Tensor) -> Tensor:
    """Return `J dx` of a function at x, real or complex, linear in dx over the real numbers.

    It costs a few evaluations of the function and keeps nothing.
    """
    with forward_ad.dual_level():
        with warnings.catch_warnings():  # on its first use torch warns of a function that it calls itself
            warnings.filterwarnings("ignore", r"`torch.jit.script`", DeprecationWarning)
            moved = forward_ad.make_dual(at, change)
        value, tangent = forward_ad.unpack_dual(function(moved))
    return torch.zeros_like(value) if tangent is None else tangent
