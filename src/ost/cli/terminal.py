"""Terminal output of a command: results on stdout; notices, failures and a status line on stderr."""

from __future__ import annotations

import codecs
import io
import json
import sys
import traceback
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
    from collections.abc import Sequence
    from pathlib import Path

    from rich.live import Live
    from rich.spinner import Spinner
    from rich.table import Table

    from ost.errors import VideoError

DEBUGGING = ContextVar("debugging", default=False)  # whether tracebacks are shown
PIPED = 200
DELAY = 0.5  # seconds until the status line appears
REFRESHED = 8  # times a second
BAR_WIDTH = 20
FAILURES_SHOWN = 10  # where a file lists all


class OutputClosed(Exception):
    """The reader of the output closed the pipe."""


class _CursorConsole(Console):
    """A console that never hides the cursor: a killed process could not restore it."""

    def show_cursor(self, show: bool = True) -> bool:
        return False


class StatusLine:
    """Shows the running activities below everything else once `DELAY` has passed; removed when they end."""

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
                # Redirection would send output that belongs in a file on stdout to the terminal.
                self._live = Live(
                    console=_CursorConsole(stderr=True),
                    get_renderable=self._status,
                    refresh_per_second=REFRESHED,
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
                self._live.start(refresh=True)

    @contextmanager
    def hidden(self) -> Generator[None]:
        """Hide the line while something else is written."""
        with self._lock:
            if self._live is not None:
                self._live.stop()
            try:
                yield
            finally:
                if self._live is not None:
                    self._live.start(refresh=True)

    def _status(self) -> Table:
        """Return the activities of known length as bars, and the innermost of the others."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        bars, others = [], []
        for item in running():
            (bars if item.total > 1 else others).append(item)
        table = Table.grid(padding=(0, 1))
        for item in bars:
            bar = ProgressBar(total=item.total, completed=min(item.done, item.total), width=BAR_WIDTH)
            table.add_row(
                _description(item), bar, Text(f"{item.done:,}/{item.total:,}"), Text(_time_left(item))
            )
        if others and self._spinner and not (bars and others[-1].since < bars[-1].since):
            self._spinner.update(text=_description(others[-1]))
            table.add_row(self._spinner)
        return table

    def end(self) -> None:
        """Remove the line for good."""
        with self._lock:
            self._ended = True
            self._timer.cancel()
            if self._live is not None:
                self._live.stop()
                self._live = None


_line: StatusLine | None = None


@contextmanager
def status_line() -> Generator[None]:
    """Show a status line while the block runs, if stderr is a terminal."""
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
    """Hide the status line while the block writes to a stream."""
    if _line is None:
        yield
        return
    with _line.hidden():
        yield


class _Terminal(Console):
    """A console that hides the status line while it prints, and raises `OutputClosed` on a closed pipe.

    It prints what it is given: square brackets and `:smile:` may stand in what the user named.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, soft_wrap=True, **options)

    def on_broken_pipe(self) -> None:
        raise OutputClosed from None

    def print(self, *objects: Any, **options: Any) -> None:
        with undisturbed():
            super().print(*objects, **options)


def stdout() -> Console:
    """Return the console for results; piped output is not cut to the width of a terminal."""
    console = _Terminal()
    return console if console.is_terminal else _Terminal(width=PIPED)


def stderr() -> Console:
    """Return the console for notices and failures."""
    return _Terminal(stderr=True)


def write_line(line: str) -> None:
    """Write a line to stdout unchanged, for other programs."""
    with undisturbed():
        try:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            raise OutputClosed from None


def write_json(value: object) -> None:
    """Write a value as one line of JSON, which is UTF-8 or, where stdout is not, ASCII.

    What of a file name is not UTF-8 is a lone surrogate, for which `backslashreplace` writes what JSON does.
    """
    utf8 = codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8"
    write_line(json.dumps(value, ensure_ascii=not utf8))


def escape_unencodable() -> None:
    """Make stdout escape what its encoding lacks: a name in another script must not end a command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def show_notices(console: Console, notices: list[str]) -> None:
    """Print each notice once."""
    for line in dict.fromkeys(notices):
        console.print(Text(f"note: {line}", style="yellow"))


def show_failures(
    console: Console, failures: Sequence[VideoError], total: int, place: Path | None = None
) -> None:
    """Print the videos that could not be used, with reasons; only the first ten where the file `place` lists all."""
    if not failures:
        return
    console.print(Text(f"{len(failures):,} of {total:,} videos could not be used:", style="red"))
    shown = failures if place is None else failures[:FAILURES_SHOWN]
    for failure in shown:
        console.print(Text(f"  {failure}"))
        if failure.__cause__ is not None and DEBUGGING.get():
            console.print(Text("".join(traceback.format_exception(failure.__cause__))))
    if len(shown) < len(failures):
        console.print(Text(f"  and {len(failures) - len(shown):,} more; all of them are in {place}"))


def _description(item: Activity) -> Text:
    """Return the description of an activity on one line."""
    return Text(item.what, no_wrap=True, overflow="ellipsis")


def _time_left(item: Activity) -> str:
    """Return the time left in words."""
    seconds = item.seconds_left
    return "" if seconds is None else f"{timedelta(seconds=round(seconds))} left"
