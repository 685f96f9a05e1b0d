"""Which classes are taken for which. Pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ost.evaluate.metrics import Ints
from ost.evaluate.run import Answer


class Confused(NamedTuple):
    """A pair of classes: how many of the videos of one are taken for the other, and how many there are."""

    shown: str
    said: str
    taken: int
    videos: int


def confusion(answer: Answer) -> Ints:
    """How many videos of each class (rows) are taken for each class (columns), [A, A]."""
    said = answer.logits.argmax(1) if answer.paths else np.zeros(0, int)
    # A video of several labels that is given one of them is right.
    found = np.zeros((len(answer.names),) * 2, int)
    np.add.at(found, (answer.labels if answer.paths else said, said), 1)
    return found


def worst_pairs(matrix: Ints, names: tuple[str, ...], most: int) -> list[Confused]:
    """The pairs that lose the most videos, and of those the ones that lose the largest share."""
    wrong = matrix - np.diag(np.diag(matrix))
    totals = matrix.sum(1)
    rows, columns = np.nonzero(wrong)
    pairs = [
        Confused(names[a], names[b], int(wrong[a, b]), int(totals[a]))
        for a, b in zip(rows.tolist(), columns.tolist(), strict=True)
    ]
    return sorted(pairs, key=lambda pair: (-pair.taken, -pair.taken / pair.videos, pair.shown, pair.said))[
        :most
    ]
