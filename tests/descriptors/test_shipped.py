"""The shipped packs: complete, ours, and fit for what they are for."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from ost.backbones.lite.minilm import MiniLM
from ost.backbones.tokens import text_context
from ost.descriptors.faults import class_faults, pack_faults
from ost.descriptors.shipped import shipped, shipped_pack, whole_packs
from ost.evaluate.separability import separability

COUNTS = {"hmdb51": 51, "ucf101": 101, "k400": 400, "k600": 220, "ssv2": 174, "anet": 200, "everyday": 40}
# SHA-256 of the benchmark's official labels in their order, one a line.
LABELS = {
    "hmdb51": "c9009d10a488ca0f",
    "ucf101": "3ec3894f84996395",
    "k400": "a8dafb93a1204d4e",
    "ssv2": "a31a2ad624a558d6",
    "anet": "696d49925655f5ee",
    "k600-split1": "af31b25d446031c5",
    "k600-split2": "c7dd90897fb1bcde",
    "k600-split3": "08c0aa3eccfab8df",
}
# Mean cosine between classes that the lists of the paper's authors reach, by the same text tower.
AUTHORS = {"hmdb51": (0.39, 0.45), "ucf101": (0.38, 0.39), "k400": (0.34, 0.28), "ssv2": (0.33, 0.53)}


def test_every_benchmark_has_its_pack():
    assert {name: len(shipped_pack(name)) for name in whole_packs()} == COUNTS
    assert set(shipped()) == {*COUNTS, "k600-split1", "k600-split2", "k600-split3"}


@pytest.mark.parametrize("name", COUNTS)
def test_a_pack_has_four_descriptors_of_each_kind_and_no_fault(name):
    pack = shipped_pack(name)
    assert pack_faults(pack, text_context()) == []
    assert [fault for item in pack.classes for fault in class_faults(item, count=4)] == []
    assert pack.licence == "CC0-1.0"


@pytest.mark.parametrize("name", COUNTS)
def test_a_pack_has_none_of_its_descriptors_twice(name):
    texts = [t.casefold() for c in shipped_pack(name).classes for t in (*c.spatial, *c.temporal)]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", LABELS)
def test_a_pack_has_the_classes_of_its_benchmark_in_their_order(name):
    labels = "\n".join(item.label or item.name for item in shipped_pack(name).classes)
    assert hashlib.sha256(labels.encode()).hexdigest()[:16] == LABELS[name]


def test_the_splits_of_kinetics_600_have_160_classes_none_of_them_in_kinetics_400():
    known = {item.label or item.name for item in shipped_pack("k400").classes}
    for number in (1, 2, 3):
        pack = shipped_pack(f"k600-split{number}")
        assert len(pack) == 160
        assert not known & {item.label or item.name for item in pack.classes}
        assert pack_faults(pack) == []


@pytest.mark.parametrize("name", ["hmdb51", "ucf101"])
def test_readable_names_stand_beside_the_labels(name):
    for item in shipped_pack(name).classes:
        assert item.name == item.name.strip()
        assert "_" not in item.name
        assert not any(word[1:] != word[1:].lower() for word in item.name.split() if word != "YoYo")
    assert shipped_pack("ucf101").find("ApplyEyeMakeup").name == "applying eye makeup"


@pytest.mark.parametrize(
    "name", ["hmdb51", *(pytest.param(name, marks=pytest.mark.slow) for name in AUTHORS if name != "hmdb51")]
)
def test_descriptors_set_classes_apart_as_well_as_the_authors_do(name):
    found = separability(shipped_pack(name), MiniLM.installed().embed)
    spatial, temporal = AUTHORS[name]
    assert found.mean["spatial"] <= spatial
    assert found.mean["temporal"] <= temporal


def test_the_temporal_descriptors_of_mirrored_classes_are_mirrored():
    """Something-Something tells directions apart: exchanging left and right makes one class the other."""
    pack = shipped_pack("ssv2")
    swap = {"left": "right", "right": "left", "rightwards": "leftwards"}
    for verb in ("Pushing", "Pulling"):
        first = pack.find(f"{verb} something from left to right").temporal
        second = pack.find(f"{verb} something from right to left").temporal
        mirrored = tuple(re.sub(r"\w+", lambda word: swap.get(word[0], word[0]), text) for text in first)
        assert mirrored == second
        assert all("left" in text or "right" in text for text in first)


def test_the_files_are_small_enough_to_read_in_a_diff():
    folder = Path(__file__).parents[2] / "src" / "ost" / "descriptors" / "packs"
    for file in folder.glob("*.json"):
        text = file.read_text(encoding="utf-8")
        assert len(text) < 700_000
        assert max(map(len, text.splitlines())) < 200
        recorded = json.loads(text)["provenance"].get("hash")
        assert recorded in (None, shipped_pack(file.stem).hash)
