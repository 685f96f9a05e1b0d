"""What does reading many videos cost beyond its slower half, and how much memory does it hold?

    uv run --group dev benchmarks/reader.py CLIPS [--repeats 5] [--clip-videos 6]

CLIPS is a folder of videos, read `--repeats` times over with nothing kept. "Decoding alone" is the decoders' part with
the same number of threads; "towers alone" are the same frames, decoded before. The ratio is the slower of the two over
the whole.
"""

import argparse
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

import ost
from ost.backbones.base import Backbone
from ost.errors import VideoError
from ost.recognition.reader import _decoders, decode_views, read_videos
from ost.recognition.settings import Views
from ost.video.find import find_videos
from ost.video.transform import view_pixels


def random_clip() -> Backbone:
    """OpenAI's ViT-B/16 with random weights, in the default precision of this machine."""
    from open_clip import create_model

    from ost.backbones.catalog import clip_preprocess
    from ost.backbones.clip import ClipBackbone
    from ost.backbones.weights import Weights
    from ost.runtime import resolve_dtype

    name = "ViT-B-16-quickgelu"
    torch.manual_seed(0)
    pixels = clip_preprocess(224)
    weights = Weights(create_model(name).state_dict(), "open_clip", "random", pixels, True, name)
    cpu = torch.device("cpu")
    return ClipBackbone(
        name, weights, name, quick_gelu=True, preprocess=pixels, device=cpu, dtype=resolve_dtype("auto", cpu)
    )


def measure(title: str, backbone: Backbone, paths: list[str], views: Views) -> None:
    preprocess = backbone.preprocess
    decoded = [view_pixels(decode_views(paths[0], preprocess, views), preprocess, views.crops)]
    backbone.embed_clips(decoded[0])  # loads what is loaded once
    started = time.perf_counter()
    with ThreadPoolExecutor(_decoders(backbone)) as pool:
        for frames in pool.map(lambda path: decode_views(path, preprocess, views), paths):
            view_pixels(frames, preprocess, views.crops)
    decoding = time.perf_counter() - started
    distinct = dict.fromkeys(paths)
    pixels = {path: view_pixels(decode_views(path, preprocess, views), preprocess) for path in distinct}
    started = time.perf_counter()
    for path in paths:
        backbone.embed_clips(pixels[path])
    towers = time.perf_counter() - started
    del pixels
    started = time.perf_counter()
    lost = sum(isinstance(result, VideoError) for result in read_videos(backbone, paths, views))
    whole = time.perf_counter() - started
    if lost:
        raise SystemExit(f"{lost} videos could not be read")
    ratio = max(decoding, towers) / whole
    print(
        f"| {title} | {len(paths)} | {decoding:.1f} | {towers:.1f} | {whole:.1f} | {ratio:.3f} |", flush=True
    )


def resident() -> float:
    """MiB of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def memory(backbone: Backbone, path: str, count: int) -> None:
    class Quick:
        """The backbone, with towers that take no time."""

        def __init__(self) -> None:
            self.preprocess, self.adapter = backbone.preprocess, None

        def embed_clips(self, pixels: torch.Tensor) -> object:
            from ost.backbones.base import frame_embeddings

            return frame_embeddings(pixels.float().mean((-1, -2)) + 1)

    views = Views(4)
    results = read_videos(Quick(), (path for _ in range(count)), views)  # pyright: ignore
    for _ in range(100):
        next(results)
    before = resident()
    for _ in results:
        pass
    print(f"\n{count} results iterated: {resident() - before:+.0f} MiB (aim: at most +200)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clip-videos", type=int, default=6, help="videos for ViT-B/16")
    parser.add_argument("--results", type=int, default=10_000, help="results for the memory row")
    options = parser.parse_args()
    paths = find_videos([options.clips])
    print("| towers | videos | decoding alone s | towers alone s | whole s | slower / whole |")
    print("|---|---|---|---|---|---|")
    lite = ost.load("lite").backbone
    measure("lite, 32 frames", lite, paths * options.repeats, Views(32))
    clip = random_clip()
    measure(f"ViT-B/16, {clip.precision}, 32 frames", clip, paths[: options.clip_videos], Views(32))
    memory(lite, paths[0], options.results)


if __name__ == "__main__":
    main()
