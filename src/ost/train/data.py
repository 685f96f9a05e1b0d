"""Decode labelled clips in worker processes into chunks of augmented frames."""

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
PRELOADED = [__name__]  # imported once, before workers are forked; otherwise each would import torch
REPLACEMENTS_TRIED = 20  # replacements tried for an unreadable clip


@dataclass(frozen=True)
class Failure:
    """An unreadable training clip and the cause."""

    index: int
    path: str
    cause: str


@dataclass(frozen=True)
class TowerBatch:
    """Clips that pass through the towers together.

    Attributes:
        pixels: uint8 [c, T, 3, size, size], cropped and randomly flipped.
        labels: int64 [c], rows of the pack.
        colours: the colour augmentation still to be applied, one per clip.
        paths: paths of the clips.
        failures: clips that could not be read and were replaced.
    """

    pixels: Tensor
    labels: Tensor
    colours: tuple[Colour, ...]
    paths: tuple[str, ...]
    failures: tuple[Failure, ...] = ()

    def pin_memory(self) -> TowerBatch:
        """Return the chunk with its pixels in pinned memory; called by the loader."""
        return replace(self, pixels=self.pixels.pin_memory())


@dataclass(frozen=True)
class ClipDataset(Dataset["TowerBatch | VideoError"]):
    """A dataset of training clips; all randomness derives from seed, epoch and index.

    Attributes:
        paths, labels: paths and labels of the clips; labels are rows of the pack.
        frames: T, frames per clip.
        preprocess: preprocessing of the weights; frames come out cropped to its `size`, not normalised.
        augmentation: drawn once per clip.
        min_decoded: share of a file's frames that must decode.
        seed: seed of the augmentation.
    """

    paths: tuple[str, ...]
    labels: tuple[int, ...]
    frames: int
    preprocess: Preprocess
    augmentation: Augmentation
    min_decoded: float
    seed: int
    _by_label: dict[int, list[int]] = field(default_factory=dict[int, list[int]], repr=False)

    def __post_init__(self) -> None:
        for index, label in enumerate(self.labels):
            self._by_label.setdefault(label, []).append(index)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, draws: list[Draw]) -> list[TowerBatch | VideoError]:
        """Return one chunk of these draws, or the error, in the list that the loader expects."""
        try:
            samples = [self._sample(draw) for draw in draws]
        except VideoError as error:  # returned, because the loader cannot re-raise it unchanged
            return [error]
        return [
            TowerBatch(
                pixels=torch.stack([pixels for pixels, *_ in samples]),
                labels=torch.tensor([self.labels[index] for _, _, index, _ in samples]),
                colours=tuple(colour for _, colour, _, _ in samples),
                paths=tuple(self.paths[index] for _, _, index, _ in samples),
                failures=tuple(failure for *_, failures in samples for failure in failures),
            )
        ]

    def _sample(self, draw: Draw) -> tuple[Tensor, Colour, int, list[Failure]]:
        """Read a clip, or if it is unreadable a replacement, preferably of the same class."""
        failures: list[Failure] = []
        for index in (draw.clip, *self._replacements(draw)):
            try:
                return *self._read(draw.epoch, index), index, failures
            except VideoError as error:
                failures.append(Failure(index, error.path, error.cause))
        others = len(failures) - 1
        raise VideoError(
            self.paths[draw.clip], f"{failures[0].cause}, and neither can {others} others be read"
        )

    def _replacements(self, draw: Draw) -> list[int]:
        rng = np.random.default_rng([self.seed, draw.epoch, draw.clip, 1])
        candidates = self._by_label[self.labels[draw.clip]]
        same_class = [i for i in rng.permutation(candidates).tolist() if i != draw.clip][
            : REPLACEMENTS_TRIED // 2
        ]
        others = [
            i for i in rng.permutation(len(self.paths))[: 2 * REPLACEMENTS_TRIED].tolist() if i != draw.clip
        ]
        return list(dict.fromkeys((*same_class, *others)))[:REPLACEMENTS_TRIED]

    def _read(self, epoch: int, index: int) -> tuple[Tensor, Colour]:
        frames = self._decode(self.paths[index], [self.seed, epoch, index, 2])
        rng = np.random.default_rng([self.seed, epoch, index, 3])
        pixels = torch.from_numpy(frames.pixels).permute(0, 3, 1, 2)
        cropped = crop_clip(pixels, self.preprocess.size, self.augmentation, rng)
        return cropped, draw_colour(self.augmentation, rng)

    def _decode(self, path: str, seed: list[int]) -> Frames:
        def pick(count: int) -> list[int]:  # called again if a file holds fewer frames than its header says
            return train_indices(count, self.frames, np.random.default_rng(seed))

        return decode(
            path,
            frames=self.frames,
            preprocess=train_resize(self.preprocess),
            min_decoded=self.min_decoded,
            pick=pick,
        )


def chunks(dataset: ClipDataset, steps: Iterable[Step], workers: int, *, pin: bool) -> Iterator[TowerBatch]:
    """Yield the chunks of all steps in order, decoded ahead by worker processes across epochs.

    Args:
        dataset: the clips.
        steps: the steps of this rank.
        workers: processes; 0 decodes when a chunk is requested.
        pin: put the pixels in pinned memory, for a GPU.
    """
    if workers:
        _start_forkserver()
    draws = (list(chunk) for step in steps for share in step for chunk in share.chunks)
    loader: DataLoader[TowerBatch | VideoError] = DataLoader(
        dataset,
        batch_sampler=_DrawSampler(draws),
        num_workers=workers,
        collate_fn=_first,
        # A fork would copy the locks of torch's and FFmpeg's threads, possibly held.
        multiprocessing_context=START if workers else None,
        prefetch_factor=4 if workers else None,
        pin_memory=pin,
    )
    try:
        for result in loader:
            if isinstance(result, VideoError):
                raise result
            yield result
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise OstError(
            f"a decoding process died ({first_line(error)}), of too little memory or of a video that its decoder "
            "cannot bear; go on with --resume, and with fewer workers if it happens again"
        ) from error


@dataclass(frozen=True)
class _DrawSampler:
    """A batch sampler over draws that are already planned."""

    draws: Iterator[list[Draw]]

    def __iter__(self) -> Iterator[list[Draw]]:
        return self.draws


def _first(chunks: Sequence[TowerBatch | VideoError]) -> TowerBatch | VideoError:
    return chunks[0]


def _start_forkserver() -> None:
    """Start the fork server with the imports done and SIGTERM blocked, which its workers inherit.

    Slurm sends SIGTERM to every process of a job. The training process alone decides when to stop, and needs its
    workers until then. It is blocked rather than ignored, so that a SIGTERM sent meanwhile still reaches this process.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows has neither signal masks nor a fork server
        return
    from multiprocessing import active_children, forkserver, resource_tracker, util

    forkserver.set_forkserver_preload(PRELOADED)
    resource_tracker.ensure_running()  # starts first, because starting it unblocks SIGTERM
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def end_workers() -> None:
        for child in active_children():
            if child.daemon:
                child.kill()

    # On an error, multiprocessing ends the remaining workers by SIGTERM, which they block, and would wait forever.
    util.Finalize(None, end_workers, exitpriority=100)


def flip_of(names: Sequence[str]) -> float:
    """Return the probability of a horizontal flip: 0 if a class name says left or right, else 0.5."""
    return 0.0 if sided(names) else 0.5
