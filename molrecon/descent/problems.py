"""What descent training is given: sparse codes, blocks of photographs and multi-coil scans, in the distance form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from molrecon.descent.constraints import DescentProblem
from molrecon.descent.lista import CodeNetwork
from molrecon.descent.sparse_problems import SparseProblem
from molrecon.descent.sparse_training import SCALAR_FACTOR
from molrecon.reconstructors.admm_net import ADMMNet
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.reconstructors.modl import MoDL
from molrecon.reconstructors.unrolled import Disturb
from molrecon.reconstructors.varnet import VarNet
from molrecon.sensing.imager import BLOCK_SIZE, BlockImager
from molrecon.sensing.stage import Unrolled
from molrecon.simulation.problem import Problem
from molrecon.solvers.batched import norm
from molrecon.training.reconstruction_task import reference_phase
from operators import Dense

Codes = tuple[Tensor, Tensor]
UnrolledReconstructor = MoDL | ADMMNet | VarNet


def relative_square(image: Tensor, reference: Tensor) -> Tensor:
    """Return `sum |x - x*|^2 / sum |x*|^2` over the batch, a scalar: the pooled NMSE."""
    return norm(image - reference).square().sum() / norm(reference).square().sum()


@final
class CodingProblem(DescentProblem[CodeNetwork, Codes]):
    """A network of the LISTA family; a batch is (codes x*, measurements b), and y* = x*. The loss is the pooled NMSE.

    Args:
        model: trained in place.
        problem: what is drawn from.
        batch: samples a step.
    """

    def __init__(self, model: CodeNetwork, problem: SparseProblem, *, batch: int = 64) -> None:
        self.model = model
        self.n_layers = model.n_layers
        self.problem = problem
        self.batch = batch
        self.operator = Dense(problem.dictionary)

    def draw(self, step: int, rng: np.random.Generator) -> Codes:
        """Return codes and measurements."""
        return self.problem.draw(self.batch, rng)

    def layers(self, batch: Codes, disturb: Disturb | None) -> tuple[Tensor, Sequence[Tensor]]:
        """Return zero, and the codes of all layers."""
        codes, measurements = batch
        return torch.zeros_like(codes), list(self.model.stages(measurements, self.operator, disturb))

    def final_loss(self, last: Tensor, batch: Codes) -> Tensor:
        """Return the pooled NMSE."""
        return relative_square(last, batch[0])

    def reference(self, batch: Codes) -> Tensor:
        """Return x*."""
        return batch[0]

    def run_to(self, n_layers: int) -> None:
        """Let the network run with so many layers."""
        self.model.n_layers = n_layers

    def groups(self) -> list[dict[str, Any]]:
        """Return Adam's groups: matrices, and logarithms of steps and thresholds with a larger rate."""
        parameters = list(self.model.parameters())
        return [
            {"params": [p for p in parameters if p.ndim >= 2], "factor": 1.0},
            {"params": [p for p in parameters if p.ndim < 2], "factor": SCALAR_FACTOR},
        ]


@final
class BlockProblem(DescentProblem[BlockImager, Codes]):
    """A host and a data step on blocks of photographs; a batch is (blocks, measurements), and y* are the blocks.

    The loss is the mean squared error. The penalty that ISTA-Net+ adds for pairs of filters that are not inverse to
    each other is left out: what the layers are held to here is the constraint alone, in all arms alike.

    Args:
        imager: its model is trained.
        blocks: (n, 1089) uint8.
        batch: blocks a step.

    Raises:
        TypeError: an imager at equilibrium, which has no layers.
    """

    def __init__(self, imager: BlockImager, blocks: np.ndarray, *, batch: int = 16) -> None:
        if not isinstance(imager.model, Unrolled):
            raise TypeError(f"BlockProblem: imager with {type(imager.model).__name__}, expected an unrolled model")
        self.model = imager
        self.unrolled = imager.model
        self.n_layers = self.unrolled.host.n_stages * self.unrolled.repeats
        self.blocks = blocks
        self.batch = batch

    def draw(self, step: int, rng: np.random.Generator) -> Codes:
        """Return blocks, with replacement, and their measurements."""
        return self.measured(self.blocks[rng.integers(len(self.blocks), size=self.batch)])

    def measured(self, blocks: np.ndarray) -> Codes:
        """Return blocks (n, 1089) uint8 as images (n, 33, 33) in [0, 1], and their measurements (n, M)."""
        flat = torch.from_numpy(blocks).to(self.model.phi) / 255
        return flat.reshape(-1, BLOCK_SIZE, BLOCK_SIZE), Dense(self.model.phi)(flat)

    def layers(self, batch: Codes, disturb: Disturb | None) -> tuple[Tensor, Sequence[Tensor]]:
        """Return `Q y`, and the blocks after all stages."""
        # The networks know no difference between training and evaluation but for the penalty.
        self.unrolled.eval()
        measurements, operator, start = self.model.block_problem(batch[1])
        stages = self.unrolled.stages(measurements, operator, start, disturb=disturb)
        return start, [stage.image for stage in stages]

    def final_loss(self, last: Tensor, batch: Codes) -> Tensor:
        """Return the mean squared error."""
        return (last - batch[0]).square().mean()

    def reference(self, batch: Codes) -> Tensor:
        """Return the blocks."""
        return batch[0]

    def run_to(self, n_layers: int) -> None:
        """Repeat the stage so often, for a host of one.

        Raises:
            ValueError: a host of several stages.
        """
        if self.unrolled.host.n_stages != 1:
            raise ValueError(f"BlockProblem: host of {self.unrolled.host.n_stages} stages, expected one to repeat")
        self.unrolled.repeats = n_layers


@final
class ScanProblem(DescentProblem[UnrolledReconstructor, Problem]):
    """An unrolled multi-coil reconstructor; a batch is a `simulate.Problem`, y* the reference image, y_0 = A^H b.

    The loss is the pooled NMSE.

    Args:
        model: trained in place.
        draw_problem: (generator, step) -> problem whose reference has intensity near 1.
    """

    def __init__(
        self, model: UnrolledReconstructor, draw_problem: Callable[[np.random.Generator, int], Problem]
    ) -> None:
        self.model = model
        self.n_layers = model.n_unrolls
        self.draw_problem = draw_problem

    def draw(self, step: int, rng: np.random.Generator) -> Problem:
        """Return a problem."""
        return self.draw_problem(rng, step)

    def layers(self, batch: Problem, disturb: Disturb | None) -> tuple[Tensor, Sequence[Tensor]]:
        """Return the zero-filled image, and the images of all stages; the scale is 1, the noise level the true one."""
        phase = reference_phase(self.model, batch)
        conditioning = Conditioning(torch.ones_like(batch.noise_level), batch.noise_level, phase)
        stages = self.model.stages(batch.kspace, batch.operator, conditioning=conditioning, disturb=disturb)
        return batch.operator.adjoint(batch.kspace), list(stages)

    def final_loss(self, last: Tensor, batch: Problem) -> Tensor:
        """Return the pooled NMSE."""
        return relative_square(last, batch.reference)

    def reference(self, batch: Problem) -> Tensor:
        """Return the reference images."""
        return batch.reference

    def run_to(self, n_layers: int) -> None:
        """Let the network run with so many stages; MoDL alone has none of its own.

        Raises:
            ValueError: more stages than were built, of another network.
        """
        if n_layers > self.n_layers and not isinstance(self.model, MoDL):
            raise ValueError(
                f"ScanProblem: {n_layers} stages of {type(self.model).__name__}, expected {self.n_layers} at most"
            )
        self.model.n_unrolls = n_layers
