"""Training recipes: functions that return all settings, with the command, the cost and the expected score.

Costs are estimated from the operations of the towers, at 40% of an H100's peak in bf16, unless they say "measured".
Scores are those published for the method (OST, CVPR 2024; ViFi-CLIP, CVPR 2023), unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ost.archives import is_archive
from ost.catalog import Catalog
from ost.datasets.catalog import BENCHMARKS, class_names
from ost.descriptors.spec import Spec, resolve
from ost.errors import UsageError
from ost.runs import ABSENT, Missing
from ost.sources import LabelledVideos, listed_videos, own_videos
from ost.train.config import TrainConfig, with_settings
from ost.train.task import TrainingTask, make_task


@dataclass(frozen=True)
class Recipe:
    """A training regime and the videos it is for.

    Attributes:
        config: returns the settings, for a number of shots where shots are picked.
        benchmark: the benchmark whose lists name the videos; None for the user's own.
        train, held_out: the lists; "{shots}" and "{seed}" are filled in. None where the user gives the videos.
        note: one line for the list of recipes.
    """

    config: Callable[[int | None], TrainConfig]
    note: str
    benchmark: str | None = None
    train: str | None = None
    held_out: str | None = None

    @property
    def by_shots(self) -> bool:
        """Whether the recipe trains on a few videos a class."""
        return self.benchmark is None or "{shots}" in (self.train or "")


@dataclass(frozen=True)
class Sources:
    """The videos and classes that a user gives a recipe.

    Attributes:
        videos: a folder per class, or the root of a benchmark or a list.
        manifest: the videos to train on; see `ost.sources.own_videos`.
        held_out: the videos to validate on, in the same forms or as a folder per class.
        shots: videos per class; None takes all.
        classes: SPEC; empty takes the recipe's, or the labels of the videos.
    """

    videos: Path | None = None
    manifest: Path | None = None
    held_out: Path | None = None
    shots: int | None = None
    classes: str = ""


def prepare(
    name: str, sources: Sources, changes: Mapping[str, Any], settings: Sequence[str] = ()
) -> tuple[TrainConfig, TrainingTask]:
    """Return the settings of a recipe, and the task: its classes and videos.

    Args:
        name: the recipe's name.
        sources: the user's classes and videos.
        changes: settings that differ from the recipe's.
        settings: more changes, as "key=value".

    Raises:
        UsageError: the recipe or a setting is unknown, or videos are missing.
        PackError: the classes lack a label.
    """
    recipe = RECIPES.find(name)
    config = with_settings(recipe.config(sources.shots).but(**changes), list(settings))
    if sources.classes:
        config = config.but(classes=sources.classes)
    if recipe.benchmark is None:
        training, names = own_videos(sources.videos, sources.manifest), None
    else:
        training, names = _benchmark_clips(recipe, sources, config.seed)
    held_out = _held_out_clips(recipe, sources, names)
    classes: Spec = sources.classes or (names and resolve(config.classes).select(names)) or config.classes
    picked = sources.shots if recipe.benchmark is None or sources.manifest else None
    task = make_task(
        training.videos,
        held_out.videos,
        classes,
        picked,
        config.seed,
        (*_unusable("train", training), *_unusable("held-out", held_out)),
    )
    task.check_missing(config.max_unreadable)
    return config, replace(task, notices=(*training.notices, *held_out.notices))


def _unusable(title: str, source: LabelledVideos) -> list[Missing]:
    """Return the videos of a list that cannot be used."""
    return [
        *(Missing(title, video, ABSENT) for video in source.missing),
        *(Missing(title, video, cause) for video, cause in source.unclear.items()),
    ]


def _benchmark_clips(recipe: Recipe, sources: Sources, seed: int) -> tuple[LabelledVideos, tuple[str, ...]]:
    """Return the videos to train on, and their classes."""
    benchmark = BENCHMARKS.find(recipe.benchmark or "")
    if "{shots}" in (recipe.train or "") and sources.shots is None:
        raise UsageError("how many clips a class? give --shots 2, 4, 8 or 16")
    split = (recipe.train or recipe.held_out or "").format(shots=sources.shots, seed=seed)
    names = class_names(benchmark, split)
    if sources.manifest:
        return own_videos(sources.videos, sources.manifest, names), names
    if recipe.train:
        return listed_videos(benchmark, split, sources.videos), names
    for train in ("train", "train.tar") if sources.videos else ():
        folder = Path(sources.videos or "", train)
        if folder.is_dir() or is_archive(folder):
            return own_videos(folder, None), names
    raise UsageError(
        f"the training list of {benchmark.title} is too long to come with the package; give the official list "
        "with --manifest and --videos, or a folder train/CLASS/ below --videos"
    )


def _held_out_clips(recipe: Recipe, sources: Sources, names: tuple[str, ...] | None) -> LabelledVideos:
    if sources.held_out and (sources.held_out.is_dir() or is_archive(sources.held_out)):
        return own_videos(sources.held_out, None)
    if sources.held_out:
        return own_videos(sources.videos, sources.held_out, names, "test")
    if recipe.benchmark is None or recipe.held_out is None or sources.videos is None:
        return LabelledVideos()
    return listed_videos(BENCHMARKS.find(recipe.benchmark), recipe.held_out, sources.videos)


def k400_zero_shot(shots: int | None = None) -> TrainConfig:
    """Return settings for zero-shot recognition: both towers trained on Kinetics-400, 32 frames.

    Command: torchrun --nproc-per-node 8 -m ost train k400-zero-shot --videos K400
    Cost: about 100 hours of one H100 (240,000 clips x 10 epochs x 32 frames of ViT-B/16).
    Expect: with --blend 0.2, HMDB-51 55.9, UCF-101 79.7, Kinetics-600 75.1 (top-1, mean of three splits).
    """
    return TrainConfig(
        recipe="k400-zero-shot",
        classes="k400",
        frames=32,
        batch=256,
        contrastive_batch=32,
        epochs=10,
        lr=8e-6,
        workers=12,
        save_every=200,
    )


def k400_zero_shot_8f(shots: int | None = None) -> TrainConfig:
    """Return the settings of k400-zero-shot, with 8 frames.

    Command: torchrun --nproc-per-node 8 -m ost train k400-zero-shot-8f --videos K400
    Cost: about 25 hours of one H100.
    Expect: with --blend 0.2, HMDB-51 54.9, UCF-101 77.9, Kinetics-600 73.9.
    """
    return k400_zero_shot().but(recipe="k400-zero-shot-8f", frames=8, chunk=16)


def few_shot(shots: int | None = None) -> TrainConfig:
    """Return few-shot settings as in the paper: both towers, a few videos a class, for your own videos.

    Command: ost train few-shot --videos clips/ --shots 4
    Cost: for 30 videos about 10 minutes of one H100, and most of a day on a laptop; use `adapter` there.
    Expect: see the few-shot recipes of the benchmarks; start from --init-from ost/k400 for the better half of them.
    """
    return TrainConfig(
        recipe="few-shot", frames=32, batch=64, contrastive_batch=64, epochs=50, lr=5e-6, chunk=4
    )


def _few_shot_on(pack: str, rates: dict[int, float], scores: str) -> Callable[[int | None], TrainConfig]:
    def config(shots: int | None = None) -> TrainConfig:
        rate = rates.get(shots or 0, 5e-6)
        # Labels of Something-Something tell left from right: its videos are never mirrored.
        flip = 0.0 if pack == "ssv2" else None
        return few_shot(shots).but(recipe=f"few-shot/{pack}", classes=pack, lr=rate, flip=flip)

    config.__doc__ = f"""Return few-shot settings for {pack}.

    The videos are 2, 4, 8 or 16 a class of split 1; validation is on val 1.

    Command: ost train few-shot/{pack} --videos ROOT --shots 4 [--init-from ost/k400]
    Cost: classes x shots / 100 hours of one H100, such as 2 hours for 51 classes and 4 shots.
    Expect: {scores}
    """
    return config


few_shot_hmdb51 = _few_shot_on(
    "hmdb51", {4: 3.5e-6}, "2/4/8/16 shots: 59.1/62.9/64.9/68.2 from CLIP, 64.8/66.7/69.2/71.6 from ost/k400."
)
few_shot_ucf101 = _few_shot_on(
    "ucf101", {}, "2/4/8/16 shots: 82.5/87.5/91.7/93.9 from CLIP, 90.3/92.6/94.4/96.2 from ost/k400."
)
few_shot_ssv2 = _few_shot_on(
    "ssv2", {16: 2.5e-6}, "2/4/8/16 shots: 7.0/7.7/8.9/12.2 from CLIP, 8.0/8.9/10.5/12.6 from ost/k400."
)


def _base_to_novel(pack: str) -> Callable[[int | None], TrainConfig]:
    def config(shots: int | None = None) -> TrainConfig:
        return few_shot().but(
            recipe=f"base-to-novel/{pack}",
            classes=pack,
            epochs=11,
            warmup_epochs=1,
            seed=1,
            flip=0.0 if pack == "ssv2" else None,
        )

    config.__doc__ = f"""Return base-to-novel settings for {pack}.

    The videos are 16 a class of half of the classes; validation is on other videos of these classes.

    Command: ost train base-to-novel/{pack} --videos ROOT --seed 1   (and 2 and 3; the lists differ)
    Cost: 1 to 5 hours of one H100.
    Expect: the paper gives none; systems are compared by the harmonic mean of base and novel accuracy.
    """
    return config


def supervised(shots: int | None = None) -> TrainConfig:
    """Return settings for training on all videos: image tower, six-layer transformer over time, text tower frozen.

    The temporal head of Text4Vis with this matching, by cross-entropy.

    Command: ost train supervised --manifest train.csv
    Cost: about 25 hours of one H100 a 100,000 clips (ViT-B/16, 8 frames, 30 epochs).
    Expect: see the supervised recipes of the benchmarks.
    """
    return TrainConfig(
        recipe="supervised",
        tune="image",
        loss="classes",
        temporal_layers=6,
        frames=8,
        batch=256,
        contrastive_batch=256,
        chunk=16,
        epochs=30,
        lr=5e-5,
        tower_lr=0.1,
        betas=(0.9, 0.999),
        weight_decay=0.2,
        randaugment=(2, 9),
        jitter=0.0,
        grayscale=0.0,
        workers=12,
        save_every=500,
    )


def _supervised_on(pack: str, scores: str) -> Callable[[int | None], TrainConfig]:
    def config(shots: int | None = None) -> TrainConfig:
        flip = 0.0 if pack == "ssv2" else None
        return supervised().but(recipe=f"supervised/{pack}", classes=pack, flip=flip)

    config.__doc__ = f"""Return settings for fully supervised training on {pack}.

    Command: torchrun --nproc-per-node 8 -m ost train supervised/{pack} --videos ROOT [--manifest LIST]
        [--set backbone=ViT-B-32/openai] [--set frames=16]
    Cost: 60 (ViT-B/16, 8 frames, Kinetics-400), 45 (Something-Something) or 5 (ActivityNet) hours of one H100.
    Expect: B/32-8f, B/32-16f, B/16-8f, B/16-16f: {scores}
    """
    return config


def learned_prompts(shots: int | None = None) -> TrainConfig:
    """Return settings for learning only context vectors, 10 + 10 in 12 layers of both towers: ViFi-CLIP's stage 2.

    Command: ost train prompts --videos clips/ --shots 4 --init-from ost/k400
    Cost: as few-shot, with a tenth of the optimiser's memory.
    Expect: ViFi-CLIP reports 2/4/8/16 shots on HMDB-51 of 57.2/62.7/64.5/66.8 for its own matching.
    """
    return few_shot().but(recipe="prompts", tune="prompts", prompt_count=10, prompt_layers=12, lr=8e-3)


def prompts_base_to_novel(shots: int | None = None) -> TrainConfig:
    """Return settings for learning only context vectors, 16 + 16 in 9 layers, base-to-novel: ViFi-CLIP's stage 2.

    Command: ost train prompts-base-to-novel --manifest base.csv
    Cost, Expect: as prompts; ViFi-CLIP reports no table of this matching.
    """
    return few_shot().but(
        recipe="prompts-base-to-novel",
        tune="prompts",
        prompt_count=16,
        prompt_layers=9,
        lr=4e-2,
        epochs=11,
        warmup_epochs=1,
    )


def lora(shots: int | None = None) -> TrainConfig:
    """Return settings for LoRA of attention and MLPs in both towers (rank 16, needs peft); merged at the end.

    Command: ost train lora --videos clips/ --shots 4
    Cost: as few-shot, with a twentieth of the optimiser's memory.
    Expect: nothing published for this matching.
    """
    return few_shot().but(recipe="lora", tune="lora", lr=1e-4)


def image_only(shots: int | None = None) -> TrainConfig:
    """Return settings for training the image tower with the text tower frozen.

    Command: ost train image-only --videos clips/ --shots 4
    Cost: a little less than few-shot. Expect: ViFi-CLIP found it within a point of tuning both.
    """
    return few_shot().but(recipe="image-only", tune="image")


def text_only(shots: int | None = None) -> TrainConfig:
    """Return settings for training the text tower with the image tower frozen.

    Command: ost train text-only --videos clips/ --shots 4
    Cost: a third of few-shot. Expect: ViFi-CLIP found it a few points below tuning both.
    """
    return few_shot().but(recipe="text-only", tune="text")


def adapter(shots: int | None = None) -> TrainConfig:
    """Return settings for an adapter over frozen towers, on stored embeddings: laptop, 30 videos, any backbone.

    Command: ost train adapter --videos clips/ --shots 4 [--backbone lite]
    Cost: one pass of the towers over the videos, then seconds; see benchmarks for measurements.
    Expect: measured with lite, see benchmarks (adapter_accuracy.py).
    """
    return TrainConfig(recipe="adapter", tune="adapter", loss="classes", frames=32)


def _recipes() -> dict[str, Recipe]:
    entries = {
        "k400-zero-shot": Recipe(
            k400_zero_shot, "both towers on Kinetics-400, 32 frames", "k400", None, "val"
        ),
        "k400-zero-shot-8f": Recipe(k400_zero_shot_8f, "the same, 8 frames", "k400", None, "val"),
        "adapter": Recipe(adapter, "your own clips on a laptop: an adapter over frozen towers"),
        "few-shot": Recipe(few_shot, "your own clips: both towers"),
        "image-only": Recipe(image_only, "your own clips: the image tower"),
        "text-only": Recipe(text_only, "your own clips: the text tower"),
        "prompts": Recipe(learned_prompts, "your own clips: learned prompts, 10 in 12 layers"),
        "prompts-base-to-novel": Recipe(
            prompts_base_to_novel, "your own clips: learned prompts, 16 in 9 layers"
        ),
        "lora": Recipe(lora, "your own clips: low-rank updates"),
        "supervised": Recipe(supervised, "your own clips, many: image tower and a transformer over time"),
    }
    tables: tuple[tuple[str, Any], ...] = (
        ("hmdb51", few_shot_hmdb51),
        ("ucf101", few_shot_ucf101),
        ("ssv2", few_shot_ssv2),
    )
    for name, config in tables:
        held_out = "val" if name == "ssv2" else "val1"
        note = f"2, 4, 8 or 16 clips a class of {name}"
        entries[f"few-shot/{name}"] = Recipe(config, note, name, "train-{shots}shot", held_out)
    for name in ("k400", "hmdb51", "ucf101", "ssv2"):
        note = f"16 clips a class of half of {name}; seeds 1 to 3"
        entries[f"base-to-novel/{name}"] = Recipe(
            _base_to_novel(name), note, name, "base-train-{seed}", "base-val"
        )
    scores = {
        "k400": "78.7, 79.8, 82.0, 83.2",
        "ssv2": "54.4, 56.4, 58.4, 60.3",
        "anet": "84.0, 85.8, 87.1, 88.7",
    }
    for name, expected in scores.items():
        lists = ("train", "val") if name == "anet" else (None, "val")
        entries[f"supervised/{name}"] = Recipe(
            _supervised_on(name, expected),
            f"all of {name}: image tower and a transformer over time",
            name,
            *lists,
        )
    return entries


RECIPES: Catalog[Recipe] = Catalog("recipe", _recipes())
