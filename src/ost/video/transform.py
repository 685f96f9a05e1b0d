"""Resize, crop and normalise sampled frames into the input of an image tower."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ost.errors import UsageError
from ost.types import Frames, Preprocess
from ost.video.sample import check_crops


class _Position(NamedTuple):
    """The position of a crop: shares of the margin, `down` from the top and `right` from the left."""

    down: float
    right: float
    mirrored: bool = False


_CENTRE = _Position(0.5, 0.5)
_CORNERS = tuple(_Position(down, right) for down in (0.0, 1.0) for right in (0.0, 1.0))


def transform(frames: Frames, preprocess: Preprocess, crops: int = 1) -> Tensor:
    """Return tower input, fp32 [V, T, 3, size, size]: the pixels of `view_pixels`, normalised."""
    return preprocess.normalised(view_pixels(frames, preprocess, crops))


def view_pixels(frames: Frames, preprocess: Preprocess, crops: int = 1) -> Tensor:
    """Return the pixels of every view, one per clip and crop.

    One crop is the centre of the frame after `preprocess.resize`; three are spread along the long side of
    a frame whose short side was resized to `preprocess.size`. Five are the corners and the centre of the frame
    resized as for one crop, and ten are those and then the five of the mirrored frame, in the order of torchvision's
    `five_crop` and `ten_crop`; where that resize leaves no margin along the short side, corners coincide in pairs.
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
    # Filled in place: views of one clip must be adjacent, and stacking would hold ten crops of four clips twice.
    views = torch.empty(frames.clips, crops, length, 3, target.size, target.size, dtype=torch.uint8)
    for c, position in enumerate(_positions(crops, tall=height > width)):
        views[:, c] = _crop(pixels, target.size, position).unflatten(0, (frames.clips, length))
    return views.flatten(0, 1)


def view_preprocess(preprocess: Preprocess, crops: int) -> Preprocess:
    """Return `preprocess` for that number of crops: three crops resize the short side to `size` itself.

    Raises:
        UsageError: that number of crops is not supported, or these weights take only one.
    """
    check_crops(crops)
    if crops > 1 and preprocess.resize is None:
        raise UsageError(
            f"these weights see the whole frame at once, which leaves nothing for {crops} crops",
            "use one crop",
        )
    return replace(preprocess, resize=preprocess.size) if crops == 3 else preprocess


def central_crop(crops: int) -> int:
    """Return the index of the centre crop, not mirrored, among that number of crops."""
    return _positions(crops).index(_CENTRE)


def resize(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Resize uint8 or fp32 [T, 3, H, W] as `preprocess` says, without cropping; values stay 0..255."""
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


def _positions(crops: int, *, tall: bool = False) -> tuple[_Position, ...]:
    """Return the crop positions of a frame in the order of its views."""
    check_crops(crops)
    if crops == 1:
        return (_CENTRE,)
    if crops == 3:
        return tuple(_Position(along, 0.5) if tall else _Position(0.5, along) for along in (0.0, 0.5, 1.0))
    five = (*_CORNERS, _CENTRE)
    # The top left of the mirrored frame comes from the top right, and so on.
    return five if crops == 5 else (*five, *(_Position(down, 1 - right, True) for down, right, _ in five))


def _crop(pixels: Tensor, size: int, position: _Position) -> Tensor:
    """Return the size x size crop at a position."""
    height, width = pixels.shape[-2:]
    top, left = int((height - size) * position.down), int((width - size) * position.right)
    crop = pixels[..., top : top + size, left : left + size]
    return crop.flip(-1) if position.mirrored else crop
