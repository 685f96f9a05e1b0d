"""What takes time right now, told to whoever shows it: a command's status line, or nobody."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

T = TypeVar("T")


class Activity:
    """One thing that is being done.

    Attributes:
        what: in words, as in "embedding the texts of 400 classes".
        total: how many steps it has; 0 if that is not known.
        done: how many of them are done.
        since: when it began, in seconds of `time.monotonic`.
    """

    _begun: tuple[float, int] | None = None  # when the first steps were done, and how many

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self.since = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        """Count finished steps."""
        self.reach(self.done + steps)

    def reach(self, done: int) -> None:
        """Say how many steps are done."""
        self.done = done
        self._begun = self._begun or (time.monotonic(), done)

    @property
    def seconds_left(self) -> float | None:
        """At the rate since the first step, which often waits for more than itself; None before the second."""
        if self._begun is None or self.done <= self._begun[1]:
            return None
        since, first = self._begun
        return (time.monotonic() - since) / (self.done - first) * (self.total - self.done)


_running: list[Activity] = []
_watchers = 0
_lock = Lock()


@contextmanager
def activity(what: str, total: int = 0) -> Generator[Activity]:
    """Say what is being done while the block runs."""
    one = Activity(what, total)
    with _lock:
        _running.append(one)
    try:
        yield one
    finally:
        with _lock:
            _running.remove(one)


@contextmanager
def shown() -> Generator[None]:
    """Show activities while the block runs; libraries then need no progress bars of their own."""
    global _watchers
    _watchers += 1
    try:
        yield
    finally:
        _watchers -= 1


def watched() -> bool:
    """Whether somebody shows what is being done."""
    return _watchers > 0


def running() -> list[Activity]:
    """What is being done now, the outermost first."""
    with _lock:
        return list(_running)


def counted(results: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The results, with each counted as a step."""
    with activity(what, total) as one:
        for result in results:
            one.advance()
            yield result
