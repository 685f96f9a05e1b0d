"""Errors for users: one sentence that says what is wrong, where, and what to do."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path

# An argument within a remedy, with the value it should have: {backbone=lite}, or {resume} for one without.
_ARGUMENT = re.compile(r"\{(\w+)(?:=([^{}]*))?\}")
# (argument, value) -> how a caller writes it; None if the caller has no such argument.
Speller = Callable[[str, str | None], str | None]


class OstError(Exception):
    """Base of every error raised on purpose; its text is one sentence for the user.

    Args:
        fault: what is wrong, and where.
        remedies: alternative things to do about it. An argument in one is written in braces, as in
            "use {backbone=lite}", and is spelled as the caller writes it: `backbone="lite"` in Python, and as
            its own option by a command. A command leaves out the remedies with an argument that it lacks.
    """

    exit_code = 2  # of a command that ends with it

    def __init__(self, fault: str, *remedies: str) -> None:
        super().__init__(fault, *remedies)
        self.fault = fault
        self.remedies = remedies

    def __str__(self) -> str:
        return self.spelled(_in_python)

    def spelled(self, speller: Speller) -> str:
        """Return the sentence, with its arguments as `speller` writes them."""
        remedies = [text for remedy in self.remedies if (text := _spelled(remedy, speller)) is not None]
        return "; ".join([self.fault, *([", or ".join(remedies)] if remedies else [])])


def _spelled(remedy: str, speller: Speller) -> str | None:
    arguments = {match[0]: speller(match[1], match[2]) for match in _ARGUMENT.finditer(remedy)}
    if None in arguments.values():
        return None
    return _ARGUMENT.sub(lambda match: str(arguments[match[0]]), remedy)


def _in_python(argument: str, value: str | None) -> str:
    name = {"backbone": "name", "output": "run"}.get(argument, argument)
    if value is None:
        return name
    plain = value.isdigit() or value.isupper() or value == "True"
    return f"{name}={value}" if plain else f'{name}="{value}"'


class UsageError(OstError):
    """An invalid setting or argument; nothing was done."""


class VideoError(OstError):
    """A video that cannot be used.

    Attributes:
        path: the video as the user named it.
        cause: why, without the path.
    """

    def __init__(self, path: object, cause: str) -> None:
        super().__init__(f"{path}: {cause}")
        self.path = str(path)
        self.cause = cause

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        return VideoError, (self.path, self.cause)


class WeightsError(OstError):
    """A weight file that is missing, refused, or does not fit its architecture."""


class PackError(OstError):
    """A descriptor pack, or a list of classes, that is missing, malformed or ambiguous."""


class TransportError(OstError, ValueError):
    """A similarity, mask or entropic weight for which no transport plan exists."""


def first_line(error: BaseException, most: int = 160) -> str:
    """Return the first line of another library's error, cut to `most` characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most]


def internal_error(error: BaseException) -> str:
    """Describe an unexpected error, with the innermost line of this package that led to it."""
    home = Path(__file__).parent
    frames = traceback.extract_tb(error.__traceback__)
    package_frames = [frame for frame in frames if Path(frame.filename).is_relative_to(home)] or frames[-1:]
    where = [
        f"{_short_name(Path(frame.filename), home)}, line {frame.lineno}" for frame in package_frames[-1:]
    ]
    what = " ".join(str(error).split())[:200]
    location = f" ({where[0]})" if where else ""
    return f"internal error, {type(error).__name__}: {what}{location}"


def _short_name(file: Path, home: Path) -> str:
    return file.relative_to(home).as_posix() if file.is_relative_to(home) else file.name
