"""The numbers of an evaluation, as a table shows them and a file keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ost.evaluate.metrics import Interval, bootstrap, harmonic_mean
from ost.evaluate.run import Answer


@dataclass(frozen=True)
class Row:
    """The numbers of one list, shares of 1.

    Attributes:
        title: of the list.
        videos, classes: how many were scored, among how many.
        top1, top5: right at the first, and among the first five.
        mean_class: top-1, every class counting alike.
        average_precision: mean over classes; None where every video has one label.
        missing, unreadable: how many videos of the list were not there, and could not be read.
    """

    title: str
    videos: int
    classes: int
    top1: float
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
        top5, mean_class: means over the lists.
        harmonic: harmonic mean of base and novel top-1; None for other protocols.
    """

    rows: tuple[Row, ...]
    top1: Interval
    spread: float | None
    top5: float
    mean_class: float
    harmonic: float | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def summary(answers: Sequence[Answer], *, harmonic: bool = False) -> Summary:
    """The numbers of scored lists, of which each has at least one video.

    Args:
        answers: the lists.
        harmonic: whether they are base and novel classes.
    """
    rows = tuple(_row(answer) for answer in answers)
    shares = [row.top1 for row in rows]
    return Summary(
        rows,
        bootstrap([answer.right(1) for answer in answers]),
        float(np.std(shares, ddof=1)) if len(shares) > 1 else None,
        float(np.mean([row.top5 for row in rows])),
        float(np.mean([row.mean_class for row in rows])),
        harmonic_mean(shares[0], shares[1]) if harmonic else None,
    )


def _row(answer: Answer) -> Row:
    return Row(
        answer.title,
        len(answer.paths),
        len(answer.names),
        float(answer.right(1).mean()),
        float(answer.right(5).mean()),
        answer.mean_per_class(),
        answer.mean_average_precision() if answer.has_several else None,
        len(answer.missing),
        len(answer.unreadable),
    )
