"""Does training learn, and does a transformer over time learn the order of time? Two runs on drawn clips.

    uv run --group dev benchmarks/learn.py --plots FOLDER

The world: 8 frames in which a thing moves over noise. A class is a colour, a shape and a motion, 4 x 3 x 6 =
72 of them: "a red cross moving left". Motions come in pairs (moving right and left, rising and falling,
growing and shrinking), and every clip is there in both orders of its frames, once for each class of its pair:
nothing but the order tells these two. A quarter of the classes is never trained, but each of their words is,
in other classes. A tiny CLIP with random weights learns the rest by `ost.train.loop.train`, both towers,
contrastive loss, twice: as OST, which matches the frames of a clip without regard to their order, and with a
transformer over time. The two runs go side by side, on one core each.

Prints how often the class, and each part of it, is told right, and what other ways of matching make of the
same weights, all beside chance. Weights are the best on clips that are counted nowhere else. --plots also
draws learning curves and accuracies, as SVG and PNG. One seed, each run once. --quick trains a minute, too
little to learn much.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from moving_things import FRAMES, SEED, class_numbers, names_alone, pack_of, random_clip, write_clips

from ost.backbones.load import load_backbone
from ost.descriptors.pack import Pack
from ost.recognition.embed import class_head
from ost.recognition.match import Method, match
from ost.recognition.recognizer import Recognizer, Settings
from ost.train.config import TrainConfig
from ost.train.log import Event, read_log
from ost.train.loop import train
from ost.train.task import TrainingTask
from ost.train.validate import Labelled
from ost.types import BOTH, FrameEmbeddings, Kind

PLAIN, TIMED = "OST", "OST + time"


# Counting.


@dataclass(frozen=True)
class Score:
    """Shares of clips, 0..1.

    Attributes:
        right: the class is told.
        seen: its colour and shape are.
        pair: all but the order is.
        order: the order is, among the clips of which all else is; nan where there is none.
    """

    right: float
    seen: float
    pair: float
    order: float


def score(chosen: np.ndarray, truth: np.ndarray) -> Score:
    """Classes by their numbers, of which the parts are digits."""
    right, seen, pair = ((chosen // part == truth // part).mean() for part in (1, 6, 2))
    return Score(right, seen, pair, right / pair if pair else np.nan)


def chance(among: np.ndarray, truth: np.ndarray) -> Score:
    """What a blind choice among these classes gets."""
    right, seen, pair = ((among[None] // part == truth[:, None] // part).mean() for part in (1, 6, 2))
    return Score(right, seen, pair, right / pair)


class Way(NamedTuple):
    """A way of matching."""

    title: str
    method: Method = "ot"
    kinds: tuple[Kind, ...] = BOTH
    edit: Callable[[Pack], Pack] = lambda pack: pack


OT = Way("transport, both kinds (as trained)")
WAYS = (
    OT,
    Way("transport, spatial alone", kinds=("spatial",)),
    Way("transport, temporal alone", kinds=("temporal",)),
    Way("transport, names for descriptors", edit=names_alone),
    Way("mean of the frames, names", match="mean"),
)


@dataclass(frozen=True)
class Question:
    """Clips, and the classes that they are told among; all by numbers."""

    title: str
    clips: Labelled
    truth: np.ndarray
    among: np.ndarray


class Judge:
    """Weights, and what they make of clips."""

    def __init__(self, weights: Path) -> None:
        self.backbone = load_backbone(None, weights, device="cpu", dtype="fp32")
        self.recognizer = Recognizer(self.backbone, Settings(frames=FRAMES), cache=False)
        self._embedded: dict[Labelled, FrameEmbeddings] = {}

    def embed(self, clips: Labelled) -> FrameEmbeddings:
        if clips not in self._embedded:
            found = [p.embeddings for p in self.recognizer.recognize_all(clips.paths, ["anything"])]
            values, norms = (torch.cat([getattr(e, part) for e in found]) for part in ("values", "norms"))
            self._embedded[clips] = FrameEmbeddings(values, norms)
        return self._embedded[clips]

    def __call__(self, question: Question, way: Way = OT) -> Score:
        pack = way.edit(pack_of(question.among.tolist()))
        needed: tuple[Kind, ...] = ("name",) if way.method == "mean" else way.kinds
        head = class_head(self.backbone, pack, needed, cache=False)
        scores = match(self.embed(question.clips), head, match=way.method, kinds=way.kinds)
        return score(question.among[scores.logits.argmax(1).cpu().numpy()], question.truth)


# The runs.


class Sizes(NamedTuple):
    """Clips of a pair of classes, each in both orders, and epochs."""

    train: int = 24
    validate: int = 2
    held_out: int = 6
    never: int = 16
    epochs: int = 26


QUICK = Sizes(train=8, held_out=2, never=4, epochs=3)


def config(start: Path, epochs: int, layers: int) -> TrainConfig:
    """As published, but for what random weights, tiny clips and two cores ask for."""
    return TrainConfig(
        weights=str(start),
        temporal_layers=layers,
        frames=FRAMES,
        batch=32,
        contrastive_batch=32,
        chunk=32,
        replay=False,
        scales=(),
        jitter=0,
        grayscale=0,
        workers=0,
        epochs=epochs,
        warmup_epochs=1,
        lr=2e-3,
        tower_lr=0.5,
        precision="fp32",
        validate_every=max(1, epochs // 13),
        seed=SEED,
    )


def run_once(name: str, settings: TrainConfig, task: TrainingTask, folder: Path) -> Path:
    """Train, saying a line for each validation; the weights."""
    torch.set_num_threads(1)
    began = time.perf_counter()

    def tell(event: Event) -> None:
        if event.kind == "validation":
            seconds, top1 = time.perf_counter() - began, event.numbers["top1"]
            print(
                f"{name}: step {event.step} of {event.steps}, {seconds:.0f} s, validation {top1:.1%}",
                flush=True,
            )

    return train(settings, task, folder, device="cpu", watch=tell).weights


def make_world(root: Path, sizes: Sizes) -> tuple[TrainingTask, list[Question]]:
    """All clips; what is trained, and what is asked."""
    rng = np.random.default_rng(SEED)
    known, never = class_numbers(trained=True), class_numbers(trained=False)
    shown = write_clips(root / "train", known, sizes.train, rng)
    validated = write_clips(root / "validate", known, sizes.validate, rng)
    held_out = write_clips(root / "held-out", known, sizes.held_out, rng)
    unknown = write_clips(root / "never", never, sizes.never, rng)

    def ask(title: str, clips: Labelled, numbers: list[int], among: list[int]) -> Question:
        return Question(title, clips, np.array(numbers)[list(clips.labels)], np.array(among))

    questions = [
        ask("training clips", shown, known, known),
        ask("held-out clips", held_out, known, known),
        ask("never trained, among such", unknown, never, never),
        ask("never trained, among all", unknown, never, sorted(known + never)),
    ]
    return TrainingTask(pack_of(known), shown, validated), questions


Scores = dict[str, list[Score]]  # who -> of each question


def print_parts(questions: list[Question], scores: Scores) -> None:
    row = "{:<27}{:>6}{:>9}  {:<12}{:>7}{:>15}{:>15}{:>8}"
    print()
    print(row.format("", "clips", "classes", "", "class", "colour, shape", "all but order", "order*"))
    for i, q in enumerate(questions):
        for j, (who, of) in enumerate(scores.items()):
            cells = (q.title, len(q.clips), len(q.among)) if j == 0 else ("", "", "")
            parts = (of[i].right, of[i].seen, of[i].pair, of[i].order)
            print(row.format(*cells, who, *("-" if np.isnan(part) else f"{part:.1%}" for part in parts)))
    print("* of the clips of which all else is right")


def print_ways(questions: list[Question], judges: dict[str, Judge]) -> None:
    """The same weights under other ways of matching; the class, on clips that were not trained."""
    asked = questions[1:]
    print()
    print(f"{'class told right by':<36}{'':<10}" + "".join(f"{q.title:>27}" for q in asked))
    blind = "".join(f"{chance(q.among, q.truth).right:>27.1%}" for q in asked)
    print(f"{'':<36}{'chance':<10}{blind}")
    for way in WAYS:
        for j, (who, judge) in enumerate(judges.items()):
            cells = "".join(f"{judge(q, way).right:>27.1%}" for q in asked)
            print(f"{way.title if j == 0 else '':<36}{who:<10}{cells}")


# Pictures.

GREY, TONES = "#8a8f98", {PLAIN: "#2a78b8", TIMED: "#d97a1f"}


def save(figure: Any, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("svg", "png"):
        figure.savefig(folder / f"{name}.{kind}", dpi=130, metadata={"Date": None} if kind == "svg" else None)


def draw_curves(runs: dict[str, Path], classes: int, folder: Path) -> None:
    """Loss by step, smoothed, and accuracy on validation clips."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, run in runs.items():
        lines = read_log(run)
        steps = [line for line in lines if line["kind"] == "step"]
        loss, at = np.array([line["loss"] for line in steps]), np.array([line["step"] for line in steps])
        width = min(25, len(loss))
        left.plot(at, loss, color=TONES[name], alpha=0.15, linewidth=0.7)
        smooth = np.convolve(loss, np.ones(width) / width, "valid")
        left.plot(at[width - 1 :], smooth, color=TONES[name], label=name)
        found = [(line["step"], 100 * line["top1"]) for line in lines if line["kind"] == "validation"]
        right.plot(*zip(*found, strict=True), color=TONES[name], marker="o", markersize=4, label=name)
    left.set(
        xlabel="optimiser step",
        ylabel="loss",
        title="Contrastive loss, mean of 25 steps",
        xlim=(0, None),
        ylim=(0, None),
    )
    for height, words in ((50, "all but the order of time"), (100 / classes, "chance")):
        right.axhline(height, color=GREY, linestyle="--", linewidth=1)
        right.text(0.01, height + 1, words, color=GREY, fontsize=8, transform=right.get_yaxis_transform())
    right.set(xlabel="optimiser step", ylabel="clips told right, %", ylim=(0, 101), xlim=(0, None))
    right.set_title(f"Validation clips of the {classes} trained classes")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    save(figure, folder, "learning")


def draw_bars(questions: list[Question], scores: Scores, folder: Path) -> None:
    """The class by question, and its parts on new clips of trained and of never-trained classes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    panes = figure.subplots(1, 3, sharey=True, width_ratios=(4, 3, 3))
    titles = [q.title.replace(", ", ",\n").replace(" clips", "\nclips") for q in questions]
    bars(panes[0], titles, {who: [s.right for s in of] for who, of in scores.items()})
    panes[0].set(title="Class told right", ylabel="clips, %", ylim=(0, 108))
    for axes, i in zip(panes[1:], (1, 3), strict=True):
        parts = {who: [of[i].seen, of[i].pair, of[i].order] for who, of in scores.items()}
        bars(axes, ["colour\nand shape", "all but\nthe order", "order, where\nthe rest is right"], parts)
        axes.set_title(f"Parts: {questions[i].title}")
    figure.legend(*panes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    save(figure, folder, "accuracy")


def bars(axes: Any, titles: list[str], values: dict[str, list[float]]) -> None:
    """Groups of bars; chance is a line across each group."""
    runs = [who for who in values if who in TONES]
    place, width = np.arange(len(titles)), 0.8 / len(runs)
    for i, who in enumerate(runs):
        at = place + (i - (len(runs) - 1) / 2) * width
        boxes = axes.bar(at, 100 * np.array(values[who]), 0.94 * width, color=TONES[who], label=who)
        axes.bar_label(boxes, fmt="%.0f", fontsize=8, padding=1)
    blind = 100 * np.array(values["chance"])
    axes.hlines(blind, place - 0.45, place + 0.45, color="black", linewidth=1.2, label="chance")
    axes.set_xticks(place, titles, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--plots", type=Path, metavar="FOLDER", help="draw learning curves and accuracies here"
    )
    parser.add_argument("--quick", action="store_true", help="a minute, to see that everything runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes, began = QUICK if options.quick else Sizes(), time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        task, questions = make_world(root / "clips", sizes)
        print(f"{len(task.clips)} clips of {len(task.pack)} classes to train on")
        layers = {PLAIN: 0, TIMED: 2}
        starts = {name: random_clip(root / f"start-{n}.safetensors", n) for name, n in layers.items()}
        runs = {name: root / f"run-{n}" for name, n in layers.items()}
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:
            settings = [config(starts[name], sizes.epochs, n) for name, n in layers.items()]
            weights = list(pool.map(run_once, layers, settings, [task, task], runs.values()))
        judges = {name: Judge(file) for name, file in zip(layers, weights, strict=True)}
        asked = {"untrained": Judge(starts[PLAIN]), **judges}
        scores: Scores = {"chance": [chance(q.among, q.truth) for q in questions]}
        scores |= {who: [judge(q) for q in questions] for who, judge in asked.items()}
        print_parts(questions, scores)
        print_ways(questions, judges)
        if options.plots:
            draw_curves(runs, len(task.pack), options.plots)
            draw_bars(questions, scores, options.plots)
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
