"""Which clips make a batch: arithmetic, pure. The order depends on seed and epoch alone, so a run can go on at any
step, and on another number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Draw(NamedTuple):
    """One clip's turn: which one, and in which epoch; its augmentation depends on both and the seed."""

    epoch: int
    clip: int


@dataclass(frozen=True)
class Share:
    """What one rank does of a contrastive batch.

    Attributes:
        chunks: clips that go through the towers at once.
        weight: clips of the whole contrastive batch, over all ranks, of those of the optimiser step.
    """

    chunks: tuple[tuple[Draw, ...], ...]
    weight: float


Step = tuple[Share, ...]  # the contrastive batches of one optimiser step


@dataclass(frozen=True)
class Plan:
    """The batches of a run, over all ranks.

    Attributes:
        clips: how many there are.
        batch: clips an optimiser step; the steps of an epoch are as equal as they can be, and none is left out.
        contrastive_batch: clips that are each other's negatives.
        chunk: clips at once on one rank.
        seed: of the order.
    """

    clips: int
    batch: int
    contrastive_batch: int
    chunk: int
    seed: int

    @property
    def steps(self) -> int:
        """Optimiser steps an epoch."""
        return -(-self.clips // self.batch)

    def order(self, epoch: int) -> np.ndarray:
        """Every clip once, shuffled."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.clips)

    def step(self, epoch: int, number: int, rank: int, world: int) -> Step:
        """What a rank does in one step."""
        clips = np.array_split(self.order(epoch), self.steps)[number]
        parts = np.array_split(clips, -(-len(clips) // self.contrastive_batch))
        return tuple(
            Share(self._chunks(epoch, np.array_split(part, world)[rank]), len(part) / len(clips))
            for part in parts
        )

    def _chunks(self, epoch: int, clips: np.ndarray) -> tuple[tuple[Draw, ...], ...]:
        draws = [Draw(epoch, int(i)) for i in clips]
        return tuple(tuple(draws[i : i + self.chunk]) for i in range(0, len(draws), self.chunk))

    def from_step(self, start: int, epochs: int, rank: int, world: int) -> Iterator[Step]:
        """The steps of a run from a step on, counted over epochs."""
        for number in range(start, epochs * self.steps):
            yield self.step(number // self.steps, number % self.steps, rank, world)
