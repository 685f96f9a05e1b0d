"""The command `ost`: parse the arguments, call the library, show the result."""

from __future__ import annotations

from typing import Annotated

import typer

import ost
from ost.cli.cache import cache_app
from ost.cli.command import command
from ost.cli.demo import demo
from ost.cli.describe import describe
from ost.cli.evaluate import evaluate_app
from ost.cli.packs import packs_app
from ost.cli.parser import Root, example_lines
from ost.cli.recognize import recognize
from ost.cli.terminal import escape_unencodable, write_line
from ost.cli.train import train_app
from ost.cli.weights import weights_app

app = typer.Typer(
    cls=Root,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=example_lines("ost demo", 'ost recognize clip.mp4 --classes "riding a bike, walking the dog"'),
)
command(app, examples=("ost demo", "ost demo --output why.html --classes ucf101"))(demo)
command(
    app,
    examples=(
        'ost recognize clip.mp4 --classes "riding a bike, walking the dog" --report pages',
        "ost recognize videos/ --classes k400 --weights ost/k400 --blend 0.2 --json",
    ),
)(recognize)
app.add_typer(train_app, name="train")
app.add_typer(evaluate_app, name="evaluate")
command(
    app,
    examples=(
        'ost describe "icing a cake" -o cake.json --base-url http://localhost:11434/v1 --model qwen3',
        "ost describe classes.txt --dry-run --price 0.15,0.6",
    ),
)(describe)
app.add_typer(packs_app, name="packs")
app.add_typer(weights_app, name="weights")
app.add_typer(cache_app, name="cache")


def _version(value: bool) -> None:
    if value:
        write_line(f"ost {ost.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Which action a video shows, and why: video recognition by language."""


def main() -> None:
    """Run the command; see `ost.cli.command` for its errors and exit codes."""
    escape_unencodable()
    app(prog_name="ost")
