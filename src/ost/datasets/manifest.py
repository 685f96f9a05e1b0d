"""A list of labelled videos: CSV with the columns path and label, checked."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ost.errors import UsageError

MAX_BYTES, MAX_LINE = 1 << 30, 1 << 16


class Clip(NamedTuple):
    """A video and the label it has, and others that it has too."""

    path: Path
    label: str
    others: tuple[str, ...] = ()


def manifest_text(clips: Iterable[Clip]) -> str:
    """Clips as a manifest; the paths become absolute."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("path", "label"))
    writer.writerows((str(clip.path.absolute()), clip.label) for clip in clips)
    return text.getvalue()


def is_manifest(path: str | Path) -> bool:
    """Whether a file begins with a header that has the columns path and label."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader([file.readline(MAX_LINE)]), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return {"path", "label"} <= set(header)


def read_manifest(path: str | Path, dataset: str | None = None, root: str | Path | None = None) -> list[Clip]:
    """The rows of a manifest; paths are relative to its folder.

    Args:
        path: a CSV with a header; `path` and `label` are needed, other columns are left alone.
        dataset: only rows with this in the column `dataset`.
        root: what paths are relative to, if not the folder of the manifest.

    Raises:
        UsageError: the file cannot be read, a column or a value is missing, or no row is left.
    """
    place = Path(path)
    try:
        if place.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path}: larger than {MAX_BYTES >> 30} GiB, which no manifest is")
        text = place.read_text(encoding="utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: is not a manifest that can be read ({error})") from error
    needed = ("path", "label", *(["dataset"] if dataset else []))
    if missing := [column for column in needed if not rows or column not in rows[0]]:
        raise UsageError(f"{path}: needs rows under a header with the column {' and '.join(missing)}")
    home = place.parent if root is None else Path(root)
    clips: list[Clip] = []
    for number, row in enumerate(rows, 2):
        if dataset and row["dataset"] != dataset:
            continue
        if not row["path"] or not row["label"]:
            raise UsageError(f"{path}: line {number} has no {'label' if row['path'] else 'path'}")
        clips.append(Clip(home / row["path"], row["label"]))
    if not clips:
        known = sorted({row.get("dataset") or "" for row in rows} - {""})
        raise UsageError(f"{path}: has no row of dataset {dataset!r}; it has {', '.join(known) or 'none'}")
    return clips
