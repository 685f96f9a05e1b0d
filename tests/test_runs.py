"""Where a run goes, for training and evaluation alike, and the list of videos it had to do without."""

import csv
from pathlib import Path

import pytest

from ost.errors import UsageError
from ost.runs import Missing, claimed_folder, run_folder, save_missing, trained_on


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def begin(folder, record="config.json"):
    folder.mkdir(parents=True)
    (folder / record).touch()
    return folder


@pytest.mark.parametrize("record", ["config.json", "run.json"])
def test_a_run_takes_the_first_free_folder_of_its_name(record):
    taken = [begin(run_folder(None, "few-shot/hmdb51"), record) for _ in range(3)]
    assert taken == [Path("runs", f"few-shot-hmdb51{end}") for end in ("", "-2", "-3")]
    Path("runs", "own").mkdir()
    Path("runs", "own-2").touch()
    assert run_folder(None, "own") == Path("runs", "own-3"), "what is there is no run, and not ours"


def test_choosing_a_folder_leaves_nothing_behind():
    assert not run_folder(None, "own").exists()
    assert not Path("runs").exists()


def test_resuming_goes_on_with_the_last_run_of_that_name_or_begins_one():
    assert run_folder(None, "lora", resume=True) == Path("runs", "lora")
    for _ in range(2):
        begin(run_folder(None, "lora"))
    assert run_folder(None, "lora", resume=True) == Path("runs", "lora-2")
    assert run_folder(Path("runs", "lora"), "lora", resume=True) == Path("runs", "lora")


@pytest.mark.parametrize("record", ["config.json", "run.json"])
def test_a_folder_that_is_asked_for_never_takes_the_place_of_another_run(tmp_path, record):
    run = begin(tmp_path / "run", record)
    with pytest.raises(UsageError, match="holds a run already"):
        run_folder(run, "own")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="is not a folder"):
        run_folder(tmp_path / "notes.txt", "own")
    (tmp_path / "kept").mkdir()
    for free in (tmp_path / "kept", tmp_path / "new" / "run"):
        assert run_folder(free, "own") == free


def test_runs_that_begin_at_once_never_share_a_folder():
    from threading import Barrier, Thread

    taken, meet = [], Barrier(8)

    def begin_one():
        meet.wait()
        with claimed_folder(None, "own") as folder:
            (folder / "run.json").touch()
            taken.append(folder)

    threads = [Thread(target=begin_one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(taken)) == 8


@pytest.mark.parametrize("output", [None, Path("deep", "er", "run")])
def test_a_run_that_fails_before_it_writes_anything_leaves_nothing(tmp_path, output):
    with pytest.raises(KeyboardInterrupt), claimed_folder(output, "own") as folder:
        assert folder.is_dir()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_a_failed_run_has_written_stays(tmp_path):
    with pytest.raises(ValueError), claimed_folder(None, "own") as folder:
        (folder / "log.jsonl").touch()
        raise ValueError
    assert (tmp_path / "runs" / "own" / "log.jsonl").exists()


def test_missing_videos_are_a_table_that_any_name_survives(tmp_path):
    odd = [
        Missing("val1", 'a, "b".mp4', "is in the list and not there"),
        Missing("val2", "line\nbreak.avi", "can be two files"),
        Missing("val2", "\udcff.avi", "is in the list and not there"),
    ]
    save_missing(tmp_path, odd)
    with (tmp_path / "missing.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [tuple(row.values()) for row in rows] == [*map(tuple, odd[:2]), ("val2", "?.avi", odd[2].cause)]


def test_no_missing_video_is_no_file(tmp_path):
    save_missing(tmp_path, [])
    assert not (tmp_path / "missing.csv").exists()


def test_weights_know_what_they_learned_from_by_the_folder_of_their_run(tmp_path):
    run = begin(tmp_path / "run")
    (run / "train.csv").touch()
    step = run / "checkpoints" / "step-7"
    step.mkdir(parents=True)
    for place in (run, step, tmp_path):
        (place / "weights.safetensors").touch()
    assert trained_on(run / "weights.safetensors") == run / "train.csv"
    assert trained_on(step / "weights.safetensors") == run / "train.csv"
    assert trained_on(tmp_path / "weights.safetensors") is None
    assert trained_on("ost/k400") is None
