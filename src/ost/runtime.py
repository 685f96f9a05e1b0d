"""Where the numbers are computed: device and dtype, by name or by what the machine offers; and by how many."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ost.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DTYPES = ("auto", "fp32", "bf16", "fp16")


def resolve_device(name: str = "auto") -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU; any other name is torch's own.

    Raises:
        UsageError: the name is unknown to torch or the device is not there.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {name!r} cannot be used ({reason})", "try {device=cpu}") from error
    return device


def cpu_has_fast_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AVX512-BF16 or AMX)."""
    import torch

    features = torch.cpu.get_capabilities()
    return any(bool(features.get(name)) for name in ("avx512_bf16", "amx_tile", "amx_bf16"))


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Dtype of the towers; similarities, transport and logits are fp32 always.

    `auto` is bf16 on GPUs that have it and on CPUs with AVX512-BF16 or AMX, else fp32.
    fp16 is refused on CPUs, where it is slower than fp32 and no more exact than bf16.
    """
    import torch

    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
        fast = device.type == "cpu" and cpu_has_fast_bf16()
        return torch.bfloat16 if fast else torch.float32
    if name not in DTYPES:
        raise UsageError(f"there is no dtype {name!r}", f"use one of {', '.join(DTYPES)}")
    if name == "fp16" and device.type == "cpu":
        raise UsageError("fp16 is slow on CPUs", "use {dtype=fp32}", "{dtype=bf16}")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


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
