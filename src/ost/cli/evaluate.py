"""`ost evaluate`: measure a protocol on labelled videos, and save the run so that it can be measured again."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer
from rich.table import Table
from rich.text import Text

from ost.activity import activity
from ost.backbones.names import check_model, check_weights, is_adapter
from ost.cli.command import command, load_torch
from ost.cli.options import MatchOptions, ModelOptions, SamplingOptions
from ost.cli.parser import RunGroup, example_lines
from ost.cli.terminal import show_failures, show_notices, stderr, stdout
from ost.errors import UsageError
from ost.ranks import is_first_rank
from ost.runs import MISSING, claimed_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from ost.evaluate.compare import Comparison
    from ost.evaluate.config import EvaluateConfig
    from ost.evaluate.measure import Measured
    from ost.evaluate.protocols import Protocol
    from ost.evaluate.task import EvaluationTask
    from ost.ranks import Ranks
    from ost.recognition.settings import SettingsFields

RANKS_MEET_WITHIN = timedelta(days=1)  # at the end; ranks with cached embeddings wait for the others


evaluate_app = typer.Typer(
    cls=RunGroup,
    help="Measure a protocol on labelled videos: `ost evaluate PROTOCOL` is short for `ost evaluate run PROTOCOL`.",
    epilog=example_lines("ost evaluate own --videos clips/", "ost evaluate diff runs/own runs/own-2"),
)
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a saved run.")]
NewFolder = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Folder of the run.", show_default="runs/PROTOCOL", rich_help_panel="Output"
    ),
]
ScoresFile = Annotated[
    Path | None,
    typer.Option(
        "--scores",
        help="Also write path, label and every logit to this Parquet file.",
        rich_help_panel="Output",
    ),
]


@dataclass(frozen=True)
class LabelledOptions:
    """The labelled videos, and the descriptors of their classes."""

    PANEL: ClassVar = "Input"
    videos: Annotated[
        Path | None, typer.Option(help="The root of the benchmark, or a folder of videos for each class.")
    ] = None
    manifest: Annotated[
        Path | None,
        typer.Option(help="Your own list: CSV or Parquet of path and label, or a benchmark's format."),
    ] = None
    classes: Annotated[
        str | None,
        typer.Option(help="Other descriptors, as for recognize.", show_default="the shipped pack"),
    ] = None


@dataclass(frozen=True)
class ResultOptions:
    """What is measured besides, and where it is saved."""

    PANEL: ClassVar = "Output"
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Also names, spatial, temporal and both, pooled and transported.")
    ] = False
    vanilla: Annotated[
        bool,
        typer.Option("--vanilla", help="Also the untuned CLIP that --weights started from, mean-pooled."),
    ] = False
    output: NewFolder = None
    scores: ScoresFile = None


@command(
    evaluate_app,
    "run",
    examples=(
        "ost evaluate zero-shot/hmdb51 --videos HMDB51 --weights ost/k400 --blend 0.2",
        "torchrun --nproc-per-node 8 -m ost evaluate own --videos clips/ --classes k400",
    ),
)
def run_protocol(
    protocol: Annotated[
        str | None,
        typer.Argument(
            metavar="PROTOCOL",
            help="A protocol's name; `ost evaluate list` shows all; `own` for your own videos.",
        ),
    ] = None,
    *,
    videos: LabelledOptions,
    model: ModelOptions,
    sampling: SamplingOptions,
    matching: MatchOptions,
    result: ResultOptions,
) -> None:
    """Measure top-1, top-5 and mean per class on labelled videos, with the published numbers beside them."""
    if protocol is None and videos.videos is None and videos.manifest is None:
        raise UsageError(
            "name a protocol (`ost evaluate list` shows them) or your own --videos or --manifest"
        )
    from ost.evaluate.config import OWN, parse_config
    from ost.recognition.settings import Settings

    fields: SettingsFields = {**sampling.fields, **matching.fields}
    Settings().but(**fields)  # whose errors name the options
    config = {
        "protocol": protocol or OWN,
        **asdict(videos),
        "classes": videos.classes or "",
        **asdict(model),
        **sampling.fields,
        "match": matching.match.value,
        "texts": matching.kinds.value,
        "eps": matching.eps,
        "ablate": result.ablate,
        "vanilla": result.vanilla,
    }
    _evaluate(parse_config(config, "options"), result.output, result.scores)


@command(evaluate_app, "list", examples=("ost evaluate list", "ost evaluate list | grep zero-shot"))
def list_protocols() -> None:
    """Show every protocol, and the folder layout that each benchmark is expected in."""
    from ost.evaluate.protocols import OWN_PROTOCOL, PROTOCOLS

    show_protocols(stdout(), {**PROTOCOLS, "own": OWN_PROTOCOL})


@command(
    evaluate_app,
    "again",
    examples=("ost evaluate again runs/own", "ost evaluate again runs/own --output runs/repeated"),
)
def measure_again(run: RunFolder, output: NewFolder = None, scores: ScoresFile = None) -> None:
    """Measure a saved run again with the same settings, and compare the logits."""
    from ost.evaluate.saved import load_run

    repeated, lost = _run(load_run(run).config, output, scores)
    if is_first_rank():
        compare_runs(run, repeated)
    if lost:
        raise typer.Exit(1)


@command(
    evaluate_app,
    "diff",
    examples=("ost evaluate diff runs/own runs/own-2", "ost evaluate diff before/ after/ | tee diff.txt"),
)
def compare_runs(
    a: Annotated[Path, typer.Argument(metavar="A", help="The folder of a saved run.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The folder of another.")],
) -> None:
    """Compare two saved runs on the videos that both have scored."""
    from ost.evaluate.compare import compare
    from ost.evaluate.saved import load_run

    show_comparison(stdout(), compare(load_run(a), load_run(b)), a, b)


def _evaluate(config: EvaluateConfig, output: Path | None, scores: Path | None) -> None:
    """Measure, show and save; exit with code 1 if a video was lost."""
    if _run(config, output, scores)[1]:
        raise typer.Exit(1)


def _run(config: EvaluateConfig, output: Path | None, scores: Path | None) -> tuple[Path, bool]:
    """Return the folder of the new run, and whether a video was lost."""
    from ost.evaluate.task import find_task

    with activity("looking for the videos"):
        task = find_task(config)
    _check(config)
    if scores is not None and scores.is_dir():
        raise UsageError(f"{scores}: is a folder; --scores is a Parquet file")
    with claimed_folder(output, config.protocol) if is_first_rank() else nullcontext(Path()) as run:
        load_torch()
        return run, _score_and_save(task, run, scores)


def _check(config: EvaluateConfig) -> None:
    """Refuse models that cannot be loaded."""
    if config.vanilla and config.weights is None:
        raise UsageError("the untuned weights are those of fine-tuned ones", "name these with {weights}")
    if config.vanilla and config.weights is not None and is_adapter(Path(config.weights)):
        raise UsageError("an adapter leaves the weights of its backbone as they are", "leave {vanilla} out")
    if config.vanilla and config.blend_with is not None:
        check_weights(config.blend_with)
    check_model(
        config.backbone,
        config.weights,
        blend=config.blend,
        blend_with=None if config.vanilla and config.blend is None else config.blend_with,
        device=config.device,
        dtype=config.dtype,
    )


def _score_and_save(task: EvaluationTask, run: Path, scores: Path | None) -> bool:
    """Score, show and save; return whether a video was lost."""
    from ost.evaluate.saved import PAGE, save_run, save_scores
    from ost.pages.evaluation import save_evaluation
    from ost.ranks import join_ranks

    with join_ranks(task.config.device, RANKS_MEET_WITHIN) as (ranks, device):
        measured = _measure(task, ranks, device)
        lost = measured.lost
        if ranks.first:
            record = run / MISSING if measured.scored else None  # a run without scores is not saved
            show_failures(stderr(), lost, measured.scored + len(lost), record)
            # Saved before it is shown: the reader may close the pipe as soon as the number is printed.
            save_run(run, measured)
            save_evaluation(run / PAGE, measured)
            if scores is not None:
                save_scores(scores, measured)
            show_measured(stdout(), measured)
            stdout().print(f"saved: {run}, page: {run / PAGE}")
        ranks.wait()
    return bool(lost)


def _measure(task: EvaluationTask, ranks: Ranks, device: str) -> Measured:
    from ost.backbones.load import load_backbone
    from ost.evaluate.measure import load_models, measure

    def notify(line: str) -> None:
        if ranks.first:
            show_notices(stderr(), [line])

    config = task.config
    backbone, original = load_models(config, device, notify)
    untuned = (
        load_backbone(None, original, device=device, dtype=config.dtype, notify=notify) if original else None
    )
    share = task.videos // ranks.world if ranks.first else 0
    with activity("evaluating", share) as evaluating:
        measured = measure(task, backbone, untuned, ranks=ranks, advance=evaluating.advance)
    if ranks.first:
        show_notices(stderr(), measured.notices)
    return measured


def show_protocols(console: Console, protocols: Mapping[str, Protocol]) -> None:
    """Print every protocol with what it needs, and the expected folder layout of each benchmark."""
    from ost.datasets.catalog import BENCHMARKS

    table = Table(box=None, pad_edge=False)
    for column in ("protocol", "for", "videos of", "lists"):
        table.add_column(column)
    for name, protocol in protocols.items():
        benchmark = BENCHMARKS[protocol.benchmark] if protocol.benchmark else None
        counts = (
            [f"{split} ({benchmark.lists[split].count})" for split in protocol.splits] if benchmark else []
        )
        title = benchmark.title if benchmark else ""
        table.add_row(Text(name), Text(protocol.note), Text(title), Text(", ".join(counts)))
    console.print(table)
    for benchmark in BENCHMARKS.values():
        console.print(Text(f"\n{benchmark.title}", style="bold"))
        console.print(Text(f"  from {benchmark.home}; licence: {benchmark.licence}\n  {benchmark.layout}"))


def show_measured(console: Console, measured: Measured) -> None:
    """Print the numbers of a protocol, those it is compared with, and the published ones below."""
    from ost.evaluate.table import table_of

    results = table_of(measured)
    table = Table(box=None, pad_edge=False)
    for i, column in enumerate(results.columns):
        table.add_column(column, justify="left" if i < results.texts else "right")
    for row in results.rows:
        table.add_row(*map(Text, row))
    if results.warning:
        console.print(Text(results.warning, style="yellow"))
    console.print(table)
    for line in results.lines:
        console.print(Text(line))


def show_comparison(console: Console, comparison: Comparison, a: Path, b: Path) -> None:
    """Print the comparison of two saved runs on the videos that both scored."""
    console.print(Text(f"A: {a}\nB: {b}"))
    table = Table(box=None, pad_edge=False)
    for column in ("list", "videos", "A", "B", "only A right", "only B right"):
        table.add_column(column, justify="left" if column == "list" else "right")
    for row in comparison.rows:
        counts = (str(row.only_a), str(row.only_b))
        table.add_row(Text(row.title), str(row.videos), f"{row.a:.1%}", f"{row.b:.1%}", *counts)
    console.print(table)
    if comparison.difference is None:
        console.print("they share no video")
    elif comparison.same:
        console.print("every logit is the same to the bit")
    else:
        console.print(
            f"top-1 of B minus A {100 * comparison.difference.mean:+.1f} points "
            f"(95% interval {100 * comparison.difference.low:+.1f} to {100 * comparison.difference.high:+.1f}, "
            f"p = {comparison.p:.2g})"
        )
        if comparison.largest is not None:
            console.print(f"largest difference of a logit {comparison.largest:.2g}")
    if comparison.unpaired != (0, 0):
        console.print(
            f"videos that only A scored: {comparison.unpaired[0]}, only B: {comparison.unpaired[1]}"
        )
    if comparison.classes:
        console.print("classes that changed most, A -> B, and of how many videos:")
    for change in comparison.classes:
        console.print(Text(f"  {change.a:.0%} -> {change.b:.0%} of {change.videos}  {change.name}"))
    if comparison.settings:
        console.print("what else differs, A -> B:")
    for key, (before, after) in comparison.settings.items():
        console.print(Text(f"  {key}: {before} -> {after}"))
