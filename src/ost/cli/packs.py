"""`ost packs`: list, show, check and import descriptor packs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ost.cli.show import show_notices, stderr, stdout
from ost.descriptors.pack import Pack, fold, save_pack
from ost.descriptors.spec import import_authors, resolve, shipped, shipped_pack

packs_app = typer.Typer(no_args_is_help=True, help="Descriptor packs: list, show, check, import.")
SpecArgument = Annotated[str, typer.Argument(help="A shipped pack, a pack file, or any other SPEC.")]


@packs_app.command("list")
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


@packs_app.command()
def show(
    spec: SpecArgument,
    names: Annotated[list[str] | None, typer.Argument(help="Classes; all if none is given.")] = None,
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


@packs_app.command()
def check(spec: SpecArgument) -> None:
    """Count what a pack holds and name what looks wrong; exit code 1 if anything does."""
    pack = resolve(spec)
    console = stdout()
    faults = pack_faults(pack)
    for kind in ("spatial", "temporal"):
        counts = Counter(len(getattr(item, kind)) for item in pack.classes)
        spread = ", ".join(f"{classes} classes with {n}" for n, classes in sorted(counts.items()))
        words = [len(text.split()) for item in pack.classes for text in getattr(item, kind)]
        length = f"; {min(words)} to {max(words)} words, mean {sum(words) / len(words):.1f}" if words else ""
        console.print(Text(f"{kind}: {spread}{length}"))
    console.print(Text(f"{pack.name}: {len(pack)} classes, hash {pack.hash[:12]}, {len(faults)} to look at"))
    for fault in faults:
        console.print(Text(f"  {fault}"))
    show_notices(stderr(), list(pack.notices))
    if faults:
        raise typer.Exit(1)


@packs_app.command("import")
def import_pack(
    spatial: Annotated[Path, typer.Option(help='JSON {"0": [...], ...} of spatial descriptors.')],
    temporal: Annotated[Path, typer.Option(help='JSON {"0": [...], ...} of temporal descriptors.')],
    labels: Annotated[Path, typer.Option(help="CSV id,name in the same order.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The pack file to write.")],
    name: Annotated[str | None, typer.Option(help="Name of the pack; the file's by default.")] = None,
) -> None:
    """Turn descriptors in the format of the OST authors into a pack."""
    pack = import_authors(spatial, temporal, labels, name or output.stem)
    save_pack(pack, output)
    stdout().print(Text(f"{output}: {len(pack)} classes, hash {pack.hash[:12]}"))


def pack_faults(pack: Pack) -> list[str]:
    """What a careful reader would object to, one sentence each."""
    faults: list[str] = []
    usual = {
        kind: Counter(len(getattr(item, kind)) for item in pack.classes).most_common(1)[0][0]
        for kind in ("spatial", "temporal")
    }
    owners: dict[str, str] = {}
    for item in pack.classes:
        for kind in ("spatial", "temporal"):
            texts: tuple[str, ...] = getattr(item, kind)
            if len(texts) != usual[kind]:
                faults.append(
                    f"{item.name}: {len(texts)} {kind} descriptors, most classes have {usual[kind]}"
                )
            for text in texts:
                other = owners.setdefault(text.casefold(), item.name)
                if other != item.name:
                    faults.append(f"{item.name}: shares {text!r} with {other}")
        faults += [
            f"{item.name}: named in its spatial {t!r}" for t in item.spatial if fold(item.name) in fold(t)
        ]
    recorded = pack.provenance.get("hash")
    if recorded is not None and recorded != pack.hash:
        faults.append(f"edited since it was written: its hash was {str(recorded)[:12]}")
    return faults
