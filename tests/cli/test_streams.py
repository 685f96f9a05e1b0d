"""Output on whatever stdout is: any encoding, any name, and a reader that leaves."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ost.cli import main, terminal

ENCODINGS = [("cp1252", "strict"), ("ascii", "strict"), ("utf-8", "strict"), ("ascii", "surrogateescape")]
NAMES = ["[red]bike[/red]", "日本語", "😀 é", "[/]x", ":smile: y"]


@pytest.fixture(params=ENCODINGS, ids=" ".join)
def written(request, monkeypatch, capfd):
    """Run a command whose stdout has that encoding; gives exit code, bytes of stdout, and stderr."""
    encoding, errors = request.param

    def run(*arguments):
        with monkeypatch.context() as patch:
            output = io.BytesIO()
            patch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding=encoding, errors=errors))
            patch.setattr(sys, "argv", ["ost", *map(str, arguments)])
            with pytest.raises(SystemExit) as stop:
                main()
            sys.stdout.flush()
            return stop.value.code, output.getvalue(), capfd.readouterr().err

    run.decoded = lambda data: data.decode(encoding)
    run.escaped = lambda text: text.encode(encoding, "backslashreplace").decode(encoding)
    return run


@pytest.fixture
def odd_videos(tmp_path, tiny_videos):
    """A folder of videos with odd names, one of them not UTF-8."""
    folder = tmp_path / "[red]videos[" / "]"
    folder.mkdir(parents=True)
    for name in (b"caf\xe9", "é日本😀".encode(), b"[bold]a[", b"[", b":smile:"):
        shutil.copy(tiny_videos[0], folder / os.fsdecode(name + b".mp4"))
    return folder


def recognize(folder, *options):
    classes = ("--classes", ",".join(NAMES))
    return ("recognize", folder, *classes, "--backbone", "lite", "--frames", 2, *options)


def test_json_is_json_with_every_video_and_class_on_any_stdout(written, odd_videos):
    code, out, _ = written(*recognize(odd_videos, "--json"))
    results = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert {result["path"] for result in results} == {str(path) for path in odd_videos.iterdir()}
    assert all({item["name"] for item in result["classes"]} == set(NAMES) for result in results)


def test_names_are_shown_as_they_are_or_escaped_and_never_interpreted(written, odd_videos, tmp_path):
    code, out, err = written(*recognize(odd_videos, "--report", tmp_path / "[b]pages[" / "]"))
    lines = written.decoded(out).splitlines()
    assert code == 0
    for path in odd_videos.iterdir():
        assert written.escaped(str(path)) in lines
        page = tmp_path / "[b]pages[" / "]" / f"{path.stem}.html"
        assert written.escaped(f"page: {page}") in lines
    for name in NAMES:
        assert sum(line.rstrip().endswith(written.escaped(name)) for line in lines) == 5
    assert all(name in err for name in NAMES)


def test_failures_are_listed_by_names_as_they_are(written, odd_videos):
    for path in odd_videos.iterdir():
        path.write_bytes(b"no video")
    code, out, err = written(*recognize(odd_videos, "--json"))
    assert code == 1
    assert {json.loads(line)["path"] for line in out.splitlines()} == set(map(str, odd_videos.iterdir()))
    for path in odd_videos.iterdir():
        name = str(path).encode(errors="replace").decode()  # what pytest makes of it
        assert f"  {name}: it is not a video" in err


def test_a_pack_is_shown_and_checked_with_names_as_they_are(written, tmp_path):
    pack = tmp_path / "[red]pack[" / "[.json"
    pack.parent.mkdir()
    classes = [{"name": name, "spatial": ["[i]a[/i]"], "temporal": ["[/]", "b"]} for name in NAMES]
    pack.write_text(json.dumps({"schema": 1, "name": "[u]", "classes": classes}), encoding="utf-8")
    code, out, _ = written("packs", "show", pack)
    shown = written.decoded(out)
    assert code == 0
    assert all(written.escaped(name) in shown.splitlines() for name in NAMES)
    assert shown.count("spatial 1  [i]a[/i]") == shown.count("temporal 1  [/]") == len(NAMES)
    code, out, _ = written("packs", "check", pack)
    assert code == 1 and "[u], most confusable" in written.decoded(out)


@pytest.mark.parametrize("arguments", [["--help"], ["recognize", "--help"], ["packs", "list"], ["--version"]])
def test_pages_and_lists_fit_any_stdout(written, arguments):
    code, out, err = written(*arguments)
    assert (code, err) == (0, "") and written.decoded(out)


def test_an_evaluation_of_odd_names_is_shown_and_saved(written, odd_videos, tmp_path, tiny):
    clips, run = tmp_path / "clips", tmp_path / "[red]run[" / "]"
    for name in ("[red]a", "日本語"):
        shutil.copytree(odd_videos, clips / name)
    given = ("--videos", clips, "--weights", tiny, "--frames", 2, "--dtype", "fp32", "-o", run)
    code, out, err = written("evaluate", "own", *given)
    assert code == 0, err
    assert f"saved: {run}, page: {run / 'index.html'}" in written.decoded(out)
    code, out, err = written("evaluate", "diff", run, run)
    assert code == 0 and written.decoded(out).startswith(f"A: {run}\nB: {run}\n")


def test_notices_and_consoles_interpret_nothing(capfd):
    for console, stream in ((terminal.stdout(), "out"), (terminal.stderr(), "err")):
        console.print("[red]a[/red] [/] :smile:")
        terminal.show_notices(console, ["[b]x[/b] [/] :smile:"])
        shown = getattr(capfd.readouterr(), stream)
        assert shown == "[red]a[/red] [/] :smile:\nnote: [b]x[/b] [/] :smile:\n"


LEAVING = [
    [],
    ["--help"],
    ["--version"],
    ["recognize", "--help"],
    ["evaluate", "own", "--help"],
    ["packs", "list"],
    ["weights", "list"],
    ["train", "list"],
    ["evaluate", "list"],
    ["packs", "show", "everyday"],
    ["--show-completion"],
]


@pytest.mark.parametrize("arguments", LEAVING, ids=" ".join)
def test_a_reader_that_has_left_is_no_error(arguments):
    ours, theirs = os.pipe()
    os.close(ours)
    ran = subprocess.run(
        [sys.executable, "-m", "ost", *arguments], stdout=theirs, stderr=subprocess.PIPE, env=os.environ
    )
    os.close(theirs)
    assert (ran.returncode, ran.stderr) == (0, b"")


@pytest.mark.parametrize("arguments", [["--help"], ["packs", "list"], ["demo", "--help"]], ids=" ".join)
def test_a_full_disk_is_one_sentence(arguments):
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run([sys.executable, "-m", "ost", *arguments], stdout=full, stderr=subprocess.PIPE)
    assert (ran.returncode, ran.stderr) == (2, b"ost: the output: No space left on device\n")


def test_an_error_keeps_its_exit_code_where_nobody_reads_it():
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "ost", "packs", "show", "hmbd51"]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    assert (ran.returncode, ran.stdout) == (2, b"")


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
    ids=str,
)
def test_a_name_in_another_script_is_shown_in_any_environment(environment, tmp_path):
    pack = {"schema": 1, "name": "x", "classes": [{"name": "日本語", "spatial": ["a"], "temporal": ["b"]}]}
    (tmp_path / "é.json").write_text(json.dumps(pack))
    command = [sys.executable, "-m", "ost", "packs", "show", tmp_path / "é.json"]
    ran = subprocess.run(command, capture_output=True, env=os.environ | environment)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[0] in ("日本語".encode(), rb"\u65e5\u672c\u8a9e")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["frob"], "no such command 'frob' (see ost --help)"),
        (["demo", "--outptu", "x"], "no such option"),
        (["recognize", "a.mp4"], "missing option '--classes' (see ost recognize --help)"),
        (["cache", "prune", "--kind", "x"], "invalid value for '--kind': "),
        (["packs", "show"], "missing argument 'SPEC' (see ost packs show --help)"),
    ],
)
def test_what_click_finds_wrong_is_one_sentence_and_exit_code_2(arguments, sentence, capfd, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ost", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capfd.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert err.startswith(f"ost: {sentence}") and err.endswith("--help)\n") and err.count("\n") == 1
