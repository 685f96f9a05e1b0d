"""Runs from beginning to end: what they learn, what they leave, and how they go on after a stop."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from multiprocessing import forkserver

import pytest
import torch
from safetensors.torch import load_file

from ost.backbones.load import load_backbone
from ost.errors import OstError, UsageError, WeightsError
from ost.recognition.recognizer import Recognizer, Settings
from ost.train.checkpoint import Checkpoints
from ost.train.folder import classes_file
from ost.train.log import read_log
from ost.train.loop import Interrupted, learning_rate, train
from ost.train.task import TrainingTask
from ost.train.validate import Labelled


@pytest.fixture
def task(pack, labelled):
    """Three of four clips a class to learn from, the last held out."""
    rows = range(len(labelled))
    train_rows, rest = [i for i in rows if i % 4 < 3], [i for i in rows if i % 4 == 3]
    pick = lambda chosen: Labelled(  # noqa: E731
        tuple(labelled.paths[i] for i in chosen), tuple(labelled.labels[i] for i in chosen)
    )
    return TrainingTask(pack, pick(train_rows), pick(rest))


class Stop(Exception):
    """What a kill looks like from inside."""


def stop_at(kind, step):
    """A watch that ends the run the hard way."""

    def watch(event):
        if event.kind == kind and event.step == step:
            raise Stop

    return watch


def state_of(run):
    """Weights, parameters and moments of the last checkpoint."""
    folder = Checkpoints(run, None).find("last")
    assert folder is not None
    return folder, load_file(folder / "weights.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


def test_a_run_learns_its_clips_and_leaves_all_that_is_promised(config, task, tmp_path):
    config = config.but(epochs=12, lr=2e-3, validate_every=4)
    outcome = train(config, task, tmp_path)
    losses = [line["loss"] for line in read_log(tmp_path) if line["kind"] == "step"]
    assert len(losses) == 12 * 2 and sum(losses[-4:]) < 0.7 * sum(losses[:4])
    assert outcome.weights == tmp_path / "weights.safetensors" and outcome.clips == 3
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {
        *("config.json", "pack.json", "train.csv", "held-out.csv", "log.jsonl", "tensorboard"),
        *("checkpoints", "weights.safetensors"),
    }
    assert json.loads((tmp_path / "config.json").read_text())["epochs"] == 12
    assert any((tmp_path / "tensorboard").iterdir())


def test_the_weight_file_recognises_as_the_run_did(config, task, tmp_path):
    outcome = train(config.but(epochs=3), task, tmp_path)
    backbone = load_backbone(None, outcome.weights, device="cpu", dtype="fp32")
    found = Recognizer(backbone, Settings(frames=3)).recognize_all(
        task.held_out.paths, str(classes_file(tmp_path))
    )
    right = [r.top(1)[0].name == task.pack.names[y] for r, y in zip(found, task.held_out.labels, strict=True)]
    assert sum(right) / len(right) == outcome.accuracy


MOMENTS = [("step", 1), ("step", 3), ("checkpoint", 2), ("validation", 2), ("validation", 4)]


@pytest.mark.parametrize(
    ("moment", "workers"),
    [
        *((moment, 0) for moment in MOMENTS),
        (MOMENTS[1], 2),
        *(pytest.param(moment, 2, marks=pytest.mark.slow) for moment in MOMENTS if moment != MOMENTS[1]),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_bits(config, task, tmp_path, moment, workers):
    config = config.but(epochs=2, workers=workers, save_every=1, validate_every=1)
    train(config, task, tmp_path / "whole")
    with pytest.raises(Stop):
        train(config, task, tmp_path / "cut", watch=stop_at(*moment))
    train(config, task, tmp_path / "cut", resume=True)
    wanted, found = (load_file(tmp_path / run / "weights.safetensors") for run in ("whole", "cut"))
    assert same(found, wanted)
    lines = {run: [x for x in read_log(tmp_path / run) if x["kind"] == "step"] for run in ("whole", "cut")}
    assert [x["loss"] for x in lines["cut"]] == [x["loss"] for x in lines["whole"]]


def test_resuming_a_finished_run_changes_nothing(config, task, tmp_path):
    first = train(config, task, tmp_path)
    before = load_file(first.weights)
    assert train(config, task, tmp_path, resume=True) == first
    assert same(load_file(first.weights), before)


def test_a_run_is_not_overwritten_by_another(config, task, tmp_path):
    train(config.but(epochs=1), task, tmp_path)
    with pytest.raises(UsageError, match="holds a run already"):
        train(config.but(epochs=1), task, tmp_path)
    with pytest.raises(UsageError, match=r"other settings \(lr=0\.001\)"):
        train(config.but(epochs=1, lr=1.0), task, tmp_path, resume=True)
    fewer = replace(task, clips=Labelled(task.clips.paths[1:], task.clips.labels[1:]))
    with pytest.raises(UsageError, match="other clips"):
        train(config.but(epochs=1), fewer, tmp_path, resume=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_saves_and_ends_and_the_run_goes_on_to_the_same_bits(config, task, tmp_path, workers):
    """Sent to this process, to its workers, and to the server of these, as Slurm sends it to a whole job."""
    train(config, task, tmp_path / "whole")
    config = config.but(workers=workers)
    asked = []

    def ask(event):
        if event.kind == "step" and event.step == 3:
            if workers:
                asked.extend(child.pid for child in multiprocessing.active_children())
                asked.append(forkserver._forkserver._forkserver_pid)
            for process in (*asked, os.getpid()):
                os.kill(process, signal.SIGTERM)

    with pytest.raises(Interrupted, match="after step 3 of 4; go on with resume"):
        train(config, task, tmp_path / "asked", watch=ask)
    assert len(asked) == (workers and workers + 1)
    assert state_of(tmp_path / "asked")[0].name == "step-0000003"
    train(config, task, tmp_path / "asked", resume=True)
    wanted, found = (load_file(tmp_path / run / "weights.safetensors") for run in ("whole", "asked"))
    assert same(found, wanted)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_batch(config, task, tmp_path, monkeypatch):
    from ost.train import loop

    real, calls = loop.step_gradient, []

    def poisoned(learner, step, chunks, ranks):
        loss, seen = real(learner, step, chunks, ranks)
        calls.append(seen)
        return (float("nan") if len(calls) == 3 else loss), seen

    monkeypatch.setattr(loop, "step_gradient", poisoned)
    with pytest.raises(OstError, match="loss of step 3 is not finite"):
        train(config, task, tmp_path)
    batch = load_file(tmp_path / "not-finite" / "rank-0" / "batch.safetensors")
    paths = json.loads((tmp_path / "not-finite" / "rank-0" / "batch.json").read_text())
    assert [len(part) for part in paths] == [len(batch[f"{i}.labels"]) for i in range(len(paths))]
    assert {p for part in paths for p in part} == {p for chunk in calls[2] for p in chunk.paths}
    assert state_of(tmp_path)[0].name == "step-0000002"  # from before


def test_embeddings_that_are_not_finite_end_the_run_too(config, task, tmp_path):
    def spoil(event):  # as a learning rate far too high would
        if event.kind == "step" and event.step == 1:
            run.learner.backbone.visual.proj.data.fill_(torch.nan)

    from ost.train.loop import _Run

    run = _Run(config, task, tmp_path, "cpu", one_rank(), spoil, False)
    with pytest.raises(OstError, match="not finite; the batch is in"):
        run.go()
    assert (tmp_path / "not-finite" / "rank-0" / "batch.safetensors").is_file()


def one_rank():
    from ost.ranks import Ranks

    return Ranks()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_clip_is_replaced_named_and_counted(config, task, tmp_path, workers):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    task = replace(task, clips=Labelled((str(broken), *task.clips.paths), (0, *task.clips.labels)))
    outcome = train(config.but(max_unreadable=0.2, workers=workers), task, tmp_path / "run")
    assert list(outcome.unreadable) == [str(broken)]
    told = [line["text"] for line in read_log(tmp_path / "run") if line["kind"] == "unreadable"]
    assert len(told) == 1 and "broken.mp4" in told[0] and "takes its turn" in told[0]


def test_too_many_unreadable_clips_end_the_run(config, task, tmp_path):
    broken = []
    for i in range(4):
        broken.append(tmp_path / f"broken{i}.mp4")
        broken[-1].write_bytes(b"no video")
    clips = Labelled((*map(str, broken), *task.clips.paths), (0, 1, 2, 0, *task.clips.labels))
    with pytest.raises(OstError, match=r"of 13 training clips cannot be read, more than the share of 0\.2"):
        train(config.but(max_unreadable=0.2), replace(task, clips=clips), tmp_path / "run")


def test_an_unreadable_held_out_clip_is_named_and_the_rest_is_scored(config, task, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    held_out = Labelled((str(broken), *task.held_out.paths), (0, *task.held_out.labels))
    outcome = train(config, replace(task, held_out=held_out), tmp_path / "run")
    assert outcome.clips == 3
    assert any("broken.mp4" in line.get("text", "") for line in read_log(tmp_path / "run"))


def test_the_best_weights_are_kept_when_later_ones_are_worse(config, task, tmp_path, monkeypatch):
    from ost.train import loop
    from ost.train.validate import Validation

    scores = iter([1, 3, 2, 0])
    monkeypatch.setattr(loop, "validate", lambda *_: Validation(3, next(scores), 3, ()))
    kept = {}

    def keep(event):
        if event.kind == "checkpoint":
            kept[event.step] = load_file(state_of(tmp_path)[0] / "weights.safetensors")

    outcome = train(config.but(epochs=4), task, tmp_path, watch=keep)
    assert (outcome.step, outcome.accuracy) == (4, 1.0)
    assert same(load_file(outcome.weights), kept[4]) and not same(kept[4], kept[8])


def test_weights_alone_are_taken_from_another_run(config, task, tmp_path):
    first = train(config, task, tmp_path / "first")
    second = train(config.but(weights=str(first.weights)), task, tmp_path / "second")
    steps = [line for line in read_log(tmp_path / "second") if line["kind"] == "step"]
    assert steps[0]["step"] == 1 and steps[0]["lr"] == config.lr
    assert not same(load_file(first.weights), load_file(second.weights))


def test_a_backbone_whose_towers_stand_still_is_refused(config, task, tmp_path):
    with pytest.raises(UsageError, match="ost train adapter"):
        train(config.but(backbone="lite", weights=None), task, tmp_path)


def test_weights_that_are_not_there_are_an_error(config, task, tmp_path):
    with pytest.raises((WeightsError, UsageError), match=r"nowhere\.pth"):
        train(config.but(weights="nowhere.pth"), task, tmp_path)


def test_the_rate_rises_then_falls_along_a_cosine(config):
    config = config.but(epochs=10, warmup_epochs=2, lr=1.0, final_lr=0.01)
    rates = [learning_rate(config, step, 5) for step in range(50)]
    assert rates[0] < rates[5] < rates[9] < 1 and max(rates) == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.01, abs=0.01)
