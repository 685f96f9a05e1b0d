"""A video of a list is found where people keep it, and never another one in its place."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ost.datasets import locate
from ost.datasets.lists import Entry
from ost.datasets.locate import Locator, locate_all
from ost.datasets.manifest import LabelledVideo
from ost.errors import UsageError

ID = "-_aB3.dEfgH_000008_000018"


@pytest.fixture
def root(tmp_path):
    def laid(*paths):
        for path in paths:
            place = tmp_path / "root" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        return tmp_path / "root"

    return laid


def entry(video, label="run", frames=None):
    return Entry(video, (label,), frames)


@pytest.mark.parametrize(
    ("video", "place"),
    [
        ("x.avi", "x.avi"),
        ("./a//x.avi", "a/x.avi"),
        ("x.avi", "brush_hair/x.avi"),
        ("brush hair/x.avi", "brush_hair/x.avi"),
        ("Brush_Hair/x.avi", "x.avi"),
        ("Brush_Hair/x.avi", "videos/x.avi"),
        ("x.avi", "data/hmdb51/brush_hair/x.avi"),
        (f"val/{ID}.mp4", f"{ID}.mp4"),
        (f"val/{ID}.mp4", f"val/riding a bike/{ID}.mp4"),
        (f"{ID}.mp4", f"val/{ID}.mp4"),
        (f"train/{ID}.mp4", f"k600/test/{ID}.mp4"),
        (f"val/{ID}.mp4", f"compress/val_256/{ID}.mp4"),
        (f"val/{ID}.mp4", f"val/{ID}.mkv"),
        (f"val/{ID}.mp4", f"val/{ID}.MP4"),
        (f"val/{ID}.mp4", f"val/riding a bike/{ID}.webm"),
        ("74225.webm", "20bn-something-something-v2/74225.webm"),
        ("74225.webm", "74225_320x240.mp4"),
        ("74225.webm", "74225-256p.webm"),
        ("74225.webm", "74225_short256.webm"),
        ("74225.webm", "74225.resized.mp4"),
        ("wONwHYy59Tc", "v_wONwHYy59Tc.mp4"),
        ("wONwHYy59Tc", "val/v_wONwHYy59Tc.mkv"),
        ("wONwHYy59Tc", "wONwHYy59Tc.mp4"),
        ("-ab_cd.ef12", "v_-ab_cd.ef12.mp4"),
        ("ü.avi", "u\u0308.avi"),
    ],
)
def test_a_video_is_found_by_the_path_of_the_list_or_one_that_people_give_it(root, video, place):
    home = root(place, "elsewhere/other.avi")
    assert Locator(home).find(video) == home / place


@pytest.mark.parametrize(
    ("video", "folder"),
    [("val/x.mp4", "val/x"), ("x.mp4", "frames/run/x"), ("4k-F7_0", "4k-F7_0"), ("4k-F7_0", "train/4k-F7_0")],
)
def test_a_folder_of_frames_stands_for_its_video(root, video, folder):
    home = root(f"{folder}/img_00001.JPG", f"{folder}/img_00002.JPG")
    assert Locator(home).find(video) == home / folder


@pytest.mark.parametrize(
    ("video", "place"),
    [
        ("x.avi", "y.avi"),
        ("x.avi", "xy.avi"),
        ("x.avi", "x.txt"),
        ("x.avi", "v_x.avi"),
        ("v_x.avi", "x.avi"),
        ("x_320x240.avi", "x.avi"),
        ("x.avi", "x_1.avi"),
        ("x.avi", ".hidden/x.avi"),
        ("x.avi", ".x.avi"),
        ("x.mp4", "x/notes.txt"),
        ("run/001.avi", "walk/001.avi"),
        ("run/001.avi", "walk/001/img_1.jpg"),
        (f"{ID}.mp4", f"{ID[:-1]}9.mp4"),
    ],
)
def test_another_video_is_not_taken_for_it(root, video, place):
    assert Locator(root(place)).find(video) is None


@pytest.mark.parametrize(
    "nearer",
    [
        ("val/x.mp4", "x.mp4"),
        ("val/x.mp4", "val/run/x.mp4"),
        ("val/run/x.mp4", "train/run/x.mp4"),
        ("val/run/x.mp4", "replacement/x.mp4"),
        ("x.mp4", "deep/down/run/x.mp4"),
        ("deep/down/run/x.mp4", "val/x.mkv"),
        ("val/x.mkv", "val/x_320x240.mp4"),
        ("val/x-256p.mp4", "val/x/img_1.jpg"),
    ],
)
def test_the_nearer_of_two_is_taken(root, nearer):
    home = root(*nearer)
    assert Locator(home).find("val/x.mp4") == home / nearer[0]


@pytest.mark.parametrize(
    ("video", "places"),
    [
        ("x.mp4", ("run/x.mp4", "walk/x.mp4")),
        ("val/x.mp4", ("train/run/x.mp4", "test/run/x.mp4")),
        ("x.mp4", ("a/b/x.mp4", "c/d/x.mp4")),
        ("x.mp4", ("x.avi", "x.mkv")),
        ("x.mp4", ("x_320x240.mp4", "x-256p.mp4")),
        ("x", ("v_x.mp4", "v_x.mkv")),
        ("x.mp4", ("run/x/1.jpg", "walk/x/1.jpg")),
    ],
)
def test_two_that_are_equally_near_are_an_error_that_shows_both(root, video, places):
    home = root(*places)
    with pytest.raises(UsageError, match="keep one of them") as caught:
        Locator(home).find(video)
    for place in places:
        shown = place if place.endswith(("mp4", "avi", "mkv")) else place.rpartition("/")[0]
        assert shown in str(caught.value)


@pytest.mark.parametrize(
    "video",
    [
        "/etc/x.avi",
        "../x.avi",
        "a/../../x.avi",
        "..",
        "C:/x.avi",
        "C:\\x.avi",
        "..\\x.avi",
        "\\\\h\\x.avi",
        "",
    ],
)
def test_a_path_that_leads_out_of_the_root_is_refused(root, video):
    home = root("x.avi", "../x.avi")
    with pytest.raises(UsageError, match="leads out of the folder of the videos"):
        Locator(home).find(video)
    with pytest.raises(UsageError, match="leads out"):
        locate_all([entry("x.avi"), entry(video)], home)


def test_links_to_folders_are_not_followed(root, tmp_path):
    home = root("y.avi", "../outside/x.avi")
    (home / "link").symlink_to(tmp_path / "outside")
    (home / "loop").symlink_to(home)
    assert Locator(home).find("x.avi") is None
    assert Locator(home).find("y.avi") == home / "y.avi"


def test_a_root_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for place in ("none", "file"):
        with pytest.raises(UsageError, match=f"{place}: is not a folder that can be read"):
            Locator(tmp_path / place)


def test_a_folder_that_may_not_be_read_is_left_out_but_not_the_root(root, monkeypatch):
    home = root("x.avi", "lost+found/y.avi")
    scan, locked = os.scandir, [str(home / "lost+found")]

    def scandir(place):
        if str(place) in locked:
            raise PermissionError(13, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", scandir)
    assert Locator(home).find("x.avi") == home / "x.avi"
    locked.append(str(home))
    with pytest.raises(UsageError, match="root: is not a folder that can be read"):
        Locator(home)


def test_found_videos_become_clips_with_all_their_labels_and_the_rest_is_given_back(root):
    home = root("run/a.avi", "walk/b.mp4")
    entries = [Entry("a.avi", ("run", "walk"), None), entry("c.avi"), entry("b.avi", "walk"), entry("a.avi")]
    clips, missing, *_ = locate_all(entries, home)
    assert clips == [
        LabelledVideo(home / "run/a.avi", "run", ("walk",)),
        LabelledVideo(home / "walk/b.mp4", "walk"),
        LabelledVideo(home / "run/a.avi", "run"),
    ]
    assert missing == [entry("c.avi")]


def test_nothing_found_says_what_was_expected(root):
    home = root("other.avi")
    with pytest.raises(
        UsageError, match=r"none of the 2 videos of UCF-101 \(such as a.avi\) is below .*; expected X/"
    ):
        locate_all([entry("a.avi"), entry("b.avi")], home, "UCF-101", "X/")


def test_a_video_that_two_entries_could_mean_is_that_of_the_nearer(root):
    home = root("train/x.avi")
    clips, missing, *_ = locate_all([entry("val/x.avi", "walk"), entry("train/x.avi", "run")], home)
    assert (clips, missing) == ([LabelledVideo(home / "train/x.avi", "run")], [entry("val/x.avi", "walk")])


def test_a_file_that_two_entries_mean_equally_is_neither_and_loses_no_other(root):
    home = root("x.avi", "y.avi")
    entries = [entry("val/x.avi", "walk"), entry("train/x.avi", "run"), entry("y.avi", "run")]
    clips, missing, _, unclear = locate_all(entries, home)
    assert (clips, missing) == ([LabelledVideo(home / "y.avi", "run")], [])
    assert unclear["val/x.avi"].startswith(f"{home}/x.avi can be it or train/x.avi of the list")
    assert unclear["train/x.avi"].startswith(f"{home}/x.avi can be it or val/x.avi of the list")


def test_a_video_that_can_be_two_files_is_named_with_both_and_loses_no_other(root):
    home = root("one/x.avi", "two/x.avi", "y.avi")
    clips, missing, _, unclear = locate_all([entry("x.avi"), entry("y.avi")], home)
    assert ([clip.path for clip in clips], missing) == ([home / "y.avi"], [])
    assert list(unclear) == ["x.avi"] and f"one{os.sep}x.avi or two{os.sep}x.avi" in unclear["x.avi"]
    with pytest.raises(UsageError, match=r"none of the 1 videos .*x\.avi can be one.x\.avi or two.x\.avi"):
        locate_all([entry("x.avi")], home)


names = st.lists(
    st.text("ab-_.v0", min_size=1, max_size=5).filter(lambda s: s[0] != "."), unique=True, min_size=1
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(names)
def test_every_video_is_found_at_its_own_path_whatever_lies_beside_it(tmp_path_factory, stems):
    home = tmp_path_factory.mktemp("root")
    for i, stem in enumerate(stems):
        (home / f"class {i % 2}").mkdir(exist_ok=True)
        (home / f"class {i % 2}" / f"{stem}.mp4").touch()
    entries = [entry(f"class {i % 2}/{stem}.mp4") for i, stem in enumerate(stems)]
    clips, missing, *_ = locate_all(entries, home)
    assert [clip.path for clip in clips] == [home / e.video for e in entries]
    assert not missing


def test_a_long_list_is_compared_with_few_files_a_video(monkeypatch):
    count = 3000
    tree = [("r", [], []), ("r/c", [], [f"{i}.mp4" for i in range(count)])]
    tree += [("r/t", [], [f"t_{i:05}x{i:05}.mp4" for i in range(count)])]
    tree += [(f"r/d{i}", [], ["video.mp4"]) for i in range(count)]
    entries = [entry(f"val/{i}.mp4") for i in range(count)]
    entries += [entry(f"t_{i:05}x{i:05}.avi") for i in range(count)]
    entries += [entry(f"sub/d{i}/video.mp4") for i in range(count)]
    entries += [entry(f"no{i}/video.mp4") for i in range(count)]
    calls = []
    compare = locate._rank
    monkeypatch.setattr(locate, "_rank", lambda *args: calls.append(1) or compare(*args))
    with monkeypatch.context() as patch:
        patch.setattr(os, "walk", lambda *_, **__: iter(tree))
        clips, missing, *_ = locate_all(entries, "r")
    assert (len(clips), len(missing)) == (3 * count, count)
    assert len(calls) <= 3 * count
