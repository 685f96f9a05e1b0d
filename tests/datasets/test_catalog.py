"""The lists that come with the package are whole, and their classes are those of the shipped packs."""

import dataclasses
import lzma
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from ost.catalog import Catalog
from ost.datasets import catalog
from ost.datasets.catalog import BENCHMARKS, class_names, read_split
from ost.descriptors.shipped import shipped_pack
from ost.errors import OstError, UsageError

ALL = [(dataset, name) for dataset in BENCHMARKS for name in BENCHMARKS[dataset].lists]
HALVED = {"hmdb51": "val1", "ucf101": "val1", "k400": "val", "ssv2": "val"}


def labels_of(dataset, name):
    return {entry.video: entry.labels[0] for entry in read_split(BENCHMARKS[dataset], name)}


@pytest.mark.parametrize(("dataset", "name"), ALL)
def test_every_list_is_whole_names_each_video_once_and_uses_every_class(dataset, name):
    entries = read_split(BENCHMARKS[dataset], name)
    assert len(entries) == BENCHMARKS[dataset].lists[name].count
    # By file name alone: folders may be missing on disk.
    assert len({entry.video.rpartition("/")[2] for entry in entries}) == len(entries)
    assert {label for entry in entries for label in entry.labels} == set(
        class_names(BENCHMARKS[dataset], name)
    )


def test_the_lists_have_the_official_lengths():
    sizes = {f"{dataset} {name}": BENCHMARKS[dataset].lists[name].count for dataset, name in ALL}
    official = {
        "hmdb51 val1": 1530, "hmdb51 val2": 1530, "hmdb51 val3": 1530,
        "ucf101 val1": 3783, "ucf101 val2": 3734, "ucf101 val3": 3696,
        "k600 split1": 14084, "k600 split2": 13978, "k600 split3": 14136,
        "k400 val": 19877, "ssv2 val": 24777, "anet val": 4926,
    }  # fmt: skip
    assert {name: sizes[name] for name in official} == official


def test_the_benchmarks_have_the_official_numbers_of_classes():
    sizes = {name: len(class_names(BENCHMARKS[name])) for name in BENCHMARKS}
    assert sizes == {"hmdb51": 51, "ucf101": 101, "k400": 400, "k600": 600, "ssv2": 174, "anet": 200}
    assert [len(class_names(BENCHMARKS["k600"], f"split{i}")) for i in (1, 2, 3)] == [160] * 3


@pytest.mark.parametrize(("dataset", "name"), ALL)
def test_the_classes_of_a_list_are_in_the_pack_of_its_benchmark(dataset, name):
    pack = shipped_pack(BENCHMARKS[dataset].pack)
    assert set(class_names(BENCHMARKS[dataset], name)) <= {
        entry.label or entry.name for entry in pack.classes
    }


@pytest.mark.parametrize("name", ["hmdb51", "ucf101", "k400", "ssv2", "anet"])
def test_a_pack_has_the_classes_of_its_benchmark_in_their_order(name):
    pack = shipped_pack(BENCHMARKS[name].pack)
    assert class_names(BENCHMARKS[name]) == tuple(entry.label or entry.name for entry in pack.classes)


@pytest.mark.parametrize("split", [1, 2, 3])
def test_the_packs_of_kinetics_600_have_the_classes_of_its_splits_and_none_of_kinetics_400(split):
    names = class_names(BENCHMARKS["k600"], f"split{split}")
    assert names == tuple(entry.label or entry.name for entry in shipped_pack(f"k600-split{split}").classes)
    assert set(names) <= set(class_names(BENCHMARKS["k600"])) - set(class_names(BENCHMARKS["k400"]))


@pytest.mark.parametrize(("dataset", "val"), HALVED.items())
def test_a_base_list_numbers_its_classes_by_its_own_labels(dataset, val):
    base, novel = labels_of(dataset, "base-val"), labels_of(dataset, "novel-val")
    assert not set(base.values()) & set(novel.values())
    assert base | novel == labels_of(dataset, val)
    for seed in (1, 2, 3):
        assert set(labels_of(dataset, f"base-train-{seed}").values()) == set(base.values())


FEW = [("k400", "train-tiny", 150)]
FEW += [(b, f"train-{shots}shot", shots) for b in ("hmdb51", "ucf101", "ssv2") for shots in (2, 4, 8, 16)]
FEW += [(b, f"base-train-{seed}", 16) for b in HALVED for seed in (1, 2, 3)]


@pytest.mark.parametrize(("dataset", "name", "shots"), FEW)
def test_a_few_shot_list_has_as_many_clips_of_each_class_and_none_of_validation(dataset, name, shots):
    clips = labels_of(dataset, name)
    assert set(Counter(clips.values()).values()) == {shots}
    assert not set(clips) & set(labels_of(dataset, HALVED[dataset]))


@pytest.mark.parametrize("name", ["val1", "val2", "val3", "train-16shot", "base-train", "novel-val"])
def test_the_files_of_ucf_are_named_after_their_class(name):
    for video, label in labels_of("ucf101", name).items():
        assert video.lower().startswith(f"v_{label.lower()}_g")


def test_activitynet_says_how_many_frames_were_taken():
    assert read_split(BENCHMARKS["anet"], "val")[0] == ("wONwHYy59Tc", ("Blow-drying hair",), 193)
    assert all(entry.frames for entry in read_split(BENCHMARKS["anet"], "train"))


def test_an_unknown_list_is_refused_with_the_near_ones():
    with pytest.raises(UsageError, match="no list of HMDB-51 called 'val4'; did you mean 'val"):
        read_split(BENCHMARKS["hmdb51"], "val4")
    with pytest.raises(UsageError, match="'train-4shot'"):
        class_names(BENCHMARKS["hmdb51"], "train4shot")
    with pytest.raises(UsageError, match="no benchmark called 'hmdb'; did you mean 'hmdb51'"):
        BENCHMARKS.find("hmdb")


@pytest.mark.parametrize("harm", ["short", "cut", "gone", "numbers"])
def test_a_damaged_list_is_an_error_that_says_to_reinstall(tmp_path, monkeypatch, harm):
    whole = lzma.decompress((files("ost.datasets") / "splits/hmdb51/val1.txt.xz").read_bytes())
    data = {
        "short": lzma.compress(whole[: whole.index(b"\n") + 1]),
        "cut": lzma.compress(whole)[:-20],
        "numbers": lzma.compress(whole.replace(b" 50\n", b" 51\n")),
    }.get(harm)
    file = tmp_path / "splits" / "val1.txt.xz"
    file.parent.mkdir()
    if data:
        file.write_bytes(data)
    classes = class_names(BENCHMARKS["hmdb51"])
    monkeypatch.setattr(catalog, "_names", lambda labels: classes)
    monkeypatch.setattr(catalog, "files", lambda package: Path(tmp_path))
    split = dataclasses.replace(BENCHMARKS["hmdb51"].lists["val1"], file="val1.txt.xz")
    own = dataclasses.replace(BENCHMARKS["hmdb51"], lists=Catalog("list", {"val1": split}))
    with pytest.raises(
        OstError, match=r"val1\.txt\.xz of the package is missing or damaged; reinstall"
    ) as caught:
        read_split(own, "val1")
    assert not isinstance(caught.value, UsageError)


def test_the_lists_stay_small():
    home = files("ost.datasets") / "splits"
    sizes = [file.stat().st_size for file in Path(str(home)).rglob("*.xz")]
    assert len(sizes) == 66
    assert sum(sizes) < 3 << 20
