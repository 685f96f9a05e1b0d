"""How many videos a second does an evaluation do? Against the OST authors' way, same towers, videos and machine.

    uv run --group dev benchmarks/evaluate_speed.py [--packs hmdb51 k400] [--videos FOLDER]
    uv run --group dev benchmarks/evaluate_speed.py --packs hmdb51 --classes 5 --frames 4 --videos-count 4

ViT-B/16 with random weights, 32 frames a video, all prompts of a shipped pack. The authors' way is rebuilt over
open_clip in fp32: for each batch of two videos decode, encode the frames and the prompts of all classes anew, and
iterate Sinkhorn until the batch as a whole moves little. A batch costs the same however many there are, so only a few
are timed, after one with 5 classes that is not. `ost.evaluate.run.answer` is timed over all videos, first with an
empty cache, then with the class head and the embeddings that it kept. It encodes the prompts once, which is timed
apart: the last column is computed, not run, with that time spread over the first validation list of the benchmark.
Reading the weights is not timed. Both must give the same logits for the same pixels in fp32, up to `ALLOWED`: the
authors' Sinkhorn stops early. Each scales pictures in its own way, and what that does to logits is printed too.
"""

import argparse
import os
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import open_clip
import torch
from recognise_speed import random_clip
from torch.nn.functional import interpolate, normalize

from ost.backbones.base import Backbone
from ost.backbones.load import load_backbone
from ost.datasets.manifest import LabelledVideo
from ost.descriptors.pack import Pack
from ost.descriptors.shipped import shipped_pack
from ost.device import cpu_has_fast_bf16
from ost.evaluate.lists import EvaluationList
from ost.evaluate.run import score_lists
from ost.recognition.embed import class_head
from ost.recognition.reader import decode_views
from ost.recognition.recognizer import Settings
from ost.types import BOTH, Preprocess
from ost.video.find import find_videos
from ost.video.transform import transform
from ost.weights.pixels import IMAGENET_MEAN, IMAGENET_STD

LISTS = {"hmdb51": 1530, "k400": 19877}  # videos of the first validation list
BATCH = 2
ALLOWED = 0.1  # of a logit, at a scale of 100


class AuthorsWay:
    """An evaluation as the authors' code does it; `seconds` adds up its parts."""

    def __init__(self, model, pack: Pack, frames: int) -> None:
        self.model, self.frames = model, frames
        tokenizer = open_clip.get_tokenizer("ViT-B-16-quickgelu")
        spatial = [f"This is a video about {d}" for c in pack.classes for d in c.spatial]
        temporal = [f"A video of {c.name} usually includes {d}" for c in pack.classes for d in c.temporal]
        self.tokens = [tokenizer(spatial), tokenizer(temporal)]
        self.classes = len(pack)
        self.seconds: Counter[str] = Counter()

    @torch.inference_mode()
    def batch(self, paths: list[Path]) -> torch.Tensor:
        """Logits [B, A]."""
        marks = [time.perf_counter()]
        pixels = torch.stack([self.pixels(path) for path in paths])
        marks.append(time.perf_counter())
        frames = self.encoded(pixels)
        marks.append(time.perf_counter())
        texts = [normalize(self.model.encode_text(tokens), dim=-1) for tokens in self.tokens]
        self.texts = [some.unflatten(0, (self.classes, -1)) for some in texts]
        marks.append(time.perf_counter())
        logits = self.matched(frames)
        logits.softmax(-1)
        marks.append(time.perf_counter())
        parts = ("decoding", "image tower", "text tower", "matching")
        self.seconds.update(dict(zip(parts, np.diff(marks).tolist(), strict=True)))
        return logits

    @torch.inference_mode()
    def encoded(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B, T, D] of pixels [B, T, 3, 224, 224]."""
        frames = normalize(self.model.encode_image(pixels.flatten(0, 1)), dim=-1)
        return frames.unflatten(0, pixels.shape[:2])

    def matched(self, frames: torch.Tensor) -> torch.Tensor:
        """Logits [B, A] against the prompts of the last batch."""
        score = sum(kind_score(frames, texts) for texts in self.texts)
        return self.model.logit_scale.exp().item() * score / len(self.texts)

    def pixels(self, path: Path) -> torch.Tensor:
        """fp32 [T, 3, 224, 224]: short side 256 without antialias, the centre of it, ImageNet's mean and spread."""
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            decoded = list(container.decode(video=0))
        step = len(decoded) / self.frames
        chosen = [decoded[int(i * step + step / 2)] for i in range(self.frames)]
        images = torch.from_numpy(np.stack([frame.to_ndarray(format="rgb24") for frame in chosen]))
        height, width = images.shape[1:3]
        short = min(height, width)
        size = (height * 256 // short, width * 256 // short)
        images = interpolate(images.permute(0, 3, 1, 2).float(), size, mode="bilinear").round()
        top, left = (size[0] - 224) // 2, (size[1] - 224) // 2
        images = images[..., top : top + 224, left : left + 224] / 255
        return (images - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)


def kind_score(frames: torch.Tensor, texts: torch.Tensor, eps: float = 0.1) -> torch.Tensor:
    """Transport score + mean, [B, A], of frames [B, T, D] and texts [A, N, D]."""
    sim = torch.einsum("btd,and->batn", frames, texts)
    kernel = torch.exp(-(1 - sim) / eps)
    row, column = torch.ones_like(sim[..., 0]), torch.ones_like(sim[..., 0, :])
    for _ in range(100):
        before = row
        row = 1 / sim.shape[-2] / (kernel @ column[..., None])[..., 0]
        column = 1 / sim.shape[-1] / (kernel.mT @ row[..., None])[..., 0]
        if (row - before).abs().mean() < 1e-2:  # over the whole batch
            break
    plan = row[..., None] * kernel * column[..., None, :]
    return (plan * sim).sum((-2, -1)) + sim.mean((-2, -1))


def save_as_authors(model, file: Path) -> None:
    """A checkpoint with the authors' names, which tells that the pixels are theirs too."""
    state = {}
    for name, tensor in model.state_dict().items():
        image = name.startswith("visual.")
        prefix = "" if image or name == "logit_scale" else "text_encoder."
        state["module." + prefix + name.replace("visual.", "image_encoder.", 1)] = tensor
    torch.save({"model": state}, file)


def make_video(path: Path, seed: int, frames: int = 64, width: int = 320, height: int = 240) -> None:
    """Two coloured blobs that wander over a slanted, grainy ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    ground = (rng.uniform(0, 0.3, 3) * x[..., None] + rng.uniform(0, 0.3, 3) * y[..., None]) % 200
    grain = rng.integers(0, 24, (height, width, 1))
    start, way, colours = (
        rng.uniform(60, 180, (2, 2)),
        rng.uniform(-2, 2, (2, 2)),
        rng.uniform(0, 255, (2, 3)),
    )
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 1_000_000
        for i in range(frames):
            picture = ground + grain
            for (down, right), colour in zip(start + i * way, colours, strict=True):
                picture = np.where(((y - down) ** 2 + (x - right) ** 2 < 900)[..., None], colour, picture)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")))
        output.mux(stream.encode())


def timed(action) -> tuple[float, Any]:
    started = time.perf_counter()
    result = action()
    return time.perf_counter() - started, result


class Compared:
    """One pack and the videos, evaluated in both ways.

    Attributes:
        parts: seconds a video in the authors' way, by part.
        rows: of ost: title, seconds for all prompts, seconds for all videos without them.
        apart: how far logits are apart in fp32 where both see the same pixels, and where each sees its own.
    """

    def __init__(self, name: str, model, file: Path, videos: list[Path], options: argparse.Namespace) -> None:
        pack = shipped_pack(name)
        self.name, self.pack = name, pack.select(pack.names[: options.classes])
        self.videos, self.settings = videos, Settings(frames=options.frames)
        self.few = videos[: BATCH * (options.batches or (2 if len(self.pack) <= 100 else 1))]
        self.batches = [self.few[i : i + BATCH] for i in range(0, len(self.few), BATCH)]
        few_classes = self.pack.select(self.pack.names[:5])
        AuthorsWay(model, few_classes, options.frames).batch(self.batches[0])  # warms up
        plain = AuthorsWay(model, self.pack, options.frames)
        own = torch.cat([plain.batch(batch) for batch in self.batches])
        self.parts = {part: spent / len(self.few) for part, spent in plain.seconds.items()}
        self.rows: list[tuple[str, float, float]] = []
        for dtype in ("auto", "fp32") if cpu_has_fast_bf16() else ("fp32",):
            backbone = load_backbone(None, file, device="cpu", dtype=dtype)
            title = f"ost, {backbone.precision}" + ("" if self.rows else " (default)")
            prompts, _ = timed(lambda on=backbone: class_head(on, self.pack, BOTH))
            cold, logits = timed(lambda on=backbone: self.answered(on))
            warm, _ = timed(lambda on=backbone: self.answered(on))
            self.rows += [(title, prompts, cold), (f"{title}, kept embeddings", 0.0, warm)]
        frames = [self.seen(batch, backbone.preprocess) for batch in self.batches]
        same = torch.cat([plain.matched(plain.encoded(pixels)) for pixels in frames])
        self.spread = float(same.max() - same.min())
        self.apart = tuple(float((logits[: len(self.few)] - some).abs().max()) for some in (same, own))

    def answered(self, backbone: Backbone) -> torch.Tensor:
        """Logits [n, A]."""
        video_list = EvaluationList(
            self.name, self.pack, [LabelledVideo(path, self.pack.names[0]) for path in self.videos]
        )
        ((found,),) = score_lists(backbone, [video_list], self.settings).values()
        if found.unreadable:
            raise SystemExit(f"cannot be read: {found.unreadable}")
        return torch.from_numpy(found.logits)

    def seen(self, paths: list[Path], preprocess: Preprocess) -> torch.Tensor:
        """The pixels [B, T, 3, 224, 224] that ost shows its image tower."""
        frames = [decode_views(path, preprocess, self.settings.sampled) for path in paths]
        return torch.cat([transform(some, preprocess) for some in frames])

    def show(self) -> None:
        n, few, listed, base = len(self.videos), len(self.few), LISTS[self.name], sum(self.parts.values())
        frames, prompts = self.settings.frames, self.parts["text tower"]
        print(f"\n{self.name}: {len(self.pack)} classes, {frames} frames a video; ", end="")
        print(f"videos timed: authors' way {few}, ost {n}\n")
        print(
            "| evaluation | prompts, s | a video without prompts, s | videos a second, prompts included ",
            end="",
        )
        print(f"| x, these {n} videos | x, all {listed:,} of a list (computed) |\n|---|---|---|---|---|---|")
        print(f"| authors' way, float32 | {prompts * BATCH:.1f} for every {BATCH} videos ", end="")
        print(f"| {base - prompts:.3f} | {1 / base:.3f} | 1 | 1 |")
        for title, once, seconds in self.rows:
            here, there = (once + seconds) / n, once / listed + seconds / n
            print(f"| {title} | {f'{once:.1f} once' if once else 'kept'} | {seconds / n:.3f} ", end="")
            print(f"| {1 / here:.3f} | {base / here:.1f} | {base / there:.1f} |")
        parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in self.parts.items())
        print(f"\nauthors' way, s a video: {parts}")
        print(
            f"logits in fp32 over {self.spread:.1f} are apart by at most {self.apart[0]:.4f} from the same ",
            end="",
        )
        print(f"pixels, {self.apart[1]:.4f} from each way's own", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packs", nargs="+", choices=LISTS, default=list(LISTS))
    parser.add_argument("--classes", type=int, help="only the first so many of a pack")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--videos", type=Path, help="a folder of real ones instead of made ones")
    parser.add_argument("--videos-count", type=int, default=24)
    parser.add_argument("--batches", type=int, help="of the authors' way; default 2, beyond 100 classes 1")
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, bf16 in hardware: {cpu_has_fast_bf16()}")
    with TemporaryDirectory() as folder:
        model, _ = random_clip(Path(folder))
        save_as_authors(model, file := Path(folder, "weights.pt"))
        if options.videos:
            videos = [Path(path) for path in find_videos([options.videos])[: options.videos_count]]
        else:
            videos = [Path(folder, f"{i}.mp4") for i in range(options.videos_count)]
            for i, path in enumerate(videos):
                make_video(path, seed=i)
        worst = 0.0
        for name in options.packs:
            os.environ["OST_CACHE"] = str(Path(folder, "cache", name))
            compared = Compared(name, model, file, videos, options)
            compared.show()
            worst = max(worst, compared.apart[0])
    if worst > ALLOWED:
        raise SystemExit(f"logits of the same pixels differ by more than {ALLOWED}")


if __name__ == "__main__":
    main()
