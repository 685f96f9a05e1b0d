"""`ost train` from the command line: every recipe on files with the names and layouts that its lists expect."""

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from ost.datasets.catalog import BENCHMARKS
from ost.descriptors.pack import save_pack
from ost.recipes import RECIPES

QUICK = {"frames": 3, "epochs": 1, "warmup_epochs": 0, "chunk": 4, "workers": 0, "precision": "fp32"}
SMALL = {"batch": 6, "contrastive_batch": 6}
DEPTH = {"prompt_layers": 2, "prompt_count": 2}


def settings(**changes):
    return [part for key, value in changes.items() for part in ("--set", f"{key}={json.dumps(value)}")]


def rows_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


@pytest.fixture
def train(ost_command, tiny, tmp_path):
    """Run a recipe from the tiny weights; gives exit code, stdout, stderr, and the folder of the run."""

    def run(recipe, *arguments, **changes):
        given = ("--init-from", tiny, "-o", tmp_path / "run")
        code, out, err = ost_command(
            "train", recipe, *arguments, *given, *settings(**(QUICK | SMALL | changes))
        )
        return code, out, err, tmp_path / "run"

    return run


OWN = {
    "few-shot": {},
    "image-only": {},
    "text-only": {},
    "prompts": DEPTH,
    "prompts-base-to-novel": DEPTH,
    "lora": {"lora_rank": 2},
    "supervised": {"temporal_layers": 1},
    "adapter": {},
}


@pytest.mark.parametrize("recipe", OWN)
def test_a_folder_per_class_becomes_a_weight_file_that_recognises(recipe, train, clips, ost_command):
    code, out, err, run = train(recipe, "--videos", clips, "--shots", 3, **OWN[recipe])
    assert code == 0, err
    assert "of 3 held-out clips recognised" in out
    command = next(line for line in out.splitlines() if line.startswith("use them: ost "))
    one = next((clips / "red square").iterdir())
    code, out, err = ost_command(
        *(str(one) if word == "VIDEO" else word for word in shlex.split(command)[3:])
    )
    assert code == 0, err
    assert {"red square", "green square", "blue square"} == {
        name for name in ("red square", "green square", "blue square") if name in out
    }
    lists = {name: rows_of(run / name) for name in ("train.csv", "held-out.csv")}
    assert len(lists["train.csv"]) == 9 and len(lists["held-out.csv"]) == 3
    assert not {row["path"] for row in lists["train.csv"]} & {row["path"] for row in lists["held-out.csv"]}


@pytest.mark.parametrize("recipe", [name for name in RECIPES if RECIPES[name].benchmark])
def test_a_recipe_of_a_benchmark_runs_on_a_root_with_the_right_names(recipe, train, stand_in, tmp_path):
    spec, root = RECIPES[recipe], tmp_path / "root"
    benchmark = BENCHMARKS.find(spec.benchmark)
    stand_in(benchmark, spec.held_out, root, 1)
    arguments = ["--videos", root]
    if spec.train is None:
        arguments += official_list(spec.benchmark, benchmark, root, stand_in, tmp_path)
    else:
        shots, seed = 2, 2
        name = spec.train.format(shots=shots, seed=seed)
        stand_in(benchmark, name, root, 2)
        arguments += ["--shots", shots] if "{shots}" in spec.train else []
        arguments += ["--seed", seed] if "{seed}" in spec.train else []
    layers = {"temporal_layers": 1} if recipe.startswith("supervised") else {}
    code, out, err, run = train(recipe, *arguments, max_unreadable=1, **layers)
    assert code == 0, err
    assert "3 held-out clips recognised" in out
    assert len(rows_of(run / "train.csv")) == 6
    config = json.loads((run / "config.json").read_text())
    assert config["recipe"] == recipe
    missing = rows_of(run / "missing.csv")
    assert all(row["cause"] == "is in the list and not there" for row in missing)
    total = len(missing) + 6 + 3
    assert f"{len(missing):,} of {total:,} videos could not be used" in err
    assert f"and {len(missing) - 10:,} more; all of them are in {run / 'missing.csv'}" in err


def official_list(name, benchmark, root, stand_in, tmp_path):
    """A training list as its makers publish it, and the videos that it names."""
    if name == "k400":
        entries = stand_in(benchmark, "train-tiny", root, 2)
        path = tmp_path / "kinetics_400_train.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["label", "youtube_id", "time_start", "time_end", "split"])
            for entry in entries:
                stem = entry.video.rsplit("/", 1)[1].removesuffix(".mp4")
                identity, start, end = stem[:-14], int(stem[-13:-7]), int(stem[-6:])
                writer.writerow([entry.labels[0], identity, start, end, "train"])
            writer.writerow([entries[0].labels[0], "not-there___", 0, 10, "train"])
        return ["--manifest", path]
    entries = stand_in(benchmark, "train-16shot", root, 2)
    rows = [{"id": e.video.removesuffix(".webm"), "template": e.labels[0]} for e in entries]
    path = tmp_path / "something-something-v2-train.json"
    path.write_text(json.dumps([*rows, rows[0] | {"id": "999999999"}]))
    return ["--manifest", path]


def test_kinetics_by_folders_needs_no_list(train, stand_in, tiny_videos, tmp_path):
    root, benchmark = tmp_path / "root", BENCHMARKS.find("k400")
    stand_in(benchmark, "val", root, 1)
    for i, name in enumerate(("archery", "riding_a_bike", "arm wrestling")):
        for k in range(2):
            path = root / "train" / name / f"{k}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tiny_videos[i], path)
    code, out, err, _ = train("k400-zero-shot-8f", "--videos", root, max_unreadable=1)
    assert code == 0, err
    assert "3 held-out clips recognised" in out


def test_base_to_novel_learns_and_validates_on_the_base_classes_alone(train, stand_in, tmp_path):
    root, benchmark = tmp_path / "root", BENCHMARKS.find("hmdb51")
    stand_in(benchmark, "base-train-1", root, 2)
    stand_in(benchmark, "base-val", root, 1)
    code, _, err, run = train("base-to-novel/hmdb51", "--videos", root, max_unreadable=1)
    assert code == 0, err
    names = [c["name"] for c in json.loads((run / "pack.json").read_text())["classes"]]
    assert len(names) == 26 and "pouring" in names and "brushing hair" not in names


def test_the_list_of_recipes_names_them_all(ost_command):
    code, out, _ = ost_command("train", "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(RECIPES)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fewshot"], "there is no recipe called 'fewshot'; did you mean 'few-shot'"),
        (["few-shot"], "give --videos"),
        (["few-shot", "--videos", "nowhere"], "nowhere: is not a folder"),
        (["few-shot/hmdb51", "--videos", "."], "give --shots 2, 4, 8 or 16"),
        (["few-shot/hmdb51", "--videos", ".", "--shots", "3"], "train-3shot"),
        (["few-shot/hmdb51", "--shots", "2"], "give the folder it is in with --videos"),
        (["supervised/k400", "--videos", "."], "give the official list with --manifest"),
        (["few-shot", "--videos", ".", "--set", "lrate=1"], "no setting 'lrate'"),
        (["few-shot", "--videos", ".", "--set", "lr"], "--set is key=value"),
        (["few-shot", "--videos", ".", "--set", "epochs=2"], "warmup_epochs 5 is not less than epochs 2"),
    ],
)
def test_wrong_use_is_one_sentence_and_nothing_is_done(ost_command, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    code, out, err = ost_command("train", *arguments)
    assert code == 2 and told in err and not out
    assert list(tmp_path.iterdir()) == []


def test_more_shots_than_clips_name_the_class(train, clips):
    code, _, err, run = train("few-shot", "--videos", clips, "--shots", 5)
    assert code == 2 and "class 'blue square' has 4 clips, fewer than the 5 shots" in err
    assert not run.exists()


def test_a_run_that_holds_nothing_out_says_so(ost_command, clips, tmp_path):
    code, out, _ = adapter(ost_command, clips, tmp_path / "run", "--shots", 4)
    assert code == 0 and "no clip was held out, so nothing was measured" in out


def test_a_manifest_with_broken_and_missing_clips_trains_on_the_others(train, clips, tmp_path):
    rows = [(p, p.parent.name) for p in sorted(clips.glob("*/*"))]
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    rows += [(tmp_path / "broken.mp4", "red square"), (tmp_path / "gone.mp4", "red square")]
    manifest = tmp_path / "clips.csv"
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    code, out, err, _ = train("few-shot", "--manifest", manifest, max_unreadable=0.5)
    assert code == 1
    assert "2 of 14 videos could not be used" in err and "broken.mp4" in err and "gone.mp4" in err
    assert "use them" in out and "held-out clips" not in out


def test_held_out_clips_may_be_given(train, clips):
    code, out, err, _ = train("few-shot", "--videos", clips, "--held-out", clips)
    assert code == 0, err
    assert "of 12 held-out clips recognised" in out


def test_the_adapter_of_the_embedded_backbone_trains_from_the_command_line(ost_command, clips, tmp_path):
    run = tmp_path / "run"
    code, out, err = ost_command(
        "train",
        "adapter",
        "--backbone",
        "lite",
        "--videos",
        clips,
        "--shots",
        2,
        "-o",
        run,
        *settings(frames=4),
    )
    assert code == 0, err
    assert "of 6 held-out clips recognised, " in out and "before training" in out
    assert (run / "weights.safetensors").stat().st_size < 1 << 20
    one = next((clips / "red square").iterdir())
    code, out, err = ost_command(
        *("recognize", one, "--json", "--frames", 4, "--weights", run / "weights.safetensors", "--classes"),
        run / ("pack.json" if (run / "pack.json").exists() else "classes.txt"),
    )
    assert code == 0, err
    assert json.loads(out)["classes"][0]["name"] == "red square"


def adapter(ost_command, clips, run, *arguments):
    given = ("--backbone", "lite", "--videos", clips, "--shots", 3, "-o", run, *settings(frames=2))
    return ost_command("train", "adapter", *given, *arguments)


def numbers(run):
    return json.loads((run / "run.json").read_text(encoding="utf-8"))


def test_an_evaluation_of_an_adapter_has_the_baseline_of_its_backbone_and_says_what_it_was_trained_on(
    ost_command, clips, tmp_path
):
    code, _, err = adapter(ost_command, clips, tmp_path / "adapter")
    assert code == 0, err
    weights = tmp_path / "adapter" / "weights.safetensors"
    own = ("evaluate", "own", "--videos", clips, "--frames", 2)
    code, out, err = ost_command(*own, "--weights", weights, "-o", tmp_path / "adapted")
    assert code == 0, err
    assert out.startswith("The weights were trained on 9 of the 12 videos; on the 3 others top-1 is ")
    code, plain, err = ost_command(*own, "--backbone", "lite", "-o", tmp_path / "plain")
    assert code == 0, err
    assert "trained on" not in plain
    adapted, frozen = numbers(tmp_path / "adapted"), numbers(tmp_path / "plain")
    assert adapted["numbers"]["names, mean-pool"] == frozen["numbers"]["names, mean-pool"]
    assert adapted["numbers"]["both, transport"] != frozen["numbers"]["both, transport"]
    assert adapted["trained_on"]["videos"] == 9 and frozen["trained_on"] == {"videos": 0}
    others = adapted["trained_on"]["numbers_without"]["rows"][0]
    listed = [row["path"] for row in rows_of(tmp_path / "adapter" / "train.csv")]
    rest = [path for path in clips.glob("*/*") if str(path) not in listed]
    assert others["videos"] == len(rest) == 3
    page = (tmp_path / "adapted" / "index.html").read_text(encoding="utf-8")
    assert page.index("The weights were trained on 9 of the 12 videos") < page.index(
        "are recognised at the first"
    )


def test_an_evaluation_of_nothing_but_training_clips_says_that_it_says_nothing(ost_command, clips, tmp_path):
    code, _, err = adapter(ost_command, clips, tmp_path / "adapter")
    assert code == 0, err
    manifest = tmp_path / "adapter" / "train.csv"
    weights = tmp_path / "adapter" / "weights.safetensors"
    code, out, err = ost_command(
        *(
            "evaluate",
            "own",
            "--manifest",
            manifest,
            "--frames",
            2,
            "--weights",
            weights,
            "-o",
            tmp_path / "run",
        )
    )
    assert code == 0, err
    assert out.startswith("The weights were trained on all 9 videos: these numbers say nothing about others.")


def test_a_damaged_list_of_training_clips_costs_no_evaluation(ost_command, clips, tmp_path):
    code, _, err = adapter(ost_command, clips, tmp_path / "adapter")
    assert code == 0, err
    (tmp_path / "adapter" / "train.csv").write_text("not,a manifest\n")
    weights = tmp_path / "adapter" / "weights.safetensors"
    code, out, err = ost_command(
        *("evaluate", "own", "--videos", clips, "--frames", 2, "--weights", weights, "-o", tmp_path / "run")
    )
    assert code == 0, err
    assert "it cannot be told which videos these weights were trained on" in err
    assert numbers(tmp_path / "run")["videos"] == 12
    code, out, _ = ost_command("weights", "inspect", tmp_path / "adapter" / "config.json")
    assert code == 0 and "cannot be told" in out


def test_inspect_knows_an_adapter_and_the_folder_of_a_run(ost_command, clips, tmp_path, train):
    code, _, err = adapter(ost_command, clips, tmp_path / "adapter")
    assert code == 0, err
    code, out, _ = ost_command("weights", "inspect", tmp_path / "adapter")
    assert code == 0
    for told in ("an adapter over lite", "3: blue square, green square, red square", "9 clips, listed in"):
        assert told in out
    code, _, err, run = train("prompts", "--videos", clips, "--shots", 3, **DEPTH)
    assert code == 0, err
    code, out, _ = ost_command("weights", "inspect", run)
    assert code == 0
    for told in ("ViT/", "learned prompts, 2 in 2 layers", "9 clips, listed in"):
        assert told in out


def test_a_run_that_never_began_leaves_no_folder_and_does_not_block_the_next(
    ost_command, clips, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    wanted = ("train", "lora", "--videos", clips, "--shots", 3)
    for _ in range(2):
        code, _, err = ost_command(*wanted)
        assert code == 2
        assert "ViT-B-16/openai: " in err and "--backbone ViT-B-16/openai --init-from FILE" in err
        assert "lite" not in err, "its towers cannot be trained"
    assert not (tmp_path / "runs").exists()
    code, _, err = ost_command("train", "adapter", "--videos", clips, "--shots", 3)
    assert code == 2
    assert "use --backbone lite" in err


def test_runs_of_one_recipe_do_not_stand_in_each_others_way(ost_command, clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = ("train", "adapter", "--backbone", "lite", "--videos", clips, "--shots", 3, *settings(frames=2))
    for name in ("adapter", "adapter-2"):
        code, out, err = ost_command(*wanted)
        assert code == 0, err
        assert f"weights: runs/{name}/weights.safetensors" in out
    code, out, err = ost_command(*wanted, "--resume")
    assert code == 0, err
    assert "weights: runs/adapter-2/weights.safetensors" in out
    code, _, err = ost_command(*wanted, "-o", "runs/adapter")
    assert code == 2
    assert "runs/adapter: holds a run already; go on with it by --resume, or name another folder" in err


def test_recognition_and_adapters_take_the_same_backbone_unless_told_otherwise():
    from ost.backbones.catalog import DEFAULT

    assert {RECIPES[name].config(4).backbone for name in RECIPES} == {DEFAULT}


@pytest.mark.slow
def test_sigterm_to_the_whole_group_saves_and_the_same_command_goes_on(
    ost_command, tiny, clips, pack, tmp_path
):
    save_pack(pack, tmp_path / "colours.json")
    changes = settings(**(QUICK | SMALL | {"epochs": 12, "workers": 2, "lr": 1e-3}))
    given = ["--videos", clips, "--shots", 3, "--init-from", tiny, "--classes", tmp_path / "colours.json"]
    arguments = ["train", "few-shot", *map(str, given), *changes, "--resume", "-o"]
    log = tmp_path / "asked" / "log.jsonl"
    with subprocess.Popen(
        [sys.executable, "-m", "ost", *arguments, str(tmp_path / "asked")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as asked:
        while not (log.is_file() and log.read_text().count('"step", "step"') > 5) and asked.poll() is None:
            time.sleep(0.01)
        os.killpg(asked.pid, signal.SIGTERM)
        _, err = asked.communicate(timeout=120)
    assert asked.returncode == 143, err
    assert "go on with --resume" in err
    for name in ("asked", "whole"):
        code, _, err = ost_command(*arguments, tmp_path / name)
        assert code == 0, err
    wanted, found = (load_file(tmp_path / run / "weights.safetensors") for run in ("whole", "asked"))
    assert all(found[name].equal(tensor) for name, tensor in wanted.items())
