"""Named things: shipped, plugged in, misspelt."""

from types import SimpleNamespace

import pytest

from ost import catalog
from ost.catalog import Catalog, did_you_mean
from ost.errors import UsageError


@pytest.fixture
def plugged(monkeypatch):
    """A catalog with plug-ins, and the list of those that were imported."""
    loaded = []

    def point(name):
        return SimpleNamespace(name=name, load=lambda: loaded.append(name) or f"plugged {name}")

    points = {"ost.fruit": [point("cherry"), point("apple")]}
    monkeypatch.setattr(catalog, "entry_points", lambda group: points.get(group, []))
    return Catalog("fruit", {"apple": "own apple", "banana": "own banana"}, "ost.fruit"), loaded


def test_a_plug_in_is_imported_only_when_it_is_asked_for(plugged):
    fruit, loaded = plugged
    assert list(fruit) == ["apple", "banana", "cherry"]
    assert len(fruit) == 3
    assert "cherry" in fruit
    assert loaded == []
    assert fruit["cherry"] == fruit.find("cherry") == "plugged cherry"
    assert set(loaded) == {"cherry"}


def test_a_plug_in_does_not_replace_a_shipped_entry(plugged):
    fruit, loaded = plugged
    assert fruit["apple"] == "own apple"
    assert loaded == []


def test_an_unknown_name_is_answered_with_near_ones(plugged):
    fruit, _ = plugged
    with pytest.raises(UsageError, match=r"no fruit called 'Chery'; did you mean 'cherry'\?$"):
        fruit.find("Chery")
    with pytest.raises(UsageError, match=r"no fruit called 'xyz'; known are apple, banana, cherry$"):
        fruit.find("xyz")
    with pytest.raises(KeyError):
        fruit["xyz"]
    assert fruit.get("xyz") is None


def test_a_later_change_of_the_entries_given_changes_nothing():
    entries = {"a": 1}
    made = Catalog("letter", entries)
    entries["b"] = 2
    assert list(made) == ["a"]


def test_near_misses_ignore_case_and_long_lists_are_cut():
    assert did_you_mean("vit-b-16", ["ViT-B-16", "RN50"]) == "; did you mean 'ViT-B-16'?"
    assert did_you_mean("q", [f"name{i}" for i in range(20)]).endswith(", ...")
    assert did_you_mean("q", []) == ""
