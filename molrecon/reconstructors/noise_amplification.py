"""How much of the noise of a scan is in each pixel of its image: standard deviation and g-factor, without replicas.

responses = noise_responses(model, A, kspace, noise_level, image)      # J n for random n
deviation = noise_deviation(model, A, kspace, noise_level, image)      # sqrt(E |J n|^2), pixel by pixel
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.solvers.implicit import report_backward
from operators import LinearOperator, Sense, SoftSense

PROBES = 16


def noise_responses(
    model: Reconstructor,
    operator: Sense | SoftSense,
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
        model: a method with a `response`: MOL, CG-SENSE, zero-filling.
        operator: A.
        kspace: b (batch, coil, *spatial).
        noise_level: sigma, with `E|n|^2 = sigma^2` of every measured sample of every coil, a number or (batch,).
        image: x(b), as the model returned it.
        conditioning: of the scan; None: found by the model.
        probes: how many.
        generator: of the noise, or one for each sample; None: torch's own.

    Raises:
        ValueError: a method whose derivative is not known, fewer than one probe.
    """
    if probes < 1:
        raise ValueError(f"noise_responses: {probes} probes, expected at least one")
    conditioning = conditioning or model.condition(kspace, operator, noise_level)
    respond = model.response(operator, conditioning, image, kspace)
    if respond is None:
        raise ValueError(
            f"noise_responses: {type(model).__name__} does not tell the derivative of its image by the data, expected a"
            " method that does: MOL, CG-SENSE or zero-filling"
        )
    level = torch.as_tensor(noise_level, dtype=kspace.real.dtype, device=kspace.device)
    level = level.reshape(-1, *[1] * (kspace.ndim - 1))
    for _ in range(probes):
        solution = respond(operator.sampling(level * _noise_like(kspace, generator)))
        report_backward(solution, None, type(model).__name__)
        yield solution.value


def noise_deviation(
    model: Reconstructor,
    operator: Sense | SoftSense,
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


def acceleration(operator: LinearOperator) -> Tensor:
    """Return R (batch or 1,): all samples of the grid over the measured ones."""
    if not isinstance(operator, Sense | SoftSense):
        raise TypeError(f"acceleration: operator is {type(operator).__name__}, expected Sense or SoftSense")
    measured: Tensor = 1 / operator.sampling_mask.flatten(1).to(torch.float64).mean(1)
    return measured
