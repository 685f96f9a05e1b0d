"""Threads that end with the program: nobody waits at exit for work that nobody waits for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonPool:
    """Like `ThreadPoolExecutor`, whose threads the interpreter joins at exit, with daemon threads.

    Args:
        threads: how many.
        name: of the threads.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._work: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = (
            SimpleQueue()
        )
        self._threads = [Thread(target=self._run, name=f"{name}-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call a function in one of the threads, in the order in which functions were given."""
        future: Future[T] = Future()
        self._work.put((future, function, arguments))
        return future

    def close(self) -> None:
        """End the threads after what they do now; work that was not begun is not done."""
        while not self._work.empty():
            if (left := self._work.get()) is not None:
                left[0].cancel()
        for _ in self._threads:
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, function, arguments = work
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function(*arguments))
            except BaseException as error:  # whoever asks for the result gets it
                future.set_exception(error)
            del work, future, function, arguments  # nothing is held while waiting
