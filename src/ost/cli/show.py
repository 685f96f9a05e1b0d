"""How results look in a terminal."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ost.types import BOTH

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from ost.errors import VideoError
    from ost.evaluate.ablation import Way
    from ost.evaluate.labelled import Accuracy
    from ost.evaluate.pack import PackReport
    from ost.evaluate.protocols import Protocol
    from ost.evaluate.summary import Summary
    from ost.recipes import Recipe
    from ost.recognition.prediction import Prediction

BAR, PIPED = 24, 200
T = TypeVar("T")


def stdout() -> Console:
    """Where results go; what is read by another program is not cut to the width of a terminal."""
    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=PIPED)


def stderr() -> Console:
    """Where notices, progress and failures go."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def show_prediction(console: Console, prediction: Prediction, top: int) -> None:
    """One video: its likeliest classes with bars."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right")
    table.add_column()
    table.add_column()
    for score in prediction.top(top):
        bar = "█" * max(1, round(score.probability * BAR))
        # Text, not markup: a class name is the user's, and may hold square brackets.
        table.add_row(f"{score.probability:.1%}", Text(bar, style="cyan"), Text(score.name))
    console.print(Text(prediction.path, style="bold"))
    console.print(table)


def show_notices(console: Console, notices: list[str]) -> None:
    """Each notice once."""
    for line in dict.fromkeys(notices):
        console.print(Text(f"note: {line}", style="yellow"))


def show_failures(console: Console, failures: list[VideoError], total: int) -> None:
    """The videos that could not be used, each with its reason."""
    if failures:
        console.print(Text(f"{len(failures)} of {total} videos could not be used:", style="red"))
        for failure in failures:
            console.print(Text(f"  {failure}"))


def show_reports(console: Console, reports: list[PackReport], tower: str, pairs: int) -> None:
    """Checked packs as a table, then their most confusable pairs and their faults."""
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
        for r, found in measured:
            shares = [f"{found.own_name[kind]:.0%}" for kind in BOTH]
            means = [f"{found.mean[kind]:.3f}" for kind in ("name", *BOTH)]
            table.add_row(Text(r.pack.name), *means, *shares)
        console.print(f"\nmean cosine between classes, and classes whose nearest name is their own ({tower})")
        console.print(table)
    for r, found in measured:
        if pairs:
            console.print(Text(f"\n{r.pack.name}, most confusable (cosine of descriptors, of names):"))
        for pair in found.closest[:pairs]:
            figures = f"  {pair.descriptors:.2f}  {pair.names:.2f}"
            console.print(Text(f"{figures}  {pair.first} | {pair.second}"))
    for r in reports:
        for fault in r.faults:
            console.print(Text(f"{r.pack.name}: {fault}", style="red"))


def show_accuracy(console: Console, found: Accuracy) -> None:
    """Right answers by what was matched."""
    table = Table(box=None, pad_edge=False)
    for column in ("matched", "top-1", "top-5", "right"):
        table.add_column(column, justify="left" if column == "matched" else "right")
    total = max(1, found.clips)
    for way, right in found.top1.items():
        table.add_row(
            way, f"{right / total:.1%}", f"{found.top5[way] / total:.1%}", f"{right} of {found.clips}"
        )
    console.print(f"\n{found.clips} clips, {found.classes} classes, chance {1 / found.classes:.1%}")
    console.print(table)


def show_recipes(console: Console, recipes: Mapping[str, Recipe]) -> None:
    """Every recipe with what it is for."""
    table = Table(box=None, pad_edge=False)
    for column in ("recipe", "for", "shots"):
        table.add_column(column)
    for name, recipe in recipes.items():
        table.add_row(Text(name), Text(recipe.note), "--shots" if recipe.by_shots else "")
    console.print(table)


def show_protocols(console: Console, protocols: Mapping[str, Protocol]) -> None:
    """Every protocol with what it needs."""
    table = Table(box=None, pad_edge=False)
    for column in ("protocol", "for", "lists"):
        table.add_column(column)
    for name, protocol in protocols.items():
        table.add_row(Text(name), Text(protocol.note), Text(", ".join(protocol.splits)))
    console.print(table)


def show_summary(console: Console, found: Summary, published: Mapping[str, str]) -> None:
    """The numbers of a protocol, in percent, and the published ones under them."""
    table = Table(box=None, pad_edge=False)
    columns = (
        "list",
        "videos",
        "classes",
        "top-1",
        "top-5",
        "mean per class",
        "mAP",
        "missing",
        "unreadable",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "list" else "right")
    for row in found.rows:
        precision = "" if row.average_precision is None else f"{row.average_precision:.1%}"
        shares = (f"{row.top1:.1%}", f"{row.top5:.1%}", f"{row.mean_class:.1%}", precision)
        table.add_row(
            Text(row.title), str(row.videos), str(row.classes), *shares, str(row.missing), str(row.unreadable)
        )
    console.print(table)
    spread = "" if found.spread is None else f" ± {100 * found.spread:.1f}"
    mean = f"{100 * found.top1.mean:.1f}{spread}"
    console.print(
        f"top-1 {mean} (95% interval {100 * found.top1.low:.1f} to {100 * found.top1.high:.1f}), "
        f"top-5 {100 * found.top5:.1f}, mean per class {100 * found.mean_class:.1f}"
    )
    if found.harmonic is not None:
        console.print(f"harmonic mean of base and novel {100 * found.harmonic:.1f}")
    for who, number in published.items():
        console.print(Text(f"published, {who}: {number}"))


def show_ablation(console: Console, ways: Sequence[Way]) -> None:
    """What each part of the method does, in percent."""
    table = Table(box=None, pad_edge=False)
    for column in ("texts", "matched by", "top-1", "95% interval", "top-5", "mean per class"):
        table.add_column(column, justify="left" if column in ("texts", "matched by") else "right")
    for way in ways:
        found = way.numbers
        interval = f"{100 * found.top1.low:.1f} to {100 * found.top1.high:.1f}"
        numbers = (f"{share:.1%}" for share in (found.top5, found.mean_class))
        table.add_row(way.texts, way.matched, f"{found.top1.mean:.1%}", interval, *numbers)
    console.print(table)


@contextmanager
def progress(doing: str, total: int) -> Generator[Callable[[], None]]:
    """A progress bar on stderr, where someone is looking; gives what to call after each step."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = stderr()
    if total < 2 or not console.is_terminal:
        yield lambda: None
        return
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


def with_progress(results: Iterable[T], total: int, doing: str) -> Iterator[T]:
    """The results, with a progress bar."""
    with progress(doing, total) as advance:
        for result in results:
            advance()
            yield result
