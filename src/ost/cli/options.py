"""Options that several commands share, and the parsing of their values."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ost.errors import UsageError

if TYPE_CHECKING:
    from ost.recognition.settings import Settings


class SamplingChoice(StrEnum):
    """Values of --sampling."""

    uniform = "uniform"
    keyframes = "keyframes"


class MatchChoice(StrEnum):
    """Values of --match."""

    ot = "ot"
    mean = "mean"


class KindChoice(StrEnum):
    """Values of --descriptors."""

    both = "both"
    spatial = "spatial"
    temporal = "temporal"


Backbone = Annotated[
    str | None,
    typer.Option(help="Backbone by name; 'lite' needs no download.", show_default="ViT-B-16/openai"),
]
Weights = Annotated[str | None, typer.Option(help="Published name such as ost/k400, or a file.")]
Blend = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Share of the original weights (WiSE-FT); the paper: 0.2."),
]
BlendWith = Annotated[str | None, typer.Option(help="What to blend with, if not OpenAI's weights.")]
FrameCount = Annotated[int, typer.Option(min=1, help="Frames a clip.")]
Views = Annotated[
    str,
    typer.Option(
        help="CLIPSxCROPS, such as 4x3; crops are 1, 3, 5 or 10 "
        "(10 mirrors too: not where left and right matter)."
    ),
]
Sampling = Annotated[SamplingChoice, typer.Option(help="uniform is exact; keyframes is fast on long files.")]
Match = Annotated[
    MatchChoice, typer.Option(help="ot, or mean: mean-pooled frames against one prompt a class.")
]
Kinds = Annotated[KindChoice, typer.Option(help="Which descriptors are matched.")]
Eps = Annotated[float, typer.Option(help="Entropic weight of the transport.")]
MinDecoded = Annotated[float, typer.Option(min=0, max=1, help="Share of a file's frames that must decode.")]
Cache = Annotated[
    bool,
    typer.Option(
        "--cache/--no-cache", help="Keep embeddings, so that the next list of classes costs seconds."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str, typer.Option(help="auto, fp32, bf16, fp16 (of the towers).")]


def settings_of(
    frames: int,
    views: str,
    sampling: SamplingChoice,
    min_decoded: float,
    match: MatchChoice,
    descriptors: KindChoice,
    eps: float,
) -> Settings:
    """Return the settings of these options.

    Raises:
        UsageError: a value is invalid.
    """
    from ost.recognition.settings import Settings

    clips, crops = parse_views(views)
    return Settings(
        frames=frames,
        clips=clips,
        crops=crops,
        sampling=sampling.value,
        min_decoded=min_decoded,
        match=match.value,
        kinds=("spatial", "temporal") if descriptors is KindChoice.both else (descriptors.value,),
        eps=eps,
    )


def parse_views(text: str) -> tuple[int, int]:
    """Parse "4x3" into (clips, crops)."""
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if not match:
        raise UsageError(f"--views is CLIPSxCROPS, such as 1x1 or 4x3, not {text!r}")
    return int(match[1]), int(match[2])
