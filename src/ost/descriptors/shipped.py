"""The packs that come with OST: one JSON file per benchmark, and named parts of these packs."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from ost.catalog import did_you_mean
from ost.descriptors.pack import Pack, parse_pack
from ost.errors import PackError

_HOME = files("ost.descriptors")


@cache
def whole_packs() -> tuple[str, ...]:
    """Return the names of the packs that have their own file."""
    entries = (_HOME / "packs").iterdir()
    return tuple(sorted(entry.name[:-5] for entry in entries if entry.name.endswith(".json")))


@cache
def _parts() -> dict[str, Any]:
    """Return name -> {"pack": the whole pack, "classes": labels in the order of the split}."""
    return json.loads((_HOME / "parts.json").read_text(encoding="utf-8"))


def shipped() -> list[str]:
    """Return the names of the packs that come with the package, parts included."""
    return sorted((*whole_packs(), *_parts()))


@cache
def shipped_pack(name: str) -> Pack:
    """Return the pack called `name` that comes with the package.

    Raises:
        PackError: there is none of that name.
    """
    if part := _parts().get(name):
        chosen = shipped_pack(part["pack"]).select(part["classes"])
        return Pack(name, chosen.classes, chosen.licence, chosen.provenance)
    if name not in whole_packs():
        raise PackError(f"there is no pack called {name!r}{did_you_mean(name, shipped())}")
    text = (_HOME / "packs" / f"{name}.json").read_text(encoding="utf-8")
    return parse_pack(json.loads(text), name)
