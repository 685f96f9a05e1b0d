"""The values that pass between the parts: frozen dataclasses, with shapes and units stated.

Those that hold tensors or pixels compare and hash by identity, and print their shapes.

Symbols, here and everywhere: B clips (views of videos), T frames, A classes, N descriptors of one
kind (padded to the longest class), D embedding width.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from ost.notebook import Shaded, html_table

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

DescriptorKind = Literal["spatial", "temporal"]
Kind = Literal["spatial", "temporal", "name"]
BOTH: tuple[DescriptorKind, ...] = ("spatial", "temporal")


@dataclass(frozen=True)
class Preprocess:
    """How pixels become a tower's input; a property of the weights, not of the program.

    Attributes:
        size: side of the square the tower sees, in pixels.
        resize: length of the short side before cropping, in pixels; None stretches the whole
            frame to `size` x `size` instead ("squash").
        interpolation: "bilinear" or "bicubic".
        antialias: whether the filter widens when shrinking.
        mean, std: per channel (red, green, blue), on pixels scaled to 0..1.
    """

    size: int
    resize: int | None
    interpolation: Literal["bilinear", "bicubic"]
    antialias: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) of a frame after resizing and before cropping, in pixels."""
        if self.resize is None:
            return self.size, self.size
        short = min(width, height)
        return max(self.resize, width * self.resize // short), max(self.resize, height * self.resize // short)

    def normalised(self, pixels: Tensor) -> Tensor:
        """Normalise pixels [..., 3, H, W] of 0..255 by the weights' mean and std, in fp32 on the pixels' device."""
        pixels = pixels.float()
        mean = pixels.new_tensor(self.mean).view(3, 1, 1) * 255
        std = pixels.new_tensor(self.std).view(3, 1, 1) * 255
        return (pixels - mean) / std


@dataclass(frozen=True)
class Templates:
    """Sentences around names and descriptors; `{name}` and `{descriptor}` are filled in."""

    spatial: str
    temporal: str
    name: str


@dataclass(frozen=True)
class TextContext:
    """The input that a text tower accepts.

    Attributes:
        limit: its context length in tokens, start and end included.
        count: returns the tokens of a text, start and end included.
        templates: the sentences for its prompts.
    """

    limit: int
    count: Callable[[str], int]
    templates: Templates


class Span(NamedTuple):
    """A part of a video, in seconds: from `start` up to but excluding `end`; None is the video's end."""

    video: str | Path
    start: float = 0.0
    end: float | None = None

    def __str__(self) -> str:
        """Return the video and the part as a media fragment (W3C, Media Fragments URI 1.0): `clip.mp4#t=10,20`."""
        end = "" if self.end is None else f",{_decimal(self.end)}"
        return f"{self.video}#t={_decimal(self.start)}{end}"


def _decimal(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class Sample:
    """Which frames of a video were sampled, without their pixels.

    Attributes:
        times: presentation time of each frame in seconds; nan where the file gives none.
        clips: how many clips the frames divide into.
        decoded: number of frames that came out of the decoder or, where the file was not decoded
            whole, that its index lists.
        notices: what the user should know, one sentence each.
    """

    times: tuple[float, ...]
    clips: int = 1
    decoded: int = 0
    notices: tuple[str, ...] = ()

    @property
    def timed(self) -> bool:
        """Whether the file gives every frame a time."""
        return not any(map(math.isnan, self.times))


class Thumbnails(NamedTuple):
    """JPEG files of the frames of a video's middle clip, and the width of a frame over its height."""

    files: tuple[bytes, ...]
    aspect: float


class Frame(NamedTuple):
    """One frame.

    Attributes:
        pixels: uint8 array [H, W, 3], red, green, blue.
        seconds: its presentation time; nan where the file gives none.
    """

    pixels: np.ndarray
    seconds: float

    def __repr__(self) -> str:
        return f"Frame(pixels={_shape(self.pixels)}, seconds={self.seconds:g})"


@dataclass(frozen=True, eq=False)
class Frames:
    """Sampled frames of one video, upright, 8-bit RGB.

    Attributes:
        pixels: uint8 array [T, H, W, 3]; with several clips, T = clips x frames a clip, clip by clip.
        times: presentation time of each frame in seconds; nan where the file gives none.
        path: the video as the user named it.
        clips: how many clips T divides into.
        decoded: number of frames that came out of the decoder or, where the file was not decoded
            whole, that its index lists.
        notices: what the user should know, one sentence each.
        seconds: time spent, wall clock.
    """

    pixels: np.ndarray
    times: tuple[float, ...]
    path: str
    clips: int = 1
    decoded: int = 0
    notices: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def sample(self) -> Sample:
        """The frames without their pixels."""
        return Sample(self.times, self.clips, self.decoded, self.notices)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Frame:
        """Return a frame with its time; negative indices count from the end."""
        i = operator.index(index)
        return Frame(self.pixels[i], self.times[i])

    def __iter__(self) -> Iterator[Frame]:
        return map(Frame, self.pixels, self.times)

    def __repr__(self) -> str:
        return (
            f"Frames({self.path!r}, pixels={_shape(self.pixels)}, clips={self.clips}, decoded={self.decoded})"
        )


@dataclass(frozen=True, eq=False)
class FrameEmbeddings:
    """The image tower's embeddings of each frame.

    Attributes:
        values: fp32 [B, T, D], each frame L2-normalised.
        norms: fp32 [B, T], lengths before normalisation (mean-pool matching averages raw embeddings).
        mask: bool [B, T], False where a clip has no such frame; None if no frame is missing.
        features: fp32 [B, T, F], an adapter's input; None where its input is the embeddings.
    """

    values: Tensor
    norms: Tensor
    mask: Tensor | None = None
    features: Tensor | None = None

    @property
    def unit_features(self) -> Tensor:
        """An adapter's input [B, T, F], each frame L2-normalised."""
        if self.features is None:
            return self.values
        return self.features / self.features.norm(dim=-1, keepdim=True).clamp_min(1e-12)

    def __repr__(self) -> str:
        return f"FrameEmbeddings({_shape(self.values)})"


@dataclass(frozen=True, eq=False)
class Descriptors:
    """The embedded descriptors of one kind for all classes.

    Attributes:
        values: fp32 [A, N, D], each L2-normalised; rows beyond a class's own number are zero.
        mask: bool [A, N], True where a class has that descriptor.
        shift, gain: fp32 [A, N] or None; similarity = gain * (frame . descriptor - shift). CLIP needs
            neither; a backbone whose descriptors are not equally near to everything gives both.
        texts: the prompts as embedded, `texts[a][n]`.
    """

    values: Tensor
    mask: Tensor
    texts: tuple[tuple[str, ...], ...]
    shift: Tensor | None = None
    gain: Tensor | None = None

    @cached_property
    def full(self) -> bool:
        """Whether every class has all N descriptors, so that no mask is needed."""
        return bool(self.mask.all())

    @cached_property
    def infinite(self) -> tuple[int, int] | None:
        """(class, descriptor) of the first embedding that is not finite; None if all are. Computed once."""
        bad = ~self.values.isfinite().all(-1) & self.mask
        if not bool(bad.any()):
            return None
        a, n = bad.nonzero()[0].tolist()
        return a, n

    def __repr__(self) -> str:
        return f"Descriptors({_shape(self.values)})"


@dataclass(frozen=True, eq=False)
class LearnedClasses:
    """What an adapter learned from examples, about the classes and about the frames matched with them.

    Attributes:
        weight: fp32 [A, F], against the features of frames; zero for a class without examples.
        bias: fp32 [A].
        temperature: the factor of the descriptors' logits.
        centre: fp32 [F], mean feature of the examples.
        down, up: fp32 [R, F] and [D, R], the residual on frame embeddings.
    """

    weight: Tensor
    bias: Tensor
    temperature: float
    centre: Tensor
    down: Tensor
    up: Tensor

    def __repr__(self) -> str:
        return f"LearnedClasses(weight={_shape(self.weight)}, rank={len(self.down)})"


@dataclass(frozen=True, eq=False)
class ClassHead:
    """The classes to match frames with: names, embedded descriptors, logit scale.

    Attributes:
        names: A class names, readable.
        kinds: "spatial" and "temporal", or "name" alone for mean-pool matching.
        logit_scale: s in the logits, already exponentiated (100 for CLIP).
        hash: a hash of weights, pack and prompts, hexadecimal; equal heads have equal hashes.
        learned: what an adapter learned about these classes; None without an adapter.
        notices: what the user should know of their texts, one sentence each.
        labels: the A classes as the user writes them; empty where these are the names.
    """

    names: tuple[str, ...]
    kinds: Mapping[Kind, Descriptors]
    logit_scale: float
    hash: str = ""
    learned: LearnedClasses | None = None
    notices: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def __repr__(self) -> str:
        kinds = ", ".join(f"{kind}={_shape(d.values)}" for kind, d in self.kinds.items())
        return f"ClassHead({len(self.names)} classes, {kinds})"


@dataclass(frozen=True, eq=False)
class Scores:
    """Logits of clips against classes.

    Attributes:
        logits: fp32 [B, A].
        names: A class names, in the order of the columns.
    """

    logits: Tensor
    names: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Scores({_shape(self.logits)})"


@dataclass(frozen=True, eq=False)
class Evidence:
    """Why a clip got its score for one class: similarity and transport plan of each kind.

    Attributes:
        name: the class.
        texts: per kind, the N prompts.
        similarity: per kind, fp32 [T, N].
        plan: per kind, fp32 [T, N]; rows sum to 1/T, columns to 1/N.
        logit: the class's logit for this clip.
    """

    name: str
    texts: Mapping[Kind, tuple[str, ...]]
    similarity: Mapping[Kind, Tensor]
    plan: Mapping[Kind, Tensor]
    logit: float

    def __repr__(self) -> str:
        kinds = ", ".join(f"{kind}={_shape(sim)}" for kind, sim in self.similarity.items())
        return f"Evidence({self.name!r}, {kinds}, logit={self.logit:.4g})"

    def _repr_html_(self) -> str:
        """Return the plan of each kind, as multiples of an even share, with a row for each descriptor."""
        tables: list[str] = []
        for kind, plan in self.plan.items():
            ratios = (plan * plan.numel()).T.tolist()
            largest = max(map(max, ratios))
            rows = [
                (text, *(Shaded(ratio, ratio / largest) for ratio in row))
                for text, row in zip(self.texts[kind], ratios, strict=True)
            ]
            header = (kind, *(f"frame {t + 1}" for t in range(plan.shape[0])))
            tables.append(html_table(self.name, header, rows))
        return "".join(tables)


@dataclass(frozen=True)
class Seconds:
    """Wall-clock seconds of one recognition, by part."""

    decoding: float = 0.0
    towers: float = 0.0
    matching: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """Return part -> seconds, rounded to 0.1 ms."""
        return {part: round(getattr(self, part), 4) for part in ("decoding", "towers", "matching")}


def _shape(values: np.ndarray | Tensor) -> str:
    return "x".join(map(str, values.shape))
