"""Frame embeddings of clips, kept on disk: a clip passes through the towers once per weights and sampling.

Each pair of weights and views has a folder of shards, safetensors files of some clips each. The index of a shard is
in its header, so that the two are written together and cannot contradict each other.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ost.archives import within
from ost.backbones.base import Backbone, towers_hash
from ost.errors import VideoError
from ost.files import atomic, cache_folder, text_hash
from ost.recognition.embed import decode_views, embed_pixels
from ost.recognition.settings import Views
from ost.types import FrameEmbeddings
from ost.video.folder import frame_images
from ost.video.transform import transform

LAYOUT = "2"
SHARD = 64  # clips; a killed run loses at most so many, or those of so many seconds
SHARD_SECONDS = 30.0
MOST_DECODERS = 16


class _Fetched(NamedTuple):
    """What is there of a video: its embeddings if they are kept, else its views, or why there are none."""

    identity: str | None
    found: FrameEmbeddings | Tensor | VideoError


def stored_embeddings(
    backbone: Backbone, paths: Sequence[str | Path], views: Views
) -> Generator[FrameEmbeddings | VideoError]:
    """Embeddings [V, T, D] of the views of each video, from the store where it has them.

    The next clips are decoded while the towers look at this one.

    Args:
        backbone: whose embeddings, with features where it has such.
        paths: the videos, each a file or a folder of frame images.
        views: what to look at.
    """
    store = _Store(backbone, views)

    def fetch(path: str | Path) -> _Fetched:
        identity = _identity(Path(path))
        if kept := store.get(identity):
            return _Fetched(identity, kept)
        try:
            frames = decode_views(path, backbone.preprocess, views)
            return _Fetched(identity, transform(frames, backbone.preprocess, views.crops))
        except VideoError as error:
            return _Fetched(identity, error)

    ahead = _decoders(backbone)
    with contextlib.closing(store), ThreadPoolExecutor(ahead, "decode") as pool:
        coming = deque(pool.submit(fetch, path) for path in paths[:ahead])
        for i, path in enumerate(paths):
            identity, found = coming.popleft().result()
            coming += [pool.submit(fetch, after) for after in paths[i + ahead : i + ahead + 1]]
            if isinstance(found, Tensor):
                try:
                    found = embed_pixels(backbone, found, str(path))
                    store.put(identity, found)
                except VideoError as error:
                    found = error
            yield found


def _decoders(backbone: Backbone) -> int:
    """How many clips to decode at once: all that the cores can, unless the towers want them."""
    on_cpu = torch.device(getattr(backbone, "device", "cpu")).type == "cpu"
    return 1 if on_cpu else min(MOST_DECODERS, os.cpu_count() or 1)


def stacked(parts: Sequence[FrameEmbeddings]) -> FrameEmbeddings:
    """Clips of equally many frames as one batch."""
    first = parts[0]
    features = None if first.features is None else torch.cat([_features(part) for part in parts])
    return FrameEmbeddings(
        torch.cat([part.values for part in parts]),
        torch.cat([part.norms for part in parts]),
        features=features,
    )


def rows(frames: FrameEmbeddings, chosen: Sequence[int]) -> FrameEmbeddings:
    """Some clips of a batch."""
    index = list(chosen)
    features = None if frames.features is None else frames.features[index]
    return replace(frames, values=frames.values[index], norms=frames.norms[index], features=features)


def _features(part: FrameEmbeddings) -> Tensor:
    assert part.features is not None
    return part.features


class _Store:
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
