"""Labelled videos by where they lie, and the choice of shots."""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ost.datasets.folder import labelled_folder, pick_shots
from ost.datasets.manifest import LabelledVideo
from ost.errors import UsageError

quick = settings(max_examples=50, deadline=None)


def clips_of(sizes):
    """So many clips of each class."""
    return [
        LabelledVideo(Path(label) / f"{i}.mp4", label) for label, size in sizes.items() for i in range(size)
    ]


sizes = st.dictionaries(st.text("abcö /", min_size=1, max_size=6), st.integers(3, 9), min_size=1, max_size=5)
seeds = st.integers(0, 2**40)


@quick
@given(sizes, st.integers(0, 3), seeds)
def test_shots_and_rest_are_disjoint_and_complete(sizes, shots, seed):
    clips = clips_of(sizes)
    picked = pick_shots(clips, shots, seed)
    assert Counter(clip.label for clip in picked.shots) == (dict.fromkeys(sizes, shots) if shots else {})
    assert sorted([*picked.shots, *picked.rest]) == sorted(clips)
    assert not set(picked.shots) & set(picked.rest)


@quick
@given(sizes, st.integers(1, 3), seeds)
def test_the_choice_does_not_depend_on_the_order_of_the_clips(sizes, shots, seed):
    clips = clips_of(sizes)
    shuffled = random.Random(1).sample(clips, len(clips))
    assert pick_shots(shuffled, shots, seed) == pick_shots(clips, shots, seed)


@quick
@given(sizes, st.integers(1, 3), seeds)
def test_the_choice_of_a_class_depends_on_its_own_clips_alone(sizes, shots, seed):
    picked = pick_shots(clips_of(sizes), shots, seed)
    for label, size in sizes.items():
        alone = pick_shots(clips_of({label: size}), shots, seed)
        assert alone.shots == [clip for clip in picked.shots if clip.label == label]
        assert alone.rest == [clip for clip in picked.rest if clip.label == label]


def test_seeds_and_classes_choose_differently():
    chosen = {
        (seed, label): tuple(clip.path.name for clip in pick_shots(clips_of({label: 30}), 4, seed).shots)
        for seed in range(4)
        for label in "abcd"
    }
    assert len(set(chosen.values())) == len(chosen)


def test_every_clip_is_chosen_as_often_as_another():
    counts = Counter(
        clip.path.name for seed in range(600) for clip in pick_shots(clips_of({"a": 6}), 2, seed).shots
    )
    # 200 are expected of each with a standard deviation of 11.5
    assert len(counts) == 6
    assert all(abs(count - 200) < 60 for count in counts.values())


def test_a_class_with_too_few_clips_is_named():
    with pytest.raises(UsageError, match="'juggling' has 2 clips, fewer than the 3 shots"):
        pick_shots(clips_of({"clap": 5, "juggling": 2}), 3, 0)


def test_a_videos_label_is_the_folder_it_lies_in():
    root = Path("videos")
    found = [root / "b" / "2.mp4", root / "a" / "3.mp4", str(root / "part" / "b" / "1.mp4")]
    clips = labelled_folder(root, found)
    assert clips == [
        LabelledVideo(root / "a" / "3.mp4", "a"),
        LabelledVideo(root / "b" / "2.mp4", "b"),
        LabelledVideo(root / "part" / "b" / "1.mp4", "b"),
    ]
    assert labelled_folder(str(root), reversed(found)) == clips


@pytest.mark.parametrize("stray", ["videos/x.mp4", "videos"])
def test_a_video_in_no_class_is_named(stray):
    with pytest.raises(UsageError, match=rf"^{stray}: lies in no folder of a class"):
        labelled_folder("videos", ["videos/a/1.mp4", "videos/b/1.mp4", stray])


@pytest.mark.parametrize("videos", [[], ["videos/a/1.mp4", "videos/a/2.mp4"]])
def test_fewer_than_two_classes_are_refused(videos):
    with pytest.raises(UsageError, match=r"^videos: needs .* at least two classes"):
        labelled_folder("videos", videos)
