"""GLOW-Prox: unrolled proximal gradient for inpainting, with a Glow flow in place of the proximal step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, nn

from molrecon.descent.glow import Glow
from molrecon.reconstructors.unrolled import Disturb
from operators import LinearOperator

STEP = 1.0  # of an untrained model: the known pixels are put back exactly
SHRINKAGE = 0.1  # tau of an untrained model


@final
class GlowProx(nn.Module):
    """L layers of proximal gradient descent on `|A x - b|^2 / 2`, each with a Glow flow of its own.

    Layer l: `r = x - s_l A^H (A x - b)`, `z = f_l(r)`, `x = f_l^-1(z / (1 + tau_l))`. The shrinkage is the proximal map
    of `tau_l |z|^2 / 2`, the negative log density of the latents, and as such one of the latents: in the image it is
    a proximal map only where f_l is an isometry. s_l in (0, 2) and tau_l > 0, one of each latent channel, are learned
    with the flows; nothing is shared between layers.

    The network is not told which pixels are known: holes start at exactly zero. Nothing is guaranteed about the result.

    Args:
        channels: 1 for grey images (batch, rows, cols), more for images (batch, channels, rows, cols).
        n_layers: L.
        levels, blocks, features: of each flow, see `Glow`.
        seed: of the initial weights.

    Shapes: image as A takes it, real, of order 1, rows and cols multiples of 2^levels; measurements as A gives them.

    Raises:
        ValueError: arguments that are not positive, images that do not fit.
        TypeError: complex images.

    Source: Wei, van Gorp, Gonzalez Carabarin, Freedman, Eldar, van Sloun, IEEE TSP 2022, arXiv:2107.02848; and Hadou,
    NaderiAlizadeh, Ribeiro, IEEE TSP 2024, arXiv:2312.15788.
    """

    def __init__(
        self,
        *,
        channels: int = 1,
        n_layers: int = 5,
        levels: int = 3,
        blocks: int = 4,
        features: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"GlowProx: got n_layers {n_layers}, expected a positive number")
        self._settings = {
            "channels": channels,
            "n_layers": n_layers,
            "levels": levels,
            "blocks": blocks,
            "features": features,
        }
        seeds = torch.randint(2**31, (n_layers,), generator=torch.Generator().manual_seed(seed)).tolist()
        self.flows = nn.ModuleList(
            Glow(channels, levels=levels, blocks=blocks, features=features, seed=one) for one in seeds
        )
        self.step_logit = nn.Parameter(torch.full((n_layers,), math.log(STEP / (2 - STEP))))
        self.log_tau = nn.ParameterList(
            nn.Parameter(torch.full((n_layers, count), math.log(SHRINKAGE))) for count in self._flow(0).latent_channels
        )

    def settings(self) -> dict[str, int]:
        """Return the constructor's arguments besides the seed."""
        return dict(self._settings)

    @property
    def n_layers(self) -> int:
        """The number L of layers."""
        return len(self.flows)

    @property
    def step(self) -> Tensor:
        """The steps s_l of the layers, (L,)."""
        return 2 * self.step_logit.sigmoid()

    def forward(self, measurements: Tensor, operator: LinearOperator, start: Tensor | None = None) -> Tensor:
        """Return the image after the last layer. Arguments as of `stages`."""
        *_, image = self.stages(measurements, operator, start)
        return image

    def stages(
        self,
        measurements: Tensor,
        operator: LinearOperator,
        start: Tensor | None = None,
        disturb: Disturb | None = None,
    ) -> Iterator[Tensor]:
        """Yield the images y_1 .. y_L after each layer.

        Args:
            measurements: b.
            operator: A, with |A| <= 1, such as `operators.Inpainting`.
            start: y_0; `A^H b` when None.
            disturb: (l, y_l) -> image, applied to what the layers 1 .. L-1 give before the next uses it; what is
                yielded is the disturbed image.
        """
        back_projection = operator.adjoint(measurements)
        image = back_projection if start is None else start
        for layer in range(self.n_layers):
            image = self.refine(layer, self.descend(layer, image, back_projection, operator))
            if disturb is not None and layer < self.n_layers - 1:
                image = disturb(layer + 1, image)
            yield image

    def descend(self, layer: int, image: Tensor, back_projection: Tensor, operator: LinearOperator) -> Tensor:
        """Return `x - s_l (A^H A x - A^H b)`, the data step of layer l, counted from 0."""
        return image - self.step[layer] * (operator.normal(image) - back_projection)

    def refine(self, layer: int, image: Tensor) -> Tensor:
        """Return `f_l^-1(f_l(x) / (1 + tau_l))`, the proximal step of layer l, counted from 0."""
        flow, channels = self._flow(layer), self._channels(image)
        latents = [
            z * torch.sigmoid(-log_tau[layer])[:, None, None]
            for z, log_tau in zip(flow.encode(channels), self.log_tau, strict=True)
        ]
        return flow.decode(latents).reshape(image.shape)

    @torch.no_grad()
    def calibrate(self, measurements: Tensor, operator: LinearOperator) -> None:
        """Set the ActNorms of all layers from one batch, layer by layer: Glow's data-dependent initialisation.

        Deterministic in the batch. The result is part of the state dict.

        Raises:
            ValueError: as of `Glow.calibrate`.
        """
        image = back_projection = operator.adjoint(measurements)
        for layer in range(self.n_layers):
            stepped = self.descend(layer, image, back_projection, operator)
            self._flow(layer).calibrate(self._channels(stepped))
            image = self.refine(layer, stepped)

    def _flow(self, layer: int) -> Glow:
        flow = self.flows[layer]
        if not isinstance(flow, Glow):
            raise TypeError(f"GlowProx: layer {layer} is {type(flow).__name__}, expected a Glow")
        return flow

    def _channels(self, image: Tensor) -> Tensor:
        """Return the image as (batch, channels, rows, cols)."""
        channels, multiple = self._settings["channels"], 2 ** self._settings["levels"]
        if image.is_complex():
            raise TypeError(f"GlowProx: image of dtype {image.dtype}, expected a real one")
        grey = channels == 1
        fits = image.ndim == (3 if grey else 4) and (grey or image.shape[1] == channels)
        if not fits or any(n % multiple for n in image.shape[-2:]):
            raise ValueError(
                f"GlowProx: image {tuple(image.shape)}, expected (batch, {'' if grey else f'{channels}, '}rows, cols)"
                f" with rows and columns multiples of {multiple}"
            )
        return image[:, None] if grey else image
