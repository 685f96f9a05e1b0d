"""A small adapter over frozen towers: a residual on frame embeddings and a residual on the class head.

CLIP-Adapter (IJCV 2024) and Tip-Adapter (ECCV 2022) in the form that transport leaves intact: frames are
moved by a low-rank map of their features, and a class's learned vector is added to each of its descriptors (see
`ost.recognition.match`). The file is small: it names the backbone it belongs to and holds none of its weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ost.backbones.names import ADAPTER_KEY
from ost.errors import WeightsError, first_line
from ost.files import atomic, file_hash
from ost.types import LearnedClasses


@dataclass(frozen=True)
class Adapter:
    """The parameters learned from examples over one frozen backbone.

    Attributes:
        backbone: the name of the backbone.
        backbone_hash: SHA-256 of its weights; the adapter fits no others.
        names: the C classes that had examples, readable.
        frames: T, frames a clip in training.
        temperature: factor of the descriptors' logits.
        centre: fp32 [F], mean feature of the examples.
        weight, bias: fp32 [C, F] and [C], the residual on the class head.
        down, up: fp32 [R, F] and [D, R], the residual on frame embeddings.
        hash: SHA-256 of the file; empty before it is written.
    """

    backbone: str
    backbone_hash: str
    names: tuple[str, ...]
    frames: int
    temperature: float
    centre: Tensor
    weight: Tensor
    bias: Tensor
    down: Tensor
    up: Tensor
    hash: str = ""

    def classes(self, names: Sequence[str]) -> LearnedClasses:
        """Return the learned parameters with a row for each of these classes; zero for classes without examples."""
        known = {name: row for row, name in enumerate(self.names)}
        weight = self.weight.new_zeros(len(names), self.weight.shape[1])
        bias = self.bias.new_zeros(len(names))
        for a, name in enumerate(names):
            if name in known:
                weight[a], bias[a] = self.weight[known[name]], self.bias[known[name]]
        return LearnedClasses(weight, bias, self.temperature, self.centre, self.down, self.up)

    def to(self, device: Any) -> Adapter:
        """Return the adapter on another device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in _TENSORS})


_TENSORS = ("centre", "weight", "bias", "down", "up")


def save_adapter(adapter: Adapter, path: str | Path) -> None:
    """Write an adapter as a safetensors file, atomically."""
    from safetensors.torch import save_file

    metadata = {
        "backbone": adapter.backbone,
        "backbone_hash": adapter.backbone_hash,
        "names": list(adapter.names),
        "frames": adapter.frames,
        "temperature": adapter.temperature,
    }
    tensors = {name: getattr(adapter, name).contiguous().cpu() for name in _TENSORS}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={ADAPTER_KEY: json.dumps(metadata)})


def _checked_names(names: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or len({*map(str, names)}) != len(names):
        raise ValueError("its classes are no list of different names")
    return tuple(map(str, names))


def read_adapter(path: Path) -> Adapter:
    """Read and check an adapter.

    Raises:
        WeightsError: the file is damaged or its tensors do not fit each other.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = json.loads((file.metadata() or {})[ADAPTER_KEY])
            tensors = {name: file.get_tensor(name).float() for name in _TENSORS}
        names = _checked_names(metadata["names"])
        (classes, width), (_, rank) = tensors["weight"].shape, tensors["up"].shape
        shapes = {"centre": (width,), "bias": (classes,), "down": (rank, width)}
        wrong = [name for name, shape in shapes.items() if tuple(tensors[name].shape) != shape]
        if wrong or classes != len(names):
            raise ValueError(f"{(wrong or ['names'])[0]} does not fit {classes} classes of {width} features")
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
            raise ValueError("a number in it is not finite")
        frames, temperature = int(metadata["frames"]), float(metadata["temperature"])
        if frames < 1 or not 0 < temperature < math.inf:
            raise ValueError(f"{frames} frames at a temperature of {temperature} cannot be")
        return Adapter(
            backbone=str(metadata["backbone"]),
            backbone_hash=str(metadata["backbone_hash"]),
            names=names,
            frames=frames,
            temperature=temperature,
            hash=file_hash(path),
            **tensors,
        )
    except (
        SafetensorError,
        OSError,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        raise WeightsError(f"{path}: is not an adapter that can be read ({first_line(error)})") from error
