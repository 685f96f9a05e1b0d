"""Folders of runs: one rule for where results are written, and for the videos that a run could not use."""

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
TRAINED_ON = "train.csv"  # the videos that the weights beside it were trained on
WEIGHTS = "weights.safetensors"


class Missing(NamedTuple):
    """A video that a run could not use: the list that names it, the video, and why."""

    list: str
    video: str
    cause: str


def holds_run(folder: Path) -> bool:
    """Return whether a run was saved or started in this folder."""
    return any((folder / name).exists() for name in (TRAINING, EVALUATION))


def refused_folder(folder: Path) -> UsageError:
    """Return the error for a folder that holds another run."""
    return UsageError(
        f"{folder}: holds a run already",
        "go on with it by {resume=True}",
        "name another folder with {output}",
    )


def trained_on(weights: str | Path) -> Path | None:
    """Return the list of videos that weights were trained on; None if they are not in the folder of their run."""
    file = Path(weights)
    candidates = (file.parent, *([file.parents[2]] if len(file.parents) > 2 else []))  # RUN/checkpoints/STEP/
    lists = (folder / TRAINED_ON for folder in candidates if holds_run(folder))
    return next((path for path in lists if path.is_file()), None) if file.is_file() else None


def run_folder(output: Path | None, name: str, *, resume: bool = False) -> Path:
    """Return the folder of a run: the one given, or the first free of runs/NAME, runs/NAME-2, ...

    Args:
        output: the folder; None chooses one.
        name: the name of the run, such as "zero-shot/hmdb51".
        resume: continue a run: the folder given, or the last one with that name.

    Raises:
        UsageError: `output` holds a run, or is not a folder.
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
    """Create the folder of `run_folder` before anything slow begins, so that no other run takes it.

    If the block fails, created folders that are still empty are removed: a run that never began leaves nothing.

    Raises:
        UsageError: see `run_folder`.
        OSError: the folder cannot be created.
    """
    folder = run_folder(output, name, resume=resume)
    created = _create_folders(folder)
    while folder not in created and output is None and not resume:  # another run took it first
        folder = run_folder(None, name)
        created = _create_folders(folder)
    try:
        yield folder
    except BaseException:
        for created_folder in reversed(created):
            with suppress(OSError):  # it is no longer empty
                created_folder.rmdir()
        raise


def _create_folders(folder: Path) -> list[Path]:
    """Create a folder and its parents; return the ones that did not exist."""
    created: list[Path] = []
    for path in (*reversed(folder.parents), folder):
        with suppress(FileExistsError):
            path.mkdir()
            created.append(path)
    return created


def save_missing(folder: Path, missing: Iterable[Missing]) -> None:
    """Write the videos that a run could not use; write no file if there are none.

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
