"""The one call of every reconstruction method: `model(kspace, A, noise_level) -> Solution`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from molrecon.reconstructors.certificate import NO_CERTIFICATE, Certificate
from molrecon.reconstructors.conditioning import Conditioning
from molrecon.solvers.solution import Solution
from molrecon.solvers.solver_settings import SolverSettings
from operators import LinearOperator


class Reconstructor(nn.Module, ABC):
    """A method that makes images of k-space, with a report on each of them.

    Subclasses define `_solve`, and what else they know: `condition`, `certificate`, `change_bound`, `response`,
    `settings`.
    `forward` checks once what every method needs, so that `_solve` gets finite complex data on the model's device.

        class RootSumOfSquares(Reconstructor):
            def _solve(self, kspace, operator, conditioning, start, solver):
                return unbounded_solution(...)

    Attributes:
        solver: how the method iterates when a call does not say it; None for methods with nothing to iterate.
        takes_sets: whether the operator may have several sets of coil maps, with an image for each (`SoftSense`).
        ndim: spatial axes of its images, 2 for planes, 3 for volumes and for series of planes; None: as many as the
            data have.
    """

    solver: SolverSettings | None = None
    takes_sets: bool = False
    ndim: int | None = None

    def forward(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        noise_level: float | Tensor | None = None,
        *,
        conditioning: Conditioning | None = None,
        start: Tensor | None = None,
        solver: SolverSettings | None = None,
    ) -> Solution:
        """Return the image of each sample, in the units of the data, with what is known about its error.

        Args:
            kspace: b (batch, coil, *spatial) complex, or what else A maps to; unsampled entries zero.
            operator: the acquisition A.
            noise_level: standard deviation of the complex noise of a sample in the units of k-space, a number or
                (batch,); where the method wants it, it is estimated when None (see `conditioning.condition`).
            conditioning: given in place of what `condition` finds; bounds of changes are for a fixed one.
            start: first iterate (batch, *spatial), in the units of the image; the method's own when None. Methods that
                iterate nothing have no use for it.
            solver: how to iterate, in place of the model's own.

        Raises:
            TypeError: k-space that is no complex tensor.
            ValueError: k-space, start, noise level or conditioning that is not finite or of another shape, data and
                model on different devices, solver settings for a method that has nothing to iterate.
            FloatingPointError: the image is not finite.
        """
        who = type(self).__name__
        kspace = _checked_kspace(who, kspace, next(self.parameters(), None), next(operator.buffers(), None))
        if solver is not None and self.solver is None:
            raise ValueError(f"{who}: got solver settings, expected none: it has nothing to iterate to a tolerance")
        if conditioning is None:
            _check_noise_level(who, noise_level, len(kspace))
            conditioning = self.condition(kspace, operator, noise_level)
        else:
            conditioning.check(who, len(kspace))
        if start is not None and not (torch.is_complex(start) and len(start) == len(kspace) and all_finite(start)):
            raise ValueError(
                f"{who}: start {tuple(start.shape)} of dtype {start.dtype}, expected {len(kspace)} complex images of"
                " finite numbers"
            )
        if start is not None and conditioning is not None and start.shape != conditioning.phase.shape:
            raise ValueError(
                f"{who}: start {tuple(start.shape)}, expected {tuple(conditioning.phase.shape)} as the images are"
            )
        with torch.autocast(kspace.device.type, enabled=False):  # a bound counts the rounding of full precision
            solution = self._solve(kspace, operator, conditioning, start, solver or self.solver)
        if not all_finite(solution.value.detach()):
            raise FloatingPointError(f"{who}: the image is not finite, expected finite numbers: are the weights?")
        # What holds for weights at rest need not hold while they are being trained.
        return solution.with_kind("estimated") if self.training and solution.kind == "certified" else solution

    @abstractmethod
    def _solve(
        self,
        kspace: Tensor,
        operator: LinearOperator,
        conditioning: Conditioning | None,
        start: Tensor | None,
        solver: SolverSettings | None,
    ) -> Solution:
        """Return the images of checked data; `conditioning` is what `condition` returns, `solver` never None where
        the method has one of its own.
        """

    def condition(
        self, kspace: Tensor, operator: LinearOperator, noise_level: float | Tensor | None = None
    ) -> Conditioning | None:
        """Return what the method reads off a scan before it starts; None where it reads nothing."""
        return None

    def certificate(self) -> Certificate:
        """Return what is guaranteed about the method."""
        return NO_CERTIFICATE

    def change_bound(
        self, conditioning: Conditioning | None, operator: LinearOperator, change: Tensor
    ) -> Tensor | None:
        """Return an upper bound of `|x(b + d) - x(b)|` for any b, (batch,), or None where none is known.

        Args:
            conditioning: of the scan, held fixed.
            operator: A.
            change: d (batch, coil, *spatial).
        """
        return None

    def response(
        self, operator: LinearOperator, conditioning: Conditioning | None, image: Tensor, kspace: Tensor
    ) -> Callable[[Tensor], Solution] | None:
        """Return the derivative of the image by the data, `n -> J n`, or None where the method has none to tell.

        To first order `x(b + n) = x(b) + J n`. What the method reads off a scan before it starts is held fixed.

        Args:
            operator: A.
            conditioning: of the scan.
            image: x(b) (batch, *spatial), as the method returned it.
            kspace: b.

        Returns:
            a function of changes n of the data, shaped like b, that returns J n shaped like the image. It is linear
            over the real numbers at least.
        """
        return None

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments: JSON values, modules and dataclasses. What is learned is not among them.

        With them `molrecon.weights.save` stores the method, whatever package it comes from.
        """
        return {}


ReconstructorT = TypeVar("ReconstructorT", bound=Reconstructor)


@contextmanager
def evaluating(model: ReconstructorT) -> Iterator[ReconstructorT]:
    """Hold a model in evaluation mode, and give every part of it back its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training


def all_finite(values: Tensor) -> bool:
    """Tell whether all entries are finite, without a copy: extremes propagate NaN."""
    values = torch.view_as_real(values.resolve_conj()) if torch.is_complex(values) else values
    if values.numel() == 0:
        return True
    extremes = torch.aminmax(values)
    return bool(torch.isfinite(extremes.min) & torch.isfinite(extremes.max))


def _checked_kspace(who: str, kspace: Tensor, parameter: Tensor | None, buffer: Tensor | None) -> Tensor:
    if not isinstance(kspace, Tensor):
        raise TypeError(f"{who}: kspace is {type(kspace).__name__}, expected a complex torch.Tensor: torch.from_numpy")
    if not torch.is_complex(kspace):
        raise TypeError(f"{who}: kspace has dtype {kspace.dtype}, expected a complex dtype")
    if kspace.ndim < 2 or kspace.numel() == 0:
        raise ValueError(f"{who}: kspace {tuple(kspace.shape)}, expected (batch, coil, *spatial), none of them empty")
    for holder, tensor in (("weights", parameter), ("operator", buffer)):
        if tensor is not None and tensor.device != kspace.device:
            raise ValueError(f"{who}: kspace on {kspace.device} and {holder} on {tensor.device}, expected one device")
    kspace = kspace.resolve_conj().resolve_neg()
    if not all_finite(kspace.detach()):
        raise ValueError(f"{who}: kspace holds NaN or infinite values, expected finite numbers")
    return kspace


def _check_noise_level(who: str, noise_level: float | Tensor | None, batch: int) -> None:
    if noise_level is None:
        return
    level = torch.as_tensor(noise_level, dtype=torch.float64).detach()
    if level.shape not in ((), (1,), (batch,)) or not bool((torch.isfinite(level) & (level >= 0)).all()):
        raise ValueError(
            f"{who}: noise_level {tuple(level.shape)} {level.tolist()}, expected a finite number of at least 0, or one"
            f" for each of {batch} samples"
        )
