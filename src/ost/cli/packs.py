"""`ost packs`: list, show, check and import descriptor packs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer
from rich.table import Table
from rich.text import Text

from ost.activity import activity, counted
from ost.backbones.names import check_model
from ost.cli.command import command, load_torch
from ost.cli.parser import CommandGroup, example_lines
from ost.cli.terminal import show_failures, show_notices, stderr, stdout
from ost.descriptors.pack import Pack, save_pack
from ost.descriptors.shipped import shipped, shipped_pack, whole_packs
from ost.descriptors.spec import import_authors, resolve
from ost.errors import UsageError, VideoError
from ost.types import BOTH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from ost.backbones.base import Backbone
    from ost.evaluate.pack import PackReport
    from ost.evaluate.run import ListScores
    from ost.evaluate.ways import Way

packs_app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    help="Descriptor packs: list, show, check, import.",
    epilog=example_lines("ost packs list", "ost packs show everyday"),
)
SpecArgument = Annotated[
    str, typer.Argument(metavar="SPEC", help="A shipped pack, a pack file, or any other SPEC.")
]


@command(packs_app, "list", examples=("ost packs list", "ost packs list | grep k400"))
def list_packs() -> None:
    """The packs that come with OST."""
    table = Table(box=None, pad_edge=False)
    for column in ("pack", "classes", "descriptors", "licence", "hash"):
        table.add_column(column)
    for name in shipped():
        pack = shipped_pack(name)
        count = sum(len(c.spatial) + len(c.temporal) for c in pack.classes)
        table.add_row(name, str(len(pack)), str(count), Text(pack.licence), pack.hash[:12])
    stdout().print(table)


@command(packs_app, examples=("ost packs show everyday", 'ost packs show ucf101 "Archery" "Horse Riding"'))
def show(
    spec: SpecArgument,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="CLASS", help="Classes; all if none is given.")
    ] = None,
) -> None:
    """The descriptors of a pack's classes."""
    pack = resolve(spec)
    chosen = pack.select(names) if names else pack
    console = stdout()
    for item in chosen.classes:
        console.print(Text(item.name + (f"  ({item.label})" if item.label else ""), style="bold"))
        for kind, texts in (("spatial", item.spatial), ("temporal", item.temporal)):
            for number, text in enumerate(texts, 1):
                console.print(Text(f"  {kind} {number}  {text}"))
    show_notices(stderr(), list(pack.notices))


@dataclass(frozen=True)
class LabelledClips:
    """The labelled clips that a pack is tried on."""

    PANEL: ClassVar = "Input"
    clips: Annotated[
        Path | None, typer.Option(help="CSV or Parquet of path and label: accuracy on labelled clips.")
    ] = None
    dataset: Annotated[str | None, typer.Option(help="Only the clips with this in the column dataset.")] = (
        None
    )
    only_labelled: Annotated[
        bool, typer.Option("--only-labelled", help="Tell apart only the classes that some clip shows.")
    ] = False
    frames: Annotated[int, typer.Option(min=1, help="Frames a clip.")] = 32

    def check(self) -> None:
        """Refuse a manifest that is missing, and options that need one."""
        if (self.dataset or self.only_labelled) and not self.clips:
            raise UsageError("--dataset and --only-labelled choose among clips; name a manifest with --clips")
        if self.clips and not self.clips.is_file():
            raise UsageError(f"{self.clips}: there is no such file")


@command(
    packs_app,
    examples=(
        "ost packs check my-pack.json",
        "ost packs check hmdb51 --clips clips.csv --picture hmdb51.png",
    ),
)
def check(
    specs: Annotated[
        list[str] | None, typer.Argument(metavar="SPEC", help="Packs; all shipped ones if none is given.")
    ] = None,
    backbone: Annotated[
        str, typer.Option(help="Whose text tower measures the classes.", rich_help_panel="Model")
    ] = "lite",
    weights: Annotated[
        str | None, typer.Option(help="Weights for it; see ost recognize.", rich_help_panel="Model")
    ] = None,
    *,
    labelled: LabelledClips,
    picture: Annotated[
        Path | None, typer.Option(help="Draw it: a .svg, .png or .pdf file.", rich_help_panel="Output")
    ] = None,
    pairs: Annotated[
        int,
        typer.Option(min=0, max=20, help="Most confusable pairs to list, of each.", rich_help_panel="Output"),
    ] = 5,
) -> None:
    """Is a pack any good? Exit code 1 if something in one is wrong, or a clip could not be used."""
    clips = labelled.clips
    if (clips or picture) and len(specs or []) != 1:
        raise UsageError("--clips and --picture are for one pack; name it")
    labelled.check()
    packs = [resolve(spec) for spec in specs] if specs else [shipped_pack(name) for name in whole_packs()]
    check_model(backbone, weights)
    if picture:
        from ost.evaluate.picture import picture_format

        picture_format(picture)  # raises for a wrong ending now, not after minutes of scoring
    load_torch()

    from ost.backbones.load import load_backbone
    from ost.evaluate.pack import check_pack
    from ost.evaluate.picture import save_picture

    notes = stderr()
    tower = load_backbone(backbone, weights, notify=lambda line: show_notices(notes, [line]))
    reports = [
        check_pack(pack, lambda texts: tower.embed_text(texts).values)
        for pack in counted(packs, "checking", len(packs))
    ]
    show_reports(stdout(), reports, tower.name, pairs)
    show_notices(notes, [line for pack in packs for line in pack.notices])
    answers = (
        _score(tower, packs[0], clips, labelled.dataset, labelled.only_labelled, labelled.frames)
        if clips
        else {}
    )
    lost = _show_answers(answers, clips) if answers and clips else False
    if picture:
        save_picture(reports[0], picture, answers)
        stdout().print(Text(f"picture: {picture}"))
    if any(report.faults for report in reports) or lost:
        raise typer.Exit(1)


def _show_answers(answers: Mapping[Way, ListScores], clips: Path) -> bool:
    """Show the accuracy on the labelled clips; return whether a video was lost."""
    answer = next(iter(answers.values()))
    lost = [VideoError(path, cause) for path, cause in answer.unreadable.items()]
    show_failures(stderr(), lost, len(answer.paths) + len(lost))
    if not answer.paths:
        raise UsageError(f"{clips}: none of its videos can be read; there is nothing to count")
    show_accuracy(stdout(), answers)
    return bool(lost)


def _score(
    tower: Backbone, pack: Pack, clips: Path, dataset: str | None, only_labelled: bool, frames: int
) -> dict[Way, ListScores]:
    from ost.datasets.manifest import read_manifest
    from ost.evaluate.lists import EvaluationList
    from ost.evaluate.run import score_lists
    from ost.evaluate.ways import ablation
    from ost.recognition.settings import Settings

    rows = read_manifest(clips, dataset)
    labelled = pack.select(dict.fromkeys(label for clip in rows for label in (clip.label, *clip.others)))
    video_list = EvaluationList(str(clips), labelled if only_labelled else pack, rows)
    ways = [way for way in ablation() if way.matched == "transport"]
    with activity("scoring clips", len(rows)) as scoring:
        answers = score_lists(tower, [video_list], Settings(frames=frames), ways, advance=scoring.advance)
    return {way: way_answers[0] for way, way_answers in answers.items()}


@dataclass(frozen=True)
class AuthorsFiles:
    """Descriptors in the format of the OST authors."""

    PANEL: ClassVar = "Input"
    spatial: Annotated[Path, typer.Option(help="JSON of id -> spatial descriptors.")]
    temporal: Annotated[Path, typer.Option(help="JSON of id -> temporal descriptors.")]
    labels: Annotated[Path, typer.Option(help="CSV id,name in the same order.")]


@command(
    packs_app,
    "import",
    examples=(
        "ost packs import --spatial s.json --temporal t.json --labels labels.csv -o pack.json",
        "ost packs import --spatial s.json --temporal t.json --labels labels.csv -o x.json --name hmdb",
    ),
)
def import_pack(
    files: AuthorsFiles,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The pack file to write.", rich_help_panel="Output")
    ],
    name: Annotated[
        str | None,
        typer.Option(help="Name of the pack.", show_default="the file's", rich_help_panel="Output"),
    ] = None,
) -> None:
    """Turn descriptors in the format of the OST authors into a pack."""
    pack = import_authors(files.spatial, files.temporal, files.labels, name or output.stem)
    save_pack(pack, output)
    stdout().print(Text(f"{output}: {len(pack)} classes, hash {pack.hash[:12]}"))


def show_reports(console: Console, reports: list[PackReport], tower: str, pairs: int) -> None:
    """Print checked packs as a table, then their most confusable pairs and their faults."""
    table = Table(box=None, pad_edge=False)
    for column in ("pack", "classes", *BOTH, "tokens", "> 77", "> 32", "faults"):
        table.add_column(column, justify="left" if column == "pack" else "right")
    for r in reports:
        cells = [str(len(r.pack))]
        for kind in BOTH:
            (fewest, most), (low, _, high) = r.counts[kind], r.words[kind]
            number = str(most) if fewest == most else f"{fewest}-{most}"
            cells.append(f"{number} of {low}-{high} words")
        cells += [f"to {r.longest}", *map(str, r.too_long.values()), str(len(r.faults))]
        table.add_row(Text(r.pack.name), *cells)
    console.print(table)
    measured = [(r, r.separability) for r in reports if r.separability]
    if measured:
        table = Table(box=None, pad_edge=False)
        for column in ("pack", "names", "spatial", "temporal", "own name: spatial", "temporal"):
            table.add_column(column, justify="left" if column == "pack" else "right")
        for r, separability in measured:
            shares = [f"{separability.own_name[kind]:.0%}" for kind in BOTH]
            means = [f"{separability.mean[kind]:.3f}" for kind in ("name", *BOTH)]
            table.add_row(Text(r.pack.name), *means, *shares)
        console.print(f"\nmean cosine between classes, and classes whose nearest name is their own ({tower})")
        console.print(table)
    for r, separability in measured:
        if pairs:
            console.print(Text(f"\n{r.pack.name}, most confusable (cosine of descriptors, of names):"))
        for pair in separability.closest[:pairs]:
            figures = f"  {pair.descriptors:.2f}  {pair.names:.2f}"
            console.print(Text(f"{figures}  {pair.first} | {pair.second}"))
    for r in reports:
        for fault in r.faults:
            console.print(Text(f"{r.pack.name}: {fault}", style="red"))


def show_accuracy(console: Console, answers: Mapping[Way, ListScores]) -> None:
    """Print the accuracy on one list for each way of matching."""
    table = Table(box=None, pad_edge=False)
    for column in ("matched", "top-1", "top-5", "right"):
        table.add_column(column, justify="left" if column == "matched" else "right")
    for way, scores in answers.items():
        first, five = scores.right(1), scores.right(5)
        table.add_row(
            way.texts, f"{first.mean():.1%}", f"{five.mean():.1%}", f"{first.sum()} of {len(first)}"
        )
    first_scores = next(iter(answers.values()))
    clips, classes = len(first_scores.paths), len(first_scores.names)
    console.print(f"\n{clips} clips, {classes} classes, chance {1 / classes:.1%}")
    console.print(table)
