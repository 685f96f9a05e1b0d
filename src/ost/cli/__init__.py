"""The command `ost`: parse, call, show."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import ost
from ost.cli.demo import demo
from ost.cli.describe import describe
from ost.cli.evaluate import evaluate
from ost.cli.packs import packs_app
from ost.cli.recognize import recognize
from ost.cli.train import train
from ost.cli.weights import weights_app
from ost.errors import OstError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo)
app.command()(recognize)
app.command()(train)
app.command()(evaluate)
app.command()(describe)
app.add_typer(packs_app, name="packs")
app.add_typer(weights_app, name="weights")


def _version(wanted: bool) -> None:
    if wanted:
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
    """Entry point: errors raised on purpose become one line and exit code 2."""
    try:
        app()
    except OstError as error:
        typer.echo(f"ost: {error}", err=True)
        sys.exit(2)
    except BrokenPipeError:  # the reader has seen enough
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:  # a result that cannot be written where it was asked for
        typer.echo(f"ost: {error.filename or 'a file'}: {error.strerror or error}", err=True)
        sys.exit(2)
