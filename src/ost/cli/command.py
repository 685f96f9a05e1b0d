"""The frame of every command: one-sentence errors that name its options, exit codes, `--debug`, the status line."""

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
        app: the app to add it to.
        name: the name of the command; by default that of the function.
        spellings: parameter of the function -> name of the argument in errors, where the two differ.
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
        run.__annotations__ = {item.name: item.annotation for item in parameters}
        app.command(name)(run)
        return function

    return register


def _options(signature: inspect.Signature, spellings: Mapping[str, str]) -> dict[str, str]:
    """Map the names of arguments in errors to the options of a command that set them."""
    options: dict[str, str] = {}
    for name, parameter in signature.parameters.items():
        info = next((item for item in get_args(parameter.annotation) if isinstance(item, OptionInfo)), None)
        if info is not None:
            declared = [item for item in info.param_decls or () if item.startswith("--")]
            options[spellings.get(name, name)] = (declared or [f"--{name.replace('_', '-')}"])[0]
    return options


@contextmanager
def guarded(options: Mapping[str, str], debug: bool = False) -> Generator[None]:
    """Run a command, and turn its errors into one sentence and an exit code.

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
    except OutputClosed:  # only stdout: a broken pipe to a worker or a server is an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None
    except OstError as error:
        _end(error.spelled(speller), error.exit_code, debug)
    except OSError as error:
        if error.filename is None and error.errno not in NO_ROOM:
            _end(_internal(error, debug), INTERNAL, debug)
        # The result could not be written to the requested path.
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
    """Describe an unexpected error in one sentence: what it is, in which file, and how to report it."""
    advice = (
        "report it with this traceback" if debug else "run it again with --debug and report the traceback"
    )
    return f"{internal_error(error)}; {advice}, {REPORT}"


def load_torch() -> None:
    """Import torch, which takes seconds: call it after every check that does not need torch."""
    size_limit()  # raises for an invalid limit
    with activity("loading torch"):
        import_module("torch")
