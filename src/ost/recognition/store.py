"""Frame embeddings of clips, kept on disk: a clip passes through the towers once per weights and sampling.

Each pair of weights and views has a folder of shards, safetensors files of some clips each. The index of a shard is
in its header, so that the two are written together and cannot contradict each other.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
import uuid
from collections.abc import Generator, Iterable, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ost.archives import within
from ost.backbones.base import Backbone, towers_hash
from ost.cache import Room, Use, readable_size
from ost.errors import VideoError, first_line
from ost.files import atomic, cache_folder, text_hash
from ost.recognition.decoding import Reading
from ost.recognition.reader import read_videos
from ost.recognition.settings import FrameRate, Views
from ost.types import FrameEmbeddings, Sample, Seconds
from ost.video.folder import frame_images
from ost.video.sample import Part

LAYOUT = "3"
DAMAGE = (SafetensorError, KeyError, IndexError, TypeError, ValueError, OSError)  # of a shard
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
        Store(backbone, views) as store,
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
    """The shards of one pair of weights and views; use it as a context manager.

    Several processes may read and write it at once: each writes shards of its own, whole or not at all. It holds no
    more than `ost.cache.size_limit`; what was used longest ago goes first, and nothing that a run uses.
    """

    def __init__(self, backbone: Backbone, views: Views | FrameRate) -> None:
        key = text_hash(LAYOUT, towers_hash(backbone), backbone.precision, f"{backbone.preprocess} {views}")
        self._folder = cache_folder() / "embeddings" / key
        self._device: Any = getattr(backbone, "device", "cpu")
        self._where: dict[str, tuple[Path, int]] = {}
        self._waiting: dict[str, Reading] = {}
        self._since = time.monotonic()
        self._use, self._room, self._writes = Use(), Room(), True
        self._open = lru_cache(16)(_Shard)  # clips come in the order in which they were kept
        for path in sorted(self._folder.glob("*.safetensors")):
            self._where |= {identity: (path, row) for row, identity in enumerate(_identities(path))}

    def __enter__(self) -> Self:
        self._use.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.write()
        self._use.__exit__(*error)

    def identity(self, path: str | Path, part: Part | None = None) -> str | None:
        """A hash of where a video is, of its state and of the part; None where its state cannot be known."""
        return _identity(Path(path), part)

    def get(self, identity: str | None, chunk: int = 0) -> Reading | None:
        """What was kept of a file as it is now, on the backbone's device; None if nothing was."""
        if identity is None:
            return None
        key = _key(identity, chunk)
        if key not in self._where:
            return self._waiting.get(key)
        path, row = self._where[key]
        try:
            found = self._open(path).reading(row, self._device)
        except DAMAGE:  # embed it again
            return None
        self._use.touch(path)
        return replace(found, chunk=chunk)

    def put(self, identity: str | None, reading: Reading) -> None:
        """Keep a reading, on disk a little later."""
        if identity is None or not self._writes:
            return
        self._waiting[_key(identity, reading.chunk)] = replace(reading, thumbnails=None, seconds=Seconds())
        if len(self._waiting) >= SHARD or time.monotonic() - self._since > SHARD_SECONDS:
            self.write()

    def write(self) -> None:
        """Write what waits as a shard. What cannot be written is embedded again next time, and said once."""
        waiting, self._since = self._waiting, time.monotonic()
        if not waiting:
            return
        path = self._folder / f"{uuid.uuid4().hex}.safetensors"
        try:
            if not self._room.take(_bytes(waiting.values())):
                limit = readable_size(self._room.limit)
                raise OSError(
                    f"the cache is at its limit of {limit}, and runs use all of it (OST_CACHE_SIZE)"
                )
            _save(list(waiting.items()), path)
        except (OSError, SafetensorError) as error:
            self._writes = False
            logging.getLogger("ost").warning("embeddings are not kept from here on: %s", first_line(error))
        else:
            self._use.touch(path)
            self._where |= {key: (path, row) for row, key in enumerate(waiting)}
        self._waiting = {}


class _Shard:
    """An open shard."""

    def __init__(self, path: Path) -> None:
        self._file = safe_open(path, framework="pt")
        self._names = set(self._file.keys())
        self._samples: list[dict[str, Any]] = json.loads((self._file.metadata() or {})["samples"])

    def reading(self, row: int, device: Any) -> Reading:
        """What was kept in a row."""
        # Copied, since the bits of a matrix product depend on how its numbers are aligned in memory.
        tensors = {
            name: self._file.get_tensor(f"{row} {name}").clone().to(device)
            for name in ("values", "norms", "features")
            if f"{row} {name}" in self._names
        }
        sample = dict(self._samples[row])
        last = bool(sample.pop("last"))
        times = tuple(math.nan if seconds is None else seconds for seconds in sample.pop("times"))
        notices = tuple(sample.pop("notices"))
        return Reading(
            "",
            FrameEmbeddings(tensors["values"], tensors["norms"], features=tensors.get("features")),
            Sample(times, **sample, notices=notices),
            last=last,
        )


def _identities(path: Path) -> list[str]:
    """What a shard holds; a damaged one is removed."""
    try:
        found: list[str] = json.loads((safe_open(path, framework="pt").metadata() or {})["clips"])
    except OSError:
        return []
    except DAMAGE:
        with contextlib.suppress(OSError):
            path.unlink()
        return []
    return found


def _save(readings: Sequence[tuple[str, Reading]], path: Path) -> None:
    """Write a shard, with what it holds in its header."""
    tensors = {
        f"{row} {name}": tensor.cpu().contiguous()
        for row, (_, reading) in enumerate(readings)
        for name, tensor in _tensors(reading.embeddings)
    }
    samples = [{**asdict(r.sample), "times": _times(r.sample), "last": r.last} for _, r in readings]
    metadata = {"clips": json.dumps([key for key, _ in readings]), "samples": json.dumps(samples)}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def _tensors(embeddings: FrameEmbeddings) -> list[tuple[str, Tensor]]:
    named = [("values", embeddings.values), ("norms", embeddings.norms), ("features", embeddings.features)]
    return [(name, tensor) for name, tensor in named if tensor is not None]


def _times(sample: Sample) -> list[float | None]:
    return [None if math.isnan(seconds) else seconds for seconds in sample.times]


def _bytes(readings: Iterable[Reading]) -> int:
    return sum(tensor.nbytes for reading in readings for _, tensor in _tensors(reading.embeddings))


def _key(identity: str, chunk: int) -> str:
    return f"{identity} {chunk}" if chunk else identity


def _identity(path: Path, part: Part | None) -> str | None:
    archive = within(path)
    try:
        files = [archive[0]] if archive else frame_images(path) if path.is_dir() else [path]
        states = [(file.name, file.stat()) for file in files]
    except OSError:
        return None
    return text_hash(
        str(path.resolve()),
        str(part),
        *(f"{name} {state.st_size} {state.st_mtime_ns}" for name, state in states),
    )
