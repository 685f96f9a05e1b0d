"""Format the metrics of an evaluation as rows of text, for the terminal and the report page."""

from __future__ import annotations

from typing import NamedTuple

from ost.evaluate.measure import Measured
from ost.evaluate.metrics import Interval
from ost.evaluate.summary import Summary

COLUMNS = ("matched", "list", "videos", "classes", "top-1", "95% interval", "top-5", "mean per class")
COUNTS = ("missing", "unreadable")


class NumbersTable(NamedTuple):
    """A table of metrics in percent, with the notes below it.

    Attributes:
        columns: titles of the columns.
        texts: number of columns, from the left, that hold text; the others hold numbers.
        rows: the cells; a row may end early.
        lines: notes below the table.
        warning: a sentence to show first if the numbers may mislead; else empty.
    """

    columns: tuple[str, ...]
    texts: int
    rows: list[list[str]]
    lines: list[str]
    warning: str = ""


def table_of(measured: Measured) -> NumbersTable:
    """Return the table of every list in the requested way, the means in every way, and the published numbers.

    Raises:
        UsageError: no video could be scored.
    """
    summaries = measured.summaries()
    requested, *others = summaries.items()
    precision = any(row.average_precision is not None for row in requested[1].rows)
    rows: list[list[str]] = []
    for row in requested[1].rows:
        shares = [_percent(row.top1), _span(row.interval), _percent(row.top5), _percent(row.mean_class)]
        shares += [_percent(row.average_precision)] if precision else []
        counts = [str(row.missing), str(row.unreadable)]
        rows.append([requested[0], row.title, str(row.videos), str(row.classes), *shares, *counts])
    several = len(requested[1].rows) > 1
    rows += [
        _means(title, summary, precision) for title, summary in ([requested] if several else []) + others
    ]
    published = measured.task.protocol.published.items()
    rows += [[f"published, {system}", "", "", "", number] for system, number in published]
    columns = (*COLUMNS, *(["mAP"] if precision else []), *COUNTS)
    return NumbersTable(columns, 2, rows, _lines(measured, requested[1]), _trained_on(measured))


def _trained_on(measured: Measured) -> str:
    """Return a warning that the weights were trained on some of the videos, with top-1 without them; else ""."""
    count, total = len(measured.trained), measured.scored
    if not count:
        return ""
    if (others := measured.untrained()) is None:
        return f"The weights were trained on all {total} videos: these numbers say nothing about others."
    return (
        f"The weights were trained on {count} of the {total} videos; on the {total - count} others top-1 is "
        f"{_percent(others.top1.mean)} (95% interval {_span(others.top1)})."
    )


def _means(title: str, summary: Summary, precision: bool) -> list[str]:
    several = len(summary.rows) > 1
    counts = ["", ""] if several else [str(summary.rows[0].videos), str(summary.rows[0].classes)]
    spread = "" if summary.spread is None else f" ± {100 * summary.spread:.1f}"
    return [
        title,
        f"mean of {len(summary.rows)}" if several else summary.rows[0].title,
        *counts,
        _percent(summary.top1.mean) + spread,
        _span(summary.top1),
        _percent(summary.top5),
        _percent(summary.mean_class),
        *([_percent(summary.average_precision)] if precision else []),
    ]


def _lines(measured: Measured, requested: Summary) -> list[str]:
    lines: list[str] = []
    if requested.harmonic is not None:
        lines.append(f"harmonic mean of base and novel {_percent(requested.harmonic)}")
    if empty := [answer.title for answer in measured.lists if not answer.paths]:
        lines.append(f"without a video that could be scored, and so in no mean: {', '.join(empty)}")
    videos, seconds = measured.task.videos, measured.seconds
    shared = f" by {measured.ranks} ranks" if measured.ranks > 1 else ""
    lines.append(f"{videos} videos in {seconds:.1f} s, {videos / seconds:.1f} a second{shared}")
    return lines


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _span(interval: Interval) -> str:
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"
