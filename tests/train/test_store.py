"""Embeddings kept on disk: looked at once, and never wrong."""

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import ost.recognition.store as store
from ost.backbones.adapter import Adapter
from ost.backbones.base import frame_embeddings, prepared
from ost.cache import kind_folder
from ost.errors import VideoError
from ost.recognition import decoding, reader
from ost.recognition.match import adapted
from ost.recognition.settings import Settings
from ost.recognition.store import concatenate, stored_embeddings
from ost.types import FrameEmbeddings


@pytest.fixture(autouse=True)
def fresh_cache(own_cache, tmp_path, monkeypatch):
    """A store of its own for each test."""
    monkeypatch.setenv("OST_CACHE", str(tmp_path / "cache"))


class Towers:
    """A backbone that counts what it looks at."""

    def __init__(self, preprocess, weights_hash="w", features=True):
        self.name, self.weights_hash, self.precision = "towers", weights_hash, "float32"
        self.preprocess, self.features, self.seen = preprocess, features, 0
        self.adapter, self.device = None, torch.device("cpu")

    @property
    def fingerprint(self):
        return f"{self.weights_hash} {self.precision} {self.preprocess}"

    def embed_clips(self, pixels):
        self.seen += len(pixels)
        raw = prepared(pixels, self.preprocess).mean((-1, -2))
        found = frame_embeddings(raw)
        return replace(found, features=2 * raw) if self.features else found


@pytest.fixture
def towers(backbone):
    return Towers(backbone.preprocess)


@pytest.fixture
def videos(tmp_path):
    """Two small video files."""
    import av

    paths = []
    for i in range(2):
        path = tmp_path / f"{i}.mkv"
        rng = np.random.default_rng(i)
        with av.open(str(path), "w") as output:
            stream = output.add_stream("ffv1", rate=5)
            stream.width, stream.height, stream.pix_fmt = 40, 36, "bgr0"
            for _ in range(4):
                pixels = rng.integers(0, 255, (36, 40, 3), dtype=np.uint8)
                output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            output.mux(stream.encode())
        paths.append(path)
    return paths


def embed_all(towers, paths, frames=2):
    return list(stored_embeddings(towers, paths, Settings(frames)))


def equal(a, b):
    return (
        torch.equal(a.values, b.values)
        and torch.equal(a.norms, b.norms)
        and (a.features is None) == (b.features is None)
        and (a.features is None or torch.equal(a.features, b.features))
    )


@pytest.mark.parametrize("features", [True, False])
def test_a_second_pass_decodes_nothing_and_gives_the_same_to_the_bit(towers, videos, monkeypatch, features):
    towers.features = features
    first = embed_all(towers, videos)
    assert towers.seen == 2
    monkeypatch.setattr(decoding, "decode_views", None)
    second = embed_all(towers, videos)
    assert towers.seen == 2
    assert all(equal(a, b) for a, b in zip(first, second, strict=True))
    assert isinstance(second[0], FrameEmbeddings)
    assert not equal(second[0], second[1])


def test_results_come_in_the_order_of_the_paths_whatever_is_stored(towers, videos):
    embed_all(towers, videos[1:])
    both = embed_all(towers, [videos[1], videos[0], videos[1]])
    assert equal(both[0], both[2]) and not equal(both[0], both[1])
    assert towers.seen == 2


def test_other_weights_pixels_frames_and_shares_have_embeddings_of_their_own(towers, videos):
    embed_all(towers, videos[:1])
    others = [
        (Towers(towers.preprocess, "other"), {"frames": 2}),
        (Towers(replace(towers.preprocess, interpolation="bicubic")), {"frames": 2}),
        (Towers(towers.preprocess), {"frames": 3}),
        (Towers(towers.preprocess), {"frames": 2, "min_decoded": 0.9}),
    ]
    half = Towers(towers.preprocess)
    half.precision = "bfloat16"
    for other, how in [*others, (half, {"frames": 2})]:
        list(stored_embeddings(other, videos[:1], Settings(**how)))
        assert other.seen == 1


def test_a_changed_file_is_embedded_anew(towers, videos):
    first, second = embed_all(towers, videos)
    before = videos[0].stat()
    videos[0].write_bytes(videos[1].read_bytes())
    os.utime(videos[0], ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    (changed,) = embed_all(towers, videos[:1])
    assert towers.seen == 3
    assert equal(changed, second) and not equal(changed, first)


DAMAGES = {
    "cut off": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "something else": lambda data: b"{}" * 40,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_store_is_embedded_anew_and_mended(towers, videos, tmp_path, damage):
    (first,) = embed_all(towers, videos[:1])
    (file,) = kind_folder("embeddings").rglob("*.safetensors")
    file.write_bytes(damage(file.read_bytes()))
    (again,) = embed_all(towers, videos[:1])
    assert towers.seen == 2
    assert equal(again, first)
    embed_all(towers, videos[:1])
    assert towers.seen == 2


def test_a_store_that_lacks_a_tensor_is_embedded_anew(towers, videos, tmp_path):
    (first,) = embed_all(towers, videos[:1])
    (file,) = kind_folder("embeddings").rglob("*.safetensors")
    with safe_open(file, framework="pt") as kept:
        assert set(kept.keys()) == {"0 values", "0 norms", "0 features"}
        save_file({"0 values": kept.get_tensor("0 values")}, file, metadata=kept.metadata())
    (again,) = embed_all(towers, videos[:1])
    assert towers.seen == 2 and equal(again, first)


def test_failures_are_given_in_their_place_and_not_stored(towers, videos, tmp_path):
    broken = tmp_path / "broken.mkv"
    broken.write_text("no video")
    found = embed_all(towers, [videos[0], broken, tmp_path / "missing.mkv", videos[1]])
    assert [isinstance(result, VideoError) for result in found] == [False, True, True, False]
    assert found[1].path == str(broken)
    (shard,) = kind_folder("embeddings").rglob("*.safetensors")
    with safe_open(shard, framework="pt") as kept:
        assert len(json.loads(kept.metadata()["clips"])) == 2
    stamp = broken.stat()
    broken.write_bytes(videos[1].read_bytes())
    os.utime(broken, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    (mended,) = embed_all(towers, [broken])
    assert equal(mended, found[3])


def test_embeddings_that_are_not_finite_are_a_failure_and_not_stored(towers, videos, tmp_path):
    look = towers.embed_clips
    towers.embed_clips = lambda pixels: look(pixels.float() * math.nan)
    (result,) = embed_all(towers, videos[:1])
    assert isinstance(result, VideoError)
    assert not kind_folder("embeddings").exists()


def test_a_folder_of_frames_is_kept_until_one_of_them_changes(towers, labelled):
    folder = Path(labelled.paths[0])
    one, two = (embed_all(towers, [folder]) for _ in range(2))
    assert towers.seen == 1
    assert equal(one[0], two[0])
    image = sorted(folder.iterdir())[0]
    before = image.stat()
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    embed_all(towers, [folder])
    assert towers.seen == 2
    sorted(folder.iterdir())[-1].unlink()
    embed_all(towers, [folder])
    assert towers.seen == 3


def test_a_pass_that_is_broken_off_leaves_what_it_embedded(towers, videos):
    results = stored_embeddings(towers, videos, Settings(2))
    first = next(results)
    results.close()
    again = embed_all(towers, videos)
    assert towers.seen == 2, "the first is kept, the second was not looked at"
    assert equal(first, again[0])


@pytest.mark.parametrize("decoders", [1, 3, 16])
def test_results_keep_their_order_whatever_is_decoded_ahead(towers, videos, monkeypatch, decoders):
    monkeypatch.setattr(reader, "_decoders", lambda backbone: decoders)
    paths = [videos[i % 2] for i in range(7)]
    found = embed_all(towers, [*paths, "gone.mkv"])
    assert isinstance(found.pop(), VideoError)
    assert all(equal(result, found[i % 2]) for i, result in enumerate(found))
    assert not equal(found[0], found[1])


def test_clips_of_many_shards_are_found(towers, videos, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD", 2)
    paths = [tmp_path / f"{i}-{name.name}" for i in range(3) for name in videos]
    for i, path in enumerate(paths):
        shutil.copy(videos[i % 2], path)
    first = embed_all(towers, paths[:5])
    assert len(list(kind_folder("embeddings").rglob("*.safetensors"))) == 3
    order = [paths[i] for i in (4, 0, 3, 1, 2)]
    again = embed_all(towers, order)
    assert towers.seen == 5
    assert all(equal(a, first[paths.index(path)]) for a, path in zip(again, order, strict=True))


def test_a_store_that_cannot_be_written_stops_nothing(towers, videos, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file is in the way")
    assert len(embed_all(towers, videos)) == 2
    assert len(embed_all(towers, videos)) == 2
    assert towers.seen == 4


def test_stored_embeddings_come_back_to_the_device_of_the_backbone(towers, videos):
    embed_all(towers, videos[:1])
    towers.device = torch.device("meta")
    (kept,) = embed_all(towers, videos[:1])
    assert towers.seen == 1
    assert {t.device.type for t in (kept.values, kept.norms, kept.features)} == {"meta"}


def test_embeddings_of_clip_are_kept_once_and_training_takes_them_for_features(backbone, videos):
    first, second = (concatenate(embed_all(backbone, videos)) for _ in range(2))
    assert equal(first, second)
    assert first.features is None and first.unit_features.shape == (2, 2, 32)
    shapes = {"centre": (32,), "weight": (1, 32), "bias": (1,), "down": (2, 32), "up": (32, 2)}
    tensors = {name: torch.ones(shape) for name, shape in shapes.items()}
    adapter = Adapter("b", "h", ("a",), 2, 1.0, **tensors)
    up = adapter.up.clone().requires_grad_()
    for frames in (first, second):
        adapted(frames, replace(adapter, up=up).classes(("a",))).values.sum().backward()
    assert bool(up.grad.any())
