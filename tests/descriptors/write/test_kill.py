"""A run killed at any moment goes on where it was: no class is lost, none is doubled."""

import os
import random
import time

import pytest

from ost.descriptors.pack import load_pack

from .chat_server import good_answer, running

KILLS, AT_ONCE = 4, 3
NAMES = [f"class {i}" for i in range(20)]


@pytest.fixture
def describe(start):
    """Start `ost describe` of all names."""

    def run(server, output):
        options = ["--base-url", server.url, "--backbone", "lite", "--at-once", AT_ONCE]
        return start("-m", "ost", "describe", ",".join(NAMES), "-o", output, *options)

    return run


@pytest.mark.parametrize("seed", [int(os.environ.get("OST_KILL_SEED", "0"))])
def test_a_run_killed_at_four_random_moments_loses_and_doubles_no_class(describe, tmp_path, seed):
    """More kills, of whole processes: benchmarks/kill_describe.py."""
    moments = random.Random(seed)
    output = tmp_path / "pack.json"
    with running(delay=0.15) as server:
        for _ in range(KILLS):
            before = len(server.requests)
            killed = describe(server, output)
            while len(server.requests) == before and killed.process.is_alive():
                time.sleep(0.005)
            # Twenty classes, three at once, take one second: four kills reach the end.
            time.sleep(moments.uniform(0, 0.45))
            killed.process.kill()
            killed.process.join()
        code, *told = describe(server, output).finish()
    assert code == 0, told
    pack = load_pack(output)
    assert pack.names == tuple(NAMES)
    assert all(list(item.spatial) == good_answer(item.name)["spatial"] for item in pack.classes)
    # Only what was in flight at a kill can have been answered to nobody.
    answered = server.answered
    assert set(answered) == set(NAMES)
    assert sum(answered.values()) - len(NAMES) <= KILLS * AT_ONCE
    assert not (tmp_path / "pack.json.journal").exists()


def test_a_run_over_a_finished_pack_asks_nobody(describe, tmp_path):
    output = tmp_path / "pack.json"
    with running() as server:
        for _ in range(2):
            code, *told = describe(server, output).finish()
            assert code == 0, told
        assert sum(server.answered.values()) == len(NAMES)


def test_the_half_of_a_line_that_a_kill_leaves_is_cut_off(tmp_path):
    from ost.descriptors.write.journal import Answer, Journal

    file = tmp_path / "x.journal"
    journal = Journal(file, {"model": "m"})
    journal.add("a", Answer("one", 1, 2))
    journal.add("b", Answer("tw\u00f6\u2028\ud83d", 3, 4))
    journal.close()
    whole = file.read_bytes()
    for cut in range(len(whole)):
        file.write_bytes(whole[:cut])
        again = Journal(file, {"model": "m"})
        kept = {name: answers[:] for name, answers in again.answers.items()}
        again.add("c", Answer("three"))
        again.close()
        once_more = Journal(file, {"model": "m"})
        assert once_more.answers == {**kept, "c": [Answer("three")]}
        once_more.close()
    assert kept == {"a": [Answer("one", 1, 2)]}
