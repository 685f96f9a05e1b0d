"""Track what takes time right now, for a status line that may show it."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

T = TypeVar("T")


class Activity:
    """One task in progress.

    Attributes:
        what: the task in words, as in "embedding the texts of 400 classes".
        total: number of steps; 0 if unknown.
        done: number of finished steps.
        since: start time, in seconds of `time.monotonic`.
    """

    _begun: tuple[float, int] | None = None  # when the first steps were finished, and how many

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self.since = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        """Count finished steps."""
        self.reach(self.done + steps)

    def reach(self, done: int) -> None:
        """Set the number of finished steps."""
        self.done = done
        self._begun = self._begun or (time.monotonic(), done)

    @property
    def seconds_left(self) -> float | None:
        """Estimated at the rate since the first step, which includes start-up; None before the second."""
        if self._begun is None or self.done <= self._begun[1]:
            return None
        since, first = self._begun
        return (time.monotonic() - since) / (self.done - first) * (self.total - self.done)


_running: list[Activity] = []
_watchers = 0
_lock = Lock()


@contextmanager
def activity(what: str, total: int = 0) -> Generator[Activity]:
    """List an activity as running while the block runs."""
    current = Activity(what, total)
    with _lock:
        _running.append(current)
    try:
        yield current
    finally:
        with _lock:
            _running.remove(current)


@contextmanager
def shown() -> Generator[None]:
    """Mark activities as shown while the block runs, so that libraries need no progress bars of their own."""
    global _watchers
    _watchers += 1
    try:
        yield
    finally:
        _watchers -= 1


def watched() -> bool:
    """Return whether activities are being shown."""
    return _watchers > 0


def running() -> list[Activity]:
    """Return the activities in progress, the outermost first."""
    with _lock:
        return list(_running)


def counted(results: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield the results, counting each as a step of an activity."""
    with activity(what, total) as current:
        for result in results:
            current.advance()
            yield result
