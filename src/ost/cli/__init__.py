"""The command `ost`: parse the arguments, call the library, show the result."""

from __future__ import annotations

from typing import Annotated

import typer

import ost
from ost.cli.cache import cache_app
from ost.cli.command import command
from ost.cli.demo import demo
from ost.cli.describe import describe
from ost.cli.evaluate import evaluate
from ost.cli.packs import packs_app
from ost.cli.recognize import recognize
from ost.cli.train import train
from ost.cli.weights import weights_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
command(app)(demo)
command(app)(recognize)
command(app, init_from="weights")(train)
command(app)(evaluate)
command(app)(describe)
app.add_typer(packs_app, name="packs")
app.add_typer(weights_app, name="weights")
app.add_typer(cache_app, name="cache")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"ost {ost.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Which action a video shows, and why: video recognition by language."""


def main() -> None:
    """Run the command; see `ost.cli.command` for its errors and exit codes."""
    app()
