"""Settings of sampling and matching, checked without importing torch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, SupportsFloat, SupportsIndex, TypedDict, cast, get_args

from ost.catalog import did_you_mean
from ost.errors import UsageError
from ost.types import BOTH, DescriptorKind, Kind
from ost.video.chunks import CHUNK_FRAMES, FPS
from ost.video.decode import MIN_DECODED, Sampling
from ost.video.sample import check_crops

Match = Literal["ot", "mean"]
EPS = 0.1
MOST = 1_000_000  # frames of a clip, and other numbers


@dataclass(frozen=True)
class FrameRate:
    """Sampling at an even frame rate over the whole video, read in chunks.

    Attributes:
        fps: frames a second.
        chunk_frames: number of frames that are read and embedded together.
    """

    fps: float = FPS
    chunk_frames: int = CHUNK_FRAMES

    def __post_init__(self) -> None:
        if not 0 < self.fps < math.inf or self.chunk_frames < 1:
            raise UsageError(
                f"fps must be positive and a chunk have at least 1 frame, not {self.fps:g} and {self.chunk_frames}"
            )


class SettingsFields(TypedDict, total=False):
    """The keywords of `Settings`, for functions that take some of them."""

    frames: int
    clips: int
    crops: int
    sampling: Sampling
    min_decoded: float
    match: Match
    kinds: DescriptorKind | Sequence[DescriptorKind]
    eps: float


@dataclass(frozen=True)
class Settings:
    """How videos are sampled and matched.

    Attributes:
        frames: T, frames a clip.
        clips, crops: views; clips shift the frames in time, 3 crops cover the long side, 5 are the corners and
            the centre, 10 those and their mirror images (not for classes that tell left from right).
        sampling: "uniform" (exact) or "keyframes" (fast on long files).
        min_decoded: share of a file's frames that must decode, 0 to 1.
        match: "ot", or "mean" for ViFi-CLIP's mean-pool matching with one prompt a class.
        kinds: descriptors to match, for "ot": "spatial", "temporal" or both; a list or one of them is taken too.
        eps: entropic weight of the transport, in units of similarity; inf is the mean.

    Raises:
        UsageError: a value is invalid.
    """

    frames: int = 32
    clips: int = 1
    crops: int = 1
    sampling: Sampling = "uniform"
    min_decoded: float = MIN_DECODED
    match: Match = "ot"
    kinds: Sequence[DescriptorKind] = BOTH
    eps: float = EPS

    def __post_init__(self) -> None:
        for name in ("frames", "clips", "crops"):
            object.__setattr__(self, name, check_count(name, getattr(self, name)))
        check_crops(self.crops)
        check_choice("sampling", self.sampling, get_args(Sampling))
        check_choice("match", self.match, get_args(Match))
        for name in ("min_decoded", "eps"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        if not 0 <= self.min_decoded <= 1:
            raise UsageError(f"min_decoded is a share from 0 to 1, not {self.min_decoded:g}")
        if not self.eps > 0:
            raise UsageError(f"eps must be positive, not {self.eps:g}")
        object.__setattr__(self, "kinds", checked_kinds(self.kinds))

    def but(self, **changes: Any) -> Settings:
        """Return a copy with some settings changed.

        Raises:
            UsageError: a setting is unknown, or a value is invalid.
        """
        if "method" in changes:
            warnings.warn("the setting method is now called match", DeprecationWarning, stacklevel=3)
            changes["match"] = changes.pop("method")
        known = [item.name for item in fields(self)]
        if unknown := next((name for name in changes if name not in known), None):
            raise UsageError(f"there is no setting {unknown!r}{did_you_mean(unknown, known)}")
        return replace(self, **changes)

    @property
    def sampled(self) -> Settings:
        """Return the settings that decide which frames are embedded, with all others at their defaults."""
        return replace(self, match="ot", kinds=BOTH, eps=EPS)

    @property
    def matched(self) -> tuple[Kind, ...]:
        """Return the kinds of prompts that are matched, which the class head needs."""
        return ("name",) if self.match == "mean" else tuple(self.kinds)


def check_count(name: str, value: object) -> int:
    """Return a number of something as an int, also one of numpy's.

    Raises:
        UsageError: it is no whole number from 1 to `MOST`.
    """
    if isinstance(value, SupportsIndex) and not isinstance(value, bool) and 1 <= int(value) <= MOST:
        return int(value)
    raise UsageError(f"{name} must be a whole number from 1 to {MOST:,}, not {value!r}")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of the choices.

    Raises:
        UsageError: it is none.
    """
    if value not in choices:
        raise UsageError(f"{name} is {' or '.join(choices)}, not {value!r}")


def _number(name: str, value: object) -> float:
    if not isinstance(value, SupportsFloat) or isinstance(value, bool):
        raise UsageError(f"{name} must be a number, not {value!r}")
    return float(value)


def checked_kinds(given: object) -> tuple[DescriptorKind, ...]:
    """Return one kind of descriptors or several as a tuple in order.

    Raises:
        UsageError: one is unknown, or there is none.
    """
    names = BOTH if given == "both" else (given,) if isinstance(given, str) else given
    if not isinstance(names, Sequence) or not names or not all(name in BOTH for name in cast("Any", names)):
        raise UsageError(f"kinds are spatial, temporal or both of them, not {given!r}")
    return tuple(kind for kind in BOTH if kind in cast("Sequence[object]", names))
