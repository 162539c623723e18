"""Post-processing: one network on the zero-filled image, which never sees the data again."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor, nn

from molrecon.batched import per_sample
from molrecon.conditioning import Conditioning
from molrecon.networks import ScoreNetwork
from molrecon.unrolled.base import known_or_found
from operators import LinearOperator


@final
class PostProcessing(nn.Module):
    """The reconstructor `x = H(A^H b)`.

    The image need not fit the data, and the noise level reaches it only through H.

    Args:
        network: the denoiser H, usually a `UNet`.
        phase_reference: show the network the image without its smooth phase (see `Conditioning`).

    Shapes: k-space (batch, coil, *spatial), image (batch, *spatial), complex.

    Reference: Jin, McCann, Froustey, Unser, IEEE TIP 26, 2017 (a U-Net after a direct inversion).
    """

    def __init__(self, network: ScoreNetwork, *, phase_reference: bool = True) -> None:
        super().__init__()
        self.network = network
        self.phase_reference = phase_reference

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments besides the network."""
        return {"phase_reference": self.phase_reference}

    def forward(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        noise_level: float | Tensor | None = None,
        *,
        conditioning: Conditioning | None = None,
    ) -> Tensor:
        """Return the image in the units of the data.

        Args:
            kspace: b (batch, coil, *spatial) complex; unsampled entries zero.
            operator: the acquisition A.
            noise_level: see `conditioning.condition`.
            conditioning: given in place of what `condition` finds.

        Raises:
            TypeError: real k-space.
        """
        known = known_or_found(self, kspace, operator, noise_level, conditioning)
        scale = per_sample(known.scale, known.phase)
        return known.denoiser(self.network)(operator.adjoint(kspace) / scale) * scale
