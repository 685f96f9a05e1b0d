"""A world of moving things, drawn: see `learn.py`.

A class has the number ((colour * 3 + shape) * 3 + pair of motions) * 2 + order.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ost.backbones.extras import draw_temporal
from ost.descriptors.pack import Pack, PackClass
from ost.train.validate import Labelled
from ost.types import Preprocess
from ost.weights.formats import Weights, save_weights

FRAMES, SIDE = 8, 32
COLOURS = {"red": (215, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 225), "yellow": (230, 210, 40)}
SHAPES = {"square": "solid", "cross": "spiky", "ring": "hollow"}
MOTIONS = (  # words and steps of the two orders
    ("moving right", "moving left", "at the left edge", "in the middle", "at the right edge"),
    ("rising", "falling", "at the bottom", "half way up", "at the top"),
    ("growing", "shrinking", "small", "of middle size", "large"),
)
SEED = 0


def class_numbers(trained: bool) -> list[int]:
    """Classes that are trained, or those that never are; a pair of motions goes together."""
    pairs = np.arange(len(COLOURS) * len(SHAPES) * len(MOTIONS))
    colour, shape, motion = np.unravel_index(pairs, (len(COLOURS), len(SHAPES), len(MOTIONS)))
    unseen = (colour + shape) % 4 == motion
    chosen = pairs[unseen != trained]
    return sorted([*(2 * chosen).tolist(), *(2 * chosen + 1).tolist()])


def described(number: int) -> PackClass:
    """Name, what a frame shows, and the steps."""
    rest, order = divmod(number, 2)
    rest, motion = divmod(rest, len(MOTIONS))
    colour, shape = list(COLOURS)[rest // len(SHAPES)], list(SHAPES)[rest % len(SHAPES)]
    *words, first, middle, last = MOTIONS[motion]
    steps = (first, middle, last) if order == 0 else (last, middle, first)
    spatial = (f"a {colour} {shape}", f"something {colour}", f"something {SHAPES[shape]}")
    told = ("first it is {}", "then it is {}", "at the end it is {}")
    temporal = tuple(text.format(step) for text, step in zip(told, steps, strict=True))
    return PackClass(f"a {colour} {shape} {words[order]}", spatial, temporal)


def pack_of(numbers: list[int]) -> Pack:
    return Pack("moving things", tuple(described(number) for number in numbers))


def names_alone(pack: Pack) -> Pack:
    """The same classes, with their names for descriptors."""
    return Pack("names", tuple(PackClass(c.name, (c.name,), (c.name,)) for c in pack.classes))


def drawn(pair: int, rng: np.random.Generator) -> np.ndarray:
    """Frames [8, 32, 32, 3] of the first class of a pair, growing, rising or moving right."""
    rest, motion = divmod(pair, len(MOTIONS))
    colour = np.array(list(COLOURS.values())[rest // len(SHAPES)]) + rng.integers(-20, 21, 3)
    size = rng.uniform(6, 8) if motion < 2 else rng.uniform(2.5, 4.5)
    grown = rng.uniform(6, 7.5) if motion == 2 else 0.0
    speed = np.linspace(0, 1, FRAMES) ** rng.uniform(0.7, 1.4)
    reach = rng.uniform(9, 11)
    across, up = rng.uniform(-2, 2, 2)
    base = rng.uniform(80, 150) + rng.normal(0, 6, 3)
    coarse = rng.normal(0, 6, (5, 5, 3)).repeat(7, 0).repeat(7, 1)[:SIDE, :SIDE]
    frames = base + coarse + rng.normal(0, 5, (FRAMES, SIDE, SIDE, 3))
    row, column = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    for frame, done in zip(frames, speed, strict=True):
        path = reach * (2 * done - 1)
        x, y = column - (path if motion == 0 else across), row + (path if motion == 1 else up)
        inside = silhouette(rest % len(SHAPES), x, y, size + grown * done)[..., None]
        frame += inside * (colour - frame)
    return frames.round().clip(0, 255).astype(np.uint8)


def silhouette(shape: int, x: np.ndarray, y: np.ndarray, size: float) -> np.ndarray:
    """Share 0..1 of each pixel that a shape around the origin covers."""
    ax, ay = np.abs(x), np.abs(y)
    distances = (
        np.maximum(ax, ay) - 0.9 * size,
        np.maximum(np.maximum(ax, ay) - size, np.minimum(ax, ay) - 0.3 * size),
        np.abs(np.hypot(x, y) - 0.78 * size) - 0.22 * size,
    )
    return np.clip(0.5 - distances[shape], 0, 1)


def write_clips(root: Path, numbers: list[int], twins: int, rng: np.random.Generator) -> Labelled:
    """So many clips of each class, each the reverse of one of the pair's other class.

    Labels are places in `numbers`.
    """
    paths: list[str] = []
    labels: list[int] = []
    for pair in sorted({number // 2 for number in numbers}):
        for i in range(twins):
            frames = drawn(pair, rng)
            for order, shown in enumerate((frames, frames[::-1])):
                folder = root / f"{pair}-{i}-{order}"
                folder.mkdir(parents=True)
                for t, picture in enumerate(shown):
                    Image.fromarray(picture).save(folder / f"{t}.png", compress_level=1)
                paths.append(str(folder))
                labels.append(numbers.index(2 * pair + order))
    return Labelled(tuple(paths), tuple(labels))


def random_clip(file: Path, layers: int) -> Path:
    """A CLIP that knows nothing: 32 pixels in patches of 8, two small towers, drawn as OpenAI drew theirs.

    Layers over time are drawn larger than `draw_temporal` does for a CLIP that knows something. There they
    should disturb little; here, drawn so, they had not begun to tell two orders apart after 900 steps.
    """
    from open_clip.model import CLIP

    torch.manual_seed(SEED)
    vision = {"image_size": SIDE, "patch_size": 8, "width": 128, "layers": 2, "head_width": 64}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
    state = dict(CLIP(128, vision, text).state_dict())
    for name, tensor in draw_temporal(FRAMES, 128, layers, SEED).items() if layers else ():
        state[name] = tensor * (1 if "norm" in name else 25 if "positions" in name else 4)
    pixels = Preprocess(SIDE, None, "bilinear", False, (0.5,) * 3, (0.25,) * 3)
    save_weights(Weights(state, "open_clip", "", pixels, False), file)
    return file
