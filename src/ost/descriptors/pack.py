"""Descriptor packs: classes with spatial and temporal descriptors, validated, hashed, read and written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from ost.catalog import did_you_mean
from ost.errors import PackError
from ost.files import text_hash, write_text
from ost.names import fold
from ost.notebook import html_table
from ost.types import BOTH

PACK_SCHEMA = 1
MAX_PACK_BYTES = 64 << 20
_FIELDS = {"schema", "name", "licence", "provenance", "classes"}
_CLASS_FIELDS = {"name", "label", "spatial", "temporal"}


@dataclass(frozen=True)
class PackClass:
    """One class.

    Attributes:
        name: readable, as it goes into prompts.
        spatial: what a single frame shows; may be empty.
        temporal: the steps over time, in order; may be empty.
        label: the spelling of the user or the benchmark, where it differs from `name`.
    """

    name: str
    spatial: tuple[str, ...] = ()
    temporal: tuple[str, ...] = ()
    label: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the class as it is written to a pack file."""
        label = {"label": self.label} if self.label else {}
        return {"name": self.name, **label, "spatial": list(self.spatial), "temporal": list(self.temporal)}


@dataclass(frozen=True)
class Pack:
    """Classes in order, with the provenance of their descriptors.

    Raises:
        PackError: there is no class, a class has no name, two names fold to the same key, or a text
            cannot be written as UTF-8.
    """

    name: str
    classes: tuple[PackClass, ...]
    licence: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.classes:
            raise PackError(f"pack {self.name!r} has no class; give at least one")
        seen: dict[str, str] = {}
        for item in self.classes:
            key = fold(item.name)
            if not key:
                raise PackError(f"pack {self.name!r} has a class without a name; remove or name it")
            if key in seen:
                also = "" if seen[key] == item.name else f" (also as {seen[key]!r})"
                raise PackError(f"pack {self.name!r} has class {item.name!r} twice{also}; remove one")
            seen[key] = item.name
            try:
                "".join((item.name, item.label or "", *item.spatial, *item.temporal)).encode()
            except UnicodeEncodeError as error:
                raise PackError(
                    f"pack {self.name!r}, class {item.name!r}: holds half a character, which is not Unicode"
                ) from error

    def __len__(self) -> int:
        return len(self.classes)

    def __repr__(self) -> str:
        return f"Pack({self.name!r}, {len(self)} classes)"

    def _repr_html_(self) -> str:
        rows = [
            (label, item.name, "; ".join(item.spatial), "; ".join(item.temporal))
            for label, item in zip(self.labels, self.classes, strict=True)
        ]
        return html_table(self.name, ("label", "name", *BOTH), rows)

    @property
    def names(self) -> tuple[str, ...]:
        """The readable names, in order."""
        return tuple(item.name for item in self.classes)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels as the user or the benchmark writes them, in order; the name where there is no other."""
        return tuple(item.label or item.name for item in self.classes)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the classes: names, labels, descriptors and their order."""
        return text_hash(json.dumps([c.as_dict() for c in self.classes], ensure_ascii=False, sort_keys=True))

    @cached_property
    def _by_key(self) -> dict[str, PackClass]:
        # A label may equal another class's name; names win.
        labels = {fold(c.label): c for c in self.classes if c.label}
        return labels | {fold(c.name): c for c in self.classes}

    def find(self, name: str) -> PackClass | None:
        """Return the class with this name or label in any spelling (see `fold`); None if there is none."""
        return self._by_key.get(fold(name))

    def select(self, names: Iterable[str]) -> Pack:
        """Return a pack of the classes with these names or labels, in the order given.

        Raises:
            PackError: a name is not in the pack, or is given twice.
        """
        class_names = list(names)
        unknown = [name for name in class_names if self.find(name) is None]
        if unknown:
            near = did_you_mean(unknown[0], [*self.names, *(c.label for c in self.classes if c.label)])
            raise PackError(f"pack {self.name!r} has no class {_list(unknown)}{near}")
        classes = tuple(cast(PackClass, self.find(name)) for name in class_names)
        provenance = {key: value for key, value in self.provenance.items() if key != "hash"}
        return Pack(self.name, classes, self.licence, provenance)


def load_pack(path: str | Path) -> Pack:
    """Read and check a pack file.

    Raises:
        PackError: the file cannot be read, is not JSON, or does not follow the schema; the message names the
            class and the field.
    """
    return parse_pack(read_json(path), str(path))


def read_json(path: str | Path) -> object:
    """Decode a JSON file; a key that appears twice in an object is an error."""
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=_reject_duplicate_keys)
    except (ValueError, RecursionError) as error:
        raise PackError(f"{path}: is not JSON ({str(error)[:100]})") from error


def read_text(path: str | Path) -> str:
    """Read a UTF-8 file of at most `MAX_PACK_BYTES`, with or without a byte-order mark."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_PACK_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise PackError(f"{path}: cannot be read ({error})") from error
    if len(data) > MAX_PACK_BYTES:
        raise PackError(f"{path}: larger than {MAX_PACK_BYTES >> 20} MiB, which no list of classes is")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PackError(f"{path}: is not UTF-8 text ({error})") from error


def _reject_duplicate_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        keys = [key for key, _ in pairs]
        doubled = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {doubled!r} stands twice in one object")
    return entries


def parse_pack(data: object, where: str) -> Pack:
    """Return the pack that decoded JSON describes, checked against the schema; `where` names it in errors."""
    top = _object(data, _FIELDS, where)
    if top.get("schema") != PACK_SCHEMA:
        raise PackError(f"{where}: schema is {top.get('schema')!r}, this version reads {PACK_SCHEMA}")
    if not isinstance(top.get("classes"), list):
        raise PackError(f"{where}: classes must be a list")
    provenance = top.get("provenance", {})
    if not isinstance(provenance, dict):
        raise PackError(f"{where}: provenance must be an object")
    classes: list[PackClass] = []
    for i, entry in enumerate(cast(list[object], top["classes"])):
        spot = f"{where}: class {i}"
        item = _object(entry, _CLASS_FIELDS, spot)
        name = _text(item.get("name"), f"{spot}: name")
        label = _text(item["label"], f"{spot}: label") if item.get("label") is not None else None
        kinds = [_texts(item.get(kind, []), f"{where}: class {name!r}: {kind}") for kind in BOTH]
        if not any(kinds):
            raise PackError(f"{where}: class {name!r} has no descriptors; write some, or leave the class out")
        classes.append(PackClass(name, kinds[0], kinds[1], label))
    name = _text(top.get("name"), f"{where}: name")
    licence = top.get("licence", "")
    if not isinstance(licence, str):
        raise PackError(f"{where}: licence must be a text")
    return Pack(name, tuple(classes), licence, cast(dict[str, Any], provenance))


def save_pack(pack: Pack, path: str | Path) -> None:
    """Write a pack file atomically; its provenance records the content hash."""
    data = {
        "schema": PACK_SCHEMA,
        "name": pack.name,
        "licence": pack.licence,
        "provenance": {**pack.provenance, "hash": pack.hash},
        "classes": [item.as_dict() for item in pack.classes],
    }
    write_text(path, json.dumps(data, ensure_ascii=False, indent=2) + "\n")


def _object(data: object, fields: set[str], where: str) -> dict[str, object]:
    if not isinstance(data, dict):
        raise PackError(f"{where}: must be an object, is {type(data).__name__}")
    entries = cast(dict[str, object], data)
    if unknown := set(entries) - fields:
        raise PackError(
            f"{where}: unknown field {_list(sorted(unknown))}; known are {', '.join(sorted(fields))}"
        )
    return entries


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise PackError(f"{where} must be a text that is not empty, is {value!r:.100}")
    return " ".join(value.split())


def _texts(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise PackError(f"{where} must be a list of texts")
    texts = tuple(_text(entry, f"{where}[{i}]") for i, entry in enumerate(cast(list[object], value)))
    folded = [text.casefold() for text in texts]
    for i, text in enumerate(folded):
        if text in folded[:i]:
            raise PackError(f"{where} holds {texts[i]!r} twice; remove one")
    return texts


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
