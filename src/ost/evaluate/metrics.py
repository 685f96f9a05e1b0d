"""Compute metrics of logits: top-k, mean per class, average precision, bootstrap intervals and a sign test."""

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
    """A mean and its 95% interval."""

    mean: float
    low: float
    high: float


def places(logits: Floats, labels: Ints) -> Ints:
    """Return the rank of the right class, [n], from 0; of equal logits the class with the smaller number is first.

    Args:
        logits: [n, A].
        labels: [n], columns of the right classes.
    """
    label_logits = np.take_along_axis(logits, labels[:, None], axis=1)
    before = np.arange(logits.shape[1]) < labels[:, None]
    return ((logits > label_logits) | ((logits == label_logits) & before)).sum(1)


def top(logits: Floats, labels: Ints, k: int) -> Bools:
    """Return whether the right class is among the first k, [n]."""
    return places(logits, labels) < k


def per_class(right: Bools, labels: Ints, classes: int) -> Floats:
    """Return the share of right videos of each class, [A]; NaN for a class without videos."""
    videos = np.bincount(labels, minlength=classes)
    rights = np.bincount(labels, weights=right.astype(float), minlength=classes)
    return np.divide(rights, videos, out=np.full(classes, np.nan), where=videos > 0)


def mean_per_class(right: Bools, labels: Ints, classes: int) -> float:
    """Return the mean over the classes that have videos, so that frequent and rare classes count alike."""
    return float(np.nanmean(per_class(right, labels, classes)))


def average_precision(scores: Floats, truth: Bools) -> float:
    """Return the area under the precision-recall curve, as a sum of steps; NaN if nothing is true.

    Videos with equal scores form one step, so that their order does not matter.

    Args:
        scores: [n], of one class.
        truth: [n], whether the videos show it.
    """
    if not truth.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # the last video of each score
    precision, hits_per_step = hits[ends] / (ends + 1), np.diff(hits[ends], prepend=0)
    return float((precision * hits_per_step).sum() / truth.sum())


def mean_average_precision(logits: Floats, truth: Bools) -> float:
    """Return the mean average precision over the classes that some video shows.

    Args:
        logits: [n, A].
        truth: [n, A]; a video may show several classes.
    """
    return float(np.nanmean([average_precision(logits[:, a], truth[:, a]) for a in range(logits.shape[1])]))


def harmonic_mean(a: float, b: float) -> float:
    """Return the harmonic mean, as of base and novel accuracy; 0 if both are 0."""
    return 0.0 if a + b == 0 else 2 * a * b / (a + b)


def bootstrap(right: Sequence[Bools], seed: int = 0) -> Interval:
    """Return the mean over lists of the share of right videos, with its 95% bootstrap interval.

    Args:
        right: one [n] per list; videos are resampled within their list.
        seed: seed of the resampling.
    """
    rng = np.random.default_rng(seed)
    shares = [float(r.mean()) for r in right]
    # The number right of n videos resampled from a share p of right ones is binomial.
    drawn = np.mean(
        [rng.binomial(len(r), p, RESAMPLES) / len(r) for r, p in zip(right, shares, strict=True)], axis=0
    )
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(np.mean(shares)), float(low), float(high))


def paired_bootstrap(right: Sequence[tuple[Bools, Bools]], seed: int = 0) -> Interval:
    """Return the mean over lists of the second share of right videos minus the first, with its 95% bootstrap interval.

    Args:
        right: one pair [n], [n] per list, of the same videos; pairs are resampled within their list.
        seed: seed of the resampling.
    """
    rng = np.random.default_rng(seed)
    gains = [b.astype(int) - a.astype(int) for a, b in right]
    drawn = np.mean([_resampled(gain, rng) for gain in gains], axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(np.mean([gain.mean() for gain in gains])), float(low), float(high))


def _resampled(gain: Ints, rng: np.random.Generator) -> Floats:
    """Return the mean gains [RESAMPLES] of resampled videos, drawn as counts of the gains -1, 0 and 1."""
    shares = [float((gain == value).mean()) for value in (-1, 0, 1)]
    drawn = rng.multinomial(len(gain), shares, RESAMPLES)
    return (drawn[:, 2] - drawn[:, 0]) / len(gain)


def sign_test(first: int, second: int) -> float:
    """Return the two-sided p-value of an exact sign test (McNemar's test of two systems)."""
    total, fewer = first + second, min(first, second)
    term = 1
    tail = 1
    for k in range(fewer):
        term = term * (total - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**total)
