"""Print results in a terminal."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ost.cli.terminal import DEBUGGING
from ost.types import BOTH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from ost.errors import VideoError
    from ost.evaluate.compare import Comparison
    from ost.evaluate.measure import Measured
    from ost.evaluate.pack import PackReport
    from ost.evaluate.protocols import Protocol
    from ost.evaluate.run import Answer
    from ost.evaluate.ways import Way
    from ost.recipes import Recipe
    from ost.recognition.prediction import Prediction

BAR = 24  # width in characters of the bar of probability 1
FAILURES_SHOWN = 10


def show_prediction(console: Console, prediction: Prediction, top: int) -> None:
    """Print the likeliest classes of one video with bars."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right")
    table.add_column()
    table.add_column()
    for score in prediction.top(top):
        bar = "█" * round(score.probability * BAR)
        # Text, not markup: a class name is the user's, and may hold square brackets.
        table.add_row(f"{score.probability:.1%}", Text(bar, style="cyan"), Text(score.name))
    console.print(Text(prediction.path, style="bold"))
    console.print(table)


def show_notices(console: Console, notices: list[str]) -> None:
    """Print each notice once."""
    for line in dict.fromkeys(notices):
        console.print(Text(f"note: {line}", style="yellow"))


def show_failures(
    console: Console, failures: Sequence[VideoError], total: int, place: Path | None = None
) -> None:
    """Print the videos that could not be used, with reasons; only the first ten where the file `place` lists all."""
    if not failures:
        return
    console.print(Text(f"{len(failures):,} of {total:,} videos could not be used:", style="red"))
    shown = failures if place is None else failures[:FAILURES_SHOWN]
    for failure in shown:
        console.print(Text(f"  {failure}"))
        if failure.__cause__ is not None and DEBUGGING.get():
            console.print(Text("".join(traceback.format_exception(failure.__cause__))))
    if len(shown) < len(failures):
        console.print(Text(f"  and {len(failures) - len(shown):,} more; all of them are in {place}"))


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


def show_accuracy(console: Console, found: Mapping[Way, Answer]) -> None:
    """Print the accuracy on one list for each way of matching."""
    table = Table(box=None, pad_edge=False)
    for column in ("matched", "top-1", "top-5", "right"):
        table.add_column(column, justify="left" if column == "matched" else "right")
    for way, answer in found.items():
        first, five = answer.right(1), answer.right(5)
        table.add_row(
            way.texts, f"{first.mean():.1%}", f"{five.mean():.1%}", f"{first.sum()} of {len(first)}"
        )
    first_answer = next(iter(found.values()))
    clips, classes = len(first_answer.paths), len(first_answer.names)
    console.print(f"\n{clips} clips, {classes} classes, chance {1 / classes:.1%}")
    console.print(table)


def show_recipes(console: Console, recipes: Mapping[str, Recipe]) -> None:
    """Print every recipe with its purpose."""
    table = Table(box=None, pad_edge=False)
    for column in ("recipe", "for", "shots"):
        table.add_column(column)
    for name, recipe in recipes.items():
        table.add_row(Text(name), Text(recipe.note), "--shots" if recipe.by_shots else "")
    console.print(table)


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


def show_comparison(console: Console, found: Comparison, a: Path, b: Path) -> None:
    """Print the comparison of two saved runs on the videos that both scored."""
    console.print(Text(f"A: {a}\nB: {b}"))
    table = Table(box=None, pad_edge=False)
    for column in ("list", "videos", "A", "B", "only A right", "only B right"):
        table.add_column(column, justify="left" if column == "list" else "right")
    for row in found.rows:
        counts = (str(row.only_a), str(row.only_b))
        table.add_row(Text(row.title), str(row.videos), f"{row.a:.1%}", f"{row.b:.1%}", *counts)
    console.print(table)
    if found.difference is None:
        console.print("they share no video")
    elif found.same:
        console.print("every logit is the same to the bit")
    else:
        console.print(
            f"top-1 of B less A {100 * found.difference.mean:+.1f} points "
            f"(95% interval {100 * found.difference.low:+.1f} to {100 * found.difference.high:+.1f}, "
            f"p = {found.p:.2g})"
        )
        if found.largest is not None:
            console.print(f"largest difference of a logit {found.largest:.2g}")
    if found.unpaired != (0, 0):
        console.print(f"videos that only A scored: {found.unpaired[0]}, only B: {found.unpaired[1]}")
    if found.classes:
        console.print("classes that changed most, A -> B, and of how many videos:")
    for change in found.classes:
        console.print(Text(f"  {change.a:.0%} -> {change.b:.0%} of {change.videos}  {change.name}"))
    if found.settings:
        console.print("what was otherwise, A -> B:")
    for key, (before, after) in found.settings.items():
        console.print(Text(f"  {key}: {before} -> {after}"))
