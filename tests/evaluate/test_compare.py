"""Two saved runs side by side, against plain loops."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from ost.evaluate.compare import SHOWN_CHANGES, compare
from ost.evaluate.config import EvaluateConfig
from ost.evaluate.saved import Saved

NAMES = ("archery", "path", "cartwheel")


def run(rows, names=NAMES, **record):
    """A saved run of rows (list, video, its classes, logits); NaN where a list lacks the class."""
    config = EvaluateConfig()
    logits = np.array([logits for *_, logits in rows], np.float32).reshape(len(rows), len(names))
    classes = {
        title: [n for n, one in zip(names, own, strict=True) if one == one] for title, _, _, own in rows
    }
    told = {"config": config.model_dump(mode="json"), "backbone": "tiny", "packs": {}, "environment": {}}
    told["classes"] = classes
    return Saved(
        Path("runs", "own"),
        config,
        told | record,
        [title for title, *_ in rows],
        [path for _, path, *_ in rows],
        [list(labels) for _, _, labels, _ in rows],
        logits,
        {name: a for a, name in enumerate(names)},
    )


def configured(**config):
    return EvaluateConfig(**config).model_dump(mode="json")


@st.composite
def pairs(draw):
    """Runs of the same classes that share some videos; a video's classes do not depend on the run."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = draw(st.sampled_from([0.2, 0.8, 1.0]))
    videos = []
    for title in ("one", "two", "three")[: draw(st.integers(1, 3))]:
        for i in range(draw(st.integers(1, 12))):
            shown = rng.permutation(NAMES)[: rng.integers(1, 3)].tolist()
            videos.append((title, f"{i}.mp4", shown))
    return [
        [(*video, rng.integers(0, 4, len(NAMES))) for video in videos if rng.random() < share]
        for _ in range(2)
    ]


def told(rows):
    """(list, video) -> whether it is right."""
    return {
        (title, path): NAMES[list(logits).index(max(logits))] in labels
        for title, path, labels, logits in rows
    }


@given(pairs())
@settings(max_examples=150, deadline=None)
def test_videos_that_one_run_alone_gets_right_are_counted_as_by_a_loop(rows):
    right_a, right_b = told(rows[0]), told(rows[1])
    expected = {}
    for key in right_a:
        if key in right_b:
            expected.setdefault(key[0], []).append((right_a[key], right_b[key]))
    found = compare(run(rows[0]), run(rows[1]))
    assert {row.title for row in found.rows} == set(expected)
    for row in found.rows:
        both = expected[row.title]
        assert row.videos == len(both)
        assert (row.only_a, row.only_b) == (both.count((True, False)), both.count((False, True)))
        assert row.a == pytest.approx(sum(a for a, _ in both) / len(both))
        assert row.b == pytest.approx(sum(b for _, b in both) / len(both))
    assert found.unpaired == (len(right_a.keys() - right_b), len(right_b.keys() - right_a))
    only_a, only_b = sum(row.only_a for row in found.rows), sum(row.only_b for row in found.rows)
    sure = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1
    assert found.p == pytest.approx(sure)
    if expected:
        assert found.difference.mean == pytest.approx(np.mean([row.b - row.a for row in found.rows]))
        assert found.difference.low <= found.difference.mean + 1e-9 <= found.difference.high + 2e-9


@given(pairs())
@settings(max_examples=100, deadline=None)
def test_changes_of_classes_and_logits_are_those_of_a_loop(rows):
    a, b = ({(row[0], row[1]): row for row in side} for side in rows)
    right_a, right_b = told(rows[0]), told(rows[1])
    by_class, gaps = {}, []
    for key in a.keys() & b.keys():
        by_class.setdefault(a[key][2][0], []).append((right_a[key], right_b[key]))
        gaps += [abs(int(x) - int(y)) for x, y in zip(a[key][3], b[key][3], strict=True)]
    found = compare(run(rows[0]), run(rows[1]))
    assert found.largest == (max(gaps) if gaps else None)
    shares = {name: np.mean(both, axis=0).tolist() for name, both in by_class.items()}
    changed = {name for name, (before, after) in shares.items() if before != after}
    assert {change.name for change in found.classes} == changed
    for change in found.classes:
        assert [change.a, change.b] == pytest.approx(shares[change.name])
        assert change.videos == len(by_class[change.name])
    sizes = [abs(change.b - change.a) for change in found.classes]
    assert sizes == sorted(sizes, reverse=True)


def test_the_largest_changes_of_many_classes_are_shown():
    names = [f"class {a:02}" for a in range(SHOWN_CHANGES + 5)]
    rows = [[], []]
    for a, name in enumerate(names):
        for i in range(20):
            for side in (0, 1):
                right = not side or i < a
                rows[side].append(
                    ("own", f"{name} {i}.mp4", [name], np.roll(np.eye(len(names))[a], not right))
                )
    found = compare(run(rows[0], names), run(rows[1], names))
    assert [(change.name, change.b) for change in found.classes] == [
        (name, pytest.approx(a / 20)) for a, name in enumerate(names[:SHOWN_CHANGES])
    ]


@given(pairs(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_rows_does_not_matter(rows, random):
    a, b = rows
    expected = compare(run(a), run(b))
    assert compare(run(a), run(random.sample(b, len(b)))) == expected
    found = compare(run(random.sample(a, len(a))), run(b))
    assert sorted(found.rows, key=str) == sorted(expected.rows, key=str)
    assert sorted(found.classes, key=str) == sorted(expected.classes, key=str)
    assert (found.p, found.largest, found.unpaired) == (expected.p, expected.largest, expected.unpaired)


@given(pairs())
@settings(max_examples=50, deadline=None)
def test_a_run_against_itself_is_the_same(rows):
    a = run(rows[0])
    found = compare(a, a)
    assert found.same
    assert (found.p, found.settings, found.unpaired, found.classes) == (1, {}, (0, 0), ())
    assert all(row.a == row.b and row.only_a == row.only_b == 0 for row in found.rows)
    if rows[0]:
        assert (found.difference.mean, found.difference.low, found.difference.high) == (0, 0, 0)


def test_the_order_of_classes_does_not_matter():
    rows = [("own", "0.mp4", ["path"], [1, 3, 2]), ("own", "1.mp4", ["archery"], [1, 3, 2])]
    order = [2, 0, 1]
    turned = [(*row, [logits[a] for a in order]) for *row, logits in rows]
    assert compare(run(rows), run(turned, [NAMES[a] for a in order])).same


@pytest.mark.parametrize("value", [30.0, 1e-30, 0.0, -1e-45])
def test_one_bit_of_one_logit_is_no_longer_the_same(value):
    rows = [("own", f"{i}.mp4", ["path"], np.full(3, value, np.float32)) for i in range(3)]
    changed = [(*row, logits.copy()) for *row, logits in rows]
    assert compare(run(rows), run(changed)).same
    changed[1][3][2] = np.nextafter(np.float32(value), np.float32(np.inf))
    found = compare(run(rows), run(changed))
    assert not found.same
    assert found.largest == np.float64(changed[1][3][2]) - np.float64(np.float32(value))


def test_a_video_that_one_run_lacks_is_not_the_same():
    rows = [("own", f"{i}.mp4", ["path"], [1, 2, 3]) for i in range(3)]
    for a, b, unpaired in ((rows, rows[:2], (1, 0)), (rows[:2], rows, (0, 1))):
        found = compare(run(a), run(b))
        assert found.largest == 0 and found.unpaired == unpaired and not found.same


def test_a_class_that_one_run_lacks_is_not_the_same():
    rows = [("own", "0.mp4", ["path"], [1, 2, 3])]
    fewer = [("own", "0.mp4", ["path"], [1, 2])]
    nothing = [("own", "0.mp4", ["path"], [1, 2, np.nan])]
    for other in (run(fewer, NAMES[:2]), run(nothing)):
        assert not compare(run(rows), other).same
        assert not compare(other, run(rows)).same
        assert compare(run(rows), other).rows[0].only_b == 1


def test_classes_that_no_list_has_in_both_runs_have_no_largest_difference():
    a = run([("own", "0.mp4", ["path"], [1, 2, np.nan])])
    b = run([("own", "0.mp4", ["cartwheel"], [np.nan, np.nan, 1])])
    other = run([("own", "0.mp4", ["x"], [1, 2])], ["x", "y"])
    for found in (compare(a, b), compare(a, other)):
        assert found.largest is None and not found.same


def test_runs_without_a_video_in_common_have_nothing_to_compare():
    a = run([("own", f"{i}.mp4", ["path"], [1, 2, 3]) for i in range(3)], weights="00")
    others = ([("two", "0.mp4", ["path"], [1, 2, 3])], [("own", "9.mp4", ["path"], [1, 2, 3])], [])
    for rows in others:
        found = compare(a, run(rows, weights="11"))
        assert (found.rows, found.difference, found.p, found.classes) == ((), None, 1, ())
        assert found.largest is None and not found.same
        assert found.unpaired == (3, len(rows))
        assert found.settings == {"weights": ("00", "11")}


def test_settings_that_differ_are_named_with_both_values():
    rows = [("own", "0.mp4", ["path"], [1, 2, 3])]
    a = run(
        rows,
        config=configured(frames=32, eps=0.1),
        weights="00",
        packs={"val1": "aa", "val2": "bb"},
        environment={"torch": "2.11", "python": "3.12", "device": "cpu"},
        seconds=1.0,
        numbers={"x": 1},
    )
    b = run(
        rows,
        config=configured(frames=8, eps=0.1, ablate=True),
        weights="11",
        packs={"val1": "cc", "val3": "bb"},
        environment={"torch": "2.12", "python": "3.12", "device": "cpu", "ranks": 2},
        precision="fp32",
        seconds=2.0,
    )
    assert compare(a, b).settings == {
        "weights": ("00", "11"),
        "precision": (None, "fp32"),
        "config.frames": (32, 8),
        "config.ablate": (False, True),
        "packs.val1": ("aa", "cc"),
        "packs.val2": ("bb", None),
        "packs.val3": (None, "bb"),
        "environment.torch": ("2.11", "2.12"),
        "environment.ranks": (None, 2),
    }
    assert compare(b, a).settings == {key: (y, x) for key, (x, y) in compare(a, b).settings.items()}


@pytest.mark.parametrize("key", EvaluateConfig.model_fields)
def test_every_setting_of_the_config_can_be_told(key):
    rows = [("own", "0.mp4", ["path"], [1, 2, 3])]
    other = run(rows, config=configured() | {key: "other"})
    assert compare(run(rows), other).settings == {f"config.{key}": (configured()[key], "other")}
