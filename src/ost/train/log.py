"""What a run writes down while it goes: JSONL, TensorBoard, and events for whoever looks on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ost.errors import UsageError

LOG = "log.jsonl"


class Event(NamedTuple):
    """Something that happened in a run.

    Attributes:
        kind: "step", "validation", "unreadable", "checkpoint" or "notice".
        step: optimiser steps done.
        steps: of the whole run.
        numbers: what was measured.
        text: what there is to say.
    """

    kind: str
    step: int
    steps: int
    numbers: Mapping[str, float]
    text: str = ""


Watch = Callable[[Event], None]


class Log:
    """The log of a run, appended to by the first rank alone.

    Args:
        run: the folder, in which `log.jsonl` and `tensorboard/` are.
        steps: of the whole run.
        watch: is given every event.
        writes: whether this rank writes.
        begun: steps that a resumed run has already done; later lines of the log are dropped.
    """

    def __init__(self, run: Path, steps: int, watch: Watch, *, writes: bool, begun: int) -> None:
        self._steps, self._watch, self._writes = steps, watch, writes
        self._path = run / LOG
        self._board: Any = None
        if writes:
            _forget_after(self._path, begun)
            self._file = self._path.open("a", encoding="utf-8")
            self._board = _tensorboard(run / "tensorboard", begun)

    def __call__(
        self, kind: str, step: int, numbers: Mapping[str, float] | None = None, text: str = ""
    ) -> None:
        """Write an event down and tell it."""
        event = Event(kind, step, self._steps, dict(numbers or {}), text)
        if self._writes:
            line = {"kind": kind, "step": step, **event.numbers, **({"text": text} if text else {})}
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            if self._board is not None:
                for name, value in event.numbers.items():
                    self._board.add_scalar(f"{kind}/{name}", value, step)
            self._watch(event)

    def close(self) -> None:
        """Bring everything to the disk."""
        if self._writes:
            self._file.close()
            if self._board is not None:
                self._board.close()


def has_tensorboard() -> bool:
    """Whether curves can be written for TensorBoard."""
    from importlib.util import find_spec

    return find_spec("tensorboard") is not None


def _tensorboard(folder: Path, begun: int) -> Any:
    if not has_tensorboard():
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=begun + 1)


def _forget_after(path: Path, step: int) -> None:
    """Drop the lines of steps that a killed run did after its last checkpoint; they will be done again."""
    from ost.files import write_text

    if not path.is_file():
        return
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if int(json.loads(line)["step"]) <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):  # cut off by the kill
            continue
    write_text(path, "".join(f"{line}\n" for line in kept))


def read_log(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log.

    Raises:
        UsageError: there is none.
    """
    path = run / LOG
    if not path.is_file():
        raise UsageError(f"{run}: holds no log of a training run")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
