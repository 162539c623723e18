"""Torch's TF32 flags: held down inside, given back outside, by the old and the new names, from several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from molrecon.networks import ResidualNetwork
from molrecon.networks import full_precision as module
from molrecon.networks.full_precision import full_precision
from molrecon.reconstructors.mol import MOL
from operators import Sense

CUDA = torch.device("cuda")
CUDNN: Any = torch.backends.cudnn
NEW = hasattr(CUDNN, "conv")


def state() -> list[object]:
    """Return what the flags say, "refused" where torch refuses to say it."""
    reads: list[Callable[[], object]] = [lambda: CUDNN.allow_tf32]
    if NEW:
        reads += [lambda: CUDNN.conv.fp32_precision, lambda: CUDNN.rnn.fp32_precision, lambda: CUDNN.fp32_precision]
    found: list[object] = []
    for read in reads:
        try:
            found.append(read())
        except RuntimeError:
            found.append("refused")
    return found


def full() -> bool:
    return CUDNN.conv.fp32_precision == "ieee" if NEW else not CUDNN.allow_tf32


@pytest.fixture(autouse=True)
def _flags() -> Iterator[None]:
    allowed = CUDNN.allow_tf32
    yield
    if NEW:
        torch.backends.fp32_precision = CUDNN.fp32_precision = "none"  # type: ignore[attr-defined]
    CUDNN.allow_tf32 = allowed


def old(allowed: bool) -> None:
    CUDNN.allow_tf32 = allowed


def new(precision: str) -> None:
    CUDNN.conv.fp32_precision = precision


def new_for_all(precision: str) -> None:
    torch.backends.fp32_precision = precision  # type: ignore[attr-defined]


CALLERS: dict[str, list[Callable[[], None]]] = {
    "as torch comes": [],
    "old, allowed": [lambda: old(True)],
    "old, not allowed": [lambda: old(False)],
    "new, TF32": [lambda: new("tf32")],
    "new, full": [lambda: new("ieee")],
    "new, for everything": [lambda: new_for_all("tf32"), lambda: new("none")],
    "old, then new": [lambda: old(False), lambda: new("tf32")],
    "new, then old": [lambda: new("ieee"), lambda: old(True)],
}


@pytest.mark.parametrize("name", CALLERS)
def test_settings_come_back(name: str) -> None:
    if not NEW and "new" in name:
        pytest.skip("this torch has no fp32_precision")
    for setting in CALLERS[name]:
        setting()
    before = state()
    with full_precision(CUDA):
        assert full()
        with full_precision(CUDA):
            assert full()
        assert full()
    assert state() == before
    with pytest.raises(KeyError), full_precision(CUDA):
        raise KeyError
    assert state() == before


def test_the_old_flag_can_be_read_inside() -> None:
    # Where the two sets of flags disagree, torch refuses to read the old one, in whatever code asks for it.
    with full_precision(CUDA):
        assert CUDNN.allow_tf32 is False


def test_nothing_is_touched_for_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FLAGS", None)
    with full_precision(torch.device("meta")):
        pass


@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "conv"), reason="this torch has no such flags")
def test_convolutions_on_processors_keep_all_bits_too() -> None:
    mkldnn: Any = torch.backends.mkldnn
    try:
        mkldnn.conv.fp32_precision = mkldnn.matmul.fp32_precision = "bf16"
        with full_precision(torch.device("cpu")):
            assert mkldnn.conv.fp32_precision == mkldnn.matmul.fp32_precision == "ieee"
        assert mkldnn.conv.fp32_precision == mkldnn.matmul.fp32_precision == "bf16"
    finally:
        mkldnn.conv.fp32_precision = mkldnn.matmul.fp32_precision = "none"


def test_the_last_thread_gives_the_settings_back() -> None:
    before, entered, leave, seen = state(), threading.Event(), threading.Event(), []

    def other() -> None:
        with full_precision(CUDA):
            entered.set()
            leave.wait()
            seen.append(full())

    thread = threading.Thread(target=other)
    with full_precision(CUDA):
        thread.start()
        entered.wait()
    assert full()  # the other one is still inside
    leave.set()
    thread.join()
    assert seen == [True]
    assert state() == before


def test_solves_of_mol_run_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every evaluation of the network while an equilibrium or its gradient is looked for, on a pretended GPU."""
    monkeypatch.setattr("molrecon.reconstructors.splitting.full_precision", lambda device: full_precision(CUDA))
    before, seen = state(), []
    original = ResidualNetwork._evaluate

    def evaluate(self: Any, layers: Any, image: Any) -> Any:
        value = original(self, layers, image)
        seen.append(full())
        if value.requires_grad:
            value.register_hook(lambda grad: seen.append(full()))
        return value

    monkeypatch.setattr(ResidualNetwork, "_evaluate", evaluate)
    model = MOL(ResidualNetwork(monotonicity=0.3, channels=2, features=4, levels=1, cycles=1))
    maps = torch.ones(1, 1, 6, 8, dtype=torch.complex64)
    operator = Sense(maps, torch.ones(1, 6, 8, dtype=torch.bool))
    image = torch.randn(1, 6, 8, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    solution = model(operator(image), operator, 0.01)
    assert state() == before
    forward = len(seen)
    assert forward > 2 and all(seen)
    solution.value.abs().square().sum().backward()
    assert sum(seen[forward:]) >= len(seen) - forward - 1 > 1  # all but the last, which is the caller's own backward
    assert state() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@torch.no_grad()
def test_the_bound_is_reached_on_a_gpu_that_may_use_tf32() -> None:
    # With TF32 it stalled at a bound of 0.35.
    torch.backends.cudnn.allow_tf32 = True
    model = MOL(ResidualNetwork(monotonicity=0.01)).eval().cuda()
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, 4, 64, 64, dtype=torch.complex64, generator=generator)
    mask = (torch.arange(64) % 2 == 0).expand(1, 64, 64)
    operator = Sense(maps / torch.linalg.vector_norm(maps, dim=1, keepdim=True), mask).cuda()
    image = torch.randn(1, 64, 64, dtype=torch.complex64, generator=generator).cuda()
    solution = model(operator(image), operator, 0.01)
    assert solution.converged.all() and float(solution.error_bound.max()) <= 1e-4
    exact = model.double()(operator(image).to(torch.complex128), operator, 0.01)
    distance = torch.linalg.vector_norm(solution.value - exact.value) / torch.linalg.vector_norm(exact.value)
    assert float(distance) <= float(solution.error_bound) + float(exact.error_bound)
