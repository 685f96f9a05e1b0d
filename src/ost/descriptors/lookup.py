"""Class names find their knowledge: the descriptors of a class in any shipped pack, by its name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

from ost.descriptors.names import readable, stems
from ost.descriptors.pack import Pack, PackClass
from ost.descriptors.shipped import shipped_pack, whole_packs
from ost.errors import PackError
from ost.names import fold

SHOWN = 5  # names that a notice lists; the rest is counted
LETTERS, WORDS = 0.75, 0.5  # likeness from which a name is worth suggesting: of its letters, of its words


class Found(NamedTuple):
    """A class of a shipped pack, and whether its name was met in another inflection."""

    item: PackClass
    pack: str
    inflected: bool


def join(title: str, labels: Iterable[str]) -> Pack:
    """Classes by name, each with the descriptors that a shipped pack has for it.

    A name matches in any spelling (case, hyphens, underscores, CamelCase), else in any inflection ("walk a
    dog" finds "walking the dog"). Where several packs know a name, the one that knows most of the list is
    taken, because its descriptors were written to tell those classes apart. A name that is in no pack gets
    the plain template; the pack carries notices that say so.

    Raises:
        PackError: a class is empty or doubled.
    """
    wanted = list(labels)
    order = sorted(whole_packs(), key=lambda name: -sum(_finds(name, label) is not None for label in wanted))
    classes: list[PackClass] = []
    inflected: list[tuple[str, Found]] = []
    plain: list[str] = []
    for label in wanted:
        found = _first(order, label)
        if found is None:
            plain.append(readable(label))
            classes.append(named(label))
            continue
        if found.inflected:
            inflected.append((readable(label), found))
        # The user's own words stay, but for a label such as ApplyEyeMakeup.
        keep = fold(label) == fold(found.item.name) or (readable(label) != label and not found.inflected)
        own = PackClass(readable(label), found.item.spatial, found.item.temporal)
        classes.append(found.item if keep else own)
    _refuse_doubles(title, wanted, classes)
    notices = (*_inflected_notice(inflected), *_plain_notices(plain, len(classes)))
    return Pack(title, tuple(classes), provenance={"method": "joined by name"}, notices=notices)


def named(label: str) -> PackClass:
    """A class of that label, without descriptors."""
    name = readable(label)
    return PackClass(name, label=label if name != label else None)


def nearest(name: str) -> tuple[str, str] | None:
    """The known class whose name is most like this one, and its pack; None if none is like it."""
    letters, words = fold(name), set(stems(name))
    best, likeness = None, 0.0
    matcher = difflib.SequenceMatcher(None, b=letters)
    for key, (known_name, pack) in _known_names().items():
        known = set(stems(known_name))
        alike = len(words & known) / max(1, len(words | known))
        alike = alike if alike >= WORDS else 0.0
        matcher.set_seq1(key)
        least = max(LETTERS, alike)
        bounds = (matcher.real_quick_ratio, matcher.quick_ratio)
        if all(bound() >= least for bound in bounds) and (ratio := matcher.ratio()) >= LETTERS:
            alike = max(alike, ratio)
        if alike > likeness:
            best, likeness = (known_name, pack), alike
    return best


@cache
def _known_names() -> dict[str, tuple[str, str]]:
    """Folded name -> the name and its pack."""
    return {fold(name): (name, pack) for pack in whole_packs() for name in shipped_pack(pack).names}


@cache
def _inflections(pack: str) -> dict[tuple[str, ...], PackClass]:
    classes = shipped_pack(pack).classes
    # A label may inflect like another class's name; names win.
    by_label = {stems(item.label): item for item in classes if item.label}
    return by_label | {stems(item.name): item for item in classes}


def _finds(pack: str, label: str) -> PackClass | None:
    return shipped_pack(pack).find(label) or _inflections(pack).get(stems(label))


def _first(order: Sequence[str], label: str) -> Found | None:
    """The first pack's class of that spelling, else the first one's of that inflection."""
    for name in order:
        if item := shipped_pack(name).find(label):
            return Found(item, name, False)
    for name in order:
        if item := _inflections(name).get(stems(label)):
            return Found(item, name, True)
    return None


def _refuse_doubles(title: str, labels: Sequence[str], classes: Sequence[PackClass]) -> None:
    owners: dict[tuple[str, ...], str] = {}
    for label, item in zip(labels, classes, strict=True):
        if item.spatial and item.spatial in owners and fold(item.name) != fold(owners[item.spatial]):
            other = owners[item.spatial]
            raise PackError(f"{title}: {label!r} and {other!r} are one class in other words; remove one")
        owners[item.spatial] = label


def _inflected_notice(inflected: Sequence[tuple[str, Found]]) -> tuple[str, ...]:
    others = [f"{name} = {found.item.name} ({found.pack})" for name, found in inflected]
    return (f"descriptors taken from the same class in other words: {some(others)}",) if others else ()


def _plain_notices(plain: Sequence[str], total: int) -> tuple[str, ...]:
    if not plain:
        return ()
    near = {name: nearest(name) for name in plain[:SHOWN]}
    hints = [f"{name}: is {hit[0]!r} ({hit[1]}) meant?" for name, hit in near.items() if hit]
    count = f"{len(plain)} of {total} classes"
    return (
        f"{count} are in no shipped pack and are matched by name alone: {some(plain)}",
        *([f"near names, not taken: {' '.join(hints)}"] if hints else []),
        "descriptors tell classes apart better than names: ost describe CLASSES -o pack.json has an LLM "
        "write them; then give pack.json in place of the names",
    )


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
