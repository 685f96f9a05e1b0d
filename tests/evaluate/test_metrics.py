"""Metrics against scikit-learn and torchmetrics, ties and missing classes included."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, top_k_accuracy_score

from ost.evaluate.metrics import (
    average_precision,
    bootstrap,
    harmonic_mean,
    mean_average_precision,
    mean_per_class,
    per_class,
    places,
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
    expected = (
        top_k_accuracy_score(
            logits.shape[1] - 1 - labels, logits[:, ::-1], k=k, labels=range(logits.shape[1])
        )
        if 2 < logits.shape[1] > k
        else (places(logits, labels) < k).mean()
    )
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
        else np.nanmean([average_precision(logits[:, a], truth[:, a]) for a in range(len(shown))])
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
