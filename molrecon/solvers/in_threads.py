"""Independent problems side by side, each in a thread with its share of the cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], at_once: int) -> Iterator[Result]:
    """Yield `work(item)` of every item in order, up to `at_once` of them being worked on at the same time.

    The threads that torch has for an operation on the CPU (`torch.get_num_threads`) are shared out: with as many items
    at once as those each item has one, which wastes nothing on waiting for the others in every operation. Threads are
    enough for that, since torch holds Python's lock only between its operations, and unlike processes they take no
    seconds to start and no copies of data and weights. With one thread of torch the items are worked on one by one, in
    the thread of the caller.

    An exception of `work` comes out where its result would, and the items that have not begun are left.
    """
    cores = torch.get_num_threads()
    threads = max(1, min(at_once, len(items), cores))
    if threads == 1:
        yield from map(work, items)
        return
    torch.set_num_threads(cores // threads)  # new threads of the process take it over
    pool = ThreadPoolExecutor(threads, thread_name_prefix="molrecon")
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)
