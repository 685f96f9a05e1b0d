"""The numbers of an evaluation, as a table shows them and a file keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ost.errors import UsageError
from ost.evaluate.metrics import Interval, bootstrap, harmonic_mean
from ost.evaluate.run import Answer


@dataclass(frozen=True)
class Row:
    """The numbers of one list, shares of 1.

    Attributes:
        title: of the list.
        videos, classes: how many were scored, among how many.
        top1, top5: right at the first, and among the first five.
        interval: of top-1, 95%, over videos.
        mean_class: top-1, every class counting alike.
        average_precision: mean over classes; None where every video has one label and it was not asked for.
        missing, unreadable: how many videos of the list were not there, and could not be read.
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
    """The numbers of a protocol.

    Attributes:
        rows: of its lists.
        top1: mean over the lists with its 95% interval over videos.
        spread: sample standard deviation of top-1 over the lists; None for one list.
        top5, mean_class, average_precision: means over the lists; mAP None where no list has it.
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
        """For JSON."""
        return asdict(self)


def summary(answers: Sequence[Answer], *, harmonic: bool = False, precision: bool = False) -> Summary:
    """The numbers of scored lists; one without a video that could be scored has no row and no part in the means.

    Args:
        answers: the lists.
        harmonic: whether they are base and novel classes.
        precision: whether mAP is wanted though every video has one label.

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


def _row(answer: Answer, precision: bool) -> Row:
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
