"""`ost train`: train a weight file from clips with a recipe."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from ost.activity import activity
from ost.backbones.names import check_model
from ost.cli.command import load_torch
from ost.cli.terminal import show_failures, show_notices, stderr, stdout, write_line
from ost.cli.watch import watching
from ost.errors import VideoError
from ost.ranks import is_first_rank
from ost.runs import MISSING, claimed_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from ost.recipes import Recipe
    from ost.train.config import TrainConfig
    from ost.train.folder import TrainingResult
    from ost.train.task import TrainingTask


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name; `ost train list` shows all.")],
    videos: Annotated[
        Path | None,
        typer.Option(help="A folder of videos for each class, or the root of the benchmark or list."),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="CSV or Parquet of path and label, or a benchmark's own list.")
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(help="Clips to validate on: such a list, or a folder of videos for each class."),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="Classes with descriptors, as for recognize.", show_default="the labels"),
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=1, help="Clips a class to learn from; the rest is held out.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, any setting of the recipe; repeat it.")
    ] = None,
    init_from: Annotated[
        str | None, typer.Option(help="Weights to start from: a published name such as ost/k400, or a file.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Backbone to start from, by name.", show_default="the recipe's")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of shots, order and augmentation.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the run.", show_default="runs/RECIPE")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
) -> None:
    """Learn from clips. For many GPUs: torchrun --nproc-per-node N -m ost train ..."""
    from ost.recipes import RECIPES, Sources, prepare

    if recipe == "list":
        show_recipes(stdout(), RECIPES)
        return
    changes = {"weights": init_from, "backbone": backbone, "seed": seed}
    with activity("looking for the clips"):
        config, task = prepare(
            recipe,
            Sources(videos, manifest, held_out, shots, classes or ""),
            {key: value for key, value in changes.items() if value is not None},
            settings or [],
        )
    check_model(config.named_backbone, config.weights, device=device)
    with claimed_folder(output, recipe, resume=resume) if is_first_rank() else nullcontext(Path()) as folder:
        load_torch()
        _train(config, task, folder, device, resume)


def _train(config: TrainConfig, task: TrainingTask, folder: Path, device: str, resume: bool) -> None:
    from ost.ranks import join_ranks
    from ost.train.loop import Interrupted
    from ost.train.start import start

    with join_ranks(device) as (ranks, own_device):
        run = ranks.gather(folder)[0]
        if ranks.first:
            show_notices(stderr(), _notices(task))
            missing = [VideoError(item.video, item.cause) for item in task.missing]
            show_failures(
                stderr(), missing, len(task.clips) + len(task.held_out) + len(missing), run / MISSING
            )
        try:
            with watching(stderr()) as watch:
                outcome = start(config, task, run, device=own_device, resume=resume, ranks=ranks, watch=watch)
        except Interrupted as error:
            if ranks.first:
                raise
            raise typer.Exit(error.exit_code) from error
        if ranks.first:
            _show(config, task, run, outcome)
    if outcome.unreadable:
        raise typer.Exit(1)


def _notices(task: TrainingTask) -> list[str]:
    from ost.train.log import has_tensorboard

    lines = [*task.pack.notices, *task.notices]
    if not has_tensorboard():
        lines.append("there are no curves without TensorBoard; install it with: pip install tensorboard")
    return lines


def _show(config: TrainConfig, task: TrainingTask, run: Path, outcome: TrainingResult) -> None:
    from ost.train.folder import classes_file
    from ost.train.log import LOG

    clips = len(task.clips) + len(task.held_out)
    unreadable = [VideoError(path, cause) for path, cause in outcome.unreadable.items()]
    show_failures(stderr(), unreadable, clips, run / LOG)
    if outcome.accuracy is not None:
        before = "" if outcome.before is None else f", {outcome.before:.1%} before training"
        write_line(f"{outcome.accuracy:.1%} of {outcome.clips} held-out clips recognised{before}")
    frames = "" if config.frames == 32 else f" --frames {config.frames}"
    weights, classes = (shlex.quote(str(path)) for path in (outcome.weights, classes_file(run)))
    write_line(f"weights: {outcome.weights}")
    write_line(f"use them: ost recognize VIDEO --weights {weights} --classes {classes}{frames}")


def show_recipes(console: Console, recipes: Mapping[str, Recipe]) -> None:
    """Print every recipe with its purpose."""
    table = Table(box=None, pad_edge=False)
    for column in ("recipe", "for", "shots"):
        table.add_column(column)
    for name, recipe in recipes.items():
        table.add_row(Text(name), Text(recipe.note), "--shots" if recipe.by_shots else "")
    console.print(table)
