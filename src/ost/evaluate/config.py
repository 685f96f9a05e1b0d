"""What an evaluation was asked to do: kept beside its numbers, and enough to do it again."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ost.backbones.catalog import BACKBONES
from ost.descriptors.shipped import shipped
from ost.errors import UsageError, first_line
from ost.evaluate.ways import KINDS, Texts
from ost.recognition.settings import EPS, Settings
from ost.video.decode import MIN_DECODED
from ost.weights.published import PUBLISHED

OWN = "own"


class EvaluateConfig(BaseModel):
    """Every setting of an evaluation.

    Attributes:
        protocol: a protocol's name, or "own".
        videos: root of the benchmark, or a folder of videos for each class.
        manifest: list of one's own videos.
        classes: other descriptors than the shipped ones, as `ost recognize --classes` takes them.
        backbone, weights, blend, blend_with, device, dtype: see `ost.backbones.load.load_backbone`.
        frames, clips, crops, sampling, min_decoded, method, texts, eps: see `Settings`; texts are its kinds.
        ablate: also every other way of matching.
        vanilla: also the untuned weights that tuned ones started from.
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
    frames: int = Field(default=32, ge=1)
    clips: int = Field(default=1, ge=1)
    crops: Literal[1, 3, 5, 10] = 1
    sampling: Literal["uniform", "keyframes"] = "uniform"
    min_decoded: float = Field(default=MIN_DECODED, ge=0, le=1)
    method: Literal["ot", "mean"] = "ot"
    texts: Literal["spatial", "temporal", "both"] = "both"
    eps: float = Field(default=EPS, gt=0, allow_inf_nan=True)
    ablate: bool = False
    vanilla: bool = False
    device: str = "auto"
    dtype: str = "auto"

    @property
    def settings(self) -> Settings:
        """How videos are sampled and matched."""
        texts: Texts = self.texts
        return Settings(
            frames=self.frames,
            clips=self.clips,
            crops=self.crops,
            sampling=self.sampling,
            min_decoded=self.min_decoded,
            method=self.method,
            kinds=KINDS[texts],
            eps=self.eps,
        )

    def anywhere(self) -> EvaluateConfig:
        """The same with paths that hold in any working directory; names stay names, as they are read first."""
        names = {
            "classes": shipped(),
            "weights": (*PUBLISHED, *BACKBONES),
            "blend_with": (*PUBLISHED, *BACKBONES),
        }
        changes: dict[str, object] = {}
        for key in ("videos", "manifest", *names):
            value = getattr(self, key)
            if value and value not in names.get(key, ()) and _is_there(Path(value), folder=key == "videos"):
                changes[key] = type(value)(Path(value).absolute())
        return self.model_copy(update=changes)


def parse_config(data: object, source: str) -> EvaluateConfig:
    """Settings from outside, checked.

    Args:
        data: setting -> value.
        source: where they come from, for errors.

    Raises:
        UsageError: one is unknown or cannot be meant.
    """
    try:
        config = EvaluateConfig.model_validate(data)
        config.settings  # noqa: B018 - refuses what cannot be meant together
        return config
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from None
    except ValidationError as error:
        fault = error.errors()[0]
        where = first_line(Exception(".".join(map(str, fault["loc"])) or "config"), 60)
        raise UsageError(
            f"{source}: its setting {where} cannot be used ({first_line(Exception(fault['msg']))})"
        ) from None


def _is_there(path: Path, *, folder: bool) -> bool:
    try:
        return path.exists() if folder else path.is_file()
    except OSError:  # too long for a path, as a list of many names
        return False
