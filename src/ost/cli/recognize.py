"""`ost recognize`: the user's videos against the user's classes."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ost.cli.show import show_failures, show_notices, show_prediction, stderr, stdout, with_progress
from ost.errors import UsageError, VideoError

if TYPE_CHECKING:
    from ost.recognition.prediction import Prediction


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


def recognize(
    videos: Annotated[
        list[str], typer.Argument(help="Video files, folders of videos, folders of frame images.")
    ],
    classes: Annotated[
        str, typer.Option(help="Comma list, text file, id,name CSV, pack file, or a shipped pack.")
    ],
    backbone: Annotated[
        str | None,
        typer.Option(help="Backbone by name; 'lite' needs no download.", show_default="ViT-B-16/openai"),
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Published name such as ost/k400, or a file.")] = None,
    blend: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the original weights (WiSE-FT); the paper: 0.2."),
    ] = None,
    blend_with: Annotated[
        str | None, typer.Option(help="What to blend with, if not OpenAI's weights.")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames a clip.")] = 32,
    views: Annotated[str, typer.Option(help="CLIPSxCROPS, such as 4x3; crops are 1 or 3.")] = "1x1",
    sampling: Annotated[
        SamplingChoice, typer.Option(help="uniform is exact; keyframes is fast on long files.")
    ] = SamplingChoice.uniform,
    match: Annotated[
        MatchChoice, typer.Option(help="ot, or mean: mean-pooled frames against one prompt a class.")
    ] = MatchChoice.ot,
    descriptors: Annotated[KindChoice, typer.Option(help="Which descriptors are matched.")] = KindChoice.both,
    eps: Annotated[float, typer.Option(help="Entropic weight of the transport.")] = 0.1,
    min_decoded: Annotated[
        float, typer.Option(min=0, max=1, help="Share of a file's frames that must decode.")
    ] = 0.5,
    top: Annotated[int, typer.Option(min=1, help="Classes shown a video.")] = 5,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a video, with every class.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Folder for a page a video that shows why.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, fp32, bf16, fp16 (of the towers).")] = "auto",
) -> None:
    """Say which of the classes each video shows."""
    from ost.descriptors.spec import resolve
    from ost.video.find import find_videos

    console, notes = stdout(), stderr()
    clips, crops = parse_views(views)
    pack = resolve(classes)
    paths = find_videos(videos)
    kinds = ("spatial", "temporal") if descriptors is KindChoice.both else (descriptors.value,)

    from ost.backbones.load import load_backbone
    from ost.recognition.recognizer import Recognizer, Settings

    settings = Settings(
        frames=frames,
        clips=clips,
        crops=crops,
        sampling=sampling.value,
        min_decoded=min_decoded,
        method=match.value,
        kinds=kinds,  # pyright: ignore[reportArgumentType]
        eps=eps,
    )
    tower = load_backbone(
        backbone,
        weights,
        blend_ratio=blend,
        original=blend_with,
        device=device,
        dtype=dtype,
        tell=lambda line: show_notices(notes, [line]),
    )
    pages = _Pages(report) if report else None
    failures: list[VideoError] = []
    told: set[str] = set()
    results = Recognizer(tower, settings).recognize_all(paths, pack)
    for result in with_progress(results, len(paths), "recognising"):
        if isinstance(result, VideoError):
            failures.append(result)
            continue
        if as_json:
            typer.echo(json.dumps(result.as_dict(), ensure_ascii=False))
        else:
            show_prediction(console, result, top)
        general = [*pack.notices, *tower.notices]
        own = [f"{result.path}: {line}" for line in result.notices if line not in general]
        show_notices(notes, [line for line in (*general, *own) if line not in told])
        told |= {*general, *own}
        if pages:
            page = pages.save(result)
            if not as_json:
                console.print(f"page: {page}")
    show_failures(notes, failures, len(paths))
    if failures:
        raise typer.Exit(1)


def parse_views(text: str) -> tuple[int, int]:
    """(clips, crops) of "4x3"."""
    found = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if not found:
        raise UsageError(f"--views is CLIPSxCROPS, such as 1x1 or 4x3, not {text!r}")
    return int(found[1]), int(found[2])


class _Pages:
    """Pages in one folder, each under a name of its own."""

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--report wants a folder, and {folder} is a file")
        self._folder = folder
        self._taken: set[str] = set()

    def save(self, prediction: Prediction) -> Path:
        stem = Path(prediction.path).stem or "video"
        name, number = stem, 2
        while name.casefold() in self._taken:
            name, number = f"{stem}-{number}", number + 1
        self._taken.add(name.casefold())
        page = self._folder / f"{name}.html"
        prediction.save_html(page)
        return page
