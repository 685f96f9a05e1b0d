"""A backbone without weights: random projections that are always the same."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from ost.backbones.base import TextEmbeddings, frame_embeddings, prepared
from ost.types import Preprocess, Templates, TextContext

SIZE, WIDTH = 16, 24


class FakeBackbone:
    """Towers that count how often they are asked; `calibrated` ones give shift and gain too."""

    def __init__(self, weights_hash="w0", precision="float32", calibrated=False):
        self.name = "fake"
        self.weights_hash = weights_hash
        self.preprocess = Preprocess(SIZE, SIZE, "bilinear", False, (0.5,) * 3, (0.25,) * 3)
        templates = Templates("seen: {descriptor}", "{name}: {descriptor}", "just {name}")
        self.text_context = TextContext(77, len, templates)
        self.logit_scale = 10.0
        self.precision = precision
        self.fingerprint = f"{weights_hash} {precision}"
        self.device, self.width = torch.device("cpu"), WIDTH
        self.adapter = None
        self.calibrated = calibrated
        self.texts = []
        generator = torch.Generator().manual_seed(0)
        self.projection = torch.randn(3 * SIZE * SIZE, WIDTH, generator=generator)

    def embed_frames(self, pixels):
        return prepared(pixels, self.preprocess).flatten(1) @ self.projection

    def embed_clips(self, pixels):
        return frame_embeddings(self.embed_frames(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2]))

    def embed_text(self, texts):
        self.texts.append(list(texts))
        notices = ("a text was cut",) if any(len(text) > 100 for text in texts) else ()
        seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts]
        drawn = torch.stack(
            [torch.randn(WIDTH + 2, generator=torch.Generator().manual_seed(s)) for s in seeds]
        )
        values = normalize(drawn[:, :WIDTH], dim=-1)
        if not self.calibrated:
            return TextEmbeddings(values, notices=notices)
        return TextEmbeddings(values, drawn[:, WIDTH] / 10, 1 + drawn[:, WIDTH + 1].abs(), notices)


@pytest.fixture
def make_backbone():
    return FakeBackbone


@pytest.fixture
def make_video(tmp_path):
    """Writes a folder of frame images, different for each name."""

    def make(name, frames=6, size=(24, 16)):
        folder = tmp_path / name
        folder.mkdir()
        rng = np.random.default_rng(list(name.encode()))
        for i in range(frames):
            Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(
                folder / f"{i}.png"
            )
        return folder

    return make


@pytest.fixture(autouse=True)
def fresh_cache(own_cache, tmp_path, monkeypatch):
    """A head cache of its own for each test."""
    monkeypatch.setenv("OST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
