"""Cutting the readout to the object changes nothing but the size of the problem."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from molrecon.reconstructors.classical import CGSense
from molrecon.solvers.solver_settings import SolverSettings
from operators.checks import adjoint_gap, normal_gap
from operators.hybrid import crop_readout, embed_readout, hybrid
from operators.sense import Sense
from operators.soft_sense import SoftSense


def random_complex(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def random_mask(*shape: int, seed: int = 7) -> Tensor:
    mask = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask.flatten(1)[:, 0] = True
    return mask


def assert_close(ours: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)


def cut(x: Tensor, axis: int, rows: int) -> Tensor:
    return x.narrow(axis, (x.shape[axis] - rows) // 2, rows)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(["2d", "3d", "2d+time", "soft"]),
    full=st.integers(1, 9),
    data=st.data(),
    cols=st.integers(1, 6),
    batch=st.integers(1, 2),
    whole_mask=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_central_rows_are_a_problem_of_their_own(
    kind: str, full: int, data: st.DataObject, cols: int, batch: int, whole_mask: bool, seed: int
) -> None:
    rows = data.draw(st.integers(1, full))
    spatial, ndim = {"3d": ((full, 3, cols), 3), "2d+time": ((4, full, cols), 2)}.get(kind, ((full, cols), 2))
    axis = -ndim
    sizes = [1 if a == axis else n for a, n in zip(range(-len(spatial), 0), spatial, strict=True)]
    mask = random_mask(batch, *sizes, seed=seed)
    if whole_mask:
        mask = mask.expand(batch, *spatial)
    sets = (2,) if kind == "soft" else ()
    maps_spatial = (1, *spatial[1:]) if kind == "2d+time" else spatial
    maps = random_complex(1, *sets, 3, *maps_spatial, seed=seed)
    operator = SoftSense(maps, mask, ndim) if sets else Sense(maps, mask, ndim)
    x = random_complex(batch, *sets, *spatial, seed=seed + 1)
    problem = hybrid(operator(x), operator, rows)
    assert type(problem.operator) is type(operator)
    inside = cut(x, axis, rows)
    assert adjoint_gap(problem.operator, inside, problem.kspace) < 1e-12
    assert normal_gap(problem.operator, inside) < 1e-12
    assert_close(problem.operator(inside), problem.kspace)
    assert_close(problem.operator.normal(inside), cut(operator.normal(x), axis, rows))
    # the way back, for an object that lies inside
    embedded = problem.embed(inside)
    assert embedded.shape == x.shape and torch.equal(cut(embedded, axis, rows), inside)
    assert int((embedded != 0).sum()) == inside.numel()
    assert_close(embed_readout(problem.kspace, problem.full_rows, problem.axis), operator(embedded))


@pytest.mark.parametrize(("full", "rows"), [(12, 6), (12, 5), (11, 6), (11, 5), (6, 6)])
def test_cg_sense_of_the_cropped_problem_is_the_cropped_solution(full: int, rows: int) -> None:
    operator = Sense(random_complex(1, 3, full, 7, seed=1) / 3, random_mask(1, 1, 7))
    inside = torch.zeros(1, full, 7, dtype=torch.complex128)
    cut(inside, -2, rows).copy_(random_complex(1, rows, 7, seed=2))
    solver = CGSense(0.05, solver=SolverSettings(tol=1e-13, max_steps=500))
    kspace = operator(inside)
    whole, problem = solver(kspace, operator), hybrid(kspace, operator, rows)
    part = solver(problem.kspace, problem.operator)
    assert_close(problem.embed(part.value), whole.value, 1e-10)
    # noise reaches the rows outside; those inside do not see it
    noisy = kspace + 0.1 * operator.sampling(random_complex(1, 3, full, 7, seed=3))
    problem = hybrid(noisy, operator, rows)
    part, whole = solver(problem.kspace, problem.operator), solver(noisy, operator)
    assert_close(part.value, cut(whole.value, -2, rows), 1e-10)


def test_noise_keeps_its_level() -> None:
    noise = random_complex(1, 4, 256, 64, seed=0)
    assert crop_readout(noise, 128).abs().square().mean().sqrt() == pytest.approx(1, rel=0.02)


KSPACE = random_complex(1, 3, 8, 5, seed=0)
ERRORS: list[tuple[Callable[[], object], str]] = [
    (
        lambda: hybrid(KSPACE, Sense(KSPACE, random_mask(1, 8, 1)), 4),
        r"hybrid: the sampling mask \(1, 8, 1\) varies along the readout \(axis -2\), expected it fully sampled",
    ),
    (lambda: hybrid(KSPACE, Sense(KSPACE, random_mask(1, 1, 5)), 9), r"crop_readout: 9 rows, expected 1 to 8"),
    (
        lambda: hybrid(KSPACE[:, :2], Sense(KSPACE, random_mask(1, 1, 5)), 4),
        r"hybrid: k-space \(1, 2, 8, 5\) does not fit sensitivity maps \(1, 3, 8, 5\)",
    ),
    (lambda: crop_readout(KSPACE, 4, 2), r"crop_readout: axis is 2, expected -1 to -3, behind the batch"),
    (lambda: crop_readout(KSPACE, 0), r"crop_readout: 0 rows, expected 1 to 8"),
    (
        lambda: hybrid(KSPACE[:, :, 1:], Sense(KSPACE, random_mask(1, 1, 5)), 4),
        r"hybrid: k-space \(1, 3, 7, 5\) does not fit sensitivity maps \(1, 3, 8, 5\)",
    ),
]


@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_errors(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_real_kspace_is_refused() -> None:
    for call in (lambda k: crop_readout(k, 4), lambda k: hybrid(k, Sense(KSPACE, random_mask(1, 1, 5)), 4)):
        with pytest.raises(TypeError, match=r"\w+: k-space has dtype torch.float64, expected a complex dtype"):
            call(KSPACE.real)
