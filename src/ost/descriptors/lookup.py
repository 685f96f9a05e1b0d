"""Look up classes by name: find the descriptors of a class in any shipped pack."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from ost.descriptors.names import readable, stems
from ost.descriptors.pack import Pack, PackClass
from ost.descriptors.shipped import shipped_pack, whole_packs
from ost.errors import PackError
from ost.names import fold

SHOWN = 5  # names listed in a notice; the others are only counted
LETTERS, WORDS = 0.75, 0.5  # similarity from which a name is suggested: of its letters, of its words


class ClassMatch(NamedTuple):
    """A class of a shipped pack, and whether its name matched in another inflection."""

    item: PackClass
    pack: str
    inflected: bool


def join(title: str, labels: Iterable[str]) -> Pack:
    """Return a pack of the named classes, each with the descriptors that a shipped pack has for it.

    A name matches in any spelling (case, hyphens, underscores, CamelCase), else in any inflection ("walk a
    dog" matches "walking the dog"). If several packs have a name, the pack with the most names of the list
    is used, because its descriptors were written to tell those classes apart. A name that is in no pack gets
    the plain template, and a notice of the returned pack says so.

    Raises:
        PackError: a class name is empty or repeated.
    """
    listed = list(labels)
    packs = sorted(
        whole_packs(), key=lambda name: -sum(_find_class(name, label) is not None for label in listed)
    )
    classes: list[PackClass] = []
    inflected: list[tuple[str, ClassMatch]] = []
    unmatched: list[str] = []
    for label in listed:
        match = _first_match(packs, label)
        if match is None:
            unmatched.append(label)
            classes.append(named(label))
            continue
        if match.inflected:
            inflected.append((readable(label), match))
        # Keep the user's own words, except for a label such as ApplyEyeMakeup.
        keep = fold(label) == fold(match.item.name) or (readable(label) != label and not match.inflected)
        item = replace(match.item, name=match.item.name if keep else readable(label))
        classes.append(replace(item, label=label if label != item.name else None))
    _check_distinct(title, listed, classes)
    notices = (*_inflected_notice(inflected), *_plain_notices(unmatched, len(classes)))
    return Pack(title, tuple(classes), provenance={"method": "joined by name"}, notices=notices)


def named(label: str) -> PackClass:
    """Return a class with this label, without descriptors."""
    name = readable(label)
    return PackClass(name, label=label if name != label else None)


def nearest(name: str) -> tuple[str, str] | None:
    """Return the known class with the most similar name, and its pack; None if none is similar enough."""
    letters, words = fold(name), set(stems(name))
    best, best_similarity = None, 0.0
    matcher = difflib.SequenceMatcher(None, b=letters)
    for key, (known_name, pack) in _known_names().items():
        known_words = set(stems(known_name))
        similarity = len(words & known_words) / max(1, len(words | known_words))
        similarity = similarity if similarity >= WORDS else 0.0
        matcher.set_seq1(key)
        threshold = max(LETTERS, similarity)
        bounds = (matcher.real_quick_ratio, matcher.quick_ratio)
        if all(bound() >= threshold for bound in bounds) and (ratio := matcher.ratio()) >= LETTERS:
            similarity = max(similarity, ratio)
        if similarity > best_similarity:
            best, best_similarity = (known_name, pack), similarity
    return best


@cache
def _known_names() -> dict[str, tuple[str, str]]:
    """Map the folded name of each shipped class to its name and pack."""
    return {fold(name): (name, pack) for pack in whole_packs() for name in shipped_pack(pack).names}


@cache
def _inflections(pack: str) -> dict[tuple[str, ...], PackClass]:
    classes = shipped_pack(pack).classes
    # A label may inflect like another class's name; names win.
    by_label = {stems(item.label): item for item in classes if item.label}
    return by_label | {stems(item.name): item for item in classes}


def _find_class(pack: str, label: str) -> PackClass | None:
    return shipped_pack(pack).find(label) or _inflections(pack).get(stems(label))


def _first_match(packs: Sequence[str], label: str) -> ClassMatch | None:
    """Return the first class with that spelling, else the first with that inflection."""
    for name in packs:
        if item := shipped_pack(name).find(label):
            return ClassMatch(item, name, False)
    for name in packs:
        if item := _inflections(name).get(stems(label)):
            return ClassMatch(item, name, True)
    return None


def _check_distinct(title: str, labels: Sequence[str], classes: Sequence[PackClass]) -> None:
    owners: dict[tuple[str, ...], str] = {}
    for label, item in zip(labels, classes, strict=True):
        if item.spatial and item.spatial in owners and fold(item.name) != fold(owners[item.spatial]):
            other = owners[item.spatial]
            raise PackError(f"{title}: {label!r} and {other!r} are one class in other words; remove one")
        owners[item.spatial] = label


def _inflected_notice(inflected: Sequence[tuple[str, ClassMatch]]) -> tuple[str, ...]:
    others = [f"{name} = {match.item.name} ({match.pack})" for name, match in inflected]
    return (f"descriptors taken from the same class in other words: {first_names(others)}",) if others else ()


def _plain_notices(unmatched: Sequence[str], total: int) -> tuple[str, ...]:
    if not unmatched:
        return ()
    near = {name: nearest(name) for name in unmatched[:SHOWN]}
    hints = [f"{name}: is {hit[0]!r} ({hit[1]}) meant?" for name, hit in near.items() if hit]
    count = f"{len(unmatched)} of {total} classes"
    return (
        f"{count} are in no shipped pack and are matched by name alone: {first_names(unmatched)}",
        *([f"near names, not taken: {' '.join(hints)}"] if hints else []),
        "descriptors tell classes apart better than names: ost describe CLASSES -o pack.json has an LLM "
        "write them; then give pack.json in place of the names",
    )


def first_names(names: Sequence[str]) -> str:
    """List the first few names, and say how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
