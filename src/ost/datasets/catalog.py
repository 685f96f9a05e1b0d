"""Benchmarks: their classes, the lists of their videos that come with the package, and where to get the videos."""

from __future__ import annotations

import csv
import lzma
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from ost.catalog import Catalog
from ost.datasets.lists import Entry, numbered
from ost.errors import OstError, UsageError


@dataclass(frozen=True)
class SplitList:
    """A list of labelled videos that comes with the package.

    Attributes:
        file: the list, below `splits`.
        labels: the classes that its numbers stand for, in a file below `splits`.
        count: how many videos it has.
        note: what the videos are, in a few words.
    """

    file: str
    labels: str
    count: int
    note: str


@dataclass(frozen=True)
class Benchmark:
    """A data set that systems are compared on. Its videos do not come with the package.

    Attributes:
        name: as in lists and recipes.
        title: as people write it.
        pack: the shipped pack that describes the classes of its lists.
        labels: all classes of the data set, in a file below `splits`.
        lists: by name.
        home: where the videos are obtained.
        licence: of the videos, as their publisher states it.
        layout: how the videos are arranged once unpacked.
    """

    name: str
    title: str
    pack: str
    labels: str
    lists: Catalog[SplitList]
    home: str
    licence: str
    layout: str


def read_split(benchmark: Benchmark, list_name: str) -> list[Entry]:
    """Read the videos of a list, with the names of their classes.

    Raises:
        UsageError: the benchmark has no list of that name.
        OstError: the package is damaged.
    """
    split = benchmark.lists.find(list_name)
    try:
        entries = list(numbered(_text(split.file), split.file, _names(split.labels)))
    except UsageError as error:
        raise _damaged(split.file) from error
    if len(entries) != split.count:
        raise _damaged(split.file)
    return entries


def class_names(benchmark: Benchmark, list_name: str | None = None) -> tuple[str, ...]:
    """Return the classes of a list, in the order of its numbers; without a list, those of the whole data set.

    Raises:
        UsageError: the benchmark has no list of that name.
        OstError: the package is damaged.
    """
    return _names(benchmark.labels if list_name is None else benchmark.lists.find(list_name).labels)


@cache
def _names(file: str) -> tuple[str, ...]:
    header, *rows = csv.reader(_text(file).splitlines(), strict=True)
    if header != ["id", "name"] or [row[0] for row in rows] != [str(i) for i in range(len(rows))]:
        raise _damaged(file)
    return tuple(name for _, name in rows)


def _text(file: str) -> str:
    try:
        return lzma.decompress(files("ost.datasets").joinpath("splits", file).read_bytes()).decode()
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise _damaged(file) from error


def _damaged(file: str) -> OstError:
    return OstError(f"the list {file} of the package is missing or damaged; reinstall ost-video")


Table = dict[str, tuple[str, int, str]]


def _benchmark(name: str, title: str, *tables: Table, home: str, licence: str, layout: str) -> Benchmark:
    """Build a benchmark, with its lists given as tables: list name -> (label file, length, note)."""
    lists = {
        key: SplitList(f"{name}/{key}.txt.xz", f"{name}/{labels}.csv.xz", count, note)
        for table in tables
        for key, (labels, count, note) in table.items()
    }
    catalog = Catalog(f"list of {title}", lists)
    return Benchmark(name, title, name, f"{name}/labels.csv.xz", catalog, home, licence, layout)


def _few_shot(classes: int) -> Table:
    return {
        f"train-{shots}shot": ("labels", shots * classes, f"{shots} clips a class of the first training list")
        for shots in (2, 4, 8, 16)
    }


def _base_to_novel(bases: int, base_val: int, novel_val: int) -> Table:
    base = {
        f"base-train-{seed}": ("base-labels", 16 * bases, f"16 clips of each base class, seed {seed}")
        for seed in (1, 2, 3)
    }
    return base | {
        "base-val": ("base-labels", base_val, "the first validation list, its base classes"),
        "novel-val": ("novel-labels", novel_val, "the first validation list, its novel classes"),
    }


def _base_train(count: int) -> Table:
    return {"base-train": ("base-labels", count, "the first training list, its base classes")}


def _val(*counts: int) -> Table:
    return {f"val{i}": ("labels", count, f"the official test list {i}") for i, count in enumerate(counts, 1)}


_KINETICS = "https://github.com/cvdfoundation/kinetics-dataset"
_UPLOADERS = "the videos belong to those who uploaded them to YouTube"

_ALL = (
    _benchmark(
        "hmdb51",
        "HMDB-51",
        _val(1530, 1530, 1530),
        _few_shot(51),
        _base_train(1820),
        _base_to_novel(26, 780, 750),
        home="https://serre.lab.brown.edu/hmdb51.html",
        licence="CC BY 4.0",
        layout="a folder per class such as brush_hair/, with .avi files in it",
    ),
    _benchmark(
        "ucf101",
        "UCF-101",
        _val(3783, 3734, 3696),
        _few_shot(101),
        _base_train(5385),
        _base_to_novel(51, 2088, 1695),
        home="https://www.crcv.ucf.edu/data/UCF101.php",
        licence=f"none stated; {_UPLOADERS}",
        layout="a folder per class such as ApplyEyeMakeup/, with v_ApplyEyeMakeup_g01_c01.avi and so on in it",
    ),
    _benchmark(
        "k400",
        "Kinetics-400",
        {
            "train-tiny": ("labels", 60000, "150 training clips a class"),
            "val": ("labels", 19877, "the validation clips that OST, ViFi-CLIP and Text4Vis measure on"),
        },
        _base_to_novel(200, 9944, 9933),
        home=_KINETICS,
        licence=f"CC BY 4.0 for the data set, a list of addresses; {_UPLOADERS}",
        layout="train/ and val/, with 0wR5jVB-WPk_000417_000427.mp4 and so on in them or in class folders below",
    ),
    _benchmark(
        "k600",
        "Kinetics-600",
        {
            f"split{i}": (f"split{i}-labels", count, f"160 classes that Kinetics-400 lacks, draw {i}")
            for i, count in enumerate((14084, 13978, 14136), 1)
        },
        home=_KINETICS,
        licence=f"CC BY 4.0 for the data set, a list of addresses; {_UPLOADERS}",
        layout="train/, val/ and test/, with 0bk_zXtqOTQ_000020_000030.mp4 and so on in them or in class folders below",
    ),
    _benchmark(
        "ssv2",
        "Something-Something V2",
        {"val": ("labels", 24777, "the official validation list")},
        _few_shot(174),
        _base_train(125937),
        _base_to_novel(87, 17562, 7215),
        home="https://www.qualcomm.com/developer/software/something-something-v-2-dataset",
        licence="for research, under an agreement with Qualcomm",
        layout="one folder with 74225.webm and so on in it",
    ),
    _benchmark(
        "anet",
        "ActivityNet 1.3",
        {
            "train": ("labels", 15410, "the labelled spans of the training videos, at one frame a second"),
            "val": ("labels", 4926, "the validation videos, at one frame a second"),
        },
        home="http://activity-net.org/download.html",
        licence=f"none stated; {_UPLOADERS}",
        layout="for validation v_wONwHYy59Tc.mp4 or a folder wONwHYy59Tc/ of frames, "
        "for training 4k-F7EXpcrM_0.mp4 or 4k-F7EXpcrM_0/ for the first span of a video",
    ),
)

BENCHMARKS: Catalog[Benchmark] = Catalog("benchmark", {benchmark.name: benchmark for benchmark in _ALL})
