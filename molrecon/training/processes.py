"""Training in several processes, by plain torch.distributed: what they have to agree on."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


@contextmanager
def process_group(device: torch.device | str) -> Iterator[torch.device]:
    """Join the other processes that torchrun started, if it did, and give the device of this one.

    GPUs talk through NCCL and process number i of a machine gets cuda:i, whatever number `device` has; processors talk
    through gloo. Without torchrun's WORLD_SIZE in the environment, or with 1, nothing happens.

    Args:
        device: as asked for.
    """
    device = torch.device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def together() -> bool:
    """Tell whether there are other processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Return the number of this process, 0 when it is alone."""
    return dist.get_rank() if together() else 0


def process_count() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if together() else 1


def share_weights(model: nn.Module) -> None:
    """Give every process the weights of process 0."""
    if together():
        for value in model.state_dict().values():
            shared = value.contiguous()
            dist.broadcast(shared, 0)
            value.copy_(shared)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes; a parameter that one of them did not use counts as 0.

    One all-reduce of all of them in a row: a message's latency is paid once.
    """
    if not together():
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= process_count()
    for parameter, mean in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
        parameter.grad = mean.view_as(parameter).to(parameter.dtype, copy=True)


def share_number(value: float, device: torch.device) -> float:
    """Return the number of process 0."""
    if not together():
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(shared, 0)
    return float(shared)


def gather_states(state: dict[str, Any], device: torch.device) -> list[dict[str, Any]]:
    """Return the states of all processes, in their order, on every one of them; tensors as torch.load brings them.

    States travel as the bytes of torch.save and are read with `weights_only`, padded to the longest.
    """
    if not together():
        return [state]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    own = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8).to(device)
    lengths = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(process_count())]
    dist.all_gather(lengths, torch.tensor([len(own)], device=device))
    longest = max(int(length) for length in lengths)
    buffers = [torch.zeros(longest, dtype=torch.uint8, device=device) for _ in lengths]
    dist.all_gather(buffers, torch.cat([own, own.new_zeros(longest - len(own))]))
    stored = [buffer[: int(n)].cpu().numpy().tobytes() for buffer, n in zip(buffers, lengths, strict=True)]
    return [torch.load(io.BytesIO(data), weights_only=True, map_location=device) for data in stored]
