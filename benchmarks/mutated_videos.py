"""Does any broken video crash, hang or fill the memory?

Makes small videos in five containers, breaks them (truncation, bit flips, boxes swapped, doubled, removed or
resized, header fields overwritten, foreign bytes pasted in), and decodes each in a worker process.
Prints a table and ends with 1 if any ended in something other than frames or a `VideoError`.

    uv run --group dev benchmarks/mutated_videos.py --count 2000 --seed 0
"""

import argparse
import json
import os
import resource
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from queue import Queue

import numpy as np

LIMIT_SECONDS = 20
LIMIT_BYTES = 2 << 30
GOOD = ("decoded", "VideoError")
BAD = ("other", "crash", "hang", "memory")
X265 = {"x265-params": "log-level=none"}
QUICK = {"deadline": "realtime", "cpu-used": "8"}
# name -> codec, frames, pixel format, encoder options, muxer options; the container is the name's suffix
SOURCES = {
    "h264.mp4": ("libx264", 60, "yuv420p", {}, {}),
    "faststart.mp4": ("libx264", 60, "yuv420p", {}, {"movflags": "faststart"}),
    "fragments.mp4": ("libx264", 60, "yuv420p", {}, {"movflags": "frag_keyframe+empty_moov"}),
    "hevc.mp4": ("libx265", 40, "yuv420p10le", X265, {}),
    "mpeg4.mp4": ("mpeg4", 60, "yuv420p", {}, {}),
    "long.mp4": ("libx264", 1100, "yuv420p", {}, {}),
    "h264.mkv": ("libx264", 60, "yuv420p", {}, {}),
    "hevc.mkv": ("libx265", 40, "yuv420p", X265, {}),
    "ffv1.mkv": ("ffv1", 20, "yuv444p", {}, {}),
    "long.mkv": ("libx264", 1100, "yuv420p", {}, {}),
    "vp8.webm": ("libvpx", 60, "yuv420p", QUICK, {}),
    "vp9.webm": ("libvpx-vp9", 60, "yuv420p", QUICK, {}),
    "alpha.webm": ("libvpx-vp9", 20, "yuva420p", QUICK, {}),
    "mpeg4.avi": ("mpeg4", 60, "yuv420p", {}, {}),
    "mjpeg.avi": ("mjpeg", 30, "yuvj422p", {}, {}),
    "h264.avi": ("libx264", 60, "yuv420p", {}, {}),
    "ffv1.avi": ("ffv1", 20, "bgra", {}, {}),
    "h264.ts": ("libx264", 60, "yuv420p", {}, {}),
    "mpeg2.ts": ("mpeg2video", 60, "yuv420p", {}, {}),
    "hevc.ts": ("libx265", 40, "yuv420p", X265, {}),
    "long.ts": ("mpeg2video", 1100, "yuv420p", {}, {}),
}


def make_source(folder, name):
    import av

    codec, count, pix_fmt, options, muxer = SOURCES[name]
    size = (64, 48) if count > 1000 else (160, 120)
    rng = np.random.default_rng(0)
    canvas = rng.integers(0, 256, (size[1] // 8, size[0] // 8 + count, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    path = folder / name
    container = "mpegts" if path.suffix == ".ts" else None
    with av.open(str(path), "w", format=container, options=muxer) as output:
        stream = output.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.gop_size = 12
        if name == "h264.mp4":
            stream.set_display_rotation(90)
        for i in range(count):
            pixels = np.ascontiguousarray(canvas[:, 3 * i : 3 * i + size[0]])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path.read_bytes()


def boxes(data, kind):
    """(start, end, start of size field, bytes of size field, byte order) of the container's units."""
    return _boxes(data, kind) or [(0, len(data), 0, 4, "big")]


def _boxes(data, kind):
    if kind == ".ts":
        return [(i, i + 188, i, 4, "big") for i in range(0, len(data) - 187, 188)]
    if kind in (".mkv", ".webm"):
        return _ebml(data, 0, len(data), 3)
    walk = _riff if kind == ".avi" else _mp4
    return walk(data, 0, len(data), 8)


def _mp4(data, start, end, depth):
    found = []
    while start + 8 <= end:
        size, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        if size < 8 or start + size > end:
            break
        found.append((start, start + size, start, 4, "big"))
        if depth and kind in (
            b"moov",
            b"trak",
            b"mdia",
            b"minf",
            b"stbl",
            b"edts",
            b"moof",
            b"traf",
            b"mvex",
        ):
            found += _mp4(data, start + 8, start + size, depth - 1)
        start += size
    return found


def _riff(data, start, end, depth):
    found = []
    while start + 8 <= end:
        size = int.from_bytes(data[start + 4 : start + 8], "little") + 8
        if start + size > end:
            break
        found.append((start, start + size, start + 4, 4, "little"))
        if depth and data[start : start + 4] in (b"RIFF", b"LIST"):
            found += _riff(data, start + 12, start + size, depth - 1)
        start += size + size % 2
    return found


def _ebml(data, start, end, depth):
    found = []
    while start + 2 <= end and data[start]:
        id_length = 9 - data[start].bit_length()
        at = start + id_length
        if at >= end or not data[at]:
            break
        length = 9 - data[at].bit_length()
        size = int.from_bytes(data[at : at + length], "big") & ~(1 << 7 * length)
        stop = min(end, at + length + size)
        found.append((start, stop, at, length, "big"))
        if depth and id_length == 4:  # masters have long names; walking into other things does no harm
            found += _ebml(data, at + length, stop, depth - 1)
        start = stop
    return found


def truncate(data, kind, rng):
    return data[: rng.integers(0, len(data))]


def flip_bits(data, kind, rng):
    out = bytearray(data)
    region = min(len(out), int(rng.choice([64, 1024, 8192, len(out)])))
    offset = int(rng.choice([0, len(out) - region]))
    for _ in range(int(rng.choice([1, 2, 8, 32, 256]))):
        out[offset + int(rng.integers(region))] ^= 1 << int(rng.integers(8))
    return bytes(out)


def move_boxes(data, kind, rng):
    units = boxes(data, kind)
    a, b = sorted(int(i) for i in rng.integers(len(units), size=2))
    (s1, e1, *_), (s2, e2, *_) = units[a], units[b]
    how = rng.choice(["swap", "double", "remove"])
    if how == "swap" and e1 <= s2:
        return data[:s1] + data[s2:e2] + data[e1:s2] + data[s1:e1] + data[e2:]
    if how == "double":
        return data[:s2] + data[s1:e1] + data[s2:]
    return data[:s1] + data[e1:]


def resize_box(data, kind, rng):
    units = boxes(data, kind)
    _, _, at, length, order = units[int(rng.integers(len(units)))]
    return data[:at] + _number(rng, length, order) + data[at + length :]


def overwrite_field(data, kind, rng):
    out = data
    units = boxes(data, kind)
    for _ in range(int(rng.integers(1, 5))):
        start, end, *_ = units[int(rng.integers(min(len(units), 120)))]
        length = int(rng.choice([1, 2, 4, 8]))
        at = start + int(rng.integers(min(end - start, 200)))
        out = out[:at] + _number(rng, length, str(rng.choice(["big", "little"]))) + out[at + length :]
    return out


def paste(data, kind, rng):
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 5000))
    source = int(rng.integers(len(data)))
    piece = rng.choice(["zeros", "noise", "itself"])
    foreign = {"zeros": bytes(length), "noise": rng.bytes(length), "itself": data[source : source + length]}
    return data[:start] + foreign[str(piece)] + data[start + int(rng.choice([0, length])) :]


def _number(rng, length, order):
    top = 1 << 8 * length
    edges = [0, 1, top - 1, top // 2 - 1, top // 2, int.from_bytes(rng.bytes(length), "big"), length]
    return int(edges[int(rng.integers(len(edges)))]).to_bytes(length, order)


MUTATIONS = (truncate, flip_bits, flip_bits, move_boxes, resize_box, overwrite_field, overwrite_field, paste)


def mutated(sources, seed, i):
    """Name and bytes of the i-th broken video: equal seeds give equal bytes."""
    rng = np.random.default_rng([seed, i])
    kinds = sorted({Path(name).suffix for name in sources})
    kind = kinds[i % len(kinds)]
    names = [name for name in sources if Path(name).suffix == kind]
    name = names[int(rng.integers(len(names)))]
    data = sources[name]
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        change = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        data = change(data, kind, rng) or data[:1]
    return f"{i:05}_{name}", data


def work():
    """Decode the videos named on stdin, one a line; tell on stdout how each ended and the peak memory."""
    from ost.errors import VideoError
    from ost.types import Preprocess
    from ost.video.decode import decode
    from ost.video.transform import transform

    preprocess = Preprocess(224, 256, "bilinear", False, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    for line in sys.stdin:
        job = json.loads(line)
        outcome, cause = "decoded", ""
        try:
            frames = decode(job["path"], frames=16, sampling=job["sampling"], preprocess=preprocess)
            transform(frames, preprocess)
        except VideoError as error:
            outcome, cause = "VideoError", error.cause
            if "\n" in str(error):
                outcome = "other"
        except Exception as error:
            outcome, cause = "other", f"{type(error).__name__}: {error}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"outcome": outcome, "cause": cause, "peak": peak}), flush=True)


class Worker:
    """A process that decodes, restarted when it dies, hangs or has grown."""

    def __init__(self, healthy):
        self.healthy = healthy
        self.start()

    def start(self):
        command = [sys.executable, __file__, "--worker"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.base = self.protocol_lists(self.healthy, "uniform", 120)["peak"]

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def protocol_lists(self, path, sampling, seconds):
        self.process.stdin.write(json.dumps({"path": str(path), "sampling": sampling}) + "\n")
        self.process.stdin.flush()
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            if not ready.select(seconds):
                return {"outcome": "hang", "cause": f"no end after {seconds} s", "peak": 0}
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        return {"outcome": "crash", "cause": f"exit status {self.process.wait()}", "peak": 0}

    def decode(self, path, sampling):
        answer = self.protocol_lists(path, sampling, LIMIT_SECONDS)
        growth = max(0, answer["peak"] - self.base)
        if growth > LIMIT_BYTES:
            answer |= {"outcome": "memory", "cause": f"{growth >> 20} MiB more than a healthy video"}
        if growth > LIMIT_BYTES // 8 or answer["outcome"] in BAD:  # a peak would hide the next one
            self.stop()
            self.start()
        return answer | {"growth": growth}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one video")
    parser.add_argument("--keep", type=Path, help="folder for the videos that end badly")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--causes", action="store_true", help="count what the errors say")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work()
    with tempfile.TemporaryDirectory() as folder:
        return measure(Path(folder), options)


def measure(folder, options):
    sources = {name: make_source(folder, name) for name in SOURCES}
    workers = Queue()
    for _ in range(options.jobs):
        workers.put(Worker(folder / "h264.mkv"))

    def run(i):
        name, data = mutated(sources, options.seed, i)
        path = folder / name
        path.write_bytes(data)
        worker = workers.get()
        started = time.perf_counter()
        answer = worker.decode(path, "keyframes" if i // 5 % 4 == 3 else "uniform")
        seconds = time.perf_counter() - started
        workers.put(worker)
        if answer["outcome"] in BAD:
            print(f"{answer['outcome']:10} {name}: {answer['cause']}", flush=True)
            if options.keep:
                options.keep.mkdir(exist_ok=True, parents=True)
                (options.keep / name).write_bytes(data)
        path.unlink()
        return Path(name).suffix[1:], answer | {"name": name}, seconds

    numbers = range(options.count) if options.only is None else [options.only]
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(run, numbers))
    while not workers.empty():
        workers.get().stop()
    return report(results, options)


def report(results, options):
    tally = Counter((kind, answer["outcome"]) for kind, answer, _ in results)
    print(f"\n{len(results)} mutated videos, seed {options.seed}")
    print(
        f"{'':6}" + "".join(f"{o:>12}" for o in GOOD + BAD) + f"{'slowest s':>12}{'memory MiB':>12}  slowest"
    )
    for kind in sorted({kind for kind, _, _ in results}):
        mine = [(answer, seconds) for k, answer, seconds in results if k == kind]
        most = max(a["growth"] for a, _ in mine)
        slowest, name = max((s, a["name"]) for a, s in mine)
        row = "".join(f"{tally[kind, outcome]:>12}" for outcome in GOOD + BAD)
        print(f"{kind:6}{row}{slowest:>12.2f}{most >> 20:>12}  {name}")
    if options.causes:
        causes = Counter(answer["cause"] for _, answer, _ in results if answer["outcome"] == "VideoError")
        print("\n".join(f"{n:6} {cause}" for cause, n in causes.most_common(40)))
    return int(any(tally[kind, bad] for kind, _, _ in results for bad in BAD))


if __name__ == "__main__":
    sys.exit(main())
