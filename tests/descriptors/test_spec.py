"""Whatever may stand after --classes becomes a pack, or a sentence that says why not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ost.descriptors import pack as pack_module
from ost.descriptors.pack import Pack, PackClass, save_pack
from ost.descriptors.spec import import_authors, resolve, shipped, shipped_pack
from ost.errors import PackError

KNOWN = "riding a bike"


def written(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_a_comma_list_is_joined_with_the_shipped_packs_by_name():
    pack = resolve("Riding-A-Bike , juggling chainsaws,WALKING")
    assert pack.names == (KNOWN, "juggling chainsaws", "walking")
    assert pack.classes[0] == replace(shipped_pack("everyday").find(KNOWN), label="Riding-A-Bike")
    assert pack.labels == ("Riding-A-Bike", "juggling chainsaws", "WALKING")
    assert pack.classes[1] == PackClass("juggling chainsaws")
    assert pack.notices[0].startswith("1 of 3 classes are in no shipped pack")
    assert pack.notices[0].endswith(": juggling chainsaws")


def test_classes_that_are_all_known_give_no_notice():
    assert resolve([KNOWN, "walking"]).notices == ()


def test_many_unknown_classes_are_counted_and_not_all_listed():
    notice, *_ = resolve([f"unknown {i}" for i in range(500)]).notices
    assert notice.startswith("500 of 500")
    assert notice.endswith("unknown 4 and 495 more")


def test_an_unknown_label_is_made_readable_and_kept():
    first, second = resolve("JuggleChainsaws,plain words").classes
    assert (first.name, first.label) == ("juggle chainsaws", "JuggleChainsaws")
    assert (second.name, second.label) == ("plain words", None)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_text_file_has_a_class_a_line(tmp_path, ending, mark):
    text = mark + ending.join([KNOWN, "", "  cutting, then folding paper  ", "走る"])
    pack = resolve(written(tmp_path / "my classes.txt", text))
    assert pack.names == (KNOWN, "cutting, then folding paper", "走る")
    assert pack.name == "my classes"


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("header", ["id,name", "name,id", " ID , Name ,x"])
def test_a_csv_has_a_column_called_name(tmp_path, mark, header):
    rows = ["riding a bike", '"cutting, then ""folding"" paper"', '"two\u2028lines\nhere"', "walking"]
    place = [cell.strip().lower() for cell in header.split(",")].index("name")
    lines = [",".join([name, str(i)] if place == 0 else [str(i), name]) for i, name in enumerate(rows)]
    pack = resolve(str(written(tmp_path / "labels.csv", mark + "\r\n".join([header, *lines]) + "\r\n")))
    assert pack.names == (KNOWN, 'cutting, then "folding" paper', "two lines here", "walking")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "id,label\n0,walking\n", "needs rows under a header with a column called name"),
        ("a.csv", "", "needs rows under a header"),
        ("a.csv", "id,name\n", "needs rows under a header"),
        ("a.csv", "id;name\n0;walking\n", "needs rows under a header"),
        ("a.csv", "id,name\n0,walking\n1,\n", "row 1 has no class name"),
        ("a.csv", "id,name\n0,walking\n1\n", "row 1 has no class name"),
        ("a.csv", 'id,name\n0,"walking\n1,running\n', "is not a CSV"),
        ("a.csv", "id,name\n0," + "x" * 200_000, "is not a CSV"),
        ("a.csv", "id,name\n0,walking\n1,Walking\n", "class 'walking' twice"),
        ("a.txt", "\n \n", "has no class"),
        ("a.txt", "walking\nrunning\nwalking\n", "class 'walking' twice"),
        ("a.txt", "walking\n???\n", "class without a name"),
        ("a.json", "walking", "is not JSON"),
    ],
)
def test_a_malformed_file_is_named_with_its_fault(tmp_path, name, content, message):
    path = written(tmp_path / name, content)
    with pytest.raises(PackError, match=message) as raised:
        resolve(path)
    assert path.stem in str(raised.value)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.mp4", "a"])
def test_a_file_that_is_not_utf8_is_named(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\x00\x00\x00 ftypisom\xff\xfe")
    with pytest.raises(PackError, match="is not UTF-8 text"):
        resolve(path)


def test_a_huge_list_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pack_module, "MAX_PACK_BYTES", 1000)
    with pytest.raises(PackError, match="larger than"):
        resolve(written(tmp_path / "a.txt", "walking\n" * 1000))


def test_a_pack_file_a_pack_and_a_shipped_name_stand_for_themselves(tmp_path):
    mine = Pack("mine", (PackClass("walking", ("my own",), ("words",)),))
    save_pack(mine, tmp_path / "mine.JSON")
    assert resolve(mine) is mine
    for spec in (tmp_path / "mine.JSON", str(tmp_path / "mine.JSON")):
        assert resolve(spec).classes == mine.classes
    assert resolve("everyday") is shipped_pack("everyday")
    assert "everyday" in shipped()


def test_a_list_of_one_class_is_enough():
    assert resolve(["walking"]).names == ("walking",)
    assert resolve(("juggling chainsaws",)).names == ("juggling chainsaws",)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("everyday.json", "everyday.json: there is no such file"),
        (Path("no/such/list"), "no/such/list: there is no such file"),
        (Path("everyday"), "everyday: there is no such file"),
        ("everydya", "'everydya' is neither a shipped pack nor a file; did you mean 'everyday'"),
        ("hmdb", "did you mean 'hmdb51'"),
        ("pouring", "'pouring' is neither a shipped pack .* nor a file; give at least two"),
        ("golf;pour", "are separated by commas, as in 'golf, pour'"),
        ("golf | pour", "are separated by commas, as in 'golf, pour'"),
        ("", "is neither a shipped pack"),
        ("a,,b", "class without a name"),
        ("walking,running,Walking", "class 'walking' twice"),
        ([], "has no class"),
        ([""], "class without a name"),
        (["walking", None], "class 1 of the list must be a text, is None"),
        (["walking", 5], "class 1 of the list must be a text, is 5"),
        (b"walking,running", "class 0 of the list must be a text, is 119"),
        (["RidingABike", "riding_a_bike"], "class 'riding a bike' twice"),
        (["walking", "bad \udcff name"], "holds half a character"),
    ],
)
def test_what_is_no_list_of_classes_is_refused_with_the_reason(spec, message):
    with pytest.raises(PackError, match=message):
        resolve(spec)


def test_a_comma_list_longer_than_any_file_name_is_a_list():
    assert len(resolve(",".join(f"class {i}" for i in range(3000)))) == 3000


def test_a_nul_in_a_list_is_no_file_name():
    assert len(resolve("walk\0ing,running")) == 2


def test_an_unknown_shipped_pack_is_answered_with_a_near_one():
    with pytest.raises(PackError, match="no pack called 'everydays'; did you mean 'everyday'"):
        shipped_pack("everydays")


def authors(
    tmp_path, spatial=None, temporal=None, labels='id,name\n0,brush_hair\n1,cartwheel\n2,"pour, slowly"\n'
):
    full = {str(i): [f"sight {i}.{n}" for n in range(4)] for i in range(3)}
    for name, entries in (("spatial", spatial), ("temporal", temporal)):
        text = entries if isinstance(entries, str) else json.dumps(full if entries is None else entries)
        written(tmp_path / f"{name}.json", text)
    written(tmp_path / "labels.csv", labels)
    return import_authors(
        tmp_path / "spatial.json", tmp_path / "temporal.json", tmp_path / "labels.csv", "hmdb"
    )


def test_the_authors_files_become_a_pack(tmp_path):
    unordered = {k: [f"step {k}"] for k in ("2", "0", "1")}
    pack = authors(tmp_path, temporal=unordered)
    assert pack.name == "hmdb"
    assert pack.classes == (
        PackClass("brush hair", tuple(f"sight 0.{n}" for n in range(4)), ("step 0",), "brush_hair"),
        PackClass("cartwheel", tuple(f"sight 1.{n}" for n in range(4)), ("step 1",)),
        PackClass("pour, slowly", tuple(f"sight 2.{n}" for n in range(4)), ("step 2",)),
    )


ROWS = {str(i): [f"d{i}"] for i in range(4)}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"spatial": {"0": ["a"], "2": ["c"]}}, "spatial.json: has no entry for row 1 of the 3 labels"),
        ({"temporal": {"0": ["a"], "1": ["b"]}}, "temporal.json: has no entry for row 2 of the 3 labels"),
        ({"temporal": ROWS}, "temporal.json: has an entry '3' for which the labels have no row"),
        ({"spatial": {"zero": ["a"], **{k: ROWS[k] for k in "012"}}}, "an entry 'zero'"),
        ({"spatial": [["a"], ["b"], ["c"]]}, "spatial.json: must be an object with the keys 0 to 2"),
        ({"spatial": '{"0": ["a"], "1": ["b"], "2": ["c"], "1": ["d"]}'}, "the key '1' stands twice"),
        ({"temporal": "[" * 100_000}, "temporal.json: is not JSON"),
        ({"spatial": {"0": ["a"], "1": "b", "2": ["c"]}}, "class 'cartwheel': spatial must be a list"),
        ({"spatial": {"0": ["a"], "1": [1], "2": ["c"]}}, r"class 'cartwheel': spatial\[0\] must be a text"),
        ({"labels": "id,name\n0,brush_hair\n1,cartwheel\n"}, "an entry '2' for which the labels have no row"),
        (
            {"labels": "id,name\n0,brush_hair\n2,pour\n1,cartwheel\n"},
            r"row 1 \('pour'\) has the id '2', not 1",
        ),
        ({"labels": "id,name\n0,brush_hair\n1,brush hair\n2,pour\n"}, "class 'brush hair' twice"),
    ],
)
def test_rows_that_do_not_fit_are_an_error_and_never_cut(tmp_path, files, message):
    with pytest.raises(PackError, match=message):
        authors(tmp_path, **files)
