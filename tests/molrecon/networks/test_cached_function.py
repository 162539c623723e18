"""What is computed once: right after every edit, and in every thread."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from molrecon.networks import cached_function
from molrecon.networks.cached_function import CachedFunction


def doubled(tensor: Tensor) -> list[Tensor]:
    return [2 * tensor]


def test_another_thread_in_between_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # While one call still compares, another thread asks for other tensors and has theirs stored.
    function, ones, threes = CachedFunction(doubled), torch.ones(3), 3 * torch.ones(3)
    function(ones)
    same = cached_function._same

    def interrupted(first: Tensor, second: Tensor) -> bool:
        answer = same(first, second)
        monkeypatch.setattr(cached_function, "_same", same)
        thread = threading.Thread(target=function, args=(threes,))
        thread.start()
        thread.join()
        return answer

    monkeypatch.setattr(cached_function, "_same", interrupted)
    assert torch.equal(function(ones)[0], 2 * ones)
    assert torch.equal(function(threes)[0], 2 * threes)


def test_many_threads() -> None:
    function = CachedFunction(doubled)
    wrong: list[float] = []

    def ask(value: float) -> None:
        tensor = torch.full((4,), value)
        wrong.extend(value for _ in range(500) if not torch.equal(function(tensor)[0], 2 * tensor))

    threads = [threading.Thread(target=ask, args=(float(value),)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_every_edit_is_seen_and_nothing_is_computed_twice() -> None:
    calls: list[Tensor] = []

    def counted(tensor: Tensor) -> list[Tensor]:
        calls.append(tensor)
        return doubled(tensor)

    function = CachedFunction(counted)
    tensor = torch.ones(3)
    function(tensor)
    tensor.data[0] = 5
    assert torch.equal(function(tensor)[0], 2 * tensor)
    function(tensor.clone())
    assert len(calls) == 2
