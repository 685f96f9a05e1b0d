"""`ost train`: train a weight file from clips with a recipe."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from rich.table import Table
from rich.text import Text

from ost.activity import activity
from ost.backbones.names import check_model
from ost.cli.command import command, load_torch
from ost.cli.parser import RunGroup, example_lines
from ost.cli.terminal import show_failures, show_notices, stderr, stdout, write_line
from ost.cli.watch import watching
from ost.errors import VideoError
from ost.ranks import is_first_rank
from ost.runs import MISSING, claimed_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from ost.recipes import Recipe, Sources
    from ost.train.config import TrainConfig
    from ost.train.folder import TrainingResult
    from ost.train.task import TrainingTask


train_app = typer.Typer(
    cls=RunGroup,
    help="Learn from clips, by a recipe: `ost train RECIPE` is short for `ost train run RECIPE`.",
    epilog=example_lines("ost train few-shot --videos clips/ --shots 4", "ost train list"),
)


@dataclass(frozen=True)
class ClipOptions:
    """The clips to learn from, and their classes."""

    PANEL: ClassVar = "Input"
    videos: Annotated[
        Path | None,
        typer.Option(help="A folder of videos for each class, or the root of the benchmark or list."),
    ] = None
    manifest: Annotated[
        Path | None, typer.Option(help="CSV or Parquet of path and label, or a benchmark's own list.")
    ] = None
    held_out: Annotated[
        Path | None,
        typer.Option(help="Clips to validate on: such a list, or a folder of videos for each class."),
    ] = None
    classes: Annotated[
        str | None,
        typer.Option(help="Classes with descriptors, as for recognize.", show_default="the labels"),
    ] = None
    shots: Annotated[
        int | None, typer.Option(min=1, help="Clips a class to learn from; the rest is held out.")
    ] = None

    def sources(self) -> Sources:
        """Return the videos and classes for a recipe."""
        from ost.recipes import Sources

        return Sources(self.videos, self.manifest, self.held_out, self.shots, self.classes or "")


@dataclass(frozen=True)
class LearnerOptions:
    """What is trained, and how it differs from the recipe."""

    PANEL: ClassVar = "Model"
    backbone: Annotated[
        str | None, typer.Option(help="Backbone to start from, by name.", show_default="the recipe's")
    ] = None
    init_from: Annotated[
        str | None, typer.Option(help="Weights to start from: a published name such as ost/k400, or a file.")
    ] = None
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of shots, order and augmentation.")] = None
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, any setting of the recipe; repeat it.")
    ] = None
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto"

    def changes(self) -> dict[str, Any]:
        """Return the settings that differ from the recipe's."""
        changes = {"weights": self.init_from, "backbone": self.backbone, "seed": self.seed}
        return {key: value for key, value in changes.items() if value is not None}


@command(
    train_app,
    "run",
    examples=(
        "ost train few-shot --videos clips/ --shots 4",
        "torchrun --nproc-per-node 8 -m ost train k400-zero-shot --videos K400 --manifest train.csv",
    ),
    init_from="weights",
)
def run_recipe(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe's name; `ost train list` shows all.")
    ],
    clips: ClipOptions,
    learner: LearnerOptions,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder of the run.", show_default="runs/RECIPE", rich_help_panel="Output"
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder.", rich_help_panel="Output")
    ] = False,
) -> None:
    """Train a weight file from clips with a recipe."""
    from ost.recipes import prepare

    with activity("looking for the clips"):
        config, task = prepare(recipe, clips.sources(), learner.changes(), learner.settings or [])
    check_model(config.named_backbone, config.weights, device=learner.device)
    with claimed_folder(output, recipe, resume=resume) if is_first_rank() else nullcontext(Path()) as folder:
        load_torch()
        _train(config, task, folder, learner.device, resume)


@command(train_app, "list", examples=("ost train list", "ost train list | grep hmdb51"))
def list_recipes() -> None:
    """Show every recipe with its purpose."""
    from ost.recipes import RECIPES

    show_recipes(stdout(), RECIPES)


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
    elif not len(task.held_out):
        write_line(
            "no clip was held out, so nothing was measured; name some with --held-out, or give fewer --shots"
        )
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
