"""The store under runs: killed ones, several at once, with a limit, and as recognition uses it."""

import contextlib
import json
import logging
import os
import random
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

import ost.recognition.store as module
from ost.cache import FOLDERS, usage
from ost.descriptors.spec import resolve
from ost.recognition import decoding
from ost.recognition.reader import read_videos
from ost.recognition.recognizer import Recognizer
from ost.recognition.settings import FrameRate, Settings
from ost.recognition.store import Store

VIEWS = Settings(4)
OTHERS = ("rowing", "sailing", "diving")


@pytest.fixture
def videos(make_video):
    """Twelve videos of different pictures."""
    return [make_video(f"v{i}") for i in range(12)]


def read(backbone, videos, views=VIEWS, **how):
    """All readings through a store."""
    with Store(backbone, views) as store:
        return list(read_videos(backbone, videos, views, kept=store, **how))


def counting(backbone):
    """A backbone that counts the clips that it looks at."""
    embed, backbone.seen = backbone.embed_clips, 0

    def counted(pixels):
        backbone.seen += len(pixels)
        return embed(pixels)

    backbone.embed_clips = counted
    return backbone


def test_what_was_sampled_is_kept_with_the_embeddings(make_backbone, make_video, bikes):
    backbone = counting(make_backbone())
    broken = make_video("broken", frames=8)
    (broken / "3.png").write_bytes(b"no picture")
    first, second = (read(backbone, [bikes, broken], Settings(3, clips=2)) for _ in range(2))
    assert backbone.seen == 4
    for fresh, kept in zip(first, second, strict=True):
        assert (kept.path, str(kept.sample)) == (fresh.path, str(fresh.sample)), "nan is kept too"
        assert torch.equal(kept.embeddings.values, fresh.embeddings.values)
        assert (kept.seconds.decoding, kept.seconds.towers) == (0, 0) != fresh.seconds
    assert first[1].sample.notices == ("7 of 8 frame images can be read",)


def test_a_part_is_kept_apart_from_the_whole(make_backbone, bikes):
    backbone = counting(make_backbone())
    for _ in range(2):
        whole, part, other = read(backbone, [bikes, (bikes, 1.0, 5.0), (bikes, 1.0, None)])
    assert backbone.seen == 3
    assert not torch.equal(whole.embeddings.values, part.embeddings.values)
    assert not torch.equal(other.embeddings.values, part.embeddings.values)


def test_chunks_are_kept_one_by_one_and_a_pass_that_ended_goes_on(make_backbone, bikes):
    backbone, rate = counting(make_backbone()), FrameRate(4, 10)
    with Store(backbone, rate) as store:
        results = read_videos(backbone, [bikes], rate, kept=store)
        begun = [next(results), next(results)]
        results.close()
    assert backbone.seen == 2
    whole = read(backbone, [bikes], rate)
    assert backbone.seen == len(whole) == 4
    again = read(backbone, [bikes], rate)
    assert backbone.seen == 4
    plain = list(read_videos(backbone, [bikes], rate))
    for results in (whole, again, [*begun, *plain[2:]]):
        for one, expected in zip(results, plain, strict=True):
            assert (one.chunk, one.last, one.sample) == (expected.chunk, expected.last, expected.sample)
            assert torch.equal(one.embeddings.values, expected.embeddings.values)


def test_what_is_kept_is_decoded_for_thumbnails_and_not_embedded_again(make_backbone, videos, fresh_cache):
    backbone = counting(make_backbone())
    (first,) = read(backbone, videos[:1])
    (second,) = read(backbone, videos[:1], thumbnails=True)
    assert backbone.seen == 1
    assert len(second.thumbnails.files) == 4 and second.seconds.decoding > 0
    assert torch.equal(first.embeddings.values, second.embeddings.values)


def test_chunks_that_are_kept_are_decoded_for_thumbnails_and_not_embedded_again(make_backbone, bikes):
    backbone, rate = counting(make_backbone()), FrameRate(4, 10)
    fresh, again = read(backbone, [bikes], rate), read(backbone, [bikes], rate, thumbnails=True)
    assert backbone.seen == len(fresh) == 4
    for one, other in zip(fresh, again, strict=True):
        assert (one.sample, one.chunk, one.last) == (other.sample, other.chunk, other.last)
        assert torch.equal(one.embeddings.values, other.embeddings.values)
        assert len(other.thumbnails.files) == len(other.sample.times)


WRITER = """
import sys, time
from pathlib import Path
import torch
import ost.recognition.store as module
from ost.backbones.base import frame_embeddings, prepared
from ost.recognition.reader import read_videos
from ost.recognition.settings import Settings
from ost.types import Preprocess

module.SHARD = 2

class Towers:
    fingerprint, device, adapter = "towers", torch.device("cpu"), None
    preprocess = Preprocess(16, 16, "bilinear", False, (0.5,) * 3, (0.25,) * 3)

    def embed_clips(self, pixels):
        print("looking", flush=True)
        time.sleep(float(sys.argv[1]))
        return frame_embeddings(prepared(pixels, self.preprocess).mean((-1, -2)) + 2)

towers, views = Towers(), Settings(4)
with module.Store(towers, views) as store:
    for reading in read_videos(towers, sys.argv[2:], views, kept=store):
        print(reading.path, *reading.embeddings.values.flatten().tolist(), flush=True)
"""


@pytest.fixture
def write(start, tmp_path, fresh_cache):
    """Start a process that embeds videos through the store."""
    script = tmp_path / "writer.py"
    script.write_text(WRITER)
    return lambda videos, pause=0.0: start(script, pause, *videos, OST_CACHE=str(fresh_cache))


def answers(out):
    """Path -> numbers, of a process that has ended well."""
    code, text, error = out
    assert code == 0, error
    rows = [line.split() for line in text.splitlines() if line != "looking"]
    return {path: list(map(float, numbers)) for path, *numbers in rows}, text.count("looking")


@pytest.fixture
def expected(start, tmp_path, write, videos):
    """What a process without anything kept answers."""
    script = tmp_path / "writer.py"
    rows, looked = answers(start(script, 0, *videos, OST_CACHE=str(tmp_path / "other")).finish())
    assert looked == len(videos)
    return rows


def shards(folder):
    """The identities of each shard."""
    files = [
        path
        for path in (folder / FOLDERS["embeddings"]).rglob("*.safetensors")
        if not path.name.startswith(".")
    ]
    return [json.loads(safe_open(path, "pt").metadata()["clips"]) for path in files]


@pytest.mark.parametrize("seed", [0])
def test_a_run_killed_at_random_moments_keeps_what_it_wrote_and_nothing_wrong(
    write, videos, expected, fresh_cache, seed
):
    moments = random.Random(seed)
    for _ in range(5):
        killed = write(videos, pause=0.02)
        while killed.process.is_alive() and not (killed.files[0].exists() and killed.files[0].read_text()):
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.12))
        killed.process.kill()
        killed.process.join()
    before = sum(map(len, shards(fresh_cache)))
    rows, looked = answers(write(videos).finish())
    assert rows == expected
    assert before > 0 and looked == len(videos) - before, "what was written is not embedded again"
    assert answers(write(videos).finish()) == (expected, 0)


def test_several_processes_write_at_once(write, videos, expected, fresh_cache):
    halves = [videos[:8], videos[4:], list(reversed(videos))]
    runs = [write(some, pause=0.02) for some in halves]
    for run, some in zip(runs, halves, strict=True):
        rows, _ = answers(run.finish())
        assert rows == {str(video): expected[str(video)] for video in some}
    assert answers(write(videos).finish()) == (expected, 0)


def test_a_store_at_its_limit_forgets_what_was_used_longest_ago(
    make_backbone, videos, fresh_cache, monkeypatch
):
    monkeypatch.setattr(module, "SHARD", 1)
    monkeypatch.setenv("OST_CACHE_SIZE", "4 KB")
    for video in videos:
        read(make_backbone(), [video])
        for path in (fresh_cache / FOLDERS["embeddings"]).rglob("*.safetensors"):
            os.utime(path, (path.stat().st_mtime - 10,) * 2)
    held = shards(fresh_cache)
    assert 0 < len(held) < len(videos)
    backbone = counting(make_backbone())
    read(backbone, videos[-1:])
    assert backbone.seen == 0, "the newest is there"


def test_a_store_whose_limit_the_run_itself_needs_says_so_and_goes_on(
    make_backbone, videos, fresh_cache, monkeypatch, caplog
):
    monkeypatch.setattr(module, "SHARD", 1)
    monkeypatch.setenv("OST_CACHE_SIZE", "2 KB")
    with caplog.at_level(logging.WARNING, "ost"):
        results = read(make_backbone(), videos)
    assert len(results) == len(videos)
    assert 0 < len(shards(fresh_cache)) < len(videos)
    assert [record.message for record in caplog.records] == [
        "embeddings are not kept from here on: the cache is at its limit of 2 KB, and runs use all of it "
        "(OST_CACHE_SIZE)"
    ]


def test_another_list_of_classes_needs_neither_decoder_nor_towers(make_backbone, videos, monkeypatch):
    backbone = counting(make_backbone())
    first = list(Recognizer(backbone).recognize_all(videos, OTHERS, frames=4))
    monkeypatch.setattr(decoding, "decode_views", None)
    again = list(Recognizer(backbone).recognize_all(videos, OTHERS, frames=4))
    assert backbone.seen == len(videos)
    assert [p.classes for p in again] == [p.classes for p in first]
    assert [p.to_dict() | {"seconds": None} for p in again] == [
        p.to_dict() | {"seconds": None} for p in first
    ]
    other = list(Recognizer(backbone).recognize_all(videos, ("a", "b"), frames=4))
    assert backbone.seen == len(videos) and len(other) == len(videos)
    plan = other[0].plan()
    assert plan.plan["spatial"].shape[0] == 4


def test_without_the_cache_nothing_is_read_or_written(make_backbone, videos, fresh_cache):
    backbone = counting(make_backbone())
    for _ in range(2):
        list(Recognizer(backbone, cache=False).recognize_all(videos[:2], OTHERS))
    assert backbone.seen == 4 and not fresh_cache.exists()


def test_recognition_and_evaluation_share_what_is_kept(make_backbone, videos):
    backbone = counting(make_backbone())
    recognizer = Recognizer(backbone)
    list(recognizer.recognize_all(videos, resolve(OTHERS), frames=4))
    found = list(module.stored_embeddings(backbone, videos, replace(recognizer.settings, frames=4).sampled))
    assert backbone.seen == len(videos) == len(found)


def test_no_cache_is_an_option_of_the_command(ost_command, tiny, tiny_videos, fresh_cache):
    arguments = ("recognize", *tiny_videos, "--classes", "a,b", "--weights", tiny, "--frames", 2, "--json")
    code, plain, _ = ost_command(*arguments, "--no-cache")
    assert code == 0 and not (fresh_cache / FOLDERS["embeddings"]).exists()
    found = [ost_command(*arguments)[1] for _ in range(2)]
    assert len(shards(fresh_cache)) == 1
    rows = [[json.loads(line) for line in out.splitlines()] for out in (plain, *found)]
    for results in zip(*rows, strict=True):
        scores = np.array([[score["logit"] for score in result["classes"]] for result in results])
        assert np.ptp(scores, 0).max() < 1e-5
        assert results[2]["seconds"]["towers"] == 0 < results[1]["seconds"]["towers"]


def test_a_file_that_is_exchanged_with_all_its_times_is_embedded_again(make_backbone, tmp_path, bikes):
    one, other = (tmp_path / name for name in ("one.mp4", "other.mp4"))
    data = bikes.read_bytes()
    one.write_bytes(data)
    other.write_bytes(data[:-1] + b"x")
    os.utime(other, ns=(one.stat().st_atime_ns, one.stat().st_mtime_ns))
    backbone = counting(make_backbone())
    read(backbone, [one])
    shutil.copy2(other, one)
    read(backbone, [one])
    assert backbone.seen == 2


def test_a_file_that_changes_while_it_is_read_is_not_kept(make_backbone, videos, monkeypatch):
    decode = decoding.decode_views

    def changed(path, *rest):
        found = decode(path, *rest)
        os.utime(min(entry.path for entry in os.scandir(path)), (1, 1))
        return found

    backbone = counting(make_backbone())
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "decode_views", changed)
        read(backbone, videos[:1])
    read(backbone, videos[:1])
    assert backbone.seen == 2


def test_a_shard_whose_numbers_were_lost_is_embedded_again(make_backbone, videos, fresh_cache):
    backbone = counting(make_backbone())
    first = read(backbone, videos[:2])
    (path,) = (fresh_cache / FOLDERS["embeddings"]).rglob("*.safetensors")
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    path.write_bytes(data[:start] + bytes(len(data) - start))  # full length, sound header
    again = read(backbone, videos[:2])
    assert backbone.seen == 4
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.embeddings.values, b.embeddings.values)
    read(backbone, videos[:2])
    assert backbone.seen == 4, "and mended"


def test_several_writers_together_never_fill_the_disk_beyond_the_limit(
    make_backbone, videos, fresh_cache, monkeypatch
):
    monkeypatch.setattr(module, "SHARD", 1)
    monkeypatch.setenv("OST_CACHE_SIZE", "5 KB")
    stores = [Store(make_backbone(f"w{i}"), VIEWS) for i in range(4)]
    (reading,) = read_videos(make_backbone(), videos[:1], VIEWS)
    with contextlib.ExitStack() as stack:
        for store in stores:
            stack.enter_context(store)
        for i in range(5):
            for store in stores:
                store.put(f"video {i}", reading)
                assert 0 < usage()["embeddings"].bytes <= 5000, "headers included"
    assert usage()["embeddings"].files > 3


def test_nothing_is_kept_and_nothing_said_where_the_limit_is_0(
    make_backbone, videos, fresh_cache, monkeypatch, caplog
):
    monkeypatch.setenv("OST_CACHE_SIZE", "0")
    with caplog.at_level(logging.WARNING, "ost"):
        read(make_backbone(), videos)
    assert not caplog.records and shards(fresh_cache) == []


def test_videos_that_come_one_by_one_are_joined_and_all_stay(
    make_backbone, make_video, fresh_cache, monkeypatch
):
    monkeypatch.setattr(module, "MANY_SMALL", 5)
    videos = [make_video(f"one-{i}") for i in range(13)]
    backbone = counting(make_backbone())
    recognizer = Recognizer(backbone)
    elsewhere = Store(backbone, recognizer.settings.sampled)
    with elsewhere:
        first = [recognizer.recognize(video, OTHERS).classes for video in videos]
        held = shards(fresh_cache)
        assert len(held) < 6 and sum(map(len, held)) == 13
        assert [recognizer.recognize(video, OTHERS).classes for video in videos] == first
        assert backbone.seen == 13
    with elsewhere:
        found = [elsewhere.get(elsewhere.identity(video)) for video in videos]
    assert all(found)


def test_a_shard_that_another_process_has_joined_is_found_where_it_is_now(
    make_backbone, videos, fresh_cache, monkeypatch
):
    monkeypatch.setattr(module, "MANY_SMALL", 3)
    backbone = counting(make_backbone())
    read(backbone, videos[:1])
    with Store(backbone, VIEWS) as early:
        for video in videos[1:4]:
            read(backbone, [video])
        assert len(shards(fresh_cache)) < 4
        assert early.get(early.identity(videos[0])) is not None


def test_a_shard_that_cannot_be_opened_now_is_neither_deleted_nor_the_end_of_a_run(
    make_backbone, videos, fresh_cache, monkeypatch
):
    backbone = counting(make_backbone())
    first = read(backbone, videos[:3])
    for error in (PermissionError("no"), RuntimeError("unable to open file"), FileNotFoundError("gone")):
        with monkeypatch.context() as patch:
            patch.setattr(module, "safe_open", lambda *_, error=error, **__: (_ for _ in ()).throw(error))
            again = read(backbone, videos[:3])
        assert [a.sample for a in again] == [b.sample for b in first]
    seen = backbone.seen
    read(backbone, videos[:3])
    assert backbone.seen == seen and len(shards(fresh_cache)) == 4
