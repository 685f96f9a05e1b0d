"""The journal of a run: every answer that was paid for, appended as it comes, so that a killed run goes on.

One JSON object a line: the first holds the settings, each later one an answer. What an answer is worth is not
written down: judging it again is free.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from ost.descriptors.pack import MAX_BYTES
from ost.errors import PackError, UsageError


class Answer(NamedTuple):
    """What an LLM wrote about one class, and the tokens it took."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0


class Journal:
    """Answers by class, in the order they came; opened by one process at a time.

    Args:
        path: the file; made if it is not there, gone on with if it is.
        settings: what makes answers comparable: model, prompt version, count, ...

    Raises:
        UsageError: another process has it open, or it was begun with other settings.
        PackError: it cannot be read.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        from filelock import FileLock, Timeout

        self.path = path
        self.answers: defaultdict[str, list[Answer]] = defaultdict(list)
        path.parent.mkdir(parents=True, exist_ok=True)
        # The system frees the lock of a process that was killed.
        self._lock = FileLock(f"{path}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise UsageError(
                f"{path}: another run is writing it; wait for its end, or write elsewhere"
            ) from error
        try:
            whole = self._read(settings)
            self._file = path.open("ab")
            self._file.truncate(whole)  # the half of a line that a kill may leave
        except BaseException:
            self._lock.release()
            raise
        self._writing = Lock()
        if not whole:
            self._append({"settings": dict(settings)})

    def add(self, name: str, answer: Answer) -> None:
        """Keep an answer; it is on disk when this returns."""
        self.answers[name].append(answer)
        self._append({"class": name, **answer._asdict()})

    def close(self, *, remove: bool = False) -> None:
        """Let go of the file, and remove it if what it held is now elsewhere."""
        self._file.close()
        if remove:
            self.path.unlink(missing_ok=True)
        self._lock.release()
        if remove:
            Path(self._lock.lock_file).unlink(missing_ok=True)

    def _read(self, settings: Mapping[str, Any]) -> int:
        """Take in what is there; returns how many bytes of it are whole lines."""
        if not self.path.exists():
            return 0
        try:
            data = self.path.read_bytes() if self.path.stat().st_size <= MAX_BYTES else None
        except OSError as error:
            raise PackError(f"{self.path}: cannot be read ({error.strerror})") from error
        if data is None:
            raise PackError(f"{self.path}: larger than {MAX_BYTES >> 20} MiB, which no journal is; remove it")
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                self._take(json.loads(line), settings)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise PackError(
                    f"{self.path}: line {number} is not a line of a journal; mend or remove the file"
                ) from error
        return whole

    def _take(self, entry: dict[str, Any], settings: Mapping[str, Any]) -> None:
        if "settings" in entry:
            if other := differences(entry["settings"], settings):
                raise UsageError(
                    f"{self.path}: was begun with other settings ({other}); use those, remove it, "
                    "or write elsewhere"
                )
        else:
            name, text = entry["class"], entry["text"]
            if not isinstance(name, str) or not isinstance(text, str):
                raise TypeError
            self.answers[name].append(Answer(text, int(entry["tokens_in"]), int(entry["tokens_out"])))

    def _append(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry).encode() + b"\n"  # ASCII: an answer may hold half a character
        with self._writing:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The settings that changed, as "model: a -> b"; empty if none did."""
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return ", ".join(f"{key}: {before.get(key)} -> {now.get(key)}" for key in keys)
