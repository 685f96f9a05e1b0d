"""Frame embeddings of clips, kept on disk: a clip passes through the towers once per weights and sampling.

Each pair of weights and views has a folder of shards, safetensors files of some clips each. The index of a shard is
in its header, so that the two are written together and cannot contradict each other.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Generator, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ost.archives import within
from ost.backbones.base import Backbone, towers_hash
from ost.errors import VideoError
from ost.files import atomic, cache_folder, text_hash
from ost.recognition.reader import read_videos
from ost.recognition.settings import Views
from ost.types import FrameEmbeddings
from ost.video.folder import frame_images

LAYOUT = "2"
SHARD = 64  # clips; a killed run loses at most so many, or those of so many seconds
SHARD_SECONDS = 30.0


def stored_embeddings(
    backbone: Backbone, paths: Iterable[str | Path], views: Views
) -> Generator[FrameEmbeddings | VideoError]:
    """Embed the views of each video, reading cached embeddings where present.

    Args:
        backbone: whose embeddings, with features where it has such.
        paths: the videos, each a file or a folder of frame images.
        views: what to look at.
    """
    with (
        contextlib.closing(Store(backbone, views)) as store,
        contextlib.closing(read_videos(backbone, paths, views, kept=store)) as readings,
    ):
        for reading in readings:
            yield reading if isinstance(reading, VideoError) else reading.embeddings


def stacked(parts: Sequence[FrameEmbeddings]) -> FrameEmbeddings:
    """Clips of equally many frames as one batch."""
    first = parts[0]
    features = None if first.features is None else torch.cat([_features(part) for part in parts])
    return FrameEmbeddings(
        torch.cat([part.values for part in parts]),
        torch.cat([part.norms for part in parts]),
        features=features,
    )


def _features(part: FrameEmbeddings) -> Tensor:
    assert part.features is not None
    return part.features


class Store:
    """The shards of one pair of weights and views. What cannot be written is only embedded again next time."""

    def __init__(self, backbone: Backbone, views: Views) -> None:
        key = text_hash(LAYOUT, towers_hash(backbone), backbone.precision, f"{backbone.preprocess} {views}")
        self._folder = cache_folder() / "embeddings" / key
        self._device: Any = getattr(backbone, "device", "cpu")
        self._where: dict[str, tuple[Path, int]] = {}
        self._waiting: dict[str, FrameEmbeddings] = {}
        self._since = time.monotonic()
        self._open = lru_cache(16)(_opened)  # clips come in the order in which they were kept
        for shard in sorted(self._folder.glob("*.safetensors")):
            self._where |= {identity: (shard, row) for row, identity in enumerate(_index(shard))}

    def identity(self, path: str | Path) -> str | None:
        """What a video is kept under: where it is, and its state; None where it cannot be told."""
        return _identity(Path(path))

    def get(self, identity: str | None) -> FrameEmbeddings | None:
        """The embeddings of a file as it is now, on the backbone's device; None if they are not kept."""
        from safetensors import SafetensorError

        if identity is None or identity not in self._where:
            return self._waiting.get(identity or "")
        shard, row = self._where[identity]
        try:
            file = self._open(shard)
            tensors = {name: file.get_slice(name)[row].to(self._device) for name in file.keys()}  # noqa: SIM118
            return FrameEmbeddings(tensors["values"], tensors["norms"], features=tensors.get("features"))
        except (SafetensorError, KeyError, OSError):  # damaged: embed it again
            return None

    def put(self, identity: str | None, embedded: FrameEmbeddings) -> None:
        """Keep embeddings, on disk a little later."""
        if identity is None:
            return
        self._waiting[identity] = embedded
        if len(self._waiting) >= SHARD or time.monotonic() - self._since > SHARD_SECONDS:
            self.close()

    def close(self) -> None:
        """Write what waits as a shard."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        written, self._since = dict(self._waiting), time.monotonic()
        if not written:
            return
        columns = [(e.values, e.norms, e.features) for e in written.values()]
        tensors = {
            name: torch.stack([tensor.cpu() for tensor in column if tensor is not None])
            for name, column in zip(("values", "norms", "features"), zip(*columns, strict=True), strict=True)
            if column[0] is not None
        }
        shard = self._folder / f"{uuid.uuid4().hex}.safetensors"
        with contextlib.suppress(OSError, SafetensorError), atomic(shard) as temporary:
            save_file(tensors, temporary, metadata={"clips": json.dumps(list(written))})
            self._where |= {identity: (shard, row) for row, identity in enumerate(written)}
        self._waiting = {}


def _opened(shard: Path) -> Any:
    from safetensors import safe_open

    return safe_open(shard, framework="pt")


def _index(shard: Path) -> list[str]:
    """The clips of a shard; a damaged one is removed."""
    from safetensors import SafetensorError

    try:
        clips: list[str] = json.loads((_opened(shard).metadata() or {})["clips"])
    except OSError:
        return []
    except (SafetensorError, KeyError, ValueError):
        with contextlib.suppress(OSError):
            shard.unlink()
        return []
    return clips


def _identity(path: Path) -> str | None:
    """A hash of where a video is and of its state; None where it cannot be told."""
    archive = within(path)
    try:
        files = [archive[0]] if archive else frame_images(path) if path.is_dir() else [path]
        states = [(file.name, file.stat()) for file in files]
    except OSError:
        return None
    return text_hash(
        str(path.resolve()), *(f"{name} {state.st_size} {state.st_mtime_ns}" for name, state in states)
    )
