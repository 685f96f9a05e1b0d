"""The folder of a run: what it was asked to do, written before it begins; and what comes of it.

run/config.json           every setting
    pack.json             the classes, as `--classes` takes them (classes.txt where some have only a name)
    train.csv             the clips it learns from
    held-out.csv          the clips it is validated on
    missing.csv           videos of the lists that could not be used, and why
    log.jsonl             what happened, a line an event; tensorboard/ the same as curves
    checkpoints/          see `ost.train.checkpoint`
    weights.safetensors   at the end: what `--weights` takes
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ost.datasets.manifest import manifest_text
from ost.descriptors.pack import Pack, save_pack
from ost.errors import UsageError
from ost.files import write_text
from ost.ranks import Ranks
from ost.runs import TRAINED_ON, TRAINING, holds_run, refused_folder, save_missing
from ost.train.config import TrainConfig
from ost.train.task import Task

# These change how fast and how watchfully a run goes, not what it learns.
FREE = {"workers", "max_unreadable", "validate_every", "save_every"}


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes:
        weights: the file that `--weights` takes: the best by validation, or the last without one.
        step: the step these weights are of.
        accuracy: share of the held-out clips they recognise; None without such clips.
        clips: how many held-out clips that is measured on.
        before: the same without training, where it was measured.
        unreadable: path -> cause of clips that could not be read.
    """

    weights: Path
    step: int
    accuracy: float | None
    unreadable: dict[str, str]
    clips: int = 0
    before: float | None = None


def check_run(run: Path, config: TrainConfig, task: Task, resume: bool, ranks: Ranks) -> None:
    """Refuse a folder that this run cannot use; called by all ranks, before anything is loaded.

    Raises:
        UsageError: it holds a run and `resume` was not asked for, or a run of other settings or clips.
    """
    fault: tuple[str, ...] = ()
    if ranks.first:
        fault = _fault(run, config, manifest_text(task.clips.listed(task.pack)), resume)
    if fault := next((one for one in ranks.gather(fault) if one), ()):
        raise UsageError(*fault)


def begin_run(run: Path, config: TrainConfig, task: Task, ranks: Ranks) -> None:
    """Write down what a run was asked to do; called once everything is loaded, so that a false start leaves nothing."""
    if ranks.first:
        if not (run / TRAINING).exists():
            write_text(run / TRAINED_ON, manifest_text(task.clips.listed(task.pack)))
            if len(task.held_out):
                write_text(run / "held-out.csv", manifest_text(task.held_out.listed(task.pack)))
            save_missing(run, task.missing)
            _save_classes(task.pack, run)
        write_text(run / TRAINING, config.as_json())
    ranks.wait()


def classes_file(run: Path) -> Path:
    """What `--classes` takes to recognise what a run has learned."""
    pack = run / "pack.json"
    return pack if pack.is_file() else run / "classes.txt"


def _fault(run: Path, config: TrainConfig, clips: str, resume: bool) -> tuple[str, ...]:
    """Why this folder cannot be used, and what to do; empty if it can."""
    place, another = run / TRAINING, "name another folder with {output}"
    if not holds_run(run):
        return ()
    if not resume or not place.is_file():
        return refused_folder(run).args
    if other := _differences(place.read_text(encoding="utf-8"), config):
        return f"{run}: was started with other settings ({other})", "resume with the same", another
    listed = run / TRAINED_ON
    if not listed.is_file() or listed.read_bytes() != clips.encode():
        return f"{run}: was started with other clips than are found now", f"compare {listed}", another
    return ()


def _save_classes(pack: Pack, run: Path) -> None:
    if all(item.spatial or item.temporal for item in pack.classes):
        save_pack(pack, run / "pack.json")
    else:
        write_text(run / "classes.txt", "".join(f"{name}\n" for name in pack.names))


def _differences(there: str, config: TrainConfig) -> str:
    try:
        before: dict[str, Any] = json.loads(there)
    except ValueError:
        return "its config.json is damaged"
    now = config.model_dump(mode="json")
    return ", ".join(f"{k}={before.get(k)!r}" for k in now if k not in FREE and before.get(k) != now[k])
