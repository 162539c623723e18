"""What every reconstructor around a denoiser has: network, conditioning, lambda, and what training asks of it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from molrecon.networks import Denoiser
from molrecon.reconstructors.base import Reconstructor
from molrecon.reconstructors.conditioning import NOISE_COEFFICIENTS, Conditioning, condition, data_weight
from operators import LinearOperator


class LearnedReconstructor(Reconstructor):
    """A reconstructor around a denoiser H, conditioned on each scan. Subclasses define `_solve`.

    With several sets of maps (`SoftSense`) there is an image for each, and H acts on each by itself.

    Args:
        network: the denoiser H.
        data_weight: lambda at the reference noise level, 0.01; None for methods that weigh no data.
        phase_reference: show the network the image without its smooth phase (see `Conditioning`).

    Attributes:
        log_data_weight: the coefficients (3,) of lambda, see `conditioning.data_weight`; None without a data weight.
        n_unrolls: stages of an unrolled method; None for all others.
        largest_data_weight: lambda is at most this. The inner conjugate gradients of unrolled methods, whose steps are
            few, do not finish with a larger one, and their unfinished gradient drives lambda up further.

    Raises:
        ValueError: `data_weight` that is not positive.
    """

    takes_sets = True
    n_unrolls: int | None = None
    largest_data_weight = 300.0
    log_data_weight: nn.Parameter | None

    def __init__(self, network: Denoiser, *, data_weight: float | None, phase_reference: bool) -> None:
        super().__init__()
        if data_weight is not None and not data_weight > 0:
            raise ValueError(f"{type(self).__name__}: data_weight is {data_weight}, expected a positive number")
        self.network = network
        self.ndim = network.ndim
        self.phase_reference = phase_reference
        if data_weight is None:
            self.register_parameter("log_data_weight", None)
        else:
            self.log_data_weight = nn.Parameter(torch.tensor([math.log(data_weight), *NOISE_COEFFICIENTS]))

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments besides what is learned."""
        return {"network": self.network, "phase_reference": self.phase_reference}

    def extra_repr(self) -> str:
        """Return what is not in the network: lambda at the reference noise level, m, the number of parameters."""
        words = [f"monotonicity={self.network.monotonicity:g}"]
        if self.log_data_weight is not None:
            words.insert(0, f"data_weight={float(self.log_data_weight[0].detach().exp()):.4g}")
        words.append(f"phase_reference={self.phase_reference}")
        words.append(f"parameters={sum(parameter.numel() for parameter in self.parameters())}")
        return ", ".join(words if self.solver is None else [*words, f"solver={self.solver}"])

    @property
    def precision(self) -> torch.dtype:
        """The complex dtype that the model computes in, that of its parameters."""
        parameter = next(self.parameters(), None)
        return (torch.get_default_dtype() if parameter is None else parameter.dtype).to_complex()

    def data_weight(self, noise_level: Tensor) -> Tensor:
        """Return lambda of each sample (batch,), see `conditioning.data_weight`.

        Raises:
            TypeError: the method weighs no data.
        """
        if self.log_data_weight is None:
            raise TypeError(f"{type(self).__name__}: has no data weight, expected a method with a data term")
        return data_weight(self.log_data_weight, noise_level, self.largest_data_weight)

    def condition(
        self, kspace: Tensor, operator: LinearOperator, noise_level: float | Tensor | None = None
    ) -> Conditioning:
        """Return scale, relative noise level, smooth phase and guide of a scan, see `conditioning.condition`."""
        conditioning = condition(kspace, operator, noise_level, phase_reference=self.phase_reference)
        return self.guided(kspace, operator, conditioning)

    def guided(self, kspace: Tensor, operator: LinearOperator, conditioning: Conditioning) -> Conditioning:
        """Return a conditioning with the guide of this scan; as it is for a method without a guide."""
        return conditioning

    def tolerance(self, residual: float) -> float:
        """Return the `SolverSettings.tol` that stands for a relative residual `|r| / |x|` of the iteration."""
        return residual

    def lipschitz_target(self) -> float | None:
        """Return the bound of Lip(H) that the method rests on where its network does not keep to it by itself.

        Training holds the network to it by a penalty. None where there is nothing to hold.
        """
        return None
