import pytest

from ost.errors import UsageError
from ost.video.find import find_videos


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_folder_gives_the_videos_below_it_in_order(tmp_path):
    make(tmp_path, "b.MP4", "a.avi", "deep/er/c.webm", "notes.txt", ".hidden/d.mp4", ".e.mp4")
    found = find_videos([tmp_path])
    assert [path.removeprefix(f"{tmp_path}/") for path in found] == ["a.avi", "b.MP4", "deep/er/c.webm"]


def test_a_folder_of_frame_images_is_one_video(tmp_path):
    make(tmp_path, "one/1.jpg", "one/2.jpg", "two/1.png", "clip.mp4")
    found = find_videos([tmp_path])
    assert found == [str(tmp_path / "clip.mp4"), str(tmp_path / "one"), str(tmp_path / "two")]


def test_a_named_file_is_taken_whatever_it_is_called(tmp_path):
    assert find_videos([tmp_path / "missing.mp4", "x.bin"]) == [str(tmp_path / "missing.mp4"), "x.bin"]


def test_a_video_named_twice_is_taken_once(tmp_path):
    make(tmp_path, "a.mp4")
    assert find_videos([tmp_path / "a.mp4", tmp_path]) == [str(tmp_path / "a.mp4")]


def test_a_folder_with_nothing_to_see_is_an_error(tmp_path):
    make(tmp_path, "notes.txt")
    with pytest.raises(UsageError, match="neither videos nor frame images"):
        find_videos([tmp_path])


def test_a_folder_that_may_not_be_read_is_named_and_loses_no_other_video(unprivileged):
    folder, drop = unprivileged
    make(folder, "fine.mp4", "locked/a.mp4")
    (folder / "locked").chmod(0)
    drop()
    locked = str(folder / "locked")
    assert find_videos([folder]) == [str(folder / "fine.mp4"), locked]
    assert find_videos([locked, f"{locked}/a.mp4"]) == [locked, f"{locked}/a.mp4"]
