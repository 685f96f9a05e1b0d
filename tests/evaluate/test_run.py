"""Protocols from the command line, on stand-in roots with the names and layouts that their lists expect."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ost.backbones.load import load_backbone
from ost.datasets.catalog import BENCHMARKS, class_names, read_split
from ost.datasets.manifest import Clip
from ost.descriptors.spec import resolve
from ost.errors import UsageError
from ost.evaluate import run as evaluate_run
from ost.evaluate.ablation import ablation
from ost.evaluate.metrics import harmonic_mean
from ost.evaluate.protocols import PROTOCOLS, ask
from ost.evaluate.run import Question, answer
from ost.evaluate.summary import summary
from ost.recognition.recognizer import Recognizer, Settings

NAMES = ["riding a bike", "playing piano", "brushing teeth", "archery"]


@pytest.fixture(autouse=True)
def quiet(own_cache, one_thread):
    """Own cache; problems too small to be shared out."""


@pytest.fixture(scope="module")
def backbone(tiny):
    return load_backbone(None, tiny, device="cpu", dtype="fp32")


@pytest.fixture
def clips(tmp_path, tiny_videos):
    """Nine videos of three of four classes, each once in its folder."""
    found = []
    for i in range(9):
        path = tmp_path / "clips" / NAMES[i % 3] / f"{i}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tiny_videos[i // 3], path)
        found.append(Clip(path, NAMES[i % 3]))
    return found


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_runs_on_a_root_with_the_right_names(name, ost_command, stand_in, tiny, tmp_path):
    protocol, root = PROTOCOLS[name], tmp_path / "root"
    benchmark = BENCHMARKS.find(protocol.benchmark)
    placed = {split: stand_in(benchmark, split, root, 2) for split in protocol.splits}
    file = tmp_path / "numbers.json"
    code, out, err = ost_command(
        *("evaluate", name, "--videos", root, "--weights", tiny, "--frames", 2, "--dtype", "fp32"), "-o", file
    )
    assert code == 1, err  # the rest of the list is missing
    told = json.loads(file.read_text(encoding="utf-8"))
    for split, row in zip(protocol.splits, told["numbers"]["rows"], strict=True):
        there = {e.video for s in placed.values() for e in s} & {
            e.video for e in read_split(benchmark, split)
        }
        assert (row["title"], row["videos"]) == (split, len(there))
        assert row["videos"] + row["missing"] == benchmark.lists[split].count
        assert row["classes"] == len(class_names(benchmark, split))
    assert all(f"published, {who}: {number}" in out for who, number in protocol.published.items())
    if protocol.combine == "harmonic":
        base, novel = (row["top1"] for row in told["numbers"]["rows"])
        assert told["numbers"]["harmonic"] == pytest.approx(harmonic_mean(base, novel))
        assert "harmonic mean of base and novel" in out
    assert "is in the list and not there" in err


@pytest.mark.parametrize(
    "views", [{}, {"clips": 2, "crops": 3}, {"method": "mean"}], ids=["1x1", "2x3", "mean"]
)
def test_scores_are_those_of_recognition(backbone, clips, views):
    settings, pack = Settings(frames=2, **views), resolve(NAMES)
    (found,) = answer(backbone, [Question("own", pack, clips)], settings)
    predictions = Recognizer(backbone, settings).recognize_all([c.path for c in clips], pack)
    for row, prediction in zip(found.logits, predictions, strict=True):
        probability = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        expected = {score.name: score.probability for score in prediction.classes}
        np.testing.assert_allclose(probability, [expected[name] for name in pack.names], atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_scores_do_not_depend_on_how_many_are_matched_together(backbone, clips, monkeypatch, at_once):
    question = Question("own", resolve(NAMES), clips)
    (expected,) = answer(backbone, [question], Settings(frames=2))
    monkeypatch.setattr(evaluate_run, "AT_ONCE", at_once)
    (found,) = answer(backbone, [question], Settings(frames=2))
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
    assert found.paths == expected.paths


def test_a_video_of_several_lists_passes_the_towers_once(tiny, clips):
    backbone = load_backbone(None, tiny, device="cpu", dtype="fp32")
    seen, embed = [], backbone.embed_clips
    backbone.embed_clips = lambda pixels: seen.append(len(pixels)) or embed(pixels)
    questions = [Question("a", resolve(NAMES), clips), Question("b", resolve(NAMES[:3]), clips[:5])]
    first = answer(backbone, questions, Settings(frames=2))
    assert len(seen) == 9 and [len(a.paths) for a in first] == [9, 5]
    again = answer(backbone, questions, Settings(frames=2, eps=1.0, kinds=("spatial",)))
    assert len(seen) == 9, "the second pass is from the store"
    assert not np.allclose(first[0].logits, again[0].logits)


def test_missing_and_broken_videos_are_named_and_the_others_unchanged(ost_command, tiny, clips, tmp_path):
    root = tmp_path / "clips"

    def numbers():
        file = tmp_path / "numbers.json"
        code, _, err = ost_command(
            *("evaluate", "own", "--videos", root, "--weights", tiny, "--frames", 2, "-o", file)
        )
        return code, err, json.loads(file.read_text(encoding="utf-8"))

    code, _, before = numbers()
    assert code == 0 and before["numbers"]["rows"][0]["videos"] == 9
    (root / NAMES[0] / "broken.mp4").write_bytes(b"no video")
    (root / NAMES[1] / "empty.avi").touch()
    code, err, after = numbers()
    assert code == 1 and "broken.mp4" in err and "empty.avi" in err and "2 of 11 videos" in err
    assert len(after["lost"]) == 2
    assert after["by_class"] == before["by_class"]
    assert after["numbers"]["top1"] == before["numbers"]["top1"]


def test_a_doubled_file_is_an_error_that_shows_both(ost_command, stand_in, tiny, tmp_path):
    root, benchmark = tmp_path / "root", BENCHMARKS.find("hmdb51")
    entry = stand_in(benchmark, "val1", root, 1)[0]
    for copy in ("one", "two"):
        (root / copy).mkdir()
        shutil.copy(root / entry.video, root / copy / entry.video)
    (root / entry.video).unlink()
    code, _, err = ost_command("evaluate", "few-shot/hmdb51", "--videos", root, "--weights", tiny)
    assert code == 2 and str(Path("one", entry.video)) in err and str(Path("two", entry.video)) in err


def test_several_labels_a_video_are_counted_by_average_precision(backbone, clips):
    several = [clip._replace(others=(NAMES[3],)) if i < 4 else clip for i, clip in enumerate(clips)]
    (found,) = answer(backbone, [Question("own", resolve(NAMES), several)], Settings(frames=2))
    assert found.has_several and found.truth.sum() == 13
    numbers = summary([found]).rows[0]
    assert 0 < numbers.average_precision <= 1
    (single,) = answer(backbone, [Question("own", resolve(NAMES), clips)], Settings(frames=2))
    assert summary([single]).rows[0].average_precision is None


def test_the_ablation_has_every_way_from_one_pass(tiny, clips):
    backbone = load_backbone(None, tiny, device="cpu", dtype="fp32")
    seen, embed = [], backbone.embed_clips
    backbone.embed_clips = lambda pixels: seen.append(len(pixels)) or embed(pixels)
    questions, settings = [Question("own", resolve(NAMES), clips)], Settings(frames=2)
    found = {(way.texts, way.matched): way.numbers for way in ablation(backbone, questions, settings)}
    assert len(found) == 8 and len(seen) == 9
    assert found["both", "transport"] == summary(answer(backbone, questions, settings))
    mean = summary(answer(backbone, questions, Settings(frames=2, method="mean")))
    assert found["names", "mean"] == mean


def test_the_ablation_is_shown(ost_command, tiny, clips, tmp_path):
    code, out, err = ost_command(
        *("evaluate", "own", "--videos", tmp_path / "clips", "--weights", tiny, "--frames", 2, "--ablate")
    )
    assert code == 0, err
    rows = [line.split()[:2] for line in out.splitlines() if line.split()[1:2] in (["mean"], ["transport"])]
    assert [" ".join(row) for row in rows] == [
        f"{texts} {matched}"
        for texts in ("names", "spatial", "temporal", "both")
        for matched in ("mean", "transport")
    ]


def test_lists_are_scored_among_their_own_classes(stand_in, tmp_path):
    benchmark = BENCHMARKS.find("hmdb51")
    for split in ("base-val", "novel-val"):
        stand_in(benchmark, split, tmp_path, 1)
    base, novel = ask(PROTOCOLS["base-to-novel/hmdb51"], tmp_path)
    assert (len(base.pack), len(novel.pack)) == (26, 25)
    assert not {*base.pack.names} & {*novel.pack.names}


def test_a_root_without_any_video_of_the_list_says_what_is_expected(tmp_path, tiny_videos):
    shutil.copy(tiny_videos[0], tmp_path / "other.mp4")
    with pytest.raises(UsageError, match="none of the 1530 videos of val1 of HMDB-51"):
        ask(PROTOCOLS["few-shot/hmdb51"], tmp_path)


def test_all_protocols_are_listed(ost_command):
    code, out, _ = ost_command("evaluate", "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(PROTOCOLS)
