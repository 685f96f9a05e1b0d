"""`ost weights`: list, inspect, convert and blend weight files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from ost.backbones.catalog import BACKBONES
from ost.backbones.figures import figures
from ost.backbones.names import check_model, check_weights, is_adapter
from ost.cli.command import command, load_torch
from ost.cli.parser import CommandGroup, example_lines
from ost.cli.terminal import show_notices, stderr, stdout
from ost.datasets.manifest import read_manifest
from ost.descriptors.lookup import first_names
from ost.errors import UsageError, WeightsError
from ost.runs import EVALUATION, TRAINING, WEIGHTS, holds_run, trained_on

if TYPE_CHECKING:
    from ost.weights.formats import Weights

weights_app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    help="Weight files: list, explain, inspect, convert, blend.",
    epilog=example_lines("ost weights list", "ost weights inspect model.pth"),
)
WeightSource = Annotated[
    str, typer.Argument(metavar="WEIGHTS", help="A weight file, or a name from ost weights list.")
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="The safetensors file to write.", rich_help_panel="Output")
]


@command(weights_app, "list", examples=("ost weights list", "ost weights list | grep ost/"))
def list_weights() -> None:
    """Show the backbones and published weights known by name, with their size, published accuracy and speed."""
    from ost.evaluate.protocols import published_accuracy
    from ost.weights.published import PUBLISHED

    table = Table(box=None, pad_edge=False)
    for column in (
        "name",
        "pixels",
        "tokens",
        "parameters",
        "frames/s",
        "published top-1",
        "licence",
        "what",
    ):
        numeric = column in ("pixels", "tokens", "parameters", "frames/s")
        table.add_column(column, justify="right" if numeric else "left")
    broken: list[str] = []
    for name in BACKBONES:
        try:
            spec = BACKBONES[name]
        except UsageError as error:  # a broken plugin must not hide the other backbones
            broken.append(str(error))
            continue
        known = figures().get(name)
        accuracy = f"{known.imagenet:.1f} ImageNet" if known and known.imagenet else ""
        table.add_row(*_sizes(name, name), accuracy, spec.licence, Text(spec.note))
    for name, published in PUBLISHED.items():
        accuracy = published_accuracy(name)
        table.add_row(*_sizes(name, published.backbone), accuracy, published.licence, Text(published.note))
    console = stdout()
    console.print(table)
    console.print("frames/s: through the image tower, in fp32 on two CPU cores")
    show_notices(stderr(), broken)


def _sizes(name: str, backbone: str) -> tuple[str, ...]:
    """Return the cells of the name, the pixels, the tokens, the parameters and the speed."""
    spec, known = BACKBONES[backbone], figures().get(backbone)
    speed = "" if known is None else f"{known.frames:.0f}" if known.frames >= 10 else f"{known.frames:.2g}"
    cells = (f"{known.parameters:,.0f} M" if known else "", speed)
    return (name, str(spec.preprocess.size), str(spec.context_length), *cells)


@command(weights_app, examples=("ost weights inspect model.pth", "ost weights inspect runs/few-shot"))
def inspect(source: WeightSource) -> None:
    """What a weight file, or the one in the folder of a run, is: its origin, sizes, pixels, and what was learned."""
    source = _run_weights(Path(source)) or source
    lines = _adapter_lines(Path(source)) if is_adapter(Path(source)) else _weight_lines(*_read(source))
    if clips := trained_on(source):
        lines["trained on"] = _describe_clips(clips)
    console = stdout()
    for name, value in lines.items():
        console.print(Text(f"{name:>12}  {value}"))


@command(
    weights_app,
    examples=("ost weights explain ost/k400", "ost weights explain --backbone PE-Core-B-16/meta"),
)
def explain(
    source: Annotated[
        str | None, typer.Argument(metavar="WEIGHTS", help="Weights: a file or a name.", show_default="none")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="Backbone by name.", show_default="ViT-B-16/openai", rich_help_panel="Model"),
    ] = None,
) -> None:
    """Say what a model is taken for, and where each of its properties is known from."""
    check_model(backbone, source)
    load_torch()

    from ost.backbones.resolve import resolve_model

    model = resolve_model(backbone, source, lambda line: show_notices(stderr(), [line]))
    console = stdout()
    console.print(Text(model.name, style="bold"))
    for name, value in model.explained().items():
        console.print(Text(f"{name:>12}  {value}"), soft_wrap=True)


def _run_weights(place: Path) -> str | None:
    """Return the weights of a run, by its folder or record: the finished ones, or those of the last checkpoint."""
    folder = place.parent if place.name in (TRAINING, EVALUATION) else place
    if not holds_run(folder):
        return None
    last = folder / "checkpoints" / "last"
    step = last.read_text(encoding="utf-8").strip() if last.is_file() else ""
    for weights in (folder / WEIGHTS, folder / "checkpoints" / step / WEIGHTS):
        if weights.is_file():
            return str(weights)
    raise UsageError(f"{folder}: the run in it has left no weights")


def _describe_clips(clips: Path) -> str:
    try:
        return f"{len(read_manifest(clips))} clips, listed in {clips}"
    except UsageError as error:
        return f"cannot be told ({error})"


def _weight_lines(file: Path, weights: Weights) -> dict[str, str]:
    from ost.backbones.extras import describe_extras
    from ost.weights.formats import architecture

    try:
        sizes = str(architecture(weights))
    except WeightsError:
        sizes = "not a CLIP with two transformers"
    count = sum(tensor.numel() for tensor in weights.state.values())
    types = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights.state.values()})
    return {
        "file": str(file),
        "hash": weights.hash,
        "origin": weights.origin,
        "architecture": sizes,
        "added": describe_extras(weights.state) or "nothing",
        "tensors": f"{len(weights.state)}, {count / 1e6:.1f} million numbers, {', '.join(types)}",
        "activation": {True: "QuickGELU", False: "GELU", None: "not told by the file"}[weights.quick_gelu],
        "pixels": str(weights.preprocess) if weights.preprocess else "not told by the file",
        "left out": ", ".join(weights.left_out) or "nothing",
        **{name: str(value)[:200] for name, value in weights.training.items()},
    }


def _adapter_lines(file: Path) -> dict[str, str]:
    load_torch()

    from ost.backbones.adapter import read_adapter

    adapter = read_adapter(file)
    (classes, features), rank = adapter.weight.shape, adapter.up.shape[1]
    return {
        "file": str(file),
        "hash": adapter.hash,
        "origin": f"an adapter over {adapter.backbone}, trained by OST",
        "backbone": f"weights {adapter.backbone_hash}",
        "frames": str(adapter.frames),
        "classes": f"{classes}: {first_names(adapter.names)}",
        "sizes": f"{features} features, a residual of rank {rank}",
        "temperature": f"{adapter.temperature:g}",
    }


@command(
    weights_app,
    examples=(
        "ost weights convert model.pth -o model.safetensors",
        "ost weights convert ost/k400 -o k400.safetensors",
    ),
)
def convert(source: WeightSource, output: Output) -> None:
    """Write a weight file as safetensors: no pickle, no optimiser, its pixels in the metadata."""
    file, weights = _read(source)

    from ost.weights.formats import save_weights

    save_weights(weights, output)
    before, after = file.stat().st_size, output.stat().st_size
    stdout().print(Text(f"{output}: {after / 1e6:.1f} MB, from {before / 1e6:.1f} MB"))


@command(
    weights_app,
    examples=(
        "ost weights blend ViT-B-16/openai ost/k400 -o blended.safetensors",
        "ost weights blend original.pt tuned.pt -o blended.safetensors --ratio 0.5",
    ),
)
def blend(
    original: Annotated[
        str, typer.Argument(metavar="ORIGINAL", help="The weights that were fine-tuned: file or name.")
    ],
    tuned: Annotated[str, typer.Argument(metavar="TUNED", help="The fine-tuned weights: file or name.")],
    output: Output,
    ratio: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the original.", rich_help_panel="Model")
    ] = 0.2,
) -> None:
    """Blend two weight files of one architecture (WiSE-FT): ratio * original + (1 - ratio) * tuned."""
    for source in (original, tuned):
        check_weights(source)
    both = _read(original)[1], _read(tuned)[1]

    from ost.weights.blend import blend as blend_weights
    from ost.weights.formats import save_weights

    save_weights(blend_weights(*both, ratio), output)
    stdout().print(Text(f"{output}: {ratio:g} x {original} + {1 - ratio:g} x {tuned}"))


def _read(source: str) -> tuple[Path, Weights]:
    """Read a weight file by path or name, completed by what its name implies."""
    check_weights(source)
    load_torch()

    from ost.backbones.resolve import named_weights

    try:
        return named_weights(source, lambda line: show_notices(stderr(), [line]))
    except WeightsError as error:  # these commands take a file in place of a name, so the remedy differs
        raise WeightsError(error.fault, "give a file that was downloaded by other means instead") from error
