"""What every backbone offers; recognition knows nothing else of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from torch.nn.functional import normalize

from ost.types import FrameEmbeddings, Preprocess, Templates

if TYPE_CHECKING:
    from torch import Tensor

    from ost.backbones.adapter import Adapter


class TextEmbeddings(NamedTuple):
    """fp32 embeddings [n, D], L2-normalised, and the shift and gain [n] of their similarities, or None."""

    values: Tensor
    shift: Tensor | None = None
    gain: Tensor | None = None


class Backbone(Protocol):
    """Two towers with one embedding space.

    Attributes:
        name: as the user asked for it.
        weights_hash: SHA-256 of the weights, hexadecimal.
        preprocess: the pixels that `embed_frames` wants.
        templates: the sentences its text tower is used to.
        logit_scale: s, exponentiated.
        notices: what the user should know, such as texts that had to be cut.
        precision: dtype of the towers, as in "float32"; embeddings of different precisions are not shared.
    """

    name: str
    weights_hash: str
    preprocess: Preprocess
    templates: Templates
    logit_scale: float
    notices: list[str]
    precision: str

    @property
    def adapter(self) -> Adapter | None:
        """What was learned from examples over frozen towers; None without."""
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


def towers_hash(backbone: Backbone) -> str:
    """SHA-256 of the weights that compute the embeddings, hexadecimal; an adapter over them changes none."""
    return backbone.weights_hash if backbone.adapter is None else backbone.adapter.backbone_hash


def frame_embeddings(raw: Tensor) -> FrameEmbeddings:
    """Raw embeddings [V, T, D] as what `match` wants."""
    return FrameEmbeddings(values=normalize(raw, dim=-1), norms=raw.norm(dim=-1))
