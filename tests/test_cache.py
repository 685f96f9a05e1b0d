"""The cache has a limit: what was used longest ago goes first, and nothing that a run uses, in whatever process."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from ost import cache
from ost.cache import Room, Use, parse_size, prune, readable_size, usage
from ost.cli.cache import CacheKind
from ost.errors import UsageError


@pytest.fixture(autouse=True)
def folder(own_cache, tmp_path, monkeypatch):
    """A cache of its own for each test."""
    monkeypatch.setenv("OST_CACHE", str(tmp_path))
    return tmp_path


def kept(folder, name, kind="embeddings", age=0.0, size=100):
    """A file of the cache that was used `age` seconds ago."""
    path = folder / cache.FOLDERS.get(kind, kind) / "key" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_what_was_used_longest_ago_goes_first_whatever_its_kind(folder):
    old, middle, new = (
        kept(folder, name, kind, age)
        for name, kind, age in [("a", "heads", 300), ("b", "embeddings", 200), ("c", "heads", 100)]
    )
    assert prune(250) == (1, 100)
    assert [path.exists() for path in (old, middle, new)] == [False, True, True]
    cache.touch(middle)
    prune(100)
    assert [path.exists() for path in (middle, new)] == [True, False]
    assert usage()["embeddings"] == (1, 100) and usage()["heads"] == (0, 0)


def test_only_the_kinds_that_are_named_are_pruned(folder):
    head, embedding = kept(folder, "a", "heads"), kept(folder, "b")
    prune(0, ["heads"])
    assert not head.exists() and embedding.exists()


def test_what_a_run_has_touched_stays_as_long_as_it_goes_on(folder):
    used, other = kept(folder, "used", age=1000), kept(folder, "other", age=10)
    with Use() as use:
        use.touch(used)
        assert prune(0) == (1, 100)
        assert used.exists() and not other.exists()
    prune(0)
    assert not used.exists()


RUN = """
import sys, time
from pathlib import Path
from ost.cache import Use
with Use() as use:
    use.touch(Path(sys.argv[1]))
    print("touched", flush=True)
    time.sleep(600)
"""


def test_a_run_of_another_process_is_respected_until_it_is_killed(folder):
    used = kept(folder, "used", age=1000)
    with subprocess.Popen([sys.executable, "-c", RUN, used], stdout=subprocess.PIPE, text=True) as run:
        try:
            assert run.stdout.readline() == "touched\n"
            prune(0)
            assert used.exists()
        finally:
            run.kill()
    prune(0)
    assert not used.exists()
    assert not list((folder / cache.RUNS).iterdir()), "and its lock goes too"


def test_a_lock_that_is_cleared_cannot_be_taken_by_a_run_before_it_is_gone(folder, monkeypatch):
    path = folder / cache.RUNS / "1.000-killed.lock"
    path.parent.mkdir()
    path.touch()
    unlink, refusals = Path.unlink, []

    def unlink_late(self, **options):
        with pytest.raises(Timeout):
            FileLock(path).acquire(blocking=False)
        refusals.append(self)
        unlink(self, **options)

    monkeypatch.setattr(Path, "unlink", unlink_late)
    prune(0)
    assert refusals == [path] and not path.exists()


def test_there_is_room_until_the_limit_and_then_by_pruning(folder, monkeypatch):
    monkeypatch.setenv("OST_CACHE_SIZE", "1 KB")
    old = kept(folder, "old", age=100, size=600)
    room = Room()
    assert room.take(300)
    assert old.exists()
    new = kept(folder, "new", size=300)
    assert room.take(300)
    assert not old.exists() and new.exists()
    assert not room.take(1001), "more than all of it"


@pytest.fixture
def scans(monkeypatch):
    """The results of all scans of the whole cache."""
    results, total_bytes = [], cache._total_bytes
    monkeypatch.setattr(cache, "_total_bytes", lambda: results.append(total_bytes()) or results[-1])
    return results


def test_a_process_scans_the_cache_once_and_not_at_every_write(folder, scans):
    kept(folder, "old", size=5000)
    for _ in range(100):
        assert Room().take(1000)
    assert scans == [5000]


def test_at_the_limit_scans_and_pruning_are_rare_and_the_limit_holds(folder, monkeypatch, scans):
    monkeypatch.setenv("OST_CACHE_SIZE", "1 MB")
    monkeypatch.setattr(cache, "RESCAN_SHARE", 1)
    for i in range(1000):
        assert Room().take(2500)
        kept(folder, str(i), age=1000 - i, size=2500)
    assert 700_000 < usage()["embeddings"].bytes <= 10**6
    # The files that are written between two scans fill the tenth that pruning frees.
    assert len(scans) < 1000 / 30


def test_what_other_processes_write_is_seen_before_it_is_much(folder, monkeypatch):
    monkeypatch.setenv("OST_CACHE_SIZE", "1 MB")
    assert Room().take(1000)
    another = kept(folder, "of another", size=10**6, age=100)
    taken = 0
    while another.exists():
        assert Room().take(1000)
        taken += 1000
    assert taken <= cache.RESCAN_SHARE * 10**6 + 1000


def test_a_run_that_uses_all_of_it_leaves_no_room(folder, monkeypatch):
    monkeypatch.setenv("OST_CACHE_SIZE", "1 KB")
    used = kept(folder, "used", size=900, age=100)
    with Use() as use:
        use.touch(used)
        assert not Room().take(300)
        assert used.exists()
    assert Room().take(300)


def test_what_a_killed_write_left_goes_after_a_day(folder):
    kept(folder, ".shard.x1", age=2 * 24 * 3600)
    fresh = kept(folder, ".shard.x2")
    assert usage()["embeddings"] == (0, 0)
    prune(10**9)
    assert list(fresh.parent.iterdir()) == [fresh]


def test_what_other_versions_wrote_is_never_read_is_shown_and_goes_first(folder, ost_command):
    kept(folder, "old", "embeddings-1", size=2000)  # used just now
    current = kept(folder, "new", age=1000)
    (folder / "licences").mkdir()
    (folder / "licences" / "told").write_text("once")
    assert usage()["outdated"] == (1, 2000)
    code, out, _ = ost_command("cache")
    assert code == 0 and "2 KB are of other versions and never read: ost cache prune --kind outdated" in out
    assert prune(100) == (1, 2000)
    assert current.exists() and (folder / "licences" / "told").exists()


@pytest.mark.parametrize(
    ("text", "count"),
    [("20 GB", 20 * 10**9), ("1.5gb", 1_500_000_000), ("0", 0), ("500mb", 500_000_000), ("7K", 7000)],
)
def test_sizes_are_read(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "-1", "many", "1e9", "5 GiB", "nan"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="a size is a number with"):
        parse_size(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 KB"), (31_600_000, "31.6 MB"), (20 * 10**9, "20 GB")],
)
def test_sizes_are_shown_in_the_largest_unit(count, text):
    assert readable_size(count) == text
    assert parse_size(text) == count


def test_the_command_shows_sizes_by_kind_and_prunes(folder, ost_command):
    kept(folder, "a", size=1500, age=50)
    kept(folder, "b", "heads", size=10)
    code, out, _ = ost_command("cache")
    assert code == 0
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert rows["embeddings"][:3] == ["1", "1.5", "KB"] and rows["heads"][:3] == ["1", "10", "B"]
    assert str(folder) in out and "at most 20 GB" in out
    assert ost_command("cache", "show")[1] == out
    code, out, _ = ost_command("cache", "prune", "--to", "1KB")
    assert (code, out) == (0, "deleted 1 file, 1.5 KB; 10 B are left\n")
    code, out, _ = ost_command("cache", "prune", "--to", 0, "--kind", "heads")
    assert out == "deleted 1 file, 10 B; 0 B are left\n"
    code, _, err = ost_command("cache", "prune", "--to", "much")
    assert code == 2 and "not 'much'" in err


def test_the_command_knows_all_kinds():
    assert {kind.value for kind in CacheKind} == set(cache.CACHE_KINDS)


def test_a_limit_that_is_no_size_is_said_with_its_name(ost_command, monkeypatch):
    monkeypatch.setenv("OST_CACHE_SIZE", "much")
    code, _, err = ost_command("cache")
    assert code == 2 and err.startswith("ost: OST_CACHE_SIZE: a size is")


def test_what_is_not_ours_is_never_touched(folder, monkeypatch):
    monkeypatch.setenv("OST_CACHE_SIZE", "1 KB")
    film = kept(folder, "holiday.mp4", "my-films", age=10**6, size=5000)
    hidden = kept(folder, ".bashrc", "work", age=10**6)
    (folder / "work" / "empty").mkdir()
    assert usage()["outdated"] == (0, 0)
    prune(0)
    assert Room().take(300)
    assert film.exists() and hidden.exists() and (folder / "work" / "empty").exists()


def test_an_old_file_in_use_keeps_no_other_from_going(folder):
    outdated, other = kept(folder, "a", "heads-1"), kept(folder, "b", age=1000)
    with Use():
        assert prune(0) == (1, 100)
    assert outdated.exists() and not other.exists()
