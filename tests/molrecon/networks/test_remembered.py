"""What is computed once: right after every edit, and in every thread."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from molrecon.networks import remembered
from molrecon.networks.remembered import Remembered


def doubled(tensor: Tensor) -> list[Tensor]:
    return [2 * tensor]


def test_another_thread_in_between_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # While one call still compares, another thread asks for other tensors and has theirs remembered.
    function, ones, threes = Remembered(doubled), torch.ones(3), 3 * torch.ones(3)
    function(ones)
    same = remembered._same

    def interrupted(first: Tensor, second: Tensor) -> bool:
        answer = same(first, second)
        monkeypatch.setattr(remembered, "_same", same)
        thread = threading.Thread(target=function, args=(threes,))
        thread.start()
        thread.join()
        return answer

    monkeypatch.setattr(remembered, "_same", interrupted)
    assert torch.equal(function(ones)[0], 2 * ones)
    assert torch.equal(function(threes)[0], 2 * threes)


def test_many_threads() -> None:
    function = Remembered(doubled)
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

    function = Remembered(counted)
    tensor = torch.ones(3)
    function(tensor)
    tensor.data[0] = 5
    assert torch.equal(function(tensor)[0], 2 * tensor)
    function(tensor.clone())
    assert len(calls) == 2
