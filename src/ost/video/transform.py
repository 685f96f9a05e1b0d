"""Pixels: resize, crop and normalise sampled frames into what an image tower takes."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ost.errors import UsageError
from ost.types import Frames, Preprocess
from ost.video.sample import check_crops


class _Place(NamedTuple):
    """Where a crop lies: shares of the room that it leaves, `down` from the top and `right` from the left."""

    down: float
    right: float
    mirrored: bool = False


_CENTRE = _Place(0.5, 0.5)
_CORNERS = tuple(_Place(down, right) for down in (0.0, 1.0) for right in (0.0, 1.0))


def transform(frames: Frames, preprocess: Preprocess, crops: int = 1) -> Tensor:
    """Tower input, fp32 [V, T, 3, size, size]: the pixels of `view_pixels`, normalised."""
    return preprocess.normalised(view_pixels(frames, preprocess, crops))


def view_pixels(frames: Frames, preprocess: Preprocess, crops: int = 1) -> Tensor:
    """The pixels of every view, one per clip and crop.

    One crop is the centre of the frame after `preprocess.resize`; three are spread along the long side of
    a frame whose short side was resized to `preprocess.size`. Five are the corners and the centre of the frame
    resized as for one crop, and ten are those and then the five of the mirrored frame, in the order of torchvision's
    `five_crop` and `ten_crop`; where that resize leaves no room along the short side, corners coincide in pairs.
    Frames that the decoder scaled already are not resized again.

    Args:
        frames: T = clips x frames-a-clip frames.
        preprocess: what the weights were trained with.
        crops: 1, 3, 5 or 10.

    Returns:
        uint8 [clips * crops, frames a clip, 3, size, size]; views of one clip are adjacent.
    """
    target = view_preprocess(preprocess, crops)
    pixels = resize(torch.from_numpy(frames.pixels).permute(0, 3, 1, 2), target)
    height, width = pixels.shape[-2:]
    length = len(pixels) // frames.clips
    # Filled in place: views of one clip are adjacent, and ten crops of four clips are not held twice.
    views = torch.empty(frames.clips, crops, length, 3, target.size, target.size, dtype=torch.uint8)
    for c, place in enumerate(_places(crops, tall=height > width)):
        views[:, c] = _crop(pixels, target.size, place).unflatten(0, (frames.clips, length))
    return views.flatten(0, 1)


def view_preprocess(preprocess: Preprocess, crops: int) -> Preprocess:
    """`preprocess` as it holds for that many crops: three resize the short side to `size` itself.

    Raises:
        UsageError: there are no views of so many crops, or none of several for these weights.
    """
    check_crops(crops)
    if crops > 1 and preprocess.resize is None:
        raise UsageError(
            f"these weights see the whole frame at once, which leaves nothing for {crops} crops",
            "use one crop",
        )
    return replace(preprocess, resize=preprocess.size) if crops == 3 else preprocess


def central_crop(crops: int) -> int:
    """Which of that many crops is the centre of the frame, not mirrored."""
    return _places(crops).index(_CENTRE)


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


def _places(crops: int, *, tall: bool = False) -> tuple[_Place, ...]:
    """The crops of a frame in the order of its views."""
    check_crops(crops)
    if crops == 1:
        return (_CENTRE,)
    if crops == 3:
        return tuple(_Place(along, 0.5) if tall else _Place(0.5, along) for along in (0.0, 0.5, 1.0))
    five = (*_CORNERS, _CENTRE)
    # The top left of the mirrored frame comes from the top right, and so on.
    return five if crops == 5 else (*five, *(_Place(down, 1 - right, True) for down, right, _ in five))


def _crop(pixels: Tensor, size: int, place: _Place) -> Tensor:
    """The size x size crop at a place."""
    height, width = pixels.shape[-2:]
    top, left = int((height - size) * place.down), int((width - size) * place.right)
    crop = pixels[..., top : top + size, left : left + size]
    return crop.flip(-1) if place.mirrored else crop
