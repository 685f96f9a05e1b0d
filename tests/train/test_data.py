"""Training clips: the same by seed, epoch and index, whoever decodes them; unreadable ones replaced and named."""

import multiprocessing
import subprocess
import sys
from itertools import islice

import pytest
import torch

from ost.errors import VideoError
from ost.train.data import REPLACEMENTS_TRIED, START, ClipDataset, chunks, flip_of
from ost.train.plan import Draw, Plan
from ost.types import Preprocess
from ost.video.augment import NONE, Augmentation

PIXELS = Preprocess(32, 32, "bilinear", False, (0.5,) * 3, (0.25,) * 3)
PLAN = Plan(clips=12, batch=5, contrastive_batch=3, chunk=2, seed=7)


def dataset_of(paths, labels, seed=7, augmentation=None):
    return ClipDataset(tuple(paths), tuple(labels), 3, PIXELS, augmentation or Augmentation(), 0.5, seed)


@pytest.fixture
def dataset(labelled):
    return dataset_of(labelled.paths, labelled.labels)


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Writes files that are called videos and are none."""
    folder = tmp_path_factory.mktemp("broken")

    def make(name="x.mp4"):
        file = folder / name
        file.write_text("this is not a video")
        return str(file)

    return make


def one(dataset, *draws):
    (chunk,) = dataset.__getitems__([Draw(*draw) for draw in draws])
    return chunk


def same(a, b):
    return (
        torch.equal(a.pixels, b.pixels)
        and torch.equal(a.labels, b.labels)
        and (a.colours, a.paths, a.failures) == (b.colours, b.paths, b.failures)
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_give_the_chunks_of_none_in_the_order_of_the_plan(dataset, workers):
    def steps():
        return PLAN.from_step(1, 2, 0, 1)  # across the end of an epoch

    planned = [chunk for step in steps() for share in step for chunk in share.chunks]
    alone = list(chunks(dataset, steps(), 0, pin=False))
    shared = list(chunks(dataset, steps(), workers, pin=False))
    assert len(alone) == len(shared) == len(planned)
    for turns, a, b in zip(planned, alone, shared, strict=True):
        assert same(a, b)
        assert a.paths == tuple(dataset.paths[draw.clip] for draw in turns)
        assert a.labels.tolist() == [dataset.labels[draw.clip] for draw in turns]


LOOKS = """
import signal, sys
assert {"torch", "ost.train.data", "ost.video.decode"} <= sys.modules.keys(), "it would import them by itself"
assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, []), "Slurm would end it"
"""


def test_a_worker_is_born_with_its_imports_and_deaf_to_sigterm(fork_server):
    worker = multiprocessing.get_context(START).Process(target=exec, args=(LOOKS,))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0


def test_chunks_are_decoded_only_when_they_are_asked_for_without_workers(dataset, monkeypatch):
    import ost.train.data as data

    decoded, decode = [], data.decode
    monkeypatch.setattr(
        data, "decode", lambda path, **given: (decoded.append(path), decode(path, **given))[1]
    )
    list(islice(chunks(dataset, PLAN.from_step(0, 1, 0, 1), 0, pin=False), 1))
    assert len(decoded) == 2


def test_a_chunk_holds_cropped_bytes_with_label_and_path_of_each_clip(dataset):
    chunk = one(dataset, (0, 11), (0, 0), (0, 5))
    assert chunk.pixels.shape == (3, 3, 3, 32, 32)
    assert chunk.pixels.dtype == torch.uint8
    assert chunk.labels.tolist() == [dataset.labels[i] for i in (11, 0, 5)]
    assert chunk.labels.dtype == torch.int64
    assert chunk.paths == tuple(dataset.paths[i] for i in (11, 0, 5))
    assert len(chunk.colours) == 3
    assert chunk.failures == ()


def test_a_clip_does_not_depend_on_its_company(dataset):
    together = one(dataset, (1, 4), (0, 9), (1, 0))
    for i, draw in enumerate([(1, 4), (0, 9), (1, 0)]):
        alone = one(dataset, draw)
        assert torch.equal(alone.pixels[0], together.pixels[i])
        assert alone.colours[0] == together.colours[i]


def test_seeds_epochs_and_clips_differ(labelled):
    found = [
        one(dataset_of(labelled.paths, labelled.labels, seed), (epoch, 3))
        for seed in (7, 8)
        for epoch in (0, 1, 2)
    ]
    assert len({chunk.pixels.numpy().tobytes() for chunk in found}) == len(found)
    assert len({chunk.colours for chunk in found}) > 1
    twice = dataset_of([labelled.paths[0]] * 2, [0, 0])
    assert not torch.equal(one(twice, (0, 0)).pixels, one(twice, (0, 1)).pixels)


def test_without_augmentation_the_frames_still_differ_from_epoch_to_epoch(labelled):
    still = dataset_of(labelled.paths, labelled.labels, augmentation=NONE)
    found = {one(still, (epoch, 3)).pixels.numpy().tobytes() for epoch in range(8)}
    assert 1 < len(found) <= 8


def test_global_chance_is_neither_read_nor_moved(dataset):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = one(dataset, (0, 3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert same(one(dataset, (0, 3)), first)


def test_an_unreadable_clip_is_replaced_by_one_of_its_class_named_and_counted(labelled, broken):
    paths = [broken(), *labelled.paths]
    labels = [1, *labelled.labels]
    dataset = dataset_of(paths, labels)
    replacements = set()
    for epoch in range(6):
        chunk = one(dataset, (epoch, 0), (epoch, 1))
        assert chunk.labels.tolist() == [1, labels[1]]
        assert labels[paths.index(chunk.paths[0])] == 1
        (failure,) = chunk.failures
        assert (failure.index, failure.path) == (0, paths[0])
        assert failure.cause and paths[0] not in failure.cause
        assert same(one(dataset, (epoch, 0), (epoch, 1)), chunk)
        replacements.add(chunk.paths[0])
    assert len(replacements) > 1, "not always the same clip takes its turn"


def test_a_class_with_no_readable_clip_is_replaced_by_another_class_with_its_own_label(labelled, broken):
    # as many unreadable ones of the class as may be tried at all would leave no room
    paths = [broken("a.mp4"), broken("b.mp4"), *labelled.paths]
    labels = [0, 0, *(row + 1 for row in labelled.labels)]
    chunk = one(dataset_of(paths, labels), (0, 0))
    assert chunk.labels.tolist() == [labels[paths.index(chunk.paths[0])]]
    assert chunk.labels.item() > 0
    assert {failure.path for failure in chunk.failures} == {paths[0], paths[1]}


def test_no_clip_is_tried_twice(broken, labelled):
    paths = [broken("a.mp4"), broken("b.mp4"), broken("c.mp4"), labelled.paths[0]]
    dataset = dataset_of(paths, [0, 0, 0, 1])
    for epoch in range(10):
        tried = [failure.index for failure in one(dataset, (epoch, 0)).failures]
        assert len(tried) == len(set(tried))


def test_a_large_unreadable_class_does_not_hide_the_readable_ones(broken, labelled):
    paths = [*(broken(f"{i}.mp4") for i in range(REPLACEMENTS_TRIED + 5)), *labelled.paths]
    labels = [0] * (REPLACEMENTS_TRIED + 5) + [1] * len(labelled.paths)
    chunk = one(dataset_of(paths, labels), (0, 0))
    assert chunk.paths[0] in labelled.paths


def test_a_clip_that_replaces_looks_as_in_its_own_turn(labelled, broken):
    dataset = dataset_of([broken(), *labelled.paths], [labelled.labels[0], *labelled.labels])
    chunk = one(dataset, (2, 0))
    index = dataset.paths.index(chunk.paths[0])
    assert torch.equal(chunk.pixels, one(dataset, (2, index)).pixels)


def error_of(dataset, plan, workers):
    """What goes wrong, without its traceback: that would keep the workers alive beyond the test."""
    try:
        list(chunks(dataset, plan.from_step(0, 1, 0, 1), workers, pin=False))
    except Exception as error:
        return type(error), str(error), getattr(error, "path", None)
    return None


@pytest.mark.parametrize("workers", [0, 1])
def test_where_nothing_can_be_read_a_video_error_says_so(broken, workers):
    dataset = dataset_of([broken("a.mp4"), broken("b.mp4")], [0, 1])
    kind, told, path = error_of(dataset, Plan(2, 2, 2, 1, 0), workers)
    assert kind is VideoError
    assert path in dataset.paths
    assert told.startswith(f"{path}: ") and "\n" not in told


ABANDONED = """
import sys
from ost.train.data import ClipDataset, chunks
from ost.train.plan import Plan
from ost.types import Preprocess
from ost.video.augment import NONE

def main(path):
    pixels = Preprocess(32, 32, "bilinear", False, (0.5,) * 3, (0.25,) * 3)
    dataset = ClipDataset((path,) * 8, (0,) * 8, 3, pixels, NONE, 0.5, 0)
    coming = chunks(dataset, Plan(8, 2, 2, 1, 0).from_step(0, 9, 0, 1), 1, pin=False)
    next(coming)
    raise ValueError("the loss is not finite")

if __name__ == "__main__":
    main(sys.argv[1])
"""


def test_an_error_in_training_ends_the_process_though_workers_decode(labelled, tmp_path):
    (tmp_path / "main.py").write_text(ABANDONED)
    command = [sys.executable, tmp_path / "main.py", labelled.paths[0]]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=45)
    assert ended.returncode == 1
    assert ended.stderr.rstrip().endswith("ValueError: the loss is not finite")


MIRRORED = {
    "turn left": 0.0,
    "Moving Something RIGHT to somewhere": 0.0,
    "left-handed swing": 0.0,
    "pulling something from left to right": 0.0,
    "spin anti-clockwise": 0.0,
    "counterclockwise": 0.0,
    "look (left)": 0.0,
    "left, then up": 0.0,
    "left/right": 0.0,
    "leftover cooking": 0.5,
    "bright copyright": 0.5,
    "cleft climbing": 0.5,
    "clap": 0.5,
}


@pytest.mark.parametrize(("name", "flip"), MIRRORED.items(), ids=MIRRORED)
def test_clips_are_mirrored_unless_a_class_says_left_or_right_as_a_word(name, flip):
    assert flip_of(["clap", name]) == flip
