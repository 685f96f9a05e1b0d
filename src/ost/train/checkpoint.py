"""Save and load checkpoints, a folder each; a folder is complete or absent, and the last and the best are kept.

    run/checkpoints/step-000120/weights.safetensors   what `--weights` takes
                                state/                parameters and optimiser, by torch.distributed.checkpoint
                                progress.json         where the run stands
    run/checkpoints/last, best                        names of folders

A folder is written under a temporary name and renamed once it is synced to disk. A partial write, from a kill or a
full disk, is never taken for a checkpoint, and the previous one stays until then.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from ost.errors import OstError, first_line
from ost.files import write_text
from ost.ranks import Ranks
from ost.weights.formats import Weights, save_weights

Which = Literal["last", "best"]
State = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Progress:
    """The progress of a run.

    Attributes:
        step: optimiser steps completed.
        best: the best validation accuracy so far, and -1 before the first.
        best_step: the step that reached it.
        clips: number of held-out clips behind that accuracy.
        settled: whether the work due after this step, such as validation, is complete.
        unreadable: index -> (path, cause) of the training clips that could not be read.
    """

    step: int = 0
    best: float = -1.0
    best_step: int = -1
    clips: int = 0
    settled: bool = True
    unreadable: Mapping[int, tuple[str, str]] = field(default_factory=dict[int, tuple[str, str]])


class Checkpoints:
    """Save, find and load the checkpoints of a run.

    Args:
        run: the folder of the run.
        ranks: the processes, which save and load together.
    """

    def __init__(self, run: Path, ranks: Ranks) -> None:
        self.home = run / "checkpoints"
        self._ranks = ranks

    def save(self, weights: Weights, state: State, progress: Progress, which: tuple[Which, ...]) -> None:
        """Write a checkpoint as the last, the best, or both.

        Raises:
            OstError: it cannot be written; the previous checkpoint stays.
        """
        name = self._free_name(f"step-{progress.step:07d}")
        target, partial = self.home / name, self.home / f".{name}.partial"
        faults = self._ranks.gather(self._try_write(partial, weights, state, progress))
        if fault := next((fault for fault in faults if fault), None):
            if self._ranks.first:
                shutil.rmtree(partial, ignore_errors=True)
            raise OstError(f"{target}: the checkpoint cannot be written ({fault}); the one before it is kept")
        fault = self._try_publish(partial, target, which) if self._ranks.first else ""
        if fault := self._ranks.gather(fault)[0]:
            raise OstError(f"{target}: the checkpoint cannot be written ({fault}); the one before it is kept")

    def _free_name(self, name: str) -> str:
        """Return the name, with a number appended if it is taken, so that no checkpoint in use is overwritten."""
        taken = {folder.name for folder in self.home.iterdir()} if self.home.is_dir() else set[str]()
        names = (name, *(f"{name}.{n}" for n in range(1, len(taken) + 1)))
        # The first rank decides, because a shared disk may show a new folder to other ranks later.
        return self._ranks.gather(next(n for n in names if n not in taken))[0]

    def _try_publish(self, partial: Path, target: Path, which: tuple[Which, ...]) -> str:
        try:
            _to_disk(partial)
            partial.rename(target)
            for pointer in which:
                write_text(self.home / pointer, target.name)
            self._clear()
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            return first_line(error)
        return ""

    def _try_write(self, folder: Path, weights: Weights, state: State, progress: Progress) -> str:
        try:
            if self._ranks.first:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                save_weights(weights, folder / "weights.safetensors")
                write_text(folder / "progress.json", json.dumps(asdict(progress)))
        except OSError as error:
            fault = first_line(error)
        else:
            fault = ""
        if any(self._ranks.gather(fault)):
            return fault
        try:
            _save_state(state, folder / "state", self._ranks)
        except (Exception, _checkpoint_error()) as error:
            return _cause(error)
        return ""

    def find(self, which: Which) -> Path | None:
        """Return the folder of the last or the best checkpoint, or None."""
        pointer = self.home / which
        if not pointer.is_file():
            return None
        folder = self.home / pointer.read_text(encoding="utf-8").strip()
        return folder if (folder / "progress.json").is_file() else None

    def load(self, folder: Path, state: State) -> Progress:
        """Load a checkpoint into the tensors of a state, in place, and return the progress saved with it.

        Raises:
            OstError: the checkpoint is damaged, or of another architecture or regime.
        """
        try:
            metadata: dict[str, Any] = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
            unreadable = {
                int(index): (path, cause) for index, (path, cause) in metadata.pop("unreadable").items()
            }
            progress = Progress(**metadata, unreadable=unreadable)
            _load_state(state, folder / "state", self._ranks)
        except (Exception, _checkpoint_error()) as error:  # torch's loader and JSON raise many types
            raise OstError(
                f"{folder}: this checkpoint does not fit the run ({_cause(error)}); "
                "resume with the settings it was made with"
            ) from error
        return progress

    def _clear(self) -> None:
        """Remove the checkpoints that are neither the last nor the best."""
        kept = {folder.name for which in ("last", "best") if (folder := self.find(which))}
        for folder in self.home.iterdir():
            if folder.is_dir() and folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def _save_state(state: State, folder: Path, ranks: Ranks) -> None:
    from torch.distributed.checkpoint.state_dict_saver import save

    with warnings.catch_warnings():
        # Without a process group torch warns, but a single process needs none.
        warnings.simplefilter("ignore")
        save(dict(state), checkpoint_id=folder, no_dist=ranks.world == 1)


def _load_state(state: State, folder: Path, ranks: Ranks) -> None:
    from torch.distributed.checkpoint.state_dict_loader import load

    _check_names(state, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load(dict(state), checkpoint_id=folder, no_dist=ranks.world == 1)


def _check_names(state: State, folder: Path) -> None:
    """Raise ValueError if the checkpoint holds extra tensors; torch checks only for missing ones."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    saved_names = set(FileSystemReader(folder).read_metadata().state_dict_metadata)
    trained_names = {f"{part}.{name}" for part, tensors in state.items() for name in tensors}
    if extra := sorted(saved_names - trained_names):
        raise ValueError(f"it holds {extra[0]}, which this run does not train")


def _checkpoint_error() -> type[BaseException]:
    """Return the type that torch raises when any rank failed, which is not an `Exception`."""
    from torch.distributed.checkpoint.api import CheckpointException

    return CheckpointException


def _cause(error: BaseException) -> str:
    """Return the first line of an error, unwrapped from the failures by rank that torch raises."""
    failures = getattr(error, "failures", None)
    inner = next(iter(failures.values()))[0] if failures else error
    return first_line(inner)


def _to_disk(folder: Path) -> None:
    """Sync a folder and its contents to disk, so that a rename never precedes the data."""
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
