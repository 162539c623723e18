"""Unrolled proximal gradient: `x_{k+1} = base_k + N_k(inputs_k)`, with inputs and base from a GDM or GIN data step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from molrecon.networks.denoiser import from_channels, to_channels
from molrecon.reconstructors.unrolled import Disturb
from molrecon.sensing.gradient import DataStep
from operators import LinearOperator


@final
@dataclass(frozen=True)
class Refinement:
    """What a host's network makes of its inputs.

    Attributes:
        change: (batch, channels, rows, cols), added to the base of the stage.
        carry: what the next stage of the host gets besides the image; None where a host has no such thing.
        penalty: a scalar that training adds to the loss; None in evaluation, and for hosts without one.
    """

    change: Tensor
    carry: Tensor | None = None
    penalty: Tensor | None = None


class Host(nn.Module, ABC):
    """The networks of all stages of one published architecture, without their data steps.

    Attributes:
        n_stages: number of stages.
        channels: of the image, 1 for real and 2 for complex images.
        copies: images among the inputs, 1 for GDM and 2 for GIN.
        whole_image: whether the network sees the whole image; else every block is reconstructed apart.
    """

    n_stages: int
    channels: int
    copies: int
    whole_image: bool

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments besides the seed."""
        return {"channels": self.channels, "copies": self.copies, "n_stages": self.n_stages}

    def begin(self, image: Tensor, share: Tensor) -> Tensor | None:
        """Return the carry of the first stage.

        Args:
            image: x_0 as channels (batch, channels, rows, cols).
            share: (batch, 1), measured numbers over pixels.
        """
        return None

    @abstractmethod
    def refine(self, stage: int, inputs: Tensor, carry: Tensor | None) -> Refinement:
        """Return the network's answer at stage k (from 0) to inputs (batch, copies * channels, rows, cols)."""


@final
@dataclass(frozen=True)
class Stage:
    """One finished stage: its image x_{k+1}, the base its network added to, and the host's penalty."""

    image: Tensor
    base: Tensor
    penalty: Tensor | None


@final
class Unrolled(nn.Module):
    """The reconstructor of a host and a data step: `model(measurements, A)`, any linear operator A.

    Complex images are two channels to the host, and what a step does to an image it does to both.

    Args:
        host: the stages' networks, built for as many copies of the image as the data step gives.
        data_step: GDM or GIN for as many stages.
        repeats: how often all stages are run in turn; a host of one stage that is run K times is a network of K stages
            with shared weights.

    Shapes: measurements as A returns them, image (batch, rows, cols) as A takes it, real for hosts of one channel and
    complex for hosts of two. Intensities should be of order 1.

    Raises:
        ValueError: `repeats` that is not positive.
        TypeError: a complex image for a host of one channel, a real one for a host of two.
    """

    def __init__(self, host: Host, data_step: DataStep, repeats: int = 1) -> None:
        super().__init__()
        if repeats < 1:
            raise ValueError(f"Unrolled: got repeats {repeats}, expected a positive number")
        self.host = host
        self.data_step = data_step
        self.repeats = repeats
        # Convolutions of 32 channels took half the time on a processor so. It changes strides, not numbers.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"host": self.host, "data_step": self.data_step, "repeats": self.repeats}

    def forward(self, measurements: Tensor, operator: LinearOperator, start: Tensor | None = None) -> Tensor:
        """Return the image after the last stage.

        Args:
            measurements: b.
            operator: A.
            start: x_0; `A^H b` when None.
        """
        *_, last = self.stages(measurements, operator, start)
        return last.image

    def stages(
        self,
        measurements: Tensor,
        operator: LinearOperator,
        start: Tensor | None = None,
        *,
        disturb: Disturb | None = None,
        mixed: bool = False,
    ) -> Iterator[Stage]:
        """Yield the stages in turn.

        Args:
            measurements, operator, start: as of `forward`.
            disturb: (stage number from 1, its image) -> image, for all stages but the last; what it returns is what the
                next stage starts from, and the image of the stage that is yielded.
            mixed: compute the host's networks in bfloat16 by autocast, for training; images, gradients and the operator
                keep their precision.
        """
        back_projection = operator.adjoint(measurements)
        image = back_projection if start is None else start
        if image.is_complex() != (self.host.channels == 2):
            raise TypeError(
                f"Unrolled: image of dtype {image.dtype} for a host of {self.host.channels} channels, expected real"
                " images for 1 and complex images for 2"
            )
        share = measured_share(measurements, operator, image)
        carry = self.host.begin(_channels(image), share)
        order = list(range(self.host.n_stages)) * self.repeats
        for number, k in enumerate(order, 1):
            gradient = operator.normal(image) - back_projection
            inputs, base = self.data_step(k, _channels(image), _channels(gradient), share)
            with torch.autocast(image.device.type, torch.bfloat16, enabled=mixed):
                answer = self.host.refine(k, inputs, carry)
            carry = answer.carry
            image = _image(base + answer.change)
            if disturb is not None and number < len(order):
                image = disturb(number, image)
            yield Stage(image, _image(base), answer.penalty)


def last_image(stages: Iterable[Stage]) -> tuple[Tensor, Tensor]:
    """Return the image of the last stage and the sum of the penalties of all, zero where there are none."""
    *others, last = stages
    total = last.image.real.new_zeros(())
    for stage in (*others, last):
        if stage.penalty is not None:
            total = total + stage.penalty
    return last.image, total


def measured_share(measurements: Tensor, operator: LinearOperator, image: Tensor) -> Tensor:
    """Return the measured numbers over the pixels, (batch, 1): of a sampling mask its mean, else M / N."""
    mask = getattr(operator, "sampling_mask", None)
    if mask is None:
        return image.real.new_full((len(image), 1), measurements[0].numel() / image[0].numel())
    return mask.to(image.real.dtype).flatten(1).mean(1, keepdim=True).expand(len(image), 1)


def _channels(image: Tensor) -> Tensor:
    return to_channels(image) if image.is_complex() else image[:, None]


def _image(channels: Tensor) -> Tensor:
    return from_channels(channels) if channels.shape[1] == 2 else channels[:, 0]


def widened(weight: Tensor, channels: int, copies: int) -> Tensor:
    """Return a stage's first filters (features, inputs, rows, cols) with zeros for the copies 2, 3, .. of the image.

    The first copy has the first `channels` inputs; what a host has besides the image comes last. So a network with
    more inputs starts as the same function.
    """
    features, _, rows, cols = weight.shape
    extra = weight.new_zeros(features, (copies - 1) * channels, rows, cols)
    return torch.cat([weight[:, :channels], extra, weight[:, channels:]], 1)


def seeded_convolution(inputs: int, outputs: int, generator: torch.Generator) -> nn.Conv2d:
    """Return a 3x3 convolution with bias, zero padding, and torch's default initialisation from this generator."""
    convolution = nn.utils.skip_init(nn.Conv2d, inputs, outputs, 3, padding=1)
    bound = (9 * inputs) ** -0.5
    with torch.no_grad():
        for parameter in convolution.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return convolution
