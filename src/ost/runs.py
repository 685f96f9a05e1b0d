"""Folders of results: one rule for where a run goes, and for the videos that it had to do without."""

from __future__ import annotations

import csv
import io
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ost.errors import UsageError
from ost.files import printable, write_text

TRAINING, EVALUATION = "config.json", "run.json"  # one of them is in every folder that holds a run
MISSING = "missing.csv"
ABSENT = "is in the list and not there"
TRAINED_ON = "train.csv"  # the clips that the weights beside it learned from
WEIGHTS = "weights.safetensors"


class Missing(NamedTuple):
    """A video that a run had to do without: the list that names it, the video, and why."""

    list: str
    video: str
    cause: str


def holds_run(folder: Path) -> bool:
    """Whether a run was saved in this folder, or has begun in it."""
    return any((folder / name).exists() for name in (TRAINING, EVALUATION))


def refused_folder(folder: Path) -> UsageError:
    """The error of a folder that holds another run."""
    return UsageError(
        f"{folder}: holds a run already",
        "go on with it by {resume=True}",
        "name another folder with {output}",
    )


def trained_on(weights: str | Path) -> Path | None:
    """The list of clips that a weight file learned from, if it still lies in the folder of its run."""
    file = Path(weights)
    homes = (file.parent, *([file.parents[2]] if len(file.parents) > 2 else []))  # RUN/checkpoints/STEP/
    lists = (home / TRAINED_ON for home in homes if holds_run(home))
    return next((place for place in lists if place.is_file()), None) if file.is_file() else None


def run_folder(output: Path | None, name: str, *, resume: bool = False) -> Path:
    """Where a run goes: the folder asked for, or the first free of runs/NAME, runs/NAME-2, ...

    Args:
        output: the folder asked for; None chooses one.
        name: what is run, such as "zero-shot/hmdb51".
        resume: go on with a run: the folder asked for, or the last one of that name.

    Raises:
        UsageError: the folder asked for holds a run, or is none.
    """
    if output is not None:
        if output.exists() and not output.is_dir():
            raise UsageError(f"{output}: is not a folder, as that of a run has to be")
        if holds_run(output) and not resume:
            raise refused_folder(output)
        return output
    folder = base = Path("runs") / name.replace("/", "-")
    last, number = base, 1
    while folder.exists():
        last, number = folder, number + 1
        folder = base.with_name(f"{base.name}-{number}")
    return last if resume else folder


@contextmanager
def claimed_folder(output: Path | None, name: str, *, resume: bool = False) -> Generator[Path]:
    """Make the folder of `run_folder` before anything slow begins, so that no other run takes it.

    Whatever of it is still empty is removed if the block fails: a run that never began leaves nothing.

    Raises:
        UsageError: see `run_folder`.
        OSError: the folder cannot be made.
    """
    folder = run_folder(output, name, resume=resume)
    made = _made(folder)
    while folder not in made and output is None and not resume:  # another run was quicker
        folder = run_folder(None, name)
        made = _made(folder)
    try:
        yield folder
    except BaseException:
        for place in reversed(made):
            with suppress(OSError):  # it holds something by now
                place.rmdir()
        raise


def _made(folder: Path) -> list[Path]:
    """Make a folder and those above it; gives the ones that were not there."""
    made: list[Path] = []
    for place in (*reversed(folder.parents), folder):
        with suppress(FileExistsError):
            place.mkdir()
            made.append(place)
    return made


def save_missing(folder: Path, missing: Iterable[Missing]) -> None:
    """Write the videos that a run had to do without; no file where there are none.

    Raises:
        OSError: the file cannot be written.
    """
    rows = list(missing)
    if not rows:
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Missing._fields)
    writer.writerows(rows)
    write_text(folder / MISSING, printable(text.getvalue()))
