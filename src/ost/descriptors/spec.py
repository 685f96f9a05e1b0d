"""What a user writes after `--classes` -> a pack."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import cast

from ost.catalog import did_you_mean
from ost.descriptors.pack import Pack, PackClass, load_pack, parse_pack, read_json, read_text, readable
from ost.errors import PackError

Spec = str | Path | Sequence[str] | Pack


def shipped() -> list[str]:
    """Names of the packs that come with the package."""
    folder = files("ost.descriptors") / "packs"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".json"))


@cache
def shipped_pack(name: str) -> Pack:
    """A pack that comes with the package, by name."""
    if name not in shipped():
        raise PackError(f"there is no pack called {name!r}{did_you_mean(name, shipped())}")
    text = (files("ost.descriptors") / "packs" / f"{name}.json").read_text(encoding="utf-8")
    return parse_pack(json.loads(text), name)


def resolve(spec: Spec) -> Pack:
    """A pack from a shipped pack's name, a pack file, a text file, an `id,name` CSV, or class names.

    Names alone are looked up in the shipped packs; one that is in none gets no descriptors, so its prompts
    are the plain template around its name, and the pack carries a notice.

    Raises:
        PackError: the file is missing or malformed, or a class is empty or doubled.
    """
    if isinstance(spec, Pack):
        return spec
    if isinstance(spec, str) and spec in shipped():
        return shipped_pack(spec)
    if isinstance(spec, str | Path) and _is_file(spec):
        path = Path(spec)
        return load_pack(path) if path.suffix.lower() == ".json" else _join(path.stem, _read_list(path))
    if isinstance(spec, Path):
        raise PackError(f"{spec}: there is no such file")
    if isinstance(spec, str):
        if Path(spec).suffix.lower() in {".json", ".txt", ".csv"} and "," not in spec:
            raise PackError(f"{spec}: there is no such file")
        names = [part.strip() for part in spec.split(",")]
        if len(names) == 1:
            raise PackError(
                f"{spec!r} is neither a shipped pack ({', '.join(shipped())}) nor a file; "
                "give at least two class names, separated by commas"
            )
        return _join("classes", names)
    names = list(spec)
    for i, name in enumerate(cast(list[object], names)):
        if not isinstance(name, str):
            raise PackError(f"class {i} of the list must be a text, is {name!r:.100}")
    return _join("classes", [name.strip() for name in names])


def import_authors(spatial: str | Path, temporal: str | Path, labels: str | Path, name: str) -> Pack:
    """A pack from the OST authors' format: two JSON files `{"0": [...], ...}` and an `id,name` CSV.

    Raises:
        PackError: a row of the CSV has no entry in one of the files, an entry has no row, or the rows are not
            in the order of their ids.
    """
    names = _read_list(Path(labels), numbered=True)
    kinds = [_read_numbered(Path(path), len(names)) for path in (spatial, temporal)]
    classes = [
        {
            "name": readable(label),
            **({"label": label} if readable(label) != label else {}),
            "spatial": s,
            "temporal": t,
        }
        for label, s, t in zip(names, *kinds, strict=True)
    ]
    provenance = {"method": "imported from the format of the OST authors"}
    data = {"schema": 1, "name": name, "provenance": provenance, "classes": classes}
    return parse_pack(data, str(labels))


def _is_file(spec: str | Path) -> bool:
    try:
        return Path(spec).is_file()
    except (OSError, ValueError):  # a list of names may be too long for a file name
        return False


def _join(name: str, labels: Iterable[str]) -> Pack:
    """Classes by name, with the descriptors of the first shipped pack that knows each."""
    packs = [shipped_pack(known) for known in shipped()]
    classes: list[PackClass] = []
    plain: list[str] = []
    for label in labels:
        found = next((hit for pack in packs if (hit := pack.find(label))), None)
        if found is None:
            plain.append(readable(label))
            found = PackClass(readable(label), label=label if readable(label) != label else None)
        classes.append(found)
    notices = ()
    if plain:
        shown = ", ".join(plain[:5]) + (f" and {len(plain) - 5} more" if len(plain) > 5 else "")
        count = f"{len(plain)} of {len(classes)} classes"
        notices = (f"{count} are in no shipped pack and are matched by name alone: {shown}",)
    return Pack(name, tuple(classes), provenance={"method": "joined by name"}, notices=notices)


def _read_list(path: Path, numbered: bool = False) -> list[str]:
    """Class names of a text file, one a line, or of a CSV with a column `name`.

    With `numbered`, a column `id` must count the rows from 0.
    """
    text = read_text(path)
    if path.suffix.lower() != ".csv":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        table = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise PackError(f"{path}: is not a CSV ({error})") from error
    columns = {key.strip().lower(): key for key in (table[0] if table else {}) if key}
    if "name" not in columns:
        raise PackError(f"{path}: needs rows under a header with a column called name, as in id,name")
    names = [(row[columns["name"]] or "").strip() for row in table]
    if "" in names:
        raise PackError(f"{path}: row {names.index('')} has no class name")
    if numbered and "id" in columns:
        for i, row in enumerate(table):
            if (row[columns["id"]] or "").strip() != str(i):
                raise PackError(f"{path}: row {i} ({names[i]!r}) has the id {row[columns['id']]!r}, not {i}")
    return names


def _read_numbered(path: Path, count: int) -> list[list[str]]:
    data = read_json(path)
    if not isinstance(data, dict):
        raise PackError(f"{path}: must be an object with the keys 0 to {count - 1}")
    entries = cast(dict[str, list[str]], data)
    expected = {str(i) for i in range(count)}
    if missing := expected - set(entries):
        raise PackError(f"{path}: has no entry for row {min(missing, key=int)} of the {count} labels")
    if extra := set(entries) - expected:
        raise PackError(f"{path}: has an entry {min(extra)!r} for which the labels have no row")
    return [entries[str(i)] for i in range(count)]
