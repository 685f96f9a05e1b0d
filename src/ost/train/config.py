"""Define and validate the settings of a training run, which are saved beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ost.backbones.catalog import DEFAULT
from ost.errors import UsageError
from ost.recognition.settings import MOST
from ost.types import BOTH, DescriptorKind

Beta = Annotated[float, Field(ge=0, lt=1)]
Tune = Literal["both", "image", "text", "prompts", "lora", "adapter"]
Loss = Literal["contrastive", "classes"]


class TrainConfig(BaseModel):
    """The settings of a training run; an unknown setting is an error.

    Attributes:
        recipe: name of the recipe that the settings come from.
        classes: SPEC of the classes, as after `--classes`; empty takes the labels of the clips.
        backbone, weights: the initial model; of a checkpoint only the weights are read.

        tune: the parameters that are trained: "both" towers, the "image" or "text" tower alone, learned "prompts"
            alone, "lora" in both towers, or an "adapter" over frozen towers.
        loss: "contrastive" matches the clips of a batch with the classes of the batch (symmetric KL);
            "classes" with all classes (cross-entropy).
        prompt_count, prompt_layers: number of context vectors, and of layers with them in each tower.
        lora_rank: rank of the updates.
        temporal_layers: layers of a transformer over the frames of a clip; 0 turns it off.
        kinds, eps: kinds of descriptors to match, and the entropic weight of the transport.

        frames: T, frames per clip.
        batch: clips per optimiser step, over all ranks.
        contrastive_batch: clips that are each other's negatives, over all ranks; a divisor of `batch`.
        chunk: clips per forward pass on one rank; changes the memory, not the gradient.
        replay: compute a contrastive batch of several chunks twice instead of keeping its graphs (GradCache).
        scales, flip, jitter, grayscale, randaugment: augmentation, see `ost.video.augment.Augmentation`; flip None
            is 0.5, or 0 where a class's name says left or right.
        workers: decoding processes per rank; 0 decodes in the training process.
        min_decoded: share of a file's frames that must decode.
        max_unreadable: share of unreadable training clips that stops the run.

        epochs, warmup_epochs: length of the run, and of the linear rise of the learning rate from 0.
        lr: learning rate of new parameters (prompts, lora, temporal); the towers train at `lr * tower_lr`.
        final_lr: share of `lr` at the end of the cosine.
        betas, adam_eps, weight_decay: AdamW; biases, norms and the scale never decay.
        clip_grad: maximum norm of the gradient; 0 is no limit.
        max_scale: upper limit of the logit scale.
        precision: "fp32", "bf16" (autocast), or "auto": bf16 where the hardware is fast at it.
        checkpointing: recompute activations in the backward pass.
        compile: torch.compile the towers.

        validate_every: epochs between validations; 0 validates only at the end.
        save_every: optimiser steps between checkpoints; 0 saves only every `validate_every` epochs.
        seed: seed of shots, order and augmentation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str = "custom"
    classes: str = ""
    backbone: str = DEFAULT
    weights: str | None = None

    tune: Tune = "both"
    loss: Loss = "contrastive"
    prompt_count: int = Field(default=0, ge=0)
    prompt_layers: int = Field(default=0, ge=0)
    lora_rank: int = Field(default=16, ge=1)
    temporal_layers: int = Field(default=0, ge=0)
    kinds: tuple[DescriptorKind, ...] = BOTH
    eps: float = Field(default=0.1, gt=0)

    frames: int = Field(default=32, ge=1, le=MOST)
    batch: int = Field(default=64, ge=1)
    contrastive_batch: int = Field(default=64, ge=1)
    chunk: int = Field(default=4, ge=1)
    replay: bool = True
    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    flip: float | None = Field(default=None, ge=0, le=1)
    jitter: float = Field(default=0.8, ge=0, le=1)
    grayscale: float = Field(default=0.2, ge=0, le=1)
    randaugment: tuple[int, int] | None = None
    workers: int = Field(default=2, ge=0)
    min_decoded: float = Field(default=0.5, ge=0, le=1)
    max_unreadable: float = Field(default=0.1, ge=0, le=1)

    epochs: int = Field(default=50, ge=1)
    warmup_epochs: float = Field(default=5, ge=0)
    lr: float = Field(default=5e-6, gt=0)
    tower_lr: float = Field(default=1.0, ge=0)
    final_lr: float = Field(default=0.01, ge=0, le=1)
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    adam_eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    clip_grad: float = Field(default=1.0, ge=0)
    max_scale: float = Field(default=100.0, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    checkpointing: bool = False
    compile: bool = False

    validate_every: int = Field(default=1, ge=0)
    save_every: int = Field(default=0, ge=0)
    seed: int = Field(default=1024, ge=0)

    @model_validator(mode="after")
    def _check_combinations(self) -> TrainConfig:
        if self.backbone == "lite" and self.tune != "adapter":
            raise ValueError(
                "the towers of lite cannot be trained; train an adapter over them: `ost train adapter`"
            )
        if self.batch % self.contrastive_batch:
            raise ValueError(
                f"batch {self.batch} is not a multiple of contrastive_batch {self.contrastive_batch}"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs:g} is not less than epochs {self.epochs}")
        if (self.tune == "prompts") != (self.prompt_count > 0 and self.prompt_layers > 0):
            raise ValueError("tune=prompts and prompt_count and prompt_layers go together")
        if not self.kinds or not set(self.kinds) <= set(BOTH):
            raise ValueError("kinds are spatial, temporal or both")
        if self.loss == "classes" and self.tune in ("both", "text", "lora", "prompts"):
            raise ValueError(
                "loss=classes matches with a class head that stands still: use tune=image or adapter"
            )
        if self.tune in ("adapter", "prompts", "lora", "text") and self.temporal_layers:
            raise ValueError(
                f"a transformer over time is trained with the image tower, not with tune={self.tune}"
            )
        return self

    @property
    def named_backbone(self) -> str | None:
        """Return the backbone as `load_backbone` takes it: None if the weights determine it."""
        default = type(self).model_fields["backbone"].default
        return None if self.weights is not None and self.backbone == default else self.backbone

    def but(self, **changes: Any) -> TrainConfig:
        """Return a copy with some settings changed, validated again.

        Raises:
            UsageError: a setting is unknown or out of range.
        """
        return checked({**self.model_dump(), **changes})

    def as_json(self) -> str:
        """Return the config as indented JSON."""
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"


def checked(values: Mapping[str, Any]) -> TrainConfig:
    """Return a config validated from plain values.

    Raises:
        UsageError: a setting is unknown or out of range; the message names it.
    """
    try:
        return TrainConfig.model_validate(dict(values))
    except ValidationError as error:
        raise UsageError(_describe(error)) from error


def with_settings(config: TrainConfig, settings: list[str]) -> TrainConfig:
    """Return a config with `key=value` settings applied; a value that is not JSON is read as text.

    Raises:
        UsageError: one is not `key=value`, unknown, or out of range.
    """
    changes: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set is key=value, not {setting!r}")
        changes[key.strip()] = _value(value.strip())
    return config.but(**changes)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None if text.lower() == "none" else text


def _describe(error: ValidationError) -> str:
    from ost.catalog import did_you_mean

    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"there is no setting {name!r}{did_you_mean(name, list(TrainConfig.model_fields))}"
    fault = first["msg"].removeprefix("Value error, ")
    return f"setting {name}: {fault}, not {first['input']!r}" if name else fault
