"""OST: general video recognition by language.

Three lines do the main job:

    model = ost.load("lite")
    pack = ost.pack(["riding a bike", "arm wrestling"])
    model.recognize("clip.mp4", pack).top(5)

Importing this module loads neither torch nor any other large library.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from typing_extensions import Unpack

    from ost.descriptors.pack import Pack
    from ost.descriptors.spec import Spec
    from ost.descriptors.write.run import Written
    from ost.errors import OstError, PackError, TransportError, UsageError, VideoError, WeightsError
    from ost.knowledge import describe
    from ost.pages.recognition import save_page
    from ost.recognition.decoding import Reading
    from ost.recognition.match import explain, match
    from ost.recognition.prediction import ClassScore, Prediction
    from ost.recognition.recognizer import Recognizer
    from ost.recognition.record import to_table
    from ost.recognition.settings import Settings, SettingsFields
    from ost.transport import score
    from ost.types import ClassHead, Evidence, Frame, FrameEmbeddings, Frames, Scores
    from ost.video.decode import decode
    from ost.video.memory import FrameSequence

_HOMES = {
    "Pack": "ost.descriptors.pack",
    **dict.fromkeys(
        ("OstError", "PackError", "TransportError", "UsageError", "VideoError", "WeightsError"), "ost.errors"
    ),
    **dict.fromkeys(("explain", "match"), "ost.recognition.match"),
    "save_page": "ost.pages.recognition",
    **dict.fromkeys(("ClassScore", "Prediction"), "ost.recognition.prediction"),
    "Reading": "ost.recognition.decoding",
    "to_table": "ost.recognition.record",
    "FrameSequence": "ost.video.memory",
    "Recognizer": "ost.recognition.recognizer",
    "Settings": "ost.recognition.settings",
    "score": "ost.transport",
    **dict.fromkeys(("ClassHead", "Evidence", "Frame", "FrameEmbeddings", "Frames", "Scores"), "ost.types"),
    "decode": "ost.video.decode",
    "describe": "ost.knowledge",
    "Written": "ost.descriptors.write.run",
}

__version__ = version("ost-video")
__all__ = [
    "ClassHead",
    "ClassScore",
    "Evidence",
    "Frame",
    "FrameEmbeddings",
    "FrameSequence",
    "Frames",
    "OstError",
    "Pack",
    "PackError",
    "Prediction",
    "Reading",
    "Recognizer",
    "Scores",
    "Settings",
    "TransportError",
    "UsageError",
    "VideoError",
    "WeightsError",
    "Written",
    "decode",
    "describe",
    "explain",
    "load",
    "match",
    "pack",
    "save_page",
    "score",
    "to_table",
]


def load(
    name: str | None = None,
    weights: str | Path | None = None,
    *,
    blend: float | None = None,
    blend_with: str | Path | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    cache: bool = True,
    threads: int | None = None,
    decoders: int | None = None,
    batch_frames: int | None = None,
    notify: Callable[[str], None] | None = None,
    **settings: Unpack[SettingsFields],
) -> Recognizer:
    """Return a recogniser over a backbone.

    Args:
        name: "lite", a name of the catalog such as "ViT-B-16/openai" (the default), or any open_clip model
            as "ARCHITECTURE/TAG".
        weights: a published name such as "ost/k400", or a weight file.
        blend: share of the original weights, 0 to 1, in a WiSE-FT blend with `weights`.
        blend_with: what to blend with; by default the OpenAI weights of the same sizes.
        device: "auto", "cpu", "cuda", ...
        dtype: "auto", "fp32", "bf16" or "fp16", or torch's own, of the towers.
        cache: keep class heads and frame embeddings, so that the same videos are embedded once.
        threads: CPU threads of torch, for the whole process; by default torch's own choice.
        decoders: threads that decode videos; by default as many as the towers leave room for.
        batch_frames: frames from which on a batch of videos goes through the towers.
        notify: called with notices, one sentence each; by default they are logged as warnings of "ost".
        settings: any of `ost.Settings`: frames, clips, crops, sampling, min_decoded, match, kinds, eps.

    Raises:
        UsageError: a name or setting is unknown or invalid.
        WeightsError: weights cannot be had or do not fit.
    """
    from ost.backbones.load import load_backbone
    from ost.device import dtype_name
    from ost.recognition.recognizer import Recognizer
    from ost.recognition.settings import Settings

    used = Settings().but(**settings)
    model: dict[str, Any] = {"blend": blend, "blend_with": blend_with}
    model |= {"device": str(device), "dtype": dtype_name(dtype)}
    backbone = load_backbone(name, weights, notify=notify or _notify, **model)
    if threads is not None:
        _set_threads(threads)
    reading: dict[str, Any] = {"cache": cache, "decoders": decoders, "batch_frames": batch_frames}
    again = partial(load, name, weights, threads=threads, **model, **reading, **settings)
    return Recognizer(backbone, used, reload=again, **reading)


def pack(spec: Spec) -> Pack:
    """Return classes with their descriptors: from names, a file, or the name of a shipped pack.

    Raises:
        PackError: the file is missing or malformed, or a class is empty or doubled.
    """
    from ost.descriptors.spec import resolve

    return resolve(spec)


def _set_threads(threads: int) -> None:
    import torch

    from ost.recognition.settings import check_count

    torch.set_num_threads(check_count("threads", threads))


def _notify(line: str) -> None:
    import logging

    logging.getLogger("ost").warning(line)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ost' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
