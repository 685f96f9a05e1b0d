"""`ost cache`: show the sizes of the disk cache, and prune it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from ost.cache import CACHE_KINDS, parse_size, prune, readable_size, size_limit, usage
from ost.cli.command import command, guarded
from ost.cli.parser import CommandGroup, example_lines
from ost.cli.terminal import stdout
from ost.files import cache_folder

cache_app = typer.Typer(
    cls=CommandGroup,
    invoke_without_command=True,
    help="What is kept on disk: show, prune.",
    epilog=example_lines("ost cache", "ost cache prune --to 5GB"),
)


class CacheKind(StrEnum):
    """Values of --kind."""

    embeddings = "embeddings"
    heads = "heads"
    lite = "lite"
    archives = "archives"
    outdated = "outdated"


@cache_app.callback()
def _default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        with guarded({}):
            show()


@command(cache_app, examples=("ost cache show", "OST_CACHE=/data/ost ost cache show"))
def show() -> None:
    """Show how much is kept of each kind, and where."""
    held, limit = usage(), size_limit()
    table = Table(box=None, pad_edge=False)
    for column in ("kind", "files", "size", "what"):
        table.add_column(column, justify="right" if column in ("files", "size") else "left")
    for kind, kept in held.items():
        table.add_row(kind, f"{kept.files:,}", readable_size(kept.bytes), CACHE_KINDS[kind])
    console = stdout()
    console.print(table)
    if (outdated := held["outdated"]).files:
        size = readable_size(outdated.bytes)
        console.print(f"{size} are of other versions and never read: ost cache prune --kind outdated --to 0")
    total = readable_size(sum(kept.bytes for kept in held.values()))
    console.print(
        f"{total} of at most {readable_size(limit)} (OST_CACHE_SIZE), in {cache_folder()}", soft_wrap=True
    )


@command(cache_app, "prune", examples=("ost cache prune --to 5GB", "ost cache prune --kind outdated --to 0"))
def prune_cache(
    to: Annotated[
        str | None, typer.Option(help="Size to leave, such as 5GB; 0 empties.", show_default="the limit")
    ] = None,
    kinds: Annotated[
        list[CacheKind] | None, typer.Option("--kind", help="Only of this kind; can be given several times.")
    ] = None,
) -> None:
    """Delete what was used longest ago, and nothing that a run uses."""
    limit = size_limit() if to is None else parse_size(to)
    chosen = [kind.value for kind in kinds or []] or list(CACHE_KINDS)
    gone = prune(limit, chosen)
    left = sum(kept.bytes for kind, kept in usage().items() if kind in chosen)
    console = stdout()
    files = f"{gone.files:,} file{'' if gone.files == 1 else 's'}"
    console.print(f"deleted {files}, {readable_size(gone.bytes)}; {readable_size(left)} are left")
    if left > limit:
        console.print("the rest is in use")
