"""Check names of backbones and weights without importing torch or open_clip, so that a typo fails at once."""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from ost.backbones.catalog import BACKBONES, DEFAULT
from ost.backbones.spec import OpenClipSpec
from ost.catalog import did_you_mean, near_misses
from ost.device import DTYPES
from ost.errors import UsageError
from ost.files import package_file
from ost.weights.published import PUBLISHED

ADAPTER_KEY = "ost_adapter"  # metadata key in an adapter's file
RARE_DEVICES = "mkldnn opengl opencl ideep hip ve fpga maia xla lazy vulkan hpu mtia ipu privateuseone"
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", *RARE_DEVICES.split())  # the devices that torch names
WEIGHT_ENDINGS = frozenset({".safetensors", ".pth", ".pt", ".bin", ".ckpt"})


def check_model(
    name: str | None = None,
    weights: str | Path | None = None,
    *,
    blend: float | None = None,
    blend_with: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> None:
    """Refuse what `load_backbone` cannot load, as far as names and settings show.

    Args:
        name, weights, blend, blend_with, device, dtype: see `ost.load`.

    Raises:
        UsageError: a name is unknown, a file does not exist, or settings contradict each other.
    """
    if dtype not in DTYPES:
        raise UsageError(f"there is no dtype {dtype!r}", f"use one of {', '.join(DTYPES)}")
    if device.partition(":")[0] not in DEVICES:
        near = near_misses(device.partition(":")[0], DEVICES) or DEVICES[:4]
        raise UsageError(f"there is no device {device!r}", f"use {', '.join(near)}")
    if dtype == "fp16" and device == "cpu":
        raise UsageError("fp16 is slow on CPUs", "use {dtype=fp32}", "{dtype=bf16}")
    if weights is not None and is_adapter(Path(weights)):
        if blend is not None:
            raise UsageError("an adapter leaves the weights as they are", "leave {blend} out")
    elif name is not None and name in BACKBONES and not isinstance(spec := BACKBONES[name], OpenClipSpec):
        if weights is not None or blend is not None:
            surplus = _join_arguments(weights=weights is not None, blend=blend is not None)
            raise UsageError(f"the backbone {name} carries its own weights", f"leave {surplus} out")
        spec.check(device, dtype)
    elif blend is not None and weights is None:
        raise UsageError(
            "a blend needs fine-tuned weights to blend the original with", "name them with {weights}"
        )
    if blend_with is not None and blend is None:
        raise UsageError("the weights to blend with are given, but not how much of them", "add {blend=SHARE}")
    for source in (weights, blend_with):
        if source is not None:
            check_weights(source)
    if weights is None:
        check_backbone(name or DEFAULT)
    elif name is not None and name not in architectures() and not is_backbone(name):
        raise UsageError(f"open_clip has no model {name!r}{did_you_mean(name, architectures())}")


def check_backbone(name: str) -> None:
    """Refuse a backbone for which neither the catalog nor open_clip has weights.

    Raises:
        UsageError: there is none of that name.
    """
    if is_backbone(name):
        return
    if near := near_misses(name, known_names()):
        raise UsageError(f"there is no backbone {name!r}{did_you_mean(name, near)}")
    raise UsageError(
        f"there is no backbone {name!r}; `ost weights list` shows them, and a model of open_clip is named "
        "ARCHITECTURE/TAG, as in ViT-B-32/laion2b_s34b_b79k"
    )


def check_weights(source: str | Path) -> None:
    """Refuse a source that is neither a weight file nor a name of published weights.

    Raises:
        UsageError: it is neither.
    """
    text = str(source)
    if os.path.isdir(text):  # noqa: PTH112 - unlike Path.is_dir, no error where looking is forbidden
        raise UsageError(f"{text}: is a folder, not a weight file")
    if text in PUBLISHED or _exists(text):
        return
    if text.startswith("ost/"):
        PUBLISHED.find(text)  # raises with the nearest names
    if text in BACKBONES and not isinstance(BACKBONES[text], OpenClipSpec):
        raise UsageError(f"{text} is a backbone with weights of its own", f"name it with {{backbone={text}}}")
    if is_backbone(text):
        return
    if Path(text).suffix.lower() in WEIGHT_ENDINGS:
        raise UsageError(f"{text}: there is no such weight file")
    known = [*known_names(), *PUBLISHED]
    near = did_you_mean(text, near_misses(text, known)) or "; `ost weights list` shows the names"
    raise UsageError(f"{text!r} is neither a weight file nor a known name{near}")


def is_backbone(name: str) -> bool:
    """Return whether a name is in the catalog, or is ARCHITECTURE or ARCHITECTURE/TAG with weights in open_clip."""
    if name in BACKBONES or any(known.startswith(f"{name}/") for known in BACKBONES):
        return True
    architecture, _, tag = name.partition("/")
    if architecture not in architectures():
        return False
    listed, tags = _open_clip_tags()
    if listed != version("open_clip_torch"):
        return True  # another version may have more tags; open_clip itself checks when the towers are built
    known = tags.get(architecture, [])
    return tag.lower().replace("-", "_") in known if tag else bool(known)


def is_adapter(path: Path) -> bool:
    """Return whether a file holds an adapter."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        with safe_open(path, framework="numpy") as file:
            return ADAPTER_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False  # reading it as weights will report the fault


def architectures() -> tuple[str, ...]:
    """Return the names of open_clip's architectures: its packaged files, and those registered at run time."""
    added: Any = sys.modules.get("open_clip")
    return tuple(sorted({*_packaged_architectures(), *(added.list_models() if added else ())}))


@cache
def _packaged_architectures() -> tuple[str, ...]:
    folder = package_file("open_clip", "model_configs/ViT-B-16.json").parent
    return tuple(file.stem for file in folder.glob("*.json"))


@cache
def known_names() -> tuple[str, ...]:
    """Return the names of the catalog and of open_clip, for messages."""
    _, tags = _open_clip_tags()
    return (*BACKBONES, *(f"{name}/{tag}" for name, known in tags.items() for tag in known))


@cache
def _open_clip_tags() -> tuple[str, dict[str, list[str]]]:
    """Return the version of open_clip that was listed, and its tags by architecture."""
    content = json.loads((files("ost.backbones") / "open_clip_tags.json").read_text(encoding="utf-8"))
    return content["open_clip_torch"], content["tags"]


def _join_arguments(**arguments: bool) -> str:
    return " and ".join(f"{{{name}}}" for name, chosen in arguments.items() if chosen)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # stat is not permitted; reading will report it
        return True
