"""The help of every command: one page each, with examples that the command takes."""

import re
import shlex
from collections import Counter

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from ost.cli import app

PANELS = {"Arguments", "Input", "Model", "Sampling", "Matching", "Output", "Other", "Commands"}


def commands(command=None, path=()):
    """Words after `ost` -> the command or group that they name."""
    command = command or get_command(app)
    found = {path: command}
    for name, subcommand in getattr(command, "commands", {}).items():
        found |= commands(subcommand, (*path, name))
    return found


COMMANDS = commands()
LEAVES = {path: command for path, command in COMMANDS.items() if not hasattr(command, "commands")}


def help_page(path):
    return CliRunner().invoke(app, [*path, "--help"], prog_name="ost", env={"COLUMNS": "100"})


def example_lines(command):
    title, *lines = command.epilog.splitlines()
    assert title == "Examples:"
    return lines


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_is_one_page_of_100_columns_that_names_every_option_once(path):
    shown = help_page(path)
    assert shown.exit_code == 0
    assert max(map(len, shown.output.splitlines())) <= 100
    rows = [line for line in shown.output.splitlines() if re.match(r"│[ *]*--", line)]
    named = Counter(name for row in rows for name in re.match(r"│[ *]*(--[\w-]+)", row).groups())
    assert set(named.values()) == {1}
    declared = Counter(name for p in COMMANDS[path].params for name in (*p.opts, *p.secondary_opts))
    assert set(declared.values()) <= {1}
    assert set(named) - {"--help"} == {n for p in COMMANDS[path].params for n in p.opts if n[:2] == "--"}


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_is_divided_into_the_same_panels_everywhere(path):
    panels = re.findall(r"^╭─ (\w+) ─", help_page(path).output, re.MULTILINE)
    assert set(panels) <= PANELS and len(panels) == len(set(panels))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_ends_with_two_examples_line_by_line(path):
    lines = example_lines(COMMANDS[path])
    assert len(lines) == 2
    assert help_page(path).output.rstrip().splitlines()[-2:] == lines


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_an_example_is_one_that_the_command_takes(path):
    for line in example_lines(COMMANDS[path]):
        words = shlex.split(line.partition(" | ")[0])
        while words[0] != "ost":  # torchrun ... -m ost, or a variable of the environment
            words.pop(0)
        command, taken, arguments = COMMANDS[()], [], words[1:]
        while hasattr(command, "commands") and arguments:
            name = arguments[0] if arguments[0] in command.commands else "run"
            arguments = arguments[1:] if arguments[0] == name else arguments
            command, taken = command.commands[name], [*taken, name]
        if not hasattr(command, "commands"):
            command.make_context(taken[-1], arguments)  # raises for an option that it does not have
        assert taken[: len(path)] == list(path)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_no_command_function_has_more_than_seven_parameters(path):
    from inspect import unwrap

    code = unwrap(LEAVES[path].callback).__code__
    assert code.co_argcount + code.co_kwonlyargcount <= 7
