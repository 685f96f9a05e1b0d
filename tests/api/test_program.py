"""The public API as a program uses it: types, a run, and the page that documents it."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ost

PROGRAM = Path(__file__).with_name("program.py")
ROOT = Path(__file__).parents[2]


def test_a_program_of_thirty_lines_does_it_all(url, bikes):
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:ost", PROGRAM, bikes, f"{url}/clip.mp4"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert first.startswith("memory gymnastics on the balance beam ")
    assert set(re.findall(r"'([^']+)'", first)) == {"riding a bike", "BalanceBeam", "brush_hair"}
    assert second == "riding a bike"
    assert third == "10 1000 990 True"


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_its_types_are_right(checker, tmp_path):
    arguments = {
        "mypy": [
            "-m",
            "mypy",
            "--cache-dir",
            tmp_path,
            "--strict",
            "--allow-untyped-calls",
            "--follow-imports=silent",
            "--no-error-summary",
        ],
        "pyright": ["-m", "pyright", "--pythonpath", sys.executable],
    }[checker]
    done = subprocess.run(
        [sys.executable, *arguments, PROGRAM], cwd=ROOT / "tests", capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout


def make_api():
    spec = importlib.util.spec_from_file_location("make_api", ROOT / "docs/make_api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_that_of_the_docstrings():
    module = make_api()
    page = module.PAGE.read_text(encoding="utf-8")
    assert module.updated(page) == page, "run: python docs/make_api.py"
    listed = {name for names in module.GROUPS.values() for name in names}
    assert listed == set(ost.__all__)


@pytest.mark.parametrize(("page", "end"), [("docs/api.md", "## Inputs"), ("README.md", "## How it works")])
def test_the_examples_in_the_documents_run(page, end, tmp_path, bikes, monkeypatch):
    shutil.copy(bikes, tmp_path / "clip.mp4")
    monkeypatch.chdir(tmp_path)
    examples = re.findall(
        r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8").partition(end)[0], re.DOTALL
    )
    namespace = {}
    for example in examples:
        exec(compile(example, page, "exec"), namespace)
    assert (tmp_path / "why.html").exists()
    assert isinstance(namespace["results"][0], ost.Prediction) and "table" in namespace


def test_the_command_takes_an_address(url, ost_command):
    address = f"{url}/clip.mp4"
    code, out, _ = ost_command("recognize", address, "--classes", "a,b", "--backbone", "lite", "--frames", 2)
    assert code == 0 and out.startswith(address)
