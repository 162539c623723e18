"""Every operator through one table of checks: fixed cases with awkward structure, then any shapes at all."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import operators
from operators import (
    NUFFT,
    Adjoint,
    BinaryDense,
    Blocks,
    Dense,
    Flatten,
    Fourier,
    Hadamard,
    Identity,
    Inpainting,
    LinearOperator,
    NonCartesianSense,
    OffResonance,
    PartialFourier,
    SampledFourier,
    Sampling,
    Sense,
    Sensitivity,
    SoftSense,
    SoftSensitivity,
    Toeplitz,
    VerticalStack,
    WeightedSense,
    adjoint_gap,
    coil_chunks,
    gaussian_matrix,
    normal_gap,
    orthonormal_matrix,
    sequency_order,
    toeplitz,
)

Shape = tuple[int, ...]
SINGLE, DOUBLE = torch.float32, torch.float64
COMPLEX = {SINGLE: torch.complex64, DOUBLE: torch.complex128}
# The threads of finufft add in any order, so that two runs differ by rounding.
ROUNDING = 1e-11


def random_tensor(*shape: int, seed: int, dtype: torch.dtype = torch.complex128) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def random_mask(*shape: int, seed: int = 7) -> Tensor:
    mask = uniform(*shape, seed=seed) < 0.5
    mask.flatten(1)[:, 0] = True
    return mask


def random_trajectory(*samples: int, spatial: Shape, seed: int = 3) -> Tensor:
    return (uniform(*samples, len(spatial), seed=seed) - 0.5) * torch.tensor(spatial)


@dataclass(frozen=True)
class Case:
    """An operator, built for a real precision, and the shapes of its domain and range, batch included.

    kinds: of domain and range, "cc" for complex and complex, "rc" for real and complex, and so on.
    strict: the other kind of input is an error. sized: so is another size of the last axis.
    double, single: the relative gap allowed between the structured and the plain normal operator.
    """

    name: str
    build: Callable[[torch.dtype], LinearOperator]
    domain: Shape
    range: Shape
    kinds: str = "cc"
    strict: bool = True
    sized: bool = True
    double: float = 1e-12
    single: float = 1e-6
    chunk_bytes: int | None = None

    def x(self, seed: int = 0, precision: torch.dtype = DOUBLE) -> Tensor:
        return random_tensor(*self.domain, seed=seed, dtype=self._dtype(0, precision))

    def y(self, seed: int = 1, precision: torch.dtype = DOUBLE) -> Tensor:
        return random_tensor(*self.range, seed=seed, dtype=self._dtype(1, precision))

    def functions(self, operator: LinearOperator, x: Tensor, y: Tensor) -> list[tuple[Callable[..., Tensor], Tensor]]:
        return [(operator, x), (operator.adjoint, y), (operator.normal, x)]

    def _dtype(self, side: int, precision: torch.dtype) -> torch.dtype:
        return COMPLEX[precision] if self.kinds[side] == "c" else precision


def sense_case(name: str, spatial: Shape, mask: Tensor, maps: Shape = (2, 3), **options: Any) -> Case:
    ndim = options.pop("ndim", None)
    maps_spatial = options.pop("maps_spatial", spatial)

    def build(precision: torch.dtype) -> Sense:
        return Sense(random_tensor(*maps, *maps_spatial, seed=5).to(COMPLEX[precision]), mask, ndim)

    batch = max(2, maps[0], len(mask))
    return Case(f"sense {name}", build, (batch, *spatial), (batch, maps[1], *spatial), **options)


def dynamic_case(name: str, mask: Tensor, maps: Shape = (2, 3), **options: Any) -> Case:
    return sense_case(f"2d+time, {name}", (4, *PLANE), mask, maps, ndim=2, maps_spatial=(1, *PLANE), **options)


def soft_case(name: str, mask: Tensor, maps: Shape, frames: Shape = (), **options: Any) -> Case:
    def build(precision: torch.dtype) -> SoftSense:
        return SoftSense(random_tensor(*maps, seed=5).to(COMPLEX[precision]), mask, fourier_ndim=2)

    return Case(f"soft sense, {name}", build, (2, 2, *frames, *PLANE), (2, 3, *frames, *PLANE), **options)


def nufft_case(name: str, spatial: Shape, batch: int = 1, channels: Shape = (3,)) -> Case:
    trajectory = random_trajectory(batch, 4, 9, spatial=spatial)
    domain, samples = (2, *channels, *spatial), (2, *channels, 4, 9)
    return Case(f"nufft {name}", lambda _: NUFFT(trajectory, spatial), domain, samples, double=1e-11, single=1e-5)


def noncartesian_case(
    name: str,
    spatial: Shape,
    batches: tuple[int, int, int] = (1, 1, 1),
    weighted: bool = True,
    field: bool = False,
    convolve: bool = True,
    sets: Shape = (),
) -> Case:
    trajectory = random_trajectory(batches[1], 4, 9, spatial=spatial)
    weights = uniform(batches[2], 4, 9, seed=4)
    field_map = 30 * (uniform(batches[2], *spatial, seed=6) - 0.3) if field else None
    times = torch.linspace(1e-3, 9e-3, 9, dtype=DOUBLE) if field else None

    def build(precision: torch.dtype) -> LinearOperator:
        maps = random_tensor(batches[0], *sets, 3, *spatial, seed=5).to(COMPLEX[precision])
        acquisition = NonCartesianSense(maps, trajectory, field_map=field_map, readout_times=times, toeplitz=convolve)
        return WeightedSense(acquisition, weights) if weighted else acquisition

    return Case(
        f"{'weighted' if weighted else 'noncartesian'} {name}",
        build,
        (2, *sets, *spatial),
        (2, 3, 4, 9),
        double=1e-11,
        single=1e-5,
    )


def fourier_case(name: str, mask: Tensor, real: bool, sized: bool) -> Case:
    kinds = "rc" if real else "cc"
    build = lambda _: PartialFourier(mask, real)  # noqa: E731
    return Case(f"partial fourier, {name}, {kinds}", build, (2, *PLANE), (2, *PLANE), kinds, sized=sized)


def composition(precision: torch.dtype) -> LinearOperator:
    maps = random_tensor(2, 3, *PLANE, seed=5).to(COMPLEX[precision])
    return Sampling(random_mask(1, 1, 4)) @ Fourier(2) @ Sensitivity(maps)


def sensitivity(batch: int) -> Callable[[torch.dtype], LinearOperator]:
    return lambda precision: Sensitivity(random_tensor(batch, 3, *PLANE, seed=5).to(COMPLEX[precision]))


def soft_sensitivity(batch: int) -> Callable[[torch.dtype], LinearOperator]:
    return lambda precision: SoftSensitivity(random_tensor(batch, 2, 3, *PLANE, seed=5).to(COMPLEX[precision]))


def complex_phi(measurements: int) -> Callable[[torch.dtype], LinearOperator]:
    return lambda precision: Dense(random_tensor(measurements, 8, seed=3).to(COMPLEX[precision]))


def dense(precision: torch.dtype, seed: int) -> LinearOperator:
    return Dense(gaussian_matrix(5, 8, seed).to(precision))


def MAPS(precision: torch.dtype) -> Tensor:  # noqa: N802
    return random_tensor(1, 3, *PLANE, seed=5).to(COMPLEX[precision])


def shared_sense(precision: torch.dtype, seed: int) -> LinearOperator:
    return Sense(MAPS(precision), random_mask(1, 4, seed=seed)[0].numpy())


def soft(precision: torch.dtype) -> LinearOperator:
    return SoftSense(random_tensor(1, 2, 3, *PLANE, seed=5).to(COMPLEX[precision]), random_mask(1, 4)[0].numpy())


def stack(precision: torch.dtype) -> LinearOperator:
    return VerticalStack([shared_sense(precision, 1), shared_sense(precision, 2)], [3, 3])


def penalised(precision: torch.dtype) -> LinearOperator:
    return VerticalStack([Flatten((3, *PLANE)) @ shared_sense(precision, 1), 0.1 * Flatten(PLANE)], [60, 20])


PLANE, VOLUME = (5, 4), (3, 4, 5)
LINES, GRID = random_mask(1, 1, 4), random_mask(1, 5, 4)
POINTS = random_trajectory(1, 4, 9, spatial=PLANE)
MASKS: dict[str, Tensor] = {
    "1d mask": LINES,
    "1d mask, odd": random_mask(1, 5, 1),
    "2d mask": GRID,
    "masks per sample": random_mask(2, 5, 4),
    "1d masks per sample": random_mask(2, 1, 4),
    "constant mask": torch.ones(1, 5, 4),
    "fully sampled": torch.ones(1, 1, 1),
    "nothing sampled": torch.zeros(2, 5, 4),
}
VECTORS: list[tuple[str, Callable[[torch.dtype], LinearOperator], Shape, Shape]] = [
    ("flatten", lambda _: Flatten((3, 4)), (2, 3, 4), (2, 12)),
    ("flatten 3d", lambda _: Flatten((2, 3, 2)), (2, 2, 3, 2), (2, 12)),
    ("blocks that divide", lambda _: Blocks((4, 6), (2, 3)), (2, 4, 6), (2, 4, 6)),
    ("blocks that do not", lambda _: Blocks((5, 7), 3), (2, 5, 7), (2, 6, 9)),
    ("blocks, an extra one", lambda _: Blocks((4, 7), (2, 3), extra_block=True), (2, 4, 7), (2, 9, 6)),
    ("block larger than the image", lambda _: Blocks((2, 3), 4), (2, 2, 3), (2, 1, 16)),
    ("dense, few rows", lambda precision: Dense(gaussian_matrix(3, 8, 0).to(precision)), (2, 8), (2, 3)),
    ("dense, many rows", lambda precision: Dense(gaussian_matrix(9, 8, 0).to(precision)), (2, 3, 8), (2, 3, 9)),
    ("dense, orthonormal", lambda precision: Dense(orthonormal_matrix(5, 8, 0).to(precision)), (2, 8), (2, 5)),
    ("binary", lambda precision: BinaryDense(5, 8, seed=2).to(precision).requires_grad_(False), (2, 3, 8), (2, 3, 5)),
    ("dense image", lambda p: Dense(gaussian_matrix(7, 12, 0).to(p)) @ Flatten((3, 4)), (2, 3, 4), (2, 7)),
    ("dense blocks", lambda p: Dense(orthonormal_matrix(4, 6, 1).to(p)) @ Blocks((5, 7), (2, 3)), (2, 5, 7), (2, 9, 4)),
    ("hadamard, all rows", lambda _: Hadamard(16), (2, 16), (2, 16)),
    ("hadamard, some rows", lambda _: Hadamard(64, torch.tensor([5, 0, 63, 17])), (2, 3, 64), (2, 3, 4)),
    ("single pixel", lambda _: Hadamard(32, sequency_order(4, 8)[:11]) @ Flatten((4, 8)), (2, 4, 8), (2, 11)),
    ("inpainting", lambda _: Inpainting(random_mask(2, 3, 4)), (2, 3, 4), (2, 3, 4)),
    ("inpainting, colours", lambda _: Inpainting(random_mask(1, 1, 3, 4).double()), (2, 3, 3, 4), (2, 3, 3, 4)),
]  # fmt: skip
TABLE = [
    Case("fourier 1d", lambda _: Fourier(1), (2, 7), (2, 7), sized=False),
    Case("fourier 2d", lambda _: Fourier(2), (2, 3, 5, 4), (2, 3, 5, 4), sized=False),
    Case("fourier 3d", lambda _: Fourier(3), (2, 3, 4, 5), (2, 3, 4, 5), sized=False),
    Case("sampling 1d mask", lambda _: Sampling(LINES), (2, 3, 5, 4), (2, 3, 5, 4)),
    Case("sampling 2d mask", lambda _: Sampling(random_mask(2, 5, 4).double()), (2, 3, 5, 4), (2, 3, 5, 4)),
    Case("sensitivity", sensitivity(2), (2, 5, 4), (2, 3, 5, 4)),
    Case("sensitivity, shared maps", sensitivity(1), (2, 5, 4), (2, 3, 5, 4)),
    Case("soft sensitivity", soft_sensitivity(2), (2, 2, 5, 4), (2, 3, 5, 4)),
    Case("soft sensitivity, shared maps", soft_sensitivity(1), (2, 2, 5, 4), (2, 3, 5, 4)),
    sense_case("1d", (7,), random_mask(1, 7)),
    sense_case("2d, 1d mask", PLANE, LINES),
    sense_case("2d, shared maps", PLANE, LINES, (1, 3)),
    sense_case("2d, single coil", PLANE, LINES, (1, 1)),
    sense_case("2d, 2d mask", PLANE, GRID),
    sense_case("2d, masks per sample", PLANE, random_mask(2, 1, 4)),
    sense_case("2d, masks per sample, shared maps", PLANE, random_mask(2, 1, 4), (1, 3)),
    sense_case("2d, constant mask", PLANE, LINES.expand(1, 5, 4).clone()),
    sense_case("2d, first axis undersampled", PLANE, random_mask(1, 5, 1)),
    sense_case("2d, fully sampled", PLANE, torch.ones(1, 1, 1)),
    sense_case("2d, nothing sampled", PLANE, torch.zeros(1, 5, 4)),
    sense_case("3d, one axis", VOLUME, random_mask(1, 1, 1, 5)),
    sense_case("3d, two axes", VOLUME, random_mask(1, 1, 4, 5)),
    sense_case("3d, three axes", VOLUME, random_mask(1, 3, 4, 5)),
    sense_case("2d, single rows", PLANE, LINES, chunk_bytes=1),
    sense_case("2d, uneven chunks", PLANE, random_mask(2, 1, 4), chunk_bytes=2 * 2 * 3 * 4 * 16),
    sense_case("2d, chunks of columns", PLANE, random_mask(1, 5, 1), chunk_bytes=1),
    sense_case("3d, chunks, shared maps", VOLUME, random_mask(1, 1, 4, 5), (1, 3), chunk_bytes=1),
    dynamic_case("masks of lines", random_mask(1, 4, 1, 4)),
    dynamic_case("2d masks", random_mask(2, 4, 5, 4), (1, 3)),
    dynamic_case("one mask", random_mask(1, 1, 1, 4), (1, 3)),
    dynamic_case("frames left out", random_mask(2, 4, 1, 1)),
    dynamic_case("single rows of frames", random_mask(2, 4, 1, 4), (1, 3), chunk_bytes=1),
    dynamic_case("chunks of frames", random_mask(1, 4, 1, 4), chunk_bytes=3 * 2 * 3 * 20 * 16),
    soft_case("maps per sample", random_mask(2, 1, 4), (2, 2, 3, *PLANE)),
    soft_case("shared maps, 2d mask", GRID, (1, 2, 3, *PLANE)),
    soft_case("single rows", random_mask(2, 1, 4), (1, 2, 3, *PLANE), chunk_bytes=1),
    soft_case("2d+time", random_mask(2, 4, 1, 4), (2, 2, 3, 1, *PLANE), frames=(4,), chunk_bytes=2000),
    Case("sampled fourier", lambda _: SampledFourier(random_mask(2, 1, 4)), (2, 3, 5, 4), (2, 3, 5, 4)),
    Case("sampled frames", lambda _: SampledFourier(random_mask(1, 6, 1, 4), 2), (2, 3, 6, 5, 4), (2, 3, 6, 5, 4)),
    Case("composition", composition, (2, 5, 4), (2, 3, 5, 4)),
    Case("adjoint", lambda precision: Adjoint(composition(precision)), (2, 3, 5, 4), (2, 5, 4)),
    *(
        Case(f"{name}, {kinds}", build, domain, range, kinds, strict=False)
        for name, build, domain, range in VECTORS
        for kinds in ("rr", "cc")
    ),
    Case("dense, complex, few rows", complex_phi(3), (2, 8), (2, 3)),
    Case("dense, complex, many rows", complex_phi(7), (2, 3, 8), (2, 3, 7)),
    *(fourier_case(name, mask, real, mask.shape[-1] > 1) for name, mask in MASKS.items() for real in (False, True)),
    nufft_case("1d", (7,)),
    nufft_case("2d", PLANE),
    nufft_case("2d, no channels", PLANE, channels=()),
    nufft_case("2d, trajectories per sample", PLANE, batch=2, channels=(3, 2)),
    nufft_case("3d", VOLUME),
    Case("toeplitz 2d", lambda _: Toeplitz(POINTS, PLANE), (2, 3, *PLANE), (2, 3, *PLANE)),
    Case(
        "toeplitz 3d, weights per sample",
        lambda _: Toeplitz(random_trajectory(1, 36, spatial=VOLUME), VOLUME, uniform(2, 36, seed=4)),
        (2, *VOLUME),
        (2, *VOLUME),
    ),
    Case(
        "off-resonance",
        lambda _: OffResonance(POINTS, 40 * uniform(2, *PLANE, seed=6), 0.01 * uniform(4, 9, seed=7)),
        (2, 3, *PLANE),
        (2, 3, 4, 9),
        double=1e-11,
        single=1e-5,
    ),
    noncartesian_case("2d", PLANE),
    noncartesian_case("2d, no weights", PLANE, weighted=False),
    noncartesian_case("2d, all per sample", PLANE, (2, 2, 2)),
    noncartesian_case("2d, maps per sample", PLANE, (2, 1, 1)),
    noncartesian_case("2d, trajectories per sample", PLANE, (1, 2, 1)),
    noncartesian_case("2d, plain normal", PLANE, convolve=False),
    noncartesian_case("2d, off-resonance", PLANE, field=True),
    noncartesian_case("2d, off-resonance per sample", PLANE, (2, 2, 2), field=True),
    noncartesian_case("2d, two sets", PLANE, sets=(2,)),
    noncartesian_case("2d, two sets per sample, no weights", PLANE, (2, 1, 1), weighted=False, sets=(2,)),
    noncartesian_case("2d, two sets, off-resonance", PLANE, field=True, sets=(2,)),
    noncartesian_case("3d, two sets", VOLUME, sets=(2,)),
    noncartesian_case("3d", VOLUME),
    noncartesian_case("3d, off-resonance", VOLUME, field=True, weighted=False),
    Case("identity, cc", lambda _: Identity(), (2, 3, 4), (2, 3, 4), strict=False, sized=False),
    Case("identity, rr", lambda _: Identity(), (2, 3, 4), (2, 3, 4), "rr", strict=False, sized=False),
    Case("sum", lambda p: shared_sense(p, 1) + shared_sense(p, 2), (2, *PLANE), (2, 3, *PLANE)),
    Case("difference", lambda p: shared_sense(p, 1) - Sensitivity(MAPS(p)), (2, *PLANE), (2, 3, *PLANE)),
    Case("sum, rr", lambda p: 2 * dense(p, 3) + dense(p, 4) / 3, (2, 8), (2, 5), "rr", strict=False),
    Case("scaled", lambda p: (0.5 - 2j) * shared_sense(p, 1), (2, *PLANE), (2, 3, *PLANE)),
    Case("negative", lambda p: -shared_sense(p, 1), (2, *PLANE), (2, 3, *PLANE)),
    Case("stack of acquisitions", stack, (2, *PLANE), (2, 6, *PLANE)),
    Case("stack with a penalty", penalised, (2, *PLANE), (2, 80)),
    Case("stack, rr", lambda p: VerticalStack([dense(p, 3), Identity()], [5, 8]), (2, 8), (2, 13), "rr", strict=False),
    Case("algebra of sets", lambda p: Identity() @ (2 * soft(p) + soft(p)), (2, 2, *PLANE), (2, 3, *PLANE)),
]


@pytest.fixture(params=TABLE, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Case:
    case: Case = request.param
    if case.chunk_bytes is not None:
        monkeypatch.setattr(coil_chunks, "CHUNK_BYTES", case.chunk_bytes)
        monkeypatch.setattr(coil_chunks, "COIL_BYTES", case.chunk_bytes)
    return case


def test_no_operator_is_missing() -> None:
    exported = {getattr(operators, name) for name in operators.__all__}
    classes = {c for c in exported if isinstance(c, type) and issubclass(c, LinearOperator)} - {LinearOperator}
    tested = {type(module) for case in TABLE for module in case.build(DOUBLE).modules()}
    assert classes == {c for c in tested if issubclass(c, LinearOperator)}


def test_adjoint(case: Case) -> None:
    operator = case.build(DOUBLE)
    assert operator(case.x()).shape == case.range
    assert operator.adjoint(case.y()).shape == case.domain
    assert adjoint_gap(operator, case.x(), case.y()) < 1e-12
    assert adjoint_gap(operator.H, case.y(), case.x()) < 1e-12


def test_normal(case: Case) -> None:
    assert case.build(DOUBLE).normal(case.x()).shape == case.domain
    assert normal_gap(case.build(DOUBLE), case.x()) < case.double
    assert normal_gap(case.build(SINGLE), case.x(precision=SINGLE)) < case.single
    operator, a, b = case.build(DOUBLE), case.x(2), case.x(3)
    left, right = (b.conj() * operator.normal(a)).sum(), (operator.normal(b).conj() * a).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_linearity(case: Case) -> None:
    operator = case.build(DOUBLE)
    a, b = (0.3, -1.1) if "r" in case.kinds else (0.3 - 2j, -1.1 + 0.4j)
    second = case.functions(operator, case.x(3), case.y(3))
    for (function, u), (_, v) in zip(case.functions(operator, case.x(2), case.y(2)), second, strict=True):
        together, apart = function(a * u + b * v), a * function(u) + b * function(v)
        torch.testing.assert_close(together, apart, rtol=1e-12, atol=1e-12)


def test_gradient_is_the_adjoint(case: Case) -> None:
    operator, x, y = case.build(DOUBLE), case.x().requires_grad_(), case.y().requires_grad_()
    pairs = ((operator, x, case.y(4), operator.adjoint), (operator.adjoint, y, case.x(4), operator))
    for function, at, weight, expected in (*pairs, (operator.normal, x, case.x(4), operator.normal)):
        (gradient,) = torch.autograd.grad(function(at), at, weight)
        torch.testing.assert_close(gradient, expected(weight), rtol=1e-11, atol=1e-11)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch itself, in forward mode
def test_gradcheck(case: Case) -> None:
    for function, x in case.functions(case.build(DOUBLE), case.x().requires_grad_(), case.y().requires_grad_()):
        assert torch.autograd.gradcheck(
            function, (x,), eps=1e-4, atol=1e-8, rtol=1e-8, nondet_tol=ROUNDING, fast_mode=True, check_forward_ad=True
        )


def test_samples_do_not_touch_each_other(case: Case) -> None:
    for function, x in case.functions(case.build(DOUBLE), case.x(), case.y()):
        other = x.clone()
        other[0] = torch.nan
        assert torch.equal(function(other)[1:], function(x)[1:])


@pytest.mark.parametrize("precision", [SINGLE, DOUBLE])
def test_dtype_is_kept(case: Case, precision: torch.dtype) -> None:
    operator, x, y = case.build(precision), case.x(precision=precision), case.y(precision=precision)
    assert operator(x).dtype == y.dtype
    assert operator.adjoint(y).dtype == operator.normal(x).dtype == x.dtype


def conversions(operator: LinearOperator, case: Case, precision: torch.dtype) -> list[LinearOperator]:
    """Return the operator in a precision by each of the ways to say so."""
    called = copy.deepcopy(operator)
    called = called.double() if precision == DOUBLE else called.float()
    example = torch.zeros(0, dtype=COMPLEX[precision])
    converted = [copy.deepcopy(operator).to(way) for way in (precision, COMPLEX[precision], example, example.real)]
    inside = nn.ModuleList([copy.deepcopy(operator)]).to(precision)[0]
    assert isinstance(inside, LinearOperator)
    return [called, *converted, operator.on(dtype=precision), operator.on("cpu", COMPLEX[precision]), inside]


def test_conversion_and_higher_precision(case: Case) -> None:
    # Input of higher precision than the operator is computed in its own, and a converted operator is as exact.
    single = case.build(SINGLE)
    single.normal(case.x(precision=SINGLE))
    converted = conversions(single, case, DOUBLE)
    for operator in (single, converted[0]):
        assert operator(case.x()).dtype == case.y().dtype
        assert adjoint_gap(operator, case.x(), case.y()) < 1e-12
        assert normal_gap(operator, case.x()) < case.double
    kinds = [buffer.is_complex() for buffer in single.buffers()]
    expected = [function(x) for function, x in case.functions(single, case.x(), case.y())]
    for operator in converted:
        assert [buffer.is_complex() for buffer in operator.buffers()] == kinds
        for (function, x), result in zip(case.functions(operator, case.x(), case.y()), expected, strict=True):
            torch.testing.assert_close(function(x), result, rtol=1e-10, atol=1e-10)
    x, y = case.x(precision=SINGLE), case.y(precision=SINGLE)
    for operator in conversions(case.build(DOUBLE), case, SINGLE):
        assert adjoint_gap(operator, x, y) < 1e-6
        assert normal_gap(operator, x) < max(case.single, 1e-5)


def test_buffers_move_and_copies_agree(case: Case) -> None:
    operator = case.build(DOUBLE)
    operator.normal(case.x())
    names = ["latent"] if case.name.startswith("binary") else []
    assert list(operator.state_dict()) == names
    assert torch.equal(copy.deepcopy(operator)(case.x()), operator(case.x()))
    # A tensor that is no buffer would stay behind when the operator moves.
    held = [value for module in case.build(DOUBLE).modules() for value in vars(module).values()]
    assert not [value for value in held if isinstance(value, Tensor)]
    assert all(tensor.is_meta for tensor in (*operator.to("meta").buffers(), *operator.parameters()))


def test_on_leaves_the_operator_where_it_is(case: Case) -> None:
    operator = case.build(DOUBLE)
    before = {name: (buffer, buffer.clone()) for name, buffer in operator.named_buffers()}
    held = dict(operator.named_parameters())
    moved, narrow, alike = operator.on("meta"), operator.on(dtype=SINGLE), operator.on()
    assert type(moved) is type(narrow) is type(alike) is type(operator)
    assert all(tensor.is_meta for tensor in (*moved.buffers(), *moved.parameters()))
    for name, buffer in operator.named_buffers():
        assert buffer is before[name][0]
        assert torch.equal(buffer, before[name][1])
        assert alike.get_buffer(name).data_ptr() == buffer.data_ptr()  # what does not move is not copied
    for name, parameter in operator.named_parameters():
        assert parameter is held[name]
        assert parameter.dtype == DOUBLE
        assert not parameter.is_meta
    assert narrow(case.x(precision=SINGLE)).dtype == case.y(precision=SINGLE).dtype
    assert torch.equal(alike(case.x()), operator(case.x()))


def matched(sizes: tuple[int | str, ...], shape: Shape) -> dict[str, Shape] | None:
    """Return what the open sizes of a domain or range are in a shape; None where it does not fit."""
    opened: dict[str, Shape] = {}
    if "..." in sizes:
        head, tail = sizes.index("..."), len(sizes) - sizes.index("...") - 1
        if len(shape) < head + tail:
            return None
        opened["..."] = shape[head : len(shape) - tail]
        sizes, shape = sizes[:head] + sizes[head + 1 :], shape[:head] + shape[len(shape) - tail :]
    for size, number in zip(sizes, shape, strict=True):
        if isinstance(size, str):
            opened[size] = (number,)
        elif size != number:
            return None
    return opened


def test_name_says_domain_and_range(case: Case) -> None:
    operator = case.build(DOUBLE)
    shapes = operator.shapes
    assert shapes is not None
    domain, range_ = matched(shapes.domain, case.domain), matched(shapes.range, case.range)
    assert domain is not None and range_ is not None, (operator, case.domain, case.range)
    assert all(domain[name] == range_[name] for name in domain.keys() & range_.keys())
    assert repr(operator).startswith(f"{type(operator).__name__}({shapes}")
    assert "\n" not in repr(operator)
    assert operator.H.shapes == operators.Shapes(shapes.range, shapes.domain) or isinstance(operator, Adjoint)


def test_names_of_operators() -> None:
    sense = Sense(torch.ones(1, 8, 5, 4) + 0j, torch.tensor([True, True, False, True]))
    assert repr(sense) == "Sense((batch, 5, 4) -> (batch, 8, 5, 4), complex64, 75 % sampled)"
    product = Sampling(LINES) @ Fourier(2) @ Sensitivity(MAPS(DOUBLE))
    assert repr(product) == "Composition((batch, 5, 4) -> (batch, 3, 5, 4), Sampling @ Fourier @ Sensitivity)"
    assert repr(product.outer) == "Composition((batch, coil, n1, 4) -> (batch, coil, n1, 4), Sampling @ Fourier)"
    frames = Sense(torch.ones(2, 3, 1, 5, 4) + 0j, torch.ones(1, 1, 1, 1), fourier_ndim=2)
    assert repr(frames) == "Sense((2, n1, 5, 4) -> (2, 3, n1, 5, 4), complex64, 100 % sampled, fourier_ndim 2)"
    assert repr(Dense(torch.ones(3, 20)) @ Flatten(PLANE)).startswith("Composition((batch, 5, 4) -> (batch, 3), Dense")
    assert repr(Dense(torch.ones(3, 20))) == "Dense((batch, ..., 20) -> (batch, ..., 3), float32)"
    assert "n1, 4" in repr(Identity() @ Identity() @ Sampling(LINES))
    assert repr(penalised(SINGLE)).startswith(
        "VerticalStack((batch, 5, 4) -> (batch, 80), 60: Flatten @ Sense, 20: 0.1"
    )
    assert sense.on("meta").extra_repr() == "complex64"

    class Shift(LinearOperator):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("pixels", torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            return x

        def adjoint(self, y: Tensor) -> Tensor:
            return y

    assert repr(Flatten(PLANE) @ Flatten(PLANE)).endswith(
        "Flatten @ Flatten)"
    )  # shapes that do not fit are no error here
    assert repr(Shift()) == "Shift(pixels (2,))"
    assert repr(sense @ Shift()).startswith("Composition(Sense @ Shift, outer.")


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental:UserWarning")
def test_reduced_precision_keeps_the_imaginary_part() -> None:
    operator = Sense(MAPS(SINGLE), LINES)
    half, brain = copy.deepcopy(operator).half(), operator.on(dtype=torch.bfloat16)
    assert (half.sensitivity_maps.dtype, half.encoding.weights.dtype) == (torch.complex32, torch.float16)
    assert (brain.sensitivity_maps.dtype, brain.encoding.weights.dtype) == (torch.complex64, torch.bfloat16)
    assert half.sampling_mask.dtype == torch.bool
    torch.testing.assert_close(half.sensitivity_maps.to(torch.complex64), operator.sensitivity_maps, rtol=0, atol=2e-3)
    assert torch.equal(brain.sensitivity_maps, operator.sensitivity_maps)
    for wrong in (torch.int64, torch.bool):
        with pytest.raises(TypeError, match=r"expected a floating|only accepts floating"):
            operator.type(wrong)
        with pytest.raises(TypeError, match="only accepts floating"):
            operator.to(wrong)
    misspelt: dict[str, Any] = {"devise": "cpu"}
    with pytest.raises(TypeError, match="devise"):
        operator.to(**misspelt)


def test_masks_of_any_kind_are_the_same_operator() -> None:
    lines, plane = random_mask(1, 4)[0], random_mask(1, 5, 4)[0]
    x, maps, sets = random_tensor(2, *PLANE, seed=0), MAPS(DOUBLE), random_tensor(1, 2, 3, *PLANE, seed=5)
    kspace = random_tensor(2, 3, *PLANE, seed=1)
    builds: list[tuple[Callable[[Any], LinearOperator], Tensor]] = [
        (lambda mask: Sense(maps, mask), x),
        (lambda mask: SoftSense(sets, mask), torch.stack([x, 2 * x], 1)),
        (Sampling, kspace),
        (SampledFourier, kspace),
        (PartialFourier, x),
        (Inpainting, x),
    ]
    for build, image in builds:
        for mask, full in ((lines, lines[None, None]), (plane, plane[None])):
            # without maps only (cols,) can be told from a mask with fewer axes
            given = [mask] if mask.ndim == 1 or build in [builds[0][0], builds[1][0]] else [full]
            for form in (*given, full, full.expand(2, 5, 4)):
                for kind in (form, form.numpy(), form.numpy().astype(np.float32), form.int()):
                    torch.testing.assert_close(build(kind)(image), build(full)(image), rtol=0, atol=0)
    array = lines.numpy().copy()
    operator = Sense(maps, array)
    array[:] = False
    assert torch.equal(operator.sampling_mask, lines[None, None])
    frames = Sense(maps[:, :, None], random_mask(6, 1, 4).numpy(), fourier_ndim=2)  # (time, 1, cols)
    assert frames.sampling_mask.shape == (1, 6, 1, 4)
    for wrong, error, words in (
        ([True, False], TypeError, "sampling mask: got list, expected a NumPy array or a tensor"),
        (torch.ones(1, 1, 5, 4), ValueError, r"sampling mask: shape \(1, 1, 5, 4\), expected \(batch or 1, 2 spatial"),
        (np.array(1), ValueError, r"sampling mask: shape \(\), expected"),
    ):
        with pytest.raises(error, match=words):
            Sense(maps, wrong)  # type: ignore[arg-type]


def test_algebra_says_what_it_is() -> None:
    a, b = Flatten((2, 3)), Identity()
    assert repr(a - 2 * b) == "Sum((batch, 2, 3) -> (batch, 6), Flatten - 2 * Identity)"
    assert repr(a - (a + b)).endswith(", Flatten - (Flatten + Identity))")
    assert repr((a + b).H) == "Adjoint((batch, 6) -> (batch, 2, 3), (Flatten + Identity).H)"
    assert repr(VerticalStack([a @ b], [6])) == "VerticalStack((batch, 2, 3) -> (batch, 6), 6: Flatten @ Identity)"
    with pytest.raises(ValueError, match=r"Sum: results \(1, 6\) and \(1, 2, 3\) of .*, expected the same shape"):
        (a + b)(torch.ones(1, 2, 3))
    with pytest.raises(ValueError, match=r"Scaled: factor is nan, expected a finite number"):
        float("nan") * a
    with pytest.raises(ValueError, match=r"VerticalStack: results \(1, 6\), expected sizes \(5,\) on axis 1"):
        VerticalStack([a], [5])(torch.ones(1, 2, 3))
    with pytest.raises(ValueError, match=r"VerticalStack: 2 operators and the sizes \(6,\)"):
        VerticalStack([a, a], [6])
    with pytest.raises(TypeError, match=r"VerticalStack: got Tensor, expected a LinearOperator"):
        VerticalStack([torch.ones(1)], [6])  # type: ignore[list-item]
    other: Any = 1
    letters: Any = "b"
    for operate in (lambda: a + other, lambda: a - other, lambda: a * letters, lambda: other / a):
        with pytest.raises(TypeError, match=r"unsupported operand|can't multiply"):
            operate()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_device_move() -> None:
    for case in TABLE:
        operator = case.build(DOUBLE)
        expected = [function(x) for function, x in case.functions(operator, case.x(), case.y())]
        moved = case.functions(operator.to("cuda"), case.x().cuda(), case.y().cuda())
        for (function, x), theirs in zip(moved, expected, strict=True):
            ours = function(x)
            assert ours.device.type == "cuda", case.name
            torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-11, atol=1e-11, msg=case.name)


def test_wrong_input_is_named(case: Case) -> None:
    operator = case.build(DOUBLE)
    for function, x in case.functions(operator, case.x(), case.y()):
        if case.sized:
            with pytest.raises(ValueError, match=r"^\w+: [\w -]+ \(.*\).*(expected|fit)"):
                function(torch.cat((x, x[..., :1]), dim=-1))
        with pytest.raises(ValueError, match=r"^\w+: [\w -]+ \(.*\).*(expected|fit)"):
            function(x.flatten()[0])
        if case.strict:
            with pytest.raises(TypeError, match=r"^\w+: [\w -]+ ha(s|ve) dtype torch\.\w+, expected a \w+ dtype"):
                function(x.real if x.is_complex() else x + 0j)


CHECKS = (test_adjoint, test_normal, test_linearity, test_samples_do_not_touch_each_other)


class Draw:
    """Random sizes, odd and even, and flags, by the names of what they are for."""

    def __init__(self, draw: Callable[..., Any]) -> None:
        self.draw = draw
        self.seed: int = draw(st.integers(0, 99))
        self.batch: int = draw(st.integers(2, 3))
        self.coils: int = draw(st.integers(1, 4))

    def sizes(self, least: int = 1, most: int = 3) -> Shape:
        return tuple(self.draw(st.lists(st.integers(1, 7), min_size=least, max_size=most)))

    def shared(self) -> int:
        return int(self.draw(st.sampled_from([1, self.batch])))

    def mask(self, spatial: Shape) -> Tensor:
        sizes = [n if self.draw(st.booleans()) else 1 for n in spatial]
        return random_mask(self.shared(), *sizes, seed=self.seed)

    def maps(self, *shape: int) -> Callable[[torch.dtype], Tensor]:
        maps = random_tensor(self.shared(), *shape, seed=self.seed)
        return lambda precision: maps.to(COMPLEX[precision])

    def flag(self) -> bool:
        return bool(self.draw(st.booleans()))


def any_cartesian(d: Draw) -> Case:
    spatial = d.sizes()
    maps, mask, ndim = d.maps(d.coils, *spatial), d.mask(spatial), d.draw(st.integers(1, len(spatial)))
    image, kspace = (d.batch, *spatial), (d.batch, d.coils, *spatial)
    builds: list[tuple[Callable[[torch.dtype], LinearOperator], Shape]] = [
        (lambda p: Sense(maps(p), mask, ndim), image),
        (lambda p: Sampling(mask) @ Fourier(ndim) @ Sensitivity(maps(p)), image),
        (lambda _: SampledFourier(mask, ndim), kspace),
    ]
    build, domain = d.draw(st.sampled_from(builds))
    return Case("cartesian", build, domain, kspace)


def any_soft(d: Draw) -> Case:
    spatial, sets = d.sizes(), d.draw(st.integers(1, 3))
    maps, mask = d.maps(sets, d.coils, *spatial), d.mask(spatial)
    build = lambda p: SoftSense(maps(p), mask)  # noqa: E731
    return Case("soft sense", build, (d.batch, sets, *spatial), (d.batch, d.coils, *spatial))


def any_image_mask(d: Draw) -> Case:
    spatial, kinds = d.sizes(), d.draw(st.sampled_from(["rr", "cc", "rc"]))
    mask, shape = d.mask(spatial), (d.batch, *spatial)
    if kinds == "rr" or (kinds == "cc" and d.flag()):
        return Case("inpainting", lambda _: Inpainting(mask), shape, shape, kinds)
    return Case("partial fourier", lambda _: PartialFourier(mask, real=kinds == "rc"), shape, shape, kinds)


def any_sensing(d: Draw) -> Case:
    spatial, kinds = d.sizes(2, 2), d.draw(st.sampled_from(["rr", "cc"]))
    if d.flag():
        block = d.sizes(2, 2)
        blocks = Blocks(spatial, block, d.flag())
        cut: LinearOperator = blocks
        grid: Shape = (blocks.grid[0] * blocks.grid[1],)
    else:
        block, grid, cut = spatial, (), Flatten(spatial)
    rows, binary = d.draw(st.integers(1, 60)), d.flag()

    def build(precision: torch.dtype) -> LinearOperator:
        if binary:
            return BinaryDense(rows, prod(block), d.seed).to(precision).requires_grad_(False) @ cut
        return Dense(gaussian_matrix(rows, prod(block), d.seed).to(precision)) @ cut

    return Case("sensing", build, (d.batch, *spatial), (d.batch, *grid, rows), kinds)


def any_hadamard(d: Draw) -> Case:
    pixels, kinds = 2 ** int(d.draw(st.integers(0, 7))), d.draw(st.sampled_from(["rr", "cc"]))
    order = torch.randperm(pixels, generator=torch.Generator().manual_seed(d.seed))
    rows = order[: d.draw(st.integers(1, pixels))]
    return Case("hadamard", lambda _: Hadamard(pixels, rows), (d.batch, pixels), (d.batch, len(rows)), kinds)


def any_nonuniform(d: Draw) -> Case:
    spatial, samples = d.sizes(), d.sizes(1, 2)
    trajectory = random_trajectory(d.shared(), *samples, spatial=spatial, seed=d.seed)
    kind = d.draw(st.sampled_from(["nufft", "toeplitz", "off-resonance"]))
    image, data = (d.batch, d.coils, *spatial), (d.batch, d.coils, *samples)
    if kind == "nufft":
        return Case(kind, lambda _: NUFFT(trajectory, spatial), image, data, double=1e-11, single=1e-5)
    if kind == "toeplitz":
        weights = uniform(d.shared(), *samples, seed=d.seed)
        return Case(kind, lambda _: Toeplitz(trajectory, spatial, weights), image, image)
    field, times = 40 * uniform(d.shared(), *spatial, seed=d.seed), 0.01 * uniform(*samples, seed=d.seed)
    build = lambda _: OffResonance(trajectory, field, times)  # noqa: E731
    return Case(kind, build, image, data, double=1e-11, single=1e-5)


def any_noncartesian(d: Draw) -> Case:
    spatial, samples = d.sizes(), d.sizes(1, 2)
    trajectory = random_trajectory(d.shared(), *samples, spatial=spatial, seed=d.seed)
    maps = d.maps(d.coils, *spatial)
    weights = uniform(d.shared(), *samples, seed=d.seed) if d.flag() else None
    field = 40 * uniform(d.shared(), *spatial, seed=d.seed) if d.flag() else None
    times = None if field is None else 0.01 * uniform(*samples, seed=d.seed)

    def build(precision: torch.dtype) -> LinearOperator:
        acquisition = NonCartesianSense(maps(precision), trajectory, field_map=field, readout_times=times)
        return acquisition if weights is None else WeightedSense(acquisition, weights)

    image, kspace = (d.batch, *spatial), (d.batch, d.coils, *samples)
    return Case("noncartesian", build, image, kspace, double=1e-11, single=1e-5)


FAMILIES = (
    any_cartesian,
    any_soft,
    any_image_mask,
    any_sensing,
    any_hadamard,
    any_nonuniform,
    any_noncartesian,
)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_shape(family: Callable[[Draw], Case], data: st.DataObject) -> None:
    case = family(Draw(data.draw))
    for check in CHECKS:
        check(case)
    for precision in (SINGLE, DOUBLE):
        test_dtype_is_kept(case, precision)


def test_toeplitz_and_coils_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toeplitz, "CHUNK_BYTES", 1)
    case = noncartesian_case("chunks", PLANE)
    for check in CHECKS:
        check(case)
