"""The terminal of a command: results on stdout, notices and failures on stderr, and there a line of what takes long."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from threading import RLock, Timer
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from ost.activity import Activity, running, shown

if TYPE_CHECKING:
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.table import Table

DEBUGGING = ContextVar("debugging", default=False)  # whether tracebacks are shown
PIPED = 200
DELAY = 0.5  # seconds until something counts as long
REFRESHED = 8  # times a second
BAR_WIDTH = 20


class OutputClosed(Exception):
    """Whoever reads the output has seen enough."""


class _Steady(Console):
    """A console that leaves the cursor as it is: a process that is killed cannot bring it back."""

    def show_cursor(self, show: bool = True) -> bool:
        return False


class StatusLine:
    """Shows what has been going on for longer than `DELAY`, below everything else; gone when it ends."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._spinner: Spinner | None = None
        self._lock = RLock()
        self._ended = False
        self._timer = Timer(DELAY, self._begin)
        self._timer.daemon = True
        self._timer.start()

    def _begin(self) -> None:
        from rich.live import Live
        from rich.spinner import Spinner

        self._spinner = Spinner("dots")
        with self._lock:
            if not self._ended:
                # Redirected streams would take what is meant for a file on stdout to the terminal.
                self._live = Live(
                    console=_Steady(stderr=True),
                    get_renderable=self._status,
                    refresh_per_second=REFRESHED,
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
                self._live.start(refresh=True)

    @contextmanager
    def hidden(self) -> Generator[None]:
        """Take the line away while something else is written."""
        with self._lock:
            if self._live is not None:
                self._live.stop()
            try:
                yield
            finally:
                if self._live is not None:
                    self._live.start(refresh=True)

    def _status(self) -> Table:
        """The activities of known length as bars, and the innermost of the others."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        bars, others = [], []
        for one in running():
            (bars if one.total > 1 else others).append(one)
        table = Table.grid(padding=(0, 1))
        for one in bars:
            bar = ProgressBar(total=one.total, completed=min(one.done, one.total), width=BAR_WIDTH)
            table.add_row(_words(one), bar, Text(f"{one.done:,}/{one.total:,}"), Text(_left(one)))
        if others and self._spinner and not (bars and others[-1].since < bars[-1].since):
            self._spinner.update(text=_words(others[-1]))
            table.add_row(self._spinner)
        return table

    def end(self) -> None:
        """Take the line away for good."""
        with self._lock:
            self._ended = True
            self._timer.cancel()
            if self._live is not None:
                self._live.stop()
                self._live = None


_line: StatusLine | None = None


@contextmanager
def status_line() -> Generator[None]:
    """Show a status line while the block runs, where someone is looking."""
    global _line
    if not sys.stderr.isatty() or Console(stderr=True).is_dumb_terminal:
        yield
        return
    _line = line = StatusLine()
    try:
        with shown():
            yield
    finally:
        _line = None
        line.end()


@contextmanager
def undisturbed() -> Generator[None]:
    """Write to a stream while no status line stands in the way."""
    if _line is None:
        yield
        return
    with _line.hidden():
        yield


class _Terminal(Console):
    """A console that takes the status line away while it prints, and leaves a closed pipe to the command."""

    def on_broken_pipe(self) -> None:
        raise OutputClosed from None

    def print(self, *objects: Any, **options: Any) -> None:
        with undisturbed():
            super().print(*objects, **options)


def stdout() -> Console:
    """Where results go; what is read by another program is not cut to the width of a terminal."""
    console = _Terminal(highlight=False, soft_wrap=True)
    return console if console.is_terminal else _Terminal(highlight=False, soft_wrap=True, width=PIPED)


def stderr() -> Console:
    """Where notices and failures go."""
    return _Terminal(stderr=True, highlight=False, soft_wrap=True)


def write_line(line: str) -> None:
    """A line for another program to stdout, as it is."""
    with undisturbed():
        try:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            raise OutputClosed from None


def _words(one: Activity) -> Text:
    """What is being done, on one line."""
    return Text(one.what, no_wrap=True, overflow="ellipsis")


def _left(one: Activity) -> str:
    """The time that is left, in words."""
    seconds = one.seconds_left
    return "" if seconds is None else f"{timedelta(seconds=round(seconds))} left"
