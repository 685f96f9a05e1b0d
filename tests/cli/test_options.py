"""Option groups, former spellings, and the completion of the shell."""

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pytest
import typer
from typer.testing import CliRunner

from ost.cli import parser
from ost.cli.command import command
from ost.cli.options import KindChoice, MatchOptions, SamplingOptions
from ost.errors import UsageError


@dataclass(frozen=True)
class Ingredients:
    """An option group."""

    PANEL: ClassVar = "Bowl"
    flour: Annotated[int, typer.Option(help="Grams.")]
    eggs: Annotated[int, typer.Option("--eggs", "-e")] = 2
    kinds: Annotated[list[str] | None, typer.Option("--kinds")] = None


def bake(*arguments, fault=None):
    """Run a command with an option group; gives the result and what the function got."""
    app, got = typer.Typer(cls=parser.Root), []
    app.callback()(lambda: None)

    @command(app, examples=("ost cook cake --flour 300",), eggs="whites")
    def cook(name: str, bowl: Ingredients, minutes: Annotated[int, typer.Option()] = 40) -> None:
        """Bake it."""
        got.append((name, bowl, minutes))
        if fault:
            raise fault

    return CliRunner().invoke(app, list(map(str, ("cook", *arguments))), prog_name="ost"), got


def test_the_fields_of_a_group_are_options_and_the_function_gets_the_group():
    result, got = bake("cake", "--flour", 300, "-e", 3, "--minutes", 20)
    assert result.exit_code == 0, result.output
    assert got == [("cake", Ingredients(300, 3), 20)]
    assert bake("cake", "--flour", 300)[1] == [("cake", Ingredients(300), 40)]


def test_a_field_without_a_default_is_a_required_option():
    result, got = bake("cake")
    assert (result.exit_code, got) == (2, [])
    assert result.stderr == "ost: missing option '--flour' (see ost cook --help)\n"


def test_a_group_has_a_panel_of_the_help():
    output = bake("--help")[0].output
    assert output.index("Bowl") < output.index("--flour") < output.index("--kinds") < output.index("Other")


def test_an_error_names_the_option_of_a_group_that_sets_the_value():
    fault = UsageError("too flat", "use {whites=4}", "try {flour}", "leave {salt} out")
    result, _ = bake("cake", "--flour", 300, fault=fault)
    assert (result.exit_code, result.stderr) == (2, "ost: too flat; use --eggs 4, or try --flour\n")


@pytest.mark.parametrize(
    "given",
    [["--descriptors", "both"], ["--descriptors=both"], ["--descriptors", "a", "--descriptors=both"]],
    ids=len,
)
def test_a_former_spelling_works_with_one_notice_and_is_not_in_the_help(given):
    result, got = bake("cake", "--flour", 300, *given)
    assert got[0][1].kinds[-1] == "both"
    assert result.stderr == "note: --descriptors is called --kinds now; the next release refuses it\n"
    assert "--descriptors" not in bake("--help")[0].output


def test_a_former_spelling_is_left_alone_behind_two_dashes():
    result, got = bake("--flour", 300, "--", "--descriptors")
    assert got[0][0] == "--descriptors" and result.stderr == ""


def test_groups_return_the_settings_of_the_library():
    from ost.recognition.settings import Settings

    sampling = SamplingOptions(frames=8, views="2x3").fields
    settings = Settings().but(**sampling, **MatchOptions(kinds=KindChoice.spatial).fields)
    assert settings == Settings(8, 2, 3, kinds=("spatial",))
    with pytest.raises(UsageError, match="eps must be positive"):
        Settings().but(**MatchOptions(eps=0).fields)


def test_the_defaults_of_the_options_are_those_of_the_library():
    from ost.recognition.settings import Settings

    assert Settings().but(**SamplingOptions().fields, **MatchOptions().fields) == Settings()


def completed(line, tmp_path):
    """What the shell offers for the last word, and the large libraries that this has imported."""
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*{'torch', 'numpy', 'av'} & set(sys.modules), file=sys.stderr))\n"
        "from ost.cli import main\nmain()"
    )
    words = line.split(" ")
    completing = {
        "_OST_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "HOME": str(tmp_path),
        "OST_CACHE": str(tmp_path / "cache"),
    }
    ran = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | completing, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split(), ran.stderr.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ost rec", ["recognize"]),
        ("ost evaluate ", ["run", "list", "again", "diff"]),
        ("ost evaluate zero-shot/hmdb51 --ab", ["--ablate"]),
        ("ost recognize a.mp4 --kinds sp", ["spatial"]),
        ("ost recognize a.mp4 --desc", []),
    ],
)
def test_the_shell_completes_commands_and_options_at_no_cost_and_without_a_trace(line, offered, tmp_path):
    assert completed(line, tmp_path) == (offered, [])
    assert list(tmp_path.iterdir()) == []
