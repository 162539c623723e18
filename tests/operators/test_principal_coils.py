"""The principal coils of an acquisition: the same operator less the energy that the coils left out hold."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from operators import PrincipalCoils, Sense, SoftSense, adjoint_gap, principal_coils, random_mask
from operators.linear import LinearOperator
from operators.noncartesian import NonCartesianSense
from operators.trajectories import radial_trajectory

SHAPE = (12, 10)
MASK = torch.from_numpy(random_mask(SHAPE[1], 2, 0.3, 1))


def smooth_maps(coils: int, sets: int | None = None, batch: int = 1) -> Tensor:
    """Return maps that fewer coils than there are explain to a thousandth, whose squares add to one."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, n, dtype=torch.float64) for n in SHAPE], indexing="ij")
    basis = torch.stack([torch.ones_like(x), x, y]).to(torch.complex128)
    mixing = torch.randn(batch * (sets or 1), coils, 3, dtype=torch.complex128, generator=generator)
    maps = torch.einsum("bck,kyx->bcyx", mixing, basis)
    maps = maps + 1e-3 * torch.randn(maps.shape, dtype=maps.dtype, generator=generator)
    maps = maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True)
    return maps if sets is None else maps.unflatten(0, (batch, sets))


def operators() -> dict[str, LinearOperator]:
    return {
        "one set": Sense(smooth_maps(14), MASK),
        "two sets": SoftSense(smooth_maps(14, sets=2), MASK),
        "a batch": Sense(smooth_maps(14, batch=2), MASK),
    }


@pytest.mark.parametrize("kind", ["one set", "two sets", "a batch"])
def test_it_is_close_in_fewer_coils(kind: str) -> None:
    operator = operators()[kind]
    found = principal_coils(operator)
    assert isinstance(operator, Sense | SoftSense) and isinstance(found.operator, type(operator))
    assert isinstance(found.operator, Sense | SoftSense) and found.operator.sensitivity_maps.shape[-3] == 8
    generator = torch.Generator().manual_seed(1)
    shape = (2, *((2,) if operator.sets else ()), *SHAPE)
    image = torch.randn(shape, dtype=torch.complex128, generator=generator)
    torch.testing.assert_close(found.operator(image), found.mixed(operator(image)))  # mixing commutes
    difference = operator.normal(image) - found.operator.normal(image)
    assert 0 < float(difference.norm() / operator.normal(image).norm()) < 0.01
    narrow = principal_coils(operator.on("cpu", torch.complex64)).operator
    torch.testing.assert_close(
        narrow.normal(image.to(torch.complex64)).to(image.dtype), found.operator.normal(image), rtol=1e-4, atol=1e-4
    )
    energy = float((image.conj() * difference).sum().real)
    assert energy > 0  # what is left out is positive, so that A'^H A' is below A^H A
    assert adjoint_gap(found.operator, image, found.operator(image)) < 1e-12


def test_coils_that_see_different_things_are_kept() -> None:
    """As many as hold the energy, and no more in a sample than it would have alone."""
    random = torch.randn(1, 14, *SHAPE, dtype=torch.complex128, generator=torch.Generator().manual_seed(3))
    random = random / torch.linalg.vector_norm(random, dim=1, keepdim=True)
    alone = principal_coils(Sense(random, MASK))
    assert alone.matrix is not None and alone.matrix.shape[1] > 12
    both = principal_coils(Sense(torch.cat([smooth_maps(14), random]), MASK))
    assert both.matrix is not None and float(both.matrix[0, 8:].abs().max()) == 0
    image = torch.randn(2, *SHAPE, dtype=torch.complex128, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(both.operator.normal(image)[1:], alone.operator.normal(image[1:]))
    few = principal_coils(Sense(smooth_maps(14), MASK)).operator
    torch.testing.assert_close(both.operator.normal(image)[:1], few.normal(image[:1]))


def test_gradients_reach_the_maps() -> None:
    maps = smooth_maps(14).requires_grad_()
    principal_coils(Sense(maps, MASK)).operator(torch.ones(1, *SHAPE, dtype=torch.complex128)).abs().sum().backward()
    assert maps.grad is not None and float(maps.grad.abs().max()) > 0


def test_samples_do_not_see_each_other() -> None:
    maps = smooth_maps(14, batch=2)
    both = principal_coils(Sense(maps, MASK)).operator
    alone = principal_coils(Sense(maps[1:], MASK)).operator
    image = torch.randn(2, *SHAPE, dtype=torch.complex128, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(both.normal(image)[1:], alone.normal(image[1:]))


def test_what_gains_nothing_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Sense(smooth_maps(8), MASK)
    spokes = NonCartesianSense(smooth_maps(14), radial_trajectory(5, 12, 10))
    many = Sense(smooth_maps(14), MASK)
    kspace = many(torch.ones(1, *SHAPE, dtype=torch.complex128))
    monkeypatch.setattr(sys.modules[PrincipalCoils.__module__], "MOST_BYTES", 14 * 120 * 16 - 1)
    for operator in (few, spokes, many):
        found = principal_coils(operator)
        assert found.operator is operator and found.matrix is None
    assert principal_coils(many).mixed(kspace) is kspace
