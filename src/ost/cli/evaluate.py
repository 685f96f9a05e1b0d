"""`ost evaluate`: labelled videos in, the numbers of a protocol out."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ost.cli import options
from ost.cli.show import (
    progress,
    show_ablation,
    show_failures,
    show_notices,
    show_protocols,
    show_summary,
    stderr,
    stdout,
)
from ost.errors import UsageError, VideoError

if TYPE_CHECKING:
    from ost.evaluate.run import Answer


def evaluate(
    protocol: Annotated[
        str, typer.Argument(help="A protocol's name, `own` for your own videos, or `list` to see all.")
    ],
    videos: Annotated[
        Path | None, typer.Option(help="The root of the benchmark, or a folder of videos for each class.")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="With `own`: CSV of path and label, or a benchmark's own list.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="Other descriptors, as for recognize.", show_default="the shipped pack"),
    ] = None,
    backbone: options.Backbone = None,
    weights: options.Weights = None,
    blend: options.Blend = None,
    blend_with: options.BlendWith = None,
    frames: options.FrameCount = 32,
    views: options.Views = "1x1",
    sampling: options.Sampling = options.SamplingChoice.uniform,
    match: options.Match = options.MatchChoice.ot,
    descriptors: options.Kinds = options.KindChoice.both,
    eps: options.Eps = 0.1,
    min_decoded: options.MinDecoded = 0.5,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Also names, spatial, temporal and both, pooled and transported.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON file for the numbers and what made them.")
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
) -> None:
    """Measure top-1, top-5 and mean per class on labelled videos, with the published numbers beside them."""
    from ost.evaluate.protocols import PROTOCOLS, Protocol, ask, ask_own

    out, notes = stdout(), stderr()
    if protocol == "list":
        show_protocols(out, PROTOCOLS)
        return
    settings = options.settings_of(frames, views, sampling, min_decoded, match, descriptors, eps)
    if protocol == "own":
        spec, questions = Protocol("", (), "own videos"), ask_own(videos, manifest, classes or "")
    elif manifest is not None:
        raise UsageError("a protocol has its own lists; --manifest goes with `ost evaluate own`")
    else:
        spec = PROTOCOLS.find(protocol)
        questions = ask(spec, videos, classes or "")

    from ost.backbones.load import load_backbone
    from ost.evaluate.run import answer
    from ost.evaluate.summary import summary
    from ost.files import write_text

    tower = load_backbone(
        backbone,
        weights,
        blend_ratio=blend,
        original=blend_with,
        device=device,
        dtype=dtype,
        tell=lambda line: show_notices(notes, [line]),
    )
    started = time.perf_counter()
    total = len({str(clip.path) for question in questions for clip in question.clips})
    with progress("evaluating", total) as advance:
        answers = answer(tower, questions, settings, advance)
    seconds = time.perf_counter() - started
    show_notices(notes, [line for q in questions for line in q.pack.notices] + tower.notices)
    lost = _lost(answers)
    show_failures(notes, lost, total + sum(len(a.missing) for a in answers))
    if not all(len(answer.paths) for answer in answers):
        raise UsageError("a list has no video that can be read; there is nothing to count")
    found = summary(answers, harmonic=spec.combine == "harmonic")
    show_summary(out, found, spec.published)
    out.print(f"{total} videos in {seconds:.1f} s, {total / seconds:.1f} a second")
    if ablate:
        from ost.evaluate.ablation import ablation

        show_ablation(out, list(ablation(tower, questions, settings)))
    if output is not None:
        told = {
            "protocol": protocol,
            "backbone": tower.name,
            "weights": tower.weights_hash,
            "precision": tower.precision,
            "packs": {q.title: q.pack.hash for q in questions},
            "settings": vars(settings),
            "seconds": seconds,
            "numbers": found.as_dict(),
            "by_class": {a.title: a.by_class() for a in answers},
            "lost": {failure.path: failure.cause for failure in lost},
        }
        write_text(output, json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    if lost:
        raise typer.Exit(1)


def _lost(answers: list[Answer]) -> list[VideoError]:
    """Videos that were not scored, each once."""
    causes = {path: cause for answer in answers for path, cause in answer.unreadable.items()}
    missing = dict.fromkeys(video for answer in answers for video in answer.missing)
    return [VideoError(path, cause) for path, cause in causes.items()] + [
        VideoError(video, "is in the list and not there") for video in missing
    ]
