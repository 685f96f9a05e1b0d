"""The errors a user meets: one sentence that says what, where and what to do."""

from __future__ import annotations


class OstError(Exception):
    """Base of every error raised on purpose; its text is one sentence for the user."""


class UsageError(OstError):
    """A setting or argument that cannot be meant: nothing was done."""


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
    """What another library's error says, short enough for a sentence of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most]
