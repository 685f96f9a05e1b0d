"""Training augmentation: drawn once a clip from one generator, and the same for all its frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ost.errors import UsageError
from ost.types import Preprocess


@dataclass(frozen=True)
class Augmentation:
    """Settings of the augmentation of training clips.

    Attributes:
        scales: of the multi-scale crop (TSN, ECCV 2016), shares of the short side; empty is the centre crop.
        flip: probability of a mirrored clip.
        jitter: probability of other colours: brightness, contrast, saturation and hue within these shares.
        grayscale: probability of no colours.
        randaugment: (number of operations, magnitude of 30) of RandAugment (CVPR 2020 workshops), or None.
    """

    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    flip: float = 0.5
    jitter: float = 0.8
    grayscale: float = 0.2
    randaugment: tuple[int, int] | None = None
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "grayscale"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise UsageError(f"{name} is a probability between 0 and 1, not {value}")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise UsageError(f"{name} is a share between 0 and 1, not {value}")
        if not 0 <= self.hue <= 0.5:
            raise UsageError(f"hue is a share of the colour circle between 0 and 0.5, not {self.hue}")
        if any(not 0 < scale <= 1 for scale in self.scales):
            raise UsageError(f"scales of the crop are shares of the short side, in (0, 1], not {self.scales}")
        if self.randaugment is not None and not (self.randaugment[0] >= 0 and 0 <= self.randaugment[1] <= 30):
            raise UsageError(f"randaugment is (operations, magnitude up to 30), not {self.randaugment}")


NONE = Augmentation(scales=(), flip=0, jitter=0, grayscale=0)


@dataclass(frozen=True)
class Colour:
    """The colour augmentation drawn for one clip.

    Attributes:
        factors: operation -> factor, in the order in which they are applied; empty leaves the colours.
        grayscale: whether the clip loses its colours.
        seed: of RandAugment; None without it.
    """

    factors: tuple[tuple[str, float], ...] = ()
    grayscale: bool = False
    seed: int | None = None


def train_resize(preprocess: Preprocess) -> Preprocess:
    """Return `preprocess` with a larger short side for random crops: 256 pixels for a tower of 224."""
    if preprocess.resize is None:
        return preprocess
    return replace(preprocess, resize=max(preprocess.resize, preprocess.size * 256 // 224))


def crop_clip(pixels: Tensor, size: int, augmentation: Augmentation, rng: np.random.Generator) -> Tensor:
    """Crop all frames of a clip alike, and mirror them with the probability of `flip`.

    Args:
        pixels: uint8 [T, 3, H, W], resized for training.
        size: side of the tower's input.
        augmentation: which crops, how often mirrored.
        rng: the only source of randomness.

    Returns:
        uint8 [T, 3, size, size].
    """
    top, left, height, width = _draw_box(pixels.shape[-2], pixels.shape[-1], size, augmentation.scales, rng)
    cropped = pixels[..., top : top + height, left : left + width]
    if (height, width) != (size, size):
        resized = interpolate(cropped.float(), size=(size, size), mode="bilinear", align_corners=False)
        cropped = resized.round().clamp(0, 255).to(torch.uint8)
    if rng.random() < augmentation.flip:
        cropped = cropped.flip(-1)
    return cropped.contiguous()


def _draw_box(
    height: int, width: int, size: int, scales: tuple[float, ...], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw the (top, left, height, width) of the crop."""
    if not scales:
        side = min(size, height, width)
        return (height - side) // 2, (width - side) // 2, side, side
    short = min(height, width)
    steps = range(len(scales))
    pairs = [(i, j) for i, j in product(steps, steps) if abs(i - j) <= 1]
    i, j = pairs[int(rng.integers(len(pairs)))]
    tall, wide = max(1, int(short * scales[i])), max(1, int(short * scales[j]))
    down, right = height - tall, width - wide
    places = ((0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2))
    top, left = places[int(rng.integers(len(places)))]
    return top, left, tall, wide


def draw_colour(augmentation: Augmentation, rng: np.random.Generator) -> Colour:
    """Draw the colour augmentation of one clip."""
    factors: list[tuple[str, float]] = []
    if rng.random() < augmentation.jitter:
        for name in rng.permutation(["brightness", "contrast", "saturation", "hue"]).tolist():
            spread = float(getattr(augmentation, name))
            middle = 0.0 if name == "hue" else 1.0
            factors.append((name, float(rng.uniform(middle - spread, middle + spread))))
    gray = bool(rng.random() < augmentation.grayscale)
    seed = None if augmentation.randaugment is None else int(rng.integers(2**31))
    return Colour(tuple(factors), gray, seed)


def recolour(pixels: Tensor, colour: Colour, augmentation: Augmentation) -> Tensor:
    """Apply the drawn colours to uint8 [T, 3, S, S], on the device of the pixels."""
    from torchvision.transforms.v2 import RandAugment, functional

    for name, factor in colour.factors:
        pixels = getattr(functional, f"adjust_{name}")(pixels, factor)
    if colour.grayscale:
        pixels = functional.rgb_to_grayscale(pixels, num_output_channels=3)
    if colour.seed is not None and augmentation.randaugment is not None:
        operations, magnitude = augmentation.randaugment
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(colour.seed)  # leaves the generators of GPUs alone
            pixels = RandAugment(operations, magnitude)(pixels)
    return pixels
