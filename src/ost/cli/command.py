"""The frame of every command: option groups, one-sentence errors that name its options, exit codes, `--debug`."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from importlib import import_module
from inspect import Parameter
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import typer
from typer.models import OptionInfo

from ost.activity import activity
from ost.cache import size_limit
from ost.cli.parser import NO_ROOM, WRONG_USE, Command, end, example_lines
from ost.cli.terminal import DEBUGGING, OutputClosed, status_line, undisturbed
from ost.errors import OstError, internal_error

INTERNAL = 3
REPORT = "see 'Reporting a bug' in CONTRIBUTING.md"
Function = TypeVar("Function", bound=Callable[..., None])
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def command(
    app: typer.Typer, name: str | None = None, *, examples: Iterable[str], **spellings: str
) -> Callable[[Function], Function]:
    """Register a function as a command.

    A parameter that is annotated with a dataclass is an option group: its fields become options in the help panel
    `PANEL` of the class, and the function gets the dataclass.

    Args:
        app: the app to add it to.
        name: the name of the command; by default that of the function.
        examples: command lines that end its help page.
        spellings: parameter of the function -> name of the argument in errors, where the two differ.
    """

    def register(function: Function) -> Function:
        signature = inspect.signature(function, eval_str=True)
        groups: dict[str, Any] = {
            parameter.name: parameter.annotation
            for parameter in signature.parameters.values()
            if _is_group(parameter.annotation)
        }
        parameters = _expanded(signature)
        options = _options(parameters, spellings)

        @wraps(function)
        def run(*, debug: bool, **arguments: Any) -> None:
            with guarded(options, debug):
                for parameter, group in groups.items():
                    arguments[parameter] = group(
                        **{field.name: arguments.pop(field.name) for field in fields(group)}
                    )
                function(**arguments)

        parameters.append(Parameter("debug", Parameter.KEYWORD_ONLY, default=False, annotation=Debug))
        run.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue]
        run.__annotations__ = {item.name: item.annotation for item in parameters}
        app.command(name, cls=Command, epilog=example_lines(*examples))(run)
        return function

    return register


def _expanded(signature: inspect.Signature) -> list[Parameter]:
    """Return the parameters of a function, with the fields of a group in its place."""
    parameters: list[Parameter] = []
    for parameter in signature.parameters.values():
        group = parameter.annotation
        if not _is_group(group):
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))
            continue
        annotations = get_type_hints(group, include_extras=True)
        for field in fields(group):
            annotation = annotations[field.name]
            if (option := _option(annotation)) is not None:
                option.rich_help_panel = group.PANEL
            default = Parameter.empty if field.default is MISSING else field.default
            parameters.append(
                Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            )
    return parameters


def _is_group(annotation: Any) -> bool:
    return is_dataclass(annotation)


def _option(annotation: Any) -> OptionInfo | None:
    """Return the option that an annotation declares; None for an argument."""
    return next((item for item in get_args(annotation) if isinstance(item, OptionInfo)), None)


def _options(parameters: Iterable[Parameter], spellings: Mapping[str, str]) -> dict[str, str]:
    """Map the names of arguments in errors to the options of a command that set them."""
    options: dict[str, str] = {}
    for parameter in parameters:
        if (option := _option(parameter.annotation)) is not None:
            declared = [item for item in option.param_decls or () if item.startswith("--")]
            name = spellings.get(parameter.name, parameter.name)
            options[name] = (declared or [f"--{parameter.name.replace('_', '-')}"])[0]
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
    except (typer.Exit, typer.Abort, OutputClosed):
        raise
    except OstError as error:
        raise _ended(error.spelled(speller), error.exit_code, debug) from None
    except OSError as error:
        if error.filename is None and error.errno not in NO_ROOM:
            raise _ended(_internal(error, debug), INTERNAL, debug) from None
        # The result could not be written to the requested path.
        place = error.filename or "the output"
        raise _ended(f"{place}: {error.strerror or error}", WRONG_USE, debug) from None
    except Exception as error:
        raise _ended(_internal(error, debug), INTERNAL, debug) from None


def _ended(sentence: str, code: int, debug: bool) -> typer.Exit:
    if debug:
        with undisturbed():
            traceback.print_exc()
    return end(sentence, code)


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
