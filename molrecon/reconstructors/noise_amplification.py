"""How much of the noise of a scan is in each pixel of its image: standard deviation and g-factor, without replicas.

responses = noise_responses(model, A, kspace, noise_level, image)      # J n for random n
deviation = noise_deviation(model, A, kspace, noise_level, image)      # sqrt(E |J n|^2), pixel by pixel
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor

from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.solvers.implicit import report_backward
from operators import LinearOperator, NonCartesianSense, Sense, SoftSense, WeightedSense

PROBES = 16
Acquisition = Sense | SoftSense | NonCartesianSense | WeightedSense


def noise_responses(
    model: Reconstructor,
    operator: Acquisition,
    kspace: Tensor,
    noise_level: float | Tensor,
    image: Tensor,
    *,
    conditioning: Conditioning | None = None,
    probes: int = PROBES,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> Iterator[Tensor]:
    """Yield `J n` (batch, *spatial) for `probes` draws of the scan's own noise n, J the derivative of the image by b.

    To first order the image of `b + n` is `x(b) + J n` (`Reconstructor.response`): each draw costs one linear solve at
    the image that is there already, and stands for the reconstruction of another replica of the scan.

    Args:
        model: a method with a `response`: MOL, unrolled networks, CG-SENSE, zero-filling.
        operator: A, on the grid or on a trajectory. Of a weighted acquisition n is `W^(1/2)` times the noise of the
            samples, as b is of the samples.
        kspace: b (batch, coil, *spatial), or (batch, coil, *samples) on a trajectory.
        noise_level: sigma, with `E|n|^2 = sigma^2` of every measured sample of every coil before it is weighted, a
            number or (batch,).
        image: x(b), as the model returned it.
        conditioning: of the scan; None: found by the model.
        probes: how many.
        generator: of the noise, or one for each sample; None: torch's own.

    Raises:
        TypeError: an operator of no acquisition of these kinds.
        ValueError: a method whose derivative is not known, fewer than one probe.
    """
    operator = _acquisition("noise_responses", operator)
    if probes < 1:
        raise ValueError(f"noise_responses: {probes} probes, expected at least one")
    level = torch.as_tensor(noise_level, dtype=kspace.real.dtype, device=kspace.device)
    if conditioning is None:
        white = level if not isinstance(operator, WeightedSense) else level * operator.noise_gain.to(level)
        conditioning = model.condition(kspace, operator, white)
    respond = model.response(operator, conditioning, image, kspace)
    if respond is None:
        raise ValueError(
            f"noise_responses: {type(model).__name__} does not tell the derivative of its image by the data, expected a"
            " method that does, as does the one that guides it: MOL, an unrolled network, CG-SENSE, zero-filling"
        )
    level = level.reshape(-1, *[1] * (kspace.ndim - 1))
    for _ in range(probes):
        solution = respond(_measured(operator, level * _noise_like(kspace, generator)))
        report_backward(solution, None, type(model).__name__)
        yield solution.value


def noise_deviation(
    model: Reconstructor,
    operator: Acquisition,
    kspace: Tensor,
    noise_level: float | Tensor,
    image: Tensor,
    *,
    conditioning: Conditioning | None = None,
    probes: int = PROBES,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> Tensor:
    """Return the standard deviation of each pixel, `sqrt(E |J n|^2)` (batch, *spatial), in the units of the image.

    It is that of the complex image, like sigma; that of its magnitude is `1 / sqrt(2)` of it where the noise is alike
    in real and imaginary part. With N probes it is off by some `1 / (2 sqrt(N))` of itself.

    Arguments and errors: see `noise_responses`.
    """
    total = torch.zeros_like(image.real)
    for response in noise_responses(
        model,
        operator,
        kspace,
        noise_level,
        image,
        conditioning=conditioning,
        probes=probes,
        generator=generator,
    ):
        total += response.abs().square()
    return (total / probes).sqrt()


def _noise_like(kspace: Tensor, generator: torch.Generator | Sequence[torch.Generator] | None) -> Tensor:
    if generator is None or isinstance(generator, torch.Generator):
        noise = torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator)
    else:
        noise = torch.stack([torch.randn(kspace.shape[1:], dtype=kspace.dtype, generator=one) for one in generator])
    return noise.to(kspace.device)


def _measured(operator: Acquisition, noise: Tensor) -> Tensor:
    """Return what noise of samples becomes in the data: none is where none was measured, weights weigh it."""
    if isinstance(operator, Sense | SoftSense):
        return operator.sampling(noise)
    return operator.weigh(noise) if isinstance(operator, WeightedSense) else noise


def acceleration(operator: LinearOperator) -> Tensor:
    """Return R (batch or 1,): all samples of the grid over the measured ones.

    On a trajectory it is the pixels of the image over the samples, whether they are of a readout that was sampled more
    densely or of many readouts: `sigma sqrt(R)` is the noise of as many samples spread evenly over k-space.

    Raises:
        TypeError: an operator of no acquisition.
    """
    acquisition = _acquisition("acceleration", operator)
    if isinstance(acquisition, Sense | SoftSense):
        measured: Tensor = 1 / acquisition.sampling_mask.flatten(1).to(torch.float64).mean(1)
        return measured
    plain = acquisition.operator if isinstance(acquisition, WeightedSense) else acquisition
    return torch.tensor([prod(plain.spatial) / prod(plain.encoding.samples)], dtype=torch.float64)


def _acquisition(who: str, operator: LinearOperator) -> Acquisition:
    """Return the operator. Raises TypeError where it is of another kind."""
    if isinstance(operator, Acquisition):
        return operator
    raise TypeError(
        f"{who}: operator is {type(operator).__name__}, expected Sense, SoftSense, NonCartesianSense or WeightedSense"
    )
