"""How often is the embedded backbone right with names alone? Top-1 on labelled clips, against chance.

    uv run --group dev benchmarks/lite_accuracy.py CLIPS/manifest.csv --labels ucf101=LABELS.csv

The manifest has the columns path (relative to it), label and dataset. A dataset's classes are the `name`
column of its label list, else the labels that occur in the manifest. No descriptors are used.
"""

import argparse
import csv
import time
from collections import defaultdict
from pathlib import Path

import ost
from ost.descriptors.names import readable
from ost.descriptors.pack import Pack, PackClass
from ost.names import fold


def names_alone(name: str, labels: list[str]) -> Pack:
    return Pack(name, tuple(PackClass(readable(label), label=label) for label in labels))


def label_list(path: str) -> list[str]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return [row["name"] for row in csv.DictReader(file)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--labels", action="append", default=[], metavar="DATASET=CSV")
    parser.add_argument("--frames", type=int, default=32)
    options = parser.parse_args()
    lists = dict(entry.split("=", 1) for entry in options.labels)

    clips: dict[str, list[dict[str, str]]] = defaultdict(list)
    with options.manifest.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            clips[row["dataset"]].append(row)

    model = ost.load("lite", frames=options.frames)
    print("| dataset | clips | classes | top-1 | top-5 | chance | seconds a clip |")
    print("|---|---|---|---|---|---|---|")
    for dataset, rows in clips.items():
        labels = label_list(lists[dataset]) if dataset in lists else sorted({row["label"] for row in rows})
        pack = names_alone(dataset, labels)
        started = time.perf_counter()
        ranks = []
        paths = [options.manifest.parent / row["path"] for row in rows]
        for row, prediction in zip(rows, model.recognize_all(paths, pack), strict=True):
            if isinstance(prediction, ost.VideoError):
                raise prediction
            order = [fold(score.name) for score in prediction.classes]
            ranks.append(order.index(fold(row["label"])))
        seconds = (time.perf_counter() - started) / len(rows)
        top1, top5 = (sum(rank < k for rank in ranks) / len(ranks) for k in (1, 5))
        cells = (dataset, len(rows), len(labels), f"{top1:.1%}", f"{top5:.1%}", f"{1 / len(labels):.1%}")
        print("|", *(f"{cell} |" for cell in (*cells, f"{seconds:.2f}")), flush=True)


if __name__ == "__main__":
    main()
