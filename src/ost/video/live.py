"""Buffer the frames of a live source: one thread pushes, and the reader takes chunks in another."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from threading import Condition
from typing import Literal

import numpy as np

from ost.errors import UsageError
from ost.types import Frames, Preprocess
from ost.video.chunks import Chunk, Instants
from ost.video.picture import SIZES_CHANGE, check_size, scaled_rgb, stack_pictures
from ost.video.sample import reported

Drop = Literal["oldest", "newest", "none"]
DROPS = ("oldest", "newest", "none")
WAIT = 0.1  # seconds between two checks of whether to stop


class LiveFrames:
    """A live source as an input of the reader: it buffers up to `capacity` frames that were pushed and not yet taken.

    One thread pushes.

    Args:
        name: the path of its results.
        capacity: most frames in the buffer; once reading has begun, only frames of the reader's rate are buffered.
        drop: which frame is dropped when the buffer is full: the "oldest" (answers stay close to now), the "newest", or
            "none", where `push` waits.
    """

    def __init__(self, name: str, *, capacity: int = 64, drop: Drop = "oldest") -> None:
        if drop not in DROPS:
            raise UsageError(f"drop is {', '.join(DROPS)}, not {drop!r}")
        if capacity < 1:
            raise UsageError(f"a live source needs room for at least 1 frame, not {capacity}")
        self.name, self.capacity, self.drop = name, capacity, drop
        self.dropped = 0
        self._waiting: deque[tuple[np.ndarray, float]] = deque()
        self._change = Condition()
        self._closed = False
        self._began: float | None = None
        self._instants: Instants | None = None
        self._last = -math.inf
        self._fell_back = False

    def push(self, pixels: np.ndarray, seconds: float | None = None) -> bool:
        """Offer a frame, and return whether it was kept. Frames beyond the reader's rate are not kept.

        Args:
            pixels: uint8 [H, W, 3], upright RGB; not to be changed afterwards.
            seconds: its time; by default the seconds since the first frame was pushed.

        Raises:
            UsageError: it is no picture, or its time no number.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise UsageError(f"a frame is uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
        if seconds is not None and not math.isfinite(seconds):
            raise UsageError(f"the time of a frame is in seconds, not {seconds}")
        with self._change:
            now = time.monotonic()
            self._began = now if self._began is None else self._began
            at = now - self._began if seconds is None else seconds
            if self.drop == "none":
                self._change.wait_for(lambda: self._closed or len(self._waiting) < self.capacity)
            if self._closed or not self._is_due(at):
                return False
            if len(self._waiting) >= self.capacity:
                self.dropped += 1
                if self.drop == "newest":
                    return False
                self._waiting.popleft()
            self._waiting.append((pixels, at))
            self._change.notify_all()
            return True

    def _is_due(self, seconds: float) -> bool:
        """Return whether a frame at that time is due at the reader's rate; restart when the clock falls back."""
        if seconds < self._last:
            self._fell_back = True
            self._instants = self._instants and Instants(self._instants.fps)
        self._last = seconds
        return self._instants is None or self._instants.reached(seconds)

    def close(self) -> None:
        """End the source; buffered frames are still read."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def chunks(
        self, fps: float, chunk_frames: int, preprocess: Preprocess | None, stop: Callable[[], bool]
    ) -> Iterator[Chunk]:
        """Yield the buffered frames as soon as there are any, at most `chunk_frames` a chunk; no chunk is empty.

        Where the towers are slower than the source, chunks grow to their limit, and then frames are dropped.
        """
        with self._change:  # thin out frames that were pushed before the rate was known
            pushed_last, self._last, self._instants = self._last, -math.inf, Instants(fps)
            self._waiting = deque(item for item in self._waiting if self._is_due(item[1]))
            self._last, dropped_before = pushed_last, self.dropped
        notices = (f"{dropped_before} frames were dropped before reading began",) if dropped_before else ()
        try:
            while True:
                with self._change:
                    while not self._waiting and not self._closed and not stop():
                        self._change.wait(WAIT)
                    if stop() or not self._waiting:
                        return
                    taken = [self._waiting.popleft() for _ in range(min(chunk_frames, len(self._waiting)))]
                    dropped, dropped_before = self.dropped - dropped_before, self.dropped
                    fell_back, self._fell_back = self._fell_back, False
                    self._change.notify_all()
                if dropped:
                    notices = (*notices, f"{dropped} frames were dropped, as the towers were busy")
                if fell_back:
                    notices = (*notices, "the clock of the source fell back")
                yield Chunk(self._frames(taken, preprocess, notices), last=False)
                notices = ()
        finally:
            self.close()

    def _frames(
        self,
        taken: list[tuple[np.ndarray, float]],
        preprocess: Preprocess | None,
        notices: tuple[str, ...],
    ) -> Frames:
        started = time.perf_counter()
        for pixels, _ in taken:
            check_size(self.name, pixels.shape[1], pixels.shape[0])
        if len({pixels.shape for pixels, _ in taken}) > 1:
            notices = (*notices, SIZES_CHANGE)
        pictures = stack_pictures([scaled_rgb(pixels, preprocess) for pixels, _ in taken])
        times = tuple(reported(seconds) for _, seconds in taken)
        return Frames(
            pictures,
            times,
            self.name,
            decoded=len(times),
            notices=notices,
            seconds=time.perf_counter() - started,
        )
