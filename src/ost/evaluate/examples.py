"""Select videos that only one of two ways of matching recognises: the requested way or the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from ost.evaluate.metrics import Floats
from ost.evaluate.run import ListScores

ExampleKind = Literal["win", "loss"]


class Example(NamedTuple):
    """A video that only one of two ways of matching recognises.

    Attributes:
        outcome: "win" if the requested way is right, "loss" if the baseline is.
        list_index: index of the list.
        path: path of the video.
        truth: its class.
        predicted, baseline: top-1 class of the requested way and of the baseline.
    """

    outcome: ExampleKind
    list_index: int
    path: str
    truth: str
    predicted: str
    baseline: str


def examples(
    lists: Sequence[ListScores], baseline: Sequence[ListScores], outcome: ExampleKind, most: int
) -> list[Example]:
    """Return the clearest wins or losses, at most one per class and per video.

    An example is clear if the two ways differ much in the margin of the right class over the best wrong class. The
    scales of the ways differ, so each margin is divided by the standard deviation of all margins of its way.
    """
    candidates: list[tuple[float, Example]] = []
    gains = [a - b for a, b in zip(_margins(lists), _margins(baseline), strict=True)]
    for number, (scores, baseline_scores, gain) in enumerate(zip(lists, baseline, gains, strict=True)):
        right, wrong = (scores, baseline_scores) if outcome == "win" else (baseline_scores, scores)
        for i in np.flatnonzero(right.right(1) & ~wrong.right(1)):
            predicted, baseline_predicted = (
                a.names[int(a.logits[i].argmax())] for a in (scores, baseline_scores)
            )
            truth = scores.names[int(right.labels[i])]
            clearness = float(gain[i]) if outcome == "win" else -float(gain[i])
            candidates.append(
                (clearness, Example(outcome, number, scores.paths[i], truth, predicted, baseline_predicted))
            )
    chosen: list[Example] = []
    for _, example in sorted(candidates, key=lambda pair: -pair[0]):
        if all(example.truth != c.truth and example.path != c.path for c in chosen):
            chosen.append(example)
    return chosen[:most]


def _margins(lists: Sequence[ListScores]) -> list[Floats]:
    """Return the margin of each video, by list, over the standard deviation of all; 0 where every class is right."""
    by_list: list[Floats] = []
    for answer in lists:
        best_true = np.where(answer.truth, answer.logits, -np.inf).max(1)
        best_wrong = np.where(answer.truth, -np.inf, answer.logits).max(1)
        by_list.append(np.where(np.isfinite(best_wrong), best_true - best_wrong, 0.0))
    spread = float(np.concatenate(by_list).std()) if any(map(len, by_list)) else 0.0
    return [margins / (spread or 1.0) for margins in by_list]
