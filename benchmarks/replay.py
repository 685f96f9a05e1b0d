"""Does a contrastive batch of 256 clips x 32 frames fit, and is its gradient that of one piece?

    uv run --group dev benchmarks/replay.py [--clips 256] [--frames 32] [--chunk 8]

A tiny CLIP with random weights (4 + 2 layers, 32 pixels) takes one contrastive step over random clips of as many
classes as there are clips, first in chunks whose activations are thrown away and computed again, then in one piece
that keeps them all. Each in a process of its own; memory is the most that the process held above its start.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ost.descriptors.pack import Pack, PackClass
from ost.ranks import Ranks
from ost.train.config import TrainConfig
from ost.train.data import TowerBatch
from ost.train.learner import load_learner
from ost.train.plan import RankShare
from ost.train.step import step_gradient
from ost.types import Preprocess
from ost.video.augment import NONE, Colour
from ost.weights.formats import Weights, save_weights


def tiny_clip(file: Path) -> None:
    import open_clip

    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 4, "width": 64, "head_width": 64, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
    model = open_clip.CLIP(embed_dim=64, vision_cfg=vision, text_cfg=text, quick_gelu=True)
    state = {k: v for k, v in model.state_dict().items() if k != "attn_mask"}
    pixels = Preprocess(32, 32, "bilinear", False, (0.5,) * 3, (0.25,) * 3)
    save_weights(Weights(state, "open_clip", "", pixels, True), file)


def one_step(weights: str, clips: int, frames: int, chunk: int, target: str) -> None:
    """Leave the gradient in a file; print seconds, loss and memory."""
    names = [f"action {i}" for i in range(clips)]
    pack = Pack("made", tuple(PackClass(n, (f"a thing of {n}",), (f"first {n}", f"then {n}")) for n in names))
    config = TrainConfig(
        weights=weights,
        frames=frames,
        batch=clips,
        contrastive_batch=clips,
        precision="fp32",
        replay=chunk < clips,
    )
    learner = load_learner(config, pack, "cpu", NONE, lambda _: None)
    generator = torch.Generator().manual_seed(1)
    chunks = []
    for start in range(0, clips, chunk):
        own = range(start, min(start + chunk, clips))
        shape = (len(own), frames, 3, 32, 32)
        pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        chunks.append(
            TowerBatch(pixels, torch.tensor([*own]), (Colour(),) * len(own), tuple(names[i] for i in own))
        )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    loss, _ = step_gradient(learner, (RankShare(tuple(() for _ in chunks), 1.0),), iter(chunks), Ranks())
    seconds = time.perf_counter() - started
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    save_file({name: p.grad for name, p in learner.parameters.items()}, target)
    print(json.dumps({"seconds": seconds, "loss": loss, "memory": memory}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--chunk", type=int, default=8)
    parser.add_argument(
        "--one", nargs=2, metavar=("WEIGHTS", "TARGET"), help="one step, for the script itself"
    )
    options = parser.parse_args()
    if options.one:
        weights, target = options.one
        one_step(weights, options.clips, options.frames, options.chunk, target)
        return
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "tiny.safetensors")
        tiny_clip(weights)
        told, gradients = {}, {}
        for name, chunk in {"chunks": options.chunk, "one piece": options.clips}.items():
            target = Path(folder, name)
            sizes = ["--clips", options.clips, "--frames", options.frames, "--chunk", chunk]
            command = [sys.executable, __file__, *map(str, sizes), "--one", str(weights), str(target)]
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            told[name], gradients[name] = json.loads(out), load_file(target)
    whole = gradients["one piece"]
    worst = max(
        float((gradients["chunks"][n] - g).abs().max() / g.abs().max().clamp(min=1)) for n, g in whole.items()
    )
    print(f"{options.clips} clips x {options.frames} frames, chunks of {options.chunk}\n")
    print("| | s | GiB above the start | loss |")
    print("|---|---|---|---|")
    for name, found in told.items():
        print(f"| {name} | {found['seconds']:.0f} | {found['memory']:.2f} | {found['loss']:.6f} |")
    print(f"\ngradients differ by at most {worst:.1e} of a tensor's largest element, or of 1")


if __name__ == "__main__":
    main()
