"""`run` may be left out of `ost evaluate` and `ost train`."""

import pytest

FORMS = [
    (["evaluate"], 2, "name a protocol"),
    (["evaluate", "run"], 2, "name a protocol"),
    (["evaluate", "zero-shot/hmdb"], 2, "did you mean 'zero-shot/hmdb51'"),
    (["evaluate", "run", "zero-shot/hmdb"], 2, "did you mean 'zero-shot/hmdb51'"),
    (["evaluate", "--frames", "2", "zero-shot/hmdb"], 2, "did you mean 'zero-shot/hmdb51'"),
    (["evaluate", "--debug", "own"], 2, "no videos are named"),
    (["evaluate", "--videos", "nowhere"], 2, "nowhere"),
    (["evaluate", "agian", "runs/own"], 2, "there is no subcommand 'agian'; did you mean 'again'"),
    (["evaluate", "again", "nowhere"], 2, "holds no run"),
    (["evaluate", "diff", "nowhere", "nowhere"], 2, "holds no run"),
    (["evaluate", "diff", "nowhere"], 2, "missing argument 'B'"),
    (["evaluate", "list", "own"], 2, "unexpected extra argument"),
    (["evaluate", "list"], 0, ""),
    (["train"], 2, "missing argument 'RECIPE'"),
    (["train", "fewshot"], 2, "there is no recipe called 'fewshot'; did you mean 'few-shot'"),
    (["train", "run", "fewshot"], 2, "there is no recipe called 'fewshot'; did you mean 'few-shot'"),
    (["train", "--shots", "2", "fewshot"], 2, "did you mean 'few-shot'"),
    (["train", "lst"], 2, "there is no subcommand 'lst'; did you mean 'list'"),
    (["train", "list"], 0, ""),
]


@pytest.mark.parametrize(("arguments", "code", "sentence"), FORMS, ids=lambda value: str(value))
def test_every_form_of_evaluate_and_train_ends_as_the_long_one(
    ost_command, arguments, code, sentence, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    ended, out, err = ost_command(*arguments)
    assert (ended, bool(out)) == (code, code == 0)
    assert sentence in err.splitlines()[-1] if sentence else err == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["few-shot", "own"])
def test_the_short_form_takes_the_options_of_run(ost_command, name, tmp_path):
    command = "train" if name == "few-shot" else "evaluate"
    short = ost_command(command, name, "--videos", tmp_path)
    assert short == ost_command(command, "run", name, "--videos", tmp_path)
    assert short[0] == 2


@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_help_of_the_short_form_is_that_of_run_and_of_the_group_its_subcommands(ost_command, command):
    code, page, _ = ost_command(command, "own", "--help")
    assert (code, page) == (0, ost_command(command, "run", "--help")[1])
    assert "--videos" in page
    group = ost_command(command, "--help")[1]
    assert "list" in group and "--weights" not in group


def test_help_of_a_subcommand_shows_only_what_applies_to_it(ost_command):
    again, diff = (ost_command("evaluate", name, "--help")[1] for name in ("again", "diff"))
    assert "--output" in again and "--scores" in again and "--frames" not in again
    assert "--output" not in diff and "--weights" not in diff
