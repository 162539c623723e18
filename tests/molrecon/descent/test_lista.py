"""The LISTA family: untrained networks are ISTA, ALISTA's weights are optimal, supports selected, layers exposed."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from molrecon.descent.lista import (
    ALISTA,
    LISTA,
    LISTACP,
    CodeNetwork,
    SupportSelection,
    analytic_weights,
    selective_threshold,
)
from molrecon.descent.sparse import ISTA, soft_threshold
from operators import Dense

MU = 0.2


def dictionary(m: int = 12, n: int = 20, seed: int = 0) -> Tensor:
    drawn = torch.randn(m, n, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=0)


def measurements(m: int = 12) -> Tensor:
    return torch.randn(5, m, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", [LISTA, LISTACP])
def test_untrained_networks_are_ista_layer_by_layer(kind: type[LISTA] | type[LISTACP], tied: bool) -> None:
    d, b = dictionary(), measurements()
    layers = list(kind(d, 8, tied=tied, regularisation=MU).stages(b, Dense(d)))
    iterates = itertools.islice(ISTA(MU).stages(b, Dense(d)), 8)
    assert len(layers) == 8
    for codes, expected in zip(layers, iterates, strict=True):
        torch.testing.assert_close(codes, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rank", [12, 7])
def test_analytic_weights_minimise_the_coherence(rank: int) -> None:
    d = (dictionary(12, rank).double() @ dictionary(rank, 20, 1).double()) * 3
    w = analytic_weights(d)
    torch.testing.assert_close((w * d).sum(0), torch.ones(20, dtype=torch.float64))
    best = (w.T @ d).square().sum()
    generator = torch.Generator().manual_seed(2)
    for scale in (1e-3, 1e-1, 1.0):
        change = scale * torch.randn(12, 20, generator=generator, dtype=torch.float64)
        change -= d * (change * d).sum(0) / d.square().sum(0)  # keeps w_i^T d_i = 1
        assert ((w + change).T @ d).square().sum() >= best * (1 - 1e-12)
    with pytest.raises(ValueError, match="analytic_weights: dictionary with a column of zeros"):
        analytic_weights(torch.zeros(3, 4))


def test_alista_recovers_a_code_that_ista_does_not() -> None:
    # With an orthonormal dictionary W = D: one step of size 1 with a small threshold is exact up to that threshold.
    q = torch.linalg.qr(dictionary(12, 12)).Q
    codes = torch.zeros(1, 12)
    codes[0, 3] = 2.0
    model = ALISTA(q, 1, regularisation=1e-3)
    torch.testing.assert_close(model.weight, q, rtol=0, atol=1e-5)
    torch.testing.assert_close(model(codes @ q.T, Dense(q)), codes, rtol=0, atol=2e-3)


def test_support_selection() -> None:
    v = torch.tensor([[3.0, -2.0, 0.5, 1.0], [0.1, 0.2, -0.3, 0.25]])
    expected = torch.tensor([[3.0, -2.0, 0.0, 0.4], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(selective_threshold(v, 0.6, 2), expected)
    torch.testing.assert_close(selective_threshold(v, 0.6, 0), soft_threshold(v, 0.6))
    assert torch.equal(selective_threshold(v, 0.0, 4), v)
    chosen = SupportSelection()
    assert [chosen.count(layer, 500) for layer in (1, 2, 10, 11, 16)] == [6, 12, 60, 65, 65]
    d, b = dictionary(), measurements()
    selected = LISTACP(d, 3, selection=SupportSelection(0.1, 0.1), regularisation=MU)
    first = next(selected.stages(b, Dense(d)))
    plain = next(LISTACP(d, 3, regularisation=MU).stages(b, Dense(d)))
    assert (((first - plain).abs() > 1e-7).sum(1) == 2).all()  # two of twenty entries are left unshrunk


def networks() -> list[CodeNetwork]:
    d = dictionary()
    selection = SupportSelection(0.1, 0.3)
    return [LISTA(d, 3), LISTA(d, 3, tied=True), LISTACP(d, 3, selection=selection), ALISTA(d, 3, selection=selection)]


@pytest.mark.parametrize("model", networks(), ids=lambda model: type(model).__name__)
def test_layers_are_exposed_disturbed_and_continued(model: CodeNetwork) -> None:
    d, b = dictionary(), measurements()
    seen = []

    def zero_after_two(layer: int, codes: Tensor) -> Tensor:
        seen.append(layer)
        return codes * (layer != 2)

    layers = list(model.stages(b, Dense(d), zero_after_two))
    plain = list(model.stages(b, Dense(d)))
    assert seen == [1, 2] and torch.equal(layers[0], plain[0]) and not layers[1].any()
    assert torch.equal(plain[2], model(b, Dense(d))) and not torch.equal(layers[2], plain[2])
    layers[2].square().sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    model.n_layers = 5
    deeper = list(model.stages(b, Dense(d)))
    assert len(deeper) == 5 and all(torch.equal(x, y) for x, y in zip(deeper, plain, strict=False))
    model.n_layers = 3
    with torch.no_grad():
        model.log_threshold[1] += 1
    model.repeat_layer(3)
    assert model.log_threshold[2] == model.log_threshold[1] != model.log_threshold[0]


def test_refusals() -> None:
    d = dictionary()
    with pytest.raises(ValueError, match="LISTA: got n_layers 0 and threshold"):
        LISTA(d, 0)
    with pytest.raises(ValueError, match=r"ALISTA: got n_layers 4 and threshold -1"):
        ALISTA(d, 4, regularisation=-1)
    with pytest.raises(TypeError, match=r"ALISTA: measurements have dtype torch\.complex64, expected real numbers"):
        ALISTA(d, 2)(measurements().to(torch.complex64), Dense(d))
