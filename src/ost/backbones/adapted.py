"""A frozen backbone with an adapter over it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ost.backbones.adapter import Adapter
from ost.backbones.base import Backbone, TextEmbeddings
from ost.errors import WeightsError
from ost.files import text_hash
from ost.types import FrameEmbeddings, Preprocess, TextContext


class AdaptedBackbone:
    """A frozen backbone with an adapter over it; see `Backbone`."""

    def __init__(self, base: Backbone, adapter: Adapter, name: str) -> None:
        if adapter.backbone_hash != base.weights_hash:
            raise WeightsError(
                f"{name}: was trained over the weights {adapter.backbone_hash[:12]} of {adapter.backbone}, and "
                f"these are {base.weights_hash[:12]}; load the same backbone and weights as in training"
            )
        if base.width != len(adapter.up):
            raise WeightsError(
                f"{name}: is for embeddings {len(adapter.up)} wide, and these are {base.width}"
            )
        self.base = base
        self.adapter: Adapter = adapter.to(base.device)
        self.name = name
        self.weights_hash = text_hash(base.weights_hash, adapter.hash)
        self.preprocess: Preprocess = base.preprocess
        self.text_context: TextContext = base.text_context
        self.logit_scale = base.logit_scale
        self.precision = base.precision
        self.fingerprint, self.device, self.width = base.fingerprint, base.device, base.width

    def to(self, device: str) -> AdaptedBackbone:
        """Return the frozen backbone with its adapter on another device."""
        return AdaptedBackbone(self.base.to(device), self.adapter, self.name)

    def trainable(self) -> None:
        """Return None: the towers under an adapter are frozen."""

    def embed_frames(self, pixels: Tensor) -> Tensor:
        """Embed pixels with the frozen backbone."""
        return self.base.embed_frames(pixels)

    def embed_clips(self, pixels: Tensor) -> FrameEmbeddings:
        """Embed clips with the frozen backbone; the matching applies the adapter to their features."""
        return self.base.embed_clips(pixels)

    def embed_text(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embed texts with the frozen backbone."""
        return self.base.embed_text(texts)
