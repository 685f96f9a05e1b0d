"""Log the events of a run to JSONL and TensorBoard, and pass them to a callback."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ost.errors import UsageError

LOG = "log.jsonl"


class Event(NamedTuple):
    """An event of a run.

    Attributes:
        kind: "step", "validation", "unreadable", "checkpoint" or "notice".
        step: optimiser steps completed.
        steps: steps of the whole run.
        numbers: name -> measured value.
        text: a message.
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
        run: the folder of `log.jsonl` and `tensorboard/`.
        steps: steps of the whole run.
        watch: called with every event, on the rank that writes.
        writes: whether this rank writes.
        begun: steps that a resumed run has already completed; later lines of the log are dropped.
    """

    def __init__(self, run: Path, steps: int, watch: Watch, *, writes: bool, begun: int) -> None:
        self._steps, self._watch, self._writes = steps, watch, writes
        self._path = run / LOG
        self._board: Any = None
        if writes:
            _drop_later_lines(self._path, begun)
            self._file = self._path.open("a", encoding="utf-8")
            self._board = _tensorboard(run / "tensorboard", begun)

    def __call__(
        self, kind: str, step: int, numbers: Mapping[str, float] | None = None, text: str = ""
    ) -> None:
        """Write an event and pass it to `watch`."""
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
        """Flush and close the files."""
        if self._writes:
            self._file.close()
            if self._board is not None:
                self._board.close()


def has_tensorboard() -> bool:
    """Return whether the package tensorboard is installed."""
    from importlib.util import find_spec

    return find_spec("tensorboard") is not None


def _tensorboard(folder: Path, begun: int) -> Any:
    if not has_tensorboard():
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=begun + 1)


def _drop_later_lines(path: Path, step: int) -> None:
    """Drop the lines of steps after the last checkpoint of a killed run, which will be repeated."""
    from ost.files import write_text

    if not path.is_file():
        return
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if int(json.loads(line)["step"]) <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):  # truncated by the kill
            continue
    write_text(path, "".join(f"{line}\n" for line in kept))


def read_log(run: Path) -> list[dict[str, Any]]:
    """Return the events in the log of a run.

    Raises:
        UsageError: there is none.
    """
    path = run / LOG
    if not path.is_file():
        raise UsageError(f"{run}: holds no log of a training run")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
