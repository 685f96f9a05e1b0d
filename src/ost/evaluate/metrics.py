"""What is reported of scores: top-k, mean per class, average precision, and how sure one can be of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% interval."""

    mean: float
    low: float
    high: float


def places(logits: Floats, labels: Ints) -> Ints:
    """How many classes come before the right one, [n]; of equal logits the class with the smaller number is first.

    Args:
        logits: [n, A].
        labels: [n], columns.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    before = np.arange(logits.shape[1]) < labels[:, None]
    return ((logits > own) | ((logits == own) & before)).sum(1)


def top(logits: Floats, labels: Ints, k: int) -> Bools:
    """Whether the right class is among the first k, [n]."""
    return places(logits, labels) < k


def per_class(right: Bools, labels: Ints, classes: int) -> Floats:
    """Share of right clips of each class, [A]; NaN for a class without clips."""
    clips = np.bincount(labels, minlength=classes)
    rights = np.bincount(labels, weights=right.astype(float), minlength=classes)
    return np.divide(rights, clips, out=np.full(classes, np.nan), where=clips > 0)


def mean_per_class(right: Bools, labels: Ints, classes: int) -> float:
    """Mean over the classes that have clips, so that a frequent class counts no more than a rare one."""
    return float(np.nanmean(per_class(right, labels, classes)))


def average_precision(scores: Floats, truth: Bools) -> float:
    """Area under precision over recall, as a sum of steps; NaN where nothing is true.

    Clips of one score are taken together, so that their order plays no part.

    Args:
        scores: [n], of one class.
        truth: [n], whether the clips show it.
    """
    if not truth.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # the last clip of each score
    precision, found = hits[ends] / (ends + 1), np.diff(hits[ends], prepend=0)
    return float((precision * found).sum() / truth.sum())


def mean_average_precision(logits: Floats, truth: Bools) -> float:
    """Mean of the classes' average precisions, of those that some clip shows.

    Args:
        logits: [n, A].
        truth: [n, A]; a clip may show several classes.
    """
    return float(np.nanmean([average_precision(logits[:, a], truth[:, a]) for a in range(logits.shape[1])]))


def harmonic_mean(a: float, b: float) -> float:
    """Of base and novel accuracy: high only where both are."""
    return 0.0 if a + b == 0 else 2 * a * b / (a + b)


def bootstrap(right: Sequence[Bools], seed: int = 0) -> Interval:
    """The mean over lists of the share of right clips, with its 95% interval over resampled clips.

    Args:
        right: one [n] a list; clips are resampled within their list.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    shares = [float(r.mean()) for r in right]
    # Of n clips drawn again with p of them right, a binomial number is right.
    drawn = np.mean(
        [rng.binomial(len(r), p, RESAMPLES) / len(r) for r, p in zip(right, shares, strict=True)], axis=0
    )
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(np.mean(shares)), float(low), float(high))


def paired_bootstrap(right: Sequence[tuple[Bools, Bools]], seed: int = 0) -> Interval:
    """The mean over lists of the second's share of right clips less the first's, with its 95% interval.

    Args:
        right: one pair [n], [n] a list, of the same clips; they are resampled in pairs within their list.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    gains = [b.astype(int) - a.astype(int) for a, b in right]
    drawn = np.mean([_resampled(gain, rng) for gain in gains], axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(np.mean([gain.mean() for gain in gains])), float(low), float(high))


def _resampled(gain: Ints, rng: np.random.Generator) -> Floats:
    """Means [RESAMPLES] of clips drawn again; of their gains only the counts of -1, 0 and 1 matter."""
    shares = [float((gain == value).mean()) for value in (-1, 0, 1)]
    drawn = rng.multinomial(len(gain), shares, RESAMPLES)
    return (drawn[:, 2] - drawn[:, 0]) / len(gain)


def sign_test(first: int, second: int) -> float:
    """How likely a fair coin falls at least so unevenly, in either direction (exact; McNemar's test of two systems)."""
    total, fewer = first + second, min(first, second)
    term = 1
    tail = 1
    for k in range(fewer):
        term = term * (total - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**total)
