"""What is particular to the Cartesian operators, and their agreement with numpy, sigpy and BART."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from operators import (
    Adjoint,
    Composition,
    Fourier,
    LinearOperator,
    Sampling,
    Sense,
    Sensitivity,
    adjoint_gap,
    centred_fft,
    centred_ifft,
    coil_chunks,
    normal_gap,
)
from operators.sampled_fourier import SampledFourier
from operators.sensitivity import SoftSensitivity
from operators.soft_sense import SoftSense


def random_complex(*shape: int, seed: int, dtype: torch.dtype = torch.complex128) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def random_mask(*shape: int, seed: int = 7) -> Tensor:
    mask = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask.flatten(1)[:, 0] = True
    return mask


PLANE, VOLUME = (5, 4), (3, 4, 5)
CONSTANT = random_mask(1, 1, 4).expand(1, 5, 4).clone()


def test_a_converted_operator_has_one_precision() -> None:
    # nn.Module.double() alone would convert the real buffers and leave the complex ones.
    operator = Sense(random_complex(2, 3, 5, 4, seed=5, dtype=torch.complex64), random_mask(1, 1, 4)).double()
    for dtype in (torch.complex64, torch.complex128):
        x, y = random_complex(2, 5, 4, seed=0, dtype=dtype), random_complex(2, 3, 5, 4, seed=1, dtype=dtype)
        results = (operator(x), operator.normal(x), operator.adjoint(y))
        assert [result.dtype for result in results] == [torch.complex128] * 3


def test_adjoint_of_the_adjoint() -> None:
    operator = Sense(MAPS, MASK)
    assert isinstance(operator.H, Adjoint)
    assert operator.H.H is operator


@pytest.mark.parametrize("chunk_bytes", [1, 500, 2**20])
def test_normal_is_differentiable_in_the_maps(chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coil_chunks, "CHUNK_BYTES", chunk_bytes)
    x, mask = random_complex(2, 5, 4, seed=0), random_mask(1, 1, 4)
    maps = random_complex(2, 3, 5, 4, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: Sense(s, mask).normal(x), (maps,), fast_mode=True)
    weight = random_complex(2, 5, 4, seed=6)
    (ours,) = torch.autograd.grad(Sense(maps, mask).normal(x), maps, weight)
    plain = Sense(maps, mask)
    (theirs,) = torch.autograd.grad(plain.adjoint(plain(x)), maps, weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_undersampled_axes_are_found() -> None:
    maps = random_complex(1, 2, *VOLUME, seed=5)
    for shape, expected in (
        ((1, 1, 1, 5), (-1,)),
        ((1, 1, 4, 5), (-2, -1)),
        ((1, 3, 1, 1), (-3,)),
        ((2, 1, 4, 1), (-2,)),
    ):
        assert Sense(maps, random_mask(*shape)).undersampled == expected
        full = random_mask(*shape).expand(shape[0], *VOLUME)
        assert Sense(maps, full).undersampled == expected
    # A column that one sample measures and the other does not: the axis itself is fully sampled in neither.
    assert Sense(maps, torch.tensor([True, False]).reshape(2, 1, 1, 1)).undersampled == ()


def test_chunks_do_not_change_the_answer() -> None:
    operator = Sense(random_complex(2, 3, 9, 6, seed=5), random_mask(2, 1, 6))
    x = random_complex(2, 9, 6, seed=0)
    whole = operator.normal(x)
    for chunk_bytes in (1, 1200, 2400, 5000):
        with patch.object(coil_chunks, "CHUNK_BYTES", chunk_bytes):
            torch.testing.assert_close(operator.normal(x), whole, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("maps_batch", [1, 2])
@pytest.mark.parametrize("mask", [random_mask(1, 1, 4), random_mask(2, 1, 4), CONSTANT], ids=str)
def test_decoupled_rows(mask: Tensor, maps_batch: int) -> None:
    batch = max(maps_batch, len(mask))
    operator = Sense(random_complex(maps_batch, 3, 5, 4, seed=5), mask)
    x = random_complex(batch, 5, 4, seed=0)
    rows = operator.decoupled(1, 4, batch).normal(x[:, 1:4].flatten(0, 1)).unflatten(0, (batch, 3))
    torch.testing.assert_close(rows, operator.normal(x)[:, 1:4], rtol=1e-12, atol=1e-12)
    volume = Sense(random_complex(maps_batch, 3, *VOLUME, seed=5), mask[:, :1, None].expand(-1, 1, 4, -1)[..., :1])
    x = random_complex(batch, *VOLUME, seed=0)
    planes = volume.decoupled(0, 2, batch).normal(x[:, :2].flatten(0, 1)).unflatten(0, (batch, 2))
    torch.testing.assert_close(planes, volume.normal(x)[:, :2], rtol=1e-12, atol=1e-12)


def test_higher_precision_than_that_of_the_maps() -> None:
    operator = Sense(random_complex(2, 3, 5, 4, seed=5, dtype=torch.complex64), random_mask(1, 1, 4))
    x, y = random_complex(2, 5, 4, seed=0), random_complex(2, 3, 5, 4, seed=1)
    assert operator(x).dtype == operator.adjoint(y).dtype == operator.normal(x).dtype == torch.complex128
    assert adjoint_gap(operator, x, y) < 1e-12
    assert normal_gap(operator, x) < 1e-12


def test_unmeasured_samples_are_positive_zero() -> None:
    y = Sampling(torch.zeros(1, 1, 4))(random_complex(1, 2, 3, 4, seed=0))
    assert not torch.signbit(torch.view_as_real(y)).any()


MAPS = random_complex(2, 3, 6, 5, seed=5)
SETS = random_complex(1, 2, 3, 6, 5, seed=6)
MASK = random_mask(1, 1, 5)
REAL = torch.ones(2, 6, 5)
ERRORS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: Fourier(0), ValueError, r"Fourier: ndim is 0, expected at least 1"),
    (lambda: Fourier(2)(REAL), TypeError, r"Fourier: input has dtype torch.float32, expected a complex dtype"),
    (lambda: Fourier(2).normal(REAL), TypeError, r"Fourier: input has dtype torch.float32"),
    (lambda: Fourier(2).adjoint(MAPS[0, 0]), ValueError, r"Fourier: input \(6, 5\) has 2 axes, expected a batch axis"),
    (lambda: Sampling(torch.ones(())), ValueError, r"sampling mask: shape \(\), expected \(batch or 1, \*spatial\)"),
    (lambda: Sampling(torch.full((1, 5), 0.5)), ValueError, r"sampling mask: holds values other than 0 and 1"),
    (lambda: Sampling(torch.full((1, 5), torch.nan)), ValueError, r"sampling mask: holds values other than 0 and 1"),
    (lambda: Sampling(MASK)(MAPS.real), TypeError, r"Sampling: k-space has dtype torch.float64, expected a complex"),
    (
        lambda: Sampling(random_mask(1, 1, 4))(MAPS),
        ValueError,
        r"Sampling: k-space \(2, 3, 6, 5\) does not fit the sampling mask \(1, 1, 4\) .* expected \(batch, coil",
    ),
    (lambda: Sampling(random_mask(3, 1, 5)).adjoint(MAPS), ValueError, r"Sampling: k-space .* does not fit"),
    (lambda: Sampling(MASK)(MAPS[0]), ValueError, r"Sampling: k-space \(3, 6, 5\) does not fit"),
    (lambda: Sensitivity(MAPS.real), TypeError, r"Sensitivity: sensitivity maps has dtype torch.float64"),
    (lambda: Sensitivity(MAPS[0, 0]), ValueError, r"Sensitivity: maps \(6, 5\), expected a non-empty \(batch, coil"),
    (lambda: Sensitivity(MAPS[:, :0]), ValueError, r"Sensitivity: maps \(2, 0, 6, 5\), expected a non-empty"),
    (lambda: Sensitivity(MAPS)(REAL), TypeError, r"Sensitivity: image has dtype torch.float32, expected a complex"),
    (lambda: Sensitivity(MAPS).adjoint(MAPS.real), TypeError, r"Sensitivity: coil images has dtype torch.float64"),
    (
        lambda: Sensitivity(MAPS)(random_complex(2, 6, 6, seed=0)),
        ValueError,
        r"Sensitivity: image \(2, 6, 6\) does not fit sensitivity maps \(2, 3, 6, 5\) \(batch, coil, \*spatial\)",
    ),
    (lambda: Sensitivity(MAPS)(MAPS[:1, 0]), ValueError, r"Sensitivity: image \(1, 6, 5\) does not fit"),
    (lambda: Sensitivity(MAPS).adjoint(MAPS[:, :2]), ValueError, r"Sensitivity: coil images \(2, 2, 6, 5\) do not fit"),
    (lambda: SoftSensitivity(SETS.real), TypeError, r"SoftSensitivity: sensitivity maps has dtype torch.float64"),
    (lambda: SoftSensitivity(SETS[0, 0]), ValueError, r"SoftSensitivity: maps .* expected a non-empty \(batch, set"),
    (lambda: SoftSensitivity(SETS)(REAL), TypeError, r"SoftSensitivity: image has dtype torch.float32"),
    (lambda: SoftSensitivity(SETS)(MAPS[:, 0]), ValueError, r"SoftSensitivity: image \(2, 6, 5\) does not fit"),
    (lambda: SoftSensitivity(SETS).adjoint(MAPS[:, :2]), ValueError, r"SoftSensitivity: coil images \(2, 2, 6, 5\)"),
    (lambda: SoftSensitivity(SETS).adjoint(MAPS.real), TypeError, r"SoftSensitivity: coil images has dtype"),
    (lambda: Sense(MAPS.real, MASK), TypeError, r"Sensitivity: sensitivity maps has dtype torch.float64"),
    (lambda: Sense(MAPS, torch.ones(1, 4)), ValueError, r"Sense: sampling mask \(1, 1, 4\) has spatial size \(1, 4\)"),
    (lambda: Sense(MAPS, torch.ones(1, 1, 6, 5)), ValueError, r"sampling mask: shape \(1, 1, 6, 5\), expected"),
    (lambda: Sense(MAPS, random_mask(3, 1, 5)), ValueError, r"Sense: sampling mask \(3, 1, 5\) .* \(2, 3, 6, 5\)"),
    (
        lambda: Sense(MAPS, random_mask(1, 1, 4)),
        ValueError,
        r"Sense: sampling mask \(1, 1, 4\) has spatial size \(1, 4\), expected \(6, 5\) or 1 along fully sampled axes",
    ),
    (lambda: Sense(MAPS, MASK)(REAL), TypeError, r"Sensitivity: image has dtype torch.float32, expected a complex"),
    (lambda: Sense(MAPS, MASK).adjoint(MAPS.real), TypeError, r"Sense: k-space has dtype torch.float64"),
    (lambda: Sense(MAPS, MASK).normal(REAL), TypeError, r"Sense: image has dtype torch.float32, expected a complex"),
    (
        lambda: Sense(MAPS, MASK).normal(MAPS[:1, 0]),
        ValueError,
        r"Sense: image \(1, 6, 5\) does not fit sensitivity maps \(2, 3, 6, 5\)",
    ),
    (lambda: Sense(MAPS[:1], random_mask(2, 1, 5))(MAPS[:1, 0]), ValueError, r"Sampling: k-space \(1, 3, 6, 5\)"),
    # The normal operator must not broadcast a batch that the forward operator refuses.
    (lambda: Sense(MAPS[:1], random_mask(2, 1, 5)).normal(MAPS[:1, 0]), ValueError, r"Sense: image \(1, 6, 5\)"),
    (lambda: Sense(MAPS[:1], random_mask(2, 1, 5)).normal(MAPS[0]), ValueError, r"Sense: image \(3, 6, 5\)"),
    (
        lambda: Sense(MAPS, random_mask(1, 6, 1)).decoupled(0, 2, 1),
        ValueError,
        r"Sense: the first spatial axis is undersampled, expected it fully sampled to decouple",
    ),
    (
        lambda: Sense(MAPS, MASK, fourier_ndim=3),
        ValueError,
        r"SampledFourier: fourier_ndim is 3, expected 1 to 2, the number of spatial axes",
    ),
    (lambda: Sense(MAPS, MASK, fourier_ndim=0), ValueError, r"SampledFourier: fourier_ndim is 0, expected 1 to 2"),
    (lambda: Sense(MAPS, MASK).adjoint(MAPS[:, :2]), ValueError, r"Sense: k-space \(2, 2, 6, 5\) does not fit sensi"),
    (lambda: SampledFourier(MASK).normal(MAPS[0]), ValueError, r"SampledFourier: coil images \(3, 6, 5\) do not fit"),
    (lambda: SampledFourier(MASK).normal(MAPS.real), TypeError, r"SampledFourier: coil images has dtype torch.float64"),
    (
        lambda: Sense(MAPS[:, :, None], random_mask(1, 4, 1, 5), 2).normal(random_complex(2, 3, 6, 5, seed=0)),
        ValueError,
        r"Sense: image \(2, 3, 6, 5\) does not fit .* sampling mask \(1, 4, 1, 5\)",
    ),
    (lambda: SoftSense(MAPS.real, MASK), TypeError, r"SoftSense: sensitivity maps has dtype torch.float64"),
    (lambda: SoftSense(MAPS[0], MASK), ValueError, r"SoftSense: maps \(3, 6, 5\), expected a non-empty \(batch, set"),
    (lambda: SoftSense(MAPS[:, None], random_mask(3, 1, 5)), ValueError, r"SoftSense: sampling mask \(3, 1, 5\)"),
    (
        lambda: SoftSense(SETS, random_mask(1, 6, 1)).decoupled(0, 2, 1),
        ValueError,
        r"SoftSense: the first spatial axis is undersampled, expected it fully sampled to decouple",
    ),
    (
        lambda: SoftSense(SETS, random_mask(1, 1, 4)),
        ValueError,
        r"SoftSense: sampling mask \(1, 1, 4\) has spatial size \(1, 4\), expected \(6, 5\)",
    ),
    (lambda: SoftSense(SETS, MASK)(MAPS[:, 0]), ValueError, r"SoftSense: image \(2, 6, 5\) does not fit"),
    (lambda: SoftSense(SETS, MASK).normal(MAPS), ValueError, r"SoftSense: image \(2, 3, 6, 5\) does not fit"),
    (lambda: SoftSense(SETS, MASK).normal(REAL), TypeError, r"SoftSense: image has dtype torch.float32"),
    (lambda: SoftSense(SETS, MASK).adjoint(MAPS[:, :2]), ValueError, r"SoftSense: k-space \(2, 2, 6, 5\) does not fit"),
    (
        lambda: Fourier(2) @ MASK,  # type: ignore[operator]
        TypeError,
        r"LinearOperator @: got Tensor, expected a LinearOperator",
    ),
    (
        lambda: adjoint_gap(Sensitivity(MAPS), MAPS[:, 0], MAPS[:, :2]),
        ValueError,
        r"Sensitivity: coil images \(2, 2, 6, 5\) do not fit|adjoint_gap: A maps \(2, 6, 5\) to \(2, 3, 6, 5\)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


class Wrong(LinearOperator):
    """Claims the identity as the adjoint of a scaling by i."""

    def forward(self, x: Tensor) -> Tensor:
        return 1j * x

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def normal(self, x: Tensor) -> Tensor:
        return x


class Cut(Wrong):
    """Returns an adjoint of the wrong shape."""

    def adjoint(self, y: Tensor) -> Tensor:
        return y[:, 1:]


def test_checks_find_what_is_wrong() -> None:
    x = random_complex(2, 5, seed=0)
    assert adjoint_gap(Wrong(), x, x) > 0.1
    assert normal_gap(Wrong(), x) > 0.1
    with pytest.raises(ValueError, match=r"adjoint_gap: .* and A\^H maps \(2, 5\) to \(2, 4\)"):
        adjoint_gap(Cut(), x, x)


def test_composition_is_sense() -> None:
    x, maps, mask = random_complex(2, 5, 4, seed=0), random_complex(2, 3, 5, 4, seed=5), random_mask(1, 1, 4)
    composed, whole = Sampling(mask) @ Fourier(2) @ Sensitivity(maps), Sense(maps, mask)
    assert isinstance(composed, Composition)
    torch.testing.assert_close(composed(x), whole(x))
    torch.testing.assert_close(composed.normal(x), whole.normal(x))
    torch.testing.assert_close(composed.H(whole(x)), whole.adjoint(whole(x)))


def numpy_fft(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(x, axes=axes), axes=axes, norm="ortho"), axes=axes)


SIZES = st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(shape=SIZES, data=st.data(), seed=st.integers(0, 99))
def test_centred_fft_is_the_formula(shape: tuple[int, ...], data: st.DataObject, seed: int) -> None:
    axes = st.integers(-len(shape), len(shape) - 1)
    dim = data.draw(st.lists(axes, min_size=1, max_size=len(shape), unique_by=lambda a: a % len(shape)).map(tuple))
    x = random_complex(*shape, seed=seed)
    np.testing.assert_allclose(centred_fft(x, dim).numpy(), numpy_fft(x.numpy(), dim), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(centred_ifft(centred_fft(x, dim), dim), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [6, 7])
def test_zero_frequency_is_in_the_middle(n: int) -> None:
    spectrum = centred_fft(torch.ones(n, dtype=torch.complex128), (0,))
    expected = torch.zeros(n, dtype=torch.complex128)
    expected[n // 2] = n**0.5
    torch.testing.assert_close(spectrum, expected)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    spatial=SIZES,
    batch=st.integers(1, 3),
    coils=st.integers(1, 3),
    shared=st.tuples(st.booleans(), st.booleans()),
    varying=st.lists(st.booleans(), min_size=3, max_size=3),
    chunk_bytes=st.sampled_from([1, 300, 2**20]),
    seed=st.integers(0, 99),
)
def test_sense_is_the_formula(
    spatial: tuple[int, ...],
    batch: int,
    coils: int,
    shared: tuple[bool, bool],
    varying: list[bool],
    chunk_bytes: int,
    seed: int,
) -> None:
    maps = random_complex(1 if shared[0] else batch, coils, *spatial, seed=seed)
    sizes = [n if v else 1 for n, v in zip(spatial, varying, strict=False)]
    mask = random_mask(1 if shared[1] else batch, *sizes, seed=seed)
    x, y = random_complex(batch, *spatial, seed=seed + 1), random_complex(batch, coils, *spatial, seed=seed + 2)
    operator = Sense(maps, mask)
    axes = tuple(range(-len(spatial), 0))
    expected = mask.numpy()[:, None] * numpy_fft(maps.numpy() * x.numpy()[:, None], axes)
    np.testing.assert_allclose(operator(x).numpy(), expected, rtol=1e-12, atol=1e-12)
    assert adjoint_gap(operator, x, y) < 1e-12
    with patch.object(coil_chunks, "CHUNK_BYTES", chunk_bytes):
        assert normal_gap(operator, x) < 1e-12


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 7)),
    batch=st.integers(1, 3),
    coils=st.integers(1, 3),
    shared=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    varying=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    chunk_bytes=st.sampled_from([1, 300, 2000, 2**20]),
    seed=st.integers(0, 99),
)
def test_dynamic_sense_is_frame_by_frame(
    shape: tuple[int, int, int],
    batch: int,
    coils: int,
    shared: tuple[bool, bool, bool],
    varying: tuple[bool, bool, bool],
    chunk_bytes: int,
    seed: int,
) -> None:
    frames, *plane = shape
    maps = random_complex(1 if shared[0] else batch, coils, 1 if shared[2] else frames, *plane, seed=seed)
    mask = random_mask(
        1 if shared[1] else batch, *(n if v else 1 for n, v in zip(shape, varying, strict=True)), seed=seed
    )
    x, y = random_complex(batch, *shape, seed=seed + 1), random_complex(batch, coils, *shape, seed=seed + 2)
    operator = Sense(maps, mask, fourier_ndim=2)
    kspace, image = operator(x), operator.adjoint(y)
    with patch.object(coil_chunks, "CHUNK_BYTES", chunk_bytes):
        normal = operator.normal(x)
    assert normal_gap(operator, x) < 1e-12
    for t in range(frames):
        frame = Sense(maps[:, :, t % maps.shape[2]], mask[:, t % mask.shape[1]])
        torch.testing.assert_close(kspace[:, :, t], frame(x[:, t]), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(image[:, t], frame.adjoint(y[:, :, t]), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(normal[:, t], frame.normal(x[:, t]), rtol=1e-12, atol=1e-12)
    if operator.chunk_axis == 1:
        parts = operator.decoupled(0, frames, batch).normal(x.flatten(0, 1)).unflatten(0, (batch, frames))
        torch.testing.assert_close(parts, normal, rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    spatial=st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple),
    batch=st.integers(1, 2),
    sets=st.integers(1, 3),
    coils=st.integers(1, 3),
    varying=st.lists(st.booleans(), min_size=3, max_size=3),
    chunk_bytes=st.sampled_from([1, 300, 2**20]),
    seed=st.integers(0, 99),
)
def test_soft_sense_is_the_sum_of_sets(
    spatial: tuple[int, ...], batch: int, sets: int, coils: int, varying: list[bool], chunk_bytes: int, seed: int
) -> None:
    maps = random_complex(batch, sets, coils, *spatial, seed=seed)
    mask = random_mask(batch, *(n if v else 1 for n, v in zip(spatial, varying, strict=False)), seed=seed)
    x, y = random_complex(batch, sets, *spatial, seed=seed + 1), random_complex(batch, coils, *spatial, seed=seed + 2)
    operator = SoftSense(maps, mask)
    alone = [Sense(maps[:, k], mask) for k in range(sets)]
    expected = torch.stack([A(x[:, k]) for k, A in enumerate(alone)]).sum(0)
    torch.testing.assert_close(operator(x), expected, rtol=1e-12, atol=1e-12)
    expected = torch.stack([A.adjoint(y) for A in alone], dim=1)
    torch.testing.assert_close(operator.adjoint(y), expected, rtol=1e-12, atol=1e-12)
    assert adjoint_gap(operator, x, y) < 1e-12
    with patch.object(coil_chunks, "CHUNK_BYTES", chunk_bytes):
        assert normal_gap(operator, x) < 1e-12
    assert operator.sets == sets
    assert alone[0].sets is None
    if operator.chunk_axis == 2 and len(spatial) > 1:
        apart = operator.decoupled(0, spatial[0], batch).normal(x.movedim(2, 1).flatten(0, 1))
        together = apart.unflatten(0, (batch, spatial[0])).movedim(1, 2)
        torch.testing.assert_close(together, operator.normal(x), rtol=1e-12, atol=1e-12)


def test_coils_in_groups_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = random_complex(1, 5, 4, 6, 3, seed=5)
    operator = Sense(maps, random_mask(2, 1, 6, 3))
    x, y = random_complex(2, 4, 6, 3, seed=0), random_complex(2, 5, 4, 6, 3, seed=1)
    kspace, image = operator(x), operator.adjoint(y)
    narrow = y.to(torch.complex64)
    for coils in (1, 2, 4):
        monkeypatch.setattr(coil_chunks, "COIL_BYTES", coils * x.numel() * 16)
        torch.testing.assert_close(operator(x), kspace, rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(operator.adjoint(y), image, rtol=1e-13, atol=1e-13)
        soft = SoftSense(maps[:, None], operator.sampling_mask)
        wide = soft.adjoint(narrow, torch.complex128)[:, 0]
        torch.testing.assert_close(wide, operator.adjoint(narrow.to(torch.complex128)), rtol=1e-13, atol=1e-13)
        leaf = maps.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(Sense(leaf, operator.sampling_mask)(x), leaf, y)
        assert gradient.shape == maps.shape


@pytest.mark.parametrize("mask", [random_mask(1, 1, 1, 40), random_mask(1, 1, 24, 40)], ids=["one axis", "two axes"])
def test_memory_of_a_volume_is_one_chunk_and_few_images(mask: Tensor) -> None:
    profiler = torch.autograd.profiler
    operator = Sense(random_complex(1, 6, 32, 24, 40, seed=5, dtype=torch.complex64), mask)
    x = random_complex(1, 32, 24, 40, seed=0, dtype=torch.complex64)
    chunk = 6 * x[0, 0].numel() * 8
    with patch.object(coil_chunks, "CHUNK_BYTES", chunk), profiler.profile(profile_memory=True) as record:
        operator.normal(x)
    held, peak = 0, 0
    for event in record.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    # in a chunk: coil images, their spectrum, the weighted spectrum; then the parts and the whole of the result
    assert peak < 4.2 * chunk + 2.1 * x.numel() * 8
    assert peak > chunk  # the record is not empty


@pytest.mark.parametrize("mask", [random_mask(1, 1, 7), random_mask(1, 6, 7)], ids=["1d mask", "2d mask"])
def test_sense_agrees_with_sigpy(mask: Tensor) -> None:
    linop = pytest.importorskip("sigpy.mri.linop", reason="sigpy is not installed")
    maps, x, y = random_complex(1, 4, 6, 7, seed=0), random_complex(1, 6, 7, seed=1), random_complex(1, 4, 6, 7, seed=2)
    theirs = linop.Sense(maps[0].numpy(), weights=mask.expand(1, 6, 7).double().numpy())
    ours = Sense(maps, mask)
    np.testing.assert_allclose(ours(x)[0].numpy(), theirs(x[0].numpy()), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours.adjoint(y)[0].numpy(), theirs.H(y[0].numpy()), rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(shutil.which("bart") is None, reason="BART is not installed")
@pytest.mark.parametrize("shape", [(6, 8), (7, 5)])
@pytest.mark.parametrize("inverse", [False, True])
def test_centred_fft_agrees_with_bart(shape: tuple[int, int], inverse: bool, tmp_path: Path) -> None:
    x = random_complex(*shape, seed=0, dtype=torch.complex64)
    # BART's first axis varies fastest.
    (tmp_path / "x.hdr").write_text(f"# Dimensions\n{shape[1]} {shape[0]}{' 1' * 14}\n")
    x.numpy().tofile(tmp_path / "x.cfl")
    subprocess.run(
        ["bart", "fft", "-u", *(["-i"] if inverse else []), "3", "x", "y"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    theirs = torch.from_numpy(np.fromfile(tmp_path / "y.cfl", dtype=np.complex64)).reshape(shape)
    ours = (centred_ifft if inverse else centred_fft)(x, (0, 1))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
