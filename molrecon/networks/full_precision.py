"""Convolutions in the full precision of their numbers, whatever torch's global flags allow.

On CUDA torch lets convolutions round float32 to TF32, ten bits, unless it is told otherwise, and on processors to
bfloat16, where it is told so (`torch.set_float32_matmul_precision("medium")`). An equilibrium is found to the rounding
of its network over m: with TF32 that is 2^-10 / m.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Let convolutions on a CUDA device or processor use all bits of float32 inside; elsewhere this does nothing.

    The flags are torch's, one set for the whole process: other threads compute in full precision meanwhile, too. The
    caller's settings come back when the last of the threads that are inside leaves.

    Args:
        device: of the tensors.
    """
    if device.type not in ("cuda", "cpu"):
        yield
        return
    _FLAGS.enter()
    try:
        yield
    finally:
        _FLAGS.leave()


@final
class _Flags:
    """cuDNN's TF32 flags, held down while anyone is inside.

    torch 2.9 brought `fp32_precision` for each kind of operation beside `allow_tf32` for all of them, and refuses to
    read the old one while the two disagree. So the new ones decide where they exist, and the old one is set to agree
    where it can be read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._allowed: bool | None = None
        self._precisions: list[str] = []

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._precisions = [operation.fp32_precision for operation in _operations()]
                self._allowed = _allow_tf32()
                if self._allowed is not None:
                    torch.backends.cudnn.allow_tf32 = False
                for operation in _operations():
                    operation.fp32_precision = "ieee"
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                if self._allowed is not None:
                    torch.backends.cudnn.allow_tf32 = self._allowed
                for operation, precision in zip(_operations(), self._precisions, strict=True):
                    operation.fp32_precision = precision


def _operations() -> list[Any]:
    """Return what has a flag of its own: convolutions, and recurrences, without which the old flag disagrees.

    On processors some convolutions are products of matrices.
    """
    cudnn: Any = torch.backends.cudnn
    mkldnn: Any = torch.backends.mkldnn
    found = [cudnn.conv, cudnn.rnn] if hasattr(cudnn, "conv") else []
    return found + ([mkldnn.conv, mkldnn.matmul] if hasattr(mkldnn, "conv") else [])


def _allow_tf32() -> bool | None:
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:  # the caller has set the new flags to what the old flag cannot express
        return None


_FLAGS = _Flags()
