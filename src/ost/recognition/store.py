"""Cache frame embeddings on disk: a video passes through the towers once per model and views.

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
import zlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from threading import RLock
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ost.archives import within
from ost.backbones.base import Backbone
from ost.cache import Room, Use, kind_folder, readable_size
from ost.errors import VideoError, first_line
from ost.files import atomic, text_hash
from ost.recognition.decoding import Reading
from ost.recognition.reader import read_videos
from ost.recognition.settings import FrameRate, Settings
from ost.types import FrameEmbeddings, Sample, Seconds
from ost.video.decode import decoding_version
from ost.video.folder import frame_images
from ost.video.sample import Part

DAMAGE = (SafetensorError, KeyError, IndexError, TypeError, ValueError)  # of a shard
# Of a shard that cannot be opened now; safetensors opens a file twice, and raises RuntimeError the second time.
UNREACHABLE = (OSError, RuntimeError)
SHARD = 64  # clips; a killed run loses at most so many, or those of so many seconds
SHARD_SECONDS = 30.0
SMALL, MANY_SMALL = 8, 32  # clips of a small shard, and so many of them are joined


def stored_embeddings(
    backbone: Backbone, paths: Iterable[str | Path], views: Settings
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


def concatenate(parts: Sequence[FrameEmbeddings]) -> FrameEmbeddings:
    """Concatenate clips of equally many frames into one batch."""
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
    """The cached readings of one model and views, in shards; a context manager that can be entered again.

    Several processes may read and write it at once: each writes shards of its own, whole or not at all. What was used
    longest ago goes when the cache reaches `ost.cache.size_limit`, and nothing that a run uses.
    """

    def __init__(self, backbone: Backbone, views: Settings | FrameRate) -> None:
        sampled = views.sampled if isinstance(views, Settings) else views
        key = text_hash(backbone.fingerprint, decoding_version(), str(sampled))
        self._folder = kind_folder("embeddings") / key
        self._device = backbone.device
        self._where: dict[str, tuple[Path, int]] = {}
        self._sizes: dict[Path, int] = {}  # clips of each shard that was read
        self._waiting: dict[str, Reading] = {}
        self._since = time.monotonic()
        self._use, self._room, self._writes, self._lock = Use(), Room(), True, RLock()
        self._open = lru_cache(16)(_Shard)  # clips come in the order in which they were kept

    def __enter__(self) -> Self:
        self._use.__enter__()
        self._writes = self._room.limit > 0
        self._refresh()
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self.write()
        self._use.__exit__(*error)

    def identity(self, path: str | Path, part: Part | None = None) -> str | None:
        """Hash the path and state of a video, and the part; return None where its state cannot be read."""
        return _identity(Path(path), part)

    def get(self, identity: str | None, chunk: int = 0) -> Reading | None:
        """Return the cached reading of a file in its present state, on the backbone's device; None without one."""
        if identity is None:
            return None
        with self._lock:  # decoders read while the reader writes
            return self._get(_key(identity, chunk), chunk)

    def _get(self, key: str, chunk: int) -> Reading | None:
        for _ in range(2):
            if (place := self._where.get(key)) is None:
                waiting = self._waiting.get(key)
                return None if waiting is None else _copied(waiting)
            path, row = place
            try:
                reading = self._open(path).reading(row, self._device)
            except UNREACHABLE:  # another process may have joined it with others
                self._where.pop(key, None)
                self._refresh()
            except DAMAGE:  # embed it again, and whatever else lies there
                self._forget(path)
                return None
            else:
                self._use.touch(path)
                return replace(reading, chunk=chunk)
        return None

    def put(self, identity: str | None, reading: Reading) -> None:
        """Cache a reading; it is written with the next shard."""
        if identity is None or not self._writes:
            return
        with self._lock:
            copied = _copied(reading)  # its tensors are the caller's, who may change them
            self._waiting[_key(identity, reading.chunk)] = replace(copied, thumbnails=None, seconds=Seconds())
            if len(self._waiting) >= SHARD or time.monotonic() - self._since > SHARD_SECONDS:
                self.write()

    def write(self) -> None:
        """Write the pending readings as a shard. A failure is logged once, and ends caching for this run."""
        waiting, self._since = self._waiting, time.monotonic()
        if not waiting:
            return
        try:
            self._save(waiting)
            self._join_small_ones()
        except (*UNREACHABLE, SafetensorError) as error:
            self._writes = False
            logging.getLogger("ost").warning("embeddings are not kept from here on: %s", first_line(error))
        self._waiting = {}

    def _save(self, readings: Mapping[str, Reading]) -> None:
        """Write readings as a shard.

        Raises:
            OSError: the cache has no room for it, or cannot be written.
        """
        data = _serialized(list(readings.items()))
        if not self._room.take(len(data)):
            limit = readable_size(self._room.limit)
            raise OSError(f"the cache is at its limit of {limit}, and runs use all of it (OST_CACHE_SIZE)")
        path = self._folder / f"{uuid.uuid4().hex}.safetensors"
        with atomic(path) as temporary:
            temporary.write_bytes(data)
        self._use.touch(path)
        self._sizes[path] = len(readings)
        self._where |= {key: (path, row) for row, key in enumerate(readings)}

    def _refresh(self) -> None:
        """Index shards written by other processes, and drop those that were deleted."""
        try:
            paths = set(self._folder.glob("*.safetensors"))
        except OSError:
            return
        if gone := self._sizes.keys() - paths:
            self._where = {key: place for key, place in self._where.items() if place[0] not in gone}
            for path in gone:
                del self._sizes[path]
        for path in sorted(paths - self._sizes.keys()):
            if (identities := _identities(path)) is None:
                continue
            self._sizes[path] = len(identities)
            self._where |= {identity: (path, row) for row, identity in enumerate(identities)}

    def _join_small_ones(self) -> None:
        """Merge the shards of many short runs, whose headers take longer to read than their readings."""
        small = [path for path, size in self._sizes.items() if size < SMALL]
        if len(small) < MANY_SMALL:
            return
        keys = [key for key, (path, _) in self._where.items() if path in small]
        readings = {key: reading for key in keys if (reading := self.get(key)) is not None}
        self._save(readings)
        for path in small:
            self._forget(path)

    def _forget(self, path: Path) -> None:
        self._sizes.pop(path, None)
        self._where = {key: place for key, place in self._where.items() if place[0] != path}
        with contextlib.suppress(OSError):
            path.unlink()


class _Shard:
    """An open shard."""

    def __init__(self, path: Path) -> None:
        self._file = safe_open(path, framework="pt")
        self._names = set(self._file.keys())
        self._samples: list[dict[str, Any]] = json.loads((self._file.metadata() or {})["samples"])

    def reading(self, row: int, device: Any) -> Reading:
        """Return the reading in a row, after checking its CRC."""
        # Copied, since the bits of a matrix product depend on how its numbers are aligned in memory.
        tensors = {
            name: self._file.get_tensor(f"{row} {name}").clone()
            for name in ("values", "norms", "features")
            if f"{row} {name}" in self._names
        }
        sample = dict(self._samples[row])
        if sample.pop("crc") != _crc(tensors.values()):
            raise ValueError("its numbers are not those that were written")
        last = bool(sample.pop("last"))
        times = tuple(math.nan if seconds is None else seconds for seconds in sample.pop("times"))
        notices = tuple(sample.pop("notices"))
        return Reading(
            "",
            FrameEmbeddings(**{name: tensor.to(device) for name, tensor in tensors.items()}),
            Sample(times, **sample, notices=notices),
            last=last,
        )


def _identities(path: Path) -> list[str] | None:
    """Return the identities in a shard, None if it cannot be opened now; delete a damaged one."""
    try:
        identities: list[str] = json.loads((safe_open(path, framework="pt").metadata() or {})["clips"])
    except UNREACHABLE:
        return None
    except DAMAGE:
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    return identities


def _serialized(readings: Sequence[tuple[str, Reading]]) -> bytes:
    """Return the bytes of a shard, with its index and metadata in the header."""
    tensors: dict[str, Tensor] = {}
    samples: list[dict[str, Any]] = []
    for row, (_, reading) in enumerate(readings):
        named = {name: tensor.cpu().contiguous() for name, tensor in _tensors(reading.embeddings)}
        tensors |= {f"{row} {name}": tensor for name, tensor in named.items()}
        sample = {**asdict(reading.sample), "times": _times(reading.sample), "last": reading.last}
        samples.append({**sample, "crc": _crc(named.values())})
    metadata = {"clips": json.dumps([key for key, _ in readings]), "samples": json.dumps(samples)}
    return save(tensors, metadata=metadata)


def _crc(tensors: Iterable[Tensor]) -> int:
    """Return the CRC-32 of tensors: after a power cut a file can have its full length, a sound header and no data."""
    crc = 0
    for tensor in tensors:
        crc = zlib.crc32(tensor.numpy().tobytes(), crc)
    return crc


def _copied(reading: Reading) -> Reading:
    """Return a reading with tensors of its own."""
    tensors = {name: tensor.detach().clone() for name, tensor in _tensors(reading.embeddings)}
    return replace(reading, embeddings=replace(reading.embeddings, **tensors))


def _tensors(embeddings: FrameEmbeddings) -> list[tuple[str, Tensor]]:
    named = [("values", embeddings.values), ("norms", embeddings.norms), ("features", embeddings.features)]
    return [(name, tensor) for name, tensor in named if tensor is not None]


def _times(sample: Sample) -> list[float | None]:
    return [None if math.isnan(seconds) else seconds for seconds in sample.times]


def _key(identity: str, chunk: int) -> str:
    return f"{identity} {chunk}" if chunk else identity


def _identity(path: Path, part: Part | None) -> str | None:
    archive = within(path)
    try:
        files = [archive[0]] if archive else frame_images(path) if path.is_dir() else [path]
        states = [(file.name, file.stat()) for file in files]
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return text_hash(
        str(path.resolve()),
        str(part),
        *(f"{name} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}" for name, s in states),
    )
