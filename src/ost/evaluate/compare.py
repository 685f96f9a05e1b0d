"""Two saved runs, side by side: their numbers on the videos that both scored, and what was different about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ost.evaluate.metrics import Bools, Interval, paired_bootstrap, sign_test
from ost.evaluate.saved import Saved

SHOWN_CHANGES = 10


@dataclass(frozen=True)
class PairedRow:
    """One list in both runs, over the videos that both scored.

    Attributes:
        title: of the list.
        videos: how many both scored.
        a, b: top-1, shares of 1.
        only_a, only_b: videos that only one of them got right.
    """

    title: str
    videos: int
    a: float
    b: float
    only_a: int
    only_b: int


@dataclass(frozen=True)
class ClassChange:
    """A class that the runs do not get right equally often: shares of its videos, and how many there are."""

    name: str
    a: float
    b: float
    videos: int


@dataclass(frozen=True)
class Comparison:
    """Two runs.

    Attributes:
        rows: by list, those that both have videos of.
        difference: of mean top-1 over the lists, B - A, with its 95% interval over paired videos.
        p: of so uneven a split of the videos that only one got right, by an exact sign test (McNemar).
        largest: the largest difference of two logits of the same video and class; None if they share none.
        same: whether both have the same videos and classes with the same logits, to the bit.
        settings: key -> its values in A and B, where they differ.
        unpaired: rows that only A and only B have.
        classes: the largest changes.
    """

    rows: tuple[PairedRow, ...]
    difference: Interval | None
    p: float
    largest: float | None
    same: bool
    settings: dict[str, tuple[Any, Any]]
    unpaired: tuple[int, int]
    classes: tuple[ClassChange, ...]


def compare(a: Saved, b: Saved) -> Comparison:
    """Set two runs against each other, video by video."""
    keys_a = {key: i for i, key in enumerate(zip(a.lists, a.paths, strict=True))}
    keys_b = {key: i for i, key in enumerate(zip(b.lists, b.paths, strict=True))}
    shared = [key for key in keys_a if key in keys_b]
    in_a, in_b = ([keys[key] for key in shared] for keys in (keys_a, keys_b))
    right_a, right_b = a.right[in_a], b.right[in_b]
    titles = np.array([title for title, _ in shared])
    parts = [titles == title for title in dict.fromkeys(title for title, _ in shared)]
    rows = [_row(str(titles[part][0]), right_a[part], right_b[part]) for part in parts]
    return Comparison(
        tuple(rows),
        paired_bootstrap([(right_a[part], right_b[part]) for part in parts]) if rows else None,
        sign_test(sum(row.only_a for row in rows), sum(row.only_b for row in rows)),
        _largest(a, b, in_a, in_b),
        _same(a, b, in_a, in_b),
        _settings(a.record, b.record),
        (len(keys_a) - len(shared), len(keys_b) - len(shared)),
        _classes([a.labels[i][0] for i in in_a], right_a, right_b),
    )


def _row(title: str, a: Bools, b: Bools) -> PairedRow:
    return PairedRow(
        title, len(a), float(a.mean()), float(b.mean()), int((a & ~b).sum()), int((b & ~a).sum())
    )


def _largest(a: Saved, b: Saved, in_a: Sequence[int], in_b: Sequence[int]) -> float | None:
    names = [name for name in a.columns if name in b.columns]
    if not names or not in_a:
        return None
    one = a.logits[np.ix_(in_a, [a.columns[name] for name in names])]
    other = b.logits[np.ix_(in_b, [b.columns[name] for name in names])]
    gaps = np.abs(np.where(one == other, 0, one - other))  # equal infinities are no difference
    return None if np.isnan(gaps).all() else float(np.nanmax(gaps))


def _same(a: Saved, b: Saved, in_a: Sequence[int], in_b: Sequence[int]) -> bool:
    if not len(in_a) == len(a.paths) == len(b.paths) or a.columns.keys() != b.columns.keys():
        return False
    other = b.logits[np.ix_(in_b, [b.columns[name] for name in a.columns])]
    return np.array_equal(a.logits[in_a], other, equal_nan=True)


def _settings(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What the records tell that may move a number, where they differ."""
    flat_a, flat_b = _flat(a), _flat(b)
    keys = dict.fromkeys((*flat_a, *flat_b))
    return {key: (flat_a.get(key), flat_b.get(key)) for key in keys if flat_a.get(key) != flat_b.get(key)}


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    flat = {key: record.get(key) for key in ("backbone", "weights", "precision")}
    for group in ("config", "packs", "environment"):
        flat |= {f"{group}.{key}": value for key, value in dict(record.get(group) or {}).items()}
    return flat


def _classes(labels: Sequence[str], a: Bools, b: Bools) -> tuple[ClassChange, ...]:
    own = np.array(labels)
    changes = [
        ClassChange(
            name, float(a[own == name].mean()), float(b[own == name].mean()), int((own == name).sum())
        )
        for name in dict.fromkeys(labels)
    ]
    changed = [change for change in changes if change.a != change.b]
    return tuple(sorted(changed, key=lambda change: -abs(change.b - change.a))[:SHOWN_CHANGES])
