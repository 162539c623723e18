"""Block compressed sensing of photographs: an unrolled reconstructor with the matrices it was trained for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from torch import Tensor, nn

from molrecon.sensing.equilibrium_stage import EquilibriumStage
from molrecon.sensing.stage import Unrolled
from operators import Blocks, Dense, Flatten, LinearOperator

BLOCK_SIZE = 33


@final
class BlockImager(nn.Module):
    """Measures images block by block, `y = Phi v`, and reconstructs them.

    Images are padded with zeros at the bottom and right to whole blocks, by a whole block where they need none, as the
    published test programs do. A host that sees the whole image gets the padded one; any other gets each block apart.

    Args:
        model: for real images, unrolled or at equilibrium.
        phi: (M, N), N = 33 x 33, float32.
        initialisation: (N, M): x_0 = Q y, block by block; Phi^T when None.

    Attributes:
        model, phi, initialisation: as given; a state dict holds all of them.
    """

    phi: Tensor
    initialisation: Tensor

    def __init__(self, model: Unrolled | EquilibriumStage, phi: Tensor, initialisation: Tensor | None = None) -> None:
        super().__init__()
        if phi.ndim != 2 or phi.shape[1] != BLOCK_SIZE**2:
            raise ValueError(f"BlockImager: Phi {tuple(phi.shape)}, expected (measurements, {BLOCK_SIZE**2})")
        if initialisation is None:
            initialisation = phi.mT.contiguous()
        if initialisation.shape != phi.shape[::-1]:
            expected = tuple(phi.shape[::-1])
            raise ValueError(f"BlockImager: initialisation {tuple(initialisation.shape)}, expected {expected}")
        self.model = model
        self.register_buffer("phi", phi)
        self.register_buffer("initialisation", initialisation)

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments besides the matrices, which a state dict holds."""
        return {"model": self.model}

    @classmethod
    def rebuild(cls, settings: dict[str, Any], state: Mapping[str, Tensor]) -> BlockImager:
        """Return the imager of `settings` for the matrices in a state dict."""
        return cls(settings["model"], state["phi"], state["initialisation"])

    def measure(self, image: Tensor) -> Tensor:
        """Return the measurements (batch, blocks, M) of images (batch, rows, cols) with intensities in [0, 1]."""
        return Dense(self.phi)(_padded_blocks(image.shape[1:])(image))

    def forward(self, measurements: Tensor, spatial: tuple[int, int]) -> Tensor:
        """Return the images (batch, *spatial), in [0, 1], of their measurements (batch, blocks, M)."""
        answer = self.model(*self.problem(measurements, spatial))
        image = answer if isinstance(answer, Tensor) else answer.value
        if self.model.host.whole_image:
            image = image[:, : spatial[0], : spatial[1]]
        else:
            blocks = image.reshape(*measurements.shape[:2], -1)
            image = _padded_blocks(spatial).adjoint(blocks)
        return image.clamp(0, 1)

    def problem(self, measurements: Tensor, spatial: tuple[int, int]) -> tuple[Tensor, LinearOperator, Tensor]:
        """Return (b, A, x_0) as the model takes them: of the padded images, or of all their blocks apart."""
        if not self.model.host.whole_image:
            return self.block_problem(measurements.flatten(0, 1))
        rows, cols = _padded_blocks(spatial).grid
        cut = Blocks((rows * BLOCK_SIZE, cols * BLOCK_SIZE), BLOCK_SIZE)
        return measurements, Dense(self.phi) @ cut, cut.adjoint(Dense(self.initialisation)(measurements))

    def block_problem(self, measurements: Tensor) -> tuple[Tensor, LinearOperator, Tensor]:
        """Return (b, A, x_0) of blocks as images (n, 33, 33) of their own; measurements (n, M)."""
        flatten = Flatten((BLOCK_SIZE, BLOCK_SIZE))
        start = flatten.adjoint(Dense(self.initialisation)(measurements))
        return measurements, Dense(self.phi) @ flatten, start


def _padded_blocks(spatial: Sequence[int]) -> Blocks:
    return Blocks(spatial, BLOCK_SIZE, extra_block=True)
