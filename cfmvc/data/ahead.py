"""What will be needed next is made while the present is used."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def made_ahead(makers: Iterable[Callable[[], T]], n_ahead: int = 1) -> Iterator[T]:
    """Yield what each of ``makers`` returns, in order; a thread makes so many ahead.

    An error of a maker is raised where its result would have been yielded. Who stops half-way does
    not wait for what is being made.
    """
    pool = ThreadPoolExecutor(1, "made-ahead")
    try:
        coming: deque[Future[T]] = deque()
        for make in makers:
            coming.append(pool.submit(make))
            if len(coming) > n_ahead:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        # To wait for the thread could be to wait for ever: garbage collection may close this in
        # any thread, also in one that holds a lock which the end of a thread needs.
        pool.shutdown(wait=False, cancel_futures=True)
