"""Problems side by side: the results in order, torch's threads shared out and given back."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from molrecon.solvers.in_threads import in_threads


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_from_threads_that_share_those_of_torch() -> None:
    together = threading.Barrier(2, timeout=30)

    def work(item: int) -> tuple[int, int, str]:
        together.wait()  # two at a time, or nobody comes through
        return item, torch.get_num_threads(), threading.current_thread().name

    found = list(in_threads(work, range(6), 2))
    assert [item for item, _, _ in found] == list(range(6))
    assert {threads for _, threads, _ in found} == {2}
    assert len({name for _, _, name in found}) == 2
    assert torch.get_num_threads() == 4


def test_never_more_threads_than_torch_has_or_items_are_there() -> None:
    assert set(in_threads(lambda _: torch.get_num_threads(), range(9), 100)) == {1}
    assert set(in_threads(lambda _: torch.get_num_threads(), range(2), 100)) == {2}
    here = threading.current_thread()
    torch.set_num_threads(1)
    assert all(thread is here for thread in in_threads(lambda _: threading.current_thread(), range(3), 100))
    assert list(in_threads(str, [], 3)) == []


def test_an_error_comes_out_and_the_threads_are_given_back() -> None:
    def work(item: int) -> int:
        if item == 1:
            raise RuntimeError("no")
        return item

    found = in_threads(work, range(4), 2)
    assert next(found) == 0
    with pytest.raises(RuntimeError, match="no"):
        list(found)
    assert torch.get_num_threads() == 4
