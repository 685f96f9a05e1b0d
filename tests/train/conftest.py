"""A tiny CLIP as a file, moving pictures in a few classes, and configs small enough for a test."""

import numpy as np
import pytest
import torch
from PIL import Image

from ost.descriptors.pack import Pack, PackClass
from ost.train.config import TrainConfig

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220)}


@pytest.fixture(autouse=True)
def quiet(own_cache, one_thread, fork_server):
    """Own cache; problems too small to be shared out; processes from one server."""


@pytest.fixture(scope="session")
def backbone(tiny):
    """The towers of that file, in fp32."""
    from ost.backbones.load import load_backbone

    return load_backbone(None, tiny, device="cpu", dtype="fp32")


@pytest.fixture(scope="session")
def pack():
    """Three classes with descriptors, not equally many."""
    return Pack(
        "colours",
        (
            PackClass("red square", ("a red square", "something red"), ("it is red", "then it stays red")),
            PackClass("green square", ("a green square",), ("it is green", "green again", "still green")),
            PackClass("blue square", ("a blue square", "a blue thing", "the sea"), ("it is blue",)),
        ),
    )


def write_clip(folder, colour, seed, frames=6):
    """A folder of frames: a coloured square that moves over noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(frames):
        picture = rng.integers(0, 60, (40, 48, 3), dtype=np.uint8)
        picture[10:30, 4 * i : 4 * i + 20] = colour
        Image.fromarray(picture).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A folder per class with four clips in each."""
    root = tmp_path_factory.mktemp("clips")
    for c, (name, colour) in enumerate(COLOURS.items()):
        for i in range(4):
            write_clip(root / f"{name} square" / f"clip{i}", colour, 10 * c + i)
    return root


@pytest.fixture
def labelled(clips, pack):
    """The same as paths and rows of the pack."""
    from ost.train.validate import Labelled

    found = sorted(p for p in clips.glob("*/*") if p.is_dir())
    return Labelled(tuple(map(str, found)), tuple(pack.names.index(p.parent.name) for p in found))


@pytest.fixture
def config(tiny):
    """A run of seconds."""
    return TrainConfig(
        weights=str(tiny),
        frames=3,
        batch=6,
        contrastive_batch=6,
        chunk=2,
        epochs=2,
        warmup_epochs=0,
        lr=1e-3,
        precision="fp32",
        workers=0,
        seed=7,
    )


@pytest.fixture
def make_chunk():
    """A chunk of random clips with the given labels."""
    from ost.train.data import TowerBatch
    from ost.video.augment import Colour

    def make(labels, frames=3, seed=0):
        generator = torch.Generator().manual_seed(seed)
        shape = (len(labels), frames, 3, 32, 32)
        pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        paths = tuple(f"clip{i}" for i in range(len(labels)))
        return TowerBatch(pixels, torch.tensor(labels), (Colour(),) * len(labels), paths)

    return make
