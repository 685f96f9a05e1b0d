"""How much of a full decode does sparse sampling of a long film cost?

Encodes a minute of 1920x1080 H.264 (25 frames a second, a keyframe every `--gop` frames), repeats its packets
up to the wanted length, and times in one run: decoding everything, and taking 32 frames in both samplings.

    uv run --group dev benchmarks/long_video.py --minutes 60
"""

import argparse
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ost.types import Preprocess
from ost.video.decode import decode
from ost.video.sample import test_indices as middle_indices
from ost.video.transform import transform  # brings in torch, whose import is not to be timed

RATE, SIZE, SEGMENT_SECONDS = 25, (1920, 1080), 60
CLIP = Preprocess(224, 224, "bicubic", True, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
METHOD = Preprocess(224, 256, "bilinear", False, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def make_segment(path, gop):
    """A minute of a window that moves slowly over a coloured, textured plane."""
    width, height = SIZE
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 40 + 20, width // 40 + 60, 3), np.uint8)
    plane = av.VideoFrame.from_ndarray(coarse, format="rgb24")
    plane = plane.reformat(coarse.shape[1] * 40, coarse.shape[0] * 40, interpolation="BICUBIC").to_ndarray()
    noise = rng.integers(-12, 13, (*plane.shape[:2], 1))
    plane = (plane.astype(np.int16) + noise).clip(0, 255).astype(np.uint8)
    with av.open(str(path), "w") as output:
        options = {"preset": "ultrafast", "crf": "26", "x264-params": f"keyint={gop}:min-keyint={gop}"}
        stream = output.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(SEGMENT_SECONDS * RATE):
            x, y = i, i // 3
            window = np.ascontiguousarray(plane[y : y + height, x : x + width])
            frame = av.VideoFrame.from_ndarray(window, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, RATE)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


def repeat(segment, path, minutes):
    """Copy the segment's packets again and again, each time a minute later."""
    with av.open(str(segment)) as source, av.open(str(path), "w") as output:
        template = source.streams.video[0]
        stream = output.add_stream_from_template(template)
        length = int(SEGMENT_SECONDS / template.time_base)
        for n in range(minutes):
            source.seek(0)
            for packet in source.demux(template):
                if packet.size:
                    packet.pts, packet.dts = packet.pts + n * length, packet.dts + n * length
                    packet.stream = stream
                    output.mux(packet)


def decode_all(path):
    """Every frame, on as many threads as FFmpeg likes; none is converted."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        return sum(1 for _ in container.decode(video=0))


def take(path, frames, sampling, preprocess):
    """What recognising does before the towers."""
    taken = decode(path, frames=frames, sampling=sampling, preprocess=preprocess)
    transform(taken, preprocess)
    return taken


def measure(path, frames):
    """(what, seconds, what came out) of each way to read the film."""
    rows = []

    def timed(what, call):
        started = time.perf_counter()
        result = call()
        rows.append((what, time.perf_counter() - started, result))
        return result

    for name, preprocess in (("CLIP", CLIP), ("256, no antialias", METHOD)):
        for sampling in ("keyframes", "uniform"):
            timed(
                f"{sampling}, {name}",
                lambda s=sampling, p=preprocess: take(path, frames, s, p),
            )
    count = timed("every frame decoded, none converted", lambda: decode_all(path))
    return rows, count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--gop", type=int, default=125, help="frames from keyframe to keyframe")
    parser.add_argument("--frames", type=int, default=32)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        segment, path = Path(folder) / "segment.mp4", Path(folder) / "long.mp4"
        make_segment(segment, options.gop)
        repeat(segment, path, options.minutes)
        size = path.stat().st_size / 2**20
        rows, count = measure(path, options.frames)
    full = rows[-1][1]
    wanted = [i / RATE for i in middle_indices(count, options.frames)]
    film = f"{options.minutes} minutes of 1920x1080 H.264, {count} frames, {size:.0f} MiB"
    print(f"{film}; {options.frames} frames taken")
    print(f"{'':38}{'seconds':>9}{'of full':>9}{'off by at most':>17}")
    for what, seconds, result in rows:
        late = ""
        if not isinstance(result, int):
            late = f"{max(abs(a - b) for a, b in zip(result.times, wanted, strict=True)):.2f} s"
        print(f"{what:38}{seconds:>9.2f}{seconds / full:>9.4f}{late:>17}")
    exact = all(
        np.allclose(result.times, wanted, atol=1e-3) for what, _, result in rows if what.startswith("uniform")
    )
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
