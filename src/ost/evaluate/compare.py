"""Compare two saved runs: their numbers on the videos that both scored, and the settings that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ost.evaluate.metrics import Bools, Interval, paired_bootstrap, sign_test
from ost.evaluate.saved import Saved
from ost.notebook import html_table

SHOWN_CHANGES = 10


@dataclass(frozen=True)
class PairedRow:
    """The results of both runs on one list, over the videos that both scored.

    Attributes:
        title: title of the list.
        videos: number of videos that both scored.
        a, b: top-1 of each run, as a fraction.
        only_a, only_b: number of videos that only this run got right.
    """

    title: str
    videos: int
    a: float
    b: float
    only_a: int
    only_b: int


@dataclass(frozen=True)
class ClassChange:
    """A class whose top-1 differs between the runs: both values, as fractions, and its number of videos."""

    name: str
    a: float
    b: float
    videos: int


@dataclass(frozen=True)
class Comparison:
    """The comparison of two runs.

    Attributes:
        rows: one per list with videos in both runs.
        difference: mean top-1 over the lists, B - A, with its 95% interval over paired videos.
        p: p-value of an exact sign test (McNemar) on the videos that only one run got right.
        largest: the largest difference of two logits of the same video and class; None if they share none.
        same: whether both have the same videos and classes with the same logits, to the bit.
        settings: key -> its values in A and B, where they differ.
        unpaired: number of videos, by list, that only A and only B have.
        classes: the classes with the largest changes.
    """

    rows: tuple[PairedRow, ...]
    difference: Interval | None
    p: float
    largest: float | None
    same: bool
    settings: dict[str, tuple[Any, Any]]
    unpaired: tuple[int, int]
    classes: tuple[ClassChange, ...]

    def _repr_html_(self) -> str:
        rows = [(row.title, str(row.videos), f"{row.a:.1%}", f"{row.b:.1%}") for row in self.rows]
        return html_table("top-1 of two runs", ("list", "videos", "A", "B"), rows)


def compare(a: Saved, b: Saved) -> Comparison:
    """Compare two runs video by video."""
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
        _largest_gap(a, b, in_a, in_b),
        _is_same(a, b, in_a, in_b),
        _changed_settings(a.record, b.record),
        (len(keys_a) - len(shared), len(keys_b) - len(shared)),
        _class_changes([a.labels[i][0] for i in in_a], right_a, right_b),
    )


def _row(title: str, a: Bools, b: Bools) -> PairedRow:
    return PairedRow(
        title, len(a), float(a.mean()), float(b.mean()), int((a & ~b).sum()), int((b & ~a).sum())
    )


def _largest_gap(a: Saved, b: Saved, in_a: Sequence[int], in_b: Sequence[int]) -> float | None:
    names = [name for name in a.columns if name in b.columns]
    if not names or not in_a:
        return None
    logits_a = a.logits[np.ix_(in_a, [a.columns[name] for name in names])]
    logits_b = b.logits[np.ix_(in_b, [b.columns[name] for name in names])]
    # Subtracting equal infinities gives NaN, but they do not differ.
    gaps = np.abs(np.where(logits_a == logits_b, 0, logits_a - logits_b))
    return None if np.isnan(gaps).all() else float(np.nanmax(gaps))


def _is_same(a: Saved, b: Saved, in_a: Sequence[int], in_b: Sequence[int]) -> bool:
    if not len(in_a) == len(a.paths) == len(b.paths) or a.columns.keys() != b.columns.keys():
        return False
    logits_b = b.logits[np.ix_(in_b, [b.columns[name] for name in a.columns])]
    return np.array_equal(a.logits[in_a], logits_b, equal_nan=True)


def _changed_settings(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings and environment that differ between two records, as key -> (A, B)."""
    flat_a, flat_b = _flat(a), _flat(b)
    keys = dict.fromkeys((*flat_a, *flat_b))
    return {key: (flat_a.get(key), flat_b.get(key)) for key in keys if flat_a.get(key) != flat_b.get(key)}


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    flat = {key: record.get(key) for key in ("backbone", "weights", "precision")}
    for group in ("config", "packs", "environment"):
        flat |= {f"{group}.{key}": value for key, value in dict(record.get(group) or {}).items()}
    return flat


def _class_changes(labels: Sequence[str], a: Bools, b: Bools) -> tuple[ClassChange, ...]:
    label_array = np.array(labels)
    changes = [
        ClassChange(
            name,
            float(a[label_array == name].mean()),
            float(b[label_array == name].mean()),
            int((label_array == name).sum()),
        )
        for name in dict.fromkeys(labels)
    ]
    changed = [change for change in changes if change.a != change.b]
    return tuple(sorted(changed, key=lambda change: -abs(change.b - change.a))[:SHOWN_CHANGES])
