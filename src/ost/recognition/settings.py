"""Settings of sampling and matching, checked without importing torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ost.errors import UsageError
from ost.types import BOTH, Kind
from ost.video.chunks import CHUNK_FRAMES, FPS
from ost.video.decode import MIN_DECODED, Sampling
from ost.video.sample import check_crops

Method = Literal["ot", "mean"]
EPS = 0.1


@dataclass(frozen=True)
class Views:
    """The settings that decide which frames of a video are embedded; see `Settings`."""

    frames: int
    clips: int = 1
    crops: int = 1
    sampling: Sampling = "uniform"
    min_decoded: float = MIN_DECODED


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


@dataclass(frozen=True)
class Settings:
    """How videos are sampled and matched.

    Attributes:
        frames: T, frames a clip.
        clips, crops: views; clips shift the frames in time, 3 crops cover the long side, 5 are the corners and
            the centre, 10 those and their mirror images (not for classes that tell left from right).
        sampling: "uniform" (exact) or "keyframes" (fast on long files).
        min_decoded: share of a file's frames that must decode.
        method: "ot", or "mean" for ViFi-CLIP's mean-pool matching with one prompt a class.
        kinds: descriptors to match, for "ot".
        eps: entropic weight of the transport.
    """

    frames: int = 32
    clips: int = 1
    crops: int = 1
    sampling: Sampling = "uniform"
    min_decoded: float = MIN_DECODED
    method: Method = "ot"
    kinds: tuple[Kind, ...] = BOTH
    eps: float = EPS

    def __post_init__(self) -> None:
        if self.frames < 1 or self.clips < 1:
            raise UsageError(f"frames and clips must be at least 1, not {self.frames} and {self.clips}")
        check_crops(self.crops)
        if self.method not in ("ot", "mean"):
            raise UsageError(f"there is no matching {self.method!r}; use ot or mean")
        if not self.kinds or not set(self.kinds) <= set(BOTH):
            raise UsageError(f"kinds are spatial, temporal or both, not {', '.join(self.kinds) or 'none'}")
        if not self.eps > 0:
            raise UsageError(f"eps must be positive, not {self.eps}")

    @property
    def views(self) -> Views:
        """Return the settings that decide which frames are embedded."""
        return Views(self.frames, self.clips, self.crops, self.sampling, self.min_decoded)

    @property
    def prompted(self) -> tuple[Kind, ...]:
        """Return the kinds of prompts that the class head needs."""
        return ("name",) if self.method == "mean" else self.kinds
