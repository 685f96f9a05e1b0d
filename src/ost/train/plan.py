"""Divide the clips of an epoch into batches.

The order depends on seed and epoch alone, so a run can resume at any step and on another number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Draw(NamedTuple):
    """A clip drawn in an epoch; its augmentation depends on both and the seed."""

    epoch: int
    clip: int


@dataclass(frozen=True)
class RankShare:
    """The part of a contrastive batch that one rank computes.

    Attributes:
        chunks: clips that pass through the towers together.
        weight: clips of the contrastive batch over clips of the optimiser step, both over all ranks.
    """

    chunks: tuple[tuple[Draw, ...], ...]
    weight: float


Step = tuple[RankShare, ...]  # the contrastive batches of one optimiser step


@dataclass(frozen=True)
class Plan:
    """The batches of a run, over all ranks.

    Attributes:
        clips: number of clips.
        batch: most clips per optimiser step; an epoch is split evenly and leaves no clip out.
        contrastive_batch: clips that are each other's negatives.
        chunk: clips per forward pass on one rank.
        seed: seed of the order.
    """

    clips: int
    batch: int
    contrastive_batch: int
    chunk: int
    seed: int

    @property
    def steps(self) -> int:
        """Return the number of optimiser steps per epoch."""
        return -(-self.clips // self.batch)

    def order(self, epoch: int) -> np.ndarray:
        """Return every clip once, shuffled."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.clips)

    def step(self, epoch: int, number: int, rank: int, world: int) -> Step:
        """Return the shares of a rank in one step, one per contrastive batch."""
        clips = np.array_split(self.order(epoch), self.steps)[number]
        parts = np.array_split(clips, -(-len(clips) // self.contrastive_batch))
        return tuple(
            RankShare(self._chunks(epoch, np.array_split(part, world)[rank]), len(part) / len(clips))
            for part in parts
        )

    def _chunks(self, epoch: int, clips: np.ndarray) -> tuple[tuple[Draw, ...], ...]:
        draws = [Draw(epoch, int(i)) for i in clips]
        return tuple(tuple(draws[i : i + self.chunk]) for i in range(0, len(draws), self.chunk))

    def from_step(self, start: int, epochs: int, rank: int, world: int) -> Iterator[Step]:
        """Yield the steps of a run from step `start` on, numbered across epochs."""
        for number in range(start, epochs * self.steps):
            yield self.step(number // self.steps, number % self.steps, rank, world)
