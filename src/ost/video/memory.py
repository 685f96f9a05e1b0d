"""Videos in memory: arrays, pictures and decoders of other libraries, whose frames are read by index."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from ost.errors import UsageError, VideoError
from ost.types import Frames, Preprocess
from ost.video.picture import check_size, scaled_rgb
from ost.video.sample import Part, indices_within

if TYPE_CHECKING:
    from torch import Tensor


class Indexed(Protocol):
    """Frames that are read by index.

    Attributes:
        name: the path of their results.
        times: presentation time of each frame in seconds; nan where it is not known.
    """

    name: str
    times: tuple[float, ...]

    def pictures(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Return frames as uint8 [H, W, 3], red, green, blue."""
        ...


class FrameSequence:
    """A video in memory: its frames in order, which are sampled like those of a file.

    Args:
        frames: uint8 array or tensor [T, H, W, 3], red, green, blue; or a list of PIL images of one size.
        times: seconds of each frame, rising; without them a sequence has no parts and cannot be read at a frame rate.
            Parts of it are by this clock.
        name: the path of its results.

    Raises:
        UsageError: the frames are of another shape or dtype, or the times do not fit them.
    """

    def __init__(
        self,
        frames: np.ndarray | Tensor | Sequence[Any],
        times: Sequence[float] | None = None,
        name: str = "",
    ) -> None:
        self._frames = _checked(frames)
        count = len(self._frames)
        self.times = (math.nan,) * count if times is None else tuple(map(float, times))
        self.name = name or f"<{count} frames>"
        if len(self.times) != count:
            raise UsageError(f"{self.name}: has {count} frames, and {len(self.times)} times")
        if times is not None and not all(a < b for a, b in zip(self.times, self.times[1:], strict=False)):
            raise UsageError(f"{self.name}: the times of its frames must rise")

    def __len__(self) -> int:
        return len(self._frames)

    def __repr__(self) -> str:
        return f"FrameSequence({len(self)} frames, name={self.name!r})"

    def pictures(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Return frames as uint8 [H, W, 3]."""
        return [_picture(self._frames[i]) for i in indices]


class _TorchcodecFrames:
    """The frames of a torchcodec `VideoDecoder`."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        metadata = decoder.metadata
        count = metadata.num_frames
        if not count:
            raise VideoError("VideoDecoder", "it does not know how many frames it has")
        path = getattr(metadata, "path", None)
        self.name = str(path or "<VideoDecoder>")
        rate = metadata.average_fps
        self.times = tuple(i / rate for i in range(count)) if rate else (math.nan,) * count

    def pictures(self, indices: Sequence[int]) -> list[np.ndarray]:
        data: Tensor = self._decoder.get_frames_at(list(indices)).data  # [n, 3, H, W] or [n, H, W, 3]
        frames = data if data.shape[-1] == 3 else data.permute(0, 2, 3, 1)
        return list(frames.cpu().numpy())


def indexed(video: object) -> Indexed | None:
    """Return an input in memory as frames by index; None for any other input.

    Raises:
        UsageError: its frames are of another shape or dtype.
    """
    if isinstance(video, FrameSequence):
        return video
    if isinstance(video, np.ndarray) or type(video).__module__.partition(".")[0] == "torch":
        return FrameSequence(cast("np.ndarray", video))
    if isinstance(video, list):
        return FrameSequence(cast("list[Any]", video))
    if hasattr(video, "get_frames_at") and hasattr(video, "metadata"):
        return _TorchcodecFrames(video)
    return None


def sample_indexed(
    video: Indexed,
    pick: Callable[[int], list[int]],
    preprocess: Preprocess | None = None,
    part: Part | None = None,
) -> Frames:
    """Return the sampled frames of a video in memory.

    Raises:
        VideoError: it has no such part, or its frames have no times.
    """
    count = len(video.times)
    inside = list(range(count)) if part is None else indices_within(video.name, video.times, part)
    indices = [inside[i] for i in pick(len(inside))]
    return frames_at(video, indices, preprocess)


def frames_at(video: Indexed, indices: Sequence[int], preprocess: Preprocess | None) -> Frames:
    """Return the frames with these indices, scaled for the weights; an index may repeat."""
    distinct = sorted(set(indices))
    pictures: dict[int, np.ndarray] = {}
    for i, picture in zip(distinct, video.pictures(distinct), strict=True):
        check_size(video.name, picture.shape[1], picture.shape[0])
        pictures[i] = scaled_rgb(picture, preprocess)
    return Frames(
        pixels=np.stack([pictures[i] for i in indices]),
        times=tuple(video.times[i] for i in indices),
        path=video.name,
        decoded=len(video.times),
    )


def timed_indices(video: Indexed) -> Iterator[tuple[float, int]]:
    """Yield (seconds, index) of each frame.

    Raises:
        VideoError: its frames have no times.
    """
    if any(map(math.isnan, video.times)):
        raise VideoError(video.name, "its frames have no times, by which to take them at a rate")
    for i, seconds in enumerate(video.times):
        yield seconds, i


def _checked(frames: Any) -> Any:
    """Return frames that can be indexed, and refuse what is no video."""
    if isinstance(frames, list | tuple):
        pictures = cast("Sequence[Any]", frames)
        if not pictures or not all(hasattr(picture, "convert") for picture in pictures):
            raise UsageError("a list of frames is one of PIL images; give an array as uint8 [T, H, W, 3]")
        if len({picture.size for picture in pictures}) > 1:
            raise UsageError("the pictures of a video are of one size")
        return pictures
    if not hasattr(frames, "shape") or not hasattr(frames, "dtype"):
        raise UsageError(f"frames are a uint8 array [T, H, W, 3], not a {type(frames).__name__}")
    shape, dtype = tuple(frames.shape), str(frames.dtype).removeprefix("torch.")
    if len(shape) != 4 or shape[-1] != 3 or dtype != "uint8" or 0 in shape:
        raise UsageError(f"frames are uint8 [T, H, W, 3], not {dtype} {list(shape)}")
    return frames if isinstance(frames, np.ndarray) else frames.detach().cpu().numpy()


def _picture(frame: Any) -> np.ndarray:
    return frame if isinstance(frame, np.ndarray) else np.asarray(frame.convert("RGB"))
