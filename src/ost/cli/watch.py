"""Show a training run: a bar with the time left in a terminal, else lines."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.text import Text

from ost.activity import Activity, activity, watched

if TYPE_CHECKING:
    from collections.abc import Generator

    from rich.console import Console

    from ost.train.log import Event, Watch

EVERY = 30.0  # seconds between lines


@contextmanager
def watching(console: Console) -> Generator[Watch]:
    """Yield the callback for the events of a run."""
    if not watched():
        yield _Lines(console)
        return
    with activity("starting") as training:
        yield _Bar(training, console)


class _Bar:
    """Show events as a bar in the status line, with lines above it."""

    def __init__(self, training: Activity, console: Console) -> None:
        self._training, self._console = training, console
        self._loss, self._top1 = "", ""

    def __call__(self, event: Event) -> None:
        if event.kind in ("step", "clip"):
            if "loss" in event.numbers:
                self._loss = f"loss {event.numbers['loss']:.3f}"
            text = " ".join(part for part in (self._loss, self._top1) if part) or "embedding"
            self._training.what, self._training.total = text, event.steps
            self._training.reach(event.step)
            return
        if event.kind == "validation":
            self._top1 = f"top-1 {event.numbers['top1']:.1%}"
        if line := _line(event):
            self._console.print(Text(line))


class _Lines:
    """Print events as lines, at most one step every `EVERY` seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun: tuple[float, int] | None = None
        self._last = 0.0

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        if event.kind == "step" and self._begun and now - self._last < EVERY:
            return
        line = _line(event)
        if event.kind == "step":
            began, first = self._begun = self._begun or (now, event.step)
            if event.step > first:
                left = (now - began) / (event.step - first) * (event.steps - event.step)
                line += f", {timedelta(seconds=round(left))} left"
            self._last = now
        if line:
            self._console.print(Text(line))


def _line(event: Event) -> str:
    numbers = event.numbers
    if event.kind == "step":
        return f"step {event.step}/{event.steps}: loss {numbers['loss']:.4f}, lr {numbers['lr']:.2e}"
    if event.kind == "validation":
        return f"step {event.step}: {numbers['top1']:.1%} of {numbers['clips']:.0f} held-out clips recognised"
    if event.kind == "notice":
        return f"note: {event.text}"
    return event.text if event.kind == "unreadable" else ""
