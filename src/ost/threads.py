"""A pool of daemon threads, whose unfinished work does not delay the program's exit."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonPool:
    """Like `ThreadPoolExecutor`, but with daemon threads, which the interpreter does not join at exit.

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
