"""A list of labelled videos is read whole, or refused with its fault."""

import pytest

from ost.datasets.manifest import Clip, read_manifest
from ost.errors import UsageError


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "clips.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_paths_are_relative_to_the_manifest_and_may_hold_anything(tmp_path, mark):
    path = written(tmp_path, mark + 'label,path,more\nrun,"a b, ""c"".mp4",1\n走る,ü/x.avi,2\n')
    assert read_manifest(path) == [
        Clip(tmp_path / 'a b, "c".mp4', "run"),
        Clip(tmp_path / "ü" / "x.avi", "走る"),
    ]


def test_a_dataset_is_chosen_by_its_column(tmp_path):
    path = written(tmp_path, "path,label,dataset\na.mp4,run,x\nb.mp4,walk,y\n")
    assert [clip.label for clip in read_manifest(path, "y")] == ["walk"]
    with pytest.raises(UsageError, match="has no row of dataset 'z'; it has x, y"):
        read_manifest(path, "z")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs rows under a header with the column path and label"),
        ("path,label\n", "needs rows"),
        ("path,class\na.mp4,run\n", "with the column label"),
        ("path,label\na.mp4,\n", "line 2 has no label"),
        ("path,label\n,run\n", "line 2 has no path"),
        ("path,label\na.mp4\n", "line 2 has no label"),
        ('path,label\n"a.mp4,run\n', "is not a manifest that can be read"),
    ],
)
def test_what_is_no_manifest_is_refused_with_the_reason(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        read_manifest(written(tmp_path, text))


def test_a_manifest_that_is_not_there_or_not_text_is_named(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path, written(tmp_path, "path,label\nä,b\n", "latin-1")):
        with pytest.raises(UsageError, match="is not a manifest that can be read"):
            read_manifest(path)
