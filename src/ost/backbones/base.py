"""The protocol of backbones, which is all that recognition knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from torch.nn.functional import normalize

from ost.types import FrameEmbeddings, Preprocess, TextContext

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ost.backbones.adapter import Adapter
    from ost.backbones.clip import ClipBackbone


class TextEmbeddings(NamedTuple):
    """The embeddings of n texts.

    Attributes:
        values: fp32 [n, D], L2-normalised.
        shift, gain: fp32 [n], the calibration of their similarities, or None.
        notices: what the user should know, such as texts that had to be cut.
    """

    values: Tensor
    shift: Tensor | None = None
    gain: Tensor | None = None
    notices: tuple[str, ...] = ()


class Backbone(Protocol):
    """Two towers with one embedding space.

    Attributes:
        name: as the user gave it.
        weights_hash: SHA-256 of the weights, hexadecimal.
        fingerprint: SHA-256 of all that its embeddings depend on, hexadecimal (see `ost.weights.fingerprint`); an
            adapter over the towers does not change it.
        preprocess: the pixels that `embed_frames` takes.
        text_context: the tokens that its text tower reads, and the prompt templates that suit it.
        logit_scale: s, exponentiated.
        precision: dtype of the towers, as in "float32".
        device: where the towers run and embeddings come out.
    """

    name: str
    weights_hash: str
    fingerprint: str
    preprocess: Preprocess
    logit_scale: float
    precision: str
    device: torch.device

    @property
    def text_context(self) -> TextContext: ...  # noqa: D102

    @property
    def width(self) -> int:
        """Return D, the width of an embedding."""
        ...

    @property
    def adapter(self) -> Adapter | None:
        """Return the adapter that was trained over the frozen towers, or None."""
        ...

    def to(self, device: str) -> Backbone:
        """Return the backbone on another device, with towers of its own.

        Raises:
            UsageError: the device cannot be used, or the backbone runs on none but its own.
        """
        ...

    def trainable(self) -> ClipBackbone | None:
        """Return the towers for training, or None where they cannot be trained."""
        ...

    def embed_frames(self, pixels: Tensor) -> Tensor:
        """Embed pixels [n, 3, size, size], uint8 or normalised fp32, as fp32 [n, D], not normalised."""
        ...

    def embed_clips(self, pixels: Tensor) -> FrameEmbeddings:
        """Embed V clips of pixels [V, T, 3, size, size], uint8 or normalised fp32, as embeddings [V, T, D]."""
        ...

    def embed_text(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embed prompts as unit vectors, loading the text tower on first use."""
        ...


def prepared(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Return pixels as a tower takes them: normalise uint8 on their device, and pass fp32 through."""
    return pixels if pixels.is_floating_point() else preprocess.normalised(pixels)


def frame_embeddings(raw: Tensor) -> FrameEmbeddings:
    """Split raw embeddings [V, T, D] into the unit vectors and norms that `match` takes."""
    return FrameEmbeddings(values=normalize(raw, dim=-1), norms=raw.norm(dim=-1))
