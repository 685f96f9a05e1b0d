"""The processes that work together under torchrun, and the one that writes and speaks."""

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
    """Whether this process is the one that writes and speaks, as torchrun tells it; asked before torch is imported."""
    return int(os.environ.get("RANK", "0")) == 0


@dataclass(frozen=True)
class Ranks:
    """The processes that work together; one alone needs no process group.

    Attributes:
        rank: which one this is, 0 to world - 1.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        if self.world > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in the order of ranks; values are small and can be pickled."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def gather_rows(self, rows: Tensor, counts: list[int]) -> list[Tensor]:
        """Every rank's rows [counts[r], ...], in the order of ranks; the counts may differ, and be 0."""
        if self.world == 1:
            return [rows]
        import torch
        import torch.distributed as dist

        # Collectives want equal shapes: shorter shares are filled up, and cut again.
        filled = rows.new_zeros(max(counts), *rows.shape[1:])
        filled[: len(rows)] = rows
        parts = [torch.empty_like(filled) for _ in counts]
        dist.all_gather(parts, filled)
        return [part[:count] for part, count in zip(parts, counts, strict=True)]

    def wait(self) -> None:
        """Go on when all ranks are here."""
        if self.world > 1:
            import torch.distributed as dist

            dist.barrier()


@contextmanager
def join_ranks(device: str = "auto", patience: timedelta | None = None) -> Generator[tuple[Ranks, str]]:
    """The ranks that torchrun started, and the device of this one; one rank where it did not.

    Args:
        device: as for `resolve_device`; "auto" and "cuda" take the GPU of this process's number on its machine.
        patience: how long ranks wait for one another; torch's own by default.
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
