"""What a command writes where somebody looks: a line for what takes long, never in the way of a result."""

import json
import os
import pty
import re
import subprocess
import sys
import threading
import time

import pytest

from ost.activity import activity, counted, running
from ost.cli import terminal
from ost.cli.terminal import StatusLine

ERASED = "\x1b[2K"


def in_terminal(code, *, stdout=None):
    """Run Python whose stderr, and stdout unless it is given, are a terminal; gives status and what that showed."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=theirs,
        stdout=stdout or theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    shown = []

    def read():
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # the other side is closed
                return
            if not part:
                return
            shown.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    status = process.wait(timeout=120)
    reader.join(timeout=10)
    os.close(ours)
    return status, b"".join(shown).decode()


SLOW = """
import time
from ost.activity import activity, counted
from ost.cli.terminal import status_line, stderr, stdout, write_line
with status_line():
    {}
"""


def test_what_is_quick_shows_no_line():
    _, shown = in_terminal(SLOW.format("with activity('being quick'): time.sleep(.05)"))
    assert "being quick" not in shown


def test_what_takes_longer_than_half_a_second_is_shown_and_then_taken_away():
    _, shown = in_terminal(SLOW.format("with activity('being slow'): time.sleep(1.2)"))
    assert "being slow" in shown
    assert ERASED in shown.rpartition("being slow")[2], "the line is erased at the end"


def test_counted_steps_are_a_bar_with_numbers_and_the_time_left():
    code = "for _ in counted(range(4000), 'counting', 4000): time.sleep(.0004)"
    _, shown = in_terminal(SLOW.format(code))
    assert re.search(r"counting .*[\d,]+/4,000 .*0:00:0\d left", shown)


def test_the_innermost_activity_stands_under_the_bar():
    code = "\n    ".join(
        (
            "for _ in counted(range(2), 'recognising', 2):",
            "    with activity('embedding texts'): time.sleep(.8)",
        )
    )
    _, shown = in_terminal(SLOW.format(code))
    assert "recognising" in shown and "embedding texts" in shown


def test_results_reach_a_file_though_a_line_is_shown(tmp_path):
    code = "\n    ".join(
        (
            "with activity('being slow'):",
            "    time.sleep(.9); write_line('{\"a\": 1}'); stdout().print('a result'); stderr().print('a notice')",
            "    time.sleep(.3)",
        )
    )
    with (tmp_path / "out").open("w") as out:
        _, shown = in_terminal(SLOW.format(code), stdout=out)
    assert (tmp_path / "out").read_text() == '{"a": 1}\na result\n'
    assert "a notice" in shown and "a result" not in shown and "being slow" in shown


def test_json_of_a_recognition_goes_to_the_file_and_not_to_the_terminal(tmp_path, bikes):
    arguments = ["ost", "recognize", str(bikes), "--classes", "everyday", "--backbone", "lite", "--json"]
    code = f"import sys; sys.argv = {arguments!r}; from ost.cli import main; main()"
    with (tmp_path / "out").open("w") as out:
        status, shown = in_terminal(code, stdout=out)
    assert status == 0, shown
    assert json.loads((tmp_path / "out").read_text())["classes"][0]["name"] == "riding a bike"
    assert '"classes"' not in shown
    assert "loading torch" in shown


def test_nothing_is_drawn_where_nobody_looks(capfd, monkeypatch):
    monkeypatch.setattr(terminal, "DELAY", 0.0)
    with terminal.status_line(), activity("being slow"):
        time.sleep(0.1)
    assert capfd.readouterr() == ("", "")


def test_a_line_that_never_began_ends_quietly(capfd):
    line = StatusLine()
    line.end()
    time.sleep(0.6)
    assert capfd.readouterr() == ("", "")


def test_activities_are_nested_counted_and_gone_when_they_end():
    with activity("outer", 3) as outer:
        for _ in counted("ab", "inner", 2):
            inner = running()[-1]
        assert (inner.what, inner.done, inner.total) == ("inner", 2, 2)
        outer.advance(2)
        assert [(one.what, one.done) for one in running()] == [("outer", 2)]
    assert running() == []


def test_an_activity_that_fails_is_gone_too():
    with pytest.raises(ZeroDivisionError), activity("failing"):
        _ = 1 / 0
    assert running() == []
