"""The shapes that an operator maps from and to, as `repr` shows them: `(batch, 64, 64) -> (batch, 8, 64, 64)`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor

Sizes = tuple[int | str, ...]
MORE = "..."


@final
@dataclass(frozen=True)
class Shapes:
    """Domain and range of an operator, batch included.

    Attributes:
        domain, range: sizes of the axes. One that the operator leaves open has a name, the same in both: "batch",
            "n1" for the first spatial axis; "..." stands for any number of axes.
    """

    domain: Sizes
    range: Sizes

    def __str__(self) -> str:
        return f"{_written(self.domain)} -> {_written(self.range)}"

    def before(self, outer: Shapes) -> Shapes:
        """Return the shapes of `outer @ inner` for this inner operator: sizes open in one are taken from the other."""
        ours, theirs = _agree(self.range, outer.domain)
        return Shapes(
            _with(self.domain, ours), _with(outer.range, {name: _with(theirs[name], ours) for name in theirs})
        )

    def merged(self, other: Shapes) -> Shapes:
        """Return the shapes of `self + other`: sizes open in one are taken from the other."""
        of_domain, _ = _agree(self.domain, other.domain)
        of_range, _ = _agree(self.range, other.range)
        sizes = {**of_domain, **of_range}
        return Shapes(_with(self.domain, sizes), _with(self.range, sizes))


def batch_of(*tensors: Tensor) -> int | str:
    """Return the batch that tensors (batch or 1, ...) ask for, "batch" where any will do."""
    return max((len(tensor) for tensor in tensors if len(tensor) > 1), default="batch")


def spatial_of(*shapes: Iterable[int]) -> Sizes:
    """Return the spatial sizes of tensors that broadcast to the image; 1 in all of them leaves a size open."""
    widest = (max(sizes) for sizes in zip(*shapes, strict=True))
    return tuple(size if size > 1 else f"n{axis}" for axis, size in enumerate(widest, start=1))


def dtype_name(tensor: Tensor) -> str:
    """Return "complex64" for a tensor of torch.complex64, and so on."""
    return str(tensor.dtype).removeprefix("torch.")


def _written(sizes: Sizes) -> str:
    return f"({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''})"


def _agree(first: Sizes, second: Sizes) -> tuple[dict[str, Sizes], dict[str, Sizes]]:
    """Return what the names in two shapes of the same tensor stand for: those of the first, and those of the second.

    A size that both leave open keeps its name in the first. Shapes that contradict each other give nothing.
    """
    head, tail = _fixed_axes(first, second)
    if head + tail > min(len(first), len(second)):
        return {}, {}
    for_first: dict[str, Sizes] = {}
    for_second: dict[str, Sizes] = {}
    for index in (*range(head), *range(-tail, 0)):
        a, b = first[index], second[index]
        if isinstance(b, str):
            for_second[b] = (a,)
        elif isinstance(a, str):
            for_first[a] = (b,)
    between, others = first[head : len(first) - tail], second[head : len(second) - tail]
    if others == (MORE,):
        for_second[MORE] = between
    elif between == (MORE,):
        for_first[MORE] = others
    return for_first, for_second


def _fixed_axes(first: Sizes, second: Sizes) -> tuple[int, int]:
    """Return how many axes come before and after "..." in two shapes, at least; all and none where neither has it."""
    open_shapes = [sizes for sizes in (first, second) if MORE in sizes]
    if not open_shapes:
        return max(len(first), len(second)), 0
    return min(s.index(MORE) for s in open_shapes), min(len(s) - s.index(MORE) - 1 for s in open_shapes)


def _with(sizes: Sizes, meanings: Mapping[str, Sizes]) -> Sizes:
    """Return sizes with names replaced by what they stand for."""
    return tuple(new for size in sizes for new in (meanings.get(size, (size,)) if isinstance(size, str) else (size,)))
