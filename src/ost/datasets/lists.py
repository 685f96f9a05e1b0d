"""Read lists of labelled videos in the formats that benchmarks and papers publish, detected by content."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from ost.datasets.manifest import MAX_LIST_BYTES
from ost.errors import UsageError, first_line
from ost.files import VIDEO_ENDINGS
from ost.names import fold

MAX_LINE = 4096
Subset = Literal["train", "test"]
_DIGITS = re.compile(r"[0-9]{1,9}")
_UCF = re.compile(r"((?:.*/)?([^/]+)/v_\2_g[0-9]+_c[0-9]+\.avi)(?:\s+[0-9]+)?", re.IGNORECASE)
_HMDB = re.compile(r"(.+)_test_split([0-9]+)\.txt")
_HMDB_PARTS = {"0": None, "1": "train", "2": "test"}


class Entry(NamedTuple):
    """A video as a list names it.

    Attributes:
        video: its path or name, as written.
        labels: the names of its classes, at least one.
        frames: how many frames were taken from it, where the list says so.
    """

    video: str
    labels: tuple[str, ...]
    frames: int | None


def read_list(
    path: str | Path, names: Sequence[str] | None = None, part: Subset | None = None
) -> list[Entry]:
    """Read the videos of a list in one of the published formats.

    - `path number...`, the authors' form; `folder frames number...` where the path has no video file ending;
    - the CSV of Kinetics, and the JSON of Something-Something;
    - `Class/v_Class_g01_c01.avi`, the lists of UCF-101, whose numbers begin at 1 and are ignored;
    - `Class_test_split1.txt` of HMDB-51, one file per class: any of them stands for all files of its split.

    Args:
        path: the list.
        names: the classes, numbered from 0 in this order; labels that a list spells differently (capitals,
            underscores) get this spelling.
        part: which videos of an HMDB-51 list, which marks both parts.

    Raises:
        UsageError: the list cannot be read or is empty, a line is malformed, or a class is not in `names`.
    """
    list_file = Path(path)
    if match := _HMDB.fullmatch(list_file.name):
        entries = list(_hmdb(list_file.parent, match[2], names, part))
    else:
        entries = list(_parse(_text(list_file), list_file, names))
    if not entries:
        raise UsageError(f"{path}: lists no video")
    return entries


def _text(list_file: Path) -> str:
    try:
        if list_file.stat().st_size > MAX_LIST_BYTES:
            raise UsageError(
                f"{list_file}: larger than {MAX_LIST_BYTES >> 30} GiB, which no list of videos is"
            )
        return list_file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{list_file}: is not a list that can be read ({first_line(error)})") from error


def _parse(text: str, list_file: Path, names: Sequence[str] | None) -> Iterator[Entry]:
    start = text[:MAX_LINE].strip()
    header = start.partition("\n")[0]
    if list_file.suffix.lower() == ".json" or re.match(r"\[\s*\{", start):
        return _something_something(text, list_file, _speller(names))
    if "youtube_id" in header and "," in header:
        return _kinetics(text, list_file, _speller(names))
    if _UCF.fullmatch(header.strip()):
        return _ucf(text, list_file, _speller(names))
    return numbered(text, list_file, names)


def numbered(text: str, place: object, names: Sequence[str] | None) -> Iterator[Entry]:
    """Yield the entries of a text of `path number...` or `folder frames number...` lines.

    Args:
        text: the lines.
        place: the name of the text in errors.
        names: the classes, numbered from 0 in this order.

    Raises:
        UsageError: a line is malformed, a number has no class, or `names` is None.
    """
    for number, line in _lines(text, place):
        words = line.split()
        count = 0
        while count < len(words) - 1 and _DIGITS.fullmatch(words[-1 - count]):
            count += 1
        if not count:
            raise UsageError(f"{place}: line {number} is not a path and the number of a class: {line[:80]!r}")
        if names is None:
            raise UsageError(
                f"{place}: gives its classes as numbers, and there are no names for them; use a recipe of its "
                "benchmark, or a CSV with the columns path and label"
            )
        video = line.rsplit(None, count)[0]
        rows = [int(word) for word in words[-count:]]
        is_folder = PurePosixPath(video).suffix.lower() not in VIDEO_ENDINGS
        frames = rows.pop(0) if is_folder and count > 1 else None
        if wrong := [row for row in rows if row >= len(names)]:
            raise UsageError(
                f"{place}: line {number} has class {wrong[0]}, but the {len(names)} classes are 0 to {len(names) - 1}"
            )
        yield Entry(video, tuple(names[row] for row in rows), frames)


def _lines(text: str, source: object) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, stripped, with their line numbers."""
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > MAX_LINE:
            raise UsageError(
                f"{source}: line {number} is longer than {MAX_LINE} characters, which no path is"
            )
        if stripped := line.strip():
            yield number, stripped


LabelSpeller = Callable[[str, str], str]


def _speller(names: Sequence[str] | None) -> LabelSpeller:
    """Return a function from (label, location for errors) to the spelling of the label in `names`."""
    known = set(names or ())
    folded: dict[str, list[str]] = {}
    for name in known:
        folded.setdefault(fold(name), []).append(name)

    def spell(label: str, where: str) -> str:
        if names is None or label in known:
            return label
        if len(candidates := folded.get(fold(label), [])) == 1:
            return candidates[0]
        raise UsageError(
            f"{where} has the class {label!r}, which is not one of the {len(known)} that are asked for"
        )

    return spell


def _something_something(text: str, list_file: Path, spell: LabelSpeller) -> Iterator[Entry]:
    try:
        items: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{list_file}: line {error.lineno} is not JSON ({error.msg})") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{list_file}: is not JSON that can be read ({first_line(error)})") from error
    if not isinstance(items, list):
        raise UsageError(f"{list_file}: is not a JSON list of videos, each with an id and a template")
    for number, item in enumerate(items, 1):
        video, template = (item.get("id"), item.get("template")) if isinstance(item, dict) else (None, None)
        if not (isinstance(video, str) and isinstance(template, str) and video and template):
            raise UsageError(f"{list_file}: video {number} of the list has no id or no template, both texts")
        label = template.replace("[", "").replace("]", "")
        yield Entry(f"{video}.webm", (spell(label, f"{list_file}: video {number} of the list"),), None)


def _kinetics(text: str, list_file: Path, spell: LabelSpeller) -> Iterator[Entry]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    needed = ("label", "youtube_id", "time_start", "time_end")
    try:
        if missing := [column for column in needed if column not in (rows.fieldnames or ())]:
            raise UsageError(f"{list_file}: line 1, the header, lacks the column {' and '.join(missing)}")
        for row in rows:
            label, video, start, end = (row[column] or "" for column in needed)
            where = f"{list_file}: line {rows.line_num}"
            if not (label and video and _DIGITS.fullmatch(start) and _DIGITS.fullmatch(end)):
                raise UsageError(f"{where} has no label, no youtube_id, or times that are not whole seconds")
            yield Entry(f"{video}_{int(start):06d}_{int(end):06d}.mp4", (spell(label, where),), None)
    except csv.Error as error:
        raise UsageError(f"{list_file}: line {rows.line_num} is not CSV ({first_line(error)})") from error


def _ucf(text: str, list_file: Path, spell: LabelSpeller) -> Iterator[Entry]:
    for number, line in _lines(text, list_file):
        if not (match := _UCF.fullmatch(line)):
            raise UsageError(f"{list_file}: line {number} is not Class/v_Class_g01_c01.avi: {line[:80]!r}")
        yield Entry(match[1], (spell(match[2], f"{list_file}: line {number}"),), None)


def _hmdb(folder: Path, split: str, names: Sequence[str] | None, part: str | None) -> Iterator[Entry]:
    if part is None:
        raise UsageError(
            f"{folder}: lists of HMDB-51 mark clips for training and for test; say which, train or test"
        )
    spell = _speller(names)
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise UsageError(f"{folder}: is not a folder that can be read ({first_line(error)})") from error
    for list_file in files:
        match = _HMDB.fullmatch(list_file.name)
        if not match or match[2] != split:
            continue
        label = spell(match[1].replace("_", " "), str(list_file))
        for number, line in _lines(_text(list_file), list_file):
            video, mark = line.rsplit(None, 1) if len(line.split()) > 1 else (line, "")
            if mark not in _HMDB_PARTS:
                raise UsageError(
                    f"{list_file}: line {number} is not a file name and 0, 1 or 2: {line[:80]!r}"
                )
            if _HMDB_PARTS[mark] == part:
                yield Entry(video, (label,), None)
