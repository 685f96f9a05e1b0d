"""`ost describe` as the shell runs it."""

import json

import pytest

from ost.cli.describe import parse_price
from ost.errors import UsageError

from .chat_server import running

KEY = "sk-very-secret-0123456789"
CLASSES = "class 1,class 2,class 3"


@pytest.fixture
def describe(ost_command):
    def run(server, output, *options, classes=CLASSES):
        return ost_command(
            "describe", classes, "-o", output, "--base-url", server.url, "--backbone", "lite", *options
        )

    return run


def test_the_pack_that_is_written_is_one_that_recognize_takes(describe, ost_command, bikes, tmp_path):
    with running() as server:
        code, out, err = describe(server, tmp_path / "mine.json", "-n", "2", "--price", "1,2")
    assert code == 0
    assert "mine.json: 3 classes, hash " in out
    assert "3 answers, 300 tokens in and 150 out, 0.0006 in the currency of --price" in err
    options = ["--classes", tmp_path / "mine.json", "--backbone", "lite", "--frames", "2", "--json"]
    code, out, err = ost_command("recognize", bikes, *options)
    assert code == 0
    assert {entry["name"] for entry in json.loads(out)["classes"]} == set(CLASSES.split(","))
    assert err == ""


def test_classes_that_stay_without_descriptors_are_listed_with_the_reason(describe, tmp_path, ost_command):
    with running(faults={"class 2": ["no"] * 4}) as server:
        code, _, err = describe(server, tmp_path / "mine.json")
    assert code == 1
    assert "1 classes have no descriptors:\n  class 2: it is not JSON" in err
    shown = ost_command("packs", "show", tmp_path / "mine.json")
    assert "lacks classes that found no descriptors when it was written: class 2" in shown[2]


def test_a_dry_run_prints_every_question_and_asks_nobody(ost_command):
    code, out, err = ost_command(
        "describe", CLASSES, "--dry-run", "--context", "kitchen, fixed camera", "--language", "Dutch"
    )
    assert code == 0
    assert out.count("[system]") == 1
    assert out.count("[user]") == 3
    assert out.count("filmed: kitchen, fixed camera") == 3
    assert "in Dutch" in out
    assert "3 requests, about " in err


def test_the_key_is_in_no_output_no_journal_and_no_pack(describe, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    output = tmp_path / "mine.json"
    with running(key=KEY, faults={"class 2": [401]}) as server:
        told = describe(server, output, "--at-once", "1")
        journal = (tmp_path / "mine.json.journal").read_text()
        server.key = "another"
        again = describe(server, output)
        server.key = KEY
        done = describe(server, output)
    assert [told[0], again[0], done[0]] == [2, 2, 0]
    assert "every request" in told[2]
    assert "refuses the key in OPENAI_API_KEY" in again[2]
    for text in (*told[1:], *again[1:], *done[1:], journal, output.read_text()):
        assert KEY not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "x.json", "--price", "cheap"], "--price is IN,OUT"),
        ([], "say where the pack goes with -o pack.json"),
        (["-o", "x.json", "--backbone", "ViT-B-61/openai"], "did you mean"),
        (["-o", "x.json"], "no server answers at 127.0.0.1:9"),
    ],
)
def test_wrong_use_is_one_sentence(ost_command, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with running() as server:
        url = "http://127.0.0.1:9/v1" if "no server" in message else server.url
        code, out, err = ost_command("describe", CLASSES, "--base-url", url, *options)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("ost: ")
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("*.json"))


def test_without_the_package_openai_the_extra_is_named(ost_command, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "openai", None)
    code, _, err = ost_command("describe", CLASSES, "-o", tmp_path / "x.json")
    assert code == 2
    assert "pip install openai" in err


@pytest.mark.parametrize(("text", "prices"), [(None, None), ("1,2", (1, 2)), (" .15 , 0.6", (0.15, 0.6))])
def test_prices_are_read(text, prices):
    assert parse_price(text) == prices


@pytest.mark.parametrize("text", ["", "1", "1,2,3", "a,b", "-1,2"])
def test_prices_that_mean_nothing_are_refused(text):
    with pytest.raises(UsageError, match="IN,OUT"):
        parse_price(text)
