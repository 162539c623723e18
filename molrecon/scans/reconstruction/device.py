"""A model on a device, and the caller's own left where it is."""

from __future__ import annotations

import copy

import torch

from molrecon.reconstructors.base import Reconstructor


def on_device(model: Reconstructor, device: torch.device | str) -> Reconstructor:
    """Return the model if all of it is on the device, else a copy there: the caller's own stays where it is."""
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    return model if devices <= {_with_index(device)} else copy.deepcopy(model).to(device)


def _with_index(device: torch.device | str) -> torch.device:
    """Return the device, "cuda" with the number of the current GPU, as tensors name it."""
    device = torch.device(device)
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device
