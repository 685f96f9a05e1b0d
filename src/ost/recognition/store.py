"""Frame embeddings of clips, kept on disk: a clip passes through the towers once per weights and sampling."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ost.backbones.base import Backbone
from ost.errors import VideoError
from ost.files import atomic, cache_folder, text_hash
from ost.recognition.embed import embed_frames
from ost.types import FrameEmbeddings
from ost.video.decode import MIN_DECODED, Sampling, decode
from ost.video.transform import view_preprocess

LAYOUT = "1"


@dataclass(frozen=True)
class Views:
    """What is looked at of a video; see `ost.recognition.recognizer.Settings`."""

    frames: int
    clips: int = 1
    crops: int = 1
    sampling: Sampling = "uniform"
    min_decoded: float = MIN_DECODED


def stored_embeddings(
    backbone: Backbone, paths: Sequence[str | Path], views: Views
) -> Iterator[FrameEmbeddings | VideoError]:
    """Embeddings [V, T, D] of the views of each video, from the store where it has them.

    The next clip is decoded while the towers look at this one.

    Args:
        backbone: whose embeddings, with features where it has such.
        paths: the videos, each a file or a folder of frame images.
        views: what to look at.
    """

    def fetch(path: str | Path) -> FrameEmbeddings | VideoError | object:
        place = _place(backbone, Path(path), views)
        if (kept := _read(place, getattr(backbone, "device", "cpu"))) is not None:
            return kept
        try:
            return decode(
                path,
                frames=views.frames,
                clips=views.clips,
                sampling=views.sampling,
                preprocess=view_preprocess(backbone.preprocess, views.crops),
                min_decoded=views.min_decoded,
            )
        except VideoError as error:
            return error

    with ThreadPoolExecutor(1, "decode") as pool:
        coming = [pool.submit(fetch, path) for path in paths[:1]]
        for i, path in enumerate(paths):
            found = coming.pop().result()
            coming += [pool.submit(fetch, after) for after in paths[i + 1 : i + 2]]
            if isinstance(found, FrameEmbeddings | VideoError):
                yield found
                continue
            try:
                embedded = embed_frames(backbone, found, views.crops)  # pyright: ignore[reportArgumentType]
            except VideoError as error:
                yield error
                continue
            _write(_place(backbone, Path(path), views), embedded)
            yield embedded


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


def _place(backbone: Backbone, path: Path, views: Views) -> Path | None:
    """Where the embeddings of a file as it is now are kept; None where it cannot be told, as for a folder."""
    try:
        stat = path.stat()
        if not path.is_file():
            return None
        identity = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    except OSError:
        return None
    what = f"{backbone.preprocess} {views}"
    key = text_hash(LAYOUT, backbone.weights_hash, backbone.precision, what, identity)
    return cache_folder() / "embeddings" / key[:2] / f"{key}.safetensors"


def _write(place: Path | None, embedded: FrameEmbeddings) -> None:
    from safetensors.torch import save_file

    if place is None:
        return
    named = {"values": embedded.values, "norms": embedded.norms, "features": embedded.features}
    tensors = {name: t.contiguous().cpu() for name, t in named.items() if t is not None}
    # What cannot be kept is only embedded again next time.
    with contextlib.suppress(OSError), atomic(place) as temporary:
        save_file(tensors, temporary)


def _read(place: Path | None, device: torch.device | str) -> FrameEmbeddings | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if place is None or not place.is_file():
        return None
    try:
        tensors = {name: tensor.to(device) for name, tensor in load_file(place).items()}
        return FrameEmbeddings(tensors["values"], tensors["norms"], features=tensors.get("features"))
    except (SafetensorError, KeyError, OSError):  # damaged: embed it again
        return None
