import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from typer.testing import CliRunner

from ost.cli import app
from ost.cli.options import parse_views
from ost.errors import UsageError
from ost.recognition.record import FailureRecord, VideoRecord, json_schema

CLASSES = "riding a bike,brushing teeth,playing piano"


@pytest.fixture
def ost(ost_command):
    return ost_command


def lite(*arguments: object) -> list[object]:
    return ["recognize", *arguments, "--backbone", "lite", "--frames", "2"]


def test_the_demo_recognises_a_real_clip_and_writes_one_page(ost, tmp_path):
    page = tmp_path / "why.html"
    code, out, _ = ost("demo", "-o", page)
    assert code == 0
    rows = [line for line in out.splitlines() if "%" in line]
    assert len(rows) == 5
    assert "riding a bike" in rows[0]
    assert "40 classes" in out
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_json_tells_every_class_sorted_with_times_and_seconds(ost, bikes):
    code, out, _ = ost(*lite(bikes, "--classes", "everyday", "--json", "--all"))
    told = json.loads(out)
    assert code == 0
    assert len(told["times"]) == 2
    assert len(told["classes"]) == 40
    probabilities = [c["probability"] for c in told["classes"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1)
    assert set(told["seconds"]) == {"decoding", "towers", "matching"}
    assert len(told["weights"]) == len(told["pack"]) == 64
    shorter = json.loads(ost(*lite(bikes, "--classes", "everyday", "--json", "--top", "2"))[1])
    assert [c["name"] for c in shorter["classes"]] == [c["name"] for c in told["classes"][:2]]


def test_json_shows_labels_as_the_user_wrote_them(ost, bikes):
    _, out, _ = ost(*lite(bikes, "--classes", "BalanceBeam,brush_hair,iPhone", "--json"))
    assert {(c["label"], c["name"]) for c in json.loads(out)["classes"]} == {
        ("BalanceBeam", "gymnastics on the balance beam"),
        ("brush_hair", "brushing hair"),
        ("iPhone", "i phone"),
    }
    _, out, _ = ost(*lite(bikes, "--classes", "BalanceBeam,brush_hair"))
    assert "BalanceBeam (gymnastics on the balance beam)" in out


def test_records_follow_the_schema_in_the_docs(ost, bikes, tmp_path):
    schema = json.loads((Path(__file__).parents[2] / "docs/recognize.schema.json").read_text())
    assert schema == json_schema()
    (tmp_path / "text.mp4").write_text("not a video")
    code, out, _ = ost(*lite(bikes, tmp_path / "text.mp4", "--classes", CLASSES, "--json"))
    answer, failure = map(json.loads, out.splitlines())
    assert code == 1
    assert set(answer) == set(schema["$defs"]["VideoRecord"]["required"])
    assert set(failure) == set(schema["$defs"]["FailureRecord"]["required"])
    checked = TypeAdapter(VideoRecord | FailureRecord)
    assert [checked.validate_python(r) for r in (answer, failure)] == [
        answer
        | {"pixels": answer["pixels"] | {key: tuple(answer["pixels"][key]) for key in ("mean", "std")}},
        failure,
    ]


def test_broken_videos_are_listed_and_the_others_recognised(ost, bikes, tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.avi").touch()
    (tmp_path / "fine.mp4").write_bytes(bikes.read_bytes())
    (tmp_path / "notes.txt").write_text("left alone")
    code, out, err = ost(*lite(tmp_path, "--classes", CLASSES, "--json"))
    assert code == 1
    records = {Path((record := json.loads(line))["path"]).name: record for line in out.splitlines()}
    assert set(records) == {"fine.mp4", "text.mp4", "empty.avi"}
    assert records["empty.avi"]["error"] == "the file is empty"
    assert "2 of 3 videos could not be used" in err
    assert "text.mp4: " in err
    assert "empty.avi: the file is empty" in err


def test_reports_of_videos_with_one_name_do_not_overwrite_each_other(ost, bikes, tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "clip.mp4").write_bytes(bikes.read_bytes())
    code, out, _ = ost(*lite(tmp_path, "--classes", CLASSES, "--report", tmp_path / "pages", "--top", "1"))
    assert code == 0
    assert sorted(p.name for p in (tmp_path / "pages").iterdir()) == ["clip-2.html", "clip.html"]
    assert out.count("page: ") == 2


def test_views_and_match_and_eps_reach_the_matching(ost, bikes):
    told = []
    for extra in (
        [],
        ["--views", "2x3"],
        ["--views", "1x10"],
        ["--match", "mean"],
        ["--kinds", "spatial"],
        ["--eps", "0.01"],
    ):
        code, out, _ = ost(*lite(bikes, "--classes", CLASSES, "--json", *extra))
        assert code == 0
        told.append(json.loads(out)["classes"])
    assert all(first != second for i, first in enumerate(told) for second in told[i + 1 :])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classes", CLASSES, "--backbone", "ViT-B-61/openai"], "did you mean"),
        (["--classes", CLASSES, "--backbone", "lite", "--views", "4by3"], "CLIPSxCROPS"),
        (["--classes", CLASSES, "--backbone", "lite", "--views", "1x4"], "1, 3, 5 or 10 crops, not 4"),
        (["--classes", "nothing.txt", "--backbone", "lite"], "there is no such file"),
        (["--classes", "a,,b", "--backbone", "lite"], "without a name"),
        (["--classes", "a,A", "--backbone", "lite"], "twice"),
        (["--classes", CLASSES, "--backbone", "lite", "--eps", "0"], "eps must be positive"),
        (["--classes", CLASSES, "--backbone", "lite", "--blend", "0.2"], "carries its own weights"),
        (["--classes", CLASSES, "--weights", "ost/k4000"], "did you mean"),
        (["--classes", CLASSES, "--backbone", "lite", "--device", "cuda"], "runs on the CPU in fp32"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(ost, bikes, arguments, message):
    code, out, err = ost("recognize", bikes, *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.startswith("ost: ")
    assert err.count("\n") == 1


def test_a_class_in_no_pack_gets_a_notice_on_stderr(ost, bikes):
    _, out, err = ost(*lite(bikes, "--classes", "riding a bike,zorbing", "--json"))
    assert "matched by name alone: zorbing" in err
    json.loads(out)


def test_a_pack_is_shown_and_checked(ost):
    code, out, _ = ost("packs", "show", "everyday", "Riding_A_Bike")
    assert code == 0
    assert out.count("spatial") == out.count("temporal") == 4
    assert ost("packs", "check", "everyday")[0] == 0
    assert "everyday" in ost("packs", "list")[1]


def test_a_doubtful_pack_fails_its_check(ost, tmp_path):
    pack = {
        "schema": 1,
        "name": "doubtful",
        "classes": [
            {"name": "pour", "spatial": ["a person about to pour"], "temporal": ["tilt", "fill"]},
            {"name": "drink", "spatial": ["a cup"], "temporal": ["tilt"]},
        ],
    }
    file = tmp_path / "doubtful.json"
    file.write_text(json.dumps(pack))
    code, out, _ = ost("packs", "check", file)
    assert code == 1
    assert "pour: the spatial 'a person about to pour' says the name of the class" in out
    assert "drink: shares the temporal 'tilt' with pour" in out
    assert "mean cosine between classes" in out


def test_the_authors_format_is_imported(ost, tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"0": ["a cup"], "1": ["a hill"]}))
    (tmp_path / "t.json").write_text(json.dumps({"0": ["lift", "drink"], "1": ["walk"]}))
    (tmp_path / "labels.csv").write_text("id,name\n0,drink\n1,ClimbHill\n")
    parts = [
        "--spatial",
        tmp_path / "s.json",
        "--temporal",
        tmp_path / "t.json",
        "--labels",
        tmp_path / "labels.csv",
    ]
    assert ost("packs", "import", *parts, "-o", tmp_path / "pack.json")[0] == 0
    assert "climb hill  (ClimbHill)" in ost("packs", "show", tmp_path / "pack.json", "climb hill")[1]


def test_a_result_that_cannot_be_written_is_one_sentence(ost, tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"0": ["a cup"], "1": ["a hill"]}))
    (tmp_path / "labels.csv").write_text("id,name\n0,drink\n1,climb\n")
    texts, labels = tmp_path / "s.json", tmp_path / "labels.csv"
    parts = ["--spatial", texts, "--temporal", texts, "--labels", labels, "-o", labels / "pack.json"]
    code, _, err = ost("packs", "import", *parts)
    assert code == 2
    assert err.startswith("ost: ") and "labels.csv" in err and err.count("\n") == 1


def test_known_weights_are_listed_with_their_licence(ost):
    out = ost("weights", "list")[1]
    assert out.count("CC BY-NC-SA 4.0") == 25
    assert "ViT-B-16/openai" in out


def test_a_file_that_is_no_weight_file_is_refused(ost, tmp_path):
    (tmp_path / "x.pth").write_bytes(b"junk")
    code, _, err = ost("weights", "inspect", tmp_path / "x.pth")
    assert code == 2
    assert "x.pth" in err


@pytest.mark.parametrize(("text", "views"), [("1x1", (1, 1)), ("4x3", (4, 3)), (" 10X3 ", (10, 3))])
def test_views_are_read(text, views):
    assert parse_views(text) == views


@pytest.mark.parametrize("text", ["", "4", "x3", "4x3x2", "-1x3"])
def test_views_that_mean_nothing_are_refused(text):
    with pytest.raises(UsageError, match="CLIPSxCROPS"):
        parse_views(text)


@pytest.mark.parametrize(
    "command", [[], ["recognize"], ["describe"], ["packs"], ["weights", "blend"], ["demo"]]
)
def test_help_tells_what_a_command_is_for(command):
    assert "Usage" in CliRunner().invoke(app, [*command, "--help"]).output


def test_the_bar_of_a_class_that_is_out_of_the_question_is_empty(capsys):
    from types import SimpleNamespace

    from ost.cli.recognize import show_prediction
    from ost.cli.terminal import stdout

    shares = {"sure": 0.979, "hardly": 0.0205, "not at all": 0.0004}
    scores = [SimpleNamespace(title=name, probability=share) for name, share in shares.items()]
    show_prediction(stdout(), SimpleNamespace(path="a.mp4", classes=scores), 3)
    bars = [line.count("█") for line in capsys.readouterr().out.splitlines()[1:]]
    assert bars == [23, 0, 0]


SCRIPT = (str(Path(sysconfig.get_path("scripts")) / "ost"),)


@pytest.mark.parametrize("command", [SCRIPT, (sys.executable, "-m", "ost")], ids=["script", "module"])
def test_the_command_runs_as_a_script_and_as_a_module(command):
    shown = subprocess.run([*command, "--version"], check=True, capture_output=True, text=True)
    assert shown.stdout.startswith("ost 0.")
