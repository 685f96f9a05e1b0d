"""Checkpoints: complete or not there, whatever goes wrong while one is written."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

import ost.train.checkpoint as checkpoint
from ost.errors import OstError
from ost.ranks import Ranks
from ost.train.checkpoint import Checkpoints, Progress
from ost.types import Preprocess
from ost.weights.formats import Weights, read_weights

BOTH = ("last", "best")
PROGRESS = Progress(
    step=3,
    best=1 / 3,
    best_step=2,
    clips=9,
    settled=False,
    unreadable={4: ("clips/ä b.mp4", "the file is empty"), 11: ("x", 'a "quoted" cause\nof two lines')},
)


def weights(seed=0):
    pixels = Preprocess(32, 32, "bilinear", False, (0.5,) * 3, (0.25,) * 3)
    generator = torch.Generator().manual_seed(seed)
    return Weights(
        {"visual.proj": torch.randn(4, 3, generator=generator), "logit_scale": torch.tensor(4.6)},
        "open_clip",
        "",
        pixels,
        True,
    )


def state(seed=0, width=3, names=("visual.proj", "logit_scale")):
    """Parameters and moments: several dtypes, a number, numbers that are not finite."""
    generator = torch.Generator().manual_seed(seed)
    parameters = {name: torch.randn(4, width, generator=generator) for name in names}
    moments = {f"{name}/exp_avg": torch.randn(4, width, generator=generator) for name in names}
    moments |= {f"{name}/step": torch.tensor(float(seed)) for name in names}
    moments["half"] = torch.randn(5, generator=generator).bfloat16()
    moments["odd"] = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    return {"parameters": parameters, "moments": moments}


def bits(state):
    return {
        f"{part}/{name}": (tensor.dtype, tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        for part, tensors in state.items()
        for name, tensor in tensors.items()
    }


@pytest.fixture
def kept(tmp_path):
    return Checkpoints(tmp_path / "run", Ranks())


def save(kept, step, which=("last",), seed=None):
    kept.save(weights(step), state(step if seed is None else seed), Progress(step=step), which)


def folders(kept):
    return sorted(p.name for p in kept.home.iterdir() if p.is_dir())


def test_what_was_saved_is_loaded_to_the_bit(kept):
    kept.save(weights(1), state(1), PROGRESS, BOTH)
    target = state(2)
    tensors = {name: tensor for part in target.values() for name, tensor in part.items()}
    assert bits(target) != bits(state(1))
    assert kept.load(kept.find("last"), target) == PROGRESS
    assert bits(target) == bits(state(1))
    for part in target.values():
        assert all(part[name] is tensors[name] for name in part), "filled in place"


def test_the_weights_of_a_checkpoint_are_a_weight_file(kept):
    save(kept, 1)
    found, expected = read_weights(kept.find("last") / "weights.safetensors"), weights(1)
    assert all(torch.equal(found.state[name], tensor) for name, tensor in expected.state.items())
    assert found.preprocess == expected.preprocess


def test_there_is_no_checkpoint_before_the_first(kept):
    assert kept.find("last") is None
    assert kept.find("best") is None


def test_pointers_name_the_last_and_the_best_and_the_others_are_cleared(kept):
    save(kept, 1, BOTH)
    assert kept.find("last") == kept.find("best") == kept.home / "step-0000001"
    save(kept, 2)
    save(kept, 3)
    assert (kept.find("best").name, kept.find("last").name) == ("step-0000001", "step-0000003")
    assert folders(kept) == ["step-0000001", "step-0000003"]
    save(kept, 4, BOTH)
    assert folders(kept) == ["step-0000004"]
    save(kept, 5, ("best",))
    assert (kept.find("best").name, kept.find("last").name) == ("step-0000005", "step-0000004")
    assert folders(kept) == ["step-0000004", "step-0000005"]


def test_pointers_are_found_by_another_process_and_after_the_run_has_moved(kept, tmp_path):
    save(kept, 1, BOTH)
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = Checkpoints(tmp_path / "moved", Ranks())
    target = state(0)
    assert moved.load(moved.find("best"), target).step == 1
    assert bits(target) == bits(state(1))


def test_a_step_that_is_saved_again_takes_the_place_of_the_first(kept):
    save(kept, 1, BOTH, seed=1)
    save(kept, 1, BOTH, seed=2)
    target = state(0)
    kept.load(kept.find("last"), target)
    assert bits(target) == bits(state(2))
    assert len(folders(kept)) == 1


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def fail_at(monkeypatch, place):
    if place == "weights":
        monkeypatch.setattr(checkpoint, "save_weights", full)
    elif place == "state":
        monkeypatch.setattr("torch.distributed.checkpoint.state_dict_saver.save", full)
    elif place == "a tensor of the state":
        monkeypatch.setattr("torch.distributed.checkpoint.filesystem._write_item", full)
    elif place == "the disk":
        monkeypatch.setattr(checkpoint, "_to_disk", full)
    else:
        written = checkpoint.write_text
        monkeypatch.setattr(
            checkpoint,
            "write_text",
            lambda path, text: full() if path.name == place else written(path, text),
        )


PLACES = ("weights", "progress.json", "state", "a tensor of the state", "the disk", "last")


@pytest.mark.parametrize("place", PLACES)
def test_a_write_that_fails_is_told_in_a_sentence_and_leaves_the_checkpoint_before(kept, monkeypatch, place):
    save(kept, 1, BOTH)
    fail_at(monkeypatch, place)
    with pytest.raises(OstError, match="step-0000002: the checkpoint cannot be written") as error:
        save(kept, 2, BOTH)
    assert "\n" not in str(error.value)
    if place != "a tensor of the state":  # torch wraps what it says
        assert "No space left" in str(error.value)
    assert not [name for name in folders(kept) if "partial" in name], "the disk is not kept full"
    for which in BOTH:
        target = state(0)
        assert kept.load(kept.find(which), target).step == 1
        assert bits(target) == bits(state(1))
        assert read_weights(kept.find(which) / "weights.safetensors").state["logit_scale"] > 4


def test_a_run_saves_again_after_a_write_that_failed(kept, monkeypatch):
    with monkeypatch.context() as patch:
        fail_at(patch, "state")
        with pytest.raises(OstError):
            save(kept, 1, BOTH)
    assert kept.find("last") is None
    save(kept, 1, BOTH)
    assert kept.find("last").name == "step-0000001"


def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(tmp_path):
    (tmp_path / "run").write_text("a file is in the way")
    with pytest.raises(OstError, match="cannot be written"):
        save(Checkpoints(tmp_path / "run", Ranks()), 1)


def test_a_half_written_folder_is_no_checkpoint_and_is_replaced(kept):
    save(kept, 1, BOTH)
    partial = kept.home / ".step-0000002.partial"
    shutil.copytree(kept.find("last"), partial)
    (partial / "weights.safetensors").write_bytes(b"cut off")
    (partial / "state" / "left-over").write_bytes(b"x")
    assert kept.find("last").name == "step-0000001"
    save(kept, 2)
    assert folders(kept) == ["step-0000001", "step-0000002"]
    assert not (kept.find("last") / "state" / "left-over").exists()
    target = state(0)
    kept.load(kept.find("last"), target)
    assert bits(target) == bits(state(2))


def test_a_half_written_folder_of_another_step_is_cleared(kept):
    (kept.home / ".step-0000007.partial").mkdir(parents=True)
    save(kept, 1)
    assert len(folders(kept)) == 1


def test_a_kill_before_the_pointers_are_written_leaves_the_checkpoint_before(kept, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(path, text):
        if path.name in BOTH:
            raise Killed
        written(path, text)

    save(kept, 1, BOTH)
    written = checkpoint.write_text
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint, "write_text", kill)
        save(kept, 2, BOTH, seed=7)
    assert kept.find("last").name == "step-0000001"
    save(kept, 2, BOTH)
    target = state(0)
    kept.load(kept.find("last"), target)
    assert bits(target) == bits(state(2))


def test_a_step_that_is_saved_again_is_never_without_a_checkpoint(kept, monkeypatch):
    """A run that was stopped during validation saves the step that it was resumed from."""
    save(kept, 1, BOTH)
    seen = []

    def watched(act):
        def watch(*given, **named):
            seen.append(kept.find("last"))
            done = act(*given, **named)
            seen.append(kept.find("last"))
            return done

        return watch

    monkeypatch.setattr(checkpoint.Path, "rename", watched(checkpoint.Path.rename))
    monkeypatch.setattr(checkpoint.shutil, "rmtree", watched(shutil.rmtree))
    monkeypatch.setattr(checkpoint.Path, "replace", watched(checkpoint.Path.replace))
    save(kept, 1, BOTH)
    assert len(seen) >= 4
    assert None not in seen


def test_everything_is_on_the_disk_before_the_folder_has_its_name(kept, monkeypatch):
    synced, sync = set(), os.fsync

    def watch(handle):
        synced.add(str(Path(f"/proc/self/fd/{handle}").readlink()))
        sync(handle)

    rename = checkpoint.Path.rename

    def check(self, target):
        if self.name.endswith(".partial"):
            there = {str(path) for path in (self, *self.rglob("*"))}
            assert len(there) >= 6
            assert there <= synced
        return rename(self, target)

    monkeypatch.setattr(checkpoint.os, "fsync", watch)
    monkeypatch.setattr(checkpoint.Path, "rename", check)
    save(kept, 1)
    assert kept.find("last").name == "step-0000001"


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def told(file, **changes):
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in values.items() if value != "remove"}))


DAMAGES = {
    "progress that is cut off": lambda folder: cut(folder / "progress.json"),
    "empty progress": lambda folder: (folder / "progress.json").write_text(""),
    "progress that is a list": lambda folder: (folder / "progress.json").write_text("[1, 2]"),
    "progress that is not text": lambda folder: (folder / "progress.json").write_bytes(b"\xff\xfe\x00"),
    "progress without the clips": lambda folder: told(folder / "progress.json", unreadable="remove"),
    "progress with more": lambda folder: told(folder / "progress.json", mood="good"),
    "unreadable clips without a cause": lambda folder: told(
        folder / "progress.json", unreadable={"1": ["x"]}
    ),
    "no progress": lambda folder: (folder / "progress.json").unlink(),
    "a state that is cut off": lambda folder: [cut(file) for file in folder.glob("state/*.distcp")],
    "a state without its list": lambda folder: (folder / "state" / ".metadata").unlink(),
    "a list that is cut off": lambda folder: cut(folder / "state" / ".metadata"),
    "an empty list": lambda folder: (folder / "state" / ".metadata").write_bytes(b""),
    "no state": lambda folder: shutil.rmtree(folder / "state"),
    "no tensors": lambda folder: [file.unlink() for file in folder.glob("state/*.distcp")],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_named(kept, damage):
    save(kept, 1)
    folder = kept.find("last")
    damage(folder)
    with pytest.raises(OstError, match=f"^{folder}: ") as error:
        kept.load(folder, state(0))
    assert "\n" not in str(error.value)


OTHERS = {
    "another width": {"width": 5},
    "a layer more": {"names": ("visual.proj", "logit_scale", "visual.extra")},
    "other names": {"names": ("prompts.visual",)},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_checkpoint_of_another_architecture_does_not_load(kept, other):
    save(kept, 1)
    folder = kept.find("last")
    with pytest.raises(OstError, match=f"^{folder}: .*does not fit the run.*resume with the settings"):
        kept.load(folder, state(0, **other))


def test_a_checkpoint_with_tensors_that_the_run_lacks_does_not_load(kept):
    save(kept, 1)
    folder = kept.find("last")
    with pytest.raises(OstError, match="does not fit"):
        kept.load(folder, state(0, names=("visual.proj",)))


@pytest.mark.parametrize("text", ["", "step-0000009", "elsewhere/step-0000001"])
def test_a_pointer_to_what_is_not_there_finds_nothing(kept, text):
    save(kept, 1)
    (kept.home / "last").write_text(text)
    assert kept.find("last") is None
