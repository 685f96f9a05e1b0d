"""What all commands share: errors as one sentence with their own options, exit codes, `--debug`, the status line."""

from __future__ import annotations

import errno
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from typing import Annotated, Any, TypeVar, get_args

import typer
from typer.models import OptionInfo

from ost.activity import activity
from ost.cache import size_limit
from ost.cli.terminal import DEBUGGING, OutputClosed, status_line, undisturbed
from ost.errors import OstError, internal_error

WRONG_USE, INTERNAL = 2, 3
NO_ROOM = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)
REPORT = "see 'Reporting a bug' in CONTRIBUTING.md"
Function = TypeVar("Function", bound=Callable[..., None])
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def command(app: typer.Typer, name: str | None = None, **spellings: str) -> Callable[[Function], Function]:
    """Register a function as a command.

    Args:
        app: to which it is added.
        name: of the command; the function's by default.
        spellings: parameter of the function -> name under which errors know the argument, where it is another one.
    """

    def register(function: Function) -> Function:
        signature = inspect.signature(function, eval_str=True)
        options = _options(signature, spellings)

        @wraps(function)
        def run(*, debug: bool, **arguments: Any) -> None:
            with guarded(options, debug):
                function(**arguments)

        parameter = inspect.Parameter(
            "debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug
        )
        parameters = [*signature.parameters.values(), parameter]
        run.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        app.command(name)(run)
        return function

    return register


def _options(signature: inspect.Signature, spellings: Mapping[str, str]) -> dict[str, str]:
    """Argument as errors know it -> the option of a command that sets it."""
    options: dict[str, str] = {}
    for name, parameter in signature.parameters.items():
        info = next((one for one in get_args(parameter.annotation) if isinstance(one, OptionInfo)), None)
        if info is not None:
            written = [one for one in info.param_decls or () if one.startswith("--")]
            options[spellings.get(name, name)] = (written or [f"--{name.replace('_', '-')}"])[0]
    return options


@contextmanager
def guarded(options: Mapping[str, str], debug: bool = False) -> Generator[None]:
    """Run a command: what goes wrong becomes one sentence and an exit code.

    Args:
        options: see `_options`.
        debug: show tracebacks.
    """

    def speller(argument: str, value: str | None) -> str | None:
        option = options.get(argument)
        return option if option is None or value in (None, "True") else f"{option} {value}"

    DEBUGGING.set(debug)
    try:
        with status_line():
            yield
    except (typer.Exit, typer.Abort):
        raise
    except OutputClosed:  # and no other pipe: one to a worker or a server that breaks is an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None
    except OstError as error:
        _end(error.spelled(speller), error.exit_code, debug)
    except OSError as error:
        if error.filename is None and error.errno not in NO_ROOM:
            _end(_internal(error, debug), INTERNAL, debug)
        # A result that cannot be written where it was asked for.
        _end(f"{error.filename or 'the output'}: {error.strerror or error}", WRONG_USE, debug)
    except Exception as error:
        _end(_internal(error, debug), INTERNAL, debug)


def _end(sentence: str, code: int, debug: bool) -> None:
    with undisturbed():
        if debug:
            traceback.print_exc()
        typer.echo(f"ost: {sentence}", err=True)
    raise typer.Exit(code) from None


def _internal(error: Exception, debug: bool) -> str:
    """One sentence on an error that nobody foresaw: what, in which file, and what to do."""
    how = "report it with this traceback" if debug else "run it again with --debug and report the traceback"
    return f"{internal_error(error)}; {how}, {REPORT}"


def load_torch() -> None:
    """Import torch, which takes seconds: from here on a command is slow, so what can be refused was refused before."""
    size_limit()  # refuses what it cannot mean
    with activity("loading torch"):
        import_module("torch")
