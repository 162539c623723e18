"""Operators handed to sigpy and deepinv and taken from sigpy, against those libraries' own operators."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import LinearOperator, Sense, adjoint_gap, normal_gap
from operators.adapters import from_sigpy, to_deepinv, to_sigpy


def random_complex(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def sigpy() -> Any:
    pytest.importorskip("sigpy.mri", reason="sigpy is not installed")
    return pytest.importorskip("sigpy")


@pytest.fixture
def deepinv() -> Any:
    # deepinv needs torchvision, which must be the one made for the installed torch.
    return pytest.importorskip("deepinv", reason="deepinv cannot be imported", exc_type=ImportError)


MASK = torch.tensor([True, False, True, True, False])[None, None]
MAPS = random_complex(1, 3, 6, 5, seed=0)
SENSE = Sense(MAPS, MASK)
IMAGE, KSPACE = (6, 5), (3, 6, 5)


class Scaling(LinearOperator):
    """A real operator, (batch, n) to (batch, 2, n)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x, 2 * x], dim=1)

    def adjoint(self, y: Tensor) -> Tensor:
        return y[:, 0] + 2 * y[:, 1]

    def normal(self, x: Tensor) -> Tensor:
        return 5 * x


def test_to_sigpy_is_the_sense_of_sigpy(sigpy: Any) -> None:
    from sigpy.mri.linop import Sense as TheirSense

    ours = to_sigpy(SENSE, IMAGE, KSPACE)
    theirs = TheirSense(MAPS[0].numpy(), weights=MASK.expand(1, *IMAGE).double().numpy())
    x, y = random_complex(*IMAGE, seed=1).numpy(), random_complex(*KSPACE, seed=2).numpy()
    assert isinstance(ours, sigpy.linop.Linop)
    assert (ours.oshape, ours.ishape) == (theirs.oshape, theirs.ishape)
    np.testing.assert_allclose(ours * x, theirs * x, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours.H * y, theirs.H * y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours.N * x, theirs.N * x, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours.H.H * x, theirs * x, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose((2 * ours.H * ours) * x, 2 * (theirs.H * theirs * x), rtol=1e-12, atol=1e-12)
    assert repr(ours) == "<[3, 6, 5]x[6, 5]> Sense Linop>"


def test_to_sigpy_uses_the_structured_normal_operator(sigpy: Any) -> None:
    linop = to_sigpy(Scaling(), (4,), (2, 4))
    with patch.object(Scaling, "forward", side_effect=AssertionError):
        np.testing.assert_array_equal(linop.N * np.ones(4), 5 * np.ones(4))
        np.testing.assert_array_equal(linop.N.H * np.ones(4), 5 * np.ones(4))


def test_sigpy_solves_with_our_operator(sigpy: Any) -> None:
    x = random_complex(*IMAGE, seed=1)
    y = SENSE(x[None])[0].numpy()
    app = sigpy.app.LinearLeastSquares(to_sigpy(SENSE, IMAGE, KSPACE), y, lamda=1e-8, max_iter=100, show_pbar=False)
    np.testing.assert_allclose(app.run(), x.numpy(), rtol=1e-5, atol=1e-5)


def test_to_sigpy_takes_any_array(sigpy: Any) -> None:
    linop, x = to_sigpy(SENSE, IMAGE, KSPACE), random_complex(*IMAGE, seed=1).numpy()
    expected = linop * x
    locked = x.copy()
    locked.flags.writeable = False
    for array in (locked, x[::-1].copy()[::-1], np.asfortranarray(x)):
        np.testing.assert_array_equal(linop * array, expected)
    assert (linop * x.astype(np.complex64)).dtype == np.complex128  # the maps are
    gradient_free = to_sigpy(Sense(MAPS.clone().requires_grad_(), MASK), IMAGE, KSPACE)
    np.testing.assert_array_equal(gradient_free * x, expected)


def linops() -> list[Callable[[Any], Any]]:
    return [
        lambda sigpy: sigpy.mri.linop.Sense(MAPS[0].numpy()),
        lambda sigpy: sigpy.linop.FFT((4, 5)) * sigpy.linop.Resize((4, 5), (3, 4)),
        lambda sigpy: sigpy.linop.Multiply((4,), np.array([1j, 2, 0, 3 - 1j])),
        lambda sigpy: sigpy.linop.Wavelet((8, 8), wave_name="haar"),
        lambda sigpy: sigpy.linop.Identity((4,)),
    ]


@pytest.mark.parametrize("build", linops(), ids=["sense", "padded fft", "multiply", "wavelet", "identity"])
def test_from_sigpy(build: Callable[[Any], Any], sigpy: Any) -> None:
    linop = build(sigpy)
    operator = from_sigpy(linop)
    x, y = random_complex(2, *linop.ishape, seed=1), random_complex(2, *linop.oshape, seed=2)
    for sample, expected in zip(operator(x), x, strict=True):
        np.testing.assert_array_equal(sample.numpy(), linop * expected.numpy())
    assert adjoint_gap(operator, x, y) < 1e-12
    assert adjoint_gap(operator.H, y, x) < 1e-12
    assert normal_gap(operator, x) < 1e-12
    assert operator(x.to(torch.complex64)).shape == y.shape
    for function, point in ((operator, x), (operator.adjoint, y), (operator.normal, x)):
        assert torch.autograd.gradcheck(function, (point.requires_grad_(),), fast_mode=True)
        assert torch.autograd.gradgradcheck(function, (point.requires_grad_(),), fast_mode=True)
        point.requires_grad_(False)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(operator(x), x, y)
    torch.testing.assert_close(gradient, operator.adjoint(y), rtol=1e-12, atol=1e-12)


def test_from_sigpy_with_real_input_has_a_real_gradient(sigpy: Any) -> None:
    operator = from_sigpy(sigpy.linop.Multiply((4,), np.array([1j, 2, 0, 3 - 1j])))
    x = torch.arange(8, dtype=torch.float64).reshape(2, 4).requires_grad_()
    assert torch.autograd.gradcheck(operator, (x,))


def test_from_sigpy_never_shares_memory_with_its_input(sigpy: Any) -> None:
    x = torch.ones(2, 4)
    from_sigpy(sigpy.linop.Identity((4,)))(x).zero_()
    assert torch.equal(x, torch.ones(2, 4))


def test_from_sigpy_and_back(sigpy: Any) -> None:
    linop = to_sigpy(SENSE, IMAGE, KSPACE)
    x = random_complex(2, *IMAGE, seed=1)
    torch.testing.assert_close(from_sigpy(linop)(x), torch.cat([SENSE(sample[None]) for sample in x]), rtol=0, atol=0)
    back = to_sigpy(from_sigpy(linop), IMAGE, KSPACE)
    np.testing.assert_array_equal(back * x[0].numpy(), linop * x[0].numpy())


def test_sigpy_errors(sigpy: Any) -> None:
    linop = to_sigpy(SENSE, IMAGE, KSPACE)
    with pytest.raises(RuntimeError) as caught:
        linop * np.zeros((7, 5), complex)
    assert "input shape mismatch" in str(caught.value.__cause__)
    with pytest.raises(RuntimeError) as caught:
        linop * np.zeros(IMAGE)
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(RuntimeError) as caught:
        to_sigpy(SENSE, IMAGE, IMAGE) * np.zeros(IMAGE, complex)
    assert "Sense maps (6, 5) to (3, 6, 5), expected (6, 5) to (6, 5)" in str(caught.value.__cause__)
    operator = from_sigpy(linop)
    for shape in ((6, 5), (2, 6, 4), (0, 6, 5), ()):
        with pytest.raises(ValueError, match=r"from_sigpy: input \(.*\) does not fit .*, expected \(batch, \*\(6, 5"):
            operator(torch.zeros(shape, dtype=torch.complex64))
    with pytest.raises(TypeError, match=r"to_sigpy: got \w+, expected a LinearOperator"):
        to_sigpy(linop, IMAGE, KSPACE)
    with pytest.raises(TypeError, match=r"from_sigpy: got Sense, expected a sigpy.linop.Linop"):
        from_sigpy(SENSE)


def deepinv_pair(deepinv: Any, spatial: tuple[int, ...]) -> tuple[Any, Any, Tensor, Tensor]:
    """Return our physics, theirs, an image and a measurement."""
    maps = random_complex(2, 3, *spatial, seed=0).to(torch.complex64)
    mask = (torch.rand(2, *spatial, generator=torch.Generator().manual_seed(3)) < 0.5).float()
    three_d = len(spatial) == 3
    theirs = deepinv.physics.MultiCoilMRI(mask=mask[:, None], coil_maps=maps, three_d=three_d)
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, 2, *spatial, generator=generator), torch.randn(2, 2, 3, *spatial, generator=generator)
    return to_deepinv(Sense(maps, mask)), theirs, x, y


@pytest.mark.parametrize("spatial", [(6, 5), (3, 4, 5)], ids=["2d", "3d"])
def test_to_deepinv_is_their_multi_coil_mri(spatial: tuple[int, ...], deepinv: Any) -> None:
    ours, theirs, x, y = deepinv_pair(deepinv, spatial)
    assert isinstance(ours, deepinv.physics.LinearPhysics)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.A(x, sigma=0.1), theirs.A(x))
    torch.testing.assert_close(ours.A_adjoint(y), theirs.A_adjoint(y))
    torch.testing.assert_close(ours.A_adjoint_A(x), theirs.A_adjoint_A(x))
    assert abs(float((ours.A(x) * y).sum() - (x * ours.A_adjoint(y)).sum())) < 1e-3


def test_deepinv_solves_with_our_operator(deepinv: Any) -> None:
    ours, theirs, x, _ = deepinv_pair(deepinv, (6, 5))
    y = theirs(x)
    torch.testing.assert_close(ours.A_dagger(y), theirs.A_dagger(y), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ours.prox_l2(x, y, 1.0), theirs.prox_l2(x, y, 1.0), rtol=1e-3, atol=1e-3)
    ours.noise_model = deepinv.physics.GaussianNoise(0.1, rng=torch.Generator().manual_seed(0))
    assert 0.01 < float((ours(x) - y).std()) < 0.2


def test_deepinv_moves_copies_and_differentiates_ours(deepinv: Any) -> None:
    ours, _, x, y = deepinv_pair(deepinv, (6, 5))
    assert not ours.operator.state_dict()
    torch.testing.assert_close(ours.clone().A(x), ours.A(x))
    assert all(buffer.is_meta for buffer in ours.clone().to("meta").buffers())
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(ours.A(x), x, y)
    torch.testing.assert_close(gradient, ours.A_adjoint(y))


def test_deepinv_moves_a_copy(deepinv: Any) -> None:
    operator = Sense(torch.ones(1, 2, 6, 5, dtype=torch.complex64), torch.ones(5))
    to_deepinv(operator).to(torch.float64)
    assert operator.sensitivity_maps.dtype == torch.complex64


def test_to_deepinv_of_a_real_operator(deepinv: Any) -> None:
    physics = to_deepinv(Scaling(), is_complex=False)
    x, y = torch.ones(2, 1, 4), torch.ones(2, 2, 4)
    assert physics.A(x).shape == y.shape
    assert torch.equal(physics.A_adjoint(y), 3 * x)
    assert torch.equal(physics.A_adjoint_A(x), 5 * x)
    with pytest.raises(ValueError, match=r"to_deepinv: input \(2, 2, 4\), expected one channel \(batch, 1, \.\.\.\)"):
        physics.A(y)


def test_deepinv_errors(deepinv: Any) -> None:
    with pytest.raises(TypeError, match=r"to_deepinv: got Tensor, expected a LinearOperator"):
        to_deepinv(MAPS)  # type: ignore[arg-type]
    physics = to_deepinv(SENSE)
    for wrong in (torch.zeros(1, 6, 5), torch.zeros(2), random_complex(1, 2, 6, 5, seed=0)):
        with pytest.raises(ValueError, match=r"to_deepinv: input \(.*\) torch\..*, expected real \(batch, 2, \.\.\.\)"):
            physics.A(wrong)


@pytest.mark.parametrize(
    ("call", "library"),
    [
        (lambda: to_sigpy(SENSE, IMAGE, KSPACE), "sigpy"),
        (lambda: from_sigpy(SENSE), "sigpy"),
        (lambda: to_deepinv(SENSE), "deepinv"),
    ],
    ids=["to_sigpy", "from_sigpy", "to_deepinv"],
)
def test_advice_without_the_library(call: Callable[[], object], library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"{library} cannot be imported .* expected it installed: pip install"):
        call()
