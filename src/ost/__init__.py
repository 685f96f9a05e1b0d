"""OST: general video recognition by language.

Three lines do the main job:

    model = ost.load("lite")
    pack = ost.pack(["riding a bike", "arm wrestling"])
    model.recognize("clip.mp4", pack).top(5)

Importing this module loads neither torch nor any other large library.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ost.descriptors.pack import Pack
    from ost.descriptors.spec import Spec
    from ost.descriptors.write.run import Written
    from ost.errors import OstError, PackError, TransportError, UsageError, VideoError, WeightsError
    from ost.knowledge import describe
    from ost.pages.recognition import save_page
    from ost.recognition.match import match
    from ost.recognition.prediction import Prediction
    from ost.recognition.recognizer import Recognizer
    from ost.recognition.settings import Settings
    from ost.transport import score
    from ost.types import ClassHead, Evidence, FrameEmbeddings, Frames, Scores
    from ost.video.decode import decode

_HOMES = {
    "Pack": "ost.descriptors.pack",
    **dict.fromkeys(
        ("OstError", "PackError", "TransportError", "UsageError", "VideoError", "WeightsError"), "ost.errors"
    ),
    "match": "ost.recognition.match",
    "save_page": "ost.pages.recognition",
    "Prediction": "ost.recognition.prediction",
    "Recognizer": "ost.recognition.recognizer",
    "Settings": "ost.recognition.settings",
    "score": "ost.transport",
    **dict.fromkeys(("ClassHead", "Evidence", "FrameEmbeddings", "Frames", "Scores"), "ost.types"),
    "decode": "ost.video.decode",
    "describe": "ost.knowledge",
    "Written": "ost.descriptors.write.run",
}

__version__ = version("ost-video")
__all__ = [
    "ClassHead",
    "Evidence",
    "FrameEmbeddings",
    "Frames",
    "OstError",
    "Pack",
    "PackError",
    "Prediction",
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
    "load",
    "match",
    "pack",
    "save_page",
    "score",
]


def load(
    name: str | None = None,
    weights: str | Path | None = None,
    *,
    blend: float | None = None,
    blend_with: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    **settings: Any,
) -> Recognizer:
    """Return a recogniser over a backbone.

    Args:
        name: "lite", a name of the catalog such as "ViT-B-16/openai" (the default), or any open_clip model
            as "ARCHITECTURE/TAG".
        weights: a published name such as "ost/k400", or a weight file.
        blend: share of the original weights, 0 to 1, in a WiSE-FT blend with `weights`.
        blend_with: what to blend with; by default the OpenAI weights of the same sizes.
        device: "auto", "cpu", "cuda", ...
        dtype: "auto", "fp32", "bf16" or "fp16", of the towers.
        settings: any of `ost.Settings`: frames, clips, crops, sampling, method, kinds, eps, min_decoded.

    Raises:
        UsageError: a name or setting is unknown.
        WeightsError: weights cannot be had or do not fit.
    """
    from ost.backbones.load import load_backbone
    from ost.recognition.recognizer import Recognizer, Settings

    validated = Settings(**settings)
    backbone = load_backbone(
        name, weights, blend_ratio=blend, original=blend_with, device=device, dtype=dtype, notify=_notify
    )
    return Recognizer(backbone, validated)


def pack(spec: Spec) -> Pack:
    """Return classes with their descriptors: from names, a file, or the name of a shipped pack.

    Raises:
        PackError: the file is missing or malformed, or a class is empty or doubled.
    """
    from ost.descriptors.spec import resolve

    return resolve(spec)


def _notify(line: str) -> None:
    import logging

    logging.getLogger("ost").warning(line)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ost' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
