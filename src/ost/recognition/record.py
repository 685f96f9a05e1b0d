"""Results as records: what `ost recognize --json` prints for each video, and tables of many."""

from __future__ import annotations

import math
from collections.abc import Iterable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import TypedDict  # pydantic takes typing's own only from Python 3.12 on

from ost.errors import VideoError

if TYPE_CHECKING:
    import pyarrow as pa

    from ost.recognition.prediction import Prediction

PROGRAM_VERSION = version("ost-video")
TOP_CLASSES = 5  # classes of a record, and of a row of a table


class ClassRecord(TypedDict):
    """One class: the label as the user wrote it, the readable name, the logit and the probability."""

    label: str
    name: str
    logit: float
    probability: float


class PixelsRecord(TypedDict):
    """What the image tower takes: see `ost.types.Preprocess`."""

    size: int
    resize: int | None
    interpolation: str
    antialias: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class SecondsRecord(TypedDict):
    """Wall-clock seconds by stage."""

    decoding: float
    towers: float
    matching: float


class VideoRecord(TypedDict):
    """One recognised video: what was asked of which model, what was seen, and the likeliest classes first."""

    version: str
    path: str
    backbone: str
    weights: str
    fingerprint: str
    pack: str
    precision: str
    pixels: PixelsRecord
    match: Literal["ot", "mean"]
    kinds: list[Literal["spatial", "temporal", "name"]]
    eps: float | None
    frames: int
    views: str
    sampling: Literal["uniform", "keyframes"]
    times: list[float | None]
    classes: list[ClassRecord]
    seconds: SecondsRecord
    notices: list[str]


class FailureRecord(TypedDict):
    """One video that could not be used, and why."""

    version: str
    path: str
    error: str


def prediction_record(prediction: Prediction, top: int | None = None) -> VideoRecord:
    """Return the record of a prediction, with all classes or the `top` likeliest.

    `eps` is None for mean-pool matching, which has none, and where it is infinite.
    """
    model, settings = prediction.model, prediction.settings
    pixels = model.preprocess
    has_eps = settings.match == "ot" and math.isfinite(settings.eps)
    return VideoRecord(
        version=PROGRAM_VERSION,
        path=prediction.path,
        backbone=model.backbone,
        weights=model.weights_hash,
        fingerprint=model.fingerprint,
        pack=prediction.pack_hash,
        precision=model.precision,
        pixels=PixelsRecord(
            size=pixels.size,
            resize=pixels.resize,
            interpolation=pixels.interpolation,
            antialias=pixels.antialias,
            mean=pixels.mean,
            std=pixels.std,
        ),
        match=settings.match,
        kinds=list(settings.matched),
        eps=settings.eps if has_eps else None,
        frames=settings.frames,
        views=f"{settings.clips}x{settings.crops}",
        sampling=settings.sampling,
        times=[None if math.isnan(time) else time for time in prediction.sample.times],
        classes=[
            ClassRecord(label=c.label, name=c.name, logit=c.logit, probability=c.probability)
            for c in prediction.classes[:top]
        ],
        seconds=SecondsRecord(**prediction.seconds.as_dict()),
        notices=list(prediction.notices),
    )


def failure_record(failure: VideoError) -> FailureRecord:
    """Return the record of a video that could not be used."""
    return FailureRecord(version=PROGRAM_VERSION, path=failure.path, error=failure.cause)


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a record."""
    from pydantic import TypeAdapter

    return TypeAdapter(VideoRecord | FailureRecord).json_schema()


def to_table(results: Iterable[Prediction | VideoError], top: int = TOP_CLASSES) -> pa.Table:
    """Return a pyarrow table with a row for each result, in order.

    The columns are path, label, name, probability, error (of failures, whose other columns are null), classes (a list
    of the `top` likeliest as label, name, probability and logit), notices and seconds (the sum over the stages).
    """
    import pyarrow as pa

    entry = pa.struct(
        [
            ("label", pa.string()),
            ("name", pa.string()),
            ("probability", pa.float64()),
            ("logit", pa.float64()),
        ]
    )
    schema = pa.schema(
        [
            ("path", pa.string()),
            ("label", pa.string()),
            ("name", pa.string()),
            ("probability", pa.float64()),
            ("error", pa.string()),
            ("classes", pa.list_(entry)),
            ("notices", pa.list_(pa.string())),
            ("seconds", pa.float64()),
        ]
    )
    return pa.Table.from_pylist([_row(result, top) for result in results], schema)


def _row(result: Prediction | VideoError, top: int) -> dict[str, Any]:
    if isinstance(result, VideoError):
        return {"path": _utf8(result.path), "error": _utf8(result.cause)}
    best = result.classes[0]
    return {
        "path": _utf8(result.path),
        "label": best.label,
        "name": best.name,
        "probability": best.probability,
        "classes": [score._asdict() for score in result.top(top)],
        "notices": [_utf8(notice) for notice in result.notices],
        "seconds": sum(result.seconds.as_dict().values()),
    }


def _utf8(text: str) -> str:
    """Return a text that UTF-8 can encode, with the undecodable bytes of a path as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
