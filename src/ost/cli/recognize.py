"""`ost recognize`: recognise the user's videos among the user's classes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer
from rich.table import Table
from rich.text import Text

from ost.activity import activity, counted
from ost.archives import within
from ost.cli.command import load_torch
from ost.cli.options import MatchOptions, ModelOptions, SamplingOptions
from ost.cli.terminal import show_failures, show_notices, stderr, stdout, write_json
from ost.errors import UsageError, VideoError
from ost.video.stream import is_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from ost.recognition.prediction import Prediction
    from ost.recognition.settings import SettingsFields

BAR = 24  # width in characters of the bar of probability 1


@dataclass(frozen=True)
class PredictionOptions:
    """What is shown and written of each video."""

    PANEL: ClassVar = "Output"
    top: Annotated[int, typer.Option(min=1, help="Classes shown for each video.")] = 5
    every: Annotated[bool, typer.Option("--all", help="Show every class.")] = False
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object per video, each on a line; failures are objects too."),
    ] = False
    report: Annotated[Path | None, typer.Option(help="Folder for one page per video, which shows why.")] = (
        None
    )


def recognize(
    videos: Annotated[
        list[str],
        typer.Argument(
            metavar="VIDEO", help="Video files, folders of videos, folders of frame images, URLs."
        ),
    ],
    classes: Annotated[
        str,
        typer.Option(
            help="Comma list, text file, id,name CSV, pack file, or a shipped pack.", rich_help_panel="Input"
        ),
    ],
    model: ModelOptions,
    sampling: SamplingOptions,
    matching: MatchOptions,
    output: PredictionOptions,
    cache: Annotated[
        bool,
        typer.Option(
            "--cache/--no-cache", help="Keep embeddings, so that the next list of classes costs seconds."
        ),
    ] = True,
) -> None:
    """Say which of the classes each video shows."""
    from ost.descriptors.spec import resolve
    from ost.recognition.settings import Settings
    from ost.video.find import find_videos

    console, notes = stdout(), stderr()
    pack = resolve(classes)
    with activity("looking for videos"):
        paths = find_videos(videos)
    _check_any_exists(paths)
    fields: SettingsFields = {**sampling.fields, **matching.fields}
    Settings().but(**fields)  # refused before torch is loaded
    model.check()
    pages = _Pages(output.report) if output.report else None
    load_torch()

    from ost.recognition.record import failure_record

    recognizer = model.load(cache=cache, **fields)
    failures: list[VideoError] = []
    notices = _Notices(pack.notices)
    top = None if output.every else output.top
    results = recognizer.recognize_all(paths, pack, thumbnails=pages is not None)
    for result in counted(results, "recognising", len(paths)):
        if isinstance(result, VideoError):
            failures.append(result)
            if output.as_json:
                write_json(failure_record(result))
            continue
        if output.as_json:
            write_json(result.to_dict(top))
        else:
            show_prediction(console, result, top)
        notices.show(result)
        if pages:
            page = pages.save(result)
            if not output.as_json:
                console.print(f"page: {page}")
    show_failures(notes, failures, len(paths))
    if failures:
        raise typer.Exit(1)


def _check_any_exists(paths: Sequence[str]) -> None:
    """Refuse paths of which none exists; a missing video beside others is reported as a failure.

    Raises:
        UsageError: none of the videos exists.
    """
    if any(is_url(path) or os.path.lexists(path) or within(Path(path)) for path in paths):
        return
    listed = ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
    raise UsageError(f"{listed}: there is no such file")


class _Notices:
    """Show each notice once: those of the classes as they are, those of a video with its path."""

    def __init__(self, of_pack: Sequence[str]) -> None:
        self._of_pack = of_pack
        self._shown: set[str] = set()

    def show(self, prediction: Prediction) -> None:
        shared = [*self._of_pack, *prediction.head.notices]
        own = [f"{prediction.path}: {line}" for line in prediction.notices if line not in shared]
        show_notices(stderr(), [line for line in (*shared, *own) if line not in self._shown])
        self._shown |= {*shared, *own}


class _Pages:
    """Write pages into one folder, each under a unique name."""

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--report wants a folder, and {folder} is a file")
        self._folder = folder
        self._taken: set[str] = set()

    def save(self, prediction: Prediction) -> Path:
        stem = Path(prediction.path).stem or "video"
        name, number = stem, 2
        while name.casefold() in self._taken:
            name, number = f"{stem}-{number}", number + 1
        self._taken.add(name.casefold())
        page = self._folder / f"{name}.html"
        prediction.save_html(page)
        return page


def show_prediction(console: Console, prediction: Prediction, top: int | None) -> None:
    """Print the likeliest classes of one video with bars, or all."""
    block = "#" if console.options.ascii_only else "█"
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right")
    table.add_column()
    table.add_column()
    for score in prediction.classes[:top]:
        bar = block * round(score.probability * BAR)
        table.add_row(f"{score.probability:.1%}", Text(bar, style="cyan"), Text(score.title))
    console.print(Text(prediction.path, style="bold"))
    console.print(table)
