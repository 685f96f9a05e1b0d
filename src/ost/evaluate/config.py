"""Define the settings of an evaluation, saved with its results and sufficient to repeat it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from ost.backbones.catalog import BACKBONES
from ost.descriptors.shipped import shipped
from ost.errors import UsageError, first_line
from ost.recognition.settings import EPS, MOST, Settings
from ost.types import BOTH
from ost.video.decode import MIN_DECODED
from ost.weights.published import PUBLISHED

OWN = "own"


class EvaluateConfig(BaseModel):
    """The settings of an evaluation.

    Attributes:
        protocol: a protocol's name, or "own".
        videos: root of the benchmark, or a folder of videos for each class.
        manifest: list of the user's own videos.
        classes: descriptors that replace the shipped ones, as `ost recognize --classes` takes them.
        backbone, weights, blend, blend_with, device, dtype: see `ost.backbones.load.load_backbone`.
        frames, clips, crops, sampling, min_decoded, match, texts, eps: see `Settings`; texts are its kinds.
        ablate: also score every other way of matching.
        vanilla: also score the untuned weights that tuned ones started from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    protocol: str = OWN
    videos: Path | None = None
    manifest: Path | None = None
    classes: str = ""
    backbone: str | None = None
    weights: str | None = None
    blend: float | None = Field(default=None, ge=0, le=1)
    blend_with: str | None = None
    frames: int = Field(default=32, ge=1, le=MOST)
    clips: int = Field(default=1, ge=1, le=MOST)
    crops: Literal[1, 3, 5, 10] = 1
    sampling: Literal["uniform", "keyframes"] = "uniform"
    min_decoded: float = Field(default=MIN_DECODED, ge=0, le=1)
    match: Literal["ot", "mean"] = Field(default="ot", validation_alias=AliasChoices("match", "method"))
    texts: Literal["spatial", "temporal", "both"] = "both"
    eps: float = Field(default=EPS, gt=0, allow_inf_nan=True)
    ablate: bool = False
    vanilla: bool = False
    device: str = "auto"
    dtype: str = "auto"

    @property
    def settings(self) -> Settings:
        """Return the settings of sampling and matching."""
        return Settings(
            frames=self.frames,
            clips=self.clips,
            crops=self.crops,
            sampling=self.sampling,
            min_decoded=self.min_decoded,
            match=self.match,
            kinds=BOTH if self.texts == "both" else (self.texts,),
            eps=self.eps,
        )

    def anywhere(self) -> EvaluateConfig:
        """Return a copy with absolute paths; a value that is also a known name is kept, since names take precedence."""
        names = {
            "classes": shipped(),
            "weights": (*PUBLISHED, *BACKBONES),
            "blend_with": (*PUBLISHED, *BACKBONES),
        }
        changes: dict[str, object] = {}
        for key in ("videos", "manifest", *names):
            value = getattr(self, key)
            if value and value not in names.get(key, ()) and _exists(Path(value), folder=key == "videos"):
                changes[key] = type(value)(Path(value).absolute())
        return self.model_copy(update=changes)


def parse_config(data: object, source: str) -> EvaluateConfig:
    """Return settings validated from external data.

    Args:
        data: setting -> value.
        source: origin of the data, for error messages.

    Raises:
        UsageError: a setting is unknown or invalid.
    """
    try:
        config = EvaluateConfig.model_validate(data)
        config.settings  # noqa: B018 - raises on contradictory settings
        return config
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from None
    except ValidationError as error:
        fault = error.errors()[0]
        where = first_line(Exception(".".join(map(str, fault["loc"])) or "config"), 60)
        raise UsageError(
            f"{source}: its setting {where} cannot be used ({first_line(Exception(fault['msg']))})"
        ) from None


def _exists(path: Path, *, folder: bool) -> bool:
    try:
        return path.exists() if folder else path.is_file()
    except OSError:  # too long for a path, such as a list of many names
        return False
