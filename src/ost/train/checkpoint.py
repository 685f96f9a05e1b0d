"""Checkpoints: a folder each, complete or not there; the last and the best are kept.

    run/checkpoints/step-000120/weights.safetensors   what `--weights` takes
                                state/                parameters and optimiser, by torch.distributed.checkpoint
                                progress.json         where the run stands
    run/checkpoints/last, best                        names of folders

A folder is written under another name and renamed when everything in it is on the disk, so that one cut off by a
kill or a full disk is never taken for a checkpoint, and the one before it stays until then.
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
    """Where a run stands.

    Attributes:
        step: optimiser steps done.
        best: the best validation accuracy so far, and -1 before the first.
        best_step: the step that reached it.
        clips: how many held-out clips that was.
        settled: whether what is due after this step, such as validation, is done.
        unreadable: index -> (path, cause) of the training clips that could not be read.
    """

    step: int = 0
    best: float = -1.0
    best_step: int = -1
    clips: int = 0
    settled: bool = True
    unreadable: Mapping[int, tuple[str, str]] = field(default_factory=dict[int, tuple[str, str]])


class Checkpoints:
    """The checkpoints of a run.

    Args:
        run: its folder.
        ranks: all of them save and load together.
    """

    def __init__(self, run: Path, ranks: Ranks) -> None:
        self.home = run / "checkpoints"
        self._ranks = ranks

    def save(self, weights: Weights, state: State, progress: Progress, which: tuple[Which, ...]) -> None:
        """Write a checkpoint as the last, the best, or both.

        Raises:
            OstError: it cannot be written; what was there before stays.
        """
        name = self._free_name(f"step-{progress.step:07d}")
        target, partial = self.home / name, self.home / f".{name}.partial"
        faults = self._ranks.gather(self._try_write(partial, weights, state, progress))
        if fault := next((fault for fault in faults if fault), None):
            if self._ranks.first:
                shutil.rmtree(partial, ignore_errors=True)
            raise OstError(f"{target}: the checkpoint cannot be written ({fault}); the one before it is kept")
        fault = self._try_settle(partial, target, which) if self._ranks.first else ""
        if fault := self._ranks.gather(fault)[0]:
            raise OstError(f"{target}: the checkpoint cannot be written ({fault}); the one before it is kept")

    def _free_name(self, name: str) -> str:
        """The name, or with a number behind it if it is taken: what a pointer names is never written over."""
        taken = {folder.name for folder in self.home.iterdir()} if self.home.is_dir() else set[str]()
        names = (name, *(f"{name}.{n}" for n in range(1, len(taken) + 1)))
        # The first rank's disk decides, in case another sees it later.
        return self._ranks.gather(next(n for n in names if n not in taken))[0]

    def _try_settle(self, partial: Path, target: Path, which: tuple[Which, ...]) -> str:
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
        """The folder of the last or the best checkpoint; None if there is none."""
        pointer = self.home / which
        if not pointer.is_file():
            return None
        folder = self.home / pointer.read_text(encoding="utf-8").strip()
        return folder if (folder / "progress.json").is_file() else None

    def load(self, folder: Path, state: State) -> Progress:
        """Fill the tensors of a state, in place, and say where the run stood.

        Raises:
            OstError: the checkpoint is damaged, or of another architecture or regime.
        """
        try:
            told: dict[str, Any] = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
            unreadable = {
                int(index): (path, cause) for index, (path, cause) in told.pop("unreadable").items()
            }
            progress = Progress(**told, unreadable=unreadable)
            _load_state(state, folder / "state", self._ranks)
        except (Exception, _checkpoint_error()) as error:  # torch's loader and JSON fail in ways of their own
            raise OstError(
                f"{folder}: this checkpoint does not fit the run ({_cause(error)}); "
                "resume with the settings it was made with"
            ) from error
        return progress

    def _clear(self) -> None:
        """Remove what no pointer names any more."""
        kept = {folder.name for which in ("last", "best") if (folder := self.find(which))}
        for folder in self.home.iterdir():
            if folder.is_dir() and folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def _save_state(state: State, folder: Path, ranks: Ranks) -> None:
    from torch.distributed.checkpoint.state_dict_saver import save

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says that there is no process group, which is so
        save(dict(state), checkpoint_id=folder, no_dist=ranks.world == 1)


def _load_state(state: State, folder: Path, ranks: Ranks) -> None:
    from torch.distributed.checkpoint.state_dict_loader import load

    _check_names(state, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load(dict(state), checkpoint_id=folder, no_dist=ranks.world == 1)


def _check_names(state: State, folder: Path) -> None:
    """torch asks only whether everything that is wanted is there, not whether more is."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    there = set(FileSystemReader(folder).read_metadata().state_dict_metadata)
    wanted = {f"{part}.{name}" for part, tensors in state.items() for name in tensors}
    if extra := sorted(there - wanted):
        raise ValueError(f"it holds {extra[0]}, which this run does not train")


def _checkpoint_error() -> type[BaseException]:
    """What torch raises when any rank failed; it is no `Exception`."""
    from torch.distributed.checkpoint.api import CheckpointException

    return CheckpointException


def _cause(error: BaseException) -> str:
    """What went wrong, which torch wraps up by rank."""
    failures = getattr(error, "failures", None)
    inner = next(iter(failures.values()))[0] if failures else error
    return first_line(inner)


def _to_disk(folder: Path) -> None:
    """Wait until the disk has everything, so that a rename never comes before what it names."""
    for place in (*folder.rglob("*"), folder):
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
