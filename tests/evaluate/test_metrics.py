"""Metrics against scikit-learn, torchmetrics and scipy, ties and missing classes included."""

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, top_k_accuracy_score

from ost.evaluate.metrics import (
    average_precision,
    bootstrap,
    harmonic_mean,
    mean_average_precision,
    mean_per_class,
    paired_bootstrap,
    per_class,
    sign_test,
    top,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torchmetrics.functional.classification import multiclass_accuracy, multilabel_average_precision


@st.composite
def problems(draw):
    """Logits of few distinct values, so that ties are common, and labels that miss some classes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, classes = draw(st.integers(1, 40)), draw(st.integers(2, 8))
    levels = draw(st.sampled_from([2, 5, 1000]))
    logits = rng.integers(0, levels, (n, classes)).astype(float)
    return logits, rng.integers(0, draw(st.integers(1, classes)), n)


@given(problems(), st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_top_k_is_scikit_learns(problem, k):
    logits, labels = problem
    # scikit-learn puts the larger number first among ties: told backwards, the smaller.
    if 2 < logits.shape[1] > k:
        classes = range(logits.shape[1])
        expected = top_k_accuracy_score(logits.shape[1] - 1 - labels, logits[:, ::-1], k=k, labels=classes)
    else:  # of two classes, or of no more than k, it counts something else
        ranked = [sorted(range(len(row)), key=lambda a, row=row: (-row[a], a)) for row in logits.tolist()]
        expected = np.mean([label in order[:k] for order, label in zip(ranked, labels, strict=True)])
    assert top(logits, labels, k).mean() == pytest.approx(expected)


@given(problems())
@settings(max_examples=100, deadline=None)
def test_top_1_and_the_mean_per_class_are_torchmetrics(problem):
    logits, labels = problem
    predicted, truth, classes = torch.from_numpy(logits), torch.from_numpy(labels), logits.shape[1]
    right = top(logits, labels, 1)
    assert (logits.argmax(1) == labels).tolist() == right.tolist()
    micro = multiclass_accuracy(predicted, truth, classes, average="micro")
    assert right.mean() == pytest.approx(float(micro))
    each = multiclass_accuracy(predicted, truth, classes, average="none")
    own = per_class(right, labels, classes)
    shown = ~np.isnan(own)
    np.testing.assert_allclose(own[shown], each.numpy()[shown], rtol=1e-6)
    assert shown.tolist() == [a in labels for a in range(classes)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says that a class was predicted that no clip shows
        assert mean_per_class(right, labels, classes) == pytest.approx(
            balanced_accuracy_score(labels, logits.argmax(1))
        )


@given(problems())
@settings(max_examples=100, deadline=None)
def test_average_precision_is_scikit_learns_and_torchmetrics(problem):
    logits, labels = problem
    truth = (labels[:, None] == np.arange(logits.shape[1])) | (logits.sum(1) % 3 == 0)[:, None]
    shown = truth.any(0)
    for a in np.flatnonzero(shown):
        expected = average_precision_score(truth[:, a], logits[:, a])
        assert average_precision(logits[:, a], truth[:, a]) == pytest.approx(expected)
    assert all(np.isnan(average_precision(logits[:, a], truth[:, a])) for a in np.flatnonzero(~shown))
    expected = (
        multilabel_average_precision(
            torch.from_numpy(logits[:, shown] / 1001),
            torch.from_numpy(truth[:, shown].astype(int)),
            int(shown.sum()),
        )
        if shown.sum() > 1
        else np.mean([average_precision_score(truth[:, a], logits[:, a]) for a in np.flatnonzero(shown)])
    )
    assert mean_average_precision(logits, truth) == pytest.approx(float(expected), abs=1e-5)


@given(problems())
@settings(max_examples=50, deadline=None)
def test_metrics_do_not_depend_on_the_order_of_clips(problem):
    logits, labels = problem
    order = np.random.default_rng(0).permutation(len(labels))
    truth = labels[:, None] == np.arange(logits.shape[1])
    assert top(logits[order], labels[order], 2).tolist() == top(logits, labels, 2)[order].tolist()
    assert mean_average_precision(logits[order], truth[order]) == pytest.approx(
        mean_average_precision(logits, truth)
    )


@pytest.mark.parametrize("n", [30, 300])
def test_the_interval_holds_what_plain_resampling_gives(n):
    rng = np.random.default_rng(1)
    right = [rng.random(n) < share for share in (0.3, 0.6)]
    drawn = [np.mean([rng.choice(r, n).mean() for r in right]) for _ in range(4000)]
    found = bootstrap(right)
    assert found.mean == pytest.approx(np.mean([r.mean() for r in right]))
    expected = np.quantile(drawn, [0.025, 0.975])
    np.testing.assert_allclose([found.low, found.high], expected, atol=1.5 / n)


def test_the_interval_of_certainty_is_a_point():
    found = bootstrap([np.ones(20, bool)])
    assert (found.mean, found.low, found.high) == (1, 1, 1)


def test_the_harmonic_mean_is_high_only_where_both_are():
    assert harmonic_mean(0.5, 0.5) == 0.5
    assert harmonic_mean(1.0, 0.0) == 0.0 == harmonic_mean(0.0, 0.0)
    assert harmonic_mean(0.2, 0.6) == pytest.approx(0.3)


def alike(rng, n, changed):
    """Two systems that are right about equally often and differ on a share of the clips."""
    a = rng.random(n) < 0.5
    return a, np.where(rng.random(n) < changed, rng.random(n) < 0.8, a)


@pytest.mark.parametrize("n", [30, 300])
def test_the_interval_of_a_difference_holds_what_plain_resampling_of_pairs_gives(n):
    rng = np.random.default_rng(2)
    pairs = [alike(rng, n, 0.1), alike(rng, 3 * n, 0.4)]
    drawn = []
    for _ in range(4000):
        picked = [rng.integers(0, len(a), len(a)) for a, _ in pairs]
        drawn.append(np.mean([b[i].mean() - a[i].mean() for i, (a, b) in zip(picked, pairs, strict=True)]))
    found = paired_bootstrap(pairs)
    assert found.mean == pytest.approx(np.mean([b.mean() - a.mean() for a, b in pairs]))
    expected = np.quantile(drawn, [0.025, 0.975])
    np.testing.assert_allclose([found.low, found.high], expected, atol=0.5 / n)


def test_a_difference_of_equal_systems_is_nothing_for_certain():
    rng = np.random.default_rng(3)
    found = paired_bootstrap([(right, right.copy()) for right in (rng.random(20) < 0.5, rng.random(7) < 0.5)])
    assert (found.mean, found.low, found.high) == (0, 0, 0)


def test_a_difference_is_positive_where_the_second_is_better():
    rng = np.random.default_rng(4)
    pairs = [(rng.random(200) < 0.3, rng.random(200) < 0.7) for _ in range(2)]
    better, worse = paired_bootstrap(pairs), paired_bootstrap([(b, a) for a, b in pairs])
    assert 0 < better.low < better.mean < better.high
    assert worse.low < worse.mean < worse.high < 0
    assert worse.mean == pytest.approx(-better.mean)
    certain = paired_bootstrap([(np.zeros(9, bool), np.ones(9, bool))])
    assert (certain.mean, certain.low, certain.high) == (1, 1, 1)


def test_the_sign_test_is_the_exact_binomial_test():
    for n in range(1, 31):
        for k in range(n + 1):
            assert sign_test(k, n - k) == pytest.approx(binomtest(k, n, 0.5).pvalue, rel=1e-9)
    assert sign_test(0, 0) == 1


@given(st.integers(1, 5000), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_the_sign_test_is_exact_with_many_clips(n, share):
    """Held against binomial coefficients: SciPy says 0 for what is 1.2e-259, at 34 of 1075."""
    k = round(share * n)
    tail = sum(math.comb(n, i) for i in range(min(k, n - k) + 1))
    exact = float(min(Fraction(1), Fraction(2 * tail, 2**n)))
    assert sign_test(k, n - k) == pytest.approx(exact, rel=1e-9, abs=0)


@pytest.mark.parametrize("k", [0, 1, 2000, 2400, 2499, 2500, 2501, 2600, 5000])
def test_the_sign_test_of_five_thousand_clips_is_exact(k):
    expected = binomtest(k, 5000, 0.5).pvalue
    assert sign_test(k, 5000 - k) == pytest.approx(expected, rel=1e-6, abs=1e-300)
