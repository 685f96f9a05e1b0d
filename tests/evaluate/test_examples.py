"""Wins and losses: which videos are shown, and in what order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ost.evaluate.examples import examples
from ost.evaluate.run import ListScores

ALL = 10_000


def answer(logits, truth, paths=None, title="own"):
    truth = np.asarray(truth, bool)
    names = tuple(f"class {a}" for a in range(truth.shape[1]))
    return ListScores(
        title,
        names,
        tuple(paths or (f"{i}.mp4" for i in range(len(truth)))),
        np.asarray(logits, np.float32),
        truth,
    )


def pair(rng, n=30, classes=5, several=0.1, paths=None):
    """The same videos by two ways, the second on another scale."""
    truth = rng.random((n, classes)) < several
    truth[np.arange(n), rng.integers(0, classes, n)] = True
    own, other = rng.normal(size=(2, n, classes)) + truth
    return answer(10 * own, truth, paths), answer(3 * other, truth, paths)


@st.composite
def protocols(draw):
    """Lists that share videos, by two ways."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    made = []
    for _ in range(draw(st.integers(1, 3))):
        n = draw(st.integers(0, 15))
        paths = [f"{i}.mp4" for i in rng.permutation(16)[:n]]
        made.append(pair(rng, n, draw(st.integers(1, 6)), draw(st.sampled_from([0.0, 0.5])), paths))
    return [a for a, _ in made], [b for _, b in made]


def shown(found, path):
    """The classes of a video, and the one it is given."""
    i = found.paths.index(path)
    return {name for name, true in zip(found.names, found.truth[i], strict=True) if true}, found.names[
        int(found.logits[i].argmax())
    ]


@given(protocols(), st.sampled_from(["win", "loss"]))
@settings(max_examples=150, deadline=None)
def test_wins_are_right_as_asked_and_wrong_by_the_baseline_and_losses_the_other_way(protocol, outcome):
    lists, baseline = protocol
    for example in examples(lists, baseline, outcome, ALL):
        own, said = shown(lists[example.list_index], example.path)
        _, before = shown(baseline[example.list_index], example.path)
        right, wrong = (said, before) if outcome == "win" else (before, said)
        assert right in own and wrong not in own
        assert (example.outcome, example.predicted, example.baseline) == (outcome, said, before)
        assert example.truth == right


@given(protocols())
@settings(max_examples=100, deadline=None)
def test_losses_are_the_wins_of_the_baseline(protocol):
    lists, baseline = protocol
    turned = [
        win._replace(outcome="loss", predicted=win.baseline, baseline=win.predicted)
        for win in examples(baseline, lists, "win", ALL)
    ]
    assert examples(lists, baseline, "loss", ALL) == turned


@given(protocols(), st.integers(0, 4))
@settings(max_examples=100, deadline=None)
def test_each_class_and_each_video_is_shown_once_and_none_is_left_out(protocol, most):
    lists, baseline = protocol
    found = examples(lists, baseline, "win", ALL)
    classes, paths = {e.truth for e in found}, {e.path for e in found}
    assert len(classes) == len(paths) == len(found)
    for own, other in zip(lists, baseline, strict=True):
        for path in own.paths:
            (labels, said), (_, before) = shown(own, path), shown(other, path)
            assert said not in labels or before in labels or path in paths or said in classes
    assert examples(lists, baseline, "win", most) == found[:most]


def test_a_video_of_several_lists_with_another_class_in_each_is_shown_once():
    lists, baseline = [], []
    for shown in range(3):
        truth = np.zeros((3, 4), bool)
        truth[0, shown] = truth[1:, 3] = True
        lists.append(
            answer(truth * [[2 + shown], [1], [0]], truth, ["shared.mp4", f"{shown}.mp4", "last.mp4"])
        )
        baseline.append(answer(1 - truth + np.eye(3, 4, 1) / 9, truth, lists[-1].paths))
    found = examples(lists, baseline, "win", ALL)
    assert [example.path for example in found].count("shared.mp4") == 1
    alone = [examples([own], [other], "win", ALL) for own, other in zip(lists, baseline, strict=True)]
    assert all("shared.mp4" in {example.path for example in each} for each in alone)


@pytest.mark.parametrize("seed", range(10))
def test_the_clearest_come_first(seed):
    own, other = pair(np.random.default_rng(seed), several=0)
    margins = []
    for found in (own, other):
        each = []
        for logits, truth in zip(found.logits.astype(float), found.truth, strict=True):
            each.append(logits[truth].max() - logits[~truth].max())
        margins.append(np.array(each) / np.std(each))
    gain = dict(zip(own.paths, margins[0] - margins[1], strict=True))
    won = np.flatnonzero((np.array(margins[0]) > 0) & (np.array(margins[1]) < 0))
    found = [example.path for example in examples([own], [other], "win", ALL)]
    assert found[0] == max((own.paths[i] for i in won), key=gain.__getitem__)
    assert found == sorted(found, key=lambda path: -gain[path])
    lost = [example.path for example in examples([own], [other], "loss", ALL)]
    assert lost == sorted(lost, key=gain.__getitem__)


def scaled(found, factor):
    return [answer(factor * a.logits, a.truth, a.paths, a.title) for a in found]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("outcome", ["win", "loss"])
def test_the_order_does_not_depend_on_the_scale_of_a_ways_logits(seed, outcome):
    rng = np.random.default_rng(seed)
    made = [pair(rng, paths=[f"{k} {i}.mp4" for i in range(30)]) for k in range(2)]
    lists, baseline = [a for a, _ in made], [b for _, b in made]
    expected = examples(lists, baseline, outcome, ALL)
    assert len({example.list_index for example in expected}) == 2
    assert examples(scaled(lists, 7), baseline, outcome, ALL) == expected
    assert examples(lists, scaled(baseline, 7), outcome, ALL) == expected


def test_the_order_does_not_depend_on_the_scale_where_lists_have_a_single_video():
    lists, baseline = [], []
    for a, (own, other) in enumerate([(1, -5), (2, -3), (4, -0.5)]):
        truth = np.arange(3)[None] == a
        lists.append(answer(own * truth, truth, [f"{a}.mp4"]))
        baseline.append(answer(other * truth, truth, [f"{a}.mp4"]))
    expected = examples(lists, baseline, "win", ALL)
    assert {example.path for example in expected} == {"0.mp4", "1.mp4", "2.mp4"}
    assert examples(scaled(lists, 7), baseline, "win", ALL) == expected


@pytest.mark.parametrize("outcome", ["win", "loss"])
def test_where_both_agree_there_is_no_example(outcome):
    rng = np.random.default_rng(0)
    own, _ = pair(rng)
    assert examples([own], scaled([own], 7), outcome, ALL) == []
    right, wrong = own.truth.astype(float), ~own.truth
    for logits in (right, wrong):
        both = [answer(logits + rng.random(own.truth.shape) / 2, own.truth) for _ in range(2)]
        assert examples(both[:1], both[1:], outcome, ALL) == []


@pytest.mark.parametrize("outcome", ["win", "loss"])
def test_one_class_and_videos_that_show_all_classes_make_no_example(outcome):
    rng = np.random.default_rng(0)
    for classes in (1, 4):
        own, other = (answer(rng.normal(size=(6, classes)), np.ones((6, classes))) for _ in range(2))
        assert examples([own], [other], outcome, ALL) == []
    truth = np.ones((6, 4), bool)
    truth[0, 1:] = False
    own, other = answer(truth, truth), answer(~truth, truth)
    found = examples([own], [other], outcome, ALL)
    assert [example.path for example in found] == (["0.mp4"] if outcome == "win" else [])
