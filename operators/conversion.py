"""What `.to(dtype)` means for a module with complex tensors: their precision changes, never their kind."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Real, so that no conversion of them can lose an imaginary part, and of two precisions, so that one of them changes
# whatever precision is asked for.
_PROBES = (torch.float32, torch.float16)


def keeping_kind(convert: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the function that `nn.Module._apply` maps over tensors, made safe for complex ones.

    torch's own `module.to(torch.float64)` discards the imaginary part of complex buffers, `module.double()` leaves them
    in single precision, and `module.to(torch.complex128)` makes real buffers complex. Here each of the three, and
    whatever else changes a precision, gives complex128 for complex tensors, float64 for real ones, and leaves integers
    and masks as they are. bfloat16, which has no complex counterpart, gives complex64. Functions that change no
    precision (a move to another device, shared memory) are applied as they are.

    Raises:
        TypeError, when called: a precision that is neither floating nor complex.
    """

    def converted(tensor: Tensor) -> Tensor:
        probes = [convert(torch.empty(0, dtype=dtype, device=tensor.device)) for dtype in _PROBES]
        if all(probe.dtype == dtype for probe, dtype in zip(probes, _PROBES, strict=True)):
            return convert(tensor)
        requested, device = probes[0].dtype, probes[0].device
        if not (requested.is_floating_point or requested.is_complex):
            raise TypeError(f"LinearOperator: got {requested} to convert to, expected a floating or complex dtype")
        if tensor.is_complex():
            return tensor.to(device=device, dtype=requested.to_real().to_complex())
        return tensor.to(device=device, dtype=requested.to_real() if tensor.is_floating_point() else tensor.dtype)

    return converted
