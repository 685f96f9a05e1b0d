"""How long until training's workers have decoded a first chunk? With and without imports done before they are forked.

    uv run benchmarks/worker_start.py [--workers 4] [--rounds 5]

Whole processes, in turn: each imports `ost.train.data` and then asks the loader for its first chunk of two clips, eight
small pictures; only that is timed. "Each imports" is what the standard library does by itself: every worker imports
torch. Figures are medians.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image


def first_chunk(clip: str, workers: int, preloads: bool) -> float:
    from ost.train import data
    from ost.train.plan import Plan
    from ost.types import Preprocess
    from ost.video.augment import NONE

    if not preloads:
        data.PRELOADED.clear()
    warnings.simplefilter("ignore")  # more workers than cores
    pixels = Preprocess(32, 32, "bilinear", False, (0.5,) * 3, (0.25,) * 3)
    count = 4 * workers
    dataset = data.ClipDataset((clip,) * count, (0,) * count, 4, pixels, NONE, 0.5, 0)
    coming = data.chunks(dataset, Plan(count, 2, 2, 2, 0).from_step(0, 9, 0, 1), workers, pin=False)
    started = time.perf_counter()
    next(coming)
    return time.perf_counter() - started


def timed(*arguments: str) -> float:
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clip", help=argparse.SUPPRESS)
    parser.add_argument("--each", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.clip:
        print(first_chunk(options.clip, options.workers, not options.each))
        return
    with tempfile.TemporaryDirectory() as folder:
        for i in range(4):
            Image.fromarray(np.full((40, 48, 3), 60 * i, np.uint8)).save(Path(folder) / f"{i}.png")
        own = [__file__, "--clip", folder, "--workers", str(options.workers)]
        bare = "import time; t = time.perf_counter(); import torch; print(time.perf_counter() - t)"
        commands = {
            "import torch, in one process": ["-c", bare],
            "each worker imports": [*own, "--each"],
            "ost train: forked after the imports": own,
        }
        times = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, command in commands.items():
                times[name].append(timed(*command))
    medians = {name: statistics.median(values) for name, values in times.items()}
    base = medians["each worker imports"]
    print(f"| first chunk of {options.workers} workers | median s | range | of the second row |")
    print("|---|---|---|---|")
    for name, values in times.items():
        spread = f"{min(values):.1f} to {max(values):.1f}"
        print(f"| {name} | {medians[name]:.2f} | {spread} | {medians[name] / base:.2f} |")


if __name__ == "__main__":
    main()
