"""Parsing and help: short forms of subcommands, former spellings, examples, and click's errors in one sentence."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, TextIO

import typer
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from ost.cli.terminal import OutputClosed, show_notices, stderr, stdout, undisturbed

WRONG_USE = 2
NO_ROOM = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)
FORMER = {"--descriptors": "--kinds"}  # a spelling that goes with the next release -> the option
# Click's own exception for wrong use; newer versions of typer carry click inside, under another name.
ClickError: Any = typer.BadParameter.__base__


def example_lines(*lines: str) -> str:
    """Return the end of a help page: command lines to copy."""
    return "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def end(sentence: str, code: int) -> typer.Exit:
    """Write the sentence that a command ends with, and return its end."""
    with undisturbed():
        try:
            sys.stderr.write(f"ost: {sentence}\n")
            sys.stderr.flush()
        except BrokenPipeError:
            _discard(sys.stderr)
    return typer.Exit(code)


class Command(TyperCommand):
    """A command that takes former spellings of its options, and shows its examples line by line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, with former spellings replaced by those of today."""
        options = {name for parameter in self.params for name in parameter.opts}
        end_of_options = args.index("--") if "--" in args else len(args)
        respelled, notices = list(args), list[str]()
        for position, argument in enumerate(args[:end_of_options]):
            former, equals, value = argument.partition("=")
            option = FORMER.get(former)
            if option in options:
                respelled[position] = f"{option}{equals}{value}"
                notices.append(f"{former} is called {option} now; the next release refuses it")
        if not ctx.resilient_parsing:
            show_notices(stderr(), notices)
        return super().parse_args(ctx, respelled)

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters; options of every command, such as `--help`, stand in the last panel."""
        return _in_panels(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help page."""
        _without_epilog(self, super().format_help, ctx, formatter)


class CommandGroup(TyperGroup):
    """A command with subcommands, and examples shown line by line."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters; options of every command, such as `--help`, stand in the last panel."""
        return _in_panels(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help page."""
        _without_epilog(self, super().format_help, ctx, formatter)


class RunGroup(CommandGroup):
    """A group whose subcommand `run` may be left out: `ost train few-shot` is `ost train run few-shot`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; a first word that is no subcommand, or an option, is an argument of `run`."""
        if ctx.resilient_parsing and not args:  # the shell completes the subcommands
            return super().parse_args(ctx, args)
        first = args[0] if args else ""
        if first in self.commands or first in ctx.help_option_names:
            return super().parse_args(ctx, args)
        if near := get_close_matches(first, self.commands, n=1, cutoff=0.75):
            ctx.fail(f"there is no subcommand {first!r}; did you mean {near[0]!r}?")
        return super().parse_args(ctx, ["run", *args])


class Root(CommandGroup):
    """`ost` itself: what click finds wrong is one sentence, and a reader that leaves is no error."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Parse the options before the subcommand."""
        with _ended_in_order():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Parse the arguments of the subcommand, and run it."""
        with _ended_in_order():
            return super().invoke(ctx)


@contextmanager
def _ended_in_order() -> Generator[None]:
    try:
        yield
    except ClickError as error:
        fault = " ".join(error.format_message().split()).rstrip(".")
        # There is none where the help has been printed, because there were no arguments.
        raise (end(_sentence(fault, error), WRONG_USE) if fault else typer.Exit(WRONG_USE)) from None
    except (OutputClosed, BrokenPipeError):
        _discard(sys.stdout)
        raise typer.Exit from None
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise end(f"the output: {error.strerror}", WRONG_USE) from None
    except SystemExit as stop:
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
        _discard(sys.stdout)  # this is how rich ends where the reader of a help page leaves
        raise typer.Exit from None


def _sentence(fault: str, error: Any) -> str:
    place = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
    return f"{fault[:1].lower()}{fault[1:]}{place}"


def _discard(stream: TextIO) -> None:
    """Let what is still written to a stream without a reader vanish, also when Python flushes it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _in_panels(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if parameter.param_type_name == "option" and getattr(parameter, "rich_help_panel", None) is None:
            parameter.rich_help_panel = "Other"
    return parameters


def _without_epilog(command: Any, format_help: Any, ctx: Any, formatter: Any) -> None:
    """Print the help page with the epilog as it is: typer would join its lines and interpret square brackets."""
    epilog, command.epilog = command.epilog, None
    try:
        format_help(ctx, formatter)
    finally:
        command.epilog = epilog
    if epilog:
        stdout().print(Text(epilog))
