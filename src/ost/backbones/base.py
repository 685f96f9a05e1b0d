"""What every backbone offers; recognition knows nothing else of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from torch.nn.functional import normalize

from ost.types import FrameEmbeddings, Preprocess, Templates

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ost.backbones.adapter import Adapter
    from ost.backbones.clip import ClipBackbone


class TextEmbeddings(NamedTuple):
    """The embeddings of n texts.

    Attributes:
        values: fp32 [n, D], L2-normalised.
        shift, gain: fp32 [n] of their similarities, or None.
        notices: what the user should know, such as texts that had to be cut.
    """

    values: Tensor
    shift: Tensor | None = None
    gain: Tensor | None = None
    notices: tuple[str, ...] = ()


class Backbone(Protocol):
    """Two towers with one embedding space.

    Attributes:
        name: as the user asked for it.
        weights_hash: SHA-256 of the weights, hexadecimal.
        fingerprint: of all that its embeddings depend on, hexadecimal (see `ost.weights.fingerprint`); an adapter
            over the towers changes none of them.
        preprocess: the pixels that `embed_frames` wants.
        templates: the sentences its text tower is used to.
        logit_scale: s, exponentiated.
        precision: dtype of the towers, as in "float32".
        device: where the towers run and embeddings come out.
    """

    name: str
    weights_hash: str
    fingerprint: str
    preprocess: Preprocess
    templates: Templates
    logit_scale: float
    precision: str
    device: torch.device

    @property
    def width(self) -> int:
        """D, numbers of an embedding."""
        ...

    @property
    def adapter(self) -> Adapter | None:
        """What was learned from examples over frozen towers; None without."""
        ...

    def trainable(self) -> ClipBackbone | None:
        """The towers as training moves them; None where they cannot be trained."""
        ...

    def embed_frames(self, pixels: Tensor) -> Tensor:
        """Pixels [n, 3, size, size], uint8 or fp32 that are normalised -> fp32 [n, D], not normalised."""
        ...

    def embed_clips(self, pixels: Tensor) -> FrameEmbeddings:
        """Pixels [V, T, 3, size, size], uint8 or fp32 that are normalised -> embeddings [V, T, D] of V clips."""
        ...

    def embed_text(self, texts: Sequence[str]) -> TextEmbeddings:
        """Prompts -> unit embeddings; loads the text tower if it is not there yet."""
        ...


def prepared(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Pixels as a tower takes them: uint8 are normalised, where they are by now; others are so already."""
    return pixels if pixels.is_floating_point() else preprocess.normalised(pixels)


def frame_embeddings(raw: Tensor) -> FrameEmbeddings:
    """Raw embeddings [V, T, D] as what `match` wants."""
    return FrameEmbeddings(values=normalize(raw, dim=-1), norms=raw.norm(dim=-1))
