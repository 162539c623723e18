"""Whether the layers of an unrolled network descend: layer by layer, on average and sample by sample.

    start, outputs = ...                                # y_0, and y_1 .. y_L of a network's `stages`
    found = check_descent(outputs, start, reference)
    found.layers_descending, found.samples_descending

What a check finds holds for the problems it was given. Past the depth L that a network was trained for, let it run
deeper (`n_layers`, `n_unrolls`, `repeats`) and check what follows: `check_descent(deep[L:], deep[L - 1], reference)`.
For perturbed measurements and images of another kind, the reference is the optimum of that problem, computed anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from molrecon.reconstructors.unrolled import Disturb
from molrecon.solvers.batched import norm, per_sample

REACHED = 1e-6  # distance from the reference, relative to its norm, at which a sample has reached it


@final
@dataclass(frozen=True)
class LayerNoise:
    """White Gaussian noise on what a layer hands to the next.

    Its standard deviation after layer l is `relative decay^(l-1)` times the root mean square of the sample's entries.

    Attributes:
        relative: after the first layer; 0 for no noise.
        decay: factor from layer to layer; 1 for a constant share.

    Raises:
        ValueError: a negative `relative`, or `decay` outside (0, 1].
    """

    relative: float
    decay: float = 1.0

    def __post_init__(self) -> None:
        if self.relative < 0 or not 0 < self.decay <= 1:
            raise ValueError(
                f"LayerNoise: got relative {self.relative} and decay {self.decay}, expected relative >= 0 and decay in"
                " (0, 1]"
            )

    def disturb(self, generator: torch.Generator) -> Disturb:
        """Return (layer number from 1, output (batch, ...)) -> noisy output, drawn from a generator on the CPU.

        The gradient goes to the output alone, not to the size of its noise. Complex outputs get complex noise.
        """

        def noisy(layer: int, output: Tensor) -> Tensor:
            entries = output[0].numel()
            size = norm(output.detach()) * (self.relative * self.decay ** (layer - 1) / entries**0.5)
            noise = torch.randn(output.shape, dtype=output.dtype, generator=generator).to(output.device)
            return output + per_sample(size, output) * noise

        return noisy


def layer_distances(outputs: Sequence[Tensor], start: Tensor, reference: Tensor) -> Tensor:
    """Return `|y_l - y*|` of each sample for l = 0, .., L, shape (batch, L + 1).

    Args:
        outputs: y_1, .., y_L, each (batch, ...), real or complex.
        start: y_0.
        reference: y*.

    Raises:
        ValueError: no outputs, or shapes that differ.
    """
    if not outputs or any(y.shape != reference.shape for y in (start, *outputs)):
        shapes = [tuple(y.shape) for y in (start, *outputs)]
        raise ValueError(
            f"layer_distances: start and outputs {shapes}, reference {tuple(reference.shape)}, expected an output or"
            " more, and one shape"
        )
    return torch.stack([norm(y - reference) for y in (start, *outputs)], 1)


def sample_ratios(outputs: Sequence[Tensor], start: Tensor, reference: Tensor) -> Tensor:
    """Return `|y_l - y*| / |y_{l-1} - y*|` of each sample for l = 1, .., L, shape (batch, L); arguments as above.

    A distance from which a layer starts counts as `1e-6 |y*|` where it is less: a sample that has reached its
    reference descends as long as it stays there.
    """
    distances = layer_distances(outputs, start, reference)
    floor = (REACHED * norm(reference)).clamp_min(torch.finfo(distances.dtype).tiny)
    return distances[:, 1:] / torch.maximum(distances[:, :-1], floor[:, None])


def distance_ratios(outputs: Sequence[Tensor], start: Tensor, reference: Tensor) -> Tensor:
    """Return `E[|y_l - y*| / |y_{l-1} - y*|]`, the mean of `sample_ratios` over the batch, shape (L,)."""
    return sample_ratios(outputs, start, reference).mean(0)


def gradient_norm_ratios(gradients: Sequence[Tensor], start: Tensor) -> Tensor:
    """Return `E|g_l| / E|g_{l-1}|` for l = 1, .., L, the means over the batch, shape (L,).

    Args:
        gradients: of the objective at y_1, .., y_L, each (batch, ...).
        start: at y_0.
    """
    means = torch.stack([norm(g).mean() for g in (start, *gradients)])
    return means[1:] / means[:-1].clamp_min(torch.finfo(means.dtype).tiny)


@final
@dataclass(frozen=True)
class DescentCheck:
    """What `check_descent` found.

    Attributes:
        mean_distances: mean over the samples of `|y_l - y*|`, l = 0, .., L.
        mean_ratios: mean over the samples of `|y_l - y*| / |y_{l-1} - y*|`, l = 1, .., L.
        layers_descending: share of the L layers whose mean ratio is below the threshold.
        samples_descending: share of all pairs of a layer and a sample whose own ratio is.
        always_descending: share of the samples for which every layer's ratio is.
        threshold: 1 is descent; `1 - epsilon` what a network was trained for.
    """

    mean_distances: tuple[float, ...]
    mean_ratios: tuple[float, ...]
    layers_descending: float
    samples_descending: float
    always_descending: float
    threshold: float


@torch.no_grad()
def check_descent(
    outputs: Sequence[Tensor], start: Tensor, reference: Tensor, *, threshold: float = 1.0
) -> DescentCheck:
    """Return how many layers and samples descend towards the reference.

    Args:
        outputs, start, reference: as of `layer_distances`.
        threshold: a ratio below it is a descent.

    Raises:
        ValueError: no outputs, shapes that differ, or a threshold that is not in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"check_descent: threshold {threshold}, expected a number in (0, 1]")
    distances, ratios = layer_distances(outputs, start, reference), sample_ratios(outputs, start, reference)
    return summarised(distances, ratios, threshold)


def summarised(distances: Tensor, ratios: Tensor, threshold: float = 1.0) -> DescentCheck:
    """Return the check of `layer_distances` (samples, L + 1) and `sample_ratios` (samples, L), of any batches."""
    descends = ratios < threshold
    return DescentCheck(
        tuple(distances.mean(0).tolist()),
        tuple(ratios.mean(0).tolist()),
        float((ratios.mean(0) < threshold).double().mean()),
        float(descends.double().mean()),
        float(descends.all(1).double().mean()),
        threshold,
    )
