"""What goes wrong: one sentence with options that the command has, soon, and an exit code that scripts can trust."""

import json
import subprocess
import sys

import pytest

from ost.backbones.names import _open_clip_tags, architectures, check_model, is_backbone
from ost.cli.command import guarded
from ost.errors import UsageError, VideoError, WeightsError

A = ("--classes", "running,walking")
# Wrong use -> what the sentence says. VIDEO is a real one.
REFUSALS = {
    ("recognize", "nothere.mp4", *A): "nothere.mp4: there is no such file",
    ("recognize", "a.mp4", "b.mp4", "c.mp4", "d.mp4", *A): "a.mp4, b.mp4, c.mp4 and 1 more: there is no such",
    ("recognize", "VIDEO", "--classes", "hmbd51"): "did you mean 'hmdb51'",
    ("recognize", "VIDEO", "--classes", "golf;pour"): "separated by commas, as in 'golf, pour'",
    ("recognize", "VIDEO", "--classes", "nothere.json"): "nothere.json: there is no such file",
    ("recognize", "VIDEO", *A, "--weights", "nothere.pth"): "nothere.pth: there is no such weight file",
    ("recognize", "VIDEO", *A, "--weights", "ost/k40"): "did you mean 'ost/k400'",
    ("recognize", "VIDEO", *A, "--weights", "lite"): "name it with --backbone lite",
    ("recognize", "VIDEO", *A, "--backbone", "light"): "did you mean 'lite'",
    ("recognize", "VIDEO", *A, "--backbone", "ViT-B-16/opnai"): "did you mean 'ViT-B-16/openai'",
    (
        "recognize",
        "VIDEO",
        *A,
        "--backbone",
        "ViT-B-32/laion400m_e3",
    ): "did you mean 'ViT-B-32/laion400m_e32'",
    ("recognize", "VIDEO", *A, "--backbone", "zzz"): "named ARCHITECTURE/TAG",
    ("recognize", "VIDEO", *A, "--backbone", "lite", "--dtype", "bf16"): "leave --dtype out",
    ("recognize", "VIDEO", *A, "--backbone", "lite", "--blend", "0.2"): "leave --blend out",
    ("recognize", "VIDEO", *A, "--dtype", "fp8"): "use one of auto, fp32, bf16, fp16",
    ("recognize", "VIDEO", *A, "--blend", "0.2"): "name them with --weights",
    ("recognize", "VIDEO", *A, "--device", "gpuu"): "there is no device 'gpuu'",
    ("recognize", "VIDEO", *A, "--device", "cpu", "--dtype", "fp16"): "use --dtype fp32, or --dtype bf16",
    (
        "recognize",
        "VIDEO",
        *A,
        "--weights",
        "zzz",
    ): "neither a weight file nor a known name; `ost weights list`",
    ("recognize", "VIDEO", *A, "--weights", "CLIPS"): "is a folder, not a weight file",
    ("recognize", "VIDEO", *A, "--eps", "0"): "eps must be positive",
    ("recognize", "VIDEO", *A, "--views", "1x2"): "views can have 1, 3, 5 or 10 crops",
    ("train", "few-shott"): "did you mean 'few-shot'",
    ("train", "few-shot", "--videos", "nothere"): "nothere: is not a folder",
    ("train", "few-shot", "--videos", "CLIPS", "--init-from", "nothere.pth"): "there is no such weight file",
    ("train", "few-shot", "--videos", "CLIPS", "--backbone", "light"): "did you mean 'lite'",
    ("train", "few-shot", "--videos", "CLIPS", "--backbone", "lite"): "train an adapter over them",
    ("train", "few-shot", "--videos", "CLIPS", "--set", "epochs=no"): "epochs",
    ("evaluate", "zero-shot/hmdb"): "did you mean 'zero-shot/hmdb51'",
    ("evaluate", "zero-shot/hmdb51", "--videos", "nothere"): "nothere",
    ("evaluate", "own", "--videos", "CLIPS", "--weights", "nothere.pth"): "there is no such weight file",
    ("evaluate", "own", "--videos", "CLIPS", "--backbone", "light"): "did you mean 'lite'",
    ("evaluate", "own", "--videos", "CLIPS", "--vanilla"): "name these with --weights",
    ("evaluate", "own", "--videos", "CLIPS", "--eps", "0"): "ost: eps must be positive",
    ("evaluate", "own", "--videos", "CLIPS", "--views", "1x7"): "ost: views can have 1, 3, 5 or 10 crops",
    (
        "evaluate",
        "own",
        "--videos",
        "CLIPS",
        "--backbone",
        "lite",
        "--scores",
        "CLIPS",
    ): "is a folder; --scores",
    ("evaluate", "own", "--videos", "CLIPS", "--backbone", "lite", "-o", "/proc/x/run"): "/proc/x: ",
    ("evaluate", "again", "nothere"): "holds no run that can be read",
    ("evaluate", "diff", "nothere", "nothere"): "holds no run that can be read",
    ("packs", "show", "hmbd51"): "did you mean 'hmdb51'",
    ("packs", "check", "hmdb51", "--backbone", "light"): "did you mean 'lite'",
    ("packs", "check", "hmdb51", "--clips", "nothere.csv"): "nothere.csv: there is no such file",
    ("weights", "inspect", "nothere.pth"): "there is no such weight file",
    ("weights", "inspect", "CLIPS"): "is a folder, not a weight file",
    ("weights", "convert", "nothere.pth", "-o", "x"): "there is no such weight file",
    ("weights", "blend", "VIDEO", "nothere.pth", "-o", "x"): "there is no such weight file",
    ("describe", "a,b", "-o", "x.json"): "set OPENAI_API_KEY, or name another server with --base-url",
    ("describe", "a,b", "-o", "x.json", "--backbone", "light"): "did you mean 'lite'",
    ("demo", "--classes", "everydya"): "did you mean 'everyday'",
}
HEAVY = ("torch", "open_clip", "transformers", "matplotlib", "openai", "sklearn")
PROGRAM = """
import contextlib, io, json, sys
from ost.cli import main
results = []
for arguments in json.load(sys.stdin):
    sys.argv = ["ost", *arguments]
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    results.append([code, err.getvalue(), [name for name in HEAVY if name in sys.modules]])
print(json.dumps(results))
"""


def test_wrong_use_is_refused_in_one_sentence_before_anything_large_is_imported(tmp_path, bikes):
    for name in ("a", "b"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        (tmp_path / "clips" / name / "1.mp4").write_bytes(bikes.read_bytes()[:1000])
    stand_ins = {"VIDEO": str(bikes), "CLIPS": str(tmp_path / "clips")}
    commands = [[stand_ins.get(part, part) for part in command] for command in REFUSALS]
    program = f"HEAVY = {HEAVY}\n{PROGRAM}"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    for (command, message), (code, err, loaded) in zip(REFUSALS.items(), json.loads(ran.stdout), strict=True):
        assert code == 2, (command, err)
        assert err.startswith("ost: ") and err.count("\n") == 1, (command, err)
        assert message in err, (command, err)
        assert not loaded, (command, loaded)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips"], "nothing was begun"


def test_the_list_of_tags_is_open_clips_own():
    from importlib.metadata import version

    import open_clip

    listed, tags = _open_clip_tags()
    assert listed == version("open_clip_torch"), "a newer open_clip: make the list again"
    assert [(name, tag) for name in tags for tag in tags[name]] == open_clip.list_pretrained()
    assert set(architectures()) == set(open_clip.list_models())


def test_a_newer_open_clip_is_asked_itself(monkeypatch):
    monkeypatch.setattr("ost.backbones.names.version", lambda _: "99.0")
    assert is_backbone("ViT-B-32/a_tag_of_the_future")
    assert not is_backbone("ViT-B-99/openai")
    with pytest.raises(UsageError, match="there are no weights of 'ViT-B-32/a_tag_of_the_future'"):
        from ost.backbones.load import load_backbone

        load_backbone("ViT-B-32/a_tag_of_the_future")


@pytest.mark.parametrize(
    "name", ["lite", "ViT-B-16/openai", "ViT-B-16", "ViT-B-32/laion2b-s34b-b79k", "RN50/openai"]
)
def test_what_can_be_loaded_is_not_refused(name):
    check_model(name)


def ended(error, options, capfd, debug=False):
    import typer

    with pytest.raises(typer.Exit) as stop, guarded(options, debug):
        raise error
    return stop.value.exit_code, capfd.readouterr().err


def test_a_remedy_names_the_option_of_the_command(capfd):
    error = WeightsError(
        "x: is wanted", "pass it with {backbone=ViT-B-16} {weights=FILE}", "use {backbone=lite}"
    )
    options = {"backbone": "--backbone", "weights": "--init-from"}
    expected = (
        "ost: x: is wanted; pass it with --backbone ViT-B-16 --init-from FILE, or use --backbone lite\n"
    )
    assert ended(error, options, capfd) == (2, expected)
    assert ended(error, {"backbone": "--backbone"}, capfd) == (2, "ost: x: is wanted; use --backbone lite\n")
    assert ended(error, {}, capfd) == (2, "ost: x: is wanted\n")
    assert str(error) == 'x: is wanted; pass it with name="ViT-B-16" weights=FILE, or use name="lite"'


def test_errors_survive_pickling():
    import pickle

    error = UsageError("a is wrong", "use {frames=8}")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (UsageError, "a is wrong; use frames=8")
    assert str(pickle.loads(pickle.dumps(VideoError("{a}.mp4", "is {odd}")))) == "{a}.mp4: is {odd}"


def test_what_nobody_foresaw_is_one_sentence_with_its_place_and_exit_code_3(capfd):
    code, err = ended(TypeError("open() got\nan unexpected keyword"), {}, capfd)
    assert code == 3
    assert err.startswith("ost: internal error, TypeError: open() got an unexpected keyword (")
    assert "--debug" in err and "Reporting a bug" in err and err.count("\n") == 1


def test_an_internal_error_of_one_video_is_its_failure_with_its_place(ost_command, bikes, monkeypatch):
    def broken(*_, **__):
        raise TypeError("open() got an unexpected keyword argument 'metadata_errors'")

    monkeypatch.setattr("ost.video.container._address", broken)
    arguments = ("recognize", bikes, *A, "--backbone", "lite", "--frames", 2, "--no-cache")
    code, out, err = ost_command(*arguments)
    assert (code, out) == (1, "")
    fault = "internal error, TypeError: open() got an unexpected keyword argument 'metadata_errors'"
    assert f"{bikes}: {fault} (video/container.py, line " in err.splitlines()[-1]
    assert "Traceback" not in err
    code, _, err = ost_command(*arguments, "--debug")
    assert code == 1
    assert "Traceback" in err and "in broken" in err


def test_debug_shows_where_an_error_of_ours_came_from(ost_command):
    code, _, err = ost_command("packs", "show", "hmbd51", "--debug")
    assert code == 2
    assert "Traceback" in err and err.splitlines()[-1].startswith("ost: 'hmbd51' is neither")


def test_a_reader_that_has_seen_enough_is_no_error():
    command = [sys.executable, "-c", "from ost.cli import main; main()", "packs", "show", "k400"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(10)
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(timeout=60) == 0, err
    assert err == b""


def test_errors_of_the_system_are_wrong_use_where_they_name_a_file_and_internal_where_they_do_not(capfd):
    assert ended(OSError(13, "Permission denied", "x.html"), {}, capfd) == (
        2,
        "ost: x.html: Permission denied\n",
    )
    assert ended(OSError(28, "No space left"), {}, capfd) == (2, "ost: the output: No space left\n")
    assert ended(OSError(24, "Too many open files"), {}, capfd)[0] == 3
    assert ended(BrokenPipeError(32, "Broken pipe"), {}, capfd)[0] == 3, (
        "of a worker or a server, not the output"
    )
