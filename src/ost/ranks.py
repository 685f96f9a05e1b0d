"""The processes that work together under torchrun, and the one that writes and prints."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ost.device import resolve_device

if TYPE_CHECKING:
    from torch import Tensor


def is_first_rank() -> bool:
    """Return whether this process is the one that writes and prints, by torchrun's RANK; does not import torch."""
    return int(os.environ.get("RANK", "0")) == 0


@dataclass(frozen=True)
class Ranks:
    """The processes that work together; one alone needs no process group.

    Attributes:
        rank: the number of this process, 0 to world - 1.
        world: the number of processes.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all ranks, in place, and return it."""
        if self.world > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in the order of ranks; values must be small and picklable."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def gather_rows(self, rows: Tensor, counts: list[int]) -> list[Tensor]:
        """Return every rank's rows [counts[r], ...], in the order of ranks; the counts may differ, and be 0."""
        if self.world == 1:
            return [rows]
        import torch
        import torch.distributed as dist

        # Collectives need equal shapes: shorter shares are padded, and cut again.
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return [part[:count] for part, count in zip(parts, counts, strict=True)]

    def wait(self) -> None:
        """Wait until all ranks have reached this call."""
        if self.world > 1:
            import torch.distributed as dist

            dist.barrier()


@contextmanager
def join_ranks(device: str = "auto", patience: timedelta | None = None) -> Generator[tuple[Ranks, str]]:
    """Yield the ranks that torchrun started, and this one's device; a single rank without torchrun.

    Args:
        device: as for `resolve_device`; "auto" and "cuda" take the GPU of this process's number on its machine.
        patience: how long ranks wait for one another; torch's default if None.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(), device
        return
    import torch
    import torch.distributed as dist

    chosen = resolve_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=patience)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size()), str(chosen)
    finally:
        dist.destroy_process_group()
