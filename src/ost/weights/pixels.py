"""The preprocessing that families of weights were trained with."""

from __future__ import annotations

from typing import Literal

from ost.types import Preprocess

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (
    (123.675 / 255, 116.28 / 255, 103.53 / 255),
    (58.395 / 255, 57.12 / 255, 57.375 / 255),
)
LITE_MEAN, LITE_STD = (127 / 255, 127 / 255, 127 / 255), (128 / 255, 128 / 255, 128 / 255)
HALF, ZERO, ONE = (0.5, 0.5, 0.5), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def clip_preprocess(size: int) -> Preprocess:
    """Return the preprocessing of OpenAI's and most open_clip weights."""
    return Preprocess(size, size, "bicubic", True, CLIP_MEAN, CLIP_STD)


def ost_preprocess(size: int) -> Preprocess:
    """Return the preprocessing of OST, ViFi-CLIP and MAXI: ImageNet's mean and std."""
    return Preprocess(size, size * 256 // 224, "bilinear", False, IMAGENET_MEAN, IMAGENET_STD)


def squash(size: int, interpolation: Literal["bilinear", "bicubic"]) -> Preprocess:
    """Return the preprocessing of PE-Core and SigLIP 2: the whole frame, stretched to a square."""
    return Preprocess(size, None, interpolation, True, HALF, HALF)
