"""Resolve the device and dtype of computations, by name or by what the machine offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ost.errors import UsageError

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "fp32", "bf16", "fp16")


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device called `name`; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        UsageError: the name is unknown to torch or the device is not available.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it holds shapes and no numbers")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {name!r} cannot be used ({reason})", "try {device=cpu}") from error
    return device


def dtype_name(dtype: str | torch.dtype) -> str:
    """Return the name of a dtype of the towers; torch's own dtypes are taken too.

    Raises:
        UsageError: the towers have no such dtype.
    """
    text = str(dtype)
    names = {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}
    if text.startswith("torch.") and text not in names:
        raise UsageError(f"there is no dtype {text} of the towers", f"use one of {', '.join(DTYPES)}")
    return names.get(text, text)


def cpu_has_fast_bf16() -> bool:
    """Return whether this CPU multiplies bf16 in hardware (AVX512-BF16 or AMX)."""
    import torch

    features = torch.cpu.get_capabilities()
    return any(bool(features.get(name)) for name in ("avx512_bf16", "amx_tile", "amx_bf16"))


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the towers; similarities, transport and logits are always fp32.

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
