"""Recognise actions in videos: the composition of backbone, reader, store and matching."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import Any, TypeVar, cast

from torch import Tensor
from typing_extensions import Unpack

from ost.backbones.base import Backbone, prepared
from ost.descriptors.pack import Pack
from ost.descriptors.spec import Spec, resolve
from ost.errors import UsageError, VideoError
from ost.recognition.decoding import Reading, Source
from ost.recognition.embed import class_head
from ost.recognition.match import match
from ost.recognition.prediction import Model, Prediction, rank
from ost.recognition.reader import read_videos
from ost.recognition.settings import Settings, SettingsFields, check_count
from ost.recognition.store import Store
from ost.types import ClassHead, FrameEmbeddings, Frames, Kind
from ost.video.place import is_indexed, short_name
from ost.video.transform import view_pixels, view_preprocess

HEADS = 8  # class heads in memory
T = TypeVar("T")


class Recognizer:
    """Recognises actions with a backbone and settings.

    Several threads may use one recogniser. A recogniser of `ost.load` is pickled as the call that loaded it, so that
    another process loads its own; any other one is pickled with its backbone, where that can be pickled.

    Args:
        backbone: from `ost.backbones.load.load_backbone`.
        settings: can be overridden call by call.
        cache: keep class heads in memory and on disk, and frame embeddings on disk, so that the same videos are
            embedded once for all lists of classes; not for a backbone that is being trained.
        batch_frames: frames from which on a batch of videos goes through the towers; by default as many as suit the
            device.
        decoders: threads that decode; by default as many as the towers leave room for.
        reload: makes the same recogniser in another process.
    """

    def __init__(
        self,
        backbone: Backbone,
        settings: Settings | None = None,
        *,
        cache: bool = True,
        batch_frames: int | None = None,
        decoders: int | None = None,
        reload: Callable[..., Recognizer] | None = None,
    ) -> None:
        for name, value in (("batch_frames", batch_frames), ("decoders", decoders)):
            if value is not None:
                check_count(name, value)
        self.backbone = backbone
        self.settings = settings or Settings()
        self.cache, self.batch_frames, self.decoders = cache, batch_frames, decoders
        self._reload = reload
        self._last_store: tuple[Settings, Store] | None = None
        self._heads: dict[tuple[str, tuple[Kind, ...]], ClassHead] = {}
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"Recognizer({self.backbone.name!r}, {self.settings})"

    def __reduce__(self) -> tuple[Callable[..., Recognizer], tuple[Any, ...]]:
        options = {"cache": self.cache, "batch_frames": self.batch_frames, "decoders": self.decoders}
        return (self._reload, ()) if self._reload else (_build, (self.backbone, self.settings, options))

    def to(self, device: str) -> Recognizer:
        """Return a recogniser with the same settings on another device; this one stays where it is.

        Raises:
            UsageError: the device cannot be used, or the backbone runs on none but its own.
        """
        return Recognizer(
            self.backbone.to(device),
            self.settings,
            cache=self.cache,
            batch_frames=self.batch_frames,
            decoders=self.decoders,
            reload=self._reload and partial(self._reload, device=device),
        )

    def recognize(self, video: Source, classes: Spec, **settings: Unpack[SettingsFields]) -> Prediction:
        """Predict which of the classes one video shows.

        Args:
            video: a video file, a folder of frame images, or any other input (see docs/api.md).
            classes: a pack, class names, a file, or the name of a shipped pack.
            settings: any of `Settings`, for this call.

        Raises:
            UsageError: a setting is unknown or invalid.
            VideoError: the video cannot be used.
            PackError: the classes cannot be used.
        """
        with closing(self.recognize_all([video], classes, thumbnails=True, **settings)) as results:
            return _or_raise(next(results))

    def recognize_all(
        self,
        videos: Iterable[object],
        classes: Spec,
        *,
        thumbnails: bool = False,
        **settings: Unpack[SettingsFields],
    ) -> Generator[Prediction | VideoError]:
        """Yield predictions in the order of the videos; one that fails yields its `VideoError`.

        The next videos are decoded while the towers look at this one; they are taken as they are needed.

        Args:
            videos: inputs as `recognize` takes them; any iterable.
            classes: see `recognize`.
            thumbnails: keep pictures of the frames, without which a prediction has no page.
            settings: any of `Settings`, for this call.
        """
        used = self.settings.but(**settings)
        readings = self._readings(videos, used, thumbnails)  # refuses views before all texts are embedded
        pack = resolve(classes)
        head = self.head(pack, used)
        return self._predictions(readings, pack, head, used)

    def _predictions(
        self, readings: Generator[Reading | VideoError], pack: Pack, head: ClassHead, settings: Settings
    ) -> Generator[Prediction | VideoError]:
        with closing(readings):
            for reading in readings:
                yield (
                    reading
                    if isinstance(reading, VideoError)
                    else self.predict(reading, pack, head, settings)
                )

    def embed(self, video: Source, **settings: Unpack[SettingsFields]) -> FrameEmbeddings:
        """Embed the frames of one video's views as [V, T, D]: ordinary tensors, on the backbone's device.

        Raises:
            UsageError: a setting is unknown or invalid.
            VideoError: the video cannot be used.
        """
        with closing(self.embed_all([video], **settings)) as readings:
            return _or_raise(next(readings)).embeddings

    def embed_all(
        self, videos: Iterable[object], **settings: Unpack[SettingsFields]
    ) -> Generator[Reading | VideoError]:
        """Yield the embeddings of each video with the times of its frames; see `recognize_all`."""
        return self._readings(videos, self.settings.but(**settings), False)

    def _readings(
        self, videos: Iterable[object], settings: Settings, thumbnails: bool
    ) -> Generator[Reading | VideoError]:
        """Return a generator of the readings; raise for wrong use at once, not at the first video."""
        if _is_one_video(videos):
            raise UsageError(f"{short_name(videos)}: is one video; give a list of videos, or use recognize")
        view_preprocess(self.backbone.preprocess, settings.crops)

        def read() -> Generator[Reading | VideoError]:
            with ExitStack() as stack:
                store = stack.enter_context(self._store(settings.sampled)) if self.cache else None
                readings = read_videos(
                    self.backbone,
                    videos,
                    settings,
                    kept=store,
                    thumbnails=thumbnails,
                    decoders=self.decoders,
                    batch_frames=self.batch_frames,
                )
                yield from stack.enter_context(closing(readings))

        return read()

    @contextmanager
    def _store(self, sampled: Settings) -> Generator[Store]:
        """Open a store of these views; the last one is used again unless another thread has it."""
        with self._lock:
            last, self._last_store = self._last_store, None
        store = last[1] if last is not None and last[0] == sampled else Store(self.backbone, sampled)
        try:
            with store:
                yield store
        finally:
            self._last_store = (sampled, store)

    def head(self, classes: Spec, settings: Settings | None = None) -> ClassHead:
        """Return the class head of a pack; with the cache, the most recent ones stay in memory.

        Raises:
            PackError: the classes cannot be used.
        """
        pack, kinds = resolve(classes), (settings or self.settings).matched
        if not self.cache:
            return class_head(self.backbone, pack, kinds, cache=False)
        with self._lock:
            key = (pack.hash, kinds)
            head = self._heads.pop(key, None) or class_head(self.backbone, pack, kinds)
            self._heads[key] = head  # the last is the most recent
            if len(self._heads) > HEADS:
                del self._heads[next(iter(self._heads))]
            return head

    def preprocess(self, frames: Frames, crops: int = 1) -> Tensor:
        """Return decoded frames as the towers take them: fp32 [V, T, 3, S, S], scaled, cropped and normalised.

        Args:
            frames: of `ost.decode`; V is its clips times `crops`.
            crops: as in `Settings`.
        """
        return prepared(view_pixels(frames, self.backbone.preprocess, crops), self.backbone.preprocess)

    def predict(
        self, reading: Reading, pack: Pack, head: ClassHead, settings: Settings | None = None
    ) -> Prediction:
        """Match a reading that was made with these settings against the head of a pack."""
        sample, backbone = reading.sample, self.backbone
        # Frames that were sampled before have numbers of their own.
        used = (settings or self.settings).but(frames=len(sample.times) // sample.clips, clips=sample.clips)
        started = time.perf_counter()
        scores = match(reading.embeddings, head, match=used.match, kinds=used.matched, eps=used.eps)
        classes = rank(scores, head.labels)
        return Prediction(
            path=reading.path,
            classes=classes,
            model=Model(
                backbone.name,
                backbone.weights_hash,
                backbone.fingerprint,
                backbone.precision,
                backbone.preprocess,
            ),
            pack_hash=pack.hash,
            settings=used,
            seconds=replace(reading.seconds, matching=time.perf_counter() - started),
            notices=(*reading.sample.notices, *pack.notices, *head.notices),
            sample=reading.sample,
            thumbnails=reading.thumbnails,
            embeddings=reading.embeddings,
            head=head,
        )


def _is_one_video(videos: object) -> bool:
    """Return whether what was given for many videos is one, or no iterable."""
    if isinstance(videos, tuple) and len(part := cast("tuple[Any, ...]", videos)) == 3:
        return isinstance(part[1], int | float) and isinstance(part[2], int | float | None)
    return (
        isinstance(videos, str | bytes | bytearray | memoryview | os.PathLike | dict | Frames)
        or hasattr(videos, "read")
        or is_indexed(videos)
        or getattr(videos, "ndim", 0) > 1
        or not isinstance(videos, Iterable)
    )


def _build(backbone: Backbone, settings: Settings, options: dict[str, Any]) -> Recognizer:
    """Return a recogniser that was pickled with its backbone."""
    return Recognizer(backbone, settings, **options)


def _or_raise(result: T | VideoError) -> T:
    if isinstance(result, VideoError):
        raise result
    return result
