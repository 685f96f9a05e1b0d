"""Does a training run survive being killed? Runs are killed at random moments until all kills are spent.

    uv run --group dev benchmarks/kill_training.py [--kills 20] [--seed 0]

A tiny CLIP with random weights learns three colours from folders of frames by `ost train few-shot`, with two decoding
processes, a checkpoint every second step, and a validation every epoch. Odd kills are SIGKILL of the whole process
group, even ones SIGTERM. A killed run is resumed; one that ends is compared with the unbroken run to the bit (weights,
and the loss of every step), and the next begins.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from ost.types import Preprocess
from ost.weights.formats import Weights, save_weights

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220)}
SETTINGS = {
    "frames": 4,
    "batch": 6,
    "contrastive_batch": 6,
    "chunk": 2,
    "epochs": 60,
    "warmup_epochs": 2,
    "lr": 1e-3,
    "workers": 2,
    "save_every": 2,
    "precision": "fp32",
}


def tiny_clip(file: Path) -> None:
    import open_clip

    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 64, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
    model = open_clip.CLIP(embed_dim=64, vision_cfg=vision, text_cfg=text, quick_gelu=True)
    state = {k: v for k, v in model.state_dict().items() if k != "attn_mask"}
    pixels = Preprocess(32, 32, "bilinear", False, (0.5,) * 3, (0.25,) * 3)
    save_weights(Weights(state, "open_clip", "", pixels, True), file)


def make_clips(root: Path) -> None:
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        for i in range(8):
            folder = root / f"{name} square" / f"clip{i}"
            folder.mkdir(parents=True)
            for frame in range(8):
                picture = rng.integers(0, 90, (40, 48, 3), dtype=np.uint8)
                picture[10:30, 3 * frame : 3 * frame + 20] = colour
                Image.fromarray(picture).save(folder / f"{frame}.png")


def command(folder: Path, run: Path) -> list[str]:
    settings = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    given = [
        "--videos",
        str(folder / "clips"),
        "--init-from",
        str(folder / "tiny.safetensors"),
        "--shots",
        "6",
    ]
    return [sys.executable, "-m", "ost", "train", "few-shot", *given, *settings, "-o", str(run), "--resume"]


def launch(folder: Path, run: Path) -> subprocess.Popen:
    env = os.environ | {"OMP_NUM_THREADS": "1", "OST_CACHE": str(folder / "cache")}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        command(folder, run), stdout=quiet, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True
    )


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "step"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tiny_clip(folder / "tiny.safetensors")
        make_clips(folder / "clips")
        started = time.perf_counter()
        whole = launch(folder, folder / "whole")
        assert whole.wait() == 0, whole.stderr.read()
        length = time.perf_counter() - started
        wanted, expected = load_file(folder / "whole" / "weights.safetensors"), losses(folder / "whole")
        print(f"unbroken: {len(expected)} steps in {length:.0f} s", flush=True)
        kills, runs, equal = 0, 0, 0
        while kills < options.kills:
            run = folder / f"run{runs}"
            while True:
                process = launch(folder, run)
                kind = (signal.SIGKILL, signal.SIGTERM)[kills % 2]
                try:
                    status = process.wait(moments.uniform(0, length) if kills < options.kills else None)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, kind)
                    kills += 1
                    status, at = process.wait(), len(losses(run)) if (run / "log.jsonl").is_file() else 0
                    print(f"{kind.name} {kills}: run {runs} at step {at}, status {status}", flush=True)
                    continue
                assert status == 0, process.stderr.read()
                break
            found = load_file(run / "weights.safetensors")
            same = all(found[name].equal(tensor) for name, tensor in wanted.items())
            same = same and found.keys() == wanted.keys() and losses(run) == expected
            equal += same
            runs += 1
            print(f"run {runs - 1} ended; weights and losses {'equal' if same else 'DIFFER'}", flush=True)
    print(f"\n{kills} kills over {runs} runs; {equal} of {runs} equal the unbroken run to the bit")
    sys.exit(equal != runs)


if __name__ == "__main__":
    main()
