"""Several processes over gloo, against one that has the whole batch."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ost.descriptors.pack import save_pack
from ost.ranks import Ranks

SCRIPT = Path(__file__).with_name("ranks.py")
_spec = importlib.util.spec_from_file_location("one_rank", SCRIPT)
one_rank = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(one_rank)

# 12 clips: steps of 12; of 6 in contrastive batches of 2 and of 3, so that a third rank has nothing to do in some;
# of 5, so that batches are not equally long.
CASES = {
    "whole": {"batch": 12, "contrastive_batch": 12},
    "small": {"batch": 6, "contrastive_batch": 2, "chunk": 1},
    "uneven": {"batch": 5, "contrastive_batch": 5, "chunk": 1},
    "kept": {"batch": 6, "contrastive_batch": 6, "replay": False},
    "text": {"batch": 6, "contrastive_batch": 6, "tune": "text"},
    "image": {"batch": 6, "contrastive_batch": 6, "tune": "image", "temporal_layers": 1},
    "prompts": {"batch": 5, "contrastive_batch": 5, "tune": "prompts", "prompt_count": 2, "prompt_layers": 2},
    "classes": {"batch": 5, "contrastive_batch": 5, "tune": "image", "loss": "classes", "temporal_layers": 1},
}


@pytest.fixture(scope="module")
def gradients(tmp_path_factory, tiny, clips, pack, start):
    """A folder with the gradients of one, two and three ranks for each case."""
    from ost.train.config import TrainConfig

    folder = tmp_path_factory.mktemp("gradients")
    save_pack(pack, folder / "pack.json")
    found = sorted(p for p in clips.glob("*/*") if p.is_dir())
    (folder / "clips.json").write_text(
        json.dumps([[str(p) for p in found], [pack.names.index(p.parent.name) for p in found]])
    )
    common = {"weights": str(tiny), "frames": 3, "chunk": 2, "precision": "fp32", "workers": 0, "seed": 7}
    for name, case in CASES.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(TrainConfig(**(common | case)).as_json())
    ranks = [rank for world in (2, 3) for rank in start(SCRIPT, folder, world=world)]
    one_rank.main(folder)
    for rank in ranks:
        status, _, told = rank.finish()
        assert status == 0, told
    return folder


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_gradients_of_many_ranks_are_those_of_one_process(gradients, case, world):
    steps = sorted((gradients / case).glob("1-0-*.safetensors"))
    assert len(steps) == -(-12 // CASES[case]["batch"])
    for alone in steps:
        wanted = load_file(alone)
        for rank in range(world):
            found = load_file(alone.with_name(alone.name.replace("1-0-", f"{world}-{rank}-")))
            assert found.keys() == wanted.keys()
            for name, tensor in wanted.items():
                error = (found[name] - tensor).abs().max() / tensor.abs().max().clamp(min=1)
                assert error < 1e-5, (name, rank)


def test_every_rank_has_the_same_gradient_to_the_bit(gradients):
    for case in CASES:
        for first in (gradients / case).glob("3-0-*.safetensors"):
            wanted = load_file(first)
            for rank in (1, 2):
                found = load_file(first.with_name(first.name.replace("3-0-", f"3-{rank}-")))
                assert all(found[name].equal(tensor) for name, tensor in wanted.items())


def test_one_rank_needs_no_process_group():
    assert Ranks().gather("x") == ["x"] and Ranks().first


def by_torchrun(world, *arguments):
    """(exit status, stdout, stderr) of `ost` under a real torchrun, whose ranks share its output."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world), "-m", "ost"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, tiny, clips, start):
    """Final weights of one unbroken process, and of runs that one process began and others went on with."""
    from ost.recipes import Sources, prepare
    from ost.train.loop import train

    home = tmp_path_factory.mktemp("resumed")
    changes = {"frames": 3, "epochs": 3, "warmup_epochs": 0, "chunk": 2, "workers": 0, "precision": "fp32"}
    changes |= {"batch": 5, "contrastive_batch": 5, "save_every": 1, "lr": 1e-4}
    config, task = prepare("few-shot", Sources(clips, shots=3), changes | {"weights": str(tiny)})

    def stop(event):
        if event.kind == "checkpoint" and event.step == 3:
            raise KeyboardInterrupt

    found = {1: load_file(train(config, task, home / "whole").weights)}
    settings = [part for key, value in changes.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    for world in (2, 3):
        run = home / f"{world}"
        with pytest.raises(KeyboardInterrupt):
            train(config, task, run, watch=stop)
        given = ["--videos", clips, "--shots", 3, "--init-from", tiny, *settings]
        command = ["train", "few-shot", *given, "-o", run, "--resume"]
        if world == 2:
            ended = [by_torchrun(world, *command)]
        else:
            ended = [rank.finish() for rank in start("-m", "ost", *command, world=world)]
        assert not any(status for status, *_ in ended), ended
        assert sum(out.count("use them") for _, out, _ in ended) == 1, "the first rank alone speaks"
        found[world] = load_file(run / "weights.safetensors")
    return found


@pytest.mark.parametrize("world", [2, 3])
def test_a_run_goes_on_with_another_number_of_ranks(resumed, world):
    """The sums over clips are taken in another order: 1e-6 of a gradient, which Adam makes part of a step of lr."""
    for name, tensor in resumed[1].items():
        assert (resumed[world][name] - tensor).abs().max() < 1e-5, name
