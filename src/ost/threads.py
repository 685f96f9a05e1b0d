"""A pool of daemon threads, whose unfinished work delays the program's exit by no more than a moment."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")
EXIT_SECONDS = 1.0  # how long the program's exit waits for calls that were told to stop


class DaemonPool:
    """Like `ThreadPoolExecutor`, but with daemon threads: a call that hangs does not keep the program from its exit.

    At exit all pools are closed and joined for `EXIT_SECONDS`: an interpreter that ends while a thread is inside a C
    library can hang in that library's locks.

    Args:
        threads: number of threads.
        name: the prefix of the threads' names.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._work: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = (
            SimpleQueue()
        )
        self._threads = [Thread(target=self._run, name=f"{name}-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()
        _pools.add(self)

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call a function in one of the threads; calls start in the order of submission."""
        future: Future[T] = Future()
        self._work.put((future, function, arguments))
        return future

    def close(self) -> None:
        """End the threads after their current calls; cancel the calls that have not started."""
        with suppress(Empty):
            while True:
                if (pending := self._work.get_nowait()) is not None:
                    pending[0].cancel()
        for _ in self._threads:
            self._work.put(None)

    def join(self, seconds: float) -> None:
        """Wait until the threads of a closed pool have ended, for so many seconds at most."""
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, function, arguments = work
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function(*arguments))
            except BaseException as error:  # raised where the result is read
                future.set_exception(error)
            del work, future, function, arguments  # no references are held while waiting


_pools: WeakSet[DaemonPool] = WeakSet()


@atexit.register
def _join_all() -> None:
    end = time.monotonic() + EXIT_SECONDS
    pools = list(_pools)
    for pool in pools:
        pool.close()
    for pool in pools:
        pool.join(max(0.0, end - time.monotonic()))
