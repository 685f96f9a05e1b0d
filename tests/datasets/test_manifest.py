"""A list of labelled videos is read whole, or refused with its fault."""

import csv
import io
import shutil
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ost.datasets.manifest import MAX_ROWS, LabelledVideo, is_manifest, manifest_text, read_manifest
from ost.descriptors.spec import resolve
from ost.errors import UsageError
from ost.evaluate.protocols import own_lists
from ost.recipes import Sources, prepare
from ost.sources import own_videos


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "clips.csv"
    path.write_bytes(text.encode(encoding))
    return path


def stored(tmp_path, columns, name="clips.parquet", **options):
    path = tmp_path / name
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options)
    return path


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_paths_are_relative_to_the_manifest_and_may_hold_anything(tmp_path, mark):
    path = written(tmp_path, mark + 'label,path,more\nrun,"a b, ""c"".mp4",1\n走る,ü/x.avi,2\n')
    assert read_manifest(path) == [
        LabelledVideo(tmp_path / 'a b, "c".mp4', "run"),
        LabelledVideo(tmp_path / "ü" / "x.avi", "走る"),
    ]


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=9)
PATHS = TEXTS.filter(lambda text: not text.isspace())
LABELS = st.lists(TEXTS | st.sampled_from(['a, "b"', "a|b", " a", "\ufeff", "a\r\nb", "\r"]), min_size=1)
VIDEOS = st.dictionaries(PATHS, LABELS, min_size=1, max_size=6)
QUICK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@QUICK
@given(VIDEOS, st.integers(1, 4), st.booleans(), st.sampled_from([pa.string(), pa.large_string()]))
def test_csv_and_parquet_hold_the_same_videos(tmp_path, videos, group, dictionary, kind):
    expected = {}
    for path, labels in videos.items():
        expected.setdefault(tmp_path / path, []).extend(labels)
    clips = [LabelledVideo(path, own[0], tuple(dict.fromkeys(own))[1:]) for path, own in expected.items()]
    rows = [(path, label) for path, labels in videos.items() for label in labels]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("path", "label"), *rows])
    assert read_manifest(written(tmp_path, "\ufeff" + text.getvalue())) == clips
    assert read_manifest(written(tmp_path, manifest_text(clips))) == clips
    options = {"row_group_size": group, "use_dictionary": dictionary}
    table = {
        name: pa.array(column, kind)
        for name, column in zip(("path", "label"), zip(*rows, strict=True), strict=True)
    }
    assert read_manifest(stored(tmp_path, table, **options)) == clips
    table = {"path": pa.array(videos, kind), "labels": pa.array(videos.values(), pa.list_(kind))}
    assert read_manifest(stored(tmp_path, table, **options)) == clips


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("path,label\na.mp4,run\na.mp4,walk\n./a.mp4,run\n", ["run", "walk"]),
        ("path,label\na.mp4,run|walk\n", ["run|walk"]),
        ("path,labels\na.mp4,run|walk | run\n", ["run", "walk"]),
        ("path,labels\na.mp4,walk\na.mp4,run|walk\n", ["walk", "run"]),
        ("path,labels,label\na.mp4,walk|run,run\n", ["run", "walk"]),
        ("path,labels,label\na.mp4,,run\na.mp4,walk,\n", ["run", "walk"]),
    ],
)
def test_a_video_has_the_labels_of_all_its_rows(tmp_path, text, labels):
    clips = [LabelledVideo(tmp_path / "a.mp4", labels[0], tuple(labels[1:]))]
    path = written(tmp_path, text)
    assert is_manifest(path)
    assert read_manifest(path) == clips
    assert read_manifest(written(tmp_path, manifest_text(clips))) == clips


def test_videos_are_in_the_order_of_their_first_rows(tmp_path):
    path = written(tmp_path, "path,label\nb.mp4,run\na.mp4,run\nb.mp4,walk\n")
    assert read_manifest(path) == [
        LabelledVideo(tmp_path / "b.mp4", "run", ("walk",)),
        LabelledVideo(tmp_path / "a.mp4", "run"),
    ]


def test_a_dataset_is_chosen_by_its_column(tmp_path):
    path = written(tmp_path, "path,label,dataset\na.mp4,run,x\nb.mp4,walk,y\na.mp4,swim,y\nc.mp4,,z\n")
    columns = {"path": ["a", "b", "a"], "label": ["run", "walk", "swim"], "dataset": ["x", "y", "y"]}
    for place in (path, stored(tmp_path, columns)):
        clips = read_manifest(place, "y")
        assert [(clip.label, clip.others) for clip in clips] == [("walk", ()), ("swim", ())]
        with pytest.raises(UsageError, match="has no row of dataset 'n'; it has x, y"):
            read_manifest(place, "n")
    path = stored(tmp_path, {"path": ["a"], "label": ["run"], "dataset": pa.array([None], pa.string())})
    with pytest.raises(UsageError, match="has no row of dataset 'n'; it has none"):
        read_manifest(path, "n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs rows under a header with the column path and label"),
        ("path,label\n", "needs rows"),
        ("path,class\na.mp4,run\n", "with the column label"),
        ("labels\nrun\n", "with the column path$"),
        ("path,label\na.mp4,\n", "line 2 has no label"),
        ("path,label\n,run\n", "line 2 has no path"),
        ("path,label\na.mp4\n", "line 2 has no label"),
        ('path,label\n"a\n.mp4",run\n\nb.mp4,\n', "line 5 has no label"),
        ("path,labels\na.mp4, \n", "line 2 has no label"),
        ("path,labels\na.mp4,run||walk\n", "line 2 has an empty label among its labels"),
        ("path,labels\na.mp4,run|\n", "line 2 has an empty label among its labels"),
        ("path,label\na\0.mp4,run\n", r"line 2 has a character 0 in its path, .*'a\\x00.mp4'"),
        ('path,label\n"a.mp4,run\n', "is not a manifest that can be read"),
    ],
)
def test_what_is_no_manifest_is_refused_with_the_reason(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        read_manifest(written(tmp_path, text))


def test_a_manifest_that_is_not_there_or_not_text_is_named(tmp_path):
    (tmp_path / "parts.parquet").mkdir()
    latin = written(tmp_path, "path,label\nä,b\n", "latin-1")
    for path in (
        tmp_path / "none.csv",
        tmp_path / "none.parquet",
        tmp_path,
        tmp_path / "parts.parquet",
        latin,
    ):
        with pytest.raises(UsageError, match="is not a manifest that can be read"):
            read_manifest(path)


KINDS = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int64(), pa.large_string()),
]
LISTS = [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 2), pa.list_view, pa.large_list_view]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("several", LISTS, ids=["list", "large", "fixed", "view", "large view"])
def test_texts_of_parquet_may_be_stored_in_any_way(tmp_path, kind, several):
    labels = pa.array([["run", "walk"], ["swim", "run"]], several(pa.string()))
    columns = {"path": pa.array(["a", "b"]).cast(kind), "labels": labels, "more": [{"x": 1}] * 2}
    path = stored(tmp_path, columns, "clips.list")
    expected = [
        LabelledVideo(tmp_path / "a", "run", ("walk",)),
        LabelledVideo(tmp_path / "b", "swim", ("run",)),
    ]
    assert is_manifest(path)
    assert read_manifest(path) == expected
    columns["label"] = pa.array(["walk", None]).cast(kind)
    expected[0] = LabelledVideo(tmp_path / "a", "walk", ("run",))
    assert read_manifest(stored(tmp_path, columns)) == expected


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_lists_of_parquet_may_hold_any_texts(tmp_path, kind):
    values = pa.array(["run", "walk", "swim"]).cast(kind)
    labels = pa.ListArray.from_arrays(pa.array([0, 2, 3], pa.int32()), values)
    path = stored(tmp_path, {"path": ["a", "b"], "labels": labels})
    assert [(clip.label, clip.others) for clip in read_manifest(path)] == [("run", ("walk",)), ("swim", ())]


@pytest.mark.parametrize("schema", [True, False])
@pytest.mark.parametrize("page", [1 << 10, 1 << 20])
def test_lists_of_texts_are_read_across_all_parts_of_a_parquet(tmp_path, schema, page):
    count = 20_000
    labels = [[f"a long label {i % 3000}" * 3, "run"][: 1 + i % 2] for i in range(count)]
    several = pa.array(labels, pa.list_(pa.dictionary(pa.int32(), pa.string())))
    columns = {"path": [f"{i}.mp4" for i in range(count)], "labels": several}
    options = {"store_schema": schema, "dictionary_pagesize_limit": page}
    clips = read_manifest(stored(tmp_path, columns, row_group_size=7000, **options))
    assert [(clip.label, *clip.others) for clip in clips] == list(map(tuple, labels))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["a"]}, "needs rows with the column label"),
        ({"video": ["a"]}, "needs rows with the column path and label"),
        ({}, "needs rows with the column path and label"),
        ({"path": pa.array([], pa.string()), "label": pa.array([], pa.string())}, "has no rows"),
        ({"path": ["a", None], "label": ["run", "run"]}, "row 2 has no path"),
        ({"path": ["a", ""], "label": ["run", "run"]}, "row 2 has no path"),
        ({"path": ["a", "b"], "label": ["run", None]}, "row 2 has no label"),
        ({"path": ["a", "b"], "labels": [["run"], []]}, "row 2 has no label"),
        ({"path": ["a", "b"], "labels": [["run"], None]}, "row 2 has no label"),
        ({"path": ["a"], "labels": [["run", None]]}, "row 1 has an empty label among"),
        ({"path": ["a"], "labels": [["run", ""]]}, "row 1 has an empty label among"),
        ({"path": ["a\0b"], "label": ["run"]}, "row 1 has a character 0 in its path"),
        ({"path": ["a"], "label": [1]}, "its column label is int64, and has to be a string"),
        ({"path": ["a"], "label": [["run"]]}, "its column label is list<.*, and has to be a string"),
        (
            {"path": ["a"], "labels": ["run|walk"]},
            "its column labels is string, and has to be a list of strings",
        ),
        ({"path": ["a"], "labels": [[1]]}, "its column labels is list<.*, and has to be a list of strings"),
        ({"path": [None], "label": ["run"]}, "its column path is null, and has to be a string"),
        ({"path": [b"a"], "label": ["run"]}, "its column path is binary"),
        ({"path": [{"x": "a"}], "label": ["run"]}, "its column path is struct<x: string>"),
        (
            {"path": pa.array([b"\xff"]).cast(pa.binary()).view(pa.string()), "label": ["run"]},
            "is not a Parquet file that can be read .*utf-8",
        ),
    ],
)
def test_parquet_that_is_no_manifest_is_refused_with_the_reason(tmp_path, columns, message):
    path = stored(tmp_path, columns)
    with pytest.raises(UsageError, match=message) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    table = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["path", "path", "label"])
    with pytest.raises(UsageError, match="has 2 columns called path; leave one of them"):
        read_manifest(stored(tmp_path, table))


def test_a_dot_in_the_name_of_another_column_means_nothing(tmp_path):
    path = stored(tmp_path, {"path.x": [1], "path": ["a"], "label": ["run"], "label.y": ["z"]})
    assert read_manifest(path) == [LabelledVideo(tmp_path / "a", "run")]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1PAR1", b"path,label\na,b\n", b"PAR1\0\0\0\0PAR1"])
def test_what_is_parquet_by_name_alone_is_refused(tmp_path, content):
    path = tmp_path / "clips.parquet"
    path.write_bytes(content)
    assert is_manifest(path)
    with pytest.raises(UsageError, match=r"clips\.parquet: is not a Parquet file that can be read \("):
        read_manifest(path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The bytes of Parquet manifests, stored in several ways."""
    columns = {"path": [f"{i}.mp4" for i in range(40)], "label": ["run", "walk"] * 20}
    columns |= {"labels": [["run", "swim"], []] * 20, "more": range(40)}
    ways = [{"compression": "zstd"}, {"compression": "none"}, {"use_dictionary": False}]
    folder = tmp_path_factory.mktemp("sound")
    return [stored(folder, columns, row_group_size=16, **way).read_bytes() for way in ways]


@QUICK
@given(data=st.data())
def test_a_damaged_parquet_is_read_or_refused_in_one_sentence(tmp_path, sound, data):
    content = bytearray(data.draw(st.sampled_from(sound)))
    places = st.integers(0, len(content) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=5)):
        content[place] = value
    path = tmp_path / "clips.parquet"
    path.write_bytes(content[: data.draw(st.just(len(content)) | places)])
    try:
        assert read_manifest(path)
    except UsageError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


@pytest.mark.parametrize("schema", [True, False])
@pytest.mark.parametrize("column", ["path", "labels"])
def test_a_text_that_unfolds_beyond_all_bounds_is_refused_before_it_does(tmp_path, column, schema):
    rows = 3000
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), ["x" * 1_000_000])
    short = pa.array(["a"] * rows)
    columns = {"path": long, "label": short}
    if column == "labels":
        offsets = pa.array(np.arange(rows + 1, dtype=np.int32))
        columns = {"path": short, "labels": pa.ListArray.from_arrays(offsets, long)}
    path = stored(tmp_path, columns, store_schema=schema)
    assert path.stat().st_size < 1 << 20
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(UsageError, match=r"clips\.parquet: holds more than .* 1 GiB of text"):
        read_manifest(path)
    assert pa.default_memory_pool().max_memory() <= max(before, 1 << 26)


def test_more_rows_than_a_manifest_has_are_refused_unread(tmp_path):
    same = pa.DictionaryArray.from_arrays(pa.array(np.zeros(MAX_ROWS + 1, np.int8)), ["a"])
    with pytest.raises(UsageError, match="holds more than 16,777,216 rows"):
        read_manifest(stored(tmp_path, {"path": same, "label": same}))


@pytest.mark.parametrize("name", ["clips.csv", "clips.parquet"])
def test_a_file_larger_than_a_manifest_is_refused_unread(tmp_path, name):
    with (tmp_path / name).open("wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(UsageError, match=r"clips\..*: larger than 1 GiB, which no manifest is"):
        read_manifest(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "kinetics.csv",
            "label,youtube_id,time_start,time_end,split,is_cc\narchery,---QUuC4vJs,10,20,train,0\n",
        ),
        ("something.json", '[{"id": "1", "label": "pushing x", "template": "Pushing [something]"}]'),
        ("something.json", '[{"path": "1", "label": "x"}, "path", "label"]'),
        ("numbered.txt", "path/label.mp4 0\nb.mp4 1\n"),
        ("numbered.txt", "PAR1/a.mp4 0\nb.mp4 1\n"),
        ("frames.txt", "path,label 30 0\n"),
        ("trainlist01.txt", "Archery/v_Archery_g01_c01.avi 1\n"),
        ("path_test_split1.txt", "label.avi 1\n"),
        ("names.csv", "id,name\n0,run\n"),
        ("other.csv", "path,class\na.mp4,run\n"),
        ("empty.csv", ""),
    ],
)
def test_a_list_in_another_form_is_not_taken_for_a_manifest(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert not is_manifest(tmp_path / name)
    assert not is_manifest(tmp_path / "none.csv") and not is_manifest(tmp_path)


@pytest.fixture
def own(tmp_path, tiny_videos):
    """A folder with a video, one in an archive, and one as a folder of frames."""
    from PIL import Image

    home = tmp_path / "own"
    (home / "frames" / "a").mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (48, 40), (70 * i, 80, 120)).save(home / "frames" / "a" / f"{i}.jpg")
    with tarfile.open(home / "clips.tar", "w") as out:
        out.add(tiny_videos[1], "a.mp4")
    shutil.copy(tiny_videos[0], home / "x.mp4")
    return home


NAMES = ["run", "walk", "swim"]
ROWS = [
    ("x.mp4", "run"),
    ("clips.tar/a.mp4", "walk"),
    ("frames/a", "swim"),
    ("x.mp4", "run"),
    ("frames/a", "run"),
]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_video_that_is_listed_twice_is_one_video_wherever_it_lies(own, form, tiny):
    path = own / f"list.{form}"
    if form == "csv":
        path.write_text("".join(f"{video},{label}\n" for video, label in [("path", "label"), *ROWS]))
    else:
        stored(own, dict(zip(("path", "label"), zip(*ROWS, strict=True), strict=True)), path.name)
    clips = [
        LabelledVideo(own / "x.mp4", "run"),
        LabelledVideo(own / "clips.tar" / "a.mp4", "walk"),
        LabelledVideo(own / "frames" / "a", "swim", ("run",)),
    ]
    assert own_videos(None, path).videos == clips
    (video_list,) = own_lists(None, path)
    assert video_list.pack.names == ("run", "swim", "walk") and video_list.videos == clips
    _, task = prepare("few-shot", Sources(manifest=path), {})
    assert task.clips.paths == tuple(str(clip.path) for clip in clips)
    for found in checked(tiny, path, only_labelled=False):
        assert found.paths == task.clips.paths and not found.unreadable
        assert found.truth.sum(1).tolist() == [1, 1, 2]


def test_only_labelled_classes_are_those_of_all_labels(own, tiny):
    (own / "list.csv").write_text("path,labels\nx.mp4,run|walk\nclips.tar/a.mp4,swim\n")
    for found in checked(tiny, own / "list.csv", only_labelled=True):
        assert found.names == ("run", "walk", "swim")
        assert found.truth.tolist() == [[True, True, False], [False, False, True]]


def checked(weights, path, only_labelled):
    """What `ost packs check` counts on clips, in each way."""
    from ost.backbones.load import load_backbone
    from ost.cli.packs import _score

    backbone, pack = load_backbone(None, weights, device="cpu", dtype="fp32"), resolve(["fly", *NAMES])
    return _score(backbone, pack, path, None, only_labelled, 2).values()
