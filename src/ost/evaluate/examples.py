"""Videos that show what descriptors and transport do that the baseline does not, and the other way round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from ost.evaluate.metrics import Floats
from ost.evaluate.run import Answer

Outcome = Literal["win", "loss"]


class Example(NamedTuple):
    """A video that one of two ways of matching gets right.

    Attributes:
        outcome: "win" if the way that was asked for is right, "loss" if the baseline is.
        question: number of the list.
        path: the video.
        truth: its class.
        said, baseline: what the two ways took for the likeliest.
    """

    outcome: Outcome
    question: int
    path: str
    truth: str
    said: str
    baseline: str


def examples(
    lists: Sequence[Answer], baseline: Sequence[Answer], outcome: Outcome, most: int
) -> list[Example]:
    """The clearest wins or losses, one a class and each video once.

    Clearest is where the two ways differ most in the margin of the right class over its best rival, in units of the
    spread of all margins of each way, whose scales differ.
    """
    found: list[tuple[float, Example]] = []
    gains = [a - b for a, b in zip(_margins(lists), _margins(baseline), strict=True)]
    for number, (own, other, gain) in enumerate(zip(lists, baseline, gains, strict=True)):
        right, wrong = (own, other) if outcome == "win" else (other, own)
        for i in np.flatnonzero(right.right(1) & ~wrong.right(1)):
            said, was = (answer.names[int(answer.logits[i].argmax())] for answer in (own, other))
            truth = own.names[int(right.labels[i])]
            size = float(gain[i]) if outcome == "win" else -float(gain[i])
            found.append((size, Example(outcome, number, own.paths[i], truth, said, was)))
    chosen: list[Example] = []
    for _, example in sorted(found, key=lambda pair: -pair[0]):
        if all(example.truth != c.truth and example.path != c.path for c in chosen):
            chosen.append(example)
    return chosen[:most]


def _margins(lists: Sequence[Answer]) -> list[Floats]:
    """Of each video, by list, over the spread of all; 0 where every class is right."""
    found: list[Floats] = []
    for answer in lists:
        own = np.where(answer.truth, answer.logits, -np.inf).max(1)
        rival = np.where(answer.truth, -np.inf, answer.logits).max(1)
        found.append(np.where(np.isfinite(rival), own - rival, 0.0))
    spread = float(np.concatenate(found).std()) if any(map(len, found)) else 0.0
    return [margins / (spread or 1.0) for margins in found]
