"""One of several ranks: leaves the gradients of every step of a plan in files. Started by test_ranks."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from ost.descriptors.pack import load_pack
from ost.ranks import join_ranks
from ost.train.config import checked
from ost.train.data import ClipDataset, chunks
from ost.train.learner import load_learner
from ost.train.plan import Plan
from ost.train.step import step_gradient
from ost.video.augment import NONE


def leave_gradients(config, pack, labelled, folder, ranks):
    """Gradients and loss of each step of the first epoch, as this rank has them."""
    learner = load_learner(config, pack, "cpu", NONE, lambda line: None)
    learner.log_scale.data.fill_(2.66)  # CLIP's own start, ln(1 / 0.07)
    plan = Plan(len(labelled.paths), config.batch, config.contrastive_batch, config.chunk, config.seed)
    dataset = ClipDataset(
        labelled.paths, labelled.labels, config.frames, learner.backbone.preprocess, NONE, 0.5, config.seed
    )
    steps = list(plan.from_step(0, 1, ranks.rank, ranks.world))
    coming = chunks(dataset, iter(steps), 0, pin=False)
    for number, step in enumerate(steps):
        for parameter in learner.parameters.values():
            parameter.grad = None
        loss, _ = step_gradient(learner, step, coming, ranks)
        found = {name: parameter.grad.clone() for name, parameter in learner.parameters.items()}
        save_file(
            found | {"loss": torch.tensor(loss)}, folder / f"{ranks.world}-{ranks.rank}-{number}.safetensors"
        )


def main(folder):
    from ost.train.validate import Labelled

    torch.set_num_threads(1)
    pack = load_pack(folder / "pack.json")
    paths, labels = json.loads((folder / "clips.json").read_text())
    with join_ranks("cpu") as (ranks, _):
        for place in sorted(folder.glob("*/config.json")):
            config = checked(json.loads(place.read_text()))
            leave_gradients(config, pack, Labelled(tuple(paths), tuple(labels)), place.parent, ranks)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
