"""Videos in memory: arrays, pictures and decoders of other libraries, whose frames are read by index."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from ost.errors import UsageError, VideoError, first_line
from ost.once import PerObject
from ost.types import Frame, Frames, Preprocess
from ost.video.picture import check_size, scaled_rgb
from ost.video.sample import Part, indices_within

if TYPE_CHECKING:
    from torch import Tensor

FULL_FRAMES_AT_ONCE = 4  # frames at full size
MOST_FRAMES = 1 << 27  # of a decoder; 50 days at 30 a second
_decoder_locks = PerObject(RLock)
_pictures_lock = RLock()


class Indexed(Protocol):
    """Frames that are read by index.

    Attributes:
        name: the path of their results.
        times: presentation time of each frame in seconds; nan where it is not known.
    """

    name: str
    times: tuple[float, ...]

    def frames(self, indices: Sequence[int]) -> list[Frame]:
        """Return frames with their times."""
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
        self.name = str(name or f"<{count} frames>")
        self.times = (math.nan,) * count if times is None else _checked_times(self.name, times, count)

    def __len__(self) -> int:
        return len(self._frames)

    def __repr__(self) -> str:
        return f"FrameSequence({len(self)} frames, name={self.name!r})"

    def frames(self, indices: Sequence[int]) -> list[Frame]:
        """Return frames with their times."""
        return [Frame(_picture(self.name, self._frames[i]), self.times[i]) for i in indices]


class _DecoderFrames:
    """The frames of a torchcodec `VideoDecoder`; until one is read, its time is taken from the average rate."""

    def __init__(self, decoder: Any) -> None:
        self._decoder, metadata = decoder, decoder.metadata
        self.name = str(getattr(metadata, "path", None) or f"<{type(decoder).__name__}>")
        count, rate = metadata.num_frames, metadata.average_fps
        if not isinstance(count, int) or not 1 <= count <= MOST_FRAMES:
            raise VideoError(self.name, f"it cannot have {count} frames")
        start = getattr(metadata, "begin_stream_seconds", None) or 0.0
        self.times = tuple(start + i / rate for i in range(count)) if rate else (math.nan,) * count

    def frames(self, indices: Sequence[int]) -> list[Frame]:
        """Return frames with the times that the decoder gives them."""
        try:
            with _decoder_locks.get(self._decoder):
                batch = self._decoder.get_frames_at(list(indices))
            times = [float(seconds) for seconds in batch.pts_seconds]
        except Exception as error:  # whatever another library raises
            raise VideoError(self.name, f"its decoder failed ({first_line(error)})") from error
        data: Tensor = batch.data  # [n, 3, H, W], or [n, H, W, 3] as the decoder was made
        pixels = data if data.shape[-1] == 3 else data.permute(0, 2, 3, 1)
        if len(pixels) != len(indices) or str(pixels.dtype) != "torch.uint8" or pixels.ndim != 4:
            found = f"{pixels.dtype} {list(data.shape)}"
            raise VideoError(self.name, f"its decoder gave {found} for {len(indices)} frames of uint8")
        if len(times) != len(indices) or not all(map(math.isfinite, times)):
            raise VideoError(self.name, "its decoder gives no time for each frame")
        return list(map(Frame, pixels.cpu().numpy(), times))


def indexed(video: object) -> Indexed | None:
    """Return an input in memory as frames by index; None for any other input.

    Raises:
        UsageError: its frames are of another shape or dtype.
    """
    if hasattr(video, "get_frames_at") and hasattr(video, "metadata"):
        return _DecoderFrames(video)
    if isinstance(video, list) or (hasattr(video, "shape") and hasattr(video, "dtype")):
        return FrameSequence(cast("np.ndarray", video))
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
    scaled: dict[int, Frame] = {}
    for start in range(0, len(distinct), FULL_FRAMES_AT_ONCE):  # few at a time: full frames may be large
        group = distinct[start : start + FULL_FRAMES_AT_ONCE]
        for i, frame in zip(group, video.frames(group), strict=True):
            check_size(video.name, frame.pixels.shape[1], frame.pixels.shape[0])
            scaled[i] = Frame(scaled_rgb(frame.pixels, preprocess), frame.seconds)
    return Frames(
        pixels=np.stack([scaled[i].pixels for i in indices]),
        times=tuple(scaled[i].seconds for i in indices),
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
    return np.asarray(frames.detach().cpu() if hasattr(frames, "detach") else frames)


def _checked_times(name: str, times: Sequence[float], count: int) -> tuple[float, ...]:
    try:
        seconds = tuple(map(float, times))
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: the times of its frames are numbers of seconds") from error
    if len(seconds) != count:
        raise UsageError(f"{name}: has {count} frames, and {len(seconds)} times")
    if not all(map(math.isfinite, seconds)) or not all(a < b for a, b in pairwise(seconds)):
        raise UsageError(f"{name}: the times of its frames must rise")
    return seconds


def _picture(name: str, frame: Any) -> np.ndarray:
    if isinstance(frame, np.ndarray):
        return frame
    if frame.mode.startswith(("I", "F")):
        raise VideoError(name, f"its pictures are of mode {frame.mode}; give them with 8 bits a channel")
    try:
        with _pictures_lock:  # a picture that was opened is read at its first use
            return np.asarray(frame.convert("RGB"))
    except Exception as error:  # Pillow's readers raise whatever their parsing raises
        raise VideoError(name, f"a picture of it cannot be read ({first_line(error)})") from error
