"""Read and write the folder of a run: its inputs, written before it begins, and its results.

run/config.json           every setting
    pack.json             the classes, as `--classes` takes them (classes.txt where some have only a name)
    train.csv             the training clips
    held-out.csv          the validation clips
    missing.csv           videos of the lists that could not be used, and why
    log.jsonl             the events, one per line; tensorboard/ holds the same as curves
    checkpoints/          see `ost.train.checkpoint`
    weights.safetensors   the result, as `--weights` takes it; written at the end
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
from ost.train.task import TrainingTask

# These may change on resume: they affect the speed and the monitoring of a run, not what it learns.
FREE = {"workers", "max_unreadable", "validate_every", "save_every"}


@dataclass(frozen=True)
class TrainingResult:
    """The result of a finished run.

    Attributes:
        weights: the file that `--weights` takes: the best by validation, or the last without validation.
        step: the step of these weights.
        accuracy: share of the held-out clips they recognise; None without held-out clips.
        clips: number of held-out clips behind the accuracy.
        before: the accuracy before training, where it was measured.
        unreadable: path -> cause of clips that could not be read.
    """

    weights: Path
    step: int
    accuracy: float | None
    unreadable: dict[str, str]
    clips: int = 0
    before: float | None = None


def check_run(run: Path, config: TrainConfig, task: TrainingTask, resume: bool, ranks: Ranks) -> None:
    """Refuse a folder that this run cannot use; called by all ranks, before anything is loaded.

    Raises:
        UsageError: it holds a run and `resume` is False, or a run of other settings or clips.
    """
    fault: tuple[str, ...] = ()
    if ranks.first:
        fault = _fault(run, config, manifest_text(task.clips.listed(task.pack)), resume)
    if fault := next((fault for fault in ranks.gather(fault) if fault), ()):
        raise UsageError(*fault)


def begin_run(run: Path, config: TrainConfig, task: TrainingTask, ranks: Ranks) -> None:
    """Write the inputs of a run; called once everything is loaded, so that a failed start leaves no files."""
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
    """Return the file with the classes of a run, as `--classes` takes it."""
    pack = run / "pack.json"
    return pack if pack.is_file() else run / "classes.txt"


def _fault(run: Path, config: TrainConfig, clips: str, resume: bool) -> tuple[str, ...]:
    """Return why this folder cannot be used and the remedies, or an empty tuple if it can."""
    config_path, another = run / TRAINING, "name another folder with {output}"
    if not holds_run(run):
        return ()
    if not resume or not config_path.is_file():
        return refused_folder(run).args
    if differences := _differences(config_path.read_text(encoding="utf-8"), config):
        return (
            f"{run}: was started with other settings ({differences})",
            "resume with the same",
            another,
        )
    manifest = run / TRAINED_ON
    if not manifest.is_file() or manifest.read_bytes() != clips.encode():
        return f"{run}: was started with other clips than are found now", f"compare {manifest}", another
    return ()


def _save_classes(pack: Pack, run: Path) -> None:
    if all(item.spatial or item.temporal for item in pack.classes):
        save_pack(pack, run / "pack.json")
    else:
        write_text(run / "classes.txt", "".join(f"{name}\n" for name in pack.labels))


def _differences(saved: str, config: TrainConfig) -> str:
    try:
        before: dict[str, Any] = json.loads(saved)
    except ValueError:
        return "its config.json is damaged"
    now = config.model_dump(mode="json")
    return ", ".join(f"{k}={before.get(k)!r}" for k in now if k not in FREE and before.get(k) != now[k])
