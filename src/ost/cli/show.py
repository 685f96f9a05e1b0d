"""How results look in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ost.errors import VideoError
    from ost.recognition.prediction import Prediction

BAR = 24


def stdout() -> Console:
    """Where results go."""
    return Console(highlight=False, soft_wrap=True)


def stderr() -> Console:
    """Where notices, progress and failures go."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def show_prediction(console: Console, prediction: Prediction, top: int) -> None:
    """One video: its likeliest classes with bars."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right")
    table.add_column()
    table.add_column()
    for score in prediction.top(top):
        bar = "█" * max(1, round(score.probability * BAR))
        # Text, not markup: a class name is the user's, and may hold square brackets.
        table.add_row(f"{score.probability:.1%}", Text(bar, style="cyan"), Text(score.name))
    console.print(Text(prediction.path, style="bold"))
    console.print(table)


def show_notices(console: Console, notices: list[str]) -> None:
    """Each notice once."""
    for line in dict.fromkeys(notices):
        console.print(Text(f"note: {line}", style="yellow"))


def show_failures(console: Console, failures: list[VideoError], total: int) -> None:
    """The videos that could not be used, each with its reason."""
    if failures:
        console.print(Text(f"{len(failures)} of {total} videos could not be used:", style="red"))
        for failure in failures:
            console.print(Text(f"  {failure}"))
