"""Groups of options that several commands share; each returns what the library takes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from ost.backbones.names import check_model
from ost.cli.terminal import show_notices, stderr
from ost.errors import UsageError
from ost.types import BOTH

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ost.recognition.recognizer import Recognizer
    from ost.recognition.settings import SettingsFields


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

    def load(self, *, cache: bool = True, **settings: Unpack[SettingsFields]) -> Recognizer:
        """Return a recogniser over this model, whose notices go to stderr."""
        import ost

        return ost.load(
            self.backbone,
            self.weights,
            blend=self.blend,
            blend_with=self.blend_with,
            device=self.device,
            dtype=self.dtype,
            cache=cache,
            notify=lambda line: show_notices(stderr(), [line]),
            **settings,
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

    @property
    def fields(self) -> SettingsFields:
        """Return the settings that decide which frames are embedded.

        Raises:
            UsageError: the views are not CLIPSxCROPS.
        """
        clips, crops = parse_views(self.views)
        return {
            "frames": self.frames,
            "clips": clips,
            "crops": crops,
            "sampling": self.sampling.value,
            "min_decoded": self.min_decoded,
        }


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

    @property
    def fields(self) -> SettingsFields:
        """Return the settings of matching."""
        kinds = BOTH if self.kinds is KindChoice.both else (self.kinds.value,)
        return {"match": self.match.value, "kinds": kinds, "eps": self.eps}


def parse_views(text: str) -> tuple[int, int]:
    """Parse "4x3" into (clips, crops)."""
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if not match or not int(match[1]):
        raise UsageError(f"--views is CLIPSxCROPS, such as 1x1 or 4x3, not {text!r}")
    return int(match[1]), int(match[2])
