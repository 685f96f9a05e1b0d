"""`ost weights`: list, inspect, convert and blend weight files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from ost.cli.show import show_notices, stderr, stdout
from ost.errors import WeightsError

if TYPE_CHECKING:
    from ost.backbones.weights import Weights

weights_app = typer.Typer(no_args_is_help=True, help="Weight files: list, inspect, convert, blend.")
Source = Annotated[str, typer.Argument(help="A weight file, or a name from ost weights list.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="The safetensors file to write.")]


@weights_app.command("list")
def list_weights() -> None:
    """The backbones and published weights known by name."""
    from ost.backbones.catalog import BACKBONES, PUBLISHED

    table = Table(box=None, pad_edge=False)
    for column in ("name", "pixels", "tokens", "licence", "what"):
        table.add_column(column)
    for name, spec in BACKBONES.items():
        table.add_row(
            name, str(spec.preprocess.size), str(spec.context_length), spec.licence, Text(spec.note)
        )
    for name, published in PUBLISHED.items():
        spec = BACKBONES[published.backbone]
        size, context = str(spec.preprocess.size), str(spec.context_length)
        table.add_row(name, size, context, published.licence, Text(published.note))
    stdout().print(table)


@weights_app.command()
def inspect(source: Source) -> None:
    """What a weight file is: who wrote it, its sizes, its pixels, what was left out."""
    from ost.backbones.weights import architecture

    file, weights = _read(source)
    count = sum(tensor.numel() for tensor in weights.state.values())
    types = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights.state.values()})
    try:
        sizes = str(architecture(weights))
    except WeightsError:
        sizes = "not a CLIP with two transformers; name its architecture with --backbone"
    lines = {
        "file": str(file),
        "hash": weights.hash,
        "origin": weights.origin,
        "architecture": sizes,
        "tensors": f"{len(weights.state)}, {count / 1e6:.1f} million numbers, {', '.join(types)}",
        "activation": {True: "QuickGELU", False: "GELU", None: "not told by the file"}[weights.quick_gelu],
        "pixels": str(weights.preprocess) if weights.preprocess else "not told by the file",
        "left out": ", ".join(weights.left_out) or "nothing",
        **{name: str(value)[:200] for name, value in weights.training.items()},
    }
    console = stdout()
    for name, value in lines.items():
        console.print(Text(f"{name:>12}  {value}"))


@weights_app.command()
def convert(source: Source, output: Output) -> None:
    """Write a weight file as safetensors: no pickle, no optimiser, its pixels in the metadata."""
    from ost.backbones.weights import save_weights

    file, weights = _read(source)
    save_weights(weights, output)
    before, after = file.stat().st_size, output.stat().st_size
    stdout().print(Text(f"{output}: {after / 1e6:.1f} MB, from {before / 1e6:.1f} MB"))


@weights_app.command()
def blend(
    original: Annotated[str, typer.Argument(help="The weights that were fine-tuned: file or name.")],
    tuned: Annotated[str, typer.Argument(help="The fine-tuned weights: file or name.")],
    output: Output,
    ratio: Annotated[float, typer.Option(min=0, max=1, help="Share of the original.")] = 0.2,
) -> None:
    """Blend two weight files of one architecture (WiSE-FT): ratio * original + (1 - ratio) * tuned."""
    from ost.backbones.weights import blend as blend_weights
    from ost.backbones.weights import save_weights

    save_weights(blend_weights(_read(original)[1], _read(tuned)[1], ratio), output)
    stdout().print(Text(f"{output}: {ratio:g} x {original} + {1 - ratio:g} x {tuned}"))


def _read(source: str) -> tuple[Path, Weights]:
    """A file by path or name, with what its name implies."""
    from ost.backbones.load import completed, find_weights
    from ost.backbones.weights import read_weights

    file, spec = find_weights(source, lambda line: show_notices(stderr(), [line]))
    return file, completed(read_weights(file), spec)
