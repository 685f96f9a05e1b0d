"""Videos of a list are found in .tar archives, whatever these are called, as in folders of the same names."""

import io
import tarfile

import pytest

from ost.datasets.folder import labelled_folder
from ost.datasets.lists import Entry
from ost.datasets.locate import Locator, locate_all
from ost.datasets.manifest import LabelledVideo, read_manifest
from ost.errors import UsageError
from ost.sources import own_videos
from ost.video.find import find_videos


@pytest.fixture
def root(tmp_path):
    """Files as `archive.tar/name` or `name`; those that follow one another in one archive lie in it together."""

    def laid(*paths):
        inside = {}
        for path in paths:
            place, tar, name = path.partition(".tar/")
            file = tmp_path / "root" / f"{place}{'.tar' if tar else ''}"
            file.parent.mkdir(parents=True, exist_ok=True)
            if tar:
                inside.setdefault(file, []).append(name)
            else:
                file.touch()
        for file, names in inside.items():
            with tarfile.open(file, "w") as out:
                for name in names:
                    made = tarfile.TarInfo(name)
                    made.size = 4
                    out.addfile(made, io.BytesIO(b"data"))
        return tmp_path / "root"

    return laid


def entry(video, label="run"):
    return Entry(video, (label,), None)


@pytest.mark.parametrize(
    ("video", "place"),
    [
        # The archive is a class.
        ("brush_hair/x.avi", "brush_hair.tar/x.avi"),
        ("brush_hair/x.avi", "brush_hair.tar/brush_hair/x.avi"),
        ("Brush Hair/x.avi", "data/hmdb51/brush_hair.tar/x.avi"),
        ("x.avi", "brush_hair.tar/x.avi"),
        ("k/x.avi", "k.tar/x.avi"),
        ("12/x.avi", "12.tar/x.avi"),
        # It is a data set.
        ("x.avi", "hmdb51.tar/x.avi"),
        ("x.avi", "hmdb51_org.tar/brush_hair/x.avi"),
        ("brush_hair/x.avi", "hmdb51.tar/brush_hair/x.avi"),
        ("brush_hair/x.avi", "hmdb51.tar/hmdb51/brush_hair/x.avi"),
        ("brush_hair/x.avi", "hmdb51_org.tar/x.avi"),
        ("Archery/v_Archery_g01_c01.avi", "UCF-101.tar/v_Archery_g01_c01.avi"),
        ("Archery/v_Archery_g01_c01.avi", "UCF101.tar/UCF-101/Archery/v_Archery_g01_c01.avi"),
        ("74225.webm", "20bn-something-something-v2.tar/20bn-something-something-v2/74225.webm"),
        ("val/x.mp4", "kinetics400.tar/val/riding a bike/x.mp4"),
        ("val/x.mp4", "k400_val.tar/x.mp4"),
        # It is a part of one.
        ("val/x.mp4", "val.tar/x.mp4"),
        ("val/x.mp4", "val.tar/val/x.mp4"),
        ("x.mp4", "val.tar/riding a bike/x.mp4"),
        ("val/x.mp4", "val_256.tar/riding a bike/x.mkv"),
        ("val/x.mp4", "k400/val/part_0.tar/x.mp4"),
        ("run/x.mp4", "train_12.tar/x.mp4"),
        ("run/x.mp4", "data/00012.tar/x.mp4"),
        ("run/x.mp4", "whatever.tar/run/x.mp4"),
        ("x.mp4", "whatever.tar/x_320x240.mp4"),
        ("wONwHYy59Tc", "v1-3.tar/v_wONwHYy59Tc.mp4"),
    ],
)
def test_a_video_is_found_in_an_archive_that_people_keep(root, video, place):
    home = root(place, "elsewhere.tar/other.avi")
    assert Locator(home).find(video) == home / place
    assert locate_all([entry(video)], home) == ([LabelledVideo(home / place, "run")], [], (), {})


@pytest.mark.parametrize(
    ("video", "place"),
    [
        ("val/x.mp4", "val.tar/x"),
        ("x.mp4", "frames.tar/run/x"),
        ("run/x.mp4", "run.tar/x"),
        ("run/x.mp4", "run/x.tar"),
    ],
)
def test_a_folder_of_frames_in_an_archive_stands_for_its_video(root, video, place):
    home = root(f"{place}/img_00001.JPG", f"{place}/img_00002.JPG")
    assert Locator(home).find(video) == home / place


@pytest.mark.parametrize(
    ("video", "place"),
    [
        ("run/001.avi", "walk.tar/001.avi"),
        ("run/001.avi", "hmdb51.tar/walk/001.avi"),
        ("run/001.avi", "7.tar/001.avi"),
        ("run/001.avi", "k.tar/001.avi"),
        ("x.avi", "a.tar/.hidden/x.avi"),
        ("x.avi", ".a.tar/x.avi"),
        ("x.avi", "a.tar/../x.avi"),
        ("x.avi", "a.tar/inner.tar/y.avi"),
        ("x.avi", "x.tar/notes.txt"),
    ],
)
def test_another_video_of_an_archive_is_not_taken_for_it(root, video, place):
    assert Locator(root(place)).find(video) is None


@pytest.mark.parametrize(
    "nearer",
    [
        ("val.tar/x.mp4", "x.mp4"),
        ("val/x.mp4", "all.tar/val/run/x.mp4"),
        ("val.tar/x.mp4", "val.tar/run/x.mp4"),
        ("val.tar/run/x.mp4", "train.tar/run/x.mp4"),
        ("deep.tar/down/run/x.mp4", "val/x.mkv"),
    ],
)
def test_the_nearer_of_two_is_taken(root, nearer):
    home = root(*nearer)
    assert Locator(home).find("val/x.mp4") == home / nearer[0]


@pytest.mark.parametrize(
    ("video", "places"),
    [
        ("val/x.mp4", ("val/x.mp4", "val.tar/x.mp4")),
        ("x.mp4", ("run/x.mp4", "walk.tar/x.mp4")),
        ("x.mp4", ("run.tar/x.mp4", "walk.tar/x.mp4")),
        ("x.mp4", ("all.tar/run/x.mp4", "all.tar/walk/x.mp4")),
    ],
)
def test_two_that_are_equally_near_are_an_error_that_shows_both(root, video, places):
    home = root(*places)
    with pytest.raises(UsageError, match="keep one of them") as caught:
        Locator(home).find(video)
    assert all(place in str(caught.value) for place in places)


def test_an_archive_can_be_the_root(root):
    home = root("k400.tar/val/x.mp4", "k400.tar/y.mp4", "k400.tar/1.jpg") / "k400.tar"
    assert Locator(home).find("val/x.mp4") == home / "val/x.mp4"
    assert Locator(home).find("y.mp4") == home / "y.mp4"


def test_a_broken_archive_is_used_as_far_as_it_goes_and_told(root):
    home = root("a.tar/x.avi", "a.tar/y.avi", "b/z.avi")
    (home / "a.tar").write_bytes((home / "a.tar").read_bytes()[:1200])
    clips, missing, notices, _ = locate_all([entry("x.avi"), entry("y.avi"), entry("z.avi")], home)
    assert [clip.path for clip in clips] == [home / "a.tar/x.avi", home / "b/z.avi"]
    assert missing == [entry("y.avi")]
    assert notices == (f"{home}/a.tar: it breaks off before its end; 1 file in it can be read",)
    (home / "a.tar").write_bytes(b"\x1f\x8b")
    with pytest.raises(UsageError, match=r"none of the 1 videos .*a\.tar: it is compressed with gzip"):
        locate_all([entry("x.avi")], home)


def test_labels_are_the_names_of_folders_or_of_archives(root):
    home = root("brush_hair.tar/a.avi", "hmdb51.tar/walk/b.avi", "run/c.avi", "jump/d.tar/1.jpg")
    (home / "odd.tar").mkdir()
    (home / "odd.tar" / "e.avi").touch()
    labels = {
        clip.path.relative_to(home).as_posix(): clip.label
        for clip in labelled_folder(home, find_videos([home]))
    }
    assert labels == {
        "brush_hair.tar/a.avi": "brush_hair",
        "hmdb51.tar/walk/b.avi": "walk",
        "run/c.avi": "run",
        "jump/d.tar": "jump",
        "odd.tar/e.avi": "odd.tar",
    }


def test_own_clips_come_from_an_archive_and_its_break_is_told(root):
    home = root("all.tar/run/a.avi", "all.tar/walk/b.avi", "all.tar/walk/c.avi")
    path = home / "all.tar"
    clips = [LabelledVideo(path / "run/a.avi", "run"), LabelledVideo(path / "walk/b.avi", "walk")]
    assert own_videos(path, None).videos == [*clips, LabelledVideo(path / "walk/c.avi", "walk")]
    assert own_videos(path, None).notices == own_videos(home, None).notices == ()
    path.write_bytes(path.read_bytes()[:2200])
    for place in (path, home):
        found = own_videos(place, None)
        assert found.videos == clips
        assert found.notices == (f"{path}: it breaks off before its end; 2 files in it can be read",)
    path.write_bytes(b"text")
    with pytest.raises(UsageError, match=r"at least two classes \(.*all\.tar: it is no tar archive"):
        own_videos(home, None)


def test_a_list_is_found_in_an_archive_with_its_notices(root, tmp_path):
    home = root("all.tar/run/a.avi", "all.tar/walk/b.avi")
    path = home / "all.tar"
    path.write_bytes(path.read_bytes()[:1200])
    (tmp_path / "list.txt").write_text("run/a.avi 0\nwalk/b.avi 1\n")
    found = own_videos(home, tmp_path / "list.txt", ("run", "walk"))
    assert found.videos == [LabelledVideo(path / "run/a.avi", "run")]
    assert found.missing == ("walk/b.avi",) and "breaks off" in found.notices[0]


def test_the_paths_of_a_manifest_may_lead_into_archives(root):
    home = root("clips.tar/x.avi")
    (home / "list.csv").write_text("path,label\nclips.tar/x.avi,run\n")
    assert read_manifest(home / "list.csv") == [LabelledVideo(home / "clips.tar" / "x.avi", "run")]
