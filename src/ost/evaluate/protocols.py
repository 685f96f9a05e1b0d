"""Define the evaluation protocols: lists of a benchmark, how their numbers combine, and published results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ost.catalog import Catalog
from ost.datasets.catalog import BENCHMARKS, class_names, read_split
from ost.descriptors.pack import Pack
from ost.descriptors.spec import Spec, resolve
from ost.evaluate.lists import EvaluationList
from ost.sources import LabelledVideos, listed_videos, own_videos

Combine = Literal["mean", "harmonic"]


@dataclass(frozen=True)
class Protocol:
    """An evaluation protocol, as papers report it.

    Attributes:
        benchmark: name of the benchmark whose lists name the videos and the classes.
        splits: the lists; each is scored among its own classes.
        note: one line that describes the protocol where protocols are listed.
        combine: the mean over the splits, or the harmonic mean of base and novel.
        published: system -> its published top-1, in %.
        draws: if not 0, the number of times that half of the classes are drawn to score the videos of all splits.
        precision: whether mAP is reported, though every video has one label.
    """

    benchmark: str
    splits: tuple[str, ...]
    note: str
    combine: Combine = "mean"
    published: Mapping[str, str] = field(default_factory=dict[str, str])
    draws: int = 0
    precision: bool = False

    @property
    def titles(self) -> tuple[str, ...]:
        """Return the titles of the rows of the protocol's table."""
        return tuple(f"draw {i}" for i in range(1, self.draws + 1)) or self.splits


def protocol_lists(protocol: Protocol, videos: Path | None, spec: Spec = "") -> list[EvaluationList]:
    """Return the lists of a protocol with the videos below a folder, each with its own classes.

    Args:
        protocol: the protocol.
        videos: the root of the benchmark.
        spec: descriptors that replace the shipped ones; must hold the classes of the lists.

    Raises:
        UsageError: no video of a list is there.
        PackError: `spec` lacks a class.
    """
    benchmark = BENCHMARKS.find(protocol.benchmark)
    pack = resolve(spec or benchmark.pack)
    lists = [
        _list_of(split, pack.select(class_names(benchmark, split)), listed_videos(benchmark, split, videos))
        for split in protocol.splits
    ]
    if not protocol.draws:
        return lists
    labels = {e.video: e.labels[0] for split in protocol.splits for e in read_split(benchmark, split)}
    return _draw_classes(protocol, class_names(benchmark), lists, labels)


def _draw_classes(
    protocol: Protocol, names: Sequence[str], lists: Sequence[EvaluationList], labels: Mapping[str, str]
) -> list[EvaluationList]:
    """Return the videos of all lists, each once, among half of the classes, drawn with the seeds 0 to 9.

    Text4Vis draws in the same way from its own order of the classes. Its order of HMDB-51 has two pairs swapped, so 8
    of its 10 draws differ from these by one or two classes.
    """
    videos = list(dict.fromkeys(video for one in lists for video in one.videos))
    missing = list(dict.fromkeys(video for one in lists for video in one.missing))
    unclear = {video: cause for one in lists for video, cause in one.unclear.items()}
    drawn_lists: list[EvaluationList] = []
    for seed, title in enumerate(protocol.titles):
        order = np.random.RandomState(seed).permutation(len(names))[: len(names) // 2]
        drawn = [names[int(i)] for i in order]
        listing = LabelledVideos(
            [video for video in videos if video.label in set(drawn)],
            tuple(video for video in missing if labels[video] in set(drawn)),
            lists[0].notices,
            {video: cause for video, cause in unclear.items() if labels[video] in set(drawn)},
        )
        drawn_lists.append(_list_of(title, lists[0].pack.select(drawn), listing))
    return drawn_lists


def _list_of(title: str, pack: Pack, listing: LabelledVideos) -> EvaluationList:
    return EvaluationList(title, pack, listing.videos, listing.missing, listing.notices, listing.unclear)


def own_lists(videos: Path | None, manifest: Path | None, spec: Spec = "") -> list[EvaluationList]:
    """Return the user's own videos, with the classes of `spec` or of their labels.

    Raises:
        UsageError: they cannot be read.
        PackError: `spec` lacks a label.
    """
    listing = own_videos(videos, manifest, None, "test")
    labels = sorted({label for video in listing.videos for label in (video.label, *video.others)})
    return [_list_of("own", resolve(spec or labels), listing)]


OWN_PROTOCOL = Protocol("", (), "your own videos: --manifest FILE, or --videos with a folder for each class")


def _protocols() -> dict[str, Protocol]:
    three = ("val1", "val2", "val3")
    zero_shot = "classes that were not trained"
    half = "classes that were not trained, half of them at a time, 10 draws"
    protocols = {
        "zero-shot/hmdb51": Protocol("hmdb51", three, zero_shot, published=ZERO_SHOT["hmdb51"]),
        "zero-shot/ucf101": Protocol("ucf101", three, zero_shot, published=ZERO_SHOT["ucf101"]),
        "zero-shot/k600": Protocol(
            "k600", ("split1", "split2", "split3"), zero_shot, published=ZERO_SHOT["k600"]
        ),
        "zero-shot/k400": Protocol("k400", ("val",), "for backbones that Kinetics-400 did not tune"),
        "zero-shot/anet": Protocol("anet", ("val",), zero_shot, precision=True),
        "half-class/hmdb51": Protocol("hmdb51", three, half, published=HALF_CLASS["hmdb51"], draws=10),
        "half-class/ucf101": Protocol("ucf101", three, half, published=HALF_CLASS["ucf101"], draws=10),
    }
    for name, published in FEW_SHOT.items():
        split = "val" if name == "ssv2" else "val1"
        protocols[f"few-shot/{name}"] = Protocol(
            name, (split,), "after 2, 4, 8 or 16 shots", published=published
        )
    for name in ("k400", "hmdb51", "ucf101", "ssv2"):
        both = ("base-val", "novel-val")
        protocols[f"base-to-novel/{name}"] = Protocol(
            name, both, "after 16 shots of half of the classes", "harmonic"
        )
    for name, published in SUPERVISED.items():
        protocols[f"supervised/{name}"] = Protocol(
            name, ("val",), "after all training clips", published=published, precision=name == "anet"
        )
    return protocols


# OST (CVPR 2024), tables 1 to 4; frames in brackets. K600 has top-1 and top-5.
ZERO_SHOT: dict[str, dict[str, str]] = {
    "hmdb51": {
        "OST (32)": "55.9 ± 1.2",
        "OST (8)": "54.9 ± 1.1",
        "ViFi-CLIP": "51.3",
        "MAXI": "52.3",
        "CLIP": "40.8",
    },
    "ucf101": {
        "OST (32)": "79.7 ± 1.1",
        "OST (8)": "77.9 ± 1.3",
        "ViFi-CLIP": "76.8",
        "MAXI": "78.2",
        "CLIP": "63.2",
    },
    "k600": {
        "OST (32)": "75.1 ± 0.6, top-5 94.6 ± 0.2",
        "OST (8)": "73.9 ± 0.8, top-5 94.1 ± 0.3",
        "ViFi-CLIP": "71.2, top-5 92.2",
        "MAXI": "71.5, top-5 92.5",
        "CLIP": "59.8, top-5 83.5",
    },
}
# BIKE (CVPR 2023), over all videos of the data set.
HALF_CLASS: dict[str, dict[str, str]] = {
    "hmdb51": {"BIKE, ViT-L/14 (8)": "61.4 ± 3.7"},
    "ucf101": {"BIKE, ViT-L/14 (8)": "86.6 ± 3.4"},
}
FEW_SHOT: dict[str, dict[str, str]] = {
    "hmdb51": {
        "from CLIP, 2/4/8/16 shots": "59.1/62.9/64.9/68.2",
        "from K400 weights": "64.8/66.7/69.2/71.6",
    },
    "ucf101": {
        "from CLIP, 2/4/8/16 shots": "82.5/87.5/91.7/93.9",
        "from K400 weights": "90.3/92.6/94.4/96.2",
    },
    "ssv2": {"from CLIP, 2/4/8/16 shots": "7.0/7.7/8.9/12.2", "from K400 weights": "8.0/8.9/10.5/12.6"},
}
SUPERVISED: dict[str, dict[str, str]] = {
    "k400": {"B/32-8f, B/32-16f, B/16-8f, B/16-16f": "78.7, 79.8, 82.0, 83.2"},
    "ssv2": {"B/32-8f, B/32-16f, B/16-8f, B/16-16f": "54.4, 56.4, 58.4, 60.3"},
    "anet": {"B/32-8f, B/32-16f, B/16-8f, B/16-16f": "84.0, 85.8, 87.1, 88.7"},
}

PROTOCOLS: Catalog[Protocol] = Catalog("protocol", _protocols())


def published_accuracy(weights: str) -> str:
    """Return the top-1 that the paper reports for its published weights ("ost/..."), with the benchmarks.

    Of "ost/k400" it is the zero-shot table, with 32 frames and a blend; of the others the few-shot table.
    """
    name = weights.removeprefix("ost/")
    if name == "k400":
        return ", ".join(
            f"{ZERO_SHOT[key]['OST (32)'].split()[0]} {BENCHMARKS[key].title}" for key in ("hmdb51", "ucf101")
        )
    data, shots, *k400 = name.split("-")
    key = {"hmdb": "hmdb51", "ucf": "ucf101", "ssv2": "ssv2"}[data]
    table = FEW_SHOT[key]["from K400 weights" if k400 else "from CLIP, 2/4/8/16 shots"]
    top1 = table.split("/")[("2shot", "4shot", "8shot", "16shot").index(shots)]
    return f"{top1} {BENCHMARKS[key].title}"
