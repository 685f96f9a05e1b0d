"""The pack: its schema, its names, its hash."""

import json
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ost.descriptors import pack as module
from ost.descriptors.names import readable
from ost.descriptors.pack import Pack, PackClass, load_pack, parse_pack, save_pack
from ost.descriptors.spec import shipped_pack
from ost.errors import PackError
from ost.names import fold

BIKE = {
    "name": "riding a bike",
    "label": "RideBike",
    "spatial": ["two wheels"],
    "temporal": ["pedals", "brakes"],
}
ROPE = {"name": "jumping rope", "spatial": ["a rope"], "temporal": ["a jump"]}


def a_pack(*classes, **fields):
    return {"schema": 1, "name": "mine", "classes": list(classes or (BIKE, ROPE)), **fields}


def written(tmp_path, data):
    path = tmp_path / "mine.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def without(field):
    data = a_pack()
    del data[field]
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "must be an object, is list"),
        (a_pack(schema=2), "schema is 2, this version reads 1"),
        (without("schema"), "schema is None"),
        (without("classes"), "classes must be a list"),
        (a_pack(classes={}), "classes must be a list"),
        (a_pack(classes=[]), "has no class"),
        (without("name"), "name must be a text that is not empty, is None"),
        (a_pack(name=7), "name must be a text that is not empty, is 7"),
        (a_pack(licence=["MIT"]), "licence must be a text"),
        (a_pack(provenance="me"), "provenance must be an object"),
        (a_pack(author="me", year=1), "unknown field 'author', 'year'; known are classes, licence"),
        (a_pack(BIKE, "jumping"), "class 1: must be an object, is str"),
        (a_pack(BIKE, {**ROPE, "extra": 1}), "class 1: unknown field 'extra'"),
        (a_pack(BIKE, {"spatial": ["a"]}), "class 1: name must be a text"),
        (a_pack({**BIKE, "name": "  "}), "class 0: name must be a text that is not empty"),
        (a_pack({**BIKE, "name": 5}), "class 0: name must be a text that is not empty, is 5"),
        (a_pack({**BIKE, "label": 5}), "class 0: label must be a text"),
        (a_pack({**BIKE, "label": ""}), "class 0: label must be a text that is not empty, is ''"),
        (a_pack({**BIKE, "spatial": "two wheels"}), "class 'riding a bike': spatial must be a list of texts"),
        (a_pack({**BIKE, "spatial": None}), "class 'riding a bike': spatial must be a list of texts"),
        (a_pack({**BIKE, "temporal": ["ok", 3]}), "class 'riding a bike': temporal[1] must be a text"),
        (a_pack({**BIKE, "temporal": ["ok", " "]}), "class 'riding a bike': temporal[1] must be a text"),
        (
            a_pack({**BIKE, "spatial": ["Wheel", "a", "wheel "]}),
            "'riding a bike': spatial holds 'wheel' twice",
        ),
        (
            a_pack(BIKE, ROPE, {**BIKE, "name": "Jumping_Rope"}),
            "class 'Jumping_Rope' twice (also as 'jumping rope')",
        ),
        (a_pack({**BIKE, "name": "..."}), "class without a name"),
        (a_pack(BIKE, {"name": "skiing"}), "class 'skiing' has no descriptors"),
        (a_pack({**BIKE, "spatial": [], "temporal": []}), "class 'riding a bike' has no descriptors"),
        (a_pack({**ROPE, "spatial": ["half \ud83d"]}), "class 'jumping rope': holds half a character"),
    ],
)
def test_a_schema_error_names_the_class_and_the_field(tmp_path, data, message):
    with pytest.raises(PackError) as raised:
        load_pack(written(tmp_path, data))
    assert message in str(raised.value)
    assert "mine" in str(raised.value)


def test_a_pack_is_read_as_it_was_written(tmp_path):
    made = Pack(
        "mine",
        (
            PackClass("riding a bike", ("ü 漢 {name}",), ("100 % 'quoted' \"twice\"",), "Ride"),
            PackClass("rope", temporal=("a jump",)),
        ),
        "CC0-1.0",
        {"model": "by hand", "nested": {"a": [1, None]}},
    )
    save_pack(made, tmp_path / "deep" / "pack.json")
    read = load_pack(tmp_path / "deep" / "pack.json")
    assert (read.name, read.classes, read.licence) == (made.name, made.classes, made.licence)
    assert read.provenance == {**made.provenance, "hash": made.hash}
    assert read.hash == made.hash
    save_pack(read, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "deep" / "pack.json").read_bytes()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.lists(
        st.tuples(TEXTS, st.lists(TEXTS, unique_by=lambda s: " ".join(s.casefold().split()))), max_size=4
    )
)
def test_any_text_survives_a_round_trip_through_json(classes):
    data = a_pack(
        *(
            {"name": f"class {i} {name}", "spatial": list(d), "temporal": ["a step"]}
            for i, (name, d) in enumerate(classes)
        )
    )
    made = parse_pack(data, "here")
    again = parse_pack(json.loads(json.dumps(a_pack(*(c.as_dict() for c in made.classes)))), "here")
    assert again.classes == made.classes
    assert again.hash == made.hash


def test_the_hash_changes_with_every_part_of_every_class_and_with_nothing_else():
    made = parse_pack(a_pack(), "here")
    variants = [
        a_pack(ROPE, BIKE),
        a_pack(BIKE),
        a_pack({**BIKE, "name": "Riding a bike"}, ROPE),
        a_pack({**BIKE, "label": "ridebike"}, ROPE),
        a_pack({k: v for k, v in BIKE.items() if k != "label"}, ROPE),
        a_pack({**BIKE, "spatial": ["two wheels."]}, ROPE),
        a_pack({**BIKE, "temporal": ["brakes", "pedals"]}, ROPE),
        a_pack({**BIKE, "temporal": ["pedals"]}, ROPE),
        a_pack({**BIKE, "spatial": ["two wheels", "pedals"], "temporal": ["brakes"]}, ROPE),
        a_pack(BIKE, {**ROPE, "spatial": ["a jump"], "temporal": ["a rope"]}),
    ]
    hashes = {parse_pack(data, "here").hash for data in variants}
    assert len(hashes | {made.hash}) == len(variants) + 1
    same = replace(made, name="other", licence="MIT", provenance={"by": "me"}, notices=("n",))
    assert same.hash == made.hash


def test_the_hash_is_this_one_for_ever():
    """Class heads and results on disk are named by it."""
    expected = "e68780884c8d5d0b9074581ac49d7bf5"
    assert parse_pack(a_pack(), "here").hash[:32] == expected


@pytest.mark.parametrize(
    "spelling",
    [
        "riding a bike",
        "Riding A Bike",
        "riding-a-bike",
        "RIDING_A_BIKE",
        "RidingABike",
        " riding  a bike. ",
        "ridebike",
    ],
)
def test_a_class_is_found_however_its_name_or_label_is_spelt(spelling):
    assert parse_pack(a_pack(), "here").find(spelling).name == "riding a bike"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße fegen", "STRASSE FEGEN"),
        ("café", unicodedata.normalize("NFD", "CAFÉ")),
        ("ＫＡＲＡＴＥ", "karate"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("don't walk", "dont walk"),
        ("rock–climbing", "rock climbing"),
    ],
)
def test_one_name_in_two_spellings_folds_to_one_key(one, other):
    assert fold(one) == fold(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("का", "की"),
        ("cafe", "café"),
        ("C++", "C"),
        ("👍", "👎"),
        ("走る", "歩く"),
        ("step 1", "step 2"),
        ("がく", "かく"),
    ],
)
def test_different_names_fold_to_different_keys(one, other):
    assert fold(one) != fold(other)
    assert len(Pack("both", (PackClass(one), PackClass(other)))) == 2


def test_a_name_wins_over_another_classs_label():
    both = Pack("p", (PackClass("walk", label="run"), PackClass("run", label="walk")))
    assert both.find("run").name == "run"
    assert both.find("WALK").name == "walk"
    assert both.find("swim") is None


def test_selecting_keeps_the_order_asked_for_and_names_what_is_missing():
    made = parse_pack(a_pack(BIKE, ROPE, {**ROPE, "name": "skiing"}, licence="MIT"), "here")
    chosen = made.select(["Skiing", "ride_bike"])
    assert chosen.names == ("skiing", "riding a bike")
    assert chosen.licence == "MIT"
    with pytest.raises(PackError, match="no class 'surfing', 'diving'; did you mean 'skiing'"):
        made.select(["skiing", "surfing", "diving"])
    with pytest.raises(PackError, match="'skiing' twice"):
        made.select(["skiing", "Skiing"])
    with pytest.raises(PackError, match="has no class"):
        made.select([])
    with pytest.raises(PackError, match="and 95 more"):
        made.select(map(str, range(100)))


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("ApplyEyeMakeup", "apply eye makeup"),
        ("brush_hair", "brush hair"),
        ("Walking_with_dog", "Walking with dog"),
        ("YoYo", "yo yo"),
        ("TVShow", "tv show"),
        ("throwing  axe", "throwing axe"),
        ("jumping", "jumping"),
        ("走る", "走る"),
    ],
)
def test_a_label_becomes_words(label, words):
    assert readable(label) == words


def test_hostile_files_end_in_a_sentence(tmp_path, monkeypatch):
    path = tmp_path / "hostile.json"
    cases = {
        b"": "is not JSON",
        b"{": "is not JSON",
        b"[" * 200_000 + b"]" * 200_000: "is not JSON",
        b'{"schema": ' * 100_000: "is not JSON",
        b"\x89PNG\r\n\x1a\n\x00\xff": "is not UTF-8 text",
        "größe".encode("latin-1"): "is not UTF-8 text",
        b"9" * 10_000: "is not JSON",
        b'{"schema": 1, "name": "a", "name": "b", "classes": []}': "the key 'name' stands twice",
        b'{"schema": NaN, "name": "a", "classes": []}': "schema is nan",
        b'"' + b"x" * 100_000 + b'"': "must be an object, is str",
    }
    for content, message in cases.items():
        path.write_bytes(content)
        with pytest.raises(PackError, match=message) as raised:
            load_pack(path)
        assert str(path) in str(raised.value)
        assert len(str(raised.value)) < len(str(path)) + 300
    with pytest.raises(PackError, match="cannot be read"):
        load_pack(tmp_path / "missing.json")
    with pytest.raises(PackError, match="cannot be read"):
        load_pack(tmp_path)
    with pytest.raises(PackError, match="cannot be read"):
        load_pack("a\0b.json")
    monkeypatch.setattr(module, "MAX_PACK_BYTES", 1 << 20)
    path.write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(PackError, match="larger than 1 MiB"):
        load_pack(path)


def test_an_endless_file_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(module, "MAX_PACK_BYTES", 1 << 20)
    with pytest.raises(PackError, match="larger than 1 MiB"):
        load_pack("/dev/zero")


def test_a_byte_order_mark_is_no_fault(tmp_path):
    path = tmp_path / "bom.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(a_pack()).encode())
    assert len(load_pack(path)) == 2


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = written(tmp_path, "old")
    with pytest.raises(TypeError):
        save_pack(Pack("p", (PackClass("a"),), provenance={"when": object()}), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_everyday_has_40_classes_with_4_and_4_descriptors_that_are_all_different():
    pack = shipped_pack("everyday")
    assert len(pack) == 40
    assert pack.licence
    for item in pack.classes:
        assert (len(item.spatial), len(item.temporal)) == (4, 4), item.name
    everything = [fold(d) for item in pack.classes for d in (*item.spatial, *item.temporal)]
    assert len(set(everything)) == len(everything) == 320


def test_no_spatial_descriptor_of_everyday_gives_the_class_away_or_is_too_long_for_clip():
    for item in shipped_pack("everyday").classes:
        for descriptor in item.spatial:
            assert item.name.casefold() not in descriptor.casefold()
        for descriptor in (*item.spatial, *item.temporal):
            assert 3 <= len(descriptor.split()) <= 25, descriptor
