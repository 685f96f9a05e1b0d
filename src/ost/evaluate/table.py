"""The numbers of an evaluation as rows of text: for the terminal and for the page."""

from __future__ import annotations

from typing import NamedTuple

from ost.evaluate.measure import Measured
from ost.evaluate.metrics import Interval
from ost.evaluate.summary import Summary

COLUMNS = ("matched", "list", "videos", "classes", "top-1", "95% interval", "top-5", "mean per class")
COUNTS = ("missing", "unreadable")


class NumbersTable(NamedTuple):
    """A table of shares in percent, and what is said under it.

    Attributes:
        columns: their titles.
        texts: how many of them, from the left, are texts; the others are numbers.
        rows: a row may end early.
        lines: sentences.
        warning: a sentence that comes before everything else, for numbers that are not what they seem; else empty.
    """

    columns: tuple[str, ...]
    texts: int
    rows: list[list[str]]
    lines: list[str]
    warning: str = ""


def table_of(measured: Measured) -> NumbersTable:
    """Every list as it was asked for, the means over the lists in every way, and the published numbers.

    Raises:
        UsageError: no video could be scored.
    """
    summaries = measured.summaries()
    asked, *others = summaries.items()
    precision = any(row.average_precision is not None for row in asked[1].rows)
    rows: list[list[str]] = []
    for row in asked[1].rows:
        shares = [_percent(row.top1), _span(row.interval), _percent(row.top5), _percent(row.mean_class)]
        shares += [_percent(row.average_precision)] if precision else []
        counts = [str(row.missing), str(row.unreadable)]
        rows.append([asked[0], row.title, str(row.videos), str(row.classes), *shares, *counts])
    several = len(asked[1].rows) > 1
    rows += [_means(what, found, precision) for what, found in ([asked] if several else []) + others]
    published = measured.task.protocol.published.items()
    rows += [[f"published, {who}", "", "", "", number] for who, number in published]
    columns = (*COLUMNS, *(["mAP"] if precision else []), *COUNTS)
    return NumbersTable(columns, 2, rows, _lines(measured, asked[1]), _trained_on(measured))


def _trained_on(measured: Measured) -> str:
    """That these weights have seen some of the videos in training, and the number without them."""
    count, total = len(measured.trained), measured.scored
    if not count:
        return ""
    if (others := measured.untrained()) is None:
        return f"The weights were trained on all {total} videos: these numbers say nothing about others."
    return (
        f"The weights were trained on {count} of the {total} videos; on the {total - count} others top-1 is "
        f"{_percent(others.top1.mean)} (95% interval {_span(others.top1)})."
    )


def _means(what: str, found: Summary, precision: bool) -> list[str]:
    several = len(found.rows) > 1
    counts = ["", ""] if several else [str(found.rows[0].videos), str(found.rows[0].classes)]
    spread = "" if found.spread is None else f" ± {100 * found.spread:.1f}"
    return [
        what,
        f"mean of {len(found.rows)}" if several else found.rows[0].title,
        *counts,
        _percent(found.top1.mean) + spread,
        _span(found.top1),
        _percent(found.top5),
        _percent(found.mean_class),
        *([_percent(found.average_precision)] if precision else []),
    ]


def _lines(measured: Measured, asked: Summary) -> list[str]:
    lines: list[str] = []
    if asked.harmonic is not None:
        lines.append(f"harmonic mean of base and novel {_percent(asked.harmonic)}")
    if empty := [found.title for found in measured.lists if not found.paths]:
        lines.append(f"without a video that could be scored, and so in no mean: {', '.join(empty)}")
    videos, seconds = measured.task.videos, measured.seconds
    shared = f" by {measured.ranks} ranks" if measured.ranks > 1 else ""
    lines.append(f"{videos} videos in {seconds:.1f} s, {videos / seconds:.1f} a second{shared}")
    return lines


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _span(interval: Interval) -> str:
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"
