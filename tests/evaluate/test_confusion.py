"""Which class is taken for which, against scikit-learn and a plain loop."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from ost.evaluate.confusion import Confused, confusion, worst_pairs
from ost.evaluate.run import ListScores


@st.composite
def answers(draw, several=False, least=1):
    """Logits of few distinct values, so that ties are common; not every class has a video."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, classes = draw(st.integers(1, 40)), draw(st.integers(least, 7))
    truth = np.zeros((n, classes), bool)
    truth[np.arange(n), rng.integers(0, draw(st.integers(1, classes)), n)] = True
    if several:
        truth |= rng.random((n, classes)) < 0.3
    return answer(rng.integers(0, draw(st.sampled_from([2, 1000])), (n, classes)), truth)


def answer(logits, truth):
    n, classes = truth.shape
    return ListScores(
        "own",
        tuple(f"class {a}" for a in range(classes)),
        tuple(f"{i}.mp4" for i in range(n)),
        np.asarray(logits, np.float32),
        truth,
    )


@st.composite
def matrices(draw):
    size = draw(st.integers(1, 6))
    rows = st.lists(st.integers(0, 4), min_size=size, max_size=size)
    return np.array(draw(st.lists(rows, min_size=size, max_size=size)))


@given(answers(least=2))  # scikit-learn warns of a single class
@settings(max_examples=200, deadline=None)
def test_the_matrix_is_scikit_learns(found):
    expected = confusion_matrix(found.truth.argmax(1), found.logits.argmax(1), labels=range(len(found.names)))
    assert confusion(found).tolist() == expected.tolist()


@given(answers(several=True))
@settings(max_examples=200, deadline=None)
def test_a_video_of_several_classes_is_counted_once_and_right_if_given_one_of_them(found):
    expected = np.zeros((len(found.names),) * 2, int)
    for logits, truth in zip(found.logits.tolist(), found.truth.tolist(), strict=True):
        said = logits.index(max(logits))
        own = [a for a, shown in enumerate(truth) if shown]
        expected[said if said in own else max(own, key=lambda a, of=logits: (of[a], -a)), said] += 1
    matrix = confusion(found)
    assert matrix.tolist() == expected.tolist()
    assert matrix.trace() == found.right(1).sum()


def test_an_answer_without_videos_confuses_nothing():
    matrix = confusion(answer(np.zeros((0, 3)), np.zeros((0, 3), bool)))
    assert matrix.tolist() == [[0] * 3] * 3
    assert worst_pairs(matrix, ("a", "b", "c"), 5) == []


@given(matrices())
@settings(max_examples=200, deadline=None)
def test_worst_pairs_are_all_that_is_wrong(matrix):
    names = tuple(f"class {a}" for a in range(len(matrix)))
    found = worst_pairs(matrix, names, matrix.size)
    assert sorted(found) == sorted(
        Confused(names[a], names[b], matrix[a, b], matrix[a].sum())
        for a, b in np.ndindex(matrix.shape)
        if a != b and matrix[a, b]
    )


@given(matrices(), st.integers(0, 8))
@settings(max_examples=200, deadline=None)
def test_worst_pairs_lose_the_most_videos_and_then_the_largest_share(matrix, most):
    names = tuple(f"class {a}" for a in range(len(matrix)))
    whole = worst_pairs(matrix, names, matrix.size)
    losses = [(pair.taken, pair.taken / pair.videos) for pair in whole]
    assert losses == sorted(losses, reverse=True)
    assert worst_pairs(matrix, names, most) == whole[:most]


@given(matrices(), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_worst_pairs_do_not_depend_on_the_order_of_the_classes(matrix, random):
    order = random.sample(range(len(matrix)), len(matrix))
    names = [f"class {a}" for a in range(len(matrix))]
    turned = worst_pairs(matrix[np.ix_(order, order)], tuple(names[a] for a in order), 3)
    assert turned == worst_pairs(matrix, tuple(names), 3)
