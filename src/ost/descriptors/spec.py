"""Resolve a class specification, as written after `--classes`, to a pack."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

from ost.catalog import did_you_mean, near_misses
from ost.descriptors.lookup import first_names, join, named
from ost.descriptors.names import readable
from ost.descriptors.pack import Pack, PackClass, load_pack, parse_pack, read_json, read_text
from ost.descriptors.shipped import shipped, shipped_pack
from ost.errors import PackError

Spec = str | Path | Sequence[str] | Pack


def resolve(spec: Spec) -> Pack:
    """Return the pack for a shipped pack's name, a pack file, a text file, an `id,name` CSV, or class names.

    Names alone are looked up in the shipped packs; see `ost.descriptors.lookup.join`.

    Raises:
        PackError: the file is missing or malformed, or a class name is empty or repeated.
    """
    content = _read(spec)
    if isinstance(content, Pack):
        return content
    if isinstance(spec, str) and len(content.names) == 1 and not _is_file(spec):
        raise _unresolvable(spec)
    return join(content.title, content.names)


def _unresolvable(spec: str) -> PackError:
    """Return the error for a text that is neither a pack nor a file nor a list."""
    if len(names := [part.strip() for part in re.split(r"[;|\t\n]", spec) if part.strip()]) > 1:
        commas = ", ".join(names)
        return PackError(f"{spec!r}: names of classes are separated by commas, as in {commas!r}")
    if near := near_misses(spec, shipped()):
        return PackError(f"{spec!r} is neither a shipped pack nor a file{did_you_mean(spec, near)}")
    return PackError(
        f"{spec!r} is neither a shipped pack ({', '.join(shipped())}) nor a file; "
        "give at least two class names, separated by commas"
    )


def class_list(spec: Spec) -> Pack:
    """Return the classes that a spec names, without descriptors.

    Raises:
        PackError: as `resolve`; a single name is enough here.
    """
    content = _read(spec)
    if isinstance(content, Pack):
        return Pack(content.name, tuple(PackClass(item.name, label=item.label) for item in content.classes))
    return Pack(content.title, tuple(named(label) for label in content.names))


class _Names(NamedTuple):
    title: str
    names: list[str]


def _read(spec: Spec) -> Pack | _Names:
    """Read a spec: return a pack, or class names yet to be looked up."""
    if isinstance(spec, Pack):
        return spec
    if isinstance(spec, str) and spec in shipped():
        return shipped_pack(spec)
    if isinstance(spec, str | Path) and _is_file(spec):
        path = Path(spec)
        return _load(path) if path.suffix.lower() == ".json" else _Names(path.stem, _read_list(path))
    if isinstance(spec, Path):
        raise PackError(f"{spec}: there is no such file")
    if isinstance(spec, str):
        if Path(spec).suffix.lower() in {".json", ".txt", ".csv"} and "," not in spec:
            raise PackError(f"{spec}: there is no such file")
        return _Names("classes", [part.strip() for part in spec.split(",")])
    if not isinstance(cast("object", spec), Iterable):
        raise PackError(f"classes are names, a file, or the name of a shipped pack, not {spec!r:.100}")
    names = list(spec)
    for i, name in enumerate(cast(list[object], names)):
        if not isinstance(name, str):
            raise PackError(f"class {i} of the list must be a text, is {name!r:.100}")
    return _Names("classes", [name.strip() for name in names])


def import_authors(spatial: str | Path, temporal: str | Path, labels: str | Path, name: str) -> Pack:
    """Return a pack from the OST authors' format: two JSON files `{"0": [...], ...}` and an `id,name` CSV.

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


def _load(path: Path) -> Pack:
    """Load a pack file; a notice lists the classes for which writing descriptors failed."""
    pack = load_pack(path)
    missing = pack.provenance.get("missing")
    if not isinstance(missing, list) or not missing:
        return pack
    names = first_names([str(name) for name in cast(list[object], missing)])
    return replace(
        pack, notices=(f"{path}: lacks classes that found no descriptors when it was written: {names}",)
    )


def _is_file(spec: str | Path) -> bool:
    try:
        return Path(spec).is_file()
    except (OSError, ValueError):  # a list of names may be too long for a file name
        return False


def _read_list(path: Path, numbered: bool = False) -> list[str]:
    """Read class names from a text file, one a line, or from the column `name` of a CSV.

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
