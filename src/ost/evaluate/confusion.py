"""Compute the confusion matrix and the most confused pairs of classes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ost.evaluate.metrics import Ints
from ost.evaluate.run import ListScores


class Confused(NamedTuple):
    """A pair of classes, the number of videos of the first taken for the second, and of all videos of the first."""

    shown: str
    predicted: str
    taken: int
    videos: int


def confusion(answer: ListScores) -> Ints:
    """Return the confusion matrix [A, A]: videos by true class (rows) and predicted class (columns)."""
    predicted = answer.logits.argmax(1) if answer.paths else np.zeros(0, int)
    # A video with several labels counts as right if the prediction is one of them.
    matrix = np.zeros((len(answer.names),) * 2, int)
    np.add.at(matrix, (answer.labels if answer.paths else predicted, predicted), 1)
    return matrix


def worst_pairs(matrix: Ints, names: tuple[str, ...], most: int) -> list[Confused]:
    """Return the pairs with the most confused videos; ties are ordered by their share of the class."""
    wrong = matrix - np.diag(np.diag(matrix))
    totals = matrix.sum(1)
    rows, columns = np.nonzero(wrong)
    pairs = [
        Confused(names[a], names[b], int(wrong[a, b]), int(totals[a]))
        for a, b in zip(rows.tolist(), columns.tolist(), strict=True)
    ]
    return sorted(
        pairs, key=lambda pair: (-pair.taken, -pair.taken / pair.videos, pair.shown, pair.predicted)
    )[:most]
