"""Summarise the scores of an evaluation, per list and over the lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ost.errors import UsageError
from ost.evaluate.metrics import Interval, bootstrap, harmonic_mean
from ost.evaluate.run import ListScores


@dataclass(frozen=True)
class Row:
    """The metrics of one list, as fractions.

    Attributes:
        title: title of the list.
        videos, classes: number of scored videos, and of classes.
        top1, top5: share of videos with a right class first, and among the first five.
        interval: 95% interval of top-1 over videos.
        mean_class: top-1 averaged over the classes.
        average_precision: mean over classes (mAP); None if every video has one label and it was not requested.
        missing, unreadable: number of videos of the list that do not exist, and that could not be read.
    """

    title: str
    videos: int
    classes: int
    top1: float
    interval: Interval
    top5: float
    mean_class: float
    average_precision: float | None
    missing: int
    unreadable: int


@dataclass(frozen=True)
class Summary:
    """The metrics of a protocol.

    Attributes:
        rows: one per list.
        top1: mean over the lists, with its 95% interval over videos.
        spread: sample standard deviation of top-1 over the lists; None for one list.
        top5, mean_class, average_precision: means over the lists; mAP is None if no list has it.
        harmonic: harmonic mean of base and novel top-1; None for other protocols.
    """

    rows: tuple[Row, ...]
    top1: Interval
    spread: float | None
    top5: float
    mean_class: float
    average_precision: float | None
    harmonic: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the metrics as nested dicts, for JSON."""
        return asdict(self)


def summary(answers: Sequence[ListScores], *, harmonic: bool = False, precision: bool = False) -> Summary:
    """Return the metrics of scored lists; a list without a scored video has no row and is left out of the means.

    Args:
        answers: the scores of the lists.
        harmonic: whether the lists are base and novel classes.
        precision: whether to compute mAP even if every video has one label.

    Raises:
        UsageError: no list has a video.
    """
    answers = [answer for answer in answers if answer.paths]
    if not answers:
        raise UsageError("no list has a video that can be read; there is nothing to count")
    rows = tuple(_row(answer, precision) for answer in answers)
    shares = [row.top1 for row in rows]
    precisions = [row.average_precision for row in rows if row.average_precision is not None]
    return Summary(
        rows,
        bootstrap([answer.right(1) for answer in answers]),
        float(np.std(shares, ddof=1)) if len(shares) > 1 else None,
        float(np.mean([row.top5 for row in rows])),
        float(np.mean([row.mean_class for row in rows])),
        float(np.mean(precisions)) if precisions else None,
        harmonic_mean(shares[0], shares[1]) if harmonic and len(shares) == 2 else None,
    )


def _row(answer: ListScores, precision: bool) -> Row:
    return Row(
        answer.title,
        len(answer.paths),
        len(answer.names),
        float(answer.right(1).mean()),
        bootstrap([answer.right(1)]),
        float(answer.right(5).mean()),
        answer.mean_per_class(),
        answer.mean_average_precision() if precision or answer.has_several else None,
        len(answer.missing),
        len(answer.unreadable),
    )
