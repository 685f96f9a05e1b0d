"""`ost evaluate` from the command line, on stand-in roots with the names and layouts that the lists expect."""

import csv
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ost.datasets.catalog import BENCHMARKS, class_names, read_split
from ost.evaluate.metrics import harmonic_mean
from ost.evaluate.protocols import PROTOCOLS

NAMES = ["riding a bike", "playing piano", "brushing teeth", "archery"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Runs go into a working folder of their own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def root(tmp_path, tiny_videos):
    """Nine videos of three classes in their folders."""
    folder = tmp_path / "clips"
    for i in range(9):
        path = folder / NAMES[i % 3] / f"{i}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tiny_videos[i // 3], path)
    return folder


@pytest.fixture
def evaluate(ost_command, tiny, tmp_path):
    """`ost evaluate` with tiny towers; gives exit code, stdout, stderr, and the record of the run."""

    def run(*arguments, weights=tiny, to="run"):
        folder = tmp_path / to
        code, out, err = ost_command(
            *("evaluate", *arguments, "--weights", weights, "--frames", 2, "--dtype", "fp32", "-o", folder)
        )
        place = folder / "run.json"
        return code, out, err, json.loads(place.read_text(encoding="utf-8")) if place.exists() else None

    return run


def asked(record):
    """The numbers that were asked for."""
    return next(iter(record["numbers"].values()))


def scores(folder):
    return pq.read_table(Path(folder) / "scores.parquet").to_pydict()


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if not PROTOCOLS[name].draws])
def test_every_protocol_runs_on_a_root_with_the_right_names(name, evaluate, stand_in, tmp_path, printed):
    protocol, root = PROTOCOLS[name], tmp_path / "root"
    benchmark = BENCHMARKS.find(protocol.benchmark)
    placed = {split: stand_in(benchmark, split, root, 2) for split in protocol.splits}
    code, out, err, told = evaluate(name, "--videos", root)
    assert code == 1, err  # the rest of the list is missing
    numbers = asked(told)
    for split, row in zip(protocol.splits, numbers["rows"], strict=True):
        there = {e.video for s in placed.values() for e in s} & {
            e.video for e in read_split(benchmark, split)
        }
        assert (row["title"], row["videos"]) == (split, len(there))
        assert row["videos"] + row["missing"] == benchmark.lists[split].count
        assert row["classes"] == len(class_names(benchmark, split))
        assert (row["average_precision"] is not None) == (protocol.benchmark == "anet")
    published = [line for line in out.splitlines() if line.startswith("published, ")]
    assert len(published) == len(printed(name))
    for who, number in printed(name).items():
        (line,) = [line for line in published if line.startswith(f"published, {who} ")]
        assert line.removeprefix(f"published, {who} ").strip() == number
    if protocol.combine == "harmonic":
        base, novel = (row["top1"] for row in numbers["rows"])
        assert numbers["harmonic"] == pytest.approx(harmonic_mean(base, novel))
        assert "harmonic mean of base and novel" in out
    with (tmp_path / "run" / "missing.csv").open(newline="", encoding="utf-8") as file:
        missing = list(csv.DictReader(file))
    assert len(missing) == sum(row["missing"] for row in numbers["rows"])
    assert {row["cause"] for row in missing} == {"is in the list and not there"}
    shown = [line for line in err.splitlines() if line.endswith("is in the list and not there")]
    assert len(shown) == 10 and f"more; all of them are in {tmp_path / 'run' / 'missing.csv'}" in err
    assert "names, mean-pool" in out, "the baseline is a row of the same table"


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if PROTOCOLS[name].draws])
def test_half_class_protocols_run_with_ten_draws(name, evaluate, stand_in, tmp_path, printed):
    protocol, root = PROTOCOLS[name], tmp_path / "root"
    benchmark = BENCHMARKS.find(protocol.benchmark)
    for split in protocol.splits:
        stand_in(benchmark, split, root, 1, classes=8)
    code, out, _, told = evaluate(name, "--videos", root)
    rows = asked(told)["rows"]
    assert code == 1 and {row["classes"] for row in rows} == {len(class_names(benchmark)) // 2}
    empty = set(protocol.titles) - {row["title"] for row in rows}
    assert all(title in out for title in empty), "a draw without videos is named and in no mean"
    assert f"mean of {len(rows)}" in out
    ((who, number),) = printed(name).items()
    assert [line.split() for line in out.splitlines() if line.startswith("published")] == [
        f"published, {who} {number}".split()
    ]


def test_missing_broken_and_doubled_videos_are_named_and_the_others_unchanged(evaluate, root):
    code, _, _, before = evaluate("own", "--videos", root)
    assert code == 0 and asked(before)["rows"][0]["videos"] == 9
    (root / NAMES[0] / "broken.mp4").write_bytes(b"no video")
    (root / NAMES[1] / "empty.avi").touch()
    code, _, err, after = evaluate("own", "--videos", root, to="after")
    assert code == 1 and "broken.mp4" in err and "empty.avi" in err and "2 of 11 videos" in err
    assert len(after["unreadable"]) == 2
    assert after["by_class"] == before["by_class"]
    one, other = scores("run"), scores("after")
    assert one["path"] == other["path"]
    for name in NAMES[:3]:
        np.testing.assert_allclose(one[f"logit:{name}"], other[f"logit:{name}"], rtol=0, atol=1e-6)


def test_a_doubled_file_is_told_with_both_and_loses_no_other(evaluate, stand_in, tmp_path):
    root, benchmark = tmp_path / "root", BENCHMARKS.find("hmdb51")
    entry, *others = stand_in(benchmark, "val1", root, 2)
    for copy in ("one", "two"):
        (root / copy).mkdir()
        shutil.copy(root / entry.video, root / copy / entry.video)
    (root / entry.video).unlink()
    code, _, err, told = evaluate("few-shot/hmdb51", "--videos", root)
    assert code == 1 and str(Path("one", entry.video)) in err and str(Path("two", entry.video)) in err
    (row,) = asked(told)["rows"]
    assert (row["videos"], row["unreadable"]) == (len(others), 1)
    assert row["missing"] == 1530 - len(others) - 1


def test_videos_in_an_archive_score_as_those_in_a_folder(evaluate, root, tmp_path):
    evaluate("own", "--videos", root)
    with tarfile.open(tmp_path / "clips.tar", "w") as archive:
        archive.add(root, ".")
    code, _, _, _ = evaluate("own", "--videos", tmp_path / "clips.tar", to="tar")
    assert code == 0
    assert scores("run") == scores("tar")


def test_a_broken_archive_is_told(evaluate, root, tmp_path):
    with tarfile.open(root / "more.tar", "w") as archive:
        archive.add(root / NAMES[0] / "0.mp4", f"{NAMES[0]}/again.mp4")
    data = (root / "more.tar").read_bytes()
    (root / "more.tar").write_bytes(data[: -(512 * 19)])
    _, _, err, _ = evaluate("own", "--videos", root)
    assert "more.tar" in err


def test_scores_can_be_written_where_they_are_wanted(evaluate, root, tmp_path):
    code, _, _, _ = evaluate("--videos", root, "--scores", tmp_path / "mine.parquet")
    assert code == 0, "one's own videos need no protocol's name"
    table = pq.read_table(tmp_path / "mine.parquet")
    assert table.column_names[:4] == ["list", "path", "label", "labels"]
    assert table.equals(pq.read_table(tmp_path / "run" / "scores.parquet"))
    assert table["path"].to_pylist() == sorted(f"{NAMES[i % 3]}/{i}.mp4" for i in range(9))


def test_a_run_is_measured_again_by_one_command(evaluate, ost_command, root, tmp_path, monkeypatch):
    evaluate("own", "--videos", root.relative_to(tmp_path), "--classes", ",".join(NAMES), "--ablate")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, out, err = ost_command("evaluate", "again", tmp_path / "run")
    assert code == 0, err
    assert "every logit is the same to the bit" in out
    assert (tmp_path / "elsewhere" / "runs" / "own" / "run.json").is_file()
    before, after = (
        json.loads((folder / "run.json").read_text()) for folder in (tmp_path / "run", Path("runs/own"))
    )
    assert before["config"] == after["config"] and before["numbers"] == after["numbers"]


def test_runs_without_a_place_never_take_that_of_another(ost_command, root, tiny, tmp_path):
    for folder in ("own", "own-2", "own-3"):
        ost_command("evaluate", "own", "--videos", root, "--weights", tiny, "--frames", 2)
        assert (tmp_path / "runs" / folder / "index.html").is_file()


def test_two_runs_are_compared(evaluate, ost_command, root, tmp_path):
    evaluate("own", "--videos", root)
    evaluate("own", "--videos", root, "--kinds", "spatial", "--eps", 0.5, to="other")
    code, out, _ = ost_command("evaluate", "diff", tmp_path / "run", tmp_path / "other")
    assert code == 0
    assert "config.texts: both -> spatial" in out and "config.eps: 0.1 -> 0.5" in out
    assert "top-1 of B minus A" in out


def test_the_untuned_weights_are_a_row_of_the_table(evaluate, ost_command, root, tiny):
    code, out, _, told = evaluate("own", "--videos", root, "--vanilla", "--blend-with", tiny)
    assert code == 0
    assert any(line.startswith("untuned: ") for line in out.splitlines())
    *_, untuned = told["numbers"].values()
    assert untuned == told["numbers"]["names, mean-pool"], "here they are the same weights"
    code, _, err = ost_command("evaluate", "own", "--videos", root, "--vanilla", "--backbone", "lite")
    assert code == 2 and "untuned" in err


def test_several_labels_a_video_give_a_mean_precision(evaluate, root, tmp_path):
    with (tmp_path / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for i in range(9):
            for label in {NAMES[i % 3], NAMES[3]} if i < 4 else {NAMES[i % 3]}:
                writer.writerow([f"clips/{NAMES[i % 3]}/{i}.mp4", label])
    code, out, _, told = evaluate("--manifest", tmp_path / "clips.csv")
    assert code == 0 and "mAP" in out
    (row,) = asked(told)["rows"]
    assert row["videos"] == 9 and 0 < row["average_precision"] <= 1


def test_mirrored_crops_are_refused_where_classes_tell_left_from_right(evaluate, root):
    (root / NAMES[0]).rename(root / "moving left")
    code, _, err, _ = evaluate("own", "--videos", root, "--views", "1x10")
    assert code == 2 and "left from right" in err
    assert evaluate("own", "--videos", root, "--views", "1x5", to="five")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a protocol"),
        (["few-shot/hmdb"], "did you mean"),
        (["own"], "--videos"),
        (["few-shot/hmdb51", "--manifest", "x.csv"], "lists"),
        (["diff", "a"], "missing argument 'B'"),
        (["diff", "a", "b"], "holds no run"),
        (["again"], "missing argument 'RUN'"),
        (["agian", "a"], "did you mean 'again'"),
        (["own", "a"], "unexpected extra argument"),
        (["own", "--views", "1x4"], "crops"),
    ],
    ids=str,
)
def test_wrong_use_is_one_sentence_and_nothing_is_done(ost_command, tmp_path, arguments, said):
    code, _, err = ost_command("evaluate", *arguments)
    assert code == 2 and said in err and len(err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_holds_a_run_is_not_written_over(evaluate, root):
    evaluate("own", "--videos", root)
    code, _, err, _ = evaluate("own", "--videos", root)
    assert code == 2 and "holds a run already" in err


def test_one_and_three_ranks_give_the_same_to_the_bit(evaluate, root, tiny, tmp_path, start):
    (root / NAMES[0] / "broken.mp4").write_bytes(b"no video")
    given = ["--ablate", "--weights", tiny, "--frames", 2, "--dtype", "fp32", "--device", "cpu"]
    command = ["-m", "ost", "evaluate", "own", "--videos", root, *given, "-o", tmp_path / "three"]
    ranks = start(*command, world=3)
    code, _, _, _ = evaluate("own", "--videos", root, "--ablate")
    assert code == 1
    ended = [rank.finish() for rank in ranks]
    assert (tmp_path / "three" / "run.json").is_file(), ended
    assert [out.count("both, transport") for _, out, _ in ended] == [1, 0, 0], "the first rank alone speaks"
    assert scores("run") == scores("three")
    one, three = (json.loads((tmp_path / run / "run.json").read_text()) for run in ("run", "three"))
    assert one["numbers"] == three["numbers"] and one["unreadable"] == three["unreadable"]
    assert three["environment"]["ranks"] == 3


def test_published_numbers_are_those_of_the_papers(printed):
    assert {name: protocol.published for name, protocol in PROTOCOLS.items()} == {
        name: printed(name) for name in PROTOCOLS
    }


def test_all_protocols_are_listed(ost_command):
    code, out, _ = ost_command("evaluate", "list")
    assert code == 0
    lines = out.splitlines()[1 : len(PROTOCOLS) + 2]
    assert [line.split()[0] for line in lines] == [*PROTOCOLS, "own"]
    assert all(f"{b.title}\n  from {b.home}" in out and b.layout in out for b in BENCHMARKS.values())


def test_a_run_is_saved_though_its_reader_closes_the_pipe(root, tiny, tmp_path):
    import subprocess
    import sys

    arguments = (
        "evaluate",
        "own",
        "--videos",
        root,
        "--weights",
        tiny,
        "--frames",
        2,
        "-o",
        tmp_path / "run",
    )
    command = [sys.executable, "-c", "from ost.cli import main; main()", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1)
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(timeout=120) == 0, err
    assert {"run.json", "scores.parquet", "index.html"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }


def test_where_no_video_can_be_read_nothing_is_left_behind(evaluate, tmp_path):
    for i in range(12):
        folder = tmp_path / "broken" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.mp4").write_text("no video")
    code, out, err, _ = evaluate("own", "--videos", tmp_path / "broken", "--classes", "a,b")
    assert (code, out) == (2, "")
    assert "no list has a video that can be read" in err
    assert err.count("11.mp4: ") == 1 and "missing.csv" not in err, "all are listed: no file will hold them"
    assert not (tmp_path / "run").exists()
