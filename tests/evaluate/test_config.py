"""Settings of an evaluation: kept whole, readable from anywhere, refused by name."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ost.errors import UsageError
from ost.evaluate.config import EvaluateConfig, parse_config
from ost.types import BOTH

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
optional_texts = st.none() | texts
shares = st.floats(0, 1)
paths = st.none() | st.sampled_from(["videos", "/videos/hmdb51", "über/a b,c", "../list.csv"]).map(Path)
FIELDS = {
    "protocol": texts,
    "videos": paths,
    "manifest": paths,
    "classes": texts,
    "backbone": optional_texts,
    "weights": optional_texts,
    "blend": st.none() | shares,
    "blend_with": optional_texts,
    "frames": st.integers(1, 10**6),
    "clips": st.integers(1, 100),
    "crops": st.sampled_from([1, 3, 5, 10]),
    "sampling": st.sampled_from(["uniform", "keyframes"]),
    "min_decoded": shares,
    "match": st.sampled_from(["ot", "mean"]),
    "texts": st.sampled_from(["spatial", "temporal", "both"]),
    "eps": st.floats(0, exclude_min=True, allow_nan=False),
    "ablate": st.booleans(),
    "vanilla": st.booleans(),
    "device": texts,
    "dtype": texts,
}


def test_every_setting_is_tried_below():
    assert set(FIELDS) == set(EvaluateConfig.model_fields)


@given(st.fixed_dictionaries(FIELDS))
@settings(max_examples=200, deadline=None)
def test_every_setting_survives_being_kept(values):
    config = EvaluateConfig(**values)
    kept = json.loads(json.dumps(config.model_dump(mode="json")))
    assert parse_config(kept, "run.json") == config
    assert {key: getattr(config, key) for key in values} == values


def test_infinite_eps_survives_being_kept():
    kept = json.loads(json.dumps(EvaluateConfig(eps=math.inf).model_dump(mode="json")))
    assert parse_config(kept, "run.json").settings.eps == math.inf


@given(st.fixed_dictionaries(FIELDS))
@settings(max_examples=50, deadline=None)
def test_settings_are_those_that_were_asked_for(values):
    found = EvaluateConfig(**values).settings
    same = ("frames", "clips", "crops", "sampling", "min_decoded", "match", "eps")
    assert {key: getattr(found, key) for key in same} == {key: values[key] for key in same}
    assert set(found.kinds) == set(BOTH if values["texts"] == "both" else [values["texts"]])


def test_paths_that_are_there_hold_anywhere(tmp_path, monkeypatch):
    here, elsewhere = tmp_path / "here", tmp_path / "else"
    (here / "clips").mkdir(parents=True)
    elsewhere.mkdir()
    for name in ("list.csv", "own.json", "tuned.pt", "base.pt"):
        (here / name).touch()
    monkeypatch.chdir(here)
    config = EvaluateConfig(
        videos=Path("clips"),
        manifest=Path("list.csv"),
        classes="own.json",
        weights="tuned.pt",
        blend_with="base.pt",
    )
    moved = config.anywhere()
    assert moved.videos == here / "clips" and moved.manifest == here / "list.csv"
    assert moved.classes == str(here / "own.json")
    assert (moved.weights, moved.blend_with) == (str(here / "tuned.pt"), str(here / "base.pt"))
    monkeypatch.chdir(elsewhere)
    assert moved.anywhere() == moved == parse_config(moved.model_dump(mode="json"), "run.json")
    assert config.anywhere() == config, "nothing of it is there"


@pytest.mark.parametrize(
    "names",
    [
        {"classes": "archery, riding a bike,playing piano"},
        {"classes": "hmdb51"},
        {"classes": ",".join(f"class {i}" for i in range(5000))},
        {"classes": "archery\nriding a bike, \0"},
        {"classes": ""},
        {"weights": "ost/k400", "blend_with": "ViT-B-16/openai"},
        {"videos": Path("gone"), "manifest": Path("gone.csv")},
    ],
    ids=["list", "pack", "long list", "odd letters", "none", "weights", "missing"],
)
def test_what_names_no_file_is_left_alone(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = EvaluateConfig(**names)
    assert config.anywhere() == config


@pytest.mark.parametrize("key, name", [("classes", "hmdb51"), ("weights", "ost/k400")])
def test_a_folder_of_the_same_name_does_not_hide_what_is_meant(key, name, tmp_path, monkeypatch):
    (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    config = EvaluateConfig(**{key: name, "videos": Path(name)})
    assert getattr(config.anywhere(), key) == name
    assert config.anywhere().videos == tmp_path / name


@pytest.mark.parametrize(
    "key, value",
    [
        ("framez", 8),
        ("frames", 0),
        ("frames", -1),
        ("frames", "many"),
        ("frames", 2.5),
        ("frames", None),
        ("frames", math.inf),
        ("clips", 0),
        ("crops", "three"),
        ("crops", 7),
        ("blend", 1.01),
        ("blend", -0.1),
        ("blend", math.nan),
        ("min_decoded", 2),
        ("min_decoded", math.nan),
        ("eps", 0),
        ("eps", -1),
        ("eps", math.nan),
        ("sampling", "all"),
        ("match", "cosine"),
        ("texts", "names"),
        ("classes", ["archery"]),
        ("videos", 3),
        ("ablate", "perhaps"),
        ("protocol", None),
        ("device", [[[[]]]]),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(key, value):
    with pytest.raises(UsageError) as error:
        parse_config({key: value}, "runs/own/run.json")
    text = str(error.value)
    assert text.startswith("runs/own/run.json: ") and f"setting {key} " in text and "\n" not in text


@pytest.mark.parametrize("data", [None, [], [{"frames": 8}], "frames", 3, True])
def test_what_are_no_settings_is_refused(data):
    with pytest.raises(UsageError, match=r"^run\.json: ") as error:
        parse_config(data, "run.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "key", ["two\nlines", "x" * 10_000, "\ud800"], ids=["lines", "long", "half a character"]
)
def test_a_strange_name_of_a_setting_is_refused_in_one_short_line(key):
    with pytest.raises(UsageError) as error:
        parse_config({key: 1}, "run.json")
    text = str(error.value)
    assert "\n" not in text and len(text) < 1000
    text.encode()
