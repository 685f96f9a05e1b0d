"""The journal of a run: every answer that was paid for, appended as it arrives, so that a killed run can resume.

One JSON object a line: the first holds the settings, each later one an answer. Whether an answer passed is not
recorded: judging it again is free.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from ost.descriptors.pack import MAX_PACK_BYTES
from ost.errors import PackError, UsageError


class Answer(NamedTuple):
    """An LLM's text about one class, and the tokens it used."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0


class Journal:
    """Answers by class, in order of arrival; opened by one process at a time.

    Args:
        path: the file; created if missing, continued if it exists.
        settings: what makes answers comparable: model, prompt version, count, ...

    Raises:
        UsageError: another process has it open, or it was started with other settings.
        PackError: it cannot be read.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        from filelock import FileLock, Timeout

        self.path = path
        self.answers: defaultdict[str, list[Answer]] = defaultdict(list)
        path.parent.mkdir(parents=True, exist_ok=True)
        # The operating system releases the lock of a killed process.
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
            self._file.truncate(whole)  # drop the partial line that a kill may leave
        except BaseException:
            self._lock.release()
            raise
        self._write_lock = Lock()
        if not whole:
            self._append({"settings": dict(settings)})

    def add(self, name: str, answer: Answer) -> None:
        """Append an answer; it is on disk when this returns."""
        self.answers[name].append(answer)
        self._append({"class": name, **answer._asdict()})

    def close(self, *, remove: bool = False) -> None:
        """Close and unlock the file; with `remove`, delete it because its answers are in the pack."""
        self._file.close()
        if remove:
            self.path.unlink(missing_ok=True)
        self._lock.release()
        if remove:
            Path(self._lock.lock_file).unlink(missing_ok=True)

    def _read(self, settings: Mapping[str, Any]) -> int:
        """Load the answers in the file; return the number of bytes in its whole lines."""
        if not self.path.exists():
            return 0
        try:
            data = self.path.read_bytes() if self.path.stat().st_size <= MAX_PACK_BYTES else None
        except OSError as error:
            raise PackError(f"{self.path}: cannot be read ({error.strerror})") from error
        if data is None:
            raise PackError(
                f"{self.path}: larger than {MAX_PACK_BYTES >> 20} MiB, which no journal is; remove it"
            )
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                self._load_entry(json.loads(line), settings)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise PackError(
                    f"{self.path}: line {number} is not a line of a journal; mend or remove the file"
                ) from error
        return whole

    def _load_entry(self, entry: dict[str, Any], settings: Mapping[str, Any]) -> None:
        if "settings" in entry:
            if changed := differences(entry["settings"], settings):
                raise UsageError(
                    f"{self.path}: was begun with other settings ({changed}); use those, remove it, "
                    "or write elsewhere"
                )
        else:
            name, text = entry["class"], entry["text"]
            if not isinstance(name, str) or not isinstance(text, str):
                raise TypeError
            self.answers[name].append(Answer(text, int(entry["tokens_in"]), int(entry["tokens_out"])))

    def _append(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry).encode() + b"\n"  # ASCII: an answer may hold half a character
        with self._write_lock:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the settings that changed, as "model: a -> b"; empty if none did."""
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return ", ".join(f"{key}: {before.get(key)} -> {now.get(key)}" for key in keys)
