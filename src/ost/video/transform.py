"""Pixels: resize, crop and normalise sampled frames into what an image tower takes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ost.errors import UsageError
from ost.types import Frames, Preprocess

CROPS = (1, 3)


def transform(frames: Frames, preprocess: Preprocess, crops: int = 1) -> Tensor:
    """Tower input, one view per clip and crop.

    One crop is the centre of the frame after `preprocess.resize`; three are spread along the long side of
    a frame whose short side was resized to `preprocess.size`. Frames that the decoder scaled already are
    not resized again.

    Args:
        frames: T = clips x frames-a-clip frames.
        preprocess: what the weights were trained with.
        crops: 1 or 3.

    Returns:
        fp32 [clips * crops, frames a clip, 3, size, size], normalised; views of one clip are adjacent.
    """
    target = view_preprocess(preprocess, crops)
    pixels = resize(torch.from_numpy(frames.pixels).permute(0, 3, 1, 2), target)
    views = torch.stack([_crop(pixels, target.size, place) for place in _places(crops)])
    views = normalise(views, target)
    views = views.unflatten(1, (frames.clips, -1)).transpose(0, 1)
    return views.flatten(0, 1).contiguous()


def normalise(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Pixels [..., 3, H, W] of 0..255 -> fp32 with the mean and spread that the weights want, on their device."""
    mean = torch.tensor(preprocess.mean, device=pixels.device).view(3, 1, 1) * 255
    std = torch.tensor(preprocess.std, device=pixels.device).view(3, 1, 1) * 255
    return (pixels.float() - mean) / std


def view_preprocess(preprocess: Preprocess, crops: int) -> Preprocess:
    """`preprocess` as it holds for that many crops: several crops resize the short side to `size` itself."""
    if crops not in CROPS:
        raise UsageError(f"views can have 1 or 3 crops, not {crops}")
    if crops == 1 or preprocess.resize is None:
        return preprocess
    return replace(preprocess, resize=preprocess.size)


def resize(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """uint8 or fp32 [T, 3, H, W] resized as `preprocess` says, not yet cropped; values stay 0..255."""
    height, width = pixels.shape[-2:]
    new_width, new_height = preprocess.resized(width, height)
    if (height, width) == (new_height, new_width):
        return pixels
    resized = interpolate(
        pixels.float(),
        size=(new_height, new_width),
        mode=preprocess.interpolation,
        antialias=preprocess.antialias,
        align_corners=False,
    )
    return resized.round().clamp(0, 255)


def _places(crops: int) -> tuple[float, ...]:
    return (0.5,) if crops == 1 else (0.0, 0.5, 1.0)


def _crop(pixels: Tensor, size: int, place: float) -> Tensor:
    """A size x size crop: `place` is 0..1 along the long side, the short side is centred."""
    height, width = pixels.shape[-2:]
    if height > width:
        top, left = int((height - size) * place), (width - size) // 2
    else:
        top, left = (height - size) // 2, int((width - size) * place)
    return pixels[..., top : top + size, left : left + size]
