"""Learned ISTA: networks whose layers are steps of ISTA with learned matrices, steps and thresholds.

    codes = LISTACP(dictionary, 16)(measurements, Dense(dictionary))

Every network starts as ISTA: before training, layer k is iterate k (the analytic weights of ALISTA apart). Steps and
thresholds are positive numbers, kept as logarithms: along the layers of a trained network they fall with the error, by
orders of magnitude. Codes are real, (batch, n); measurements (batch, m); the first layer starts at zero.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from molrecon.descent.sparse import soft_threshold, squared_norm
from molrecon.reconstructors.unrolled import Disturb
from operators import Dense, LinearOperator

REGULARISATION = 0.1  # mu of the ISTA that networks start as


@final
@dataclass(frozen=True)
class SupportSelection:
    """Layer k = 1, 2, .. leaves its `min(share k, largest)` n largest magnitudes unshrunk, if above the threshold.

    They are taken to belong to the support. What is counted as one of them has no gradient of its own.

    Attributes:
        share: added by every layer, of the n entries.
        largest: at most so many of them; a little more than the support is expected to have.

    Source: Chen, Liu, Wang, Yin, NeurIPS 2018, equations 14 and 15; the defaults are theirs, for 10 % density.
    """

    share: float = 0.012
    largest: float = 0.13

    def count(self, layer: int, n: int) -> int:
        """Return how many of n entries layer number `layer` (from 1) leaves unshrunk."""
        return min(n, round(min(self.share * layer, self.largest) * n))


def selective_threshold(values: Tensor, threshold: Tensor | float, count: int) -> Tensor:
    """Return the soft threshold of v (batch, n) but for the `count` largest magnitudes of each sample.

    Those are left as they are if they exceed the threshold; with the others they become zero if they do not.
    """
    shrunk = soft_threshold(values, threshold)
    if count == 0:
        return shrunk
    magnitudes = values.detach().abs()
    smallest = magnitudes.topk(count, dim=1, sorted=False).values.amin(1, keepdim=True)
    return torch.where((magnitudes >= smallest) & (shrunk != 0), values, shrunk)


class CodeNetwork(nn.Module, ABC):
    """A network of K layers from measurements to codes.

    Args:
        dictionary: D (m, n), for which the network is made; a state dict holds it.
        n_layers: K.
        threshold: before training, of all layers.
        selection: support selection, None for the soft threshold everywhere.

    Attributes:
        n_layers: layers that are run. It may be set to fewer than K, and to more: the last layer is then repeated.

    Raises:
        ValueError: K or a threshold that is not positive.
    """

    dictionary: Tensor

    def __init__(self, dictionary: Tensor, n_layers: int, threshold: float, selection: SupportSelection | None) -> None:
        super().__init__()
        if n_layers < 1 or not threshold > 0:
            raise ValueError(
                f"{type(self).__name__}: got n_layers {n_layers} and threshold {threshold}, expected positive numbers"
            )
        self.register_buffer("dictionary", dictionary.detach().float())
        self.n_layers = self._built = n_layers
        self.selection = selection
        self.log_threshold = nn.Parameter(torch.full((n_layers,), math.log(threshold)))

    @abstractmethod
    def before_threshold(self, layer: int, codes: Tensor, measurements: Tensor, operator: LinearOperator) -> Tensor:
        """Return what layer k (its parameters' index, from 0) thresholds, (batch, n)."""

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments besides the dictionary and what is learned."""
        return {"n_layers": self._built, "selection": self.selection}

    @classmethod
    def rebuild(cls, settings: dict[str, Any], state: Mapping[str, Tensor]) -> CodeNetwork:
        """Return the network of `settings` for the dictionary in a state dict."""
        return cls(state["dictionary"], **settings)

    @torch.no_grad()
    def repeat_layer(self, layer: int) -> None:
        """Give layer number `layer` (from 2) the parameters of the one before it."""
        for parameter in self.parameters():
            if len(parameter) == self._built:
                parameter[layer - 1] = parameter[layer - 2]

    def forward(self, measurements: Tensor, operator: LinearOperator) -> Tensor:
        """Return the codes of the last layer; arguments as of `stages`."""
        *_, codes = self.stages(measurements, operator)
        return codes

    def stages(
        self, measurements: Tensor, operator: LinearOperator, disturb: Disturb | None = None
    ) -> Iterator[Tensor]:
        """Yield the codes of layers 1 .. n_layers.

        Args:
            measurements: b (batch, m), real.
            operator: D, `operators.Dense` of the dictionary.
            disturb: (layer number from 1, its codes) -> codes, for all layers but the last; what it returns is what
                the next layer starts from, and what is yielded.

        Raises:
            TypeError: complex measurements.
        """
        if measurements.is_complex():
            raise TypeError(
                f"{type(self).__name__}: measurements have dtype {measurements.dtype}, expected real numbers"
            )
        codes = torch.zeros_like(operator.adjoint(measurements))
        for number in range(1, self.n_layers + 1):
            layer = min(number, self._built) - 1
            raw = self.before_threshold(layer, codes, measurements, operator)
            threshold = self.log_threshold[layer].exp()
            if self.selection is None:
                codes = soft_threshold(raw, threshold)
            else:
                codes = selective_threshold(raw, threshold, self.selection.count(number, raw.shape[1]))
            if disturb is not None and number < self.n_layers:
                codes = disturb(number, codes)
            yield codes


@final
class LISTA(CodeNetwork):
    """`x_{k+1} = soft(V_k b + W_k x_k, theta_k)`, V (n, m) and W (n, n) learned; the operator is not used.

    Starts at `V = D^T / L`, `W = I - D^T D / L`, `theta = mu / L`: ISTA.

    Args:
        dictionary: D (m, n).
        n_layers: K.
        tied: one V and W for all layers, as originally published; theta is still one number a layer.
        regularisation: mu.

    Reference: Gregor, LeCun, ICML 2010.
    """

    def __init__(
        self, dictionary: Tensor, n_layers: int = 16, *, tied: bool = False, regularisation: float = REGULARISATION
    ) -> None:
        lipschitz = squared_norm(Dense(dictionary))
        super().__init__(dictionary, n_layers, regularisation / lipschitz, None)
        copies = 1 if tied else n_layers
        scaled = dictionary.double().T / lipschitz
        inner = torch.eye(len(scaled), dtype=scaled.dtype) - scaled @ dictionary.double()
        self.tied = tied
        self.from_measurements = nn.Parameter(scaled.float().repeat(copies, 1, 1))
        self.from_codes = nn.Parameter(inner.float().repeat(copies, 1, 1))

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments besides the dictionary and what is learned."""
        return {"n_layers": self._built, "tied": self.tied}

    def before_threshold(self, layer: int, codes: Tensor, measurements: Tensor, operator: LinearOperator) -> Tensor:
        """Return `V_k b + W_k x_k`."""
        which = 0 if self.tied else layer
        return measurements @ self.from_measurements[which].mT + codes @ self.from_codes[which].mT


@final
class LISTACP(CodeNetwork):
    """LISTA-CP, `x_{k+1} = eta(x_k + gamma_k W_k^T (b - D x_k), theta_k)`, and with support selection LISTA-CPSS.

    The coupling of both weights is necessary for convergence to x. Starts at `W = D`, `gamma = 1 / L`,
    `theta = mu / L`: ISTA, if nothing is selected. Where every layer has its W, gamma is a factor of it.

    Args:
        dictionary: D (m, n).
        n_layers: K.
        tied: one W for all layers (TiLISTA), steps and thresholds apart.
        selection: see `SupportSelection`.
        regularisation: mu.

    References: Chen, Liu, Wang, Yin, NeurIPS 2018; Liu, Chen, Wang, Yin, ICLR 2019 (TiLISTA).
    """

    def __init__(
        self,
        dictionary: Tensor,
        n_layers: int = 16,
        *,
        tied: bool = False,
        selection: SupportSelection | None = None,
        regularisation: float = REGULARISATION,
    ) -> None:
        lipschitz = squared_norm(Dense(dictionary))
        super().__init__(dictionary, n_layers, regularisation / lipschitz, selection)
        self.tied = tied
        self.log_step = nn.Parameter(torch.full((n_layers,), -math.log(lipschitz)))
        self.weight = nn.Parameter(dictionary.float().repeat(1 if tied else n_layers, 1, 1))

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments besides the dictionary and what is learned."""
        return {**super().settings(), "tied": self.tied}

    def before_threshold(self, layer: int, codes: Tensor, measurements: Tensor, operator: LinearOperator) -> Tensor:
        """Return `x_k + gamma_k W_k^T (b - D x_k)`."""
        residual = measurements - operator(codes)
        return codes + self.log_step[layer].exp() * (residual @ self.weight[0 if self.tied else layer])


@final
class ALISTA(CodeNetwork):
    """LISTA-CP with the analytic weights W of `analytic_weights`: a step and a threshold a layer are all it learns.

    Starts at `gamma = 1` and `theta = mu`.

    Args:
        dictionary: D (m, n); W follows from it and is not part of the state dict.
        n_layers: K.
        selection: see `SupportSelection`.
        regularisation: mu.

    Reference: Liu, Chen, Wang, Yin, ICLR 2019.
    """

    weight: Tensor

    def __init__(
        self,
        dictionary: Tensor,
        n_layers: int = 16,
        *,
        selection: SupportSelection | None = None,
        regularisation: float = REGULARISATION,
    ) -> None:
        super().__init__(dictionary, n_layers, regularisation, selection)
        self.log_step = nn.Parameter(torch.zeros(n_layers))
        self.register_buffer("weight", analytic_weights(dictionary).float(), persistent=False)

    def before_threshold(self, layer: int, codes: Tensor, measurements: Tensor, operator: LinearOperator) -> Tensor:
        """Return `x_k + gamma_k W^T (b - D x_k)`."""
        return codes + self.log_step[layer].exp() * ((measurements - operator(codes)) @ self.weight)


def analytic_weights(dictionary: Tensor) -> Tensor:
    """Return W (m, n) float64 that minimises `|W^T D|_F^2` subject to `w_i^T d_i = 1` for every column.

    The columns decouple: `min w^T G w`, `G = D D^T`, has the solution `w_i = G^+ d_i / (d_i^T G^+ d_i)` in the range of
    D. This is the Frobenius form of the generalised mutual coherence, whose minimisers serve as well as those of the
    largest entry.

    Raises:
        ValueError: a dictionary with a column of zeros.

    Source: Liu, Chen, Wang, Yin, ICLR 2019, equation 16, solved in closed form instead of by projected gradients.
    """
    atoms = dictionary.detach().double()
    if bool((atoms.norm(dim=0) == 0).any()):
        raise ValueError("analytic_weights: dictionary with a column of zeros, expected atoms")
    dual = torch.linalg.pinv(atoms @ atoms.T, hermitian=True) @ atoms
    return dual / (atoms * dual).sum(0)
