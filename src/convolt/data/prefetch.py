"""Work done ahead by one thread."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def prefetch(work: Callable[[A], B], items: Iterable[A], depth: int = 2) -> Iterator[B]:
    """Yield `work(item)` of every item, in order, while a thread is already at the next ones.

    Nothing starts before the first result is requested; the thread ends with the iterator, also when that is closed
    before its end.

    Args:
        work: A function of an item; what it raises is raised where its result would have been yielded.
        items: Its arguments.
        depth: Results that are made ahead of the one that was requested.
    """
    waiting: deque[Future[B]] = deque()
    thread = ThreadPoolExecutor(1, thread_name_prefix="convolt-prefetch")
    try:
        for item in items:
            waiting.append(thread.submit(work, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)
