"""What does reading many videos cost beyond its slower half, and how much memory does it hold?

    uv run --group dev benchmarks/reader.py CLIPS [--repeats 5] [--clip-videos 6] [--labelled FOLDER]

CLIPS is a folder of videos, read `--repeats` times over with nothing kept. "Decoding alone" is the decoders' part with
the same number of threads; "towers alone" are the same frames, decoded before. The ratio is the slower of the two over
the whole. Then: memory, processes against threads for decoding, and with `--labelled`, a folder of classes of HMDB51,
evaluation and recognition from kept embeddings.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

import ost
from ost.backbones.base import Backbone
from ost.errors import VideoError
from ost.recognition.decoding import decode_views
from ost.recognition.reader import _decoders, read_videos
from ost.recognition.settings import FrameRate, Settings
from ost.types import FrameEmbeddings, Preprocess
from ost.video.find import find_videos
from ost.video.transform import view_pixels


def random_clip() -> Backbone:
    """OpenAI's ViT-B/16 with random weights, in the default precision of this machine."""
    from open_clip import create_model

    from ost.backbones.clip import ClipBackbone
    from ost.device import resolve_dtype
    from ost.weights.formats import Weights
    from ost.weights.pixels import clip_preprocess

    name = "ViT-B-16-quickgelu"
    torch.manual_seed(0)
    pixels = clip_preprocess(224)
    weights = Weights(create_model(name).state_dict(), "open_clip", "random", pixels, True, name)
    cpu = torch.device("cpu")
    return ClipBackbone(
        name, weights, name, quick_gelu=True, preprocess=pixels, device=cpu, dtype=resolve_dtype("auto", cpu)
    )


def measure(title: str, backbone: Backbone, paths: list[str], views: Settings) -> None:
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


class Quick:
    """Towers that take no time."""

    adapter, device = None, torch.device("cpu")

    def __init__(self, preprocess: Preprocess) -> None:
        self.preprocess = preprocess

    def embed_clips(self, pixels: torch.Tensor) -> FrameEmbeddings:
        from ost.backbones.base import frame_embeddings

        return frame_embeddings(pixels[..., 0].float().mean(-1) + 1)


def resident(peak: bool = False) -> float:
    """MiB of this process, now or at most since `forget_peak`."""
    if not peak:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**10


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def memory(preprocess: Preprocess, path: str, count: int) -> None:
    """What is held while many results are iterated, and at most for one video of 40 views and one of any length."""
    results = read_videos(Quick(preprocess), (path for _ in range(count)), Settings(4))  # pyright: ignore
    for _ in range(100):
        next(results)
    before = resident()
    for _ in results:
        pass
    print(f"\n{count} results iterated: {resident() - before:+.0f} MiB (aim: at most +200)")

    views = Settings(32, clips=4, crops=10)
    pixels = 40 * 32 * 3 * preprocess.size**2 / 2**20
    list(read_videos(Quick(preprocess), [path], Settings(4)))  # pyright: ignore
    forget_peak()
    before = resident()
    list(read_videos(Quick(preprocess), [path], views))  # pyright: ignore
    peak = resident(peak=True) - before
    print(
        f"4 x 10 views of a clip: {peak:.0f} MiB for {pixels:.0f} MiB of pixels, {peak / pixels:.2f} (aim: < 2)"
    )


def long_film(preprocess: Preprocess, path: str, minutes: int) -> None:
    """What a long film at a frame rate holds at most."""
    import av

    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        with av.open(path) as source, av.open(str(film), "w") as output:
            pictures = [frame.reformat(320, 240, "yuv420p") for frame in source.decode(video=0)][:100]
            stream = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            for i in range(minutes * 60 * 25):
                picture = pictures[i % len(pictures)]
                picture.pts, picture.time_base = i, Fraction(1, 25)
                output.mux(stream.encode(picture))
            output.mux(stream.encode())
        del pictures
        forget_peak()
        before, started = resident(), time.perf_counter()
        chunks = sum(1 for _ in read_videos(Quick(preprocess), [film], FrameRate()))  # pyright: ignore
        seconds, peak = time.perf_counter() - started, resident(peak=True) - before
    print(
        f"{minutes} minutes at 4 frames a second: {chunks} chunks in {seconds:.1f} s, at most {peak:+.0f} MiB"
    )


def one_video(path: str, preprocess: Preprocess, views: Settings) -> int:
    """Decode a video as a decoder does, in a process of its own or in a thread; gives its bytes."""
    return view_pixels(decode_views(path, preprocess, views), preprocess).nbytes


def processes(preprocess: Preprocess, paths: list[str]) -> None:
    """Decoding in as many threads as there are cores, against as many processes that hand over their pixels."""
    cores, views = os.cpu_count() or 1, Settings(32)

    def seconds(pool: Executor, work: Callable[..., object]) -> float:
        list(pool.map(work, paths[: 2 * cores]))  # starts the workers
        started = time.perf_counter()
        list(pool.map(work, paths))
        return time.perf_counter() - started

    work = partial(one_video, preprocess=preprocess, views=views)
    with ThreadPoolExecutor(cores) as pool:
        threads = seconds(pool, work)
    with ProcessPoolExecutor(cores, get_context("forkserver"), torch.set_num_threads, (1,)) as pool:
        apart = seconds(pool, work)
        handed = seconds(pool, partial(view_of, preprocess=preprocess, views=views))
    print(
        f"\n{len(paths)} videos decoded by {cores} threads in {threads:.1f} s; by {cores} processes in {apart:.1f} s, "
        f"and {handed:.1f} s where they hand over their pixels"
    )


def view_of(path: str, preprocess: Preprocess, views: Settings) -> torch.Tensor:
    """The pixels of a video."""
    return view_pixels(decode_views(path, preprocess, views), preprocess)


def kept(labelled: Path, copies: int) -> None:
    """Evaluation and recognition of copies of labelled videos, the first time and from kept embeddings."""
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder) / "videos"
        for file in sorted(path for path in labelled.rglob("*") if path.is_file()):
            for i in range(copies):
                place = videos / file.parent.name / f"{i}-{file.name}"
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, place)
        environment = os.environ | {"OST_CACHE": f"{folder}/cache"}
        common = ["--backbone", "lite", "--frames", "8"]
        evaluate = ["evaluate", "own", "--videos", str(videos), "--classes", "hmdb51", "--ablate", *common]
        recognize = ["recognize", str(videos), "--json", *common, "--classes"]
        print("\n| command | the first time s | from kept embeddings s | of that, reading and matching s |")
        print("|---|---|---|---|")
        for title, commands in (
            ("ost evaluate own --ablate", [[*evaluate, "--output", f"{folder}/{i}"] for i in range(2)]),
            (
                "ost recognize, another list",
                [[*recognize, "walk,run", "--no-cache"], [*recognize, "sit,stand"]],
            ),
        ):
            took: list[float] = []
            for command in commands:
                started = time.perf_counter()
                ost_command = [sys.executable, "-m", "ost", *command]
                subprocess.run(ost_command, env=environment, check=True, stdout=subprocess.DEVNULL)
                took.append(time.perf_counter() - started)
            inner = ""
            if title.startswith("ost evaluate"):
                inner = f"{json.loads(Path(folder, '1', 'run.json').read_text())['seconds']:.1f}"
            count = sum(1 for path in videos.rglob("*") if path.is_file())
            print(f"| {title}, {count} videos | {took[0]:.1f} | {took[1]:.1f} | {inner} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clip-videos", type=int, default=6, help="videos for ViT-B/16")
    parser.add_argument("--results", type=int, default=10_000, help="results for the memory row")
    parser.add_argument("--minutes", type=int, default=60, help="length of the long film")
    parser.add_argument("--labelled", type=Path, help="a folder of classes of HMDB51")
    parser.add_argument("--copies", type=int, default=6, help="of each labelled video")
    options = parser.parse_args()
    paths = find_videos([options.clips])
    lite = ost.load("lite").backbone
    if options.repeats:
        print("| towers | videos | decoding alone s | towers alone s | whole s | slower / whole |")
        print("|---|---|---|---|---|---|")
        measure("lite, 32 frames", lite, paths * options.repeats, Settings(32))
        clip = random_clip()
        measure(f"ViT-B/16, {clip.precision}, 32 frames", clip, paths[: options.clip_videos], Settings(32))
        del clip
    from ost.weights.pixels import clip_preprocess

    memory(clip_preprocess(224), paths[0], options.results)
    long_film(clip_preprocess(224), paths[0], options.minutes)
    processes(clip_preprocess(224), paths)
    if options.labelled:
        kept(options.labelled, options.copies)


if __name__ == "__main__":
    main()
