"""Labelled clips -> chunks of augmented frames, decoded in worker processes."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ost.descriptors.names import sided
from ost.errors import OstError, VideoError, first_line
from ost.train.plan import Draw, Step
from ost.types import Frames, Preprocess
from ost.video.augment import Augmentation, Colour, crop_clip, draw_colour, train_resize
from ost.video.decode import decode
from ost.video.sample import train_indices

START = "forkserver" if hasattr(signal, "pthread_sigmask") else "spawn"
PRELOADED = [
    __name__
]  # imported once, before workers are forked; each would import torch by itself otherwise
TRIES = 20  # clips tried in the place of an unreadable one


@dataclass(frozen=True)
class Failure:
    """An unreadable training clip, and why."""

    index: int
    path: str
    cause: str


@dataclass(frozen=True)
class Chunk:
    """Clips that go through the towers at once.

    Attributes:
        pixels: uint8 [c, T, 3, size, size], cropped and perhaps flipped.
        labels: int64 [c], rows of the pack.
        colours: what is still to be done to the colours, one a clip.
        paths: the clips.
        failures: clips that could not be read and were replaced.
    """

    pixels: Tensor
    labels: Tensor
    colours: tuple[Colour, ...]
    paths: tuple[str, ...]
    failures: tuple[Failure, ...] = ()

    def pin_memory(self) -> Chunk:
        """Pixels where a GPU can fetch them by itself; called by the loader."""
        return replace(self, pixels=self.pixels.pin_memory())


@dataclass(frozen=True)
class ClipDataset(Dataset["Chunk | VideoError"]):
    """Training clips by their turn; everything random comes from seed, epoch and index.

    Attributes:
        paths, labels: of the clips; labels are rows of the pack.
        frames: T.
        preprocess: of the weights; frames come out cropped to its `size`, not normalised.
        augmentation: one draw a clip.
        min_decoded: share of a file's frames that must decode.
        seed: of the augmentation.
    """

    paths: tuple[str, ...]
    labels: tuple[int, ...]
    frames: int
    preprocess: Preprocess
    augmentation: Augmentation
    min_decoded: float
    seed: int
    _same: dict[int, list[int]] = field(default_factory=dict[int, list[int]], repr=False)

    def __post_init__(self) -> None:
        for index, label in enumerate(self.labels):
            self._same.setdefault(label, []).append(index)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, draws: list[Draw]) -> list[Chunk | VideoError]:
        """One chunk of these turns, in a list because the loader wants one; or why there can be none."""
        try:
            samples = [self._sample(draw) for draw in draws]
        except VideoError as error:  # returned, because the loader cannot raise it again as it was
            return [error]
        return [
            Chunk(
                pixels=torch.stack([pixels for pixels, *_ in samples]),
                labels=torch.tensor([self.labels[index] for _, _, index, _ in samples]),
                colours=tuple(colour for _, colour, _, _ in samples),
                paths=tuple(self.paths[index] for _, _, index, _ in samples),
                failures=tuple(failure for *_, failures in samples for failure in failures),
            )
        ]

    def _sample(self, draw: Draw) -> tuple[Tensor, Colour, int, list[Failure]]:
        """A clip, or where it cannot be read another one, of the same class first."""
        failures: list[Failure] = []
        for index in (draw.clip, *self._others(draw)):
            try:
                return *self._read(draw.epoch, index), index, failures
            except VideoError as error:
                failures.append(Failure(index, error.path, error.cause))
        others = len(failures) - 1
        raise VideoError(
            self.paths[draw.clip], f"{failures[0].cause}, and neither can {others} others be read"
        )

    def _others(self, draw: Draw) -> list[int]:
        rng = np.random.default_rng([self.seed, draw.epoch, draw.clip, 1])
        same = self._same[self.labels[draw.clip]]
        own = [i for i in rng.permutation(same).tolist() if i != draw.clip][: TRIES // 2]
        rest = [i for i in rng.permutation(len(self.paths))[: 2 * TRIES].tolist() if i != draw.clip]
        return list(dict.fromkeys((*own, *rest)))[:TRIES]

    def _read(self, epoch: int, index: int) -> tuple[Tensor, Colour]:
        frames = self._decode(self.paths[index], [self.seed, epoch, index, 2])
        rng = np.random.default_rng([self.seed, epoch, index, 3])
        pixels = torch.from_numpy(frames.pixels).permute(0, 3, 1, 2)
        cropped = crop_clip(pixels, self.preprocess.size, self.augmentation, rng)
        return cropped, draw_colour(self.augmentation, rng)

    def _decode(self, path: str, seed: list[int]) -> Frames:
        def pick(count: int) -> list[int]:  # asked again where a file holds fewer frames than it says
            return train_indices(count, self.frames, np.random.default_rng(seed))

        return decode(
            path,
            frames=self.frames,
            preprocess=train_resize(self.preprocess),
            min_decoded=self.min_decoded,
            pick=pick,
        )


def chunks(dataset: ClipDataset, steps: Iterable[Step], workers: int, *, pin: bool) -> Iterator[Chunk]:
    """The chunks of all steps in order, decoded ahead by worker processes across the ends of epochs.

    Args:
        dataset: the clips.
        steps: what this rank does, step by step.
        workers: processes; 0 decodes when a chunk is asked for.
        pin: prepare the pixels for a GPU.
    """
    if workers:
        _start_forkserver()
    turns = (list(chunk) for step in steps for share in step for chunk in share.chunks)
    loader: DataLoader[Chunk | VideoError] = DataLoader(
        dataset,
        batch_sampler=_Turns(turns),
        num_workers=workers,
        collate_fn=_only,
        # A fork would copy the threads' locks of torch and FFmpeg in whatever state they are.
        multiprocessing_context=START if workers else None,
        prefetch_factor=4 if workers else None,
        pin_memory=pin,
    )
    try:
        for found in loader:
            if isinstance(found, VideoError):
                raise found
            yield found
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise OstError(
            f"a decoding process died ({first_line(error)}), of too little memory or of a video that its decoder "
            "cannot bear; go on with --resume, and with fewer workers if it happens again"
        ) from error


@dataclass(frozen=True)
class _Turns:
    """A batch sampler over turns that were worked out before."""

    turns: Iterator[list[Draw]]

    def __iter__(self) -> Iterator[list[Draw]]:
        return self.turns


def _only(chunks: Sequence[Chunk | VideoError]) -> Chunk | VideoError:
    return chunks[0]


def _start_forkserver() -> None:
    """Start what starts the workers, with their imports done and SIGTERM blocked; they inherit both.

    Slurm sends it to every process of a job; the training process alone decides when to stop, and needs its
    workers until then. Blocked rather than ignored, so that one that comes just now is not lost on this process.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows has neither
        return
    from multiprocessing import active_children, forkserver, resource_tracker, util

    forkserver.set_forkserver_preload(PRELOADED)
    resource_tracker.ensure_running()  # unblocks SIGTERM when it starts: so it starts first
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def end_workers() -> None:
        for child in active_children():
            if child.daemon:
                child.kill()

    # A process that ends by an error asks what is left of its workers to end by SIGTERM, and would wait for ever.
    util.Finalize(None, end_workers, exitpriority=100)


def flip_of(names: Sequence[str]) -> float:
    """Probability of a mirrored clip: none where left and right are in the names of the classes."""
    return 0.0 if sided(names) else 0.5
