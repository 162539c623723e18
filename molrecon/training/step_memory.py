"""The memory of one training step, measured."""

from __future__ import annotations

import ctypes
import ctypes.util
import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.conditioning import Conditioning
from operators import LinearOperator

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def training_memory(
    model: Reconstructor, kspace: Tensor, operator: LinearOperator, conditioning: Conditioning
) -> int | None:
    """Return the bytes that one training step, forward and backward, needs beside model and data at its peak.

    The model is used as it is: tolerances, `max_steps` or `n_unrolls` decide how far it iterates. It is left without
    gradients, in the mode that it was in.

    Args:
        model: the reconstructor, on the device of the data.
        kspace: (batch, coil, *spatial) complex.
        operator: the acquisition.
        conditioning: the conditioning, whose making is not counted.

    Returns:
        See `peak_growth`.
    """
    training = model.training
    model.train()

    def step() -> None:
        # Whether the gradient met its tolerance is of no interest here.
        solver = None if model.solver is None else replace(model.solver, on_backward=lambda answer: None)
        image = model(kspace, operator, conditioning=conditioning, solver=solver).value
        image.abs().square().mean().backward()

    model.zero_grad()
    try:
        return peak_growth(step, kspace.device)
    finally:
        model.zero_grad()
        model.train(training)


def peak_growth(run: Callable[[], object], device: torch.device) -> int | None:
    """Return by how many bytes the memory in use grows at most while `run` runs.

    On CUDA that of torch's allocator on the device. On the CPU the resident set of this process (Linux only; None
    elsewhere), after memory that was freed before has been given back: without that, `run` would use it for nothing.
    Code that is loaded and buffers that are kept at a first call count, so measure the second one.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if not CLEAR.exists():
        return None
    _give_back()
    CLEAR.write_text("5", encoding="ascii")  # the peak begins at what is resident now
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _give_back() -> None:
    library = ctypes.util.find_library("c")
    trim = getattr(ctypes.CDLL(library), "malloc_trim", None) if library else None
    if trim is not None:
        trim(0)


def _status(key: str) -> int:
    """Return a size of this process in bytes."""
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
