"""The composition people use: a backbone and settings, videos in, predictions out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from ost.activity import activity
from ost.backbones.base import Backbone
from ost.descriptors.pack import Pack
from ost.descriptors.spec import Spec, resolve
from ost.errors import VideoError
from ost.recognition.embed import class_head, decode_views, embed_frames
from ost.recognition.match import match
from ost.recognition.prediction import Prediction, rank
from ost.recognition.settings import Settings
from ost.types import ClassHead, FrameEmbeddings, Frames, Kind, Seconds
from ost.video.transform import view_preprocess


class Recognizer:
    """A backbone and settings.

    Args:
        backbone: from `ost.backbones.load.load_backbone`.
        settings: can be overridden call by call.
        cache: keep class heads on disk; not for a backbone that is being trained.
    """

    def __init__(self, backbone: Backbone, settings: Settings | None = None, *, cache: bool = True) -> None:
        self.backbone = backbone
        self.cache = cache
        self.settings = settings or Settings()
        self._heads: dict[tuple[str, tuple[Kind, ...]], ClassHead] = {}

    def __repr__(self) -> str:
        return f"Recognizer({self.backbone.name!r}, {self.settings})"

    def recognize(
        self,
        video: str | Path | Frames,
        classes: Spec,
        *,
        embeddings: FrameEmbeddings | None = None,
        **settings: Any,
    ) -> Prediction:
        """Which of the classes one video shows.

        Args:
            video: a video file, a folder of frame images, or frames that were decoded with these settings.
            classes: a pack, class names, a file, or the name of a shipped pack.
            embeddings: of this video with these settings, where they are known already: the towers are left alone.
            settings: any of `Settings`, for this call.

        Raises:
            VideoError: the video cannot be used.
            PackError: the classes cannot be used.
        """
        wanted = replace(self.settings, **settings)
        if isinstance(video, Frames):
            frames = video
        else:
            with activity("decoding"):
                frames = self._decode(video, wanted)
        return self._judge(frames, resolve(classes), wanted, embeddings)

    def recognize_all(
        self, videos: Sequence[str | Path], classes: Spec, **settings: Any
    ) -> Iterator[Prediction | VideoError]:
        """Predictions in the order of the videos; one that fails gives its `VideoError` and stops nothing.

        The next video is decoded while the towers look at this one.
        """
        wanted = replace(self.settings, **settings)
        view_preprocess(self.backbone.preprocess, wanted.crops)  # refuses before all texts are embedded
        pack = resolve(classes)
        self.head(pack, wanted)
        with ThreadPoolExecutor(1, "decode") as pool:
            coming: Future[Frames] | None = None
            for i, video in enumerate(videos):
                current = coming or pool.submit(self._decode, video, wanted)
                after = videos[i + 1] if i + 1 < len(videos) else None
                coming = pool.submit(self._decode, after, wanted) if after is not None else None
                try:
                    yield self._judge(current.result(), pack, wanted)
                except VideoError as error:
                    yield error

    def head(self, pack: Pack, settings: Settings | None = None) -> ClassHead:
        """The class head of a pack, made at most once."""
        kinds = (settings or self.settings).prompted
        key = (pack.hash, kinds)
        if key not in self._heads:
            self._heads[key] = class_head(self.backbone, pack, kinds, cache=self.cache)
        return self._heads[key]

    def _decode(self, video: str | Path, settings: Settings) -> Frames:
        return decode_views(video, self.backbone.preprocess, settings.views)

    def _judge(
        self, frames: Frames, pack: Pack, settings: Settings, embeddings: FrameEmbeddings | None = None
    ) -> Prediction:
        started = time.perf_counter()
        head = self.head(pack, settings)
        with activity(f"looking at {len(frames.times)} frames"):
            embeddings = embeddings or embed_frames(self.backbone, frames, settings.crops)
        embedded = time.perf_counter()
        scores = match(embeddings, head, method=settings.method, kinds=settings.kinds, eps=settings.eps)
        classes = rank(scores)
        return Prediction(
            path=frames.path,
            classes=classes,
            backbone=self.backbone.name,
            weights_hash=self.backbone.weights_hash,
            pack_hash=pack.hash,
            method=settings.method,
            eps=settings.eps,
            seconds=Seconds(frames.seconds, embedded - started, time.perf_counter() - embedded),
            notices=(*frames.notices, *pack.notices, *dict.fromkeys(self.backbone.notices)),
            frames=frames,
            embeddings=embeddings,
            head=head,
        )
