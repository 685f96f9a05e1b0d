"""Does `ost describe` survive being killed? One run is killed at random moments, then ends; nothing is paid for twice.

    uv run benchmarks/kill_describe.py [--kills 10] [--runs 3] [--seed 0]

A server of our own answers in 0.15 s over real HTTP and counts what it was asked. Whole processes describe 40 classes,
three at once, and are killed by SIGKILL within 0.45 s of their first request. Doubled are answers to a class that had
one; only what was in flight at a kill can be, 3 at most for each. Equal means that the pack holds each class once, in
the order asked, with the descriptors that the server gave.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ost.descriptors.pack import load_pack

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "descriptors" / "write"))
from chat_server import ChatServer, good_answer, running

AT_ONCE = 3
NAMES = [f"class {i}" for i in range(40)]


def launch(server: ChatServer, output: Path) -> subprocess.Popen[str]:
    options = ["--base-url", server.url, "--backbone", "lite", "--at-once", str(AT_ONCE)]
    command = [sys.executable, "-m", "ost", "describe", ",".join(NAMES), "-o", str(output), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def killed_run(output: Path, kills: int, moments: random.Random) -> tuple[int, int, bool]:
    """Kills that met a living process, answers given twice, and whether the pack is as asked."""
    with running(delay=0.15) as server:
        met = 0
        for _ in range(kills):
            before = len(server.requests)
            process = launch(server, output)
            while len(server.requests) == before and process.poll() is None:
                time.sleep(0.005)
            time.sleep(moments.uniform(0, 0.45))
            met += process.poll() is None
            process.kill()
            process.communicate()
        last = launch(server, output)
        _, told = last.communicate(timeout=120)
        assert last.returncode == 0, told
        doubled = sum(server.answered.values()) - len(NAMES)
    pack = load_pack(output)
    equal = pack.names == tuple(NAMES) and not output.with_name("pack.json.journal").exists()
    for item in pack.classes:
        expected = good_answer(item.name)
        equal = equal and [list(item.spatial), list(item.temporal)] == [*expected.values()]
    return met, doubled, equal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="a run")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    right = True
    print("| run | kills of a living process | classes | answers doubled | of at most | equal |")
    print("|---|---|---|---|---|---|")
    for run in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            met, doubled, equal = killed_run(Path(folder) / "pack.json", options.kills, moments)
        right = right and equal and doubled <= met * AT_ONCE
        print(f"| {run + 1} | {met} | {len(NAMES)} | {doubled} | {met * AT_ONCE} | {equal} |", flush=True)
    sys.exit(not right)


if __name__ == "__main__":
    main()
