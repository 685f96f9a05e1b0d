"""Recognise actions in videos: the composition of backbone, reader, store and matching."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

from ost.backbones.base import Backbone
from ost.descriptors.pack import Pack
from ost.descriptors.spec import Spec, resolve
from ost.errors import UsageError, VideoError
from ost.recognition.decoding import Reading, Source
from ost.recognition.embed import class_head
from ost.recognition.match import match
from ost.recognition.prediction import Prediction, rank
from ost.recognition.reader import read_videos
from ost.recognition.settings import Settings, Views
from ost.recognition.store import Store
from ost.types import ClassHead, Kind
from ost.video.transform import view_preprocess

HEADS = 8  # class heads in memory


class Recognizer:
    """Recognises actions with a backbone and settings.

    Args:
        backbone: from `ost.backbones.load.load_backbone`.
        settings: can be overridden call by call.
        cache: keep class heads in memory and on disk, and frame embeddings on disk, so that the same videos are
            embedded once for all lists of classes; not for a backbone that is being trained.
    """

    def __init__(self, backbone: Backbone, settings: Settings | None = None, *, cache: bool = True) -> None:
        self.backbone = backbone
        self.cache = cache
        self.settings = settings or Settings()
        self._last_store: tuple[Views, Store] | None = None
        self._heads: dict[tuple[str, tuple[Kind, ...]], ClassHead] = {}
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"Recognizer({self.backbone.name!r}, {self.settings})"

    def recognize(self, video: Source, classes: Spec, **settings: Any) -> Prediction:
        """Predict which of the classes one video shows.

        Args:
            video: a video file, a folder of frame images, or frames that were decoded with these settings.
            classes: a pack, class names, a file, or the name of a shipped pack.
            settings: any of `Settings`, for this call.

        Raises:
            VideoError: the video cannot be used.
            PackError: the classes cannot be used.
        """
        with closing(self.recognize_all([video], classes, thumbnails=True, **settings)) as results:
            found = next(results)
        if isinstance(found, VideoError):
            raise found
        return found

    def recognize_all(
        self, videos: Iterable[Source], classes: Spec, *, thumbnails: bool = False, **settings: Any
    ) -> Generator[Prediction | VideoError]:
        """Yield predictions in the order of the videos; one that fails yields its `VideoError`.

        The next videos are decoded while the towers look at this one; they are taken as they are needed.

        Args:
            videos: see `recognize`; any iterable.
            classes: see `recognize`.
            thumbnails: keep pictures of the frames, without which a prediction has no page.
            settings: any of `Settings`, for this call.
        """
        if isinstance(videos, str | Path):
            raise UsageError(f"{videos}: is one video; give a list of videos, or use recognize")
        wanted = replace(self.settings, **settings)
        view_preprocess(self.backbone.preprocess, wanted.crops)  # refuses before all texts are embedded
        pack = resolve(classes)
        head = self.head(pack, wanted)
        with ExitStack() as stack:
            kept = stack.enter_context(self._store(wanted.views)) if self.cache else None
            readings = read_videos(self.backbone, videos, wanted.views, kept=kept, thumbnails=thumbnails)
            for reading in stack.enter_context(closing(readings)):
                yield (
                    reading if isinstance(reading, VideoError) else self.predict(reading, pack, head, wanted)
                )

    @contextmanager
    def _store(self, views: Views) -> Generator[Store]:
        """Open a store of these views; the last one is used again unless another thread has it."""
        with self._lock:
            last, self._last_store = self._last_store, None
        store = last[1] if last is not None and last[0] == views else Store(self.backbone, views)
        try:
            with store:
                yield store
        finally:
            self._last_store = (views, store)

    def head(self, pack: Pack, settings: Settings | None = None) -> ClassHead:
        """Return the class head of a pack; with the cache, the most recent ones stay in memory."""
        kinds = (settings or self.settings).prompted
        if not self.cache:
            return class_head(self.backbone, pack, kinds, cache=False)
        with self._lock:
            key = (pack.hash, kinds)
            head = self._heads.pop(key, None) or class_head(self.backbone, pack, kinds)
            self._heads[key] = head  # the last is the most recent
            if len(self._heads) > HEADS:
                del self._heads[next(iter(self._heads))]
            return head

    def predict(
        self, reading: Reading, pack: Pack, head: ClassHead, settings: Settings | None = None
    ) -> Prediction:
        """Match a reading that was made with these settings against the head of a pack."""
        wanted = settings or self.settings
        started = time.perf_counter()
        scores = match(reading.embeddings, head, method=wanted.method, kinds=wanted.kinds, eps=wanted.eps)
        classes = rank(scores)
        return Prediction(
            path=reading.path,
            classes=classes,
            backbone=self.backbone.name,
            weights_hash=self.backbone.weights_hash,
            pack_hash=pack.hash,
            method=wanted.method,
            eps=wanted.eps,
            seconds=replace(reading.seconds, matching=time.perf_counter() - started),
            notices=(*reading.sample.notices, *pack.notices, *head.notices),
            sample=reading.sample,
            thumbnails=reading.thumbnails,
            embeddings=reading.embeddings,
            head=head,
        )
