"""A list of videos is told by its content, read whole, or refused with the line that is wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ost.datasets.lists import Entry, numbered, read_list
from ost.errors import UsageError

NAMES = ("brush hair", "HandstandPushups", "run")


@pytest.fixture
def listed(tmp_path):
    def read(text, names=NAMES, name="list.txt", **more):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_list(path, names, **more)

    return read


def test_the_path_of_a_numbered_line_may_hold_spaces_and_the_label_is_by_number(listed):
    assert listed("a b 12.avi 2\r\n\n  x/-_y.mp4\t0 \n") == [
        Entry("a b 12.avi", ("run",), None),
        Entry("x/-_y.mp4", ("brush hair",), None),
    ]


def test_a_video_may_have_several_labels(listed):
    assert listed("a.mp4 2 0\n") == [Entry("a.mp4", ("run", "brush hair"), None)]


def test_a_folder_of_frames_has_their_number_before_its_labels(listed):
    assert listed("4k-F7EXpcrM_0 12 1\nother 2\nd.x 7 2 0\n") == [
        Entry("4k-F7EXpcrM_0", ("HandstandPushups",), 12),
        Entry("other", ("run",), None),
        Entry("d.x", ("run", "brush hair"), 7),
    ]


words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8)


@given(st.lists(st.tuples(st.lists(words, min_size=1, max_size=3), st.integers(0, 2)), min_size=1))
def test_a_written_list_is_read_again(rows):
    text = "".join(f"{' '.join(parts)}.avi {row}\n" for parts, row in rows)
    entries = list(numbered(text, "list", NAMES))
    assert entries == [Entry(f"{' '.join(parts)}.avi", (NAMES[row],), None) for parts, row in rows]


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_one_sentence(text):
    try:
        entries = list(numbered(text, "list", NAMES))
    except UsageError as error:
        assert "list: line " in str(error)
    else:
        assert all(entry.video and entry.labels for entry in entries)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4 0\nb.mp4\n", r"list\.txt: line 2 is not a path and the number of a class: 'b.mp4'"),
        ("a.mp4 0\n\n12\n", "line 3 is not a path"),
        ("a.mp4 -1\n", "line 1 is not a path"),
        ("a.mp4 1.0\n", "line 1 is not a path"),
        ("a.mp4 ²\n", "line 1 is not a path"),
        (f"a.mp4 {'9' * 5000}\n", "line 1 is longer than 4096 characters"),
        ("a.mp4 9999999999\n", "line 1 is not a path"),
        ("a.mp4 2\nb.mp4 3\n", "line 2 has class 3, but the 3 classes are 0 to 2"),
        ("\n \n", "lists no video"),
        ("", "lists no video"),
        (b"\xff\xfe\x00", "is not a list that can be read"),
    ],
)
def test_a_malformed_line_is_named(listed, text, message):
    with pytest.raises(UsageError, match=message):
        listed(text)


def test_numbers_without_names_are_refused_and_what_to_do_is_said(listed):
    with pytest.raises(UsageError, match="no names for them; use a recipe of its benchmark, or a CSV"):
        listed("a.mp4 0\n", None)
    with pytest.raises(UsageError, match="line 1 is not a path"):
        listed("some text\n", None)


def test_what_is_not_there_or_too_large_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"none\.txt: is not a list that can be read"):
        read_list(tmp_path / "none.txt", NAMES)
    monkeypatch.setattr("ost.datasets.lists.MAX_LIST_BYTES", 3)
    (tmp_path / "large.txt").write_text("a.mp4 0\n")
    with pytest.raises(UsageError, match="which no list of videos is"):
        read_list(tmp_path / "large.txt", NAMES)


HEADER = "label,youtube_id,time_start,time_end,split\n"


def test_a_csv_of_kinetics_gives_the_names_that_its_files_have(listed):
    text = HEADER + '"dancing, ""wild""",-_.bcdefghi,8,18,train\nrun,abcdefghijk,123,133,val\n'
    assert listed(text, None, "train.csv") == [
        Entry("-_.bcdefghi_000008_000018.mp4", ('dancing, "wild"',), None),
        Entry("abcdefghijk_000123_000133.mp4", ("run",), None),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("youtube_id,time_start,time_end,split\nx,1,2,test\n", "line 1, the header, lacks the column label"),
        (HEADER + "run,x,1,2,val\nrun,x,1.5,2,val\n", "line 3 has no label, no youtube_id, or times"),
        (HEADER + ",x,1,2,val\n", "line 2 has no label"),
        (HEADER + "run\n", "line 2 has no label"),
        (HEADER + "swim,x,1,2,val\n", "line 2 has the class 'swim', which is not one of the 3"),
        (HEADER + '"run,x,1,2,val\n', "is not CSV"),
    ],
)
def test_a_malformed_row_of_kinetics_is_named(listed, text, message):
    with pytest.raises(UsageError, match=message):
        listed(text)


def test_a_list_of_something_something_has_its_templates_without_brackets_as_labels(listed):
    items = [
        {
            "id": "74225",
            "label": "holding a cup",
            "template": "Holding [something]",
            "placeholders": ["a cup"],
        },
        {"id": "1", "template": "Putting [something that can't roll], so it stays"},
    ]
    for name in ("train.json", "list.txt"):
        assert listed(json.dumps(items, indent=1), None, name) == [
            Entry("74225.webm", ("Holding something",), None),
            Entry("1.webm", ("Putting something that can't roll, so it stays",), None),
        ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n{"id": "1", "template": "run"},\n{"id": 2}]', "video 2 of the list has no id or no template"),
        ('[{"id": "1"}]', "video 1 of the list has no id or no template"),
        ("[1]", "video 1 of the list has no id"),
        ('[\n{"id": \n', r"list\.json: line 3 is not JSON"),
        ('{"id": "1"}', "is not a JSON list of videos"),
        ('[{"id": ' + "9" * 5000 + "}]", "is not JSON that can be read"),
        ("[" * 100_000, "is not JSON that can be read"),
        ('[{"id": "1", "template": "swim"}]', "video 1 of the list has the class 'swim'"),
        ("[]", "lists no video"),
    ],
)
def test_a_malformed_list_of_something_something_is_refused(listed, text, message):
    with pytest.raises(UsageError, match=message):
        listed(text, NAMES, "list.json")


def test_the_lists_of_ucf_take_the_class_from_the_folder_and_leave_their_numbers_from_1_alone(listed):
    text = "HandstandPushups/v_HandStandPushups_g01_c01.avi 1\r\nRun/v_Run_g08_c02.avi 2\r\n"
    assert listed(text) == [
        Entry("HandstandPushups/v_HandStandPushups_g01_c01.avi", ("HandstandPushups",), None),
        Entry("Run/v_Run_g08_c02.avi", ("run",), None),
    ]
    assert listed("Run/v_Run_g08_c02.avi\n", None) == [Entry("Run/v_Run_g08_c02.avi", ("Run",), None)]
    with pytest.raises(UsageError, match=r"line 2 is not Class/v_Class_g01_c01\.avi: 'x\.avi 1'"):
        listed("Run/v_Run_g08_c02.avi 1\nx.avi 1\n")


def test_a_flat_list_of_ucf_is_numbered_from_0(listed):
    assert listed("v_Run_g08_c02.avi 2\n") == [Entry("v_Run_g08_c02.avi", ("run",), None)]


@pytest.fixture
def hmdb(tmp_path):
    for name, text in {
        "brush_hair_test_split1.txt": "a_brush_hair_0.avi 1 \nb (x)_brush_hair_1.avi 2 \nc_0.avi 0 \n",
        "run_test_split1.txt": "a_run_0.avi 2 \n",
        "run_test_split2.txt": "a_run_0.avi 1 \n",
        "README": "",
    }.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_one_file_of_hmdb_stands_for_all_of_its_split(hmdb):
    one = hmdb / "run_test_split1.txt"
    assert read_list(one, NAMES, "train") == [Entry("a_brush_hair_0.avi", ("brush hair",), None)]
    assert read_list(one, None, "test") == [
        Entry("b (x)_brush_hair_1.avi", ("brush hair",), None),
        Entry("a_run_0.avi", ("run",), None),
    ]


def test_a_list_of_hmdb_is_refused_without_a_part_or_with_a_wrong_mark(hmdb):
    with pytest.raises(UsageError, match="say which, train or test"):
        read_list(hmdb / "run_test_split1.txt", NAMES)
    (hmdb / "run_test_split1.txt").write_text("a.avi 1\nb.avi 3\n")
    with pytest.raises(UsageError, match=r"run_test_split1\.txt: line 2 is not a file name and 0, 1 or 2"):
        read_list(hmdb / "run_test_split1.txt", NAMES, "train")
    with pytest.raises(UsageError, match="none: is not a folder that can be read"):
        read_list(hmdb / "none" / "run_test_split1.txt", NAMES, "train")


def test_a_label_that_could_be_two_names_is_refused(listed):
    with pytest.raises(UsageError, match="has the class 'a b'"):
        listed(HEADER + "a b,x,1,2,val\n", ("A_b", "a-B"))
