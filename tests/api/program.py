"""A program of a user, which mypy and pyright check and a test runs: python program.py CLIP URL."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import ost


def inputs(clip: str) -> Iterator[str | bytes | Path]:
    """Yield 1,000 inputs, of which every hundredth is no video."""
    for i in range(1000):
        yield b"no video" if i % 100 == 99 else Path(clip) if i % 2 else clip


def main(clip: str, url: str) -> None:
    """Recognise frames from memory, a URL and many inputs; learn a probe; make a table."""
    model = ost.load("lite", frames=8, kinds=["spatial", "temporal"], dtype=torch.float32)
    pack = ost.pack(["riding a bike", "BalanceBeam", "brush_hair"])
    frames = np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3), dtype=np.uint8)
    times = [i / 10 for i in range(len(frames))]
    seen = model.recognize(ost.FrameSequence(frames, times=times, name="memory"), pack)
    print(seen.path, seen.plan("BalanceBeam").name, [score.label for score in seen.classes])
    print(model.recognize(url, pack).top(1)[0].label)
    results = list(model.recognize_all(inputs(clip), pack))
    failures = [result for result in results if isinstance(result, ost.VideoError)]
    features = torch.cat([model.embed(video).values.mean(1) for video in (clip, frames)])
    probe = torch.nn.Linear(features.shape[1], 2)
    torch.nn.functional.cross_entropy(probe(features), torch.tensor([0, 1])).backward()
    table = ost.to_table(results)
    print(len(failures), table.num_rows, table.column("error").null_count, probe.weight.grad is not None)


if __name__ == "__main__":
    main(*sys.argv[1:])
