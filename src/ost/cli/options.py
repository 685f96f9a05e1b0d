"""Groups of options that several commands share; each returns what the library takes."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from ost.backbones.names import check_model
from ost.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ost.backbones.base import Backbone
    from ost.recognition.settings import Settings, Views


class SamplingChoice(StrEnum):
    """Values of --sampling."""

    uniform = "uniform"
    keyframes = "keyframes"


class MatchChoice(StrEnum):
    """Values of --match."""

    ot = "ot"
    mean = "mean"


class KindChoice(StrEnum):
    """Values of --kinds."""

    both = "both"
    spatial = "spatial"
    temporal = "temporal"


@dataclass(frozen=True)
class ModelOptions:
    """Which backbone with which weights, and where and in which precision it runs."""

    PANEL: ClassVar = "Model"
    backbone: Annotated[
        str | None,
        typer.Option(help="Backbone by name; 'lite' needs no download.", show_default="ViT-B-16/openai"),
    ] = None
    weights: Annotated[str | None, typer.Option(help="Published name such as ost/k400, or a file.")] = None
    blend: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the original weights (WiSE-FT); the paper: 0.2."),
    ] = None
    blend_with: Annotated[str | None, typer.Option(help="What to blend with, if not OpenAI's weights.")] = (
        None
    )
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto"
    dtype: Annotated[str, typer.Option(help="auto, fp32, bf16, fp16 (of the towers).")] = "auto"

    def check(self) -> None:
        """Refuse a model that cannot be loaded, without importing torch."""
        check_model(
            self.backbone,
            self.weights,
            blend=self.blend,
            blend_with=self.blend_with,
            device=self.device,
            dtype=self.dtype,
        )

    def load(self, notify: Callable[[str], None]) -> Backbone:
        """Return the backbone."""
        from ost.backbones.load import load_backbone

        return load_backbone(
            self.backbone,
            self.weights,
            blend_ratio=self.blend,
            original=self.blend_with,
            device=self.device,
            dtype=self.dtype,
            notify=notify,
        )


@dataclass(frozen=True)
class SamplingOptions:
    """Which frames of a video are looked at."""

    PANEL: ClassVar = "Sampling"
    frames: Annotated[int, typer.Option(min=1, help="Frames a clip.")] = 32
    views: Annotated[
        str,
        typer.Option(
            help="CLIPSxCROPS, such as 4x3; crops are 1, 3, 5 or 10 "
            "(10 mirrors too: not where left and right matter)."
        ),
    ] = "1x1"
    sampling: Annotated[
        SamplingChoice, typer.Option(help="uniform is exact; keyframes is fast on long files.")
    ] = SamplingChoice.uniform
    min_decoded: Annotated[
        float, typer.Option(min=0, max=1, help="Share of a file's frames that must decode.")
    ] = 0.5

    def parsed(self) -> Views:
        """Return the settings that decide which frames are embedded."""
        from ost.recognition.settings import Views

        clips, crops = parse_views(self.views)
        return Views(self.frames, clips, crops, self.sampling.value, self.min_decoded)


@dataclass(frozen=True)
class MatchOptions:
    """How frames and descriptors are matched."""

    PANEL: ClassVar = "Matching"
    match: Annotated[
        MatchChoice, typer.Option(help="ot, or mean: mean-pooled frames against one prompt a class.")
    ] = MatchChoice.ot
    kinds: Annotated[KindChoice, typer.Option(help="Which kinds of descriptors are matched.")] = (
        KindChoice.both
    )
    eps: Annotated[float, typer.Option(help="Entropic weight of the transport.")] = 0.1

    def settings(self, views: Views) -> Settings:
        """Return the settings of sampling and matching.

        Raises:
            UsageError: a value is invalid.
        """
        from ost.recognition.settings import Settings
        from ost.types import BOTH

        kinds = BOTH if self.kinds is KindChoice.both else (self.kinds.value,)
        return Settings(**asdict(views), method=self.match.value, kinds=kinds, eps=self.eps)


def parse_views(text: str) -> tuple[int, int]:
    """Parse "4x3" into (clips, crops)."""
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if not match:
        raise UsageError(f"--views is CLIPSxCROPS, such as 1x1 or 4x3, not {text!r}")
    return int(match[1]), int(match[2])
